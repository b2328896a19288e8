/* Conversions against an independent definition: what a bit pattern means by ldexp, and rounding by
 * looking for the nearest of all patterns. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/tensor/dtype.h"
#include "tests/lib/testing.h"

/* ck_assert tells Check's parent of every success: too slow for millions. */
#define HOLDS(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

enum { HALVES = 65536, RANDOM = 1000000 };

static const struct format {
    enum dtype dtype;
    int exponent_bits, fraction_bits;
} formats[] = {{DTYPE_F16, 5, 10}, {DTYPE_BF16, 8, 7}};

/* The value of a pattern, by the definition of IEEE 754. */
static double meaning(const struct format *format, unsigned bits)
{
    int ones = (1 << format->exponent_bits) - 1, bias = ones / 2;
    int exponent = (int)(bits >> format->fraction_bits) & ones;
    unsigned fraction = bits & ((1u << format->fraction_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;

    if (exponent == ones)
        return fraction != 0 ? (double)NAN : sign * HUGE_VAL;
    if (exponent == 0)
        return sign * ldexp(fraction, 1 - bias - format->fraction_bits);
    return sign * ldexp((double)(fraction + (1u << format->fraction_bits)),
                        exponent - bias - format->fraction_bits);
}

static unsigned infinity_of(const struct format *format)
{
    return ((1u << format->exponent_bits) - 1) << format->fraction_bits;
}

/* The pattern nearest to a number, ties to even: by bisection over the ordered patterns, where the
 * infinity's stands for the power of two it would have been. */
static unsigned nearest(const struct format *format, double value)
{
    unsigned low = 0, high = infinity_of(format), sign = signbit(value) ? 0x8000 : 0;
    double size = fabs(value), beyond = ldexp(1, 1 << (format->exponent_bits - 1));

    if (size >= beyond)
        return sign | high;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (meaning(format, middle) <= size)
            low = middle;
        else
            high = middle;
    }
    double above = high == infinity_of(format) ? beyond : meaning(format, high);
    double to_low = size - meaning(format, low), to_high = above - size;
    bool up = to_high < to_low || (to_high == to_low && (low & 1) == 1);
    return sign | (up ? high : low);
}

static void same_bits_f64(double got, double expected)
{
    HOLDS(memcmp(&got, &expected, sizeof got) == 0, "%a, not %a", got, expected);
}

START_TEST(every_half_widens_to_its_meaning)
{
    const struct format *format = &formats[_i];
    static uint16_t in[HALVES];
    static float as_f32[HALVES];
    static double as_f64[HALVES];

    for (unsigned i = 0; i < HALVES; i++)
        in[i] = (uint16_t)i;
    dtype_convert(DTYPE_F32, as_f32, format->dtype, in, HALVES);
    dtype_convert(DTYPE_F64, as_f64, format->dtype, in, HALVES);
    for (unsigned i = 0; i < HALVES; i++) {
        double expected = meaning(format, i);
        if (isnan(expected)) {
            HOLDS(isnan(as_f32[i]) && isnan(as_f64[i]), "%04x is not NaN", i);
            HOLDS((signbit(as_f32[i]) != 0) == ((i & 0x8000) != 0), "%04x loses its sign", i);
        } else {
            same_bits_f64((double)as_f32[i], expected);
            same_bits_f64(as_f64[i], expected);
        }
    }
}
END_TEST

START_TEST(every_half_comes_back_from_f32_and_f64)
{
    const struct format *format = &formats[_i];
    static uint16_t in[HALVES], back[2][HALVES];
    static float as_f32[HALVES];
    static double as_f64[HALVES];

    for (unsigned i = 0; i < HALVES; i++)
        in[i] = (uint16_t)i;
    dtype_convert(DTYPE_F32, as_f32, format->dtype, in, HALVES);
    dtype_convert(DTYPE_F64, as_f64, format->dtype, in, HALVES);
    dtype_convert(format->dtype, back[0], DTYPE_F32, as_f32, HALVES);
    dtype_convert(format->dtype, back[1], DTYPE_F64, as_f64, HALVES);
    for (unsigned i = 0; i < HALVES; i++)
        for (int k = 0; k < 2; k++) {
            if (isnan(meaning(format, i))) {
                unsigned quiet = 1u << (format->fraction_bits - 1);
                HOLDS(isnan(meaning(format, back[k][i])) && (back[k][i] & quiet) != 0,
                      "%04x came back as %04x", i, back[k][i]);
                HOLDS((back[k][i] & 0x8000) == (i & 0x8000), "%04x came back as %04x", i,
                      back[k][i]);
            } else {
                HOLDS(back[k][i] == i, "%04x came back as %04x", i, back[k][i]);
            }
        }
}
END_TEST

static void narrows_right(const struct format *format, double value)
{
    uint16_t from_f64, from_f32;
    float single = (float)value;

    dtype_convert(format->dtype, &from_f64, DTYPE_F64, &value, 1);
    HOLDS(from_f64 == nearest(format, value), "%a became %04x, not %04x", value, from_f64,
          nearest(format, value));
    dtype_convert(format->dtype, &from_f32, DTYPE_F32, &single, 1);
    HOLDS(from_f32 == nearest(format, (double)single), "%a became %04x, not %04x", (double)single,
          from_f32, nearest(format, (double)single));
}

/* Half way between every two neighbours, and a hair to either side: a hair that f32 can see, and
 * one that only f64 sees, where rounding through f32 would round twice. */
START_TEST(ties_go_to_even_and_nothing_rounds_twice)
{
    const struct format *format = &formats[_i];

    for (unsigned i = 0; i < infinity_of(format); i++) {
        bool last = i + 1 == infinity_of(format);
        double low = meaning(format, i);
        double high = last ? ldexp(1, 1 << (format->exponent_bits - 1)) : meaning(format, i + 1);
        double middle = low + (high - low) / 2, hair = (high - low) * 0x1p-12,
               thin = (high - low) * 0x1p-36;
        const double tries[] = {middle,        middle + hair, middle - hair,
                                middle + thin, middle - thin, low + hair,
                                high - hair,   low,           low + thin};
        for (size_t k = 0; k < sizeof tries / sizeof *tries; k++) {
            narrows_right(format, tries[k]);
            narrows_right(format, -tries[k]);
        }
    }
}
END_TEST

START_TEST(random_numbers_narrow_to_the_nearest)
{
    const struct format *format = &formats[_i];
    uint64_t state = testing_seed() ^ 0xD7;

    for (int i = 0; i < RANDOM / 4; i++) {
        uint64_t bits = testing_random(&state);
        double value;
        if (i % 2 == 0) { /* any double; else of the format's own range */
            memcpy(&value, &bits, sizeof value);
            if (isnan(value))
                continue;
        } else {
            value = ldexp(testing_uniform(&state) - 0.5, (int)(bits % 50) - 32);
        }
        narrows_right(format, value);
    }
}
END_TEST

START_TEST(edges_of_the_range_narrow_right)
{
    const struct format *format = &formats[_i];
    const double edges[] = {0.0,
                            HUGE_VAL,
                            DBL_MAX,
                            DBL_MIN,
                            0x1p-1074,
                            (double)FLT_MAX,
                            (double)FLT_MIN,
                            0x1p-149,
                            0x1p-150,
                            65504,
                            65519.999,
                            65520,
                            65520.00001,
                            0x1p-24,
                            0x1p-25,
                            0x1.0000000000001p-25,
                            0x1p-133,
                            0x1p-134,
                            0x1.8p-134,
                            0x1.fep127,
                            0x1.ffp127,
                            0x1.feffffffffp127};

    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        narrows_right(format, edges[i]);
        narrows_right(format, -edges[i]);
    }
}
END_TEST

