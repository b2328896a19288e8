/* Blocks of compressed gradients. Loops over codes are written for whole words of them, which the
 * compiler makes vectors of; what is before the first byte and after the last word is taken one by
 * one. */
#include "service/kernel/unpack.h"

#include <string.h>

#include "service/core/contract.h"
#include "service/core/simd.h"
#include "service/tensor/packed.h"

enum { CHUNK = 256 };

/* --- loops --- */

KERNEL static void scale_int8(real *restrict out, const signed char *restrict q, real scale,
                              size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (real)q[i] * scale;
}

KERNEL static void scale_int8_wide(real *restrict out, const signed char *restrict q, double scale,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (real)((double)q[i] * scale);
}

/* 32 elements a word, from the lowest bit on. */
KERNEL static void spread_bits(real *restrict out, const unsigned char *restrict bits, real clear,
                               real set, size_t words)
{
    for (size_t w = 0; w < words; w++) {
        uint32_t word;
        memcpy(&word, bits + w * sizeof word, sizeof word);
        for (uint32_t k = 0; k < 32; k++)
            out[32 * w + k] = (word >> k & 1) != 0 ? set : clear;
    }
}

/* 16 elements a word, from the highest bits on: its bytes are taken in their order. */
KERNEL static void spread_pairs(real *restrict out, const unsigned char *restrict pairs, real plus,
                                real minus, size_t words)
{
    for (size_t w = 0; w < words; w++) {
        uint32_t word;
        memcpy(&word, pairs + w * sizeof word, sizeof word);
        word = __builtin_bswap32(word);
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t code = word << 2 * k;
            real value = (code >> 30 & 1) != 0 ? plus : minus;
            out[16 * w + k] = code >> 31 != 0 ? value : 0;
        }
    }
}

/* --- forms with a code for every element: those of one tensor --- */

static real number_at(const unsigned char *numbers, enum dtype wire, size_t index)
{
    real number;

    dtype_convert(REAL_DTYPE, &number, wire, numbers + index * dtype_size(wire), 1);
    return number;
}

static void unpack_int8(const struct wire_gradient *gradient, const struct packed *packed,
                        size_t tensor, size_t start, size_t count, real *out)
{
    const signed char *q = (const signed char *)packed->code + start;
    double wide;

    if (REAL_DTYPE == DTYPE_F32 && gradient->wire != DTYPE_F64) {
        scale_int8(out, q, number_at(packed->scale, gradient->wire, tensor), count);
        return;
    }
    dtype_convert(DTYPE_F64, &wide, gradient->wire,
                  packed->scale + tensor * dtype_size(gradient->wire), 1);
    scale_int8_wide(out, q, wide, count);
}

/* So that nothing is -0. */
static real negative(real value)
{
    return value == 0 ? 0 : -value;
}

static void unpack_sign(const struct wire_gradient *gradient, const struct packed *packed,
                        size_t tensor, size_t start, size_t count, real *out)
{
    real plus = number_at(packed->scale, gradient->wire, tensor), minus = negative(plus);
    size_t end = start + count, at = start;

    for (; at < end && at % 8 != 0; at++)
        *out++ = packed->code[at / 8] >> at % 8 & 1 ? minus : plus;
    spread_bits(out, packed->code + at / 8, plus, minus, (end - at) / 32);
    out += (end - at) / 32 * 32;
    for (at += (end - at) / 32 * 32; at < end; at++)
        *out++ = packed->code[at / 8] >> at % 8 & 1 ? minus : plus;
}

static real pair_at(const struct packed *packed, size_t at, real plus, real minus)
{
    unsigned code = packed->code[at / 4] >> (6 - 2 * (at % 4)) & 3;

    return code == 3 ? plus : code == 2 ? minus : 0;
}

static void unpack_two_bit(const struct wire_gradient *gradient, const struct packed *packed,
                           size_t tensor, size_t start, size_t count, real *out)
{
    real plus = number_at(packed->scale, gradient->wire, tensor), minus = negative(plus);
    size_t end = start + count, at = start;

    for (; at < end && at % 4 != 0; at++)
        *out++ = pair_at(packed, at, plus, minus);
    spread_pairs(out, packed->code + at / 4, plus, minus, (end - at) / 16);
    out += (end - at) / 16 * 16;
    for (at += (end - at) / 16 * 16; at < end; at++)
        *out++ = pair_at(packed, at, plus, minus);
}

