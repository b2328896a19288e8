/* The noise of the update rules: against Box & Muller on the blocks of rng.h, in distribution, in
 * independence, and cut at random; and sgld, whose chains on a Gaussian have a known law. Seeds are
 * fixed where a bound is statistical, so that it holds for ever or never. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/rng.h"
#include "service/kernel/noise.h"
#include "service/optim/optimizer.h"
#include "tests/lib/testing.h"

/* Of double; real.h is included for float. */
void noise_normal_f64(double *out, uint64_t seed, uint64_t step, uint64_t start, size_t count);

extern const struct optimizer sgld_f32, sgld_f64;

enum { DRAWS = 1000000, SEEDS = 3, CUT = 5000, CHAINS = 100000 };

static const uint64_t seeds[SEEDS] = {42, 0, 0xfedcba9876543210};

static double *numbers(size_t count)
{
    double *made = malloc(count * sizeof *made);

    ck_assert_ptr_nonnull(made);
    return made;
}

static double *drawn(uint64_t seed, uint64_t step, uint64_t start, size_t count)
{
    double *out = numbers(count);

    noise_normal_f64(out, seed, step, start, count);
    return out;
}

/* --- which numbers --- */

static uint64_t top53(const uint32_t *words)
{
    return ((uint64_t)words[0] << 32 | words[1]) >> 11;
}

/* Cosine and sine of 2 pi v, v a 53-bit fraction, brought to an eighth of a turn first: near a zero
 * the rounding of 2 pi v itself would show. */
static void direction(double v, long double turn[2])
{
    const long double pi = 3.14159265358979323846264338327950288L;
    double quarter = nearbyint(4 * v);
    long double angle = 2 * pi * (long double)(v - quarter / 4);
    long double c = cosl(angle), s = sinl(angle);
    int quadrant = (int)quarter & 3;

    turn[0] = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
    turn[1] = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
}

/* What noise.h says, in long double. 4 ulp: the logarithm's one counts half under the root, which,
 * its product and the cosine's two add up to three at most. */
START_TEST(numbers_are_box_and_muller_of_the_blocks)
{
    uint64_t state = testing_seed() ^ 0xb0c5;

    for (int i = 0; i < 20000; i++) {
        uint64_t seed = testing_random(&state), step = testing_random(&state) >> 11;
        uint64_t j = testing_random(&state) >> (1 + i % 63);
        uint32_t block[4];
        double got[2];
        rng_block(seed, NOISE_STREAM + step, j, block);
        noise_normal_f64(got, seed, step, 2 * j, 2);
        long double radius = sqrtl(-2 * log1pl(-ldexpl((long double)top53(block), -53)));
        long double turn[2];
        direction(ldexp((double)top53(block + 2), -53), turn);
        for (int k = 0; k < 2; k++)
            if (!(fabsl((long double)got[k] - radius * turn[k]) <=
                  fabsl(radius * turn[k]) * 0x4p-52L))
                ck_abort_msg("element %llu: %a, not %La, seed %llu", (unsigned long long)(2 * j),
                             got[k], radius * turn[k], (unsigned long long)testing_seed());
    }
}
END_TEST

/* Pieces of random lengths, at a start of either parity, with and without carries into the upper
 * word of the counter. */
START_TEST(any_cut_draws_the_same)
{
    const uint64_t starts[] = {0, 1, 12345, 0x1fffffff0, 0x1fffffff1};
    uint64_t state = testing_seed() ^ 0xc07;
    static double whole[CUT], cut[CUT];
    static float narrow[CUT], narrow_cut[CUT];

    for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
        uint64_t start = starts[s], seed = testing_random(&state), step = 1 + s;
        noise_normal_f64(whole, seed, step, start, CUT);
        noise_normal_f32(narrow, seed, step, start, CUT);
        for (size_t done = 0, some; done < CUT; done += some) {
            some = 1 + testing_random(&state) % (testing_random(&state) % 2 ? 7 : 1500);
            some = some < CUT - done ? some : CUT - done;
            noise_normal_f64(cut + done, seed, step, start + done, some);
            noise_normal_f32(narrow_cut + done, seed, step, start + done, some);
        }
        ck_assert_msg(memcmp(whole, cut, sizeof whole) == 0, "start %zu, seed %llu", (size_t)start,
                      (unsigned long long)testing_seed());
        ck_assert(memcmp(narrow, narrow_cut, sizeof narrow) == 0);
        for (size_t i = 0; i < CUT; i++)
            if (narrow[i] != (float)whole[i])
                ck_abort_msg("element %zu: %a is not %a rounded", i, (double)narrow[i], whole[i]);
    }
}
END_TEST

