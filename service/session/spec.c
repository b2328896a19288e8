/* A session's configuration. */
#include "service/session/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/kernel/real.h"

/* What formats 3 and 4 have more stands at the end. A configuration that uses nothing of it is
 * written in the format before: so the digest of a request to create a session stays what it
 * was. */
enum { SPEC_FORMAT_FIRST = 2, SPEC_FORMAT = 4, NAME_BYTES = 64 };

void spec_init(struct spec *spec)
{
    memset(spec, 0, sizeof *spec);
    spec->dtype = DTYPE_F32;
    spec->gradient.rescale = 1;
    spec->gradient.clip_value = (double)NAN;
    spec->gradient.clip_norm = (double)NAN;
    spec->gradient.max_norm_ratio = (double)NAN;
    spec->durability.seconds = 1;
    spec->durability.steps = 100;
    spec->keep_steps = 1000;
    spec->ema.decay = 0.999;
    spec->ema.eps = 1e-6;
    spec->aggregation.max_staleness = UINT64_MAX;
    spec->aggregation.timeout_s = (double)NAN;
    spec->aggregation.staleness = 3;
    spec->aggregation.lease_s = 60;
    spec->aggregation.accumulate = 1;
    spec->svrg.coefficient = 1;
    schedule_set(&spec->schedule, schedule_find("constant"));
}

void spec_set_rule(struct spec *spec, const struct optimizer *rule)
{
    PRE(rule->dtype == spec->dtype && rule->hyper_count <= HYPERS_MAX);
    spec->rule = rule;
    for (size_t i = 0; i < rule->hyper_count; i++)
        spec->hyper[i] = rule->hypers[i].initial;
}

enum status spec_add_label(struct spec *spec, const char *name, const char *value,
                           struct fault *fault)
{
    size_t name_size = strlen(name) + 1, value_size = strlen(value) + 1;

    if (spec->label_count == LABELS_MAX ||
        name_size + value_size > LABEL_BYTES_MAX - spec->label_bytes)
        return fault_set(fault, STATUS_INVALID_FIELD, "/labels",
                         "labels may be at most %d with %d bytes of names and values together",
                         LABELS_MAX, LABEL_BYTES_MAX);
    memcpy(spec->labels + spec->label_bytes, name, name_size);
    memcpy(spec->labels + spec->label_bytes + name_size, value, value_size);
    spec->label_bytes += name_size + value_size;
    spec->label_count++;
    return STATUS_OK;
}

enum status spec_add_group(struct spec *spec, const struct group *group, struct fault *fault)
{
    if (spec->groups.count == GROUPS_MAX)
        return fault_set(fault, STATUS_INVALID_FIELD, "/groups", "there may be at most %d groups",
                         GROUPS_MAX);
    spec->groups.group[spec->groups.count] = *group;
    spec->groups.group[spec->groups.count++].pattern_count = 0;
    return STATUS_OK;
}

enum status spec_add_pattern(struct spec *spec, const char *pattern, struct fault *fault)
{
    size_t size = strlen(pattern) + 1;

    PRE(spec->groups.count > 0);
    if (size > PATTERN_BYTES_MAX - spec->groups.pattern_bytes)
        return fault_set(fault, STATUS_INVALID_FIELD, "/groups",
                         "the patterns of all groups may have at most %d bytes together",
                         PATTERN_BYTES_MAX);
    memcpy(spec->groups.patterns + spec->groups.pattern_bytes, pattern, size);
    spec->groups.pattern_bytes += size;
    spec->groups.group[spec->groups.count - 1].pattern_count++;
    return STATUS_OK;
}

double spec_average_divisor(const struct spec *spec, uint64_t updates)
{
    return spec->ema.debias ? 1 - (1 - spec->ema.eps) * power(spec->ema.decay, updates) : 1;
}

uint64_t spec_round_size(const struct spec *spec)
{
    return spec->aggregation.mode == AGGREGATION_SYNC ? spec->aggregation.workers
                                                      : spec->aggregation.accumulate;
}

