/* A session's configuration as JSON. */
#include "api/spec_json.h"

#include <stdio.h>
#include <string.h>

#include "api/fields.h"

/* --- declared --- */

static const char *const dtypes[] = {"f32", "f64", NULL}; /* as enum dtype begins */
static const char *const nonfinites[] = {"reject", "skip", "zero", NULL};
static const char *const durabilities[] = {"step", "interval", "checkpoint", NULL};

struct spec_body {
    struct spec spec;
    const json_t *parameters, *optimizer, *schedule, *aggregation, *svrg, *groups, *ema, *labels;
    const json_t *unread;
};

#define PLACE(member) .offset = offsetof(struct spec_body, member)

static const struct field gradient_fields[] = {
    {"rescale", FIELD_F64, PLACE(spec.gradient.rescale), .min = -1e30, .max = 1e30},
    {"clip_value", FIELD_F64, PLACE(spec.gradient.clip_value), .min_open = true, .max = 1e300,
     .nullable = true},
    {"clip_norm", FIELD_F64, PLACE(spec.gradient.clip_norm), .min_open = true, .max = 1e300,
     .nullable = true},
    {"max_norm_ratio", FIELD_F64, PLACE(spec.gradient.max_norm_ratio), .min = 1, .min_open = true,
     .max = 1e300, .nullable = true},
    {"nonfinite", FIELD_CHOICE, PLACE(spec.gradient.nonfinite), .choices = nonfinites},
    {.name = NULL},
};
static const struct field durability_fields[] = {
    {"mode", FIELD_CHOICE, PLACE(spec.durability.mode), .choices = durabilities},
    {"seconds", FIELD_F64, PLACE(spec.durability.seconds), .min = 0.001, .max = 3600},
    {"steps", FIELD_U64, PLACE(spec.durability.steps), .min = 1, .max = 1e9},
    {.name = NULL},
};
static const struct field history_fields[] = {
    {"keep_steps", FIELD_U64, PLACE(spec.keep_steps), .min = 0, .max = 1e15},
    {.name = NULL},
};

#define CHANGEABLE_FIELDS                                                                          \
    {"optimizer", FIELD_VALUE, PLACE(optimizer)}, {"schedule", FIELD_VALUE, PLACE(schedule)},      \
        {"gradient", FIELD_OBJECT, .fields = gradient_fields},                                     \
        {"aggregation", FIELD_VALUE, PLACE(aggregation)}, {"svrg", FIELD_VALUE, PLACE(svrg)},      \
        {"durability", FIELD_OBJECT, .fields = durability_fields},                                 \
        {"history", FIELD_OBJECT, .fields = history_fields},                                       \
        {"hash_every", FIELD_U64, PLACE(spec.hash_every), .max = 1e9, .nullable = true},           \
    {                                                                                              \
        "labels", FIELD_VALUE, PLACE(labels)                                                       \
    }

static const struct field create_fields[] = {
    CHANGEABLE_FIELDS,
    {"parameters", FIELD_VALUE, PLACE(parameters)},
    {"dtype", FIELD_CHOICE, PLACE(spec.dtype), .choices = dtypes},
    {"groups", FIELD_VALUE, PLACE(groups)},
    {"ema", FIELD_VALUE, PLACE(ema)},
    {"seed", FIELD_U64, PLACE(spec.seed), .max = 9007199254740991},
    {.name = NULL},
};
static const struct field patch_fields[] = {
    CHANGEABLE_FIELDS,
    {.name = NULL},
};

