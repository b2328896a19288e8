/* The elementary functions against the machine's libm in long double, in ulp of the result, over
 * random and dense arguments; their edges; and that a loop over them has the bits of one call. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "service/core/simd.h"
#include "service/kernel/elementary.h"
#include "tests/lib/testing.h"

_Static_assert(LDBL_MANT_DIG >= 64, "the reference must be finer than what it judges");

enum { POINTS = 300000, VECTOR = 1031 };

/* How far `got` is from `want`, in units of the last place of a double as large as `want`. */
static double ulps(double got, long double want)
{
    int exponent;

    if ((double)want == got) /* zeros, infinities */
        return 0;
    frexp((double)want, &exponent);
    exponent = exponent < DBL_MIN_EXP ? DBL_MIN_EXP : exponent;
    return (double)(fabsl((long double)got - want) / ldexpl(1, exponent - DBL_MANT_DIG));
}

static double between(uint64_t *state, double low, double high)
{
    return low + (high - low) * testing_uniform(state);
}

static void is_near(const char *name, double x, double got, long double want, double bound)
{
    double off = ulps(got, want);

    if (!(off <= bound)) /* check's own assertions take a microsecond each */
        ck_abort_msg("%s(%a) is %a, off by %g ulp, seed %llu", name, x, got, off,
                     (unsigned long long)testing_seed());
}

static void check_exp(double x)
{
    is_near("exp", x, elementary_exp(x), expl((long double)x), 1);
}

static void check_log(double x)
{
    is_near("log", x, elementary_log(x), logl((long double)x), 1);
}

/* Judged on x without its multiple of 1/2, which is exact here too: pi x must not be rounded where
 * it is large. */
static void check_turn(double x)
{
    const long double pi = 3.14159265358979323846264338327950288L;
    double turn = fmod(x, 2), half = nearbyint(2 * turn);
    long double angle = pi * ((long double)turn - (long double)half / 2);
    long double c = cosl(angle), s = sinl(angle);
    int quadrant = (int)half & 3;
    long double cosine = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
    long double sine = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;

    is_near("cospi", x, elementary_cospi(x), cosine, 2);
    is_near("sinpi", x, elementary_sinpi(x), sine, 2);
}

START_TEST(exp_is_within_an_ulp)
{
    uint64_t state = testing_seed() ^ 0xe1;

    for (int i = 0; i < POINTS; i++) {
        check_exp(between(&state, -708, 709.78));
        check_exp(between(&state, -1, 1));
        check_exp(between(&state, -746, -708)); /* subnormal results */
        check_exp(ldexp(between(&state, -1, 1), -i % 1070));
        check_exp((i - POINTS / 2) * (1500.0 / POINTS));
    }
    /* where k changes: odd multiples of ln 2 / 2, a few doubles to both sides */
    for (int k = -2149; k <= 2047; k += 2) {
        double x = k * 0.34657359027997265471;
        for (int i = 0; i < 8; i++, x = nextafter(x, 1000))
            check_exp(x);
    }
}
END_TEST

START_TEST(log_is_within_an_ulp)
{
    uint64_t state = testing_seed() ^ 0x10;

    for (int i = 0; i < POINTS; i++) {
        double any = elementary_of_bits(testing_random(&state) >> 1);
        if (isfinite(any))
            check_log(any);
        check_log(between(&state, 0.5, 2));
        check_log(elementary_of_bits(testing_random(&state) >> 12)); /* subnormal */
        check_log(1 + ldexp(between(&state, -1, 1), -i % 54));
        check_log((i + 1) * (3.0 / POINTS));
    }
    double x = 0.70710678118654752440;
    for (int i = 0; i < 100; i++)
        x = nextafter(x, 0);
    for (int i = 0; i < 200; i++, x = nextafter(x, 1))
        check_log(x);
}
END_TEST