START_TEST(nothing_is_drawn_past_the_end)
{
    float out[9] = {7, 7, 7, 7, 7, 7, 7, 7, 7};

    noise_normal_f32(out + 1, 1, 1, 3, 0);
    for (int i = 0; i < 9; i++)
        ck_assert(out[i] == 7);
    noise_normal_f32(out + 1, 1, 1, 3, 7);
    ck_assert(out[0] == 7 && out[8] == 7);
    for (int i = 1; i < 8; i++)
        ck_assert(out[i] != 7 && fabsf(out[i]) < 9);
}
END_TEST

/* Every bit of the seed, the step and the element's number matters. */
START_TEST(every_bit_of_the_counter_matters)
{
    double base[2], other[2];

    noise_normal_f64(base, seeds[2], 1000, 0, 2);
    for (int bit = 0; bit < 64; bit++) {
        uint64_t flip = (uint64_t)1 << bit;
        noise_normal_f64(other, seeds[2] ^ flip, 1000, 0, 2);
        ck_assert(other[0] != base[0] && other[1] != base[1]);
        noise_normal_f64(other, seeds[2], 1000 ^ flip, 0, 2);
        ck_assert(other[0] != base[0] && other[1] != base[1]);
        noise_normal_f64(other, seeds[2], 1000, flip, 2);
        ck_assert(other[0] != base[0] && other[1] != base[1]);
    }
}
END_TEST

/* --- how they are distributed --- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Moments within five standard errors: E x^2 = 1, E x^4 = 3; Var x^k = E x^2k - (E x^k)^2 with
 * E x^6 = 15, E x^8 = 105. Kolmogorov & Smirnov: sqrt(n) D above 1.95 has probability 0.001. */
START_TEST(numbers_are_normal)
{
    const double moments[4] = {0, 1, 0, 3}, variances[4] = {1, 2, 15, 96};
    double *x = drawn(seeds[_i], 3, 1, DRAWS), sums[4] = {0}, distance = 0;

    for (size_t i = 0; i < DRAWS; i++) {
        double power = 1;
        for (int k = 0; k < 4; k++)
            sums[k] += power *= x[i];
    }
    for (int k = 0; k < 4; k++)
        ck_assert_msg(fabs(sums[k] / DRAWS - moments[k]) <= 5 * sqrt(variances[k] / DRAWS),
                      "moment %d is %g, not %g, seed %llu", k + 1, sums[k] / DRAWS, moments[k],
                      (unsigned long long)seeds[_i]);
    qsort(x, DRAWS, sizeof *x, ascending);
    for (size_t i = 0; i < DRAWS; i++) {
        double at = 0.5 * erfc(-x[i] * 0.70710678118654752440);
        distance = fmax(distance, at - (double)i / DRAWS);
        distance = fmax(distance, (double)(i + 1) / DRAWS - at);
    }
    free(x);
    ck_assert_msg(sqrt(DRAWS) * distance < 1.95, "Kolmogorov-Smirnov: %g, seed %llu",
                  sqrt(DRAWS) * distance, (unsigned long long)seeds[_i]);
}
END_TEST

/* 16 million numbers: how many lie beyond 3, 4 and 5 on either side is binomial; five standard
 * errors, and for the few beyond 5 (9.6 expected) Poisson's bounds at 1e-4. */
START_TEST(tails_have_their_weight)
{
    enum { MANY = 1 << 24, PIECE = 1 << 14 };
    static float x[PIECE];
    size_t beyond[6] = {0}, wild = 0;

    for (uint64_t start = 0; start < MANY; start += PIECE) {
        noise_normal_f32(x, seeds[0], 5, start, PIECE);
        for (size_t i = 0; i < PIECE; i++) {
            for (int sigma = 3; sigma <= 5; sigma++)
                beyond[sigma] += fabsf(x[i]) > (float)sigma;
            wild += fabsf(x[i]) <= 8.6F ? 0 : 1; /* also NaN and infinity */
        }
    }
    for (int sigma = 3; sigma <= 4; sigma++) {
        double expected = MANY * erfc(sigma * 0.70710678118654752440);
        ck_assert_msg(fabs((double)beyond[sigma] - expected) < 5 * sqrt(expected),
                      "%zu beyond %d, %g expected, seed %llu", beyond[sigma], sigma, expected,
                      (unsigned long long)seeds[0]);
    }
    ck_assert_msg(beyond[5] >= 1 && beyond[5] <= 23, "%zu beyond 5", beyond[5]);
    ck_assert_uint_eq(wild, 0);
}
END_TEST

/* Of independent x and y, sums of x y and (x^2 - 1)(y^2 - 1) over n pairs have the variances n and
 * 4 n. */
