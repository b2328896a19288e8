/* Sessions and receipts as JSON. */
#include "api/session_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"
#include "service/core/clock.h"
#include "service/core/contract.h"

/* --- the configuration, declared --- */

static const char *const dtypes[] = {"f32", "f64", NULL}; /* as enum dtype begins */
static const char *const nonfinites[] = {"reject", "skip", "zero", NULL};
static const char *const durabilities[] = {"step", "interval", "checkpoint", NULL};
static const char *const aggregations[] = {"async", NULL};

struct spec_body {
    struct spec spec;
    int aggregation;
    const json_t *parameters, *optimizer, *labels;
};

#define PLACE(member) .offset = offsetof(struct spec_body, member)

static const struct field gradient_fields[] = {
    {"rescale", FIELD_F64, PLACE(spec.gradient.rescale), .min = -1e30, .max = 1e30},
    {"clip_value", FIELD_F64, PLACE(spec.gradient.clip_value), .min_open = true, .max = 1e300,
     .nullable = true},
    {"clip_norm", FIELD_F64, PLACE(spec.gradient.clip_norm), .min_open = true, .max = 1e300,
     .nullable = true},
    {"nonfinite", FIELD_CHOICE, PLACE(spec.gradient.nonfinite), .choices = nonfinites},
    {.name = NULL},
};
static const struct field aggregation_fields[] = {
    {"mode", FIELD_CHOICE, PLACE(aggregation), .choices = aggregations},
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
    {"gradient", FIELD_OBJECT, .fields = gradient_fields},                                         \
        {"aggregation", FIELD_OBJECT, .fields = aggregation_fields},                               \
        {"durability", FIELD_OBJECT, .fields = durability_fields},                                 \
        {"history", FIELD_OBJECT, .fields = history_fields},                                       \
    {                                                                                              \
        "labels", FIELD_VALUE, PLACE(labels)                                                       \
    }

static const struct field create_fields[] = {
    {"optimizer", FIELD_VALUE, PLACE(optimizer)},
    {"parameters", FIELD_VALUE, PLACE(parameters)},
    {"dtype", FIELD_CHOICE, PLACE(spec.dtype), .choices = dtypes},
    CHANGEABLE_FIELDS,
    {"seed", FIELD_U64, PLACE(spec.seed), .max = 9007199254740991},
    {.name = NULL},
};
static const struct field patch_fields[] = {
    {"optimizer", FIELD_VALUE, PLACE(optimizer)},
    CHANGEABLE_FIELDS,
    {.name = NULL},
};
/* What GET shows of it as plain fields. */
static const struct field shown_fields[] = {
    {"dtype", FIELD_CHOICE, PLACE(spec.dtype), .choices = dtypes},
    {"gradient", FIELD_OBJECT, .fields = gradient_fields},
    {"aggregation", FIELD_OBJECT, .fields = aggregation_fields},
    {"durability", FIELD_OBJECT, .fields = durability_fields},
    {"history", FIELD_OBJECT, .fields = history_fields},
    {"seed", FIELD_U64, PLACE(spec.seed)},
    {.name = NULL},
};

/* --- the optimizer, declared by its rule --- */

static enum status read_hyper(const struct json_document *document, const json_t *value,
                              const struct hyper *hyper, double *out, struct fault *fault)
{
    char where[64], why[200] = "";
    double number = 0;

    snprintf(where, sizeof where, "/optimizer/%s", hyper->name);
    if (hyper->kind == HYPER_FLAG) {
        if (!json_is_boolean(value))
            return fault_set(fault, STATUS_INVALID_FIELD, where, "%s must be true or false",
                             hyper->name);
        number = json_is_true(value);
    } else if (hyper->kind == HYPER_CHOICE) {
        size_t used = (size_t)snprintf(why, sizeof why, "%s must be one of", hyper->name);
        int found = -1;
        for (int i = 0; hyper->choices[i] != NULL; i++) {
            if (json_is_string(value) && strcmp(json_string_value(value), hyper->choices[i]) == 0)
                found = i;
            used += (size_t)snprintf(why + used, sizeof why - used, "%s \"%s\"", i > 0 ? "," : "",
                                     hyper->choices[i]);
        }
        if (found < 0)
            return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", why);
        number = found;
    } else {
        struct fault inner;
        enum status status = json_f64(document, value, &number, &inner);
        if (status != STATUS_OK)
            return fault_set(fault, status, where, "%.400s", inner.detail);
        if (!hyper_allows(hyper, number, why, sizeof why))
            return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", why);
    }
    *out = number;
    return STATUS_OK;
}

static enum status unknown_hyper(const struct optimizer *rule, const char *name,
                                 struct fault *fault)
{
    char where[160] = "/optimizer/", known[300] = "";
    size_t used = 0;

    pointer_escape(where + strlen(where), sizeof where - strlen(where), name);
    for (size_t i = 0; i < rule->hyper_count && used + 40 < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                                 rule->hypers[i].name);
    return fault_set(fault, STATUS_UNKNOWN_FIELD, where, "%s has no \"%.60s\"; it has %s",
                     rule->name, name, known);
}

static enum status read_hypers(const struct json_document *document, const json_t *object,
                               struct spec *spec, struct fault *fault)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (strcmp(name, "name") == 0)
            continue;
        size_t index = optimizer_hyper(spec->rule, name);
        if (index == spec->rule->hyper_count)
            return unknown_hyper(spec->rule, name, fault);
        enum status status =
            read_hyper(document, value, &spec->rule->hypers[index], &spec->hyper[index], fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status unknown_optimizer(const char *name, const char *where, struct fault *fault)
{
    char known[300] = "";
    const struct optimizer *rule;
    size_t used = 0;

    for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F32)) != NULL && used + 40 < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                                 rule->name);
    return fault_set(fault, STATUS_UNKNOWN_OPTIMIZER, where,
                     "there is no optimizer \"%.60s\"; there are %s", name, known);
}