START_TEST(cospi_and_sinpi_are_within_two_ulp)
{
    uint64_t state = testing_seed() ^ 0xc05;

    for (int i = 0; i < POINTS; i++) {
        check_turn(between(&state, -1, 1));
        check_turn(i * (4.0 / POINTS) - 2);
        check_turn(between(&state, -0x1p40, 0x1p40));
        check_turn(ldexp(between(&state, -1, 1), i % 56));
        /* next to the zeros and the turning points of both, down to the smallest double */
        check_turn(i % 16 * 0.5 - 4 + ldexp(between(&state, -1, 1), -i % 54));
        check_turn(ldexp(between(&state, -1, 1), -i % 1070));
    }
}
END_TEST

START_TEST(power_keeps_its_relative_error)
{
    uint64_t state = testing_seed() ^ 0x90;

    for (int i = 0; i < POINTS; i++) {
        double base = exp(between(&state, -7, 7)), exponent = between(&state, -40, 40);
        double growth = fabs(exponent * log(base));
        is_near("power", base, elementary_power(base, exponent),
                powl((long double)base, (long double)exponent), 1 + 3 * growth);
        /* the rules' own: t^-0.8 and 0.96^(t d) */
        double t = 1 + i;
        is_near("power", t, elementary_power(t, -0.8), powl((long double)t, (long double)-0.8),
                1 + 3 * 0.8 * log(t));
        growth = t * 0.004 * 0.0408; /* of log 0.96 */
        is_near("power", t, elementary_power(0.96, t * 0.004),
                powl((long double)0.96, (long double)(t * 0.004)), 1 + 3 * growth);
    }
}
END_TEST

START_TEST(exact_values_are_exact)
{
    const double inf = (double)INFINITY;
    uint64_t state = testing_seed() ^ 0xe4ac;

    ck_assert(elementary_exp(0) == 1 && elementary_exp(-0.0) == 1);
    ck_assert(elementary_log(1) == 0 && !signbit(elementary_log(1)));
    ck_assert(elementary_power(0.3, 0) == 1 && elementary_power(0.3, 1) == 0.3);
    ck_assert(elementary_power(0.3, 2) == 0.3 * 0.3 && elementary_power(3, 3) == 27);
    ck_assert(elementary_power(-3, 4) == 81 && elementary_power(1, -0.8) == 1);
    ck_assert(elementary_power(0, 0.5) == 0 && elementary_power(0, -0.5) == inf);
    ck_assert(elementary_power(inf, 0.5) == inf && elementary_power(inf, -0.5) == 0);
    for (double x = -1000; x <= 1000; x++) {
        bool even = fmod(x, 2) == 0;
        ck_assert(elementary_cospi(x) == (even ? 1 : -1) && elementary_sinpi(x) == 0);
        ck_assert(elementary_cospi(x + 0.5) == 0);
        ck_assert(elementary_sinpi(x + 0.5) == (even ? 1 : -1));
    }
    ck_assert(elementary_cospi(0x1p53 - 1) == -1 && elementary_sinpi(0x1p53 - 1) == 0);
    ck_assert(elementary_cospi(0x1p52 - 0.5) == 0 && elementary_sinpi(0x1p52 - 0.5) == -1);
    ck_assert(elementary_cospi(DBL_MAX) == 1 && elementary_sinpi(-DBL_MAX) == 0);
    for (int i = 0; i < 50 * (DBL_MAX_EXP - 54); i++) { /* from 2^53 on all are even */
        double x = ldexp(between(&state, 1, 2), 53 + i / 50);
        if (elementary_cospi(x) != 1 || elementary_sinpi(x) != 0)
            ck_abort_msg("%a, seed %llu", x, (unsigned long long)testing_seed());
    }
}
END_TEST

