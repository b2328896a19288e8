/* Every rule against traces that were computed apart from the program (tests/golden/generate.py),
 * through the pipeline of a real step, in both precisions and from all four wire formats.
 *
 * f64: every number within 1e-12 of itself, step by step and over the whole free run.
 *
 * f32: each step starts from the golden state before it, rounded to f32, and is held against one
 * exact step from that very state, so errors do not add up over steps. The unit is the f32 spacing
 * at the largest of the number before the step, after it and their difference: a sum cannot be
 * rounded more finely than its terms. A slot that holds squares of gradients is compared by its
 * root, which is what rules divide by and what has the unit of a gradient. Weights: at most 2
 * units. Slots: at most 2 by the rule itself; where the pipeline rescales, clips and decays, q
 * brings up to four roundings of its own (two factors and two products, half a unit each), so 2
 * more. The same for rules of grain tensor, which may scale q by a number of the tensor: half a
 * unit for the factor and half for the product, and twice that where the product begins a new
 * power of two.
 *
 * Rules that propose matrices: an orthogonalised matrix is as exact as a whole, not number by
 * number. Four roundings make U wrong by up to 2^-24 of its norm each, and not all in one
 * direction: 2 * 2^-24 is taken. The slope of five Newton-Schulz steps is up to 32 for singular
 * values above 1/32 (those of the traces are above 0.039). So weights may be off by 64 * 2^-24 of
 * the largest update besides. What BLAS rounds, in an order of its own on every machine, is in
 * this too: it enters later and is amplified less. */
#include <check.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/replay.h"
#include "tests/lib/tensors.h"

static struct golden golden;
static struct golden_trace trace;

static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static bool near(double got, double expected, double relative)
{
    return fabs(got - expected) <= relative * fabs(expected);
}

/* The f32 spacing at a magnitude. */
static double spacing(double magnitude)
{
    int exponent;

    frexp(fmax(magnitude, (double)FLT_MIN), &exponent);
    return ldexp(1, exponent - FLT_MANT_DIG);
}

static bool conditions(const struct optimizer *rule, const struct spec *spec)
{
    return rule->update_tensor != NULL || spec->gradient.rescale != 1 ||
           spec->hyper[HYPER_WEIGHT_DECAY] != 0 || isfinite(spec->gradient.clip_value) ||
           isfinite(spec->gradient.clip_norm);
}

static double compared(int k, double value)
{
    return k >= 0 && trace.slot[k].square ? sqrt(value) : value;
}

/* How far the weights of a rule that proposes may be off besides. */
static double proposal_rounding(const struct trial *trial, const double *expected,
                                const double *before)
{
    double largest = 0;

    if (trial->rule->propose == NULL)
        return 0;
    for (size_t i = 0; i < trial->count; i++)
        largest = fmax(largest, fabs(expected[i] - before[i]));
    return 64 * 0x1p-24 * largest;
}

/* Slot `k` of the trace, or the weights when k is negative. */
static void check_vector(const struct replay *replay, const struct trial *trial, size_t t, int k,
                         const double *expected, const double *before)
{
    const char *name = k < 0 ? "w" : trace.slot[k].name;
    double limit = k >= 0 && conditions(trial->rule, &replay->spec) ? 4 : 2;
    double besides = k >= 0 ? 0 : proposal_rounding(trial, expected, before);
    size_t which = replay_vector(replay, k);
    double values[GOLDEN_COUNT_MAX];

    trial_get(trial, which, values);
    for (size_t i = 0; i < trial_count(trial, which); i++) {
        if (trial->rule->dtype == DTYPE_F64) {
            if (!near(values[i], expected[i], 1e-12))
                ck_abort_msg("%s %s: %s[%zu] after step %zu is %a, not %a", trace.rule, trace.label,
                             name, i, t, values[i], expected[i]);
            continue;
        }
        double value = compared(k, values[i]), should = compared(k, expected[i]);
        double was = compared(k, before[i]);
        double largest = fmax(fmax(fabs(should), fabs(was)), fabs(should - was));
        double units = (fabs(value - should) - besides) / spacing(largest);
        if (!(units <= limit))
            ck_abort_msg("%s %s: %s[%zu] after step %zu is %a, not %a (%.2f units)", trace.rule,
                         trace.label, name, i, t, value, should, units);
    }
}