START_TEST(nan_stays_nan_in_every_direction)
{
    const double nans[] = {(double)NAN, -(double)NAN};

    for (int from = 0; from < DTYPE_COUNT; from++)
        for (int to = 0; to < DTYPE_COUNT; to++)
            for (int k = 0; k < 2; k++) {
                unsigned char in[8], out[8];
                double back;
                dtype_convert((enum dtype)from, in, DTYPE_F64, &nans[k], 1);
                dtype_convert((enum dtype)to, out, (enum dtype)from, in, 1);
                dtype_convert(DTYPE_F64, &back, (enum dtype)to, out, 1);
                HOLDS(isnan(back), "%s to %s loses NaN", dtype_name((enum dtype)from),
                      dtype_name((enum dtype)to));
                HOLDS((signbit(back) != 0) == (k == 1), "%s to %s loses the sign",
                      dtype_name((enum dtype)from), dtype_name((enum dtype)to));
            }
}
END_TEST

/* A signalling NaN whose payload lies only in the bits that are cut must not become infinity. */
START_TEST(a_nan_with_a_low_payload_stays_nan)
{
    for (unsigned payload = 1; payload < 1u << 23; payload = payload * 2 + 1) {
        uint32_t bits = 0x7F800000 | payload;
        uint16_t half;
        for (int i = 0; i < 2; i++) {
            dtype_convert(formats[i].dtype, &half, DTYPE_F32, &bits, 1);
            HOLDS(isnan(meaning(&formats[i], half)), "%08x became %04x", bits, half);
        }
    }
}
END_TEST

START_TEST(halves_convert_to_each_other_by_value)
{
    const struct format *from = &formats[_i], *to = &formats[1 - _i];

    for (unsigned i = 0; i < HALVES; i++) {
        uint16_t in = (uint16_t)i, out;
        dtype_convert(to->dtype, &out, from->dtype, &in, 1);
        if (!isnan(meaning(from, i)))
            HOLDS(out == nearest(to, meaning(from, i)), "%04x became %04x", i, out);
        else
            HOLDS(isnan(meaning(to, out)), "%04x became %04x", i, out);
    }
}
END_TEST