bool spec_gathers(const struct spec *spec)
{
    return spec_round_size(spec) > 1 || spec->aggregation.vote;
}

static enum status check_sync(const struct spec *spec, struct fault *fault)
{
    unsigned long long workers = spec->aggregation.workers, quorum = spec->aggregation.quorum;

    if (workers == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "/aggregation/workers",
                         "in mode \"sync\" a step takes one gradient of each worker; say how many "
                         "there are, for instance \"workers\": 4");
    if (quorum > workers)
        return fault_set(fault, STATUS_INVALID_FIELD, "/aggregation/quorum",
                         "quorum is %llu of %llu workers; it must be at most as many", quorum,
                         workers);
    if (quorum > 0 && isnan(spec->aggregation.timeout_s))
        return fault_set(fault, STATUS_INVALID_FIELD, "/aggregation/timeout_s",
                         "quorum is %llu of %llu workers; say after how many seconds it is enough, "
                         "for instance \"timeout_s\": 10, or 0 for at once",
                         quorum, workers);
    if (spec->aggregation.vote && spec->aggregation.reduction == REDUCTION_SUM)
        return fault_set(fault, STATUS_INVALID_FIELD, "/aggregation/reduction",
                         "a vote has no sum; leave out reduction, or vote");
    return STATUS_OK;
}

enum status spec_check(const struct spec *spec, struct fault *fault)
{
    bool rounds = spec_round_size(spec) > 1;

    if (spec->aggregation.mode == AGGREGATION_SYNC) {
        enum status status = check_sync(spec, fault);
        if (status != STATUS_OK)
            return status;
    }
    if (spec->durability.mode != DURABILITY_CHECKPOINT || (!rounds && !spec->svrg.on))
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, rounds ? "/aggregation" : "/svrg",
                     "durability \"checkpoint\" keeps no gradients, and %s; use \"step\" or "
                     "\"interval\"",
                     rounds ? "rounds of several are put together from those that were kept"
                            : "a snapshot is put together from those that were kept");
}

/* Whether nothing of it was ever set. */
static bool aggregation_plain(const struct spec *spec)
{
    struct spec plain;

    spec_init(&plain);
    return spec->aggregation.mode == plain.aggregation.mode &&
           spec->aggregation.max_staleness == plain.aggregation.max_staleness &&
           spec->aggregation.stale == plain.aggregation.stale && spec->aggregation.workers == 0 &&
           spec->aggregation.quorum == 0 && isnan(spec->aggregation.timeout_s) &&
           spec->aggregation.reduction == plain.aggregation.reduction && !spec->aggregation.vote &&
           spec->aggregation.staleness == plain.aggregation.staleness &&
           spec->aggregation.lease_s == plain.aggregation.lease_s &&
           spec->aggregation.accumulate == plain.aggregation.accumulate;
}

/* The oldest format that can say it. */
static uint32_t format_of(const struct spec *spec)
{
    if (!aggregation_plain(spec) || spec->svrg.on)
        return 4;
    return spec->hash_every > 0 || !isnan(spec->gradient.max_norm_ratio) ? 3 : SPEC_FORMAT_FIRST;
}

/* Hyperparameters go by name: a rule may get new ones, which then take their defaults in old
 * records. */
static void pack_values(struct packer *packer, const char *name, const struct hyper *hypers,
                        size_t count, const double *values)
{
    pack_text(packer, name);
    pack_u32(packer, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        pack_text(packer, hypers[i].name);
        pack_f64(packer, values[i]);
    }
}

static void pack_groups(struct packer *packer, const struct spec *spec)
{
    pack_u32(packer, (uint32_t)spec->groups.count);
    for (size_t i = 0; i < spec->groups.count; i++) {
        const struct group *group = &spec->groups.group[i];
        pack_u32(packer, (uint32_t)group->pattern_count);
        pack_f64(packer, group->lr_mult);
        pack_f64(packer, group->weight_decay_mult);
        pack_u32(packer, group->adapt);
    }
    pack_bytes(packer, spec->groups.patterns, spec->groups.pattern_bytes);
}

