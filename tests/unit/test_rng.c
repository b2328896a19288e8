/* Philox 4x32-10 against the known answers of Random123 1.14 (tests/kat_vectors), and the two
 * distributions against their moments and by Kolmogorov-Smirnov, with fixed seeds. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "service/core/rng.h"

enum { DRAWS = 1000000 };

static const struct {
    uint64_t seed, stream, index;
    uint32_t out[4];
} answers[] = {
    {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    /* digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0 */
    {0x299f31d0a4093822,
     0x0370734413198a2e,
     0x85a308d3243f6a88,
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

START_TEST(blocks_are_the_known_answers)
{
    uint32_t out[4];

    rng_block(answers[_i].seed, answers[_i].stream, answers[_i].index, out);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(out[i], answers[_i].out[i]);
}
END_TEST

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double uniform_cdf(double x)
{
    return x;
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}

/* Draws, checks the first four moments within five standard errors (se: of one draw's power) and
 * the whole shape: sqrt(n) D above 1.95 has probability 0.001; the seed is fixed, so that this
 * passes for ever or never. */
static void check_distribution(double (*draw)(uint64_t, uint64_t, uint64_t), double (*cdf)(double),
                               const double moments[4], const double errors[4])
{
    double *drawn = malloc(DRAWS * sizeof *drawn), sums[4] = {0}, distance = 0;

    ck_assert_ptr_nonnull(drawn);
    for (uint64_t i = 0; i < DRAWS; i++) {
        double x = drawn[i] = draw(42, 7, i), power = 1;
        for (int k = 0; k < 4; k++)
            sums[k] += power *= x;
    }
    for (int k = 0; k < 4; k++)
        ck_assert_msg(fabs(sums[k] / DRAWS - moments[k]) <= 5 * errors[k] / sqrt(DRAWS),
                      "moment %d is %g, not %g", k + 1, sums[k] / DRAWS, moments[k]);
    qsort(drawn, DRAWS, sizeof *drawn, ascending);
    for (size_t i = 0; i < DRAWS; i++) {
        double at = cdf(drawn[i]);
        distance = fmax(distance, at - (double)i / DRAWS);
        distance = fmax(distance, (double)(i + 1) / DRAWS - at);
    }
    free(drawn);
    ck_assert_msg(sqrt(DRAWS) * distance < 1.95, "Kolmogorov-Smirnov: %g", sqrt(DRAWS) * distance);
}

START_TEST(uniform_numbers_are_uniform)
{
    /* E x^k = 1/(k+1); Var x^k = 1/(2k+1) - 1/(k+1)^2 */
    const double moments[4] = {1 / 2.0, 1 / 3.0, 1 / 4.0, 1 / 5.0};
    const double errors[4] = {sqrt(1 / 3.0 - 1 / 4.0), sqrt(1 / 5.0 - 1 / 9.0),
                              sqrt(1 / 7.0 - 1 / 16.0), sqrt(1 / 9.0 - 1 / 25.0)};

    check_distribution(rng_uniform, uniform_cdf, moments, errors);
}
END_TEST

START_TEST(normal_numbers_are_normal)
{
    /* E x^2 = 1, E x^4 = 3; Var x^k = E x^2k - (E x^k)^2 with E x^6 = 15, E x^8 = 105 */
    const double moments[4] = {0, 1, 0, 3};
    const double errors[4] = {1, sqrt(2), sqrt(15), sqrt(96)};

    check_distribution(rng_normal, normal_cdf, moments, errors);
}
END_TEST

START_TEST(uniform_numbers_stay_below_one)
{
    size_t wrong = 0;

    for (uint64_t i = 0; i < DRAWS; i++) {
        double x = rng_uniform(i, 1, 3);
        wrong += x < 0 || x >= 1;
        wrong += ldexp(x, 53) != floor(ldexp(x, 53));
        wrong += isfinite(rng_normal(i, 1, 3)) ? 0 : 1;
    }
    ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* Correlation of neighbours in each argument: 1e5 pairs, five standard errors. */
START_TEST(seed_stream_and_index_draw_apart)
{
    enum { PAIRS = 100000 };
    double sums[3] = {0};

    for (uint64_t i = 0; i < PAIRS; i++) {
        double x = rng_normal(i, 2 * i, 3 * i);
        sums[0] += x * rng_normal(i + 1, 2 * i, 3 * i);
        sums[1] += x * rng_normal(i, 2 * i + 1, 3 * i);
        sums[2] += x * rng_normal(i, 2 * i, 3 * i + 1);
    }
    for (int k = 0; k < 3; k++)
        ck_assert_msg(fabs(sums[k]) < 5 * sqrt(PAIRS), "argument %d: %g", k, sums[k]);
}
END_TEST

START_TEST(the_same_counter_draws_the_same)
{
    double first = rng_normal(9, 8, 7);

    (void)rng_normal(1, 2, 3);
    ck_assert(rng_normal(9, 8, 7) == first);
}
END_TEST

Suite *suite_rng(void);
Suite *suite_rng(void)
{
    Suite *suite = suite_create("rng");
    TCase *cases = tcase_create("philox");

    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, blocks_are_the_known_answers, 0, 3);
    tcase_add_test(cases, uniform_numbers_are_uniform);
    tcase_add_test(cases, normal_numbers_are_normal);
    tcase_add_test(cases, uniform_numbers_stay_below_one);
    tcase_add_test(cases, seed_stream_and_index_draw_apart);
    tcase_add_test(cases, the_same_counter_draws_the_same);
    suite_add_tcase(suite, cases);
    return suite;
}
