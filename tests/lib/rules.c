/* Forms are counted in a mixed radix: one digit for each hyperparameter. */
#include "tests/lib/rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "tests/lib/testing.h"

enum { MARGIN = 64, CANARY = 0xA5 };

/* --- forms --- */

/* Whether some slot is there at the defaults and not when this number is 0. */
static bool switches_state(const struct optimizer *rule, size_t index)
{
    double hyper[HYPERS_MAX] = {0}, off[HYPERS_MAX];

    for (size_t i = 0; i < rule->hyper_count; i++)
        hyper[i] = rule->hypers[i].initial;
    memcpy(off, hyper, sizeof off);
    off[index] = 0;
    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], hyper) != slot_needed(&rule->slots[k], off))
            return true;
    return false;
}

size_t rule_values(const struct optimizer *rule, size_t index)
{
    const struct hyper *hyper = &rule->hypers[index];
    size_t count = 0;
    char why[160];

    switch (hyper->kind) {
    case HYPER_FLAG:
        return 2;
    case HYPER_CHOICE:
        while (hyper->choices[count] != NULL)
            count++;
        return count;
    case HYPER_WHOLE:
        return hyper->nullable || hyper->initial == hyper->min ? 2 : 1;
    case HYPER_NUMBER:
        if (hyper->nullable || index == HYPER_WEIGHT_DECAY)
            return 2;
        if (hyper->initial == 0)
            return hyper_allows(hyper, 0.25, why, sizeof why) ? 2 : 1;
        return switches_state(rule, index) ? 2 : 1;
    case HYPER_STEPS:
        break;
    }
    PRE(hyper->kind != HYPER_STEPS); /* of schedules only */
    return 0;
}

double rule_value(const struct optimizer *rule, size_t index, size_t digit)
{
    const struct hyper *hyper = &rule->hypers[index];

    if (hyper->kind == HYPER_FLAG || hyper->kind == HYPER_CHOICE)
        return (double)digit;
    if (digit == 0)
        return hyper->initial;
    if (hyper->nullable && !isnan(hyper->initial))
        return (double)NAN;
    if (hyper->kind == HYPER_WHOLE)
        return hyper->min + 1;
    return hyper->initial == 0 || hyper->nullable ? 0.25 : 0;
}

static size_t all_forms(const struct optimizer *rule)
{
    size_t forms = 1;

    for (size_t i = 0; i < rule->hyper_count; i++)
        forms *= rule_values(rule, i);
    return forms;
}

size_t rule_forms(const struct optimizer *rule)
{
    size_t forms = all_forms(rule);

    return forms < RULE_FORMS_MAX ? forms : RULE_FORMS_MAX;
}

void rule_form(const struct optimizer *rule, size_t form, double *hyper)
{
    size_t forms = all_forms(rule);

    /* 79 is prime to every number of forms (no hyperparameter has 79 values), so its multiples are
     * different forms, and far enough from each other that every digit goes through its values. */
    if (forms > RULE_FORMS_MAX)
        form = form * 79 % forms;
    for (size_t i = 0; i < rule->hyper_count; i++) {
        size_t values = rule_values(rule, i);
        hyper[i] = rule_value(rule, i, form % values);
        form /= values;
    }
}

void rule_spec(struct spec *spec, const struct optimizer *rule, size_t form)
{
    spec_init(spec);
    spec->dtype = rule->dtype;
    spec_set_rule(spec, rule);
    rule_form(rule, form, spec->hyper);
}

/* --- trials --- */

static void add_vector(struct trial *trial, size_t which, size_t size, size_t shift)
{
    size_t before = MARGIN + (shift * (which + 1) % 16) * trial->element;
    size_t whole = (before + size + MARGIN + 63) / 64 * 64;
    unsigned char *memory = aligned_alloc(64, whole);

    PRE(memory != NULL);
    memset(memory, CANARY, before);
    memset(memory + before, 0, size);
    memset(memory + before + size, CANARY, whole - before - size);
    trial->vector[which].memory = memory;
    trial->vector[which].data = memory + before;
    trial->vector[which].size = size;
}

