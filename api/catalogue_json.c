/* The catalogues as JSON. */
#include "api/catalogue_json.h"

#include "api/hyper_json.h"
#include "service/core/contract.h"

/* --- rules --- */

static void write_slots(struct json_text *text, const struct optimizer *rule)
{
    json_text_key(text, "slots");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->slot_count; i++) {
        const struct slot *slot = &rule->slots[i];
        json_text_open(text, '{');
        json_text_member_string(text, "name", slot->name);
        json_text_member_string(text, "per", slot->per != NULL ? slot->per : "parameter");
        json_text_member_string(text, "meaning", slot->meaning);
        json_text_member_bool(text, "optional", slot->needed != NULL);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
}

static void write_scalars(struct json_text *text, const struct optimizer *rule)
{
    json_text_key(text, "scalars");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->scalar_count; i++) {
        json_text_open(text, '{');
        json_text_member_string(text, "name", rule->scalars[i].name);
        json_text_member_string(text, "meaning", rule->scalars[i].meaning);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
}

void optimizer_write(struct json_text *text, const struct optimizer *rule)
{
    json_text_open(text, '{');
    json_text_member_string(text, "name", rule->name);
    json_text_member_string(text, "summary", rule->summary);
    json_text_member_string(text, "formula", rule->formula);
    json_text_member_string(text, "source", rule->source);
    json_text_member_string(text, "grain", optimizer_grain(rule));
    json_text_member_bool(text, "lazy_rows", rule->lazy_rows);
    json_text_key(text, "hyperparameters");
    hypers_describe(text, rule->hypers, rule->hyper_count);
    write_slots(text, rule);
    write_scalars(text, rule);
    json_text_close(text, '}');
}

/* --- presets --- */

struct writing {
    struct json_text *text;
    const struct optimizer *rule;
};

static void write_field(void *context, const char *name, const char *value)
{
    const struct writing *writing = context;
    size_t index = optimizer_hyper(writing->rule, name);
    double number;

    PRE(index < writing->rule->hyper_count);
    PRE(hyper_parse(&writing->rule->hypers[index], value, &number));
    json_text_key(writing->text, name);
    hyper_write(writing->text, &writing->rule->hypers[index], number, NULL);
}

void preset_write(struct json_text *text, const struct preset *preset)
{
    struct writing writing = {text, optimizer_find(preset->rule, DTYPE_F32)};

    PRE(writing.rule != NULL);
    json_text_open(text, '{');
    json_text_member_string(text, "name", preset->name);
    json_text_member_string(text, "optimizer", preset->rule);
    json_text_key(text, "fields");
    json_text_open(text, '{');
    preset_each(preset->fields, write_field, &writing);
    json_text_close(text, '}');
    json_text_key(text, "fixed");
    json_text_open(text, '{');
    preset_each(preset->fixed, write_field, &writing);
    json_text_close(text, '}');
    json_text_close(text, '}');
}

/* --- schedules --- */

void schedule_write(struct json_text *text, const struct schedule *schedule)
{
    json_text_open(text, '{');
    json_text_member_string(text, "name", schedule->name);
    json_text_member_string(text, "summary", schedule->summary);
    json_text_member_string(text, "formula", schedule->formula);
    json_text_member_string(text, "source", schedule->source);
    json_text_key(text, "parameters");
    hypers_describe(text, schedule->hypers, schedule->hyper_count);
    json_text_close(text, '}');
}

/* --- lists --- */

struct reply catalogue_reply(struct request *request, const char *member,
                             bool (*write_at)(struct json_text *text, size_t index))
{
    struct json_text text;
    struct fault fault;

    if (request_query_end(request, &fault) != STATUS_OK)
        return reply_fault(request, &fault);
    json_text_init(&text, request->arena);
    json_text_open(&text, '{');
    json_text_key(&text, member);
    json_text_open(&text, '[');
    for (size_t i = 0; write_at(&text, i); i++)
        ;
    json_text_close(&text, ']');
    json_text_close(&text, '}');
    return reply_json(200, json_text_end(&text));
}