/* What a fork has besides is for its endpoint. */
static const struct field fork_fields[] = {
    CHANGEABLE_FIELDS,
    {"step", FIELD_VALUE, PLACE(unread)},
    {"lineage", FIELD_VALUE, PLACE(unread)},
    {"id", FIELD_VALUE, PLACE(unread)},
    {"state", FIELD_VALUE, PLACE(unread)},
    {"replay", FIELD_VALUE, PLACE(unread)},
    {.name = NULL},
};
/* What GET shows of it as plain fields. */
static const struct field shown_fields[] = {
    {"dtype", FIELD_CHOICE, PLACE(spec.dtype), .choices = dtypes},
    {"gradient", FIELD_OBJECT, .fields = gradient_fields},
    {"durability", FIELD_OBJECT, .fields = durability_fields},
    {"history", FIELD_OBJECT, .fields = history_fields},
    {"hash_every", FIELD_U64, PLACE(spec.hash_every)},
    {"seed", FIELD_U64, PLACE(spec.seed)},
    {.name = NULL},
};

/* --- reading --- */

static enum status read_labels(const json_t *labels, struct spec *spec, struct fault *fault)
{
    const char *name;
    json_t *value;

    if (labels == NULL)
        return STATUS_OK;
    if (!json_is_object(labels))
        return fault_set(fault, STATUS_INVALID_FIELD, "/labels",
                         "labels must be an object of strings");
    spec->label_count = spec->label_bytes = 0;
    memset(spec->labels, 0, sizeof spec->labels);
    json_object_foreach((json_t *)(uintptr_t)labels, name, value)
    {
        char where[160] = "/labels/";
        pointer_escape(where + strlen(where), sizeof where - strlen(where), name);
        if (!json_is_string(value))
            return fault_set(fault, STATUS_INVALID_FIELD, where, "a label must be a string");
        enum status status = spec_add_label(spec, name, json_string_value(value), fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* What must go together with what the document does not say. */
static enum status check_spec(const struct json_document *document, const struct spec *spec,
                              struct fault *fault)
{
    if (spec->gradient.rescale == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "/gradient/rescale",
                         "rescale is 0; it must be another number, or nothing would ever move");
    return aggregation_check(document, spec, fault);
}

enum status spec_read(struct arena *arena, const struct json_document *document, struct spec *spec,
                      const json_t **parameters, struct fault *fault)
{
    struct spec_body body = {.parameters = NULL};
    enum status status;

    spec_init(&body.spec);
    if ((status = fields_read(arena, document, document->root, create_fields, &body, fault)) !=
            STATUS_OK ||
        (status = optimizer_read(document, body.optimizer, &body.spec, fault)) != STATUS_OK ||
        (status = schedule_read(document, body.schedule, &body.spec, fault)) != STATUS_OK ||
        (status = aggregation_read(arena, document, body.aggregation, &body.spec, fault)) !=
            STATUS_OK ||
        (status = svrg_read(arena, document, body.svrg, &body.spec, fault)) != STATUS_OK ||
        (status = groups_read(arena, document, body.groups, &body.spec, fault)) != STATUS_OK ||
        (status = ema_read(arena, document, body.ema, &body.spec, fault)) != STATUS_OK ||
        (status = read_labels(body.labels, &body.spec, fault)) != STATUS_OK ||
        (status = check_spec(document, &body.spec, fault)) != STATUS_OK)
        return status;
    if (parameters != NULL && body.parameters == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/parameters",
                         "say what to train, for instance \"parameters\": {\"w\": [0, 0]}");
    if (parameters == NULL && body.parameters != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/parameters",
                         "the parameters are the tensors of the safetensors body; leave this out");
    if (parameters != NULL)
        *parameters = body.parameters;
    *spec = body.spec;
    return STATUS_OK;
}

static bool is_listed(const struct field *fields, const char *name)
{
    while (fields->name != NULL && strcmp(fields->name, name) != 0)
        fields++;
    return fields->name != NULL;
}

/* What a new session takes and a PATCH does not is no mistyped name. */
static enum status refuse_fixed(const json_t *root, struct fault *fault)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)root, name, value)
    {
        if (is_listed(patch_fields, name) || !is_listed(create_fields, name))
            continue;
        char where[32];
        snprintf(where, sizeof where, "/%s", name);
        if (strcmp(name, "parameters") == 0)
            return fault_set(fault, STATUS_UNKNOWN_FIELD, where,
                             "a change of the configuration leaves the weights alone; PUT the "
                             "session's /parameters to replace them");
        return fault_set(fault, STATUS_UNKNOWN_FIELD, where,
                         "\"%s\" is fixed when a session is created; create a new session for "
                         "another",
                         name);
    }
    return STATUS_OK;
}

