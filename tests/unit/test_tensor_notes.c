/* What a step says of every tensor, against plain sums in long double over what went in and came
 * out: for every rule, wire and precision, over layouts whose tensors end anywhere in a block. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "service/session/advance.h"
#include "service/session/sample.h"
#include "tests/lib/rules.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { UNWRITTEN = 77 }; /* what a note holds that nobody has written */

static const enum dtype wires[] = {DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16};

/* Segments are of 65536 elements: tensors that one cuts, that several are in, that end with a block
 * or a segment, and empty ones everywhere. */
static const char *const layouts[] = {
    "none[0] a[3] s[] none2[4,0] wide[61,67] t[1] u[17] none3[0]",
    "none[0] head[8191] one[] edge[8192] gap[0] rest[49152] next[65536] tail[7]",
    "first[5] long[200003] none[0,3] mid[2,3,5] second[65531,1] last[90000] end[]",
    "alone[150001]",
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static double *doubles(size_t count)
{
    double *values = calloc(count + 1, sizeof *values);

    ck_assert_ptr_nonnull(values);
    return values;
}

static struct tensor_note *notes_of(const struct layout *layout)
{
    struct tensor_note *notes = malloc((layout->tensor_count + 1) * sizeof *notes);

    ck_assert_ptr_nonnull(notes);
    memset(notes, UNWRITTEN, (layout->tensor_count + 1) * sizeof *notes);
    return notes;
}

static void close_to(const char *what, const struct tensor *tensor, double got, long double want)
{
    double fine = 1e-6 * fabs((double)want);

    if (!(fabs(got - (double)want) <= fine || got == (double)(float)want))
        ck_abort_msg("%s of %s: %.9g, not %.9Lg", what, tensor->name, got, want);
}

static long double norm(const double *values, const double *less, size_t count)
{
    long double sum = 0;

    for (size_t i = 0; i < count; i++) {
        long double value = (long double)values[i] - (less == NULL ? 0 : (long double)less[i]);
        sum += value * value;
    }
    return sqrtl(sum);
}

/* The notes of a step (less what the sample says) from the vectors before and after it. `wire` is
 * the gradient's, which a session of f32 rounds first. */
static void check_notes(const struct trial *trial, const struct tensor_note *notes)
{
    const struct wire_gradient *gradient = &trial->advance.gradient;
    double *g = doubles(trial->count), *next = doubles(trial->count), *last = doubles(trial->count);
    void *rounded = doubles(trial->count);
    long double moved = 0, size = 0;

    dtype_convert(trial->rule->dtype, rounded, gradient->wire, gradient->data, trial->count);
    dtype_convert(DTYPE_F64, g, trial->rule->dtype, rounded, trial->count);
    trial_get(trial, TRIAL_PARAM, next);
    trial_get(trial, TRIAL_NEXT, last);
    for (size_t i = 0; i < trial->layout->tensor_count; i++) {
        const struct tensor *tensor = &trial->layout->tensors[i];
        const struct tensor_note *note = &notes[i];
        size_t zeros = 0;
        for (size_t k = 0; k < tensor->count; k++)
            zeros += g[tensor->offset + k] == 0;
        long double update = norm(next + tensor->offset, last + tensor->offset, tensor->count);
        long double weight = norm(next + tensor->offset, NULL, tensor->count);
        close_to("gradient", tensor, (double)note->grad_norm,
                 fabsl((long double)trial->advance.rescale) *
                     norm(g + tensor->offset, NULL, tensor->count));
        /* The difference is rounded to the session's precision. */
        close_to("update", tensor, (double)note->update_norm, update);
        close_to("weight", tensor, (double)note->weight_norm, weight);
        ck_assert_double_eq(
            (double)note->zeros,
            tensor->count == 0 ? 0 : (double)(float)((double)zeros / (double)tensor->count));
        moved += update * update;
        size += weight * weight;
    }
    close_to("update", &trial->layout->tensors[0], trial->advance.update_norm, sqrtl(moved));
    close_to("weight", &trial->layout->tensors[0], trial->advance.param_norm, sqrtl(size));
    free(g);
    free(next);
    free(last);
    free(rounded);
}

enum { POOL = 1 << 20, SHIFTS = 1 << 10 };
static double pool[POOL];

/* Gradients are pieces of the pool: normal numbers with zeros of both signs among them. */
static void setup(void)
{
    uint64_t random = testing_seed();

    for (size_t i = 0; i < POOL; i++) {
        uint64_t kind = testing_random(&random) % 5;
        pool[i] = kind == 0   ? 0
                  : kind == 1 ? -0.0
                              : testing_normal(&random) * pow(2, -(double)(i % 7));
    }
}

static void put_gradient(struct trial *trial, enum dtype wire, uint64_t *random)
{
    ck_assert_uint_le(trial->count + SHIFTS, POOL);
    trial->advance.gradient.wire = wire;
    dtype_convert(wire, trial->advance.gradient.data, DTYPE_F64,
                  pool + testing_random(random) % SHIFTS, trial->count);
}

static void add_group(struct spec *spec, const char *pattern, double lr_mult)
{
    spec->groups.count = 1;
    strcpy(spec->groups.patterns, pattern);
    spec->groups.group[0] = (struct group){
        .lr_mult = lr_mult, .weight_decay_mult = 0, .adapt = false, .pattern_count = 1};
}

/* Measures and steps as a session does, with every kind of clipping on by turns. */
static void take_step(struct trial *trial, enum dtype wire, unsigned kind, uint64_t *random,
                      struct tensor_note *notes)
{
    struct advance *advance = &trial->advance;
    struct measure measure = {.rescale = kind & 1 ? -0.75 : 1,
                              .clip_value = kind & 2 ? 0.5 : HUGE_VAL,
                              .norm_clipped = kind & 4,
                              .layout = trial->layout,
                              .notes = notes};

    put_gradient(trial, wire, random);
    advances(trial->rule->dtype)->measure(&advance->gradient, &measure);
    ck_assert_uint_eq(measure.bad_count, 0);
    advance->rescale = measure.rescale;
    advance->clip_value = measure.clip_value;
    advance->clip_scale = kind & 4 ? fmin(1, 2 / measure.clipped_norm) : 1;
    advance->notes = notes;
    if (trial->rule->bases != NULL && trial->rule->bases(trial->hyper) > 0)
        advance->base = trial->vector[TRIAL_BASE].data;
    trial_step(trial);
}

static void check_rule(const struct optimizer *rule, const char *shapes, bool grouped,
                       uint64_t *random)
{
    struct layout *layout = tensors_layout(shapes);
    struct tensor_note *notes = notes_of(layout), untouched = notes[layout->tensor_count];
    struct trial trial;
    struct spec spec;

    rule_spec(&spec, rule, 0);
    spec.ema.on = grouped;
    if (grouped && strchr(shapes, 'e') != NULL)
        add_group(&spec, "*e*", 0.5);
    trial_open(&trial, &spec, layout, 3);
    trial_fill(&trial, TRIAL_PARAM, *random, 4);
    trial_fill(&trial, TRIAL_BASE, *random, 3.9);
    unsigned steps = sizeof wires / sizeof *wires, first = 0;
    if (layout->count >
        100000) { /* one of the wires by chance: all would take minutes under TSan */
        first = (unsigned)(testing_random(random) % steps);
        steps = first + 1;
    }
    for (unsigned step = first; step < steps; step++) {
        take_step(&trial, wires[step], step * 2 + grouped, random, notes);
        check_notes(&trial, notes);
    }
    ck_assert_uint_eq(trial_breaches(&trial), 0);
    for (size_t i = 0; i <= layout->tensor_count; i++) {
        ck_assert_mem_eq(&notes[i].cosine, &untouched.cosine, sizeof(float));
        ck_assert_uint_eq(notes[i].nonfinite, untouched.nonfinite);
    }
    ck_assert_mem_eq(&notes[layout->tensor_count], &untouched, sizeof untouched);
    trial_close(&trial);
    free(notes);
    layout_release(layout);
}

START_TEST(notes_of_every_rule_are_the_plain_sums)
{
    uint64_t random = testing_seed() ^ (uint64_t)_i;
    const struct optimizer *rule;
    enum dtype dtype = _i % 2 == 0 ? DTYPE_F32 : DTYPE_F64;

    for (size_t k = 0; (rule = optimizer_at(k, dtype)) != NULL; k++)
        check_rule(rule, layouts[_i / 4], _i / 2 % 2 == 1, &random);
}
END_TEST

/* As many small tensors as there may be, from empty to some lanes. */
START_TEST(very_many_tensors_have_notes_of_their_own)
{
    static char shapes[16 * 20000];
    uint64_t random = testing_seed() ^ 77;
    size_t used = 0;

    for (size_t i = 0; i < 16000; i++)
        used += (size_t)sprintf(shapes + used, "t%zu[%zu] ", i, testing_random(&random) % 40);
    sprintf(shapes + used, "end[3]");
    check_rule(optimizer_find("adam", DTYPE_F32), shapes, false, &random);
    check_rule(optimizer_find("adam", DTYPE_F64), shapes, true, &random);
    check_rule(optimizer_find("lamb", DTYPE_F32), shapes, false, &random);
}
END_TEST

/* Notes and norms of some steps, with a crew or alone, with notes or without. */
static void run_steps(const char *rule, const char *shapes, bool crew, bool noted,
                      struct tensor_note *notes, double *norms)
{
    struct layout *layout = tensors_layout(shapes);
    struct sample *sample = sample_new(layout);
    uint64_t random = testing_seed() ^ 5;
    struct trial trial;
    struct spec spec;

    ck_assert_ptr_nonnull(sample);
    rule_spec(&spec, optimizer_find(rule, DTYPE_F32), 0);
    trial_open(&trial, &spec, layout, 0);
    trial_fill(&trial, TRIAL_PARAM, random, 4);
    if (crew)
        crew_start();
    memset(notes, 0, layout->tensor_count * sizeof *notes);
    for (unsigned step = 0; step < 3; step++) {
        take_step(&trial, wires[step], step, &random, noted ? notes : NULL);
        sample_turn(sample, layout, &trial.advance.gradient, noted ? notes : NULL);
        norms[step * 2] = trial.advance.update_norm;
        norms[step * 2 + 1] = trial.advance.param_norm;
    }
    if (crew)
        crew_stop();
    trial_close(&trial);
    sample_free(sample);
    layout_release(layout);
}

START_TEST(notes_have_the_same_bits_with_and_without_a_crew)
{
    static const char *const rules[] = {"adam", "lamb", "sgd"};
    struct tensor_note alone[16], crew[16], none[16];
    double norms[3][6];

    for (size_t i = 0; i < LAYOUTS; i++)
        for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
            memset(alone, 0, sizeof alone);
            memset(crew, 0, sizeof crew);
            run_steps(rules[k], layouts[i], false, true, alone, norms[0]);
            for (int again = 0; again < 5; again++) {
                run_steps(rules[k], layouts[i], true, true, crew, norms[1]);
                ck_assert_mem_eq(alone, crew, sizeof alone);
                ck_assert_mem_eq(norms[0], norms[1], sizeof norms[0]);
            }
            /* Whether anybody wants notes changes nothing but the notes. */
            run_steps(rules[k], layouts[i], false, false, none, norms[2]);
            ck_assert_mem_eq(norms[0], norms[2], sizeof norms[0]);
        }
}
END_TEST

