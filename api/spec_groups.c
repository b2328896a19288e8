/* The members "groups" and "ema" of a session, which hold for its life. */
#include <stdio.h>
#include <string.h>

#include "api/fields.h"
#include "api/spec_json.h"

#define MULT_MAX 1e6 /* of a rate or a decay: beyond is a mistake */

/* --- groups --- */

struct group_body {
    const json_t *tensors;
    struct group group;
};

#define PLACE(member) .offset = offsetof(struct group_body, member)
static const struct field group_fields[] = {
    {"tensors", FIELD_VALUE, PLACE(tensors)},
    {"lr_mult", FIELD_F64, PLACE(group.lr_mult), .max = MULT_MAX},
    {"weight_decay_mult", FIELD_F64, PLACE(group.weight_decay_mult), .max = MULT_MAX},
    {"adapt", FIELD_FLAG, PLACE(group.adapt)},
    {.name = NULL},
};
#undef PLACE

/* [] has nothing in it but numbers. */
static bool is_empty(const struct json_document *document, const json_t *value)
{
    size_t shape[LAYOUT_RANK_MAX];
    unsigned rank;

    return json_is_number_array(value) &&
           json_shape(document, value, &rank, shape, NULL) == STATUS_OK && shape[0] == 0;
}

static enum status read_pattern(const json_t *value, const char *where, struct spec *spec,
                                struct fault *fault)
{
    if (!json_is_string(value) || json_string_length(value) == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "tensors must be a pattern for their names, such as \"*.bias\", or a list "
                         "of patterns");
    return spec_add_pattern(spec, json_string_value(value), fault);
}

static enum status read_patterns(const json_t *value, struct spec *spec, struct fault *fault)
{
    enum status status = STATUS_OK;

    if (!json_is_array(value) || json_is_number_array(value))
        return read_pattern(value, "/tensors", spec, fault);
    for (size_t i = 0; i < json_array_size(value) && status == STATUS_OK; i++) {
        char where[32];
        snprintf(where, sizeof where, "/tensors/%zu", i);
        status = read_pattern(json_array_get(value, i), where, spec, fault);
    }
    return status;
}

static enum status read_group(struct arena *arena, const struct json_document *document,
                              const json_t *value, struct spec *spec, struct fault *fault)
{
    struct group_body body = {.group = {.lr_mult = 1, .weight_decay_mult = 1, .adapt = true}};
    enum status status;

    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "a group must be an object such as {\"tensors\": [\"*.bias\"], "
                         "\"weight_decay_mult\": 0}");
    if ((status = fields_read(arena, document, value, group_fields, &body, fault)) != STATUS_OK ||
        (status = spec_add_group(spec, &body.group, fault)) != STATUS_OK)
        return status;
    return read_patterns(body.tensors, spec, fault);
}

enum status groups_read(struct arena *arena, const struct json_document *document,
                        const json_t *value, struct spec *spec, struct fault *fault)
{
    if (value == NULL || json_is_null(value) || is_empty(document, value))
        return STATUS_OK;
    if (!json_is_array(value) || json_is_number_array(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/groups",
                         "groups must be a list of objects such as {\"tensors\": [\"*.bias\"], "
                         "\"weight_decay_mult\": 0}");
    for (size_t i = 0; i < json_array_size(value); i++) {
        enum status status = read_group(arena, document, json_array_get(value, i), spec, fault);
        if (status != STATUS_OK) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "/groups/%zu", i);
            if (strcmp(fault->where, "/groups") != 0) /* a limit of all groups together */
                fault_prefix(fault, prefix);
            return status;
        }
    }
    return STATUS_OK;
}

void groups_write(struct json_text *text, const struct spec *spec)
{
    const char *pattern = spec->groups.patterns;

    json_text_key(text, "groups");
    json_text_open(text, '[');
    for (size_t i = 0; i < spec->groups.count; i++) {
        const struct group *group = &spec->groups.group[i];
        json_text_open(text, '{');
        json_text_key(text, "tensors");
        json_text_open(text, '[');
        for (size_t k = 0; k < group->pattern_count; k++) {
            json_text_string(text, pattern);
            pattern += strlen(pattern) + 1;
        }
        json_text_close(text, ']');
        json_text_member_f64(text, "lr_mult", group->lr_mult);
        json_text_member_f64(text, "weight_decay_mult", group->weight_decay_mult);
        json_text_member_bool(text, "adapt", group->adapt);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
}

/* --- the moving average of the weights --- */

#define PLACE(member) .offset = offsetof(struct spec, member)
static const struct field ema_fields[] = {
    {"decay", FIELD_F64, PLACE(ema.decay), .max = 1, .max_open = true},
    {"debias", FIELD_FLAG, PLACE(ema.debias)},
    {"eps", FIELD_F64, PLACE(ema.eps), .min = EMA_EPS_MIN, .max = 1, .max_open = true},
    {.name = NULL},
};

enum status ema_read(struct arena *arena, const struct json_document *document, const json_t *value,
                     struct spec *spec, struct fault *fault)
{
    if (value == NULL || json_is_null(value))
        return STATUS_OK;
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/ema",
                         "ema must be an object such as {\"decay\": 0.999}, or null");
    enum status status = fields_read(arena, document, value, ema_fields, spec, fault);
    if (status != STATUS_OK)
        fault_prefix(fault, "/ema");
    spec->ema.on = true;
    return status;
}

void ema_write(struct json_text *text, const struct spec *spec)
{
    json_text_key(text, "ema");
    if (!spec->ema.on) {
        json_text_null(text);
        return;
    }
    json_text_open(text, '{');
    fields_write(text, ema_fields, spec);
    json_text_close(text, '}');
}