void spec_pack(struct packer *packer, const struct spec *spec)
{
    const struct schedule_setting *schedule = &spec->schedule;
    uint32_t format = format_of(spec);

    pack_u32(packer, format);
    pack_u32(packer, (uint32_t)spec->dtype);
    pack_values(packer, spec->rule->name, spec->rule->hypers, spec->rule->hyper_count, spec->hyper);
    pack_values(packer, schedule->schedule->name, schedule->schedule->hypers,
                schedule->schedule->hyper_count, schedule->value);
    for (size_t i = 0; i < SCHEDULE_STEPS_MAX; i++)
        pack_f64(packer, schedule->steps[i]);
    pack_f64(packer, spec->gradient.rescale);
    pack_f64(packer, spec->gradient.clip_value);
    pack_f64(packer, spec->gradient.clip_norm);
    pack_u32(packer, (uint32_t)spec->gradient.nonfinite);
    pack_u32(packer, (uint32_t)spec->durability.mode);
    pack_f64(packer, spec->durability.seconds);
    pack_u64(packer, spec->durability.steps);
    pack_u32(packer, spec->ema.on);
    pack_f64(packer, spec->ema.decay);
    pack_f64(packer, spec->ema.eps);
    pack_u32(packer, spec->ema.debias);
    pack_u64(packer, spec->keep_steps);
    pack_u64(packer, spec->seed);
    pack_u32(packer, (uint32_t)spec->label_count);
    pack_bytes(packer, spec->labels, spec->label_bytes);
    pack_groups(packer, spec);
    if (format == SPEC_FORMAT_FIRST)
        return;
    pack_u64(packer, spec->hash_every);
    pack_f64(packer, spec->gradient.max_norm_ratio);
    if (format == 3)
        return;
    pack_u32(packer, (uint32_t)spec->aggregation.mode);
    pack_u64(packer, spec->aggregation.max_staleness);
    pack_u32(packer, (uint32_t)spec->aggregation.stale);
    pack_u64(packer, spec->aggregation.workers);
    pack_u64(packer, spec->aggregation.quorum);
    pack_f64(packer, spec->aggregation.timeout_s);
    pack_u32(packer, (uint32_t)spec->aggregation.reduction);
    pack_u32(packer, spec->aggregation.vote);
    pack_u64(packer, spec->aggregation.staleness);
    pack_f64(packer, spec->aggregation.lease_s);
    pack_u64(packer, spec->aggregation.accumulate);
    pack_u32(packer, spec->svrg.on);
    pack_u64(packer, spec->svrg.update_freq);
    pack_f64(packer, spec->svrg.coefficient);
}

static enum status damaged(struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "", "a stored configuration is damaged");
}

static enum status unpack_values(struct unpacker *unpacker, const char *owner,
                                 const struct hyper *hypers, size_t count, double *values,
                                 struct fault *fault)
{
    char name[NAME_BYTES], why[160];

    for (uint32_t left = unpack_u32(unpacker); left > 0 && !unpacker->failed; left--) {
        unpack_text(unpacker, name, sizeof name);
        double value = unpack_f64(unpacker);
        size_t index = hyper_find(hypers, count, name);
        if (index == count)
            return fault_set(fault, STATUS_STORAGE_FAILED, "",
                             "a stored session has %s.%s, which this version does not have", owner,
                             name);
        values[index] = value;
        if (!hyper_allows(&hypers[index], value, why, sizeof why))
            return fault_set(fault, STATUS_STORAGE_FAILED, "",
                             "a stored configuration is damaged: %s.%s", owner, why);
    }
    return STATUS_OK;
}

static enum status unpack_rule(struct unpacker *unpacker, struct spec *spec, struct fault *fault)
{
    char name[NAME_BYTES];

    unpack_text(unpacker, name, sizeof name);
    const struct optimizer *rule = optimizer_find(name, spec->dtype);
    if (unpacker->failed || rule == NULL)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "a stored session uses the rule \"%s\", which this version does not have",
                         name);
    spec_set_rule(spec, rule);
    return unpack_values(unpacker, name, rule->hypers, rule->hyper_count, spec->hyper, fault);
}