START_TEST(edges_are_as_in_c)
{
    const double inf = (double)INFINITY, nan_ = (double)NAN;

    ck_assert(elementary_exp(inf) == inf && elementary_exp(-inf) == 0);
    ck_assert(elementary_exp(710) == inf && elementary_exp(DBL_MAX) == inf);
    /* log(DBL_MAX) = 709.78271289338397..., log(2^-1075) = -745.13321910194110... */
    ck_assert(elementary_exp(0x1.62e42fefa39efp+9) < inf);
    ck_assert(elementary_exp(0x1.62e42fefa39f0p+9) == inf);
    ck_assert(elementary_exp(-0x1.74910d52d3051p+9) == 0x1p-1074);
    ck_assert(elementary_exp(-0x1.74910d52d3052p+9) == 0 && elementary_exp(-DBL_MAX) == 0);
    ck_assert(elementary_log(inf) == inf && elementary_log(0) == -inf);
    ck_assert(elementary_log(-0.0) == -inf);
    ck_assert(isnan(elementary_log(-1)) && isnan(elementary_log(-inf)));
    ck_assert(isnan(elementary_log(-0x1p-1074)));
    ck_assert(isnan(elementary_exp(nan_)) && isnan(elementary_log(nan_)));
    ck_assert(isnan(elementary_cospi(nan_)) && isnan(elementary_sinpi(nan_)));
    ck_assert(isnan(elementary_cospi(inf)) && isnan(elementary_sinpi(-inf)));
    ck_assert(isnan(elementary_power(-2, 0.5)) && isnan(elementary_power(nan_, 0.5)));
}
END_TEST

/* Loops as the kernels have them, which the compiler vectorises. */
KERNEL static void loop(double *restrict out, const double *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = elementary_exp(in[i]);
        out[count + i] = elementary_log(in[i]);
        out[2 * count + i] = elementary_cospi(in[i]);
        out[3 * count + i] = elementary_sinpi(in[i]);
    }
}

START_TEST(a_loop_has_the_bits_of_one_call)
{
    uint64_t state = testing_seed() ^ 0x100b;
    double in[VECTOR], out[4 * VECTOR], one[4];

    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < VECTOR; i++) { /* any double but NaN, which has no certain bits */
            double any = elementary_of_bits(testing_random(&state));
            in[i] = i % 2 ? between(&state, -800, 800) : isnan(any) ? 0 : fabs(any);
        }
        loop(out, in, VECTOR);
        for (size_t i = 0; i < VECTOR; i++) {
            loop(one, &in[i], 1);
            for (size_t k = 0; k < 4; k++) {
                double all = out[k * VECTOR + i];
                if (elementary_bits(one[k]) != elementary_bits(all) &&
                    !(isnan(one[k]) && isnan(all)))
                    ck_abort_msg("function %zu of %a: %a and %a, seed %llu", k, in[i], one[k], all,
                                 (unsigned long long)testing_seed());
            }
        }
    }
}
END_TEST

/* A digest of results: not a matter of accuracy, but what every CPU and compiler must agree on. */
START_TEST(the_bits_are_the_same_everywhere)
{
    uint64_t state = 1, digest = 0xcbf29ce484222325;

    for (int i = 0; i < POINTS; i++) {
        double x = between(&state, -700, 700), base = between(&state, 0, 2);
        double values[] = {elementary_exp(x), elementary_log(base), elementary_cospi(x),
                           elementary_sinpi(base), elementary_power(base, x / 100)};
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            digest = (digest ^ elementary_bits(values[k])) * 0x100000001b3; /* FNV-1a, by words */
    }
    ck_assert_msg(digest == 0x64bcf6ded4ed00d4, "the digest is %#llx", (unsigned long long)digest);
}
END_TEST

Suite *suite_elementary(void);
Suite *suite_elementary(void)
{
    Suite *suite = suite_create("elementary");
    TCase *cases = tcase_create("functions");

    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, exp_is_within_an_ulp);
    tcase_add_test(cases, log_is_within_an_ulp);
    tcase_add_test(cases, cospi_and_sinpi_are_within_two_ulp);
    tcase_add_test(cases, power_keeps_its_relative_error);
    tcase_add_test(cases, exact_values_are_exact);
    tcase_add_test(cases, edges_are_as_in_c);
    tcase_add_test(cases, a_loop_has_the_bits_of_one_call);
    tcase_add_test(cases, the_bits_are_the_same_everywhere);
    suite_add_tcase(suite, cases);
    return suite;
}
