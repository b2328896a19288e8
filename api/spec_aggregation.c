/* The members "aggregation" and "svrg" of a session: whose gradients make a step, and whether they
 * are corrected by a snapshot. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/fields.h"
#include "api/spec_json.h"
#include "service/core/contract.h"

static const char *const modes[] = {
    [AGGREGATION_ASYNC] = "async", [AGGREGATION_SYNC] = "sync", [AGGREGATION_SSP] = "ssp", NULL};
static const char *const stales[] = {[STALE_REJECT] = "reject", [STALE_SCALE] = "scale", NULL};
static const char *const reductions[] = {[REDUCTION_MEAN] = "mean", [REDUCTION_SUM] = "sum", NULL};

enum { MODE_COUNT = sizeof modes / sizeof *modes - 1 };

#define STEP_MAX 9007199254740991
#define SECONDS_MAX 1e8 /* three years */

#define PLACE(member) .offset = offsetof(struct spec, aggregation.member)
#define EVERY_MODE                                                                                 \
    {"mode", FIELD_CHOICE, PLACE(mode), .choices = modes},                                         \
    {                                                                                              \
        "lease_s", FIELD_F64, PLACE(lease_s), .min_open = true, .max = SECONDS_MAX                 \
    }
#define ACCUMULATE                                                                                 \
    {                                                                                              \
        "accumulate", FIELD_U64, PLACE(accumulate), .min = 1, .max = ROUND_MAX                     \
    }

static const struct field async_fields[] = {
    EVERY_MODE,
    {"max_staleness", FIELD_U64, PLACE(max_staleness), .max = STEP_MAX, .nullable = true,
     .null_is_max = true},
    {"stale", FIELD_CHOICE, PLACE(stale), .choices = stales},
    ACCUMULATE,
    {.name = NULL},
};
static const struct field sync_fields[] = {
    EVERY_MODE,
    {"workers", FIELD_U64, PLACE(workers), .min = 1, .max = ROUND_MAX},
    {"quorum", FIELD_U64, PLACE(quorum), .min = 1, .max = ROUND_MAX, .nullable = true},
    {"timeout_s", FIELD_F64, PLACE(timeout_s), .max = SECONDS_MAX, .nullable = true},
    {"reduction", FIELD_CHOICE, PLACE(reduction), .choices = reductions},
    {"vote", FIELD_FLAG, PLACE(vote)},
    {.name = NULL},
};
static const struct field ssp_fields[] = {
    EVERY_MODE,
    {"staleness", FIELD_U64, PLACE(staleness), .max = STEP_MAX},
    ACCUMULATE,
    {.name = NULL},
};
static const struct field *const mode_fields[MODE_COUNT] = {
    [AGGREGATION_ASYNC] = async_fields,
    [AGGREGATION_SYNC] = sync_fields,
    [AGGREGATION_SSP] = ssp_fields,
};
#undef PLACE

static bool has_field(const struct field *fields, const char *name)
{
    while (fields->name != NULL && strcmp(fields->name, name) != 0)
        fields++;
    return fields->name != NULL;
}

/* A field of another mode is no mistyped name. */
static enum status refuse_others(const json_t *value, int mode, struct fault *fault)
{
    const char *name;
    json_t *member;

    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        char owners[64] = "", where[64];
        if (has_field(mode_fields[mode], name))
            continue;
        for (size_t i = 0; i < MODE_COUNT; i++)
            if (has_field(mode_fields[i], name))
                snprintf(owners + strlen(owners), sizeof owners - strlen(owners), "%s\"%s\"",
                         owners[0] != '\0' ? " and " : "", modes[i]);
        if (owners[0] == '\0')
            continue;
        snprintf(where, sizeof where, "/%s", name);
        return fault_set(fault, STATUS_UNKNOWN_FIELD, where,
                         "%s belongs to mode %s; the mode is \"%s\": leave it out, or say another "
                         "mode",
                         name, owners, modes[mode]);
    }
    return STATUS_OK;
}