static enum status read_optimizer(const struct json_document *document, const json_t *value,
                                  struct spec *spec, struct fault *fault)
{
    const json_t *name = json_is_object(value) ? json_object_get(value, "name") : value;
    const char *where = json_is_object(value) ? "/optimizer/name" : "/optimizer";

    if (value == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer",
                         "say which optimizer, for instance \"optimizer\": {\"name\": \"adam\", "
                         "\"lr\": 0.001}");
    if (!json_is_string(name))
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "optimizer must be a name, or an object with a \"name\"");
    const struct optimizer *rule = optimizer_find(json_string_value(name), spec->dtype);
    if (rule == NULL)
        return unknown_optimizer(json_string_value(name), where, fault);
    spec_set_rule(spec, rule);
    return json_is_object(value) ? read_hypers(document, value, spec, fault) : STATUS_OK;
}

static enum status patch_optimizer(const struct json_document *document, const json_t *value,
                                   struct spec *spec, struct fault *fault)
{
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer",
                         "optimizer must be an object with the hyperparameters to change");
    const json_t *name = json_object_get(value, "name");
    if (name != NULL &&
        (!json_is_string(name) || strcmp(json_string_value(name), spec->rule->name) != 0))
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/name",
                         "a session's rule stays %s; create a new session for another",
                         spec->rule->name);
    return read_hypers(document, value, spec, fault);
}

/* --- labels and the whole --- */

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

static enum status check_spec(const struct spec *spec, struct fault *fault)
{
    if (spec->gradient.rescale == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "/gradient/rescale",
                         "rescale is 0; it must be another number, or nothing would ever move");
    return STATUS_OK;
}