static void fill_slot(struct trial *trial, size_t k)
{
    double start = trial->hyper[trial->rule->slots[k].initial];

    for (size_t i = 0; i < trial->plan->slot_count[k]; i++)
        dtype_convert(trial->rule->dtype, trial->vector[TRIAL_SLOT + k].data + i * trial->element,
                      DTYPE_F64, &start, 1);
}

static void add_vectors(struct trial *trial, const struct spec *spec, size_t shift)
{
    const struct optimizer *rule = trial->rule;
    size_t size = trial->count * trial->element;

    add_vector(trial, TRIAL_GRADIENT, trial->count * sizeof(double), shift);
    add_vector(trial, TRIAL_PARAM, size, shift);
    add_vector(trial, TRIAL_NEXT, size, shift);
    add_vector(trial, TRIAL_BASE, size, shift);
    if (spec->ema.on) {
        add_vector(trial, TRIAL_AVERAGE, size, shift);
        add_vector(trial, TRIAL_NEXT_AVERAGE, size, shift);
    }
    add_vector(trial, TRIAL_PROPOSAL, trial->plan->proposal_count * trial->element, shift);
    add_vector(trial, TRIAL_WORKSPACE, trial->plan->workspace, 0);
    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], trial->hyper)) {
            add_vector(trial, TRIAL_SLOT + k, trial->plan->slot_count[k] * trial->element, shift);
            if (rule->slots[k].initial != 0)
                fill_slot(trial, k);
        }
}

/* The vectors change places from step to step. */
static void place_vectors(struct trial *trial)
{
    trial->advance.param = trial->vector[TRIAL_PARAM].data;
    trial->advance.next_param = trial->vector[TRIAL_NEXT].data;
    trial->advance.average = trial->vector[TRIAL_AVERAGE].data;
    trial->advance.next_average = trial->vector[TRIAL_NEXT_AVERAGE].data;
}

void trial_open(struct trial *trial, const struct spec *spec, struct layout *layout, size_t shift)
{
    const struct optimizer *rule = spec->rule;
    struct fault fault;

    memset(trial, 0, sizeof *trial);
    trial->rule = rule;
    trial->layout = layout_retain(layout);
    trial->count = layout->count;
    trial->element = dtype_size(rule->dtype);
    trial->proposes = rule->propose != NULL;
    PRE(plan_new(spec, layout, &trial->plan, &fault) == STATUS_OK);
    memcpy(trial->hyper, spec->hyper, sizeof trial->hyper);
    for (size_t k = 0; k < rule->scalar_count; k++)
        trial->scalar[k] = rule->scalars[k].initial;
    add_vectors(trial, spec, shift);
    trial->advance = (struct advance){
        .plan = trial->plan,
        .hyper = trial->hyper,
        .seed = spec->seed,
        .gradient = dense_gradient(trial->vector[TRIAL_GRADIENT].data, rule->dtype, trial->count),
        .rescale = 1,
        .clip_value = HUGE_VAL,
        .clip_scale = 1,
        .scalar = trial->scalar,
        .workspace = trial->vector[TRIAL_WORKSPACE].data,
        .proposal = trial->vector[TRIAL_PROPOSAL].data,
        .average_rest = 1 - spec->ema.decay,
    };
    for (size_t k = 0; k < rule->slot_count; k++)
        trial->advance.slot[k] = trial->vector[TRIAL_SLOT + k].data;
    place_vectors(trial);
}

void trial_close(struct trial *trial)
{
    for (size_t i = 0; i < TRIAL_VECTORS; i++)
        free(trial->vector[i].memory);
    plan_free(trial->plan);
    layout_release(trial->layout);
}

static void swap_vectors(struct trial *trial, size_t one, size_t other)
{
    struct trial copy = *trial;

    trial->vector[one] = copy.vector[other];
    trial->vector[other] = copy.vector[one];
}