static void check_apart(const char *what, const double *x, const double *y, size_t stride)
{
    double product = 0, squares = 0, count = 0;

    for (size_t i = 0; i < DRAWS; i += stride, count++) {
        product += x[i] * y[i];
        squares += (x[i] * x[i] - 1) * (y[i] * y[i] - 1);
    }
    ck_assert_msg(fabs(product) < 5 * sqrt(count), "%s: correlation %g", what, product / count);
    ck_assert_msg(fabs(squares) < 10 * sqrt(count), "%s: of squares %g", what, squares / count / 2);
}

START_TEST(neighbours_steps_and_seeds_draw_apart)
{
    const size_t lags[] = {1, 2, 3, 8, 256, 512, 8192};
    const uint64_t seed = seeds[_i];
    const struct {
        const char *what;
        uint64_t seed, step;
    } others[] = {
        {"next step", seed, 8},
        {"next but one", seed, 9},
        {"step 2^32 away", seed, 7 + ((uint64_t)1 << 32)},
        {"next seed", seed + 1, 7},
        {"seed 2^32 away", seed ^ (uint64_t)1 << 32, 7},
        {"all seed bits", ~seed, 7},
    };
    double *x = drawn(seed, 7, 0, DRAWS + 8192);

    for (size_t k = 0; k < sizeof lags / sizeof *lags; k++)
        check_apart("neighbours", x, x + lags[k], 1);
    check_apart("the two of one block", x, x + 1, 2);
    for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
        double *y = drawn(others[k].seed, others[k].step, 0, DRAWS);
        check_apart(others[k].what, x, y, 1);
        free(y);
    }
    free(x);
}
END_TEST

/* Under one seed, the parameters of tensor k come from rng.h's stream k: step k must not draw
 * them again. */
START_TEST(noise_is_not_the_parameters_again)
{
    for (uint64_t stream = 0; stream < 100; stream++) {
        double x[2];
        noise_normal_f64(x, seeds[0], stream, 0, 2);
        ck_assert(fabs(x[0] - rng_normal(seeds[0], stream, 0)) > 1e-9);
    }
}
END_TEST

/* --- sgld --- */

static void step(const struct optimizer *rule, double lr, uint64_t t, size_t start, size_t count,
                 const void *grad, const void *param, void *next)
{
    const double hyper[HYPER_OWN] = {[HYPER_LR] = lr};
    struct piece piece = {.count = count,
                          .start = start,
                          .step = t,
                          .seed = seeds[0],
                          .hyper = hyper,
                          .grad = grad,
                          .param = param,
                          .next_param = next};

    rule->update(&piece);
}

START_TEST(sgld_is_its_formula_in_any_cut)
{
    uint64_t state = testing_seed() ^ 0x591d;
    static double g[CUT], w[CUT], next[CUT], cut[CUT], noise[CUT];
    static float narrow_g[CUT], narrow_w[CUT], narrow[CUT];
    const size_t start = 777;

    for (size_t i = 0; i < CUT; i++) {
        narrow_g[i] = (float)testing_normal(&state);
        narrow_w[i] = (float)testing_normal(&state);
        g[i] = (double)narrow_g[i];
        w[i] = (double)narrow_w[i];
    }
    step(&sgld_f64, 0.03, 11, start, CUT, g, w, next);
    step(&sgld_f32, 0.03, 11, start, CUT, narrow_g, narrow_w, narrow);
    for (size_t done = 0, some; done < CUT; done += some) {
        some = 1 + testing_random(&state) % 900;
        some = some < CUT - done ? some : CUT - done;
        step(&sgld_f64, 0.03, 11, start + done, some, g + done, w + done, cut + done);
    }
    ck_assert(memcmp(next, cut, sizeof next) == 0);
    noise_normal_f64(noise, seeds[0], 11, start, CUT);
    for (size_t i = 0; i < CUT; i++) {
        double size = fabs(w[i]) + fabs(g[i]) + fabs(noise[i]);
        double want = w[i] - 0.03 / 2 * g[i] + sqrt(0.03) * noise[i];
        if (!(fabs(next[i] - want) <= size * 0x4p-53) ||
            !(fabs((double)narrow[i] - want) <= size * 0x4p-24))
            ck_abort_msg("element %zu: %a and %a, not %a, seed %llu", i, next[i], (double)narrow[i],
                         want, (unsigned long long)testing_seed());
    }
}
END_TEST

START_TEST(sgld_without_a_rate_stands_still)
{
    const double g[5] = {1, -1, 1e300, 0, 3}, w[5] = {0.0, -0.0, 1e-320, -1e308, 5};
    double next[5];

    step(&sgld_f64, 0, 1, 0, 5, g, w, next);
    ck_assert(memcmp(next, w, sizeof w) == 0);
}
END_TEST

