/* Element types and conversion. The half formats go through f32 by bit operations that the compiler
 * turns into vectors. */
#include "service/tensor/dtype.h"

#include <stdint.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/simd.h"

static const struct {
    const char *wire, *safetensors, *npy;
    size_t size;
} dtypes[] = {
#define DTYPE(name, wire, safetensors, npy, bytes) {wire, safetensors, npy, bytes},
#include "service/tensor/dtype.def"
#undef DTYPE
};

size_t dtype_size(enum dtype dtype)
{
    PRE(dtype < DTYPE_COUNT);
    return dtypes[dtype].size;
}

const char *dtype_name(enum dtype dtype)
{
    PRE(dtype < DTYPE_COUNT);
    return dtypes[dtype].wire;
}

const char *dtype_safetensors_name(enum dtype dtype)
{
    PRE(dtype < DTYPE_COUNT);
    return dtypes[dtype].safetensors;
}

const char *dtype_npy_descr(enum dtype dtype)
{
    PRE(dtype < DTYPE_COUNT);
    return dtypes[dtype].npy;
}

bool dtype_find(const char *name, size_t length, enum dtype *out)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strlen(dtypes[i].wire) == length && memcmp(dtypes[i].wire, name, length) == 0) {
            *out = (enum dtype)i;
            return true;
        }
    return false;
}

bool dtype_find_safetensors(const char *name, size_t length, enum dtype *out)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strlen(dtypes[i].safetensors) == length &&
            memcmp(dtypes[i].safetensors, name, length) == 0) {
            *out = (enum dtype)i;
            return true;
        }
    return false;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exponents differ by 112, so a half's bits moved up 13 places are the value times 2^-112;
 * subnormals come out right because the product is exact. All-ones exponents (infinity, NaN) are
 * put back by hand. */
static inline float f32_of_f16(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t finite = bits_of(float_of(magnitude) * 0x1p112f);
    uint32_t special = magnitude | 0x7F800000;

    return float_of(sign | ((half & 0x7C00) == 0x7C00 ? special : finite));
}

/* Round to nearest even. Below the normal range, adding 0.5 lets the adder do the rounding at the
 * right place. */
static inline uint16_t f16_of_f32(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t special = magnitude > 0x7F800000 ? 0x7E00 : 0x7C00;
    uint32_t small = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    uint32_t half = magnitude >= 0x47800000 ? special : magnitude < 0x38800000 ? small : normal;

    return (uint16_t)(sign | half);
}

static inline float f32_of_bf16(uint16_t half)
{
    return float_of((uint32_t)half << 16);
}

static inline uint16_t bf16_of_f32(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t nan = bits >> 16 | 0x40;
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;

    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

/* double to float, rounding to odd: a second rounding to fewer bits is then right (Boldo &
 * Melquiond 2008). */
static inline float f32_odd(double value)
{
    float nearest = (float)value;
    double back = (double)nearest;

    if (back == value || value != value)
        return nearest;
    uint32_t bits = bits_of(nearest);
    int away = value < 0 ? back < value : back > value;
    return float_of((bits - (uint32_t)away) | 1);
}

#define LOAD(type, pointer, i)                                                                     \
    __extension__({                                                                                \
        type loaded;                                                                               \
        memcpy(&loaded, (const unsigned char *)(pointer) + (i) * sizeof loaded, sizeof loaded);    \
        loaded;                                                                                    \
    })
#define CONVERTER(name, to_type, from_type, expression)                                            \
    KERNEL static void name(void *restrict to, const void *restrict from, size_t count)            \
    {                                                                                              \
        for (size_t i = 0; i < count; i++) {                                                       \
            from_type x = LOAD(from_type, from, i);                                                \
            to_type y = (expression);                                                              \
            memcpy((unsigned char *)to + i * sizeof y, &y, sizeof y);                              \
        }                                                                                          \
    }

CONVERTER(f64_from_f32, double, float, (double)x)
CONVERTER(f64_from_f16, double, uint16_t, (double)f32_of_f16(x))
CONVERTER(f64_from_bf16, double, uint16_t, (double)f32_of_bf16(x))
CONVERTER(f32_from_f64, float, double, (float)x)
CONVERTER(f32_from_f16, float, uint16_t, f32_of_f16(x))
CONVERTER(f32_from_bf16, float, uint16_t, f32_of_bf16(x))
CONVERTER(f16_from_f64, uint16_t, double, f16_of_f32(f32_odd(x)))
CONVERTER(f16_from_f32, uint16_t, float, f16_of_f32(x))
CONVERTER(f16_from_bf16, uint16_t, uint16_t, f16_of_f32(f32_of_bf16(x)))
CONVERTER(bf16_from_f64, uint16_t, double, bf16_of_f32(f32_odd(x)))
CONVERTER(bf16_from_f32, uint16_t, float, bf16_of_f32(x))
CONVERTER(bf16_from_f16, uint16_t, uint16_t, bf16_of_f32(f32_of_f16(x)))

void dtype_convert(enum dtype to_dtype, void *to, enum dtype from_dtype, const void *from,
                   size_t count)
{
    static void (*const table[DTYPE_COUNT][DTYPE_COUNT])(void *restrict, const void *restrict,
                                                         size_t) = {
        [DTYPE_F32] =
            {[DTYPE_F64] = f32_from_f64, [DTYPE_F16] = f32_from_f16, [DTYPE_BF16] = f32_from_bf16},
        [DTYPE_F64] =
            {[DTYPE_F32] = f64_from_f32, [DTYPE_F16] = f64_from_f16, [DTYPE_BF16] = f64_from_bf16},
        [DTYPE_F16] =
            {[DTYPE_F32] = f16_from_f32, [DTYPE_F64] = f16_from_f64, [DTYPE_BF16] = f16_from_bf16},
        [DTYPE_BF16] =
            {[DTYPE_F32] = bf16_from_f32, [DTYPE_F64] = bf16_from_f64, [DTYPE_F16] = bf16_from_f16},
    };

    PRE(to_dtype < DTYPE_COUNT && from_dtype < DTYPE_COUNT);
    if (count == 0)
        return;
    if (to_dtype == from_dtype)
        memcpy(to, from, count * dtypes[to_dtype].size);
    else
        table[to_dtype][from_dtype](to, from, count);
}
