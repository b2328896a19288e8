/* Digests, random bytes and a comparison that tells nothing by its time, from GnuTLS. */
#include "api/crypto.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

/* GnuTLS has a type of this shape, but hides it. */
static gnutls_hash_hd_t handle_of(struct crypto_hash *hash)
{
    return (gnutls_hash_hd_t)(void *)hash;
}

bool crypto_sha256(struct span bytes, unsigned char out[SHA256_BYTES])
{
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes.data, bytes.size, out) == 0;
}

struct crypto_hash *crypto_hash_new(bool sha512)
{
    gnutls_hash_hd_t handle;

    if (gnutls_hash_init(&handle, sha512 ? GNUTLS_DIG_SHA512 : GNUTLS_DIG_SHA256) != 0)
        return NULL;
    return (struct crypto_hash *)(void *)handle;
}

bool crypto_hash_add(struct crypto_hash *hash, struct span bytes)
{
    return gnutls_hash(handle_of(hash), bytes.data, bytes.size) == 0;
}

void crypto_hash_end(struct crypto_hash *take_hash, unsigned char *out)
{
    gnutls_hash_deinit(handle_of(take_hash), out);
}

bool crypto_random(void *out, size_t size)
{
    return gnutls_rnd(GNUTLS_RND_KEY, out, size) == 0;
}

bool crypto_equal(const void *a, const void *b, size_t size)
{
    return gnutls_memcmp(a, b, size) == 0;
}

const char *crypto_version(void)
{
    return gnutls_check_version(NULL);
}
