/* Records at rest: little-endian numbers and length-prefixed bytes, one after the other. A writer
 * grows by itself and remembers that memory ran out; a reader never reads past its end and
 * remembers that it tried. Both are checked once, at the end. */
#ifndef DESCENT_CORE_PACK_H
#define DESCENT_CORE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/span.h"

struct packer {
    unsigned char *data; /* malloc'ed; the owner frees it with packer_close */
    size_t used, capacity;
    bool failed; /* out of memory */
};

void packer_close(struct packer *packer);
/* Room for `size` bytes more, so that packing them cannot fail; false when memory is out, which
 * fails nothing else. */
bool packer_reserve(struct packer *packer, size_t size);
struct span packer_span(const struct packer *packer);

void pack_u32(struct packer *packer, uint32_t value);
void pack_u64(struct packer *packer, uint64_t value);
void pack_f64(struct packer *packer, double value);
void pack_bytes(struct packer *packer, const void *data,
                size_t size);                            /* u32 length, then the bytes */
void pack_text(struct packer *packer, const char *text); /* NULL is kept apart from "" */
void pack_fixed(struct packer *packer, const void *data, size_t size); /* no length */

struct unpacker {
    const unsigned char *data;
    size_t size, used;
    bool failed;     /* the record was too short */
    uint32_t format; /* of the record, where its reader has set it */
};

uint32_t unpack_u32(struct unpacker *unpacker);
uint64_t unpack_u64(struct unpacker *unpacker);
double unpack_f64(struct unpacker *unpacker);
struct span unpack_bytes(struct unpacker *unpacker);                  /* points into the record */
void unpack_fixed(struct unpacker *unpacker, void *out, size_t size); /* zeros when too short */
/* A text of at most size-1 bytes into out; false when it was NULL (out is ""). Too long: failed. */
bool unpack_text(struct unpacker *unpacker, char *out, size_t size);

#endif