enum status spec_patch(struct arena *arena, const struct json_document *document, struct spec *spec,
                       struct fault *fault)
{
    struct spec_body body = {.spec = *spec};
    enum status status;

    if ((status = refuse_fixed(document->root, fault)) != STATUS_OK ||
        (status = fields_read(arena, document, document->root, patch_fields, &body, fault)) !=
            STATUS_OK ||
        (body.optimizer != NULL &&
         (status = optimizer_patch(document, body.optimizer, &body.spec, fault)) != STATUS_OK) ||
        (status = schedule_read(document, body.schedule, &body.spec, fault)) != STATUS_OK ||
        (status = aggregation_read(arena, document, body.aggregation, &body.spec, fault)) !=
            STATUS_OK ||
        (status = svrg_read(arena, document, body.svrg, &body.spec, fault)) != STATUS_OK ||
        (status = read_labels(body.labels, &body.spec, fault)) != STATUS_OK ||
        (status = check_spec(document, &body.spec, fault)) != STATUS_OK)
        return status;
    *spec = body.spec;
    return STATUS_OK;
}

/* A rule's name or a preset makes it another rule, with its defaults. */
static enum status fork_optimizer(const struct json_document *document, const json_t *value,
                                  struct spec *spec, struct fault *fault)
{
    bool named = json_object_get(value, "name") != NULL || json_object_get(value, "preset") != NULL;

    if (value == NULL)
        return STATUS_OK;
    return json_is_object(value) && !named ? optimizer_patch(document, value, spec, fault)
                                           : optimizer_read(document, value, spec, fault);
}

enum status spec_fork(struct arena *arena, const struct json_document *document, struct spec *spec,
                      struct fault *fault)
{
    struct spec_body body = {.spec = *spec};
    enum status status;

    if ((status = fields_read(arena, document, document->root, fork_fields, &body, fault)) !=
            STATUS_OK ||
        (status = fork_optimizer(document, body.optimizer, &body.spec, fault)) != STATUS_OK ||
        (status = schedule_read(document, body.schedule, &body.spec, fault)) != STATUS_OK ||
        (status = aggregation_read(arena, document, body.aggregation, &body.spec, fault)) !=
            STATUS_OK ||
        (status = svrg_read(arena, document, body.svrg, &body.spec, fault)) != STATUS_OK ||
        (status = read_labels(body.labels, &body.spec, fault)) != STATUS_OK ||
        (status = check_spec(document, &body.spec, fault)) != STATUS_OK)
        return status;
    *spec = body.spec;
    return STATUS_OK;
}

/* --- writing --- */

static void write_labels(struct json_text *text, const struct spec *spec)
{
    const char *label = spec->labels;

    json_text_key(text, "labels");
    json_text_open(text, '{');
    for (size_t i = 0; i < spec->label_count; i++) {
        json_text_key(text, label);
        label += strlen(label) + 1;
        json_text_string(text, label);
        label += strlen(label) + 1;
    }
    json_text_close(text, '}');
}

void spec_write(struct json_text *text, const struct spec *spec)
{
    struct spec_body body = {.spec = *spec};

    optimizer_settings_write(text, spec);
    schedule_settings_write(text, spec);
    fields_write(text, shown_fields, &body);
    aggregation_write(text, spec);
    svrg_write(text, spec);
    groups_write(text, spec);
    ema_write(text, spec);
    write_labels(text, spec);
}
