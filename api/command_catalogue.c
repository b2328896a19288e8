/* `descent optimizers [NAME]`, `descent presets [NAME]`, `descent schedules [NAME]`: the catalogues
 * on a terminal. */
#include <math.h>
#include <stdio.h>

#include "api/commands.h"
#include "service/optim/preset.h"
#include "service/optim/schedule.h"

static const char *initial_text(const struct hyper *hyper, char *out, size_t size)
{
    if (hyper->kind == HYPER_FLAG)
        return hyper->initial != 0 ? "true" : "false";
    if (hyper->kind == HYPER_CHOICE)
        return hyper->choices[(int)hyper->initial];
    if (isnan(hyper->initial))
        return hyper->nullable ? "null" : "(needed)";
    snprintf(out, size, "%g", hyper->initial);
    return out;
}

static void print_hyper(const struct hyper *hyper)
{
    char initial[48];

    printf("    %-20s %-10s %s", hyper->name, initial_text(hyper, initial, sizeof initial),
           hyper->meaning);
    if (hyper->kind == HYPER_NUMBER || hyper->kind == HYPER_WHOLE)
        printf(" (%s%s%g to %s%g%s)", hyper->kind == HYPER_WHOLE ? "whole, " : "",
               hyper->min_open ? "above " : "", hyper->min, hyper->max_open ? "below " : "",
               hyper->max, hyper->nullable ? ", or null" : "");
    printf("\n");
}

static void print_rule(const struct optimizer *rule)
{
    printf("%s: %s\n  %s\n  source: %s\n  hyperparameters and defaults:\n", rule->name,
           rule->summary, rule->formula, rule->source);
    for (size_t i = 0; i < rule->hyper_count; i++)
        print_hyper(&rule->hypers[i]);
    if (rule->slot_count + rule->scalar_count > 0)
        printf("  state:\n");
    for (size_t i = 0; i < rule->slot_count; i++) {
        const struct slot *slot = &rule->slots[i];
        printf("    %-20s %s; one number a %s%s\n", slot->name, slot->meaning,
               slot->per != NULL ? slot->per : "parameter",
               slot->needed != NULL ? ", when in use" : "");
    }
    for (size_t i = 0; i < rule->scalar_count; i++)
        printf("    %-20s %s; one number\n", rule->scalars[i].name, rule->scalars[i].meaning);
}

static void print_field(void *context, const char *name, const char *value)
{
    (void)context;
    printf("    %-20s %s\n", name, value);
}

static void print_preset(const struct preset *preset)
{
    printf("%s: the rule %s\n  fields and defaults:\n", preset->name, preset->rule);
    preset_each(preset->fields, print_field, NULL);
    if (preset->fixed[0] != '\0')
        printf("  fixed:\n");
    preset_each(preset->fixed, print_field, NULL);
}

static int there_is_none(const char *kind, const char *name)
{
    fprintf(stderr, "descent: there is no %s \"%s\"; `descent %ss` lists them\n", kind, name, kind);
    return 1;
}

static int show_presets(const char *name)
{
    const struct preset *preset;

    if (name == NULL) {
        for (size_t i = 0; (preset = preset_at(i)) != NULL; i++)
            printf("%-22s %s\n", preset->name, preset->rule);
        return 0;
    }
    if ((preset = preset_find(name)) == NULL)
        return there_is_none("preset", name);
    print_preset(preset);
    return 0;
}

static int show_optimizers(const char *name)
{
    const struct optimizer *rule;

    if (name == NULL) {
        for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F32)) != NULL; i++)
            printf("%-14s %s\n", rule->name, rule->summary);
        return 0;
    }
    if ((rule = optimizer_find(name, DTYPE_F32)) != NULL) {
        print_rule(rule);
        return 0;
    }
    return preset_find(name) != NULL ? show_presets(name) : there_is_none("optimizer", name);
}

static int show_schedules(const char *name)
{
    const struct schedule *schedule;

    if (name == NULL) {
        for (size_t i = 0; (schedule = schedule_at(i)) != NULL; i++)
            printf("%-18s %s\n", schedule->name, schedule->summary);
        return 0;
    }
    if ((schedule = schedule_find(name)) == NULL)
        return there_is_none("schedule", name);
    printf("%s: %s\n  %s\n  source: %s\n  parameters and defaults:\n", schedule->name,
           schedule->summary, schedule->formula, schedule->source);
    for (size_t i = 0; i < schedule->hyper_count; i++)
        print_hyper(&schedule->hypers[i]);
    return 0;
}

/* One name or none; a preset is an entry among the optimizers too. */
static int show(char *const *options, const char *command, int (*print)(const char *name))
{
    char what[64];

    if (options[0] == NULL || options[1] == NULL)
        return print(options[0]);
    snprintf(what, sizeof what, "%s takes one name", command);
    return command_usage(what);
}

int command_optimizers(char *const *options)
{
    return show(options, "optimizers", show_optimizers);
}

int command_presets(char *const *options)
{
    return show(options, "presets", show_presets);
}

int command_schedules(char *const *options)
{
    return show(options, "schedules", show_schedules);
}