/* Another mode begins with its defaults. */
static enum status read_mode(const json_t *value, struct spec *spec, struct fault *fault)
{
    const json_t *name = json_object_get(value, "mode");
    int mode = spec->aggregation.mode;
    struct spec plain;

    if (name == NULL)
        return STATUS_OK;
    enum status status = choice_read("mode", modes, json_string_value(name), &mode, fault);
    if (status != STATUS_OK) {
        fault_prefix(fault, "/mode");
        return status;
    }
    if (mode != spec->aggregation.mode) {
        spec_init(&plain);
        plain.aggregation.lease_s = spec->aggregation.lease_s;
        plain.aggregation.mode = mode;
        spec->aggregation = plain.aggregation;
    }
    return STATUS_OK;
}

enum status aggregation_read(struct arena *arena, const struct json_document *document,
                             const json_t *value, struct spec *spec, struct fault *fault)
{
    enum status status;

    if (value == NULL)
        return STATUS_OK;
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/aggregation",
                         "aggregation must be an object such as {\"mode\": \"sync\", "
                         "\"workers\": 4}");
    if ((status = read_mode(value, spec, fault)) != STATUS_OK ||
        (status = refuse_others(value, spec->aggregation.mode, fault)) != STATUS_OK ||
        (status = fields_read(arena, document, value, mode_fields[spec->aggregation.mode], spec,
                              fault)) != STATUS_OK)
        fault_prefix(fault, "/aggregation");
    /* A quorum of all is that of however many there will be. */
    if (status == STATUS_OK && spec->aggregation.quorum == spec->aggregation.workers)
        spec->aggregation.quorum = 0;
    return status;
}

/* --- svrg --- */

#define PLACE(member) .offset = offsetof(struct spec, svrg.member)
static const struct field svrg_fields[] = {
    {"update_freq", FIELD_U64, PLACE(update_freq), .min = 1, .max = STEP_MAX, .nullable = true},
    {"coefficient", FIELD_F64, PLACE(coefficient), .max = 1e6},
    {.name = NULL},
};
#undef PLACE

enum status svrg_read(struct arena *arena, const struct json_document *document,
                      const json_t *value, struct spec *spec, struct fault *fault)
{
    struct spec plain;

    if (value == NULL)
        return STATUS_OK;
    if (json_is_null(value)) {
        spec_init(&plain);
        spec->svrg = plain.svrg;
        return STATUS_OK;
    }
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/svrg",
                         "svrg must be an object such as {\"update_freq\": 100}, or null");
    enum status status = fields_read(arena, document, value, svrg_fields, spec, fault);
    if (status != STATUS_OK)
        fault_prefix(fault, "/svrg");
    spec->svrg.on = true;
    return status;
}

/* --- what must go together --- */

enum status aggregation_check(const struct json_document *document, const struct spec *spec,
                              struct fault *fault)
{
    bool asked = json_object_get(document->root, "durability") != NULL;
    enum status status = spec_check(spec, fault);
    struct fault found;

    if (status == STATUS_OK || !asked || spec->durability.mode != DURABILITY_CHECKPOINT)
        return status;
    found = *fault;
    return fault_set(fault, status, "/durability/mode", "%s", found.detail);
}

/* --- writing --- */

void aggregation_write(struct json_text *text, const struct spec *spec)
{
    struct spec shown = *spec;

    PRE((unsigned)spec->aggregation.mode < MODE_COUNT);
    if (shown.aggregation.quorum == 0)
        shown.aggregation.quorum = shown.aggregation.workers;
    json_text_key(text, "aggregation");
    json_text_open(text, '{');
    fields_write(text, mode_fields[spec->aggregation.mode], &shown);
    json_text_close(text, '}');
}

void svrg_write(struct json_text *text, const struct spec *spec)
{
    json_text_key(text, "svrg");
    if (!spec->svrg.on) {
        json_text_null(text);
        return;
    }
    json_text_open(text, '{');
    fields_write(text, svrg_fields, spec);
    json_text_close(text, '}');
}
