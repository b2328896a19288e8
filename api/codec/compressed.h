/* Compressed gradients as safetensors: __metadata__.codec says how. Every tensor of the layout is
 * there, by its parts:
 *
 *   int8   w: I8 of its shape, w.scale: a float                      value w * w.scale
 *   sign   w.sign: U8 [ceil(n / 8)], from the lowest bit, 1 is       +-w.scale
 *          negative; w.scale: a float
 *   topk   w.indices: ascending elements of w; w.values: as many     the values, else 0
 *   2bit   w: U8 [4 ceil(n / 16)], from the highest bits, as MXNet   11: T, 10: -T, else 0;
 *          packs; T is w.threshold, or __metadata__.threshold, or 0.5
 *   1bit   w: U8 [4 ceil(n / 32)], from the highest bit, as MXNet    1: 1, 0: -1
 *   rows   w.rows: ascending numbers of w's first dimension,         the rows, else 0
 *          w.values: those rows; or w itself, whole
 *
 * A float is F64, F32, F16 or BF16 of shape [] or [1]; elements and rows are I32, I64, U32 or U64.
 * Bits after the last element are not looked at. */
#ifndef DESCENT_API_CODEC_COMPRESSED_H
#define DESCENT_API_CODEC_COMPRESSED_H

#include "api/codec/safetensors_header.h"

/* The packed form (service/tensor/packed.h) of what a file says, whose header has a codec.
 * INVALID_FIELD (where = "/__metadata__/codec", "/<entry>", "/<entry>/<index>"), MISSING_TENSOR,
 * UNKNOWN_TENSOR, SHAPE_MISMATCH. */
enum status compressed_decode(struct arena *arena, const struct safetensors_header *header,
                              const struct layout *layout, struct buffer *body, struct tensors *out,
                              struct fault *fault);

#endif
