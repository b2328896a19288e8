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
    json_text_key(text, "name");
    json_text_string(text, hyper->name);
    json_text_key(text, "type");
    json_text_string(text, types[hyper->kind]);
    json_text_key(text, "default");
    write_value(text, hyper, hyper->initial);
    /* A flag or a choice has no range: null. */
    double nothing = (double)NAN;
    json_text_key(text, "min");
    json_text_f64(text, hyper->kind == HYPER_NUMBER ? hyper->min : nothing);
    json_text_key(text, "max");
    json_text_f64(text, hyper->kind == HYPER_NUMBER ? hyper->max : nothing);
    json_text_key(text, "max_exclusive");
    json_text_bool(text, hyper->max_open);
    if (hyper->kind == HYPER_CHOICE) {
        json_text_key(text, "choices");
        json_text_open(text, '[');
        for (size_t i = 0; hyper->choices[i] != NULL; i++)
            json_text_string(text, hyper->choices[i]);
        json_text_close(text, ']');
    }
    json_text_key(text, "unit");
    json_text_string(text, hyper->unit);
    json_text_key(text, "meaning");
    json_text_string(text, hyper->meaning);
    json_text_close(text, '}');
}

void optimizer_write(struct json_text *text, const struct optimizer *rule)
{
    json_text_open(text, '{');
    json_text_key(text, "name");
    json_text_string(text, rule->name);
    json_text_key(text, "summary");
    json_text_string(text, rule->summary);
    json_text_key(text, "formula");
    json_text_string(text, rule->formula);
    json_text_key(text, "source");
    json_text_string(text, rule->source);
    json_text_key(text, "grain");
    json_text_string(text, "element");
    json_text_key(text, "hyperparameters");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->hyper_count; i++)
        write_hyper(text, &rule->hypers[i]);
    json_text_close(text, ']');
    json_text_key(text, "slots");
    json_text_open(text, '[');
    for (size_t i = 0; i < rule->slot_count; i++) {
        json_text_open(text, '{');
        json_text_key(text, "name");
        json_text_string(text, rule->slots[i].name);
        json_text_key(text, "meaning");
        json_text_string(text, rule->slots[i].meaning);
        json_text_key(text, "optional");
        json_text_bool(text, rule->slots[i].needed != NULL);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
    json_text_close(text, '}');
}
