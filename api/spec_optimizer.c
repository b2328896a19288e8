/* The member "optimizer" of a session: a rule by its name, or a preset, which stands for a rule and
 * explicit fields. */
#include <stdio.h>
#include <string.h>

#include "api/hyper_json.h"
#include "api/spec_json.h"
#include "api/suggest.h"
#include "service/optim/preset.h"

enum { LISTED_PRESETS = 6, LISTED_RULES = 40 };

static struct hyper_values values_of(struct spec *spec)
{
    return (struct hyper_values){.member = "optimizer",
                                 .owner = spec->rule->name,
                                 .selector = "name",
                                 .hypers = spec->rule->hypers,
                                 .count = spec->rule->hyper_count,
                                 .value = spec->hyper};
}

/* --- by name --- */

static const char *rule_name(size_t index)
{
    const struct optimizer *rule = optimizer_at(index, DTYPE_F32);

    return rule == NULL ? NULL : rule->name;
}

static const char *preset_name(size_t index)
{
    const struct preset *preset = preset_at(index);

    return preset == NULL ? NULL : preset->name;
}

static enum status unknown_rule(const char *name, const char *where, struct fault *fault)
{
    char known[360];

    if (preset_find(name) != NULL)
        return fault_set(fault, STATUS_UNKNOWN_OPTIMIZER, where,
                         "%s is a preset; write \"optimizer\": {\"preset\": \"%s\"}", name, name);
    return fault_set(fault, STATUS_UNKNOWN_OPTIMIZER, where,
                     "there is no optimizer \"%.60s\"; there are %s", name,
                     suggest(name, rule_name, LISTED_RULES, known, sizeof known));
}

static enum status read_rule(const struct json_document *document, const json_t *value,
                             struct spec *spec, struct fault *fault)
{
    const json_t *name = json_is_object(value) ? json_object_get(value, "name") : value;
    const char *where = json_is_object(value) ? "/optimizer/name" : "/optimizer";

    if (!json_is_string(name))
        return fault_set(fault, STATUS_INVALID_FIELD, where,
                         "optimizer must be a name, or an object with a \"name\" or a \"preset\"");
    const struct optimizer *rule = optimizer_find(json_string_value(name), spec->dtype);
    if (rule == NULL)
        return unknown_rule(json_string_value(name), where, fault);
    spec_set_rule(spec, rule);
    struct hyper_values values = values_of(spec);
    return json_is_object(value) ? hypers_read(document, value, &values, fault) : STATUS_OK;
}

/* --- by preset --- */

static enum status unknown_preset(const char *name, struct fault *fault)
{
    char known[300];

    if (optimizer_find(name, DTYPE_F32) != NULL)
        return fault_set(fault, STATUS_UNKNOWN_OPTIMIZER, "/optimizer/preset",
                         "%s is a rule and no preset; write \"optimizer\": {\"name\": \"%s\"}",
                         name, name);
    return fault_set(fault, STATUS_UNKNOWN_OPTIMIZER, "/optimizer/preset",
                     "there is no preset \"%.60s\"; the nearest are %s; GET /v1/presets lists all",
                     name, suggest(name, preset_name, LISTED_PRESETS, known, sizeof known));
}

/* Of a field that the framework's optimizer does not have. */
struct lack {
    const struct preset *preset;
    const char *field;
    char text[320];
    size_t used;
    bool fixed;
};

static void list_field(void *context, const char *name, const char *value)
{
    struct lack *lack = context;

    (void)value;
    if (lack->used + strlen(name) + sizeof ", " <= sizeof lack->text)
        lack->used += (size_t)snprintf(lack->text + lack->used, sizeof lack->text - lack->used,
                                       "%s%s", lack->used > 0 ? ", " : "", name);
}

static void find_fixed(void *context, const char *name, const char *value)
{
    struct lack *lack = context;

    if (strcmp(name, lack->field) != 0)
        return;
    snprintf(lack->text, sizeof lack->text,
             "%s fixes %s to %s; to change it write \"name\": \"%s\" in place of the preset, and "
             "its fields",
             lack->preset->name, name, value, lack->preset->rule);
    lack->fixed = true;
}