static enum status unpack_schedule(struct unpacker *unpacker, struct schedule_setting *setting,
                                   struct fault *fault)
{
    char name[NAME_BYTES], why[160];
    const char *field;

    unpack_text(unpacker, name, sizeof name);
    const struct schedule *schedule = schedule_find(name);
    if (unpacker->failed || schedule == NULL)
        return fault_set(
            fault, STATUS_STORAGE_FAILED, "",
            "a stored session uses the schedule \"%s\", which this version does not have", name);
    schedule_set(setting, schedule);
    enum status status = unpack_values(unpacker, name, schedule->hypers, schedule->hyper_count,
                                       setting->value, fault);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < SCHEDULE_STEPS_MAX; i++)
        setting->steps[i] = unpack_f64(unpacker);
    return schedule_check(setting, &field, why, sizeof why) == NULL ? STATUS_OK : damaged(fault);
}

/* Whether the bytes are so many texts, each with its NUL. */
static bool holds_texts(const char *bytes, size_t size, size_t count)
{
    size_t ends = 0;

    for (size_t i = 0; i < size; i++)
        ends += bytes[i] == '\0';
    return ends == count && (size == 0 || bytes[size - 1] == '\0');
}

static bool fits(double value, double least, double below)
{
    return value >= least && value < below;
}

/* Of what every request is held to (api/spec_json.c) that which others build on. */
static bool settings_hold(const struct spec *spec)
{
    double value = spec->gradient.clip_value, norm = spec->gradient.clip_norm;

    return isfinite(spec->gradient.rescale) && (isnan(value) || value > 0) &&
           (isnan(norm) || norm > 0) && fits(spec->durability.seconds, 0.001, 3601) &&
           spec->durability.steps > 0 && spec->keep_steps <= (uint64_t)1e15;
}

static enum status unpack_groups(struct unpacker *unpacker, struct spec *spec, struct fault *fault)
{
    size_t patterns = 0;

    spec->groups.count = unpack_u32(unpacker);
    if (unpacker->failed || spec->groups.count > GROUPS_MAX)
        return damaged(fault);
    for (size_t i = 0; i < spec->groups.count; i++) {
        struct group *group = &spec->groups.group[i];
        patterns += group->pattern_count = unpack_u32(unpacker);
        group->lr_mult = unpack_f64(unpacker);
        group->weight_decay_mult = unpack_f64(unpacker);
        group->adapt = unpack_u32(unpacker) != 0;
        if (!fits(group->lr_mult, 0, HUGE_VAL) || !fits(group->weight_decay_mult, 0, HUGE_VAL))
            return damaged(fault);
    }
    struct span bytes = unpack_bytes(unpacker);
    if (unpacker->failed || bytes.size > PATTERN_BYTES_MAX)
        return damaged(fault);
    if (bytes.size > 0)
        memcpy(spec->groups.patterns, bytes.data, bytes.size);
    spec->groups.pattern_bytes = bytes.size;
    return holds_texts(spec->groups.patterns, bytes.size, patterns) ? STATUS_OK : damaged(fault);
}

#define STEPS_MAX (UINT64_C(1) << 53)