START_TEST(tensors_say_how_many_numbers_are_not_finite)
{
    static const double kinds[] = {(double)NAN, HUGE_VAL, -HUGE_VAL};
    struct layout *layout = tensors_layout(layouts[_i]);
    struct tensor_note *notes = notes_of(layout);
    size_t *planted = calloc(layout->tensor_count, sizeof *planted), all = 0;
    double *values = doubles(layout->count);
    void *bytes = doubles(layout->count);
    uint64_t random = testing_seed() ^ 9;

    ck_assert_ptr_nonnull(planted);
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        for (size_t k = 0; k < tensor->count; k++) {
            bool bad = k == 0 || k + 1 == tensor->count || testing_random(&random) % 1000 == 0;
            bad = bad && i % 3 != 2;
            values[tensor->offset + k] = bad ? kinds[k % 3] : 0.5;
            planted[i] += bad;
        }
        all += planted[i];
    }
    for (size_t w = 0; w < sizeof wires / sizeof *wires; w++)
        for (size_t d = 0; d < 2; d++) {
            const struct advance_functions *functions = advances(d == 0 ? DTYPE_F32 : DTYPE_F64);
            struct wire_gradient gradient = dense_gradient(bytes, wires[w], layout->count);
            struct measure measure = {
                .rescale = 1, .clip_value = HUGE_VAL, .layout = layout, .notes = notes};
            dtype_convert(wires[w], bytes, DTYPE_F64, values, layout->count);
            functions->measure(&gradient, &measure);
            ck_assert_uint_eq(measure.bad_count, all);
            functions->zero_nonfinite(&gradient);
            functions->measure(&gradient, &measure); /* keeps the counts */
            ck_assert_uint_eq(measure.bad_count, 0);
            for (size_t i = 0; i < layout->tensor_count; i++) {
                double count = (double)layout->tensors[i].count;
                ck_assert_uint_eq(notes[i].nonfinite, planted[i]);
                ck_assert_double_eq((double)notes[i].zeros,
                                    count == 0 ? 0 : (double)(float)((double)planted[i] / count));
                close_to("gradient", &layout->tensors[i], (double)notes[i].grad_norm,
                         0.5L * sqrtl((long double)(count - (double)planted[i])));
            }
            memset(notes, UNWRITTEN, layout->tensor_count * sizeof *notes);
        }
    free(values);
    free(bytes);
    free(planted);
    free(notes);
    layout_release(layout);
}
END_TEST