static void check_state(const struct replay *replay, const struct trial *trial, size_t t,
                        const struct golden_state *expected, const struct golden_state *before)
{
    check_vector(replay, trial, t, -1, expected->weights, before->weights);
    for (int k = 0; k < (int)trace.slot_count; k++)
        check_vector(replay, trial, t, k, expected->slot[k], before->slot[k]);
    for (size_t k = 0; k < trace.scalar_count; k++)
        ck_assert_msg(near(trial->scalar[k], expected->scalar[k], 1e-12),
                      "%s %s: %s after step %zu is %a, not %a", trace.rule, trace.label,
                      trace.scalar[k], t, trial->scalar[k], expected->scalar[k]);
}

static void check_norms(const struct trial *trial, const struct measure *measure,
                        const struct golden_state *expected)
{
    const struct advance *advance = &trial->advance;
    bool exact = trial->rule->dtype == DTYPE_F64;
    double fine = exact ? 1e-12 : 1e-6;
    /* In f32 the update's norm carries the rounding of the weights. */
    double rounding = exact ? 0 : sqrt((double)golden.count) * (double)FLT_EPSILON * 4;

    ck_assert(near(measure->norm, expected->norm, fine));
    ck_assert(near(advance->clip_scale, expected->clip_scale, fine));
    ck_assert(near(advance->param_norm, expected->param_norm, fine));
    ck_assert_msg(fabs(advance->update_norm - expected->update_norm) <=
                      rounding + 1e-10 * expected->update_norm,
                  "%s %s: update norm %a, not %a", trace.rule, trace.label, advance->update_norm,
                  expected->update_norm);
}

static void check_steps(const struct optimizer *rule)
{
    struct replay replay;
    struct golden_state before;
    struct measure measure;
    struct trial trial;

    replay_init(&replay, &golden, &trace, rule);
    for (size_t t = 1; t <= golden.steps; t++)
        for (size_t k = 0; k < sizeof wires / sizeof *wires; k++) {
            replay_open(&replay, &trial, wires[k]);
            replay_load(&replay, &trial, t, &before);
            replay_prepare(&replay, &trial, t, &measure);
            trial_step(&trial);
            check_norms(&trial, &measure, &trace.step[t]);
            check_state(&replay, &trial, t, &trace.step[t], &before);
            trial_close(&trial);
        }
}

static void check_free_run(const struct optimizer *rule)
{
    static double weights[GOLDEN_STEPS_MAX + 1][GOLDEN_COUNT_MAX]; /* [t]: after step t */
    struct measure measure;
    struct replay replay;
    struct trial trial;
    size_t checked = 0;

    replay_init(&replay, &golden, &trace, rule);
    for (size_t k = 0; k < sizeof wires / sizeof *wires; k++) {
        replay_open(&replay, &trial, wires[k]);
        memcpy(weights[0], golden.weights, sizeof golden.weights);
        trial_put(&trial, TRIAL_PARAM, weights[0]);
        for (size_t t = 1; t <= golden.steps; t++) {
            const struct golden_state *expected = &trace.free[t];
            replay_prepare(&replay, &trial, t, &measure);
            trial.advance.base = trace.has_base[t] ? weights[trace.base[t]] : NULL;
            trial_step(&trial);
            trial_get(&trial, TRIAL_PARAM, weights[t]);
            if (expected->given) {
                check_state(&replay, &trial, t, expected, expected);
                checked++;
            }
        }
        trial_close(&trial);
    }
    ck_assert(trace.free[golden.steps].given && checked >= 3 * sizeof wires / sizeof *wires);
}

