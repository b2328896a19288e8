/* Compressed gradients: one canonical run of bytes for each form. It is what the journal keeps and
 * a round holds; blocks of it are read by service/kernel/unpack.h. Little-endian, no alignment is
 * needed anywhere. T tensors of the layout in its order, N elements, `wire` the dtype of scales and
 * values, an index 4 bytes wide (8 where N > 2^32):
 *
 *   int8     wire scale[T] | int8 q[N]
 *   sign     wire scale[T] | u8 bits[ceil(N / 8)]: element i in byte i / 8, from its lowest bit on;
 *            1: negative
 *   two_bit  wire threshold[T] | u8 codes[ceil(N / 4)]: element i in byte i / 4, from its highest
 *            bits on; 3: +threshold, 2: -threshold, else 0 (as MXNet's, but without its padding)
 *   topk     u64 n | index at[n]: ascending elements of the model | wire value[n]
 *   rows     {u64 row, u64 value} first[T + 1] | index row[R] | wire value[V]: the rows of tensor t
 *            are first[t].row .. first[t+1].row-1, ascending numbers of its first dimension (a
 *            scalar is one row); their values follow each other from first[t].value on.
 *            R, V = first[T]. Tensors without elements have none.
 *
 * Elements are numbered over the whole model; bits after the last are 0. The value of an element is
 * q * scale, computed in double and then rounded to the session's dtype; +-scale; +-threshold; the
 * value that is there, or 0. Scales, thresholds and values may be not finite: then so is the
 * gradient. */
#ifndef DESCENT_TENSOR_PACKED_H
#define DESCENT_TENSOR_PACKED_H

#include <stdbool.h>
#include <stdint.h>

#include "service/core/span.h"
#include "service/core/status.h"
#include "service/tensor/gradient.h"

/* Whether the bytes are of this form, entirely: their number, what is in order, in range, and
 * unique. FORM_DENSE: their number. LENGTH_MISMATCH with both numbers; INVALID_FIELD naming the
 * tensor (where = "/<name>") or, where none is at fault, "". */
enum status packed_check(const struct layout *layout, enum gradient_form form, enum dtype wire,
                         struct span bytes, struct fault *fault);

/* Bytes of a form. entries: topk: n, rows: R; values: rows: V. Else both are ignored. */
size_t packed_size(const struct layout *layout, enum gradient_form form, enum dtype wire,
                   size_t entries, size_t values);

/* Where the parts are in checked bytes, or in new ones once their head is written (n, or first). */
struct packed {
    unsigned char *scale;         /* or threshold; NULL: none */
    unsigned char *code;          /* q, bits or codes; NULL: none */
    unsigned char *first;         /* rows only, else NULL */
    unsigned char *index, *value; /* at, or row; NULL: none */
    size_t entries;               /* n, or R */
    size_t index_size;            /* bytes */
};
struct packed packed_open(const struct wire_gradient *gradient);

/* The tensor that has this element: its place in the layout. */
size_t packed_tensor(const struct layout *layout, size_t element);

/* Number k of the indices. */
static inline uint64_t packed_index(const struct packed *packed, size_t k)
{
    uint32_t narrow;
    uint64_t wide;

    if (packed->index_size == sizeof narrow) {
        memcpy(&narrow, packed->index + k * sizeof narrow, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, packed->index + k * sizeof wide, sizeof wide);
    return wide;
}
void packed_set_index(const struct packed *packed, size_t k, uint64_t value);

/* The first of the indices low .. high-1 that is not less than `least`, or high. */
size_t packed_find(const struct packed *packed, size_t low, size_t high, uint64_t least);

/* first[t].row and first[t].value. */
struct packed_first {
    uint64_t row, value;
};
struct packed_first packed_first(const struct packed *packed, size_t tensor);
void packed_set_first(const struct packed *packed, size_t tensor, struct packed_first first);

/* Of a gradient that has rows: how many of the elements start .. end-1 are alike: of rows that are
 * there (*sent), or of rows that are not. At least 1, of one tensor. */
size_t packed_run(const struct wire_gradient *gradient, size_t start, size_t end, bool *sent);

/* Makes an element 0 that is not finite. A scale that is not finite becomes 0, and with it every
 * element of the tensor. */
void packed_zero(const struct wire_gradient *gradient, size_t element);

#endif