void trial_start(struct trial *trial)
{
    for (size_t k = 0; k < trial->rule->slot_count; k++)
        if (trial->rule->slots[k].starts_as_weights && trial->vector[TRIAL_SLOT + k].data != NULL)
            memcpy(trial->vector[TRIAL_SLOT + k].data, trial->vector[TRIAL_PARAM].data,
                   trial->vector[TRIAL_SLOT + k].size);
}

void trial_propose(struct trial *trial)
{
    struct advance next = trial->advance;

    next.update++;
    advances(trial->rule->dtype)->propose(&next, trial->vector[TRIAL_PROPOSAL].data);
}

void trial_step(struct trial *trial)
{
    if (trial->advance.update == 0)
        trial_start(trial);
    if (trial->proposes)
        trial_propose(trial);
    trial->advance.update++;
    advances(trial->rule->dtype)->run(&trial->advance);
    swap_vectors(trial, TRIAL_PARAM, TRIAL_NEXT);
    swap_vectors(trial, TRIAL_AVERAGE, TRIAL_NEXT_AVERAGE);
    place_vectors(trial);
}

double *trial_hyper(struct trial *trial, const char *name)
{
    size_t index = optimizer_hyper(trial->rule, name);

    PRE(index < trial->rule->hyper_count);
    return &trial->hyper[index];
}

size_t trial_count(const struct trial *trial, size_t which)
{
    return which == TRIAL_GRADIENT ? trial->count : trial->vector[which].size / trial->element;
}

void trial_put(struct trial *trial, size_t which, const double *values)
{
    dtype_convert(trial->rule->dtype, trial->vector[which].data, DTYPE_F64, values,
                  trial_count(trial, which));
}

void trial_get(const struct trial *trial, size_t which, double *values)
{
    dtype_convert(DTYPE_F64, values, trial->rule->dtype, trial->vector[which].data,
                  trial_count(trial, which));
}

double *trial_numbers(const struct trial *trial, size_t which, size_t start, size_t count)
{
    double *values = malloc((count + 1) * sizeof *values);

    PRE(values != NULL && start + count <= trial_count(trial, which));
    dtype_convert(DTYPE_F64, values, trial->rule->dtype,
                  trial->vector[which].data + start * trial->element, count);
    return values;
}

void trial_fill(struct trial *trial, size_t which, uint64_t seed, double scale)
{
    double block[1024];
    size_t count = trial_count(trial, which);
    uint64_t state = seed;

    for (size_t start = 0, part; start < count; start += part) {
        part = count - start < sizeof block / sizeof *block ? count - start
                                                            : sizeof block / sizeof *block;
        for (size_t i = 0; i < part; i++)
            block[i] = scale * 2 * (testing_uniform(&state) - 0.5);
        dtype_convert(trial->rule->dtype, trial->vector[which].data + start * trial->element,
                      DTYPE_F64, block, part);
    }
}

void trial_fill_normal(struct trial *trial, size_t which, uint64_t seed, double scale)
{
    size_t count = trial_count(trial, which);
    double *values = malloc((count + 1) * sizeof *values);
    uint64_t state = testing_seed() ^ seed;

    PRE(values != NULL);
    for (size_t i = 0; i < count; i++)
        values[i] = scale * testing_normal(&state);
    trial_put(trial, which, values);
    free(values);
}

size_t trial_breaches(const struct trial *trial)
{
    size_t dead = 0;

    for (size_t i = 0; i < TRIAL_VECTORS; i++) {
        if (trial->vector[i].data == NULL)
            continue;
        for (const unsigned char *at = trial->vector[i].memory; at < trial->vector[i].data; at++)
            dead += *at != CANARY;
        for (size_t k = 0; k < MARGIN; k++)
            dead += trial->vector[i].data[trial->vector[i].size + k] != CANARY;
    }
    return dead;
}