enum status spec_read(struct arena *arena, const struct json_document *document, struct spec *spec,
                      const json_t **parameters, struct fault *fault)
{
    struct spec_body body = {.aggregation = 0};
    enum status status;

    spec_init(&body.spec);
    if ((status = fields_read(arena, document, document->root, create_fields, &body, fault)) !=
            STATUS_OK ||
        (status = read_optimizer(document, body.optimizer, &body.spec, fault)) != STATUS_OK ||
        (status = read_labels(body.labels, &body.spec, fault)) != STATUS_OK ||
        (status = check_spec(&body.spec, fault)) != STATUS_OK)
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

enum status spec_patch(struct arena *arena, const struct json_document *document, struct spec *spec,
                       struct fault *fault)
{
    struct spec_body body = {.spec = *spec};
    enum status status;

    if ((status = fields_read(arena, document, document->root, patch_fields, &body, fault)) !=
            STATUS_OK ||
        (body.optimizer != NULL &&
         (status = patch_optimizer(document, body.optimizer, &body.spec, fault)) != STATUS_OK) ||
        (status = read_labels(body.labels, &body.spec, fault)) != STATUS_OK ||
        (status = check_spec(&body.spec, fault)) != STATUS_OK)
        return status;
    *spec = body.spec;
    return STATUS_OK;
}

/* --- writing --- */

static void write_optimizer(struct json_text *text, const struct spec *spec)
{
    json_text_key(text, "optimizer");
    json_text_open(text, '{');
    json_text_member_string(text, "name", spec->rule->name);
    for (size_t i = 0; i < spec->rule->hyper_count; i++) {
        const struct hyper *hyper = &spec->rule->hypers[i];
        json_text_key(text, hyper->name);
        if (hyper->kind == HYPER_FLAG)
            json_text_bool(text, spec->hyper[i] != 0);
        else if (hyper->kind == HYPER_CHOICE)
            json_text_string(text, hyper->choices[(int)spec->hyper[i]]);
        else
            json_text_f64(text, spec->hyper[i]);
    }
    json_text_close(text, '}');
}

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

static void write_tensors(struct json_text *text, const struct layout *layout)
{
    json_text_key(text, "tensors");
    json_text_open(text, '[');
    for (size_t i = 0; i < layout->tensor_count; i++) {
        json_text_open(text, '{');
        json_text_member_string(text, "name", layout->tensors[i].name);
        json_text_key(text, "shape");
        json_text_open(text, '[');
        for (unsigned k = 0; k < layout->tensors[i].rank; k++)
            json_text_u64(text, layout->tensors[i].shape[k]);
        json_text_close(text, ']');
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
}

void receipt_write(struct json_text *text, const struct receipt *receipt)
{
    static const char *const kinds[] = {[RECEIPT_APPLIED] = "applied",
                                        [RECEIPT_SKIPPED] = "skipped",
                                        [RECEIPT_REPLACED] = "replaced"};

    PRE(receipt->kind != RECEIPT_NONE);
    json_text_member_string(text, "status", kinds[receipt->kind]);
    json_text_member_u64(text, "step", receipt->step);
    json_text_member_u64(text, "lineage", receipt->lineage);
    json_text_member_u64(text, "durable_step", receipt->durable_step);
    json_text_member_u64(text, "base_step", receipt->base_step);
    json_text_member_u64(text, "staleness", receipt->staleness);
    json_text_member_f64(text, "lr", receipt->lr);
    json_text_member_f64(text, "grad_norm", receipt->grad_norm);
    json_text_member_f64(text, "clip_scale", receipt->clip_scale);
    json_text_member_f64(text, "update_norm", receipt->update_norm);
    json_text_member_f64(text, "param_norm", receipt->param_norm);
    json_text_member_f64(text, "loss", receipt->loss);
}

void session_write(struct json_text *text, const struct session *session,
                   const struct session_view *view, bool brief)
{
    const struct layout *layout = session_layout(session);
    struct spec_body body = {.spec = view->spec};
    char time[32];

    json_text_open(text, '{');
    json_text_member_string(text, "id", view->id);
    json_text_member_string(text, "created_at", clock_format(time, view->created_us));
    json_text_member_u64(text, "step", view->step);
    json_text_member_u64(text, "durable_step", view->durable_step);
    json_text_member_u64(text, "lineage", view->lineage);
    json_text_member_u64(text, "parameter_count", layout->count);
    write_optimizer(text, &view->spec);
    fields_write(text, shown_fields, &body);
    write_labels(text, &view->spec);
    json_text_key(text, "parent");
    json_text_null(text);
    if (!brief) {
        write_tensors(text, layout);
        json_text_member_string(text, "cursor", view->has_cursor ? view->cursor : NULL);
        json_text_key(text, "last");
        if (view->last.kind == RECEIPT_NONE) {
            json_text_null(text);
        } else {
            json_text_open(text, '{');
            receipt_write(text, &view->last);
            json_text_close(text, '}');
        }
    }
    json_text_close(text, '}');
}

const char *etag_text(struct arena *arena, uint64_t lineage, uint64_t step)
{
    return arena_format(arena, "\"%" PRIu64 "-%" PRIu64 "\"", lineage, step);
}

struct reply session_reply(struct request *request, struct session *session, unsigned http)
{
    struct session_view *view = arena_take(request->arena, sizeof *view);
    struct json_text text;
    struct fault fault;

    if (view == NULL) {
        fault_set(&fault, STATUS_INTERNAL, "", "out of memory");
        return reply_fault(request, &fault);
    }
    if (session_view(session, false, view, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    session_write(&text, session, view, false);
    struct reply reply = reply_json(http, json_text_end(&text));
    if (http == 201)
        reply_header(&reply, "Location", arena_format(request->arena, "/v1/sessions/%s", view->id));
    return reply;
}

void precondition_read(const struct request *request, struct precondition *out)
{
    const char *at = request_header(request, "If-Match");

    *out = (struct precondition){.given = false};
    if (at == NULL || strcmp(at, "*") == 0)
        return;
    out->given = true;
    while (*at != '\0' && out->count < PRECONDITION_TAGS_MAX) {
        uint64_t lineage, step;
        int used = 0;
        if (sscanf(at, "\"%" SCNu64 "-%" SCNu64 "\"%n", &lineage, &step, &used) == 2 && used > 0) {
            out->tags[out->count].lineage = lineage;
            out->tags[out->count++].step = step;
        }
        at += strcspn(at, ",");
        at += strspn(at, ", \t");
    }
}

enum status request_session(struct engine *engine, const struct request *request,
                            struct session **out, struct fault *fault)
{
    if (!session_id_valid(request->path_parameters[0]))
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "",
                         "no session can have this id; ids are [a-z0-9][a-z0-9_-]{0,63}");
    return engine_find(engine, request->path_parameters[0], out, fault);
}