/* --- forms with some of the elements --- */

/* out[index[k] - origin] = value number first + (k - low), for k of low .. high-1. */
static void scatter(const struct wire_gradient *gradient, const struct packed *packed, size_t low,
                    size_t high, size_t first, uint64_t origin, real *out)
{
    size_t size = dtype_size(gradient->wire);
    real values[CHUNK];

    for (size_t some; low < high; low += some, first += some) {
        some = high - low < CHUNK ? high - low : CHUNK;
        dtype_convert(REAL_DTYPE, values, gradient->wire, packed->value + first * size, some);
        for (size_t k = 0; k < some; k++)
            out[packed_index(packed, low + k) - origin] = values[k];
    }
}

static void unpack_topk(const struct wire_gradient *gradient, const struct packed *packed,
                        size_t start, size_t count, real *out)
{
    size_t low = packed_find(packed, 0, packed->entries, start);
    size_t high = low + count < packed->entries ? low + count : packed->entries;

    high = packed_find(packed, low, high, start + count);
    scatter(gradient, packed, low, high, low, start, out);
}

/* Of elements start .. end-1 of the tensor what its rows low .. high-1 have, which touch them;
 * value: where those of `low` begin. */
static void copy_rows(const struct wire_gradient *gradient, const struct packed *packed, size_t low,
                      size_t high, size_t length, size_t value, size_t start, size_t end, real *out)
{
    size_t size = dtype_size(gradient->wire);

    for (size_t next; low < high; low = next) {
        size_t row = packed_index(packed, low), from = row * length, to;
        for (next = low + 1; next < high && packed_index(packed, next) == row + (next - low);)
            next++;
        to = from + (next - low) * length;
        size_t skipped = from < start ? start - from : 0;
        dtype_convert(REAL_DTYPE, out + (from + skipped - start), gradient->wire,
                      packed->value + (value + skipped) * size,
                      (to < end ? to : end) - from - skipped);
        value += to - from;
    }
}

/* Elements start .. end-1 of a tensor. */
static void unpack_rows(const struct wire_gradient *gradient, const struct packed *packed,
                        size_t tensor, size_t start, size_t end, real *out)
{
    const struct tensor *of = &gradient->layout->tensors[tensor];
    size_t length = of->rank == 0 ? 1 : of->count / of->shape[0];
    struct packed_first first = packed_first(packed, tensor);
    size_t past = packed_first(packed, tensor + 1).row;
    size_t low = packed_find(packed, first.row, past, start / length);
    size_t high = packed_find(packed, low, past, (end + length - 1) / length);
    size_t value = first.value + (low - first.row) * length;

    if (length == 1)
        scatter(gradient, packed, low, high, value, start, out);
    else
        copy_rows(gradient, packed, low, high, length, value, start, end, out);
}

void REAL(unpack_block)(const struct wire_gradient *gradient, size_t start, size_t count, real *out)
{
    const struct layout *layout = gradient->layout;
    struct packed packed = packed_open(gradient);

    PRE(start + count <= gradient->count);
    if (packed.scale == NULL)
        memset(out, 0, count * sizeof *out);
    if (gradient->form == FORM_TOPK) {
        unpack_topk(gradient, &packed, start, count, out);
        return;
    }
    if (packed.entries == 0 && gradient->form == FORM_ROWS)
        return;
    for (size_t t = packed_tensor(layout, start), some; count > 0; t++, count -= some) {
        size_t from = start - layout->tensors[t].offset;
        some = layout->tensors[t].count - from < count ? layout->tensors[t].count - from : count;
        if (some == 0) /* an empty tensor */
            continue;
        if (gradient->form == FORM_INT8)
            unpack_int8(gradient, &packed, t, start, some, out);
        else if (gradient->form == FORM_SIGN)
            unpack_sign(gradient, &packed, t, start, some, out);
        else if (gradient->form == FORM_TWO_BIT)
            unpack_two_bit(gradient, &packed, t, start, some, out);
        else
            unpack_rows(gradient, &packed, t, from, from + some, out);
        start += some;
        out += some;
    }
}
