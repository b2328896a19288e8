/* JSON and query strings to structs and back, by declaration. */
#include "api/fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/endpoint.h"
#include "api/json_numbers.h"
#include "service/core/contract.h"
#include "service/core/number.h"

static enum status field_fault(struct fault *fault, enum status status, const char *name,
                               const char *detail)
{
    char where[224] = "/";

    pointer_escape(where + 1, sizeof where - 1, name);
    return fault_set(fault, status, where, "%s", detail);
}

static const struct field *find_field(const struct field *fields, const char *name)
{
    for (; fields->name != NULL; fields++)
        if (strcmp(fields->name, name) == 0)
            return fields;
    return NULL;
}

static enum status unknown_field(const struct field *fields, const char *name, struct fault *fault)
{
    char known[320] = "";
    char detail[420];
    size_t used = 0;

    for (; fields->name != NULL && used + 40 < sizeof known; fields++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "",
                                 fields->name);
    snprintf(detail, sizeof detail, "there is no field \"%.60s\" here; there are: %s", name, known);
    return field_fault(fault, STATUS_UNKNOWN_FIELD, name, detail);
}

/* Whole numbers in full: 1000 and not 1e+03. */
static const char *plain_text(char out[NUMBER_BYTES], double value)
{
    if (fabs(value) >= 1e15 || value != trunc(value))
        return number_text(out, value);
    snprintf(out, NUMBER_BYTES, "%.0f", value);
    return out;
}

static enum status check_number(const struct field *field, double value, struct fault *fault)
{
    char detail[200], text[NUMBER_BYTES], min[NUMBER_BYTES], max[NUMBER_BYTES];

    if (field->min == 0 && field->max == 0)
        return STATUS_OK; /* no range */
    if (isfinite(value) && (field->max_open ? value < field->max : value <= field->max) &&
        (field->min_open ? value > field->min : value >= field->min))
        return STATUS_OK;
    snprintf(detail, sizeof detail, "%s is %s; it must be %s %s and %s %s", field->name,
             plain_text(text, value), field->min_open ? "more than" : "at least",
             plain_text(min, field->min), field->max_open ? "less than" : "at most",
             plain_text(max, field->max));
    return field_fault(fault, STATUS_INVALID_FIELD, field->name, detail);
}

enum status choice_read(const char *name, const char *const *choices, const char *text, int *out,
                        struct fault *fault)
{
    char list[300] = "";
    size_t used = 0;

    for (int i = 0; choices[i] != NULL; i++) {
        if (text != NULL && strcmp(choices[i], text) == 0) {
            *out = i;
            return STATUS_OK;
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s \"%s\"", i > 0 ? "," : "",
                                     choices[i]);
    }
    return fault_set(fault, STATUS_INVALID_FIELD, "", "%s must be one of%s", name, list);
}

static enum status store_choice(const struct field *field, const char *text, int *out,
                                struct fault *fault)
{
    struct fault inner;

    if (choice_read(field->name, field->choices, text, out, &inner) == STATUS_OK)
        return STATUS_OK;
    return field_fault(fault, inner.status, field->name, inner.detail);
}

static enum status store_text(const struct field *field, const char *text, const char **out,
                              struct fault *fault)
{
    char detail[120];

    if (field->max == 0 || (double)strlen(text) <= field->max) {
        *out = text;
        return STATUS_OK;
    }
    snprintf(detail, sizeof detail, "%s has %zu bytes; it may have at most %.0f", field->name,
             strlen(text), field->max);
    return field_fault(fault, STATUS_INVALID_FIELD, field->name, detail);
}

static enum status wrong_type(const struct field *field, const char *wanted, struct fault *fault)
{
    char detail[120];

    snprintf(detail, sizeof detail, "%s must be %s%s", field->name, wanted,
             field->nullable ? " or null" : "");
    return field_fault(fault, STATUS_INVALID_FIELD, field->name, detail);
}

static enum status not_whole(const struct field *field, struct fault *fault)
{
    char wanted[100], min[NUMBER_BYTES], max[NUMBER_BYTES];

    if (field->max == 0)
        snprintf(wanted, sizeof wanted, "a whole number from 0 to %" PRIu64, UINT64_MAX);
    else
        snprintf(wanted, sizeof wanted, "a whole number from %s to %s", plain_text(min, field->min),
                 plain_text(max, field->max));
    return wrong_type(field, wanted, fault);
}

static enum status read_number(const struct json_document *document, const json_t *value,
                               const struct field *field, void *place, struct fault *fault)
{
    struct fault inner;
    enum status status;

    if (field->kind == FIELD_U64) {
        if (!json_is_number(value) || json_u64(document, value, place, &inner) != STATUS_OK)
            return not_whole(field, fault);
        return check_number(field, (double)*(uint64_t *)place, fault);
    }
    if (!json_is_number(value))
        return wrong_type(field, "a number", fault);
    status = json_f64(document, value, place, &inner);
    if (status != STATUS_OK)
        return field_fault(fault, status, field->name, inner.detail);
    return check_number(field, *(double *)place, fault);
}

static uint64_t null_u64(const struct field *field)
{
    return field->null_is_max ? UINT64_MAX : 0;
}

static enum status read_value(struct arena *arena, const struct json_document *document,
                              const json_t *value, const struct field *field, void *out,
                              struct fault *fault)
{
    void *place = (char *)out + field->offset;
    enum status status;

