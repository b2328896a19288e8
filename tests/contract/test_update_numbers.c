/* Whole sessions of every line of optimizers.def, none by name: what holds for the numbers of any
 * rule. What they are exactly is held by test_golden.c. */
#include <check.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/testing.h"
#include "tests/lib/trials.h"

/* Only from state zero: a velocity that has the rate in it goes on moving, and should. */
START_TEST(a_rate_of_zero_is_the_identity)
{
    static const char model[] = "no[3,5] ok[31,33]";
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial still, frozen, start;
        struct spec spec;
        rule_spec(&spec, rule, form);
        trials_open(&start, &spec, model, 0);
        trials_group(&spec, "ok", (struct group){.weight_decay_mult = 1, .adapt = true});
        trials_open(&frozen, &spec, model, 0);
        spec.hyper[HYPER_LR] = 0;
        trials_open(&still, &spec, model, 0);
        size_t size = start.vector[TRIAL_PARAM].size, skip = 15 * start.element;
        for (int k = 0; k < 5; k++) {
            trials_step(&still);
            trials_step(&frozen);
            ck_assert_msg(
                memcmp(still.vector[TRIAL_PARAM].data, start.vector[TRIAL_PARAM].data, size) == 0,
                "%s form %zu moves at step %d", rule->name, form, k + 1);
            ck_assert_msg(memcmp(frozen.vector[TRIAL_PARAM].data + skip,
                                 start.vector[TRIAL_PARAM].data + skip, size - skip) == 0,
                          "%s form %zu moves a frozen tensor at step %d", rule->name, form, k + 1);
        }
        trial_close(&still);
        trial_close(&frozen);
        trial_close(&start);
    }
}
END_TEST

/* From two equal gradients of some size, for a rule may wait for the second. */
START_TEST(a_gradient_moves_every_weight)
{
    enum { COUNT = 47 };
    const struct optimizer *rule = trials_rule(_i);
    double gradient[COUNT], start[COUNT], end[COUNT];
    uint64_t state = testing_seed();

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial trial;
        struct spec spec;
        rule_spec(&spec, rule, form);
        trials_open(&trial, &spec, "m[7,5] v[11] s[]", 0);
        trial.proposes = rule->propose != NULL;
        for (size_t i = 0; i < COUNT; i++)
            gradient[i] =
                (testing_random(&state) % 2 == 0 ? 1 : -1) * (1 + testing_uniform(&state));
        trial_put(&trial, TRIAL_GRADIENT, gradient);
        trial_get(&trial, TRIAL_PARAM, start);
        trial_step(&trial);
        trial_step(&trial);
        trial_get(&trial, TRIAL_PARAM, end);
        for (size_t i = 0; i < COUNT; i++)
            ck_assert_msg(start[i] != end[i], "%s form %zu leaves weight %zu at %a", rule->name,
                          form, i, end[i]);
        trial_close(&trial);
    }
}
END_TEST

/* m' = m + r (w - m) in three roundings, and the rounding of r: a unit of r (w - m) for r and each
 * of difference and product, half of it where it is exact, and half a unit of the sum. */
START_TEST(the_average_follows_its_recurrence_and_changes_no_weight)
{
    enum { COUNT = 31 * 33 + 9 };
    static const char model[] = "m[31,33] v[9]";
    const struct optimizer *rule = trials_rule(_i);
    double epsilon = rule->dtype == DTYPE_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
    static double last[COUNT], weights[COUNT], average[COUNT];

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial with, without;
        struct spec spec;
        rule_spec(&spec, rule, form);
        trials_open(&without, &spec, model, 0);
        spec.ema.on = true;
        spec.ema.decay = 0.9;
        trials_open(&with, &spec, model, 0);
        trial_fill(&with, TRIAL_AVERAGE, testing_seed() + 3, 0.3);
        for (int k = 0; k < 3; k++) {
            trial_get(&with, TRIAL_AVERAGE, last);
            trials_step(&with);
            trials_step(&without);
            trial_get(&with, TRIAL_PARAM, weights);
            trial_get(&with, TRIAL_AVERAGE, average);
            for (size_t i = 0; i < COUNT; i++) {
                long double term = (1 - (long double)spec.ema.decay) *
                                   ((long double)weights[i] - (long double)last[i]);
                long double should = (long double)last[i] + term;
                long double bound =
                    (long double)epsilon * (1.5L * fabsl(term) + 0.5L * fabsl(should)) * 1.001L;
                if (!(fabsl((long double)average[i] - should) <= bound))
                    ck_abort_msg("%s: %a, not %La", rule->name, average[i], should);
            }
        }
        trials_same(&without, &with, "average");
        trial_close(&with);
        trial_close(&without);
    }
}
END_TEST