/* A session of f64 whose squares no double holds, but whose scaled norms a float does. */
START_TEST(norms_of_huge_and_tiny_doubles_hold)
{
    static const double scales[] = {1e200, 1e-200};
    struct layout *layout = tensors_layout("a[3] none[0] b[9000] zero[4]");
    struct tensor_note *notes = notes_of(layout);
    double *values = doubles(layout->count);
    uint64_t random = testing_seed() ^ 11;

    for (size_t i = 0; i + 4 < layout->count; i++)
        values[i] = scales[_i] * testing_normal(&random);
    struct wire_gradient gradient = dense_gradient(values, DTYPE_F64, layout->count);
    struct measure measure = {
        .rescale = 1 / scales[_i], .clip_value = HUGE_VAL, .layout = layout, .notes = notes};
    advance_f64.measure(&gradient, &measure);
    for (size_t i = 0; i < layout->tensor_count; i++)
        close_to("gradient", &layout->tensors[i], (double)notes[i].grad_norm,
                 norm(values + layout->tensors[i].offset, NULL, layout->tensors[i].count) /
                     (long double)scales[_i]);
    ck_assert(notes[2].grad_norm > 1 && notes[3].grad_norm == 0 && notes[3].zeros == 1);
    free(values);
    free(notes);
    layout_release(layout);
}
END_TEST

Suite *suite_tensor_notes(void);
Suite *suite_tensor_notes(void)
{
    Suite *suite = suite_create("tensor_notes");
    TCase *notes = tcase_create("notes");

    tcase_set_timeout(notes, 120);
    tcase_add_unchecked_fixture(notes, setup, NULL);
    tcase_add_loop_test(notes, notes_of_every_rule_are_the_plain_sums, 0, LAYOUTS * 4);
    tcase_add_test(notes, very_many_tensors_have_notes_of_their_own);
    tcase_add_test(notes, notes_have_the_same_bits_with_and_without_a_crew);
    tcase_add_loop_test(notes, tensors_say_how_many_numbers_are_not_finite, 0, LAYOUTS);
    tcase_add_loop_test(notes, norms_of_huge_and_tiny_doubles_hold, 0, 2);
    suite_add_tcase(suite, notes);
    return suite;
}
