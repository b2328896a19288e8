/* Steps of golden traces. */
#include "tests/lib/replay.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set_field(struct spec *spec, const char *name, const char *text)
{
    const struct optimizer *rule = spec->rule;
    size_t index = optimizer_hyper(rule, name);

    if (strcmp(name, "rescale") == 0)
        spec->gradient.rescale = strtod(text, NULL);
    else if (strcmp(name, "clip_value") == 0)
        spec->gradient.clip_value = strtod(text, NULL);
    else if (strcmp(name, "clip_norm") == 0)
        spec->gradient.clip_norm = strtod(text, NULL);
    else {
        ck_assert_msg(index < rule->hyper_count, "%s has no %s", rule->name, name);
        ck_assert_msg(hyper_parse(&rule->hypers[index], text, &spec->hyper[index]),
                      "%s cannot have %s %s", rule->name, name, text);
    }
}

void replay_init(struct replay *replay, const struct golden *golden,
                 const struct golden_trace *trace, const struct optimizer *rule)
{
    struct spec *spec = &replay->spec;
    size_t slots = 0;

    ck_assert_str_eq(trace->rule, rule->name);
    replay->golden = golden;
    replay->trace = trace;
    spec_init(spec);
    spec->dtype = rule->dtype;
    spec_set_rule(spec, rule);
    for (size_t i = 0; i < trace->set_count; i++)
        set_field(spec, trace->set[i].name, trace->set[i].value);
    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], spec->hyper)) {
            ck_assert_msg(slots < trace->slot_count &&
                              strcmp(rule->slots[k].name, trace->slot[slots].name) == 0,
                          "%s %s has no slot %s", trace->rule, trace->label, rule->slots[k].name);
            replay->slot[slots++] = k;
        }
    ck_assert_uint_eq(slots, trace->slot_count);
    ck_assert_uint_eq(rule->scalar_count, trace->scalar_count);
    for (size_t k = 0; k < rule->scalar_count; k++)
        ck_assert_str_eq(rule->scalars[k].name, trace->scalar[k]);
}

size_t replay_vector(const struct replay *replay, int k)
{
    return k < 0 ? TRIAL_PARAM : TRIAL_SLOT + replay->slot[k];
}

void replay_open(const struct replay *replay, struct trial *trial, enum dtype wire)
{
    trial_open(trial, &replay->spec, replay->golden->layout, 0);
    trial->advance.gradient.wire = wire;
    trial->advance.seed = wire; /* of no account: a rule with a trace draws no noise */
    for (size_t k = 0; k < replay->trace->slot_count; k++)
        ck_assert_uint_eq(trial_count(trial, replay_vector(replay, (int)k)),
                          replay->trace->slot[k].count);
}

/* A golden vector rounded to f32, in place, and as the session would hold it. */
static void load_vector(struct trial *trial, size_t which, double *values)
{
    for (size_t i = 0; i < trial_count(trial, which); i++)
        values[i] = (double)(float)values[i];
    trial_put(trial, which, values);
}

void replay_load(const struct replay *replay, struct trial *trial, size_t t,
                 struct golden_state *before)
{
    const struct golden_trace *trace = replay->trace;
    const double *start = replay->golden->weights;
    double base[GOLDEN_COUNT_MAX];

    *before = trace->step[t - 1]; /* [0]: all zeros */
    if (t == 1)
        memcpy(before->weights, start, sizeof before->weights);
    load_vector(trial, TRIAL_PARAM, before->weights);
    for (size_t k = 0; k < trace->slot_count; k++) {
        size_t which = replay_vector(replay, (int)k);
        if (t == 1)
            trial_get(trial, which, before->slot[k]);
        else
            load_vector(trial, which, before->slot[k]);
    }
    if (t > 1)
        memcpy(trial->scalar, before->scalar, sizeof before->scalar);
    if (!trace->has_base[t])
        return;
    memcpy(base, trace->base[t] == 0 ? start : trace->step[trace->base[t]].weights, sizeof base);
    load_vector(trial, TRIAL_BASE, base);
    trial->advance.base = trial->vector[TRIAL_BASE].data;
}

void replay_prepare(const struct replay *replay, struct trial *trial, size_t t,
                    struct measure *measure)
{
    const struct spec *spec = &replay->spec;
    struct advance *advance = &trial->advance;
    double clip_value = isnan(spec->gradient.clip_value) ? HUGE_VAL : spec->gradient.clip_value;
    bool clips_gradient =
        !trial->rule->raw && (int)spec->hyper[HYPER_WEIGHT_DECAY_MODE] != DECAY_L2_CLIPPED;

    /* Where clip_value comes later, clip_norm is of the gradient before it. */
    *measure = (struct measure){.rescale = spec->gradient.rescale,
                                .clip_value = clips_gradient ? clip_value : HUGE_VAL,
                                .norm_clipped = !isnan(spec->gradient.clip_norm)};
    trial->hyper[HYPER_LR] = replay->trace->step[t].lr;
    dtype_convert(advance->gradient.wire, advance->gradient.data, DTYPE_F64,
                  replay->golden->gradient[t], trial->count);
    advances(spec->dtype)->measure(&advance->gradient, measure);
    ck_assert_uint_eq(measure->bad_count, 0);
    advance->rescale = spec->gradient.rescale;
    advance->clip_value = clip_value;
    advance->clip_scale = 1;
    if (measure->norm_clipped && measure->clipped_norm > spec->gradient.clip_norm)
        advance->clip_scale = spec->gradient.clip_norm / measure->clipped_norm;
    advance->update = t - 1;
}