static enum status preset_lacks(const struct preset *preset, const struct hyper_values *values,
                                const char *field, struct fault *fault)
{
    struct lack lack = {.preset = preset, .field = field};

    preset_each(preset->fixed, find_fixed, &lack);
    if (lack.fixed) {
        char where[96]; /* a name of ours: nothing to escape */
        snprintf(where, sizeof where, "/optimizer/%.64s", field);
        return fault_set(fault, STATUS_UNKNOWN_FIELD, where, "%s", lack.text);
    }
    preset_each(preset->fields, list_field, &lack);
    return hyper_unknown(values, field, lack.text, fault);
}

static enum status read_preset(const struct json_document *document, const json_t *object,
                               struct spec *spec, struct fault *fault)
{
    const json_t *wanted = json_object_get(object, "preset");
    const char *name;
    json_t *value;

    if (json_object_get(object, "name") != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/preset",
                         "give \"name\" or \"preset\", not both: a preset stands for a rule and "
                         "its fields");
    if (!json_is_string(wanted))
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/preset",
                         "preset must be a name such as \"torch.optim.Adam\"; GET /v1/presets "
                         "lists them");
    const struct preset *preset = preset_find(json_string_value(wanted));
    if (preset == NULL)
        return unknown_preset(json_string_value(wanted), fault);
    const struct optimizer *rule = optimizer_find(preset->rule, spec->dtype);
    spec_set_rule(spec, rule);
    preset_apply(preset, rule, spec->hyper);

    struct hyper_values values = values_of(spec);
    values.owner = preset->name;
    values.selector = "preset";
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (strcmp(name, values.selector) != 0 && !preset_has(preset, name))
            return preset_lacks(preset, &values, name, fault);
    }
    return hypers_read(document, object, &values, fault);
}

/* --- the member --- */

static enum status check_together(const struct spec *spec, struct fault *fault)
{
    const char *field = "", *sentence = spec->rule->check == NULL
                                            ? NULL
                                            : spec->rule->check(spec->hyper, &field);
    char where[80];

    if (sentence == NULL)
        return STATUS_OK;
    snprintf(where, sizeof where, "/optimizer/%s", field);
    return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", sentence);
}

enum status optimizer_read(const struct json_document *document, const json_t *value,
                           struct spec *spec, struct fault *fault)
{
    if (value == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer",
                         "say which optimizer, for instance \"optimizer\": {\"name\": \"adam\", "
                         "\"lr\": 0.001}");
    enum status status = json_object_get(value, "preset") != NULL
                             ? read_preset(document, value, spec, fault)
                             : read_rule(document, value, spec, fault);
    return status == STATUS_OK ? check_together(spec, fault) : status;
}

enum status optimizer_patch(const struct json_document *document, const json_t *value,
                            struct spec *spec, struct fault *fault)
{
    struct hyper_values values = values_of(spec);

    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer",
                         "optimizer must be an object with the hyperparameters to change");
    const json_t *name = json_object_get(value, "name");
    if (name != NULL &&
        (!json_is_string(name) || strcmp(json_string_value(name), spec->rule->name) != 0))
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/name",
                         "a session's rule stays %s; create a new session for another",
                         spec->rule->name);
    if (json_object_get(value, "preset") != NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/preset",
                         "a preset is for a new session; of this one change the fields of %s",
                         spec->rule->name);
    enum status status = hypers_read(document, value, &values, fault);
    return status == STATUS_OK ? check_together(spec, fault) : status;
}

void optimizer_settings_write(struct json_text *text, const struct spec *spec)
{
    json_text_key(text, "optimizer");
    json_text_open(text, '{');
    json_text_member_string(text, "name", spec->rule->name);
    hypers_write(text, spec->rule->hypers, spec->rule->hyper_count, spec->hyper, NULL);
    json_text_close(text, '}');
}