    if (json_is_null(value) && field->nullable) {
        if (field->kind == FIELD_F64)
            *(double *)place = (double)NAN;
        else if (field->kind == FIELD_U64)
            *(uint64_t *)place = null_u64(field);
        else
            *(const char **)place = NULL;
        return STATUS_OK;
    }
    switch (field->kind) {
    case FIELD_F64:
    case FIELD_U64:
        return read_number(document, value, field, place, fault);
    case FIELD_FLAG:
        if (!json_is_boolean(value))
            return wrong_type(field, "true or false", fault);
        *(bool *)place = json_is_true(value);
        return STATUS_OK;
    case FIELD_TEXT:
        if (!json_is_string(value))
            return wrong_type(field, "a string", fault);
        const char *copy = arena_copy(arena, json_string_value(value), json_string_length(value));
        if (copy == NULL)
            return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        return store_text(field, copy, place, fault);
    case FIELD_CHOICE:
        if (!json_is_string(value))
            return wrong_type(field, "a string", fault);
        return store_choice(field, json_string_value(value), place, fault);
    case FIELD_OBJECT:
        if (!json_is_object(value))
            return wrong_type(field, "an object", fault);
        status = fields_read(arena, document, value, field->fields, out, fault);
        if (status != STATUS_OK) {
            char prefix[64];
            snprintf(prefix, sizeof prefix, "/%s", field->name);
            fault_prefix(fault, prefix);
        }
        return status;
    case FIELD_VALUE:
        *(const json_t **)place = value;
        return STATUS_OK;
    }
    PRE(false);
    return STATUS_INTERNAL;
}

enum status fields_read(struct arena *arena, const struct json_document *document,
                        const json_t *object, const struct field *fields, void *out,
                        struct fault *fault)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body must be a JSON object: {...}");
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        const struct field *field = find_field(fields, name);
        if (field == NULL)
            return unknown_field(fields, name, fault);
        enum status status = read_value(arena, document, value, field, out, fault);
        if (status != STATUS_OK)
            return status;
        if (field->present != 0)
            *((bool *)out + field->present) = true;
    }
    return STATUS_OK;
}

/* The others are for JSON alone: in a query their names are as unknown as any. */
static bool in_query(const struct field *field)
{
    return !field->json_only &&
           (field->kind == FIELD_F64 || field->kind == FIELD_U64 || field->kind == FIELD_FLAG ||
            field->kind == FIELD_TEXT || field->kind == FIELD_CHOICE);
}

static enum status read_query_value(const struct field *field, const char *text, void *out,
                                    struct fault *fault)
{
    void *place = (char *)out + field->offset;
    const char *end = text + strlen(text);
    char *stop;
    double number;

    switch (field->kind) {
    case FIELD_F64:
        if (number_read_f64(text, end, &number) != end || !isfinite(number))
            return wrong_type(field, "a number", fault);
        *(double *)place = number;
        return check_number(field, number, fault);
    case FIELD_U64:
        if (*text == '\0' || strspn(text, "0123456789") != strlen(text) || strlen(text) > 19)
            return not_whole(field, fault);
        *(uint64_t *)place = strtoull(text, &stop, 10);
        return check_number(field, (double)*(uint64_t *)place, fault);
    case FIELD_TEXT:
        return store_text(field, text, place, fault);
    case FIELD_CHOICE:
        return store_choice(field, text, place, fault);
    case FIELD_FLAG:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return wrong_type(field, "true or false", fault);
        *(bool *)place = text[0] == 't';
        return STATUS_OK;
    case FIELD_OBJECT:
    case FIELD_VALUE:
        break;
    }
    PRE(in_query(field));
    return STATUS_INTERNAL;
}

enum status fields_read_query(struct request *request, const struct field *fields, void *out,
                              struct fault *fault)
{
    for (; fields->name != NULL; fields++) {
        const char *text = in_query(fields) ? request_query(request, fields->name) : NULL;
        if (text == NULL)
            continue;
        enum status status = read_query_value(fields, text, out, fault);
        if (status != STATUS_OK)
            return status;
        if (fields->present != 0)
            *((bool *)out + fields->present) = true;
    }
    return STATUS_OK;
}

void fields_write(struct json_text *text, const struct field *fields, const void *in)
{
    for (; fields->name != NULL; fields++) {
        const void *place = (const char *)in + fields->offset;
        if (fields->kind == FIELD_VALUE)
            continue;
        json_text_key(text, fields->name);
        switch (fields->kind) {
        case FIELD_F64:
            json_text_f64(text, *(const double *)place);
            break;
        case FIELD_U64:
            if (fields->nullable && *(const uint64_t *)place == null_u64(fields))
                json_text_null(text);
            else
                json_text_u64(text, *(const uint64_t *)place);
            break;
        case FIELD_FLAG:
            json_text_bool(text, *(const bool *)place);
            break;
        case FIELD_TEXT:
            json_text_string(text, *(const char *const *)place);
            break;
        case FIELD_CHOICE:
            json_text_string(text, fields->choices[*(const int *)place]);
            break;
        case FIELD_OBJECT:
            json_text_open(text, '{');
            fields_write(text, fields->fields, in);
            json_text_close(text, '}');
            break;
        case FIELD_VALUE:
            break;
        }
    }
}
