/* Between reading a compressed gradient (compressed.c) and packing it (compressed_pack.c). */
#ifndef DESCENT_API_CODEC_COMPRESSED_PARTS_H
#define DESCENT_API_CODEC_COMPRESSED_PARTS_H

#include "api/codec/safetensors_header.h"

/* What a tensor came as. */
struct compressed_parts {
    const struct safetensors_entry *codes;  /* q, bits, codes, indices, rows; NULL: none */
    const struct safetensors_entry *floats; /* scale, threshold, values, all of it; NULL: none */
};

struct compressed {
    const struct layout *layout;
    enum gradient_form form;
    enum dtype wire;                /* the widest of the floats */
    double threshold;               /* two_bit: of tensors without one of their own */
    const unsigned char *data;      /* of the file, after its header */
    struct compressed_parts *parts; /* of each tensor */
};

/* Number k of whole numbers of any kind; what is negative comes out as 2^63 or more. */
uint64_t compressed_index(const struct safetensors_entry *entry, const unsigned char *data,
                          size_t k);

/* The packed form of parts that are in order. INTERNAL when memory is out. */
enum status compressed_pack(const struct compressed *compressed, struct tensors *out,
                            struct fault *fault);

#endif