START_TEST(f64_to_f32_rounds_as_the_machine_does)
{
    uint64_t state = testing_seed() ^ 0x64;

    for (int i = 0; i < RANDOM; i++) {
        uint64_t bits = testing_random(&state);
        double value, back;
        float single;
        memcpy(&value, &bits, sizeof value);
        if (i % 2 != 0)
            value = ldexp(testing_uniform(&state), (int)(bits % 300) - 150);
        dtype_convert(DTYPE_F32, &single, DTYPE_F64, &value, 1);
        if (isnan(value)) {
            HOLDS(isnan(single), "%a became %a", value, (double)single);
            continue;
        }
        dtype_convert(DTYPE_F64, &back, DTYPE_F32, &single, 1);
        same_bits_f64(back, (double)single);
        if (isfinite(single)) { /* no neighbour is nearer */
            double off = fabs(value - back);
            HOLDS(off <= fabs(value - (double)nextafterf(single, HUGE_VALF)), "%a became %a", value,
                  (double)single);
            HOLDS(off <= fabs(value - (double)nextafterf(single, -HUGE_VALF)), "%a became %a",
                  value, (double)single);
        } else {
            HOLDS(isinf(value) || fabs(value) >= 0x1.ffffffp127, "%a became %a", value,
                  (double)single);
        }
    }
}
END_TEST

/* Every pair, every odd length and address: as one element at a time, and nothing beside. */
START_TEST(unaligned_and_odd_lengths_convert_alike)
{
    enum { LENGTH = 131, ROOM = LENGTH * 8 + 64 };
    unsigned char source[ROOM], whole[ROOM], single[8];
    uint64_t state = testing_seed() ^ 0x0DD;

    for (int pair = 0; pair < DTYPE_COUNT * DTYPE_COUNT; pair++)
        for (size_t shift = 0; shift < 9; shift++) {
            enum dtype from = (enum dtype)(pair / DTYPE_COUNT),
                       to = (enum dtype)(pair % DTYPE_COUNT);
            size_t in_size = dtype_size(from), out_size = dtype_size(to);
            size_t count = shift == 0 ? 0 : LENGTH - shift;
            for (size_t i = 0; i < count; i++) {
                double value = testing_normal(&state);
                dtype_convert(from, source + shift + i * in_size, DTYPE_F64, &value, 1);
            }
            memset(whole, 0xA5, sizeof whole);
            dtype_convert(to, whole + 9 - shift, from, source + shift, count);
            for (size_t i = 0; i < count; i++) {
                dtype_convert(to, single, from, source + shift + i * in_size, 1);
                HOLDS(memcmp(single, whole + 9 - shift + i * out_size, out_size) == 0,
                      "%s to %s: element %zu differs", dtype_name(from), dtype_name(to), i);
            }
            for (size_t i = 0; i < 9 - shift; i++)
                HOLDS(whole[i] == 0xA5, "%s to %s writes outside", dtype_name(from),
                      dtype_name(to));
            for (size_t i = 9 - shift + count * out_size; i < sizeof whole; i++)
                HOLDS(whole[i] == 0xA5, "%s to %s writes outside", dtype_name(from),
                      dtype_name(to));
        }
}
END_TEST

START_TEST(names_find_their_type)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum dtype dtype = (enum dtype)i, found;
        const char *name = dtype_name(dtype), *other = dtype_safetensors_name(dtype);
        ck_assert(dtype_find(name, strlen(name), &found) && found == dtype);
        ck_assert(dtype_find_safetensors(other, strlen(other), &found) && found == dtype);
        ck_assert(!dtype_find(name, strlen(name) - 1, &found));
        ck_assert(!dtype_find(other, strlen(other), &found));
        ck_assert(!dtype_find_safetensors(name, strlen(name), &found));
        ck_assert_uint_eq(dtype_size(dtype), i == DTYPE_F64 ? 8 : i == DTYPE_F32 ? 4 : 2);
    }
    enum dtype found;
    ck_assert(!dtype_find("", 0, &found));
    ck_assert(!dtype_find("f32 ", 4, &found));
    ck_assert_ptr_null(dtype_npy_descr(DTYPE_BF16));
    ck_assert_str_eq(dtype_npy_descr(DTYPE_F16), "<f2");
}
END_TEST

Suite *suite_dtype(void);
Suite *suite_dtype(void)
{
    Suite *suite = suite_create("dtype");
    TCase *cases = tcase_create("conversion");
    int halves = (int)(sizeof formats / sizeof *formats);

    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, every_half_widens_to_its_meaning, 0, halves);
    tcase_add_loop_test(cases, every_half_comes_back_from_f32_and_f64, 0, halves);
    tcase_add_loop_test(cases, ties_go_to_even_and_nothing_rounds_twice, 0, halves);
    tcase_add_loop_test(cases, random_numbers_narrow_to_the_nearest, 0, halves);
    tcase_add_loop_test(cases, edges_of_the_range_narrow_right, 0, halves);
    tcase_add_loop_test(cases, halves_convert_to_each_other_by_value, 0, halves);
    tcase_add_test(cases, nan_stays_nan_in_every_direction);
    tcase_add_test(cases, a_nan_with_a_low_payload_stays_nan);
    tcase_add_test(cases, f64_to_f32_rounds_as_the_machine_does);
    tcase_add_test(cases, unaligned_and_odd_lengths_convert_alike);
    tcase_add_test(cases, names_find_their_type);
    suite_add_tcase(suite, cases);
    return suite;
}
