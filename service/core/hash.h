/* XXH3-128, the project's only checksum: chunks at rest, payload and key digests, state hashes. Not
 * for secrets. */
#ifndef DESCENT_CORE_HASH_H
#define DESCENT_CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* In the canonical (big-endian) byte order of the XXH3 specification: the same bytes on every
 * machine. */
struct digest {
    unsigned char bytes[16];
};

struct digest hash_bytes(const void *data, size_t size);

/* The first eight bytes' worth, as a number: chunk checksums. */
uint64_t hash_u64(const void *data, size_t size);

/* The digest of several parts in order: hash_new, hash_add ..., hash_end. hash_new returns NULL
 * when memory is out. */
struct hash;
struct hash *hash_new(void);
void hash_add(struct hash *hash, const void *data, size_t size);
struct digest hash_end(struct hash *take_hash); /* frees it */

#endif
