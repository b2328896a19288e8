/* XXH3 by the xxHash library, inlined. */
#include "service/core/hash.h"

#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

#include "service/core/contract.h"

static struct digest digest_of(XXH128_hash_t value)
{
    XXH128_canonical_t canonical;
    struct digest digest;

    XXH128_canonicalFromHash(&canonical, value);
    memcpy(digest.bytes, canonical.digest, sizeof digest.bytes);
    return digest;
}

struct digest hash_bytes(const void *data, size_t size)
{
    return digest_of(XXH3_128bits(data, size));
}

uint64_t hash_u64(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

struct hash *hash_new(void)
{
    XXH3_state_t *state = XXH3_createState();

    if (state != NULL)
        XXH3_128bits_reset(state);
    return (struct hash *)state;
}

void hash_add(struct hash *hash, const void *data, size_t size)
{
    PRE(hash != NULL);
    XXH3_128bits_update((XXH3_state_t *)hash, data, size);
}

struct digest hash_end(struct hash *take_hash)
{
    PRE(take_hash != NULL);
    struct digest digest = digest_of(XXH3_128bits_digest((XXH3_state_t *)take_hash));
    XXH3_freeState((XXH3_state_t *)take_hash);
    return digest;
}