static const struct {
    const struct optimizer *rule;
    double lr;
} chains[] = {{&sgld_f64, 0.2}, {&sgld_f32, 0.2}, {&sgld_f64, 0.01}};

/* Mean, variance and covariance with `last` of the chains against their law, five standard errors
 * each; independent normal chains: Var of a sample's mean is v / n, of its variance 2 v^2 / n, of
 * its covariance (v u + c^2) / n. */
static void check_law(const double *w, const double *last, double mean, double variance,
                      double last_mean, double last_variance, double covariance)
{
    double sum = 0, squares = 0, products = 0;

    for (size_t i = 0; i < CHAINS; i++) {
        sum += w[i] - mean;
        squares += (w[i] - mean) * (w[i] - mean);
        products += (w[i] - mean) * (last[i] - last_mean);
    }
    ck_assert_msg(fabs(sum / CHAINS) <= 5 * sqrt(variance / CHAINS), "mean off by %g",
                  sum / CHAINS);
    ck_assert_msg(fabs(squares / CHAINS - variance) <= 5 * variance * sqrt(2.0 / CHAINS),
                  "variance %g, not %g", squares / CHAINS, variance);
    ck_assert_msg(fabs(products / CHAINS - covariance) <=
                      5 * sqrt((variance * last_variance + covariance * covariance) / CHAINS),
                  "covariance %g, not %g", products / CHAINS, covariance);
}

/* The target N(mu, s^2) has q = (w - mu) / s^2, which makes the chain
 *
 *     w - mu <- (1 - a)(w - mu) + sqrt(lr) n,   a = lr / (2 s^2)
 *
 * From w = 0 the mean after t steps is mu (1 - (1-a)^t) and the variance V (1 - (1-a)^2t),
 * V = lr / (1 - (1-a)^2) = s^2 / (1 - lr / (4 s^2)): larger than s^2 because the steps are not
 * small (by a quarter at lr = 0.2). */
START_TEST(sgld_samples_from_a_gaussian)
{
    const struct optimizer *rule = chains[_i].rule;
    const double mu = 3, s2 = 0.25, lr = chains[_i].lr, keep = 1 - lr / (2 * s2);
    const double stationary = s2 / (1 - lr / (4 * s2));
    double *w = numbers(CHAINS), *last = numbers(CHAINS), *g = numbers(CHAINS);
    double *in = numbers(CHAINS), *out = numbers(CHAINS);
    double mean = 0, variance = 0;

    memset(w, 0, CHAINS * sizeof *w);
    for (uint64_t t = 1; t <= 40; t++) {
        memcpy(last, w, CHAINS * sizeof *w);
        for (size_t i = 0; i < CHAINS; i++)
            out[i] = (w[i] - mu) / s2;
        dtype_convert(rule->dtype, g, DTYPE_F64, out, CHAINS);
        dtype_convert(rule->dtype, in, DTYPE_F64, w, CHAINS);
        step(rule, lr, t, 0, CHAINS, g, in, out);
        dtype_convert(DTYPE_F64, w, rule->dtype, out, CHAINS);
        double last_mean = mean, last_variance = variance;
        mean = mu * (1 - pow(keep, (double)t));
        variance = stationary * (1 - pow(keep, 2 * (double)t));
        check_law(w, last, mean, variance, last_mean, last_variance, keep * last_variance);
    }
    free(w);
    free(last);
    free(g);
    free(in);
    free(out);
}
END_TEST

Suite *suite_noise(void);
Suite *suite_noise(void)
{
    Suite *suite = suite_create("noise");
    TCase *cases = tcase_create("numbers"), *sgld = tcase_create("sgld");

    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, numbers_are_box_and_muller_of_the_blocks);
    tcase_add_test(cases, any_cut_draws_the_same);
    tcase_add_test(cases, nothing_is_drawn_past_the_end);
    tcase_add_test(cases, every_bit_of_the_counter_matters);
    tcase_add_loop_test(cases, numbers_are_normal, 0, SEEDS);
    tcase_add_test(cases, tails_have_their_weight);
    tcase_add_loop_test(cases, neighbours_steps_and_seeds_draw_apart, 0, SEEDS);
    tcase_add_test(cases, noise_is_not_the_parameters_again);
    suite_add_tcase(suite, cases);
    tcase_set_timeout(sgld, 120);
    tcase_add_test(sgld, sgld_is_its_formula_in_any_cut);
    tcase_add_test(sgld, sgld_without_a_rate_stands_still);
    tcase_add_loop_test(sgld, sgld_samples_from_a_gaussian, 0, 3);
    suite_add_tcase(suite, sgld);
    return suite;
}