static void unpack_aggregation(struct unpacker *unpacker, struct spec *spec)
{
    spec->aggregation.mode = (int)unpack_u32(unpacker);
    spec->aggregation.max_staleness = unpack_u64(unpacker);
    spec->aggregation.stale = (int)unpack_u32(unpacker);
    spec->aggregation.workers = unpack_u64(unpacker);
    spec->aggregation.quorum = unpack_u64(unpacker);
    spec->aggregation.timeout_s = unpack_f64(unpacker);
    spec->aggregation.reduction = (int)unpack_u32(unpacker);
    spec->aggregation.vote = unpack_u32(unpacker) != 0;
    spec->aggregation.staleness = unpack_u64(unpacker);
    spec->aggregation.lease_s = unpack_f64(unpacker);
    spec->aggregation.accumulate = unpack_u64(unpacker);
    spec->svrg.on = unpack_u32(unpacker) != 0;
    spec->svrg.update_freq = unpack_u64(unpacker);
    spec->svrg.coefficient = unpack_f64(unpacker);
    bool counts = spec_round_size(spec) > 0 && spec_round_size(spec) <= ROUND_MAX &&
                  spec->aggregation.staleness <= STEPS_MAX &&
                  (spec->aggregation.max_staleness <= STEPS_MAX ||
                   spec->aggregation.max_staleness == UINT64_MAX) &&
                  spec->svrg.update_freq <= STEPS_MAX;
    bool seconds =
        fits(spec->aggregation.lease_s, 0, 1e9) &&
        (isnan(spec->aggregation.timeout_s) || fits(spec->aggregation.timeout_s, 0, 1e9));
    unpacker->failed |= !counts || !seconds || (unsigned)spec->aggregation.mode > AGGREGATION_SSP ||
                        (unsigned)spec->aggregation.stale > STALE_SCALE ||
                        (unsigned)spec->aggregation.reduction > REDUCTION_SUM ||
                        !fits(spec->svrg.coefficient, 0, 1e9);
}

enum status spec_unpack(struct unpacker *unpacker, struct spec *out, struct fault *fault)
{
    struct spec spec;
    enum status status;

    spec_init(&spec);
    uint32_t format = unpack_u32(unpacker);
    spec.dtype = (enum dtype)unpack_u32(unpacker);
    if (unpacker->failed || format < SPEC_FORMAT_FIRST || format > SPEC_FORMAT ||
        (spec.dtype != DTYPE_F32 && spec.dtype != DTYPE_F64))
        return damaged(fault);
    if ((status = unpack_rule(unpacker, &spec, fault)) != STATUS_OK ||
        (status = unpack_schedule(unpacker, &spec.schedule, fault)) != STATUS_OK)
        return status;
    spec.gradient.rescale = unpack_f64(unpacker);
    spec.gradient.clip_value = unpack_f64(unpacker);
    spec.gradient.clip_norm = unpack_f64(unpacker);
    spec.gradient.nonfinite = (int)unpack_u32(unpacker);
    spec.durability.mode = (int)unpack_u32(unpacker);
    spec.durability.seconds = unpack_f64(unpacker);
    spec.durability.steps = unpack_u64(unpacker);
    spec.ema.on = unpack_u32(unpacker) != 0;
    spec.ema.decay = unpack_f64(unpacker);
    spec.ema.eps = unpack_f64(unpacker);
    spec.ema.debias = unpack_u32(unpacker) != 0;
    spec.keep_steps = unpack_u64(unpacker);
    spec.seed = unpack_u64(unpacker);
    spec.label_count = unpack_u32(unpacker);
    struct span labels = unpack_bytes(unpacker);
    if (unpacker->failed || labels.size > sizeof spec.labels ||
        (unsigned)spec.gradient.nonfinite > NONFINITE_ZERO ||
        (unsigned)spec.durability.mode > DURABILITY_CHECKPOINT)
        return damaged(fault);
    if (labels.size > 0)
        memcpy(spec.labels, labels.data, labels.size);
    spec.label_bytes = labels.size;
    if (!holds_texts(spec.labels, labels.size, 2 * spec.label_count) || !settings_hold(&spec) ||
        !fits(spec.ema.decay, 0, 1) || !fits(spec.ema.eps, EMA_EPS_MIN, 1))
        return damaged(fault);
    if ((status = unpack_groups(unpacker, &spec, fault)) != STATUS_OK)
        return status;
    if (format >= 3) {
        spec.hash_every = unpack_u64(unpacker);
        spec.gradient.max_norm_ratio = unpack_f64(unpacker);
        if (unpacker->failed || spec.gradient.max_norm_ratio <= 1)
            return damaged(fault);
    }
    if (format >= 4) {
        unpack_aggregation(unpacker, &spec);
        if (unpacker->failed || spec_check(&spec, fault) != STATUS_OK)
            return damaged(fault);
    }
    *out = spec;
    return STATUS_OK;
}
