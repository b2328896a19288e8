/* Every rule against traces that were computed apart from the program (tests/golden/generate.py),
 * through the pipeline of a real step, in both precisions and from all four wire formats.
 *
 * f64: every number within 1e-12 of itself, step by step and over the whole free run.
 *
 * f32: each step starts from the golden state before it, rounded to f32, and is held against one
 * exact step from that very state, so errors do not add up over steps. The unit is the f32 spacing
 * at the larger of the number before and after the step: a sum cannot be rounded more finely than
 * its terms. A slot that holds squares of gradients is compared by its root, which is what rules
 * divide by and what has the unit of a gradient. Weights: at most 2 units. Slots: at most 2 by the
 * rule itself; where the pipeline rescales, clips and decays, q brings up to four roundings of its
 * own (two factors and two products, half a unit each), so 2 more. */
#include <check.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/advance.h"
#include "tests/lib/golden.h"

static struct golden golden;
static struct golden_trace trace;

static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

struct setting {
    const struct optimizer *rule;
    double hyper[HYPERS_MAX];
    double rescale, clip_value, clip_norm; /* infinity: none */
};

/* A vector of the session's dtype, and as doubles. */
struct vector {
    _Alignas(64) unsigned char bytes[GOLDEN_COUNT_MAX * sizeof(double)];
};

static double choice_value(const struct hyper *hyper, const char *text)
{
    size_t i = 0;

    while (hyper->choices[i] != NULL && strcmp(hyper->choices[i], text) != 0)
        i++;
    ck_assert_msg(hyper->choices[i] != NULL, "%s has no choice %s", hyper->name, text);
    return (double)i;
}

static void setting_init(struct setting *setting, const struct optimizer *rule)
{
    *setting =
        (struct setting){.rule = rule, .rescale = 1, .clip_value = HUGE_VAL, .clip_norm = HUGE_VAL};
    for (size_t i = 0; i < rule->hyper_count; i++)
        setting->hyper[i] = rule->hypers[i].initial;
    for (size_t i = 0; i < trace.set_count; i++) {
        const char *name = trace.set[i].name, *text = trace.set[i].value;
        size_t index = optimizer_hyper(rule, name);
        if (strcmp(name, "rescale") == 0)
            setting->rescale = strtod(text, NULL);
        else if (strcmp(name, "clip_value") == 0)
            setting->clip_value = strtod(text, NULL);
        else if (strcmp(name, "clip_norm") == 0)
            setting->clip_norm = strtod(text, NULL);
        else {
            ck_assert_msg(index < rule->hyper_count, "%s has no %s", rule->name, name);
            const struct hyper *hyper = &rule->hypers[index];
            setting->hyper[index] = hyper->kind == HYPER_CHOICE ? choice_value(hyper, text)
                                    : hyper->kind == HYPER_FLAG ? strcmp(text, "true") == 0
                                                                : strtod(text, NULL);
        }
    }
    size_t slots = 0;
    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], setting->hyper)) {
            ck_assert_uint_eq(slots, k); /* a trace lists the needed ones, which come first */
            ck_assert_str_eq(rule->slots[k].name, trace.slot[slots++].name);
        }
    ck_assert_uint_eq(slots, trace.slot_count);
}

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

static bool conditions(const struct setting *setting)
{
    return setting->rescale != 1 || setting->hyper[HYPER_WEIGHT_DECAY] != 0 ||
           isfinite(setting->clip_value) || isfinite(setting->clip_norm);
}