/* Whether a step depends on the session's seed. */
static bool draws_noise(const struct optimizer *rule)
{
    enum { COUNT = 7 };
    unsigned char weights[2][COUNT * sizeof(double)] = {{0}};
    struct trial trial;
    struct spec spec;

    spec_init(&spec);
    spec.dtype = rule->dtype;
    spec_set_rule(&spec, rule);
    struct layout *layout = tensors_layout("w[7]");
    for (spec.seed = 0; spec.seed < 2; spec.seed++) {
        trial_open(&trial, &spec, layout, 0);
        trial_step(&trial);
        memcpy(weights[spec.seed], trial.vector[TRIAL_PARAM].data, COUNT * trial.element);
        trial_close(&trial);
    }
    layout_release(layout);
    return memcmp(weights[0], weights[1], sizeof *weights) != 0;
}

/* Calls `check` for every trace of the rule. A rule that draws noise has none: what it should be is
 * a distribution. */
static void each_trace(size_t index, enum dtype dtype, void (*check)(const struct optimizer *))
{
    const struct optimizer *rule = optimizer_at(index, dtype);
    size_t count = 0;

    if (!golden_open(&golden, rule->name)) {
        ck_assert_msg(draws_noise(rule), "%s has no golden traces (make golden)", rule->name);
        return;
    }
    for (; golden_next(&golden, &trace); count++)
        if (!trace.only_f64 || dtype == DTYPE_F64)
            check(rule);
    golden_close(&golden);
    ck_assert_uint_ge(count, 3);
}

START_TEST(every_f32_step_is_the_exact_one_but_for_rounding)
{
    each_trace((size_t)_i, DTYPE_F32, check_steps);
}
END_TEST

START_TEST(every_f64_step_is_exact_to_1e_12)
{
    each_trace((size_t)_i, DTYPE_F64, check_steps);
}
END_TEST

START_TEST(a_free_f64_run_is_exact_to_1e_12)
{
    each_trace((size_t)_i, DTYPE_F64, check_free_run);
}
END_TEST

/* Which of the values that rule_values counts a trace has. */
static size_t value_seen(const struct hyper *hyper, double value)
{
    if (hyper->nullable)
        return isnan(value) ? 0u : 1u;
    if (hyper->kind == HYPER_WHOLE)
        return value != hyper->initial ? 1u : 0u;
    return hyper->kind == HYPER_NUMBER ? value != 0 : (size_t)value;
}

/* Each choice and flag of each rule, and each switch both on and off, is in some trace. */
START_TEST(every_form_has_a_trace)
{
    const struct optimizer *rule = optimizer_at((size_t)_i, DTYPE_F64);
    bool seen[HYPERS_MAX][8] = {{false}};
    struct replay replay;

    if (!golden_open(&golden, rule->name))
        return; /* held above */
    while (golden_next(&golden, &trace)) {
        replay_init(&replay, &golden, &trace, rule);
        for (size_t i = 0; i < rule->hyper_count; i++) {
            size_t value = value_seen(&rule->hypers[i], replay.spec.hyper[i]);
            ck_assert_uint_lt(value, 8);
            seen[i][value] = true;
        }
    }
    golden_close(&golden);
    for (size_t i = HYPER_WEIGHT_DECAY; i < rule->hyper_count; i++)
        for (size_t k = 0, values = rule_values(rule, i); values > 1 && k < values; k++)
            ck_assert_msg(seen[i][k], "%s: no trace has %s %zu", rule->name, rule->hypers[i].name,
                          k);
}
END_TEST

Suite *suite_golden(void);
Suite *suite_golden(void)
{
    Suite *suite = suite_create("golden");
    TCase *cases = tcase_create("traces");
    int count = 0;

    while (optimizer_at((size_t)count, DTYPE_F32) != NULL)
        count++;
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, every_f32_step_is_the_exact_one_but_for_rounding, 0, count);
    tcase_add_loop_test(cases, every_f64_step_is_exact_to_1e_12, 0, count);
    tcase_add_loop_test(cases, a_free_f64_run_is_exact_to_1e_12, 0, count);
    tcase_add_loop_test(cases, every_form_has_a_trace, 0, count);
    suite_add_tcase(suite, cases);
    return suite;
}
