/* Hyperparameters as JSON. */
#include "api/hyper_json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/fields.h"
#include "api/spellings.h"
#include "service/core/contract.h"

/* --- reading --- */

static enum status read_flag(const json_t *value, const struct hyper *hyper, double *out,
                             struct fault *fault)
{
    if (!json_is_boolean(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s must be true or false", hyper->name);
    *out = json_is_true(value);
    return STATUS_OK;
}

static enum status read_choice(const json_t *value, const struct hyper *hyper, double *out,
                               struct fault *fault)
{
    const char *text = json_is_string(value) ? json_string_value(value) : NULL;
    int index;
    enum status status = choice_read(hyper->name, hyper->choices, text, &index, fault);

    if (status == STATUS_OK)
        *out = index;
    return status;
}

static enum status read_number(const struct json_document *document, const json_t *value,
                               const struct hyper *hyper, double *out, struct fault *fault)
{
    char why[200];
    double number;

    if (!json_is_number(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s must be a %snumber%s", hyper->name,
                         hyper->kind == HYPER_WHOLE ? "whole " : "",
                         hyper->nullable ? " or null" : "");
    enum status status = json_f64(document, value, &number, fault);
    if (status != STATUS_OK)
        return status;
    if (!hyper_allows(hyper, number, why, sizeof why))
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s", why);
    *out = number;
    return STATUS_OK;
}

/* The length into *out, the steps into steps[]; nothing on a fault. */
static enum status read_steps(const struct json_document *document, const json_t *value,
                              const struct hyper *hyper, double *out, double *steps,
                              struct fault *fault)
{
    double read[SCHEDULE_STEPS_MAX], last = 0;
    size_t shape[LAYOUT_RANK_MAX];
    unsigned rank;
    enum status status;

    if (!json_is_number_array(value) ||
        json_shape(document, value, &rank, shape, fault) != STATUS_OK || rank != 1 ||
        shape[0] == 0 || shape[0] > SCHEDULE_STEPS_MAX)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%s must be a list of 1 to %d steps, for instance [1000, 2000]%s",
                         hyper->name, SCHEDULE_STEPS_MAX, hyper->nullable ? ", or null" : "");
    if ((status = json_tensor(document, value, 1, shape, DTYPE_F64, read, fault)) != STATUS_OK)
        return status;
    for (size_t i = 0; i < shape[0]; i++) {
        char where[32];
        snprintf(where, sizeof where, "/%zu", i);
        if (!(read[i] > last && read[i] <= SCHEDULE_STEP_MAX) || read[i] != floor(read[i]))
            return fault_set(fault, STATUS_INVALID_FIELD, where,
                             "%.17g cannot stand here; %s must be whole numbers from 1 to 1e15, "
                             "each more than the one before",
                             read[i], hyper->name);
        last = read[i];
    }
    memcpy(steps, read, shape[0] * sizeof *steps);
    *out = (double)shape[0];
    return STATUS_OK;
}

static enum status read_one(const struct json_document *document, const json_t *value,
                            const struct hyper_values *values, size_t index, struct fault *fault)
{
    const struct hyper *hyper = &values->hypers[index];
    double *out = &values->value[index];

    if (json_is_null(value) && hyper->nullable) {
        *out = (double)NAN;
        return STATUS_OK;
    }
    switch (hyper->kind) {
    case HYPER_FLAG:
        return read_flag(value, hyper, out, fault);
    case HYPER_CHOICE:
        return read_choice(value, hyper, out, fault);
    case HYPER_NUMBER:
    case HYPER_WHOLE:
        return read_number(document, value, hyper, out, fault);
    case HYPER_STEPS:
        PRE(values->steps != NULL);
        return read_steps(document, value, hyper, out, values->steps, fault);
    }
    PRE(false);
    return STATUS_INTERNAL;
}

static bool has_hyper(const void *context, const char *name)
{
    const struct hyper_values *values = context;

    return hyper_find(values->hypers, values->count, name) < values->count;
}

enum status hyper_unknown(const struct hyper_values *values, const char *name, const char *known,
                          struct fault *fault)
{
    const char *clause = spelling_here(name, has_hyper, values);
    char where[160];

    snprintf(where, sizeof where, "/%s/", values->member);
    pointer_escape(where + strlen(where), sizeof where - strlen(where), name);
    return fault_set(fault, STATUS_UNKNOWN_FIELD, where, "%s has no \"%.60s\"%s%s", values->owner,
                     name, clause != NULL ? ": " : "; it has ", clause != NULL ? clause : known);
}

static enum status unknown(const struct hyper_values *values, const char *name, struct fault *fault)
{
    char known[300] = "";
    size_t used = 0;

    for (size_t i = 0; i < values->count && used + 40 < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                                 values->hypers[i].name);
    return hyper_unknown(values, name, known, fault);
}

enum status hypers_read(const struct json_document *document, const json_t *object,
                        const struct hyper_values *values, struct fault *fault)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (strcmp(name, values->selector) == 0)
            continue;
        size_t index = hyper_find(values->hypers, values->count, name);
        if (index == values->count)
            return unknown(values, name, fault);
        enum status status = read_one(document, value, values, index, fault);
        if (status != STATUS_OK) {
            char prefix[96];
            snprintf(prefix, sizeof prefix, "/%s/%s", values->member, name);
            fault_prefix(fault, prefix);
            return status;
        }
    }
    return STATUS_OK;
}