/* Slot `k`, or the weights when k is negative. */
static void check_vector(const struct setting *setting, size_t t, int k, const struct vector *got,
                         const double *expected, const double *before)
{
    const char *name = k < 0 ? "w" : trace.slot[k].name;
    bool square = k >= 0 && trace.slot[k].square;
    double limit = k >= 0 && conditions(setting) ? 4 : 2;
    enum dtype dtype = setting->rule->dtype;
    double values[GOLDEN_COUNT_MAX];

    dtype_convert(DTYPE_F64, values, dtype, got->bytes, golden.count);
    for (size_t i = 0; i < golden.count; i++) {
        double value = values[i], should = expected[i], was = before[i];
        if (dtype == DTYPE_F64) {
            if (!near(value, should, 1e-12))
                ck_abort_msg("%s %s: %s[%zu] after step %zu is %a, not %a", trace.rule, trace.label,
                             name, i, t, value, should);
            continue;
        }
        if (square)
            value = sqrt(value), should = sqrt(should), was = sqrt(was);
        double units = fabs(value - should) / spacing(fmax(fabs(should), fabs(was)));
        if (!(units <= limit))
            ck_abort_msg("%s %s: %s[%zu] after step %zu is %a, not %a (%.2f units)", trace.rule,
                         trace.label, name, i, t, value, should, units);
    }
}

/* A step as the engine takes it; weights and slots are replaced by what it made. */
static void take_step(const struct setting *setting, size_t t, enum dtype wire, struct vector *w,
                      struct vector *slot, const struct golden_state *expected)
{
    enum dtype dtype = setting->rule->dtype;
    double hyper[HYPERS_MAX];
    struct vector gradient, next;
    struct advance advance = {.rule = setting->rule,
                              .hyper = hyper,
                              .update = t,
                              .gradient = {gradient.bytes, wire, golden.count},
                              .rescale = setting->rescale,
                              .clip_value = setting->clip_value,
                              .clip_scale = 1,
                              .param = w->bytes,
                              .next_param = next.bytes};
    struct measure measure = {.rescale = setting->rescale,
                              .clip_value = setting->clip_value,
                              .norm_clipped = isfinite(setting->clip_norm)};
    double fine = dtype == DTYPE_F64 ? 1e-12 : 1e-6;

    memcpy(hyper, setting->hyper, sizeof hyper);
    hyper[HYPER_LR] = trace.step[t].lr;
    if ((int)hyper[HYPER_WEIGHT_DECAY_MODE] == DECAY_L2_CLIPPED)
        measure.clip_value = HUGE_VAL; /* clips by value after the decay, so after clip_norm */
    dtype_convert(wire, gradient.bytes, DTYPE_F64, golden.gradient[t], golden.count);
    advances(dtype)->measure(&advance.gradient, &measure);
    ck_assert_uint_eq(measure.bad_count, 0);
    if (measure.norm_clipped && measure.clipped_norm > setting->clip_norm)
        advance.clip_scale = setting->clip_norm / measure.clipped_norm;
    for (size_t k = 0; k < trace.slot_count; k++)
        advance.slot[k] = slot[k].bytes;
    advances(dtype)->run(&advance);
    memcpy(w, &next, sizeof next);
    if (expected == NULL)
        return;
    /* In f32 the update's norm carries the rounding of the weights. */
    double rounding = dtype == DTYPE_F64 ? 0 : sqrt((double)golden.count) * (double)FLT_EPSILON * 4;
    ck_assert(near(measure.norm, expected->norm, fine));
    ck_assert(near(advance.clip_scale, expected->clip_scale, fine));
    ck_assert(near(advance.param_norm, expected->param_norm, fine));
    ck_assert_msg(fabs(advance.update_norm - expected->update_norm) <=
                      rounding + 1e-10 * expected->update_norm,
                  "update norm %a, not %a", advance.update_norm, expected->update_norm);
}

/* The golden state before step t as the session would hold it, exact in f32. */
static void load_before(enum dtype dtype, size_t t, struct vector *w, struct vector *slot,
                        struct golden_state *before)
{
    if (t == 1) {
        memset(before, 0, sizeof *before);
        memcpy(before->weights, golden.weights, sizeof golden.weights);
    } else {
        *before = trace.step[t - 1];
    }
    for (size_t i = 0; i < golden.count; i++) {
        before->weights[i] = (double)(float)before->weights[i];
        for (size_t k = 0; k < trace.slot_count; k++)
            before->slot[k][i] = (double)(float)before->slot[k][i];
    }
    dtype_convert(dtype, w->bytes, DTYPE_F64, before->weights, golden.count);
    for (size_t k = 0; k < trace.slot_count; k++)
        dtype_convert(dtype, slot[k].bytes, DTYPE_F64, before->slot[k], golden.count);
}