/* A step from a base that is `shift` away from the weights; negative: from none. */
static void step_from_base(struct trial *trial, double shift)
{
    enum { COUNT = 31 * 33 + 9 };
    static double weights[COUNT];

    ck_assert_uint_eq(trial->count, COUNT);
    trial_get(trial, TRIAL_PARAM, weights);
    for (size_t i = 0; i < COUNT; i++)
        weights[i] += shift;
    trial_put(trial, TRIAL_BASE, weights);
    trial->advance.base = shift < 0 ? NULL : trial->vector[TRIAL_BASE].data;
    trials_step(trial);
}

START_TEST(the_base_is_taken_into_account_where_it_is_asked_for)
{
    static const char model[] = "m[31,33] v[9]";
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial none, same, other;
        struct spec spec;
        rule_spec(&spec, rule, form);
        bool asked = rule->bases != NULL && rule->bases(spec.hyper) > 0;
        trials_open(&none, &spec, model, 0);
        trials_open(&same, &spec, model, 0);
        trials_open(&other, &spec, model, 0);
        for (int k = 0; k < 2; k++) {
            step_from_base(&none, -1);
            step_from_base(&same, 0);
            step_from_base(&other, 1);
        }
        /* Decoupled decay has shrunk the weights that the rule sees; the base is as it was. */
        bool shrunk = spec.hyper[HYPER_WEIGHT_DECAY] != 0 &&
                      spec.hyper[HYPER_WEIGHT_DECAY_MODE] == DECAY_DECOUPLED;
        if (!asked || !shrunk)
            trials_same(&none, &same, "base");
        if (!asked)
            trials_same(&none, &other, "base that was not asked for");
        else
            ck_assert(memcmp(none.vector[TRIAL_PARAM].data, other.vector[TRIAL_PARAM].data,
                             none.vector[TRIAL_PARAM].size) != 0);
        trial_close(&none);
        trial_close(&same);
        trial_close(&other);
    }
}
END_TEST

static void check_finite(const struct trial *trial, const char *what)
{
    static double values[4096];

    for (size_t i = TRIAL_PARAM; i < TRIAL_VECTORS; i++) {
        if (trial->vector[i].data == NULL || (i != TRIAL_PARAM && i < TRIAL_SLOT))
            continue;
        ck_assert_uint_le(trial_count(trial, i), 4096);
        trial_get(trial, i, values);
        for (size_t k = 0; k < trial_count(trial, i); k++)
            if (!isfinite(values[k])) /* not ck_assert_msg, which tells its parent every time */
                ck_abort_msg("%s %s, %s: vector %zu has %g at %zu after step %zu",
                             trial->rule->name, dtype_name(trial->rule->dtype), what, i, values[k],
                             k, (size_t)trial->advance.update);
    }
    ck_assert(isfinite(trial->advance.update_norm) && isfinite(trial->advance.param_norm));
}

/* Gradients and weights for check_finite: tensors of zeros, of subnormals, of huge numbers whose
 * squares are still finite (and those of the weights they lead to, for the norms), and of all of
 * them. */
