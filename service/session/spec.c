/* A session's configuration. */
#include "service/session/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"

enum { SPEC_FORMAT = 1, NAME_BYTES = 64 };

void spec_init(struct spec *spec)
{
    memset(spec, 0, sizeof *spec);
    spec->dtype = DTYPE_F32;
    spec->gradient.rescale = 1;
    spec->gradient.clip_value = (double)NAN;
    spec->gradient.clip_norm = (double)NAN;
    spec->durability.seconds = 1;
    spec->durability.steps = 100;
    spec->keep_steps = 1000;
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

/* Hyperparameters go by name: a rule may get new ones, which then take their defaults in old
 * records. */
void spec_pack(struct packer *packer, const struct spec *spec)
{
    pack_u32(packer, SPEC_FORMAT);
    pack_u32(packer, (uint32_t)spec->dtype);
    pack_text(packer, spec->rule->name);
    pack_u32(packer, (uint32_t)spec->rule->hyper_count);
    for (size_t i = 0; i < spec->rule->hyper_count; i++) {
        pack_text(packer, spec->rule->hypers[i].name);
        pack_f64(packer, spec->hyper[i]);
    }
    pack_f64(packer, spec->gradient.rescale);
    pack_f64(packer, spec->gradient.clip_value);
    pack_f64(packer, spec->gradient.clip_norm);
    pack_u32(packer, (uint32_t)spec->gradient.nonfinite);
    pack_u32(packer, (uint32_t)spec->durability.mode);
    pack_f64(packer, spec->durability.seconds);
    pack_u64(packer, spec->durability.steps);
    pack_u64(packer, spec->keep_steps);
    pack_u64(packer, spec->seed);
    pack_u32(packer, (uint32_t)spec->label_count);
    pack_bytes(packer, spec->labels, spec->label_bytes);
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
    for (uint32_t count = unpack_u32(unpacker); count > 0 && !unpacker->failed; count--) {
        unpack_text(unpacker, name, sizeof name);
        double value = unpack_f64(unpacker);
        size_t index = optimizer_hyper(rule, name);
        if (index == rule->hyper_count)
            return fault_set(fault, STATUS_STORAGE_FAILED, "",
                             "a stored session has %s.%s, which this version does not have",
                             rule->name, name);
        spec->hyper[index] = value;
    }
    return STATUS_OK;
}

enum status spec_unpack(struct unpacker *unpacker, struct spec *out, struct fault *fault)
{
    struct spec spec;
    enum status status;

    spec_init(&spec);
    uint32_t format = unpack_u32(unpacker);
    spec.dtype = (enum dtype)unpack_u32(unpacker);
    if (unpacker->failed || format != SPEC_FORMAT ||
        (spec.dtype != DTYPE_F32 && spec.dtype != DTYPE_F64))
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "a stored configuration is damaged");
    if ((status = unpack_rule(unpacker, &spec, fault)) != STATUS_OK)
        return status;
    spec.gradient.rescale = unpack_f64(unpacker);
    spec.gradient.clip_value = unpack_f64(unpacker);
    spec.gradient.clip_norm = unpack_f64(unpacker);
    spec.gradient.nonfinite = (int)unpack_u32(unpacker);
    spec.durability.mode = (int)unpack_u32(unpacker);
    spec.durability.seconds = unpack_f64(unpacker);
    spec.durability.steps = unpack_u64(unpacker);
    spec.keep_steps = unpack_u64(unpacker);
    spec.seed = unpack_u64(unpacker);
    spec.label_count = unpack_u32(unpacker);
    struct span labels = unpack_bytes(unpacker);
    if (unpacker->failed || labels.size > sizeof spec.labels ||
        (unsigned)spec.gradient.nonfinite > NONFINITE_ZERO ||
        (unsigned)spec.durability.mode > DURABILITY_CHECKPOINT)
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "a stored configuration is damaged");
    if (labels.size > 0)
        memcpy(spec.labels, labels.data, labels.size);
    spec.label_bytes = labels.size;
    *out = spec;
    return STATUS_OK;
}