static void check_steps(const struct setting *setting, enum dtype wire)
{
    struct vector w, slot[GOLDEN_SLOTS_MAX];
    struct golden_state before;

    for (size_t t = 1; t <= golden.steps; t++) {
        const struct golden_state *expected = &trace.step[t];
        load_before(setting->rule->dtype, t, &w, slot, &before);
        take_step(setting, t, wire, &w, slot, expected);
        check_vector(setting, t, -1, &w, expected->weights, before.weights);
        for (int k = 0; k < (int)trace.slot_count; k++)
            check_vector(setting, t, k, &slot[k], expected->slot[k], before.slot[k]);
    }
}

static void check_free_run(const struct setting *setting, enum dtype wire)
{
    struct vector w, slot[GOLDEN_SLOTS_MAX];
    size_t checked = 0;

    dtype_convert(setting->rule->dtype, w.bytes, DTYPE_F64, golden.weights, golden.count);
    memset(slot, 0, sizeof slot);
    for (size_t t = 1; t <= golden.steps; t++) {
        const struct golden_state *expected = &trace.free[t];
        take_step(setting, t, wire, &w, slot, NULL);
        if (!expected->given)
            continue;
        check_vector(setting, t, -1, &w, expected->weights, expected->weights);
        for (int k = 0; k < (int)trace.slot_count; k++)
            check_vector(setting, t, k, &slot[k], expected->slot[k], expected->slot[k]);
        checked++;
    }
    ck_assert(trace.free[golden.steps].given && checked >= 3);
}

/* Calls `check` for every trace of the rule. */
static void each_trace(size_t index, enum dtype dtype,
                       void (*check)(const struct setting *, enum dtype))
{
    const struct optimizer *rule = optimizer_at(index, dtype);
    struct setting setting;
    size_t count = 0;

    for (golden_open(&golden, rule->name); golden_next(&golden, &trace); count++) {
        ck_assert_str_eq(trace.rule, rule->name);
        setting_init(&setting, rule);
        for (size_t k = 0; k < sizeof wires / sizeof *wires; k++)
            check(&setting, wires[k]);
    }
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

/* Each choice and flag of each rule, and each switch that is off by default, is in some trace. */
START_TEST(every_form_has_a_trace)
{
    const struct optimizer *rule = optimizer_at((size_t)_i, DTYPE_F64);
    bool seen[HYPERS_MAX][8] = {{false}};
    struct setting setting;

    for (golden_open(&golden, rule->name); golden_next(&golden, &trace);) {
        setting_init(&setting, rule);
        for (size_t i = 0; i < rule->hyper_count; i++) {
            size_t value = rule->hypers[i].kind == HYPER_NUMBER ? setting.hyper[i] != 0
                                                                : (size_t)setting.hyper[i];
            ck_assert_uint_lt(value, 8);
            seen[i][value] = true;
        }
    }
    golden_close(&golden);
    for (size_t i = HYPER_WEIGHT_DECAY; i < rule->hyper_count; i++) {
        const struct hyper *hyper = &rule->hypers[i];
        size_t values = 2;
        if (hyper->kind == HYPER_CHOICE)
            for (values = 0; hyper->choices[values] != NULL;)
                values++;
        for (size_t k = 0; k < values; k++)
            ck_assert_msg(seen[i][k] || (hyper->kind == HYPER_NUMBER && hyper->initial != 0),
                          "%s: no trace has %s %zu", rule->name, hyper->name, k);
    }
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