static void fill_extremes(struct trial *trial, uint64_t at, bool cubic)
{
    bool wide = trial->rule->dtype == DTYPE_F64;
    const double single = cubic ? 1e9 : 1e18, twice = cubic ? 1e30 : 1e140;
    const double huge = wide ? twice : single, tiny = wide ? 0x1p-1074 : 0x1p-149;
    const double gradients[] = {0, tiny, huge, -1, -huge, -tiny * 1e6, -0.0, 1e-20, 1};
    const double weights[] = {0, -1, tiny, 1e9, 1, -0.0, -tiny, 0.1, -1e9, 3, 1};
    double *values = malloc(trial->count * sizeof *values);

    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < trial->count; i++)
        values[i] = i < 120 ? gradients[i / 15 % 4] : gradients[(i * 7 + at * 5) % 9];
    trial_put(trial, TRIAL_GRADIENT, values);
    for (size_t i = 0; i < trial->count; i++)
        values[i] = i < 60 ? 0 : weights[(i * 5) % 11];
    if (at == 0)
        trial_put(trial, TRIAL_PARAM, values);
    free(values);
}

START_TEST(finite_input_of_any_size_stays_finite)
{
    static const char model[] =
        "z[3,5] t[3,5] h[3,5] o[15] z2[15] t2[5,3] h2[15] o2[3,1,5] m[31,33]"
        " v[99] s[]";
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial trial;
        struct spec spec;
        rule_spec(&spec, rule, form);
        trials_open(&trial, &spec, model, 0);
        trial.proposes = rule->propose != NULL;
        /* A correction for the base is cubic, q^2 times what q has moved: by its formula it
         * overflows in the third step, and for larger gradients in the second. */
        bool cubic = rule->bases != NULL;
        for (uint64_t k = 0; k < (cubic ? 2 : 4); k++) {
            fill_extremes(&trial, k, cubic);
            trial_step(&trial);
            check_finite(&trial, "extremes");
        }
        trial_close(&trial);
    }
}
END_TEST

/* Everything that may be 0 is, eps above all: no gradient and no state must not make 0/0. */
START_TEST(nothing_from_nothing_is_no_nan)
{
    const struct optimizer *rule = trials_rule(_i);

    for (size_t form = 0; form < rule_forms(rule); form++) {
        struct trial trial;
        struct spec spec;
        char why[160];
        rule_spec(&spec, rule, form);
        for (size_t i = HYPER_WEIGHT_DECAY; i < rule->hyper_count; i++)
            if (rule->hypers[i].kind == HYPER_NUMBER && !isnan(spec.hyper[i]) &&
                hyper_allows(&rule->hypers[i], 0, why, sizeof why))
                spec.hyper[i] = 0;
        trials_open(&trial, &spec, "m[5,7] v[9] s[] k[2,3,5]", 0);
        trial.proposes = rule->propose != NULL;
        for (int k = 0; k < 2; k++) { /* weights, then none */
            trial_step(&trial);
            check_finite(&trial, "zeros");
            memset(trial.vector[TRIAL_PARAM].data, 0, trial.vector[TRIAL_PARAM].size);
        }
        trial_close(&trial);
    }
}
END_TEST

Suite *suite_update_numbers(void);
Suite *suite_update_numbers(void)
{
    Suite *suite = suite_create("update_numbers");
    TCase *cases = tcase_create("every rule");
    int count = trials_loops();

    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, a_rate_of_zero_is_the_identity, 0, count);
    tcase_add_loop_test(cases, a_gradient_moves_every_weight, 0, count);
    tcase_add_loop_test(cases, the_average_follows_its_recurrence_and_changes_no_weight, 0, count);
    tcase_add_loop_test(cases, the_base_is_taken_into_account_where_it_is_asked_for, 0, count);
    tcase_add_loop_test(cases, finite_input_of_any_size_stays_finite, 0, count);
    tcase_add_loop_test(cases, nothing_from_nothing_is_no_nan, 0, count);
    suite_add_tcase(suite, cases);
    return suite;
}
