/* The catalogue of presets. */
#include "service/optim/preset.h"

#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/optim/declare.h"

enum { WORD_BYTES = 64 };

static const struct preset presets[] = {
#define PRESET(...) {__VA_ARGS__},
#include "service/optim/presets.def"
#undef PRESET
};

const struct preset *preset_at(size_t index)
{
    return index < COUNT_OF(presets) ? &presets[index] : NULL;
}

const struct preset *preset_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(presets); i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

void preset_each(const char *fields,
                 void (*each)(void *context, const char *name, const char *value), void *context)
{
    char word[WORD_BYTES];

    while (*fields != '\0') {
        size_t size = strcspn(fields, " ");
        PRE(size < sizeof word);
        memcpy(word, fields, size);
        word[size] = '\0';
        char *equals = strchr(word, '=');
        PRE(equals != NULL);
        *equals = '\0';
        each(context, word, equals + 1);
        fields += size + strspn(fields + size, " ");
    }
}

struct application {
    const struct optimizer *rule;
    double *hyper;
};

static void apply_field(void *context, const char *name, const char *value)
{
    const struct application *application = context;
    size_t index = optimizer_hyper(application->rule, name);

    PRE(index < application->rule->hyper_count);
    PRE(hyper_parse(&application->rule->hypers[index], value, &application->hyper[index]));
}

void preset_apply(const struct preset *preset, const struct optimizer *rule, double *hyper)
{
    struct application application = {rule, hyper};

    PRE(strcmp(preset->rule, rule->name) == 0);
    preset_each(preset->fields, apply_field, &application);
    preset_each(preset->fixed, apply_field, &application);
}

struct question {
    const char *field;
    bool found;
};

static void compare_field(void *context, const char *name, const char *value)
{
    struct question *question = context;

    (void)value;
    question->found |= strcmp(question->field, name) == 0;
}

bool preset_has(const struct preset *preset, const char *field)
{
    struct question question = {field, false};

    preset_each(preset->fields, compare_field, &question);
    return question.found;
}
