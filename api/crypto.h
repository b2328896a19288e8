/* Digests, random bytes and a comparison that tells nothing by its time. crypto.c and tls.c are the
 * only users of GnuTLS. */
#ifndef DESCENT_API_CRYPTO_H
#define DESCENT_API_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/span.h"

enum { SHA256_BYTES = 32, SHA512_BYTES = 64 };

/* False when the library fails: `out` is undefined then. */
bool crypto_sha256(struct span bytes, unsigned char out[SHA256_BYTES]);

/* A digest of bytes that come in pieces. NULL: the library failed. */
struct crypto_hash;
struct crypto_hash *crypto_hash_new(bool sha512);
bool crypto_hash_add(struct crypto_hash *hash, struct span bytes);
/* Writes SHA256_BYTES or SHA512_BYTES. out NULL: only frees. */
void crypto_hash_end(struct crypto_hash *take_hash, unsigned char *out);

/* Bytes that nobody can guess; false when there are none to be had. */
bool crypto_random(void *out, size_t size);

/* Takes the same time wherever the first difference is. */
bool crypto_equal(const void *a, const void *b, size_t size);

/* Of the library. */
const char *crypto_version(void);

#endif