/* --- writing --- */

static void write_steps(struct json_text *text, double count, const double *steps)
{
    if (isnan(count)) {
        json_text_null(text);
        return;
    }
    json_text_open(text, '[');
    for (size_t i = 0; i < (size_t)count; i++)
        json_text_u64(text, (uint64_t)steps[i]);
    json_text_close(text, ']');
}

void hyper_write(struct json_text *text, const struct hyper *hyper, double value,
                 const double *steps)
{
    switch (hyper->kind) {
    case HYPER_FLAG:
        json_text_bool(text, value != 0);
        break;
    case HYPER_CHOICE:
        json_text_string(text, hyper->choices[(int)value]);
        break;
    case HYPER_WHOLE:
        if (value >= 0)
            json_text_u64(text, (uint64_t)value);
        else
            json_text_f64(text, value);
        break;
    case HYPER_NUMBER:
        json_text_f64(text, value);
        break;
    case HYPER_STEPS:
        write_steps(text, value, steps);
        break;
    }
}

void hypers_write(struct json_text *text, const struct hyper *hypers, size_t count,
                  const double *value, const double *steps)
{
    for (size_t i = 0; i < count; i++) {
        json_text_key(text, hypers[i].name);
        hyper_write(text, &hypers[i], value[i], steps);
    }
}

static void describe(struct json_text *text, const struct hyper *hyper)
{
    static const char *const types[] = {[HYPER_NUMBER] = "number",
                                        [HYPER_WHOLE] = "integer",
                                        [HYPER_FLAG] = "boolean",
                                        [HYPER_CHOICE] = "choice",
                                        [HYPER_STEPS] = "steps"};
    bool ranged = hyper->kind == HYPER_NUMBER || hyper->kind == HYPER_WHOLE;
    double nothing = (double)NAN;

    json_text_open(text, '{');
    json_text_member_string(text, "name", hyper->name);
    json_text_member_string(text, "type", types[hyper->kind]);
    json_text_key(text, "default");
    hyper_write(text, hyper, hyper->initial, NULL);
    json_text_member_bool(text, "nullable", hyper->nullable);
    json_text_member_bool(text, "required", isnan(hyper->initial) && !hyper->nullable);
    json_text_member_f64(text, "min", ranged ? hyper->min : nothing);
    json_text_member_bool(text, "min_exclusive", hyper->min_open);
    json_text_member_f64(text, "max", ranged ? hyper->max : nothing);
    json_text_member_bool(text, "max_exclusive", hyper->max_open);
    if (hyper->kind == HYPER_CHOICE) {
        json_text_key(text, "choices");
        json_text_open(text, '[');
        for (size_t i = 0; hyper->choices[i] != NULL; i++)
            json_text_string(text, hyper->choices[i]);
        json_text_close(text, ']');
    }
    json_text_member_string(text, "unit", hyper->unit);
    json_text_member_string(text, "meaning", hyper->meaning);
    json_text_close(text, '}');
}

void hypers_describe(struct json_text *text, const struct hyper *hypers, size_t count)
{
    json_text_open(text, '[');
    for (size_t i = 0; i < count; i++)
        describe(text, &hypers[i]);
    json_text_close(text, ']');
}
