/* The catalogue as JSON. */
#include "api/optimizer_json.h"

#include <math.h>

static void write_value(struct json_text *text, const struct hyper *hyper, double value)
{
    if (hyper->kind == HYPER_FLAG)
        json_text_bool(text, value != 0);
    else if (hyper->kind == HYPER_CHOICE)
        json_text_string(text, hyper->choices[(int)value]);
    else
        json_text_f64(text, value);
}

static void write_hyper(struct json_text *text, const struct hyper *hyper)
{
    static const char *const types[] = {
        [HYPER_NUMBER] = "number", [HYPER_FLAG] = "boolean", [HYPER_CHOICE] = "choice"};

    json_text_open(text, '{');
    json_text_member_string(text, "name", hyper->name);
    json_text_member_string(text, "type", types[hyper->kind]);
    json_text_key(text, "default");
    write_value(text, hyper, hyper->initial);
    /* A flag or a choice has no range: null. */
    double nothing = (double)NAN;
    json_text_member_f64(text, "min", hyper->kind == HYPER_NUMBER ? hyper->min : nothing);
    json_text_member_f64(text, "max", hyper->kind == HYPER_NUMBER ? hyper->max : nothing);
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

void optimizer_write(struct json_text *text, const struct optimizer *rule)
{
    json_text_open(text, '{');
    json_text_member_string(text, "name", rule->name);
    json_text_member_string(text, "summary", rule->summary);
    json_text_member_string(text, "formula", rule->formula);
    json_text_member_string(text, "source", rule->source);
    json_text_member_string(text, "grain", "element");
    json_text_key(text, "hyperparameters");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->hyper_count; i++)
        write_hyper(text, &rule->hypers[i]);
    json_text_close(text, ']');
    json_text_key(text, "slots");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->slot_count; i++) {
        json_text_open(text, '{');
        json_text_member_string(text, "name", rule->slots[i].name);
        json_text_member_string(text, "meaning", rule->slots[i].meaning);
        json_text_member_bool(text, "optional", rule->slots[i].needed != NULL);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
    json_text_close(text, '}');
}
