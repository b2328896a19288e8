/* The member "schedule" of a session: which schedule, and its settings. */
#include <stdio.h>
#include <string.h>

#include "api/hyper_json.h"
#include "api/spec_json.h"
#include "api/suggest.h"

enum { LISTED = 20 };

static const char *schedule_name(size_t index)
{
    const struct schedule *schedule = schedule_at(index);

    return schedule == NULL ? NULL : schedule->name;
}

static enum status unknown_schedule(const char *name, const char *where, struct fault *fault)
{
    char known[300];

    return fault_set(fault, STATUS_INVALID_FIELD, where,
                     "there is no schedule \"%.60s\"; there are %s", name,
                     suggest(name, schedule_name, LISTED, known, sizeof known));
}

/* The schedule by that name with its defaults, unless *setting is of that name. */
static enum status choose(const char *name, const char *where, struct schedule_setting *setting,
                          struct fault *fault)
{
    const struct schedule *schedule = schedule_find(name);

    if (schedule == NULL)
        return unknown_schedule(name, where, fault);
    if (schedule != setting->schedule)
        schedule_set(setting, schedule);
    return STATUS_OK;
}

/* Settings that are good one by one must go together. */
static enum status check(const struct schedule_setting *setting, bool object, struct fault *fault)
{
    const char *field = "";
    char why[200], where[96] = "/schedule";
    const char *sentence = schedule_check(setting, &field, why, sizeof why);

    if (sentence == NULL)
        return STATUS_OK;
    if (object)
        snprintf(where, sizeof where, "/schedule/%s", field);
    return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", sentence);
}

enum status schedule_read(const struct json_document *document, const json_t *value,
                          struct spec *spec, struct fault *fault)
{
    struct schedule_setting setting = spec->schedule;
    bool object = json_is_object(value);
    const json_t *name = object ? json_object_get(value, "name") : value;
    const char *where = object ? "/schedule/name" : "/schedule";
    enum status status = STATUS_OK;

    if (value == NULL)
        return STATUS_OK;
    if (json_is_null(value))
        schedule_set(&setting, schedule_find("constant"));
    else if (json_is_string(name))
        status = choose(json_string_value(name), where, &setting, fault);
    else if (!object || name != NULL)
        status = fault_set(fault, STATUS_INVALID_FIELD, where,
                           "schedule must be a name, an object with a \"name\", for instance "
                           "{\"name\": \"cosine\", \"max_steps\": 1000}, or null");
    if (status == STATUS_OK && object) {
        struct hyper_values values = {.member = "schedule",
                                      .owner = setting.schedule->name,
                                      .selector = "name",
                                      .hypers = setting.schedule->hypers,
                                      .count = setting.schedule->hyper_count,
                                      .value = setting.value,
                                      .steps = setting.steps};
        status = hypers_read(document, value, &values, fault);
    }
    if (status == STATUS_OK)
        status = check(&setting, object, fault);
    if (status == STATUS_OK)
        spec->schedule = setting;
    return status;
}

void schedule_settings_write(struct json_text *text, const struct spec *spec)
{
    const struct schedule_setting *setting = &spec->schedule;

    json_text_key(text, "schedule");
    json_text_open(text, '{');
    json_text_member_string(text, "name", setting->schedule->name);
    hypers_write(text, setting->schedule->hypers, setting->schedule->hyper_count, setting->value,
                 setting->steps);
    json_text_close(text, '}');
}
