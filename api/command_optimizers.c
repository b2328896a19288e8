/* `descent optimizers [NAME]`: the catalogue on a terminal. */
#include <stdio.h>

#include "api/commands.h"
#include "service/optim/optimizer.h"

static void print_hyper(const struct hyper *hyper)
{
    char initial[48];

    if (hyper->kind == HYPER_FLAG)
        snprintf(initial, sizeof initial, "%s", hyper->initial != 0 ? "true" : "false");
    else if (hyper->kind == HYPER_CHOICE)
        snprintf(initial, sizeof initial, "%s", hyper->choices[(int)hyper->initial]);
    else
        snprintf(initial, sizeof initial, "%g", hyper->initial);
    printf("    %-18s %-9s %s", hyper->name, initial, hyper->meaning);
    if (hyper->kind == HYPER_NUMBER)
        printf(" (%g to %s%g)", hyper->min, hyper->max_open ? "below " : "", hyper->max);
    printf("\n");
}

static void print_rule(const struct optimizer *rule)
{
    printf("%s: %s\n  %s\n  source: %s\n  hyperparameters and defaults:\n", rule->name,
           rule->summary, rule->formula, rule->source);
    for (size_t i = 0; i < rule->hyper_count; i++)
        print_hyper(&rule->hypers[i]);
    if (rule->slot_count > 0)
        printf("  state, one number per parameter each:\n");
    for (size_t i = 0; i < rule->slot_count; i++)
        printf("    %-18s %s%s\n", rule->slots[i].name, rule->slots[i].meaning,
               rule->slots[i].needed != NULL ? " (only when in use)" : "");
}

int command_optimizers(const char *name)
{
    const struct optimizer *rule;

    if (name == NULL) {
        for (size_t i = 0; (rule = optimizer_at(i, DTYPE_F32)) != NULL; i++)
            printf("%-12s %s\n", rule->name, rule->summary);
        return 0;
    }
    if ((rule = optimizer_find(name, DTYPE_F32)) == NULL) {
        fprintf(stderr, "descent: there is no optimizer \"%s\"; `descent optimizers` lists them\n",
                name);
        return 1;
    }
    print_rule(rule);
    return 0;
}
