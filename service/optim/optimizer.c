/* The catalogue of update rules. */
#include "service/optim/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/number.h"
#include "service/optim/rule.h"

const char *const weight_decay_modes[] = {"l2", "decoupled", "l2_clipped", NULL};

#define OPTIMIZER(name) extern const struct optimizer name##_f32, name##_f64;
#include "service/optim/optimizers.def"
#undef OPTIMIZER

static const struct {
    const struct optimizer *f32, *f64;
} rules[] = {
#define OPTIMIZER(name) {&name##_f32, &name##_f64},
#include "service/optim/optimizers.def"
#undef OPTIMIZER
};

const struct optimizer *optimizer_at(size_t index, enum dtype dtype)
{
    PRE(dtype == DTYPE_F32 || dtype == DTYPE_F64);
    if (index >= COUNT_OF(rules))
        return NULL;
    return dtype == DTYPE_F64 ? rules[index].f64 : rules[index].f32;
}

const struct optimizer *optimizer_find(const char *name, enum dtype dtype)
{
    const struct optimizer *rule;

    for (size_t i = 0; (rule = optimizer_at(i, dtype)) != NULL; i++)
        if (strcmp(rule->name, name) == 0)
            break;
    return rule;
}

const char *optimizer_grain(const struct optimizer *optimizer)
{
    return optimizer->update != NULL ? "element" : "tensor";
}

size_t hyper_find(const struct hyper *hypers, size_t count, const char *name)
{
    size_t i = 0;

    while (i < count && strcmp(hypers[i].name, name) != 0)
        i++;
    return i;
}

size_t optimizer_hyper(const struct optimizer *optimizer, const char *name)
{
    return hyper_find(optimizer->hypers, optimizer->hyper_count, name);
}

/* A flag or the index of a choice. */
static bool is_listed(const struct hyper *hyper, double value)
{
    double count = 2;

    if (hyper->kind == HYPER_CHOICE)
        for (count = 0; hyper->choices[(size_t)count] != NULL;)
            count++;
    return value >= 0 && value < count && value == floor(value);
}

bool hyper_allows(const struct hyper *hyper, double value, char *why, size_t why_size)
{
    bool whole = hyper->kind == HYPER_WHOLE;
    char text[NUMBER_BYTES];

    if (hyper->kind == HYPER_STEPS || (hyper->nullable && isnan(value)))
        return true;
    if (hyper->kind == HYPER_FLAG || hyper->kind == HYPER_CHOICE) {
        snprintf(why, why_size, "%s has a value that it cannot have", hyper->name);
        return is_listed(hyper, value);
    }
    if (isfinite(value) && (hyper->min_open ? value > hyper->min : value >= hyper->min) &&
        (hyper->max_open ? value < hyper->max : value <= hyper->max) &&
        (!whole || value == floor(value)))
        return true;
    snprintf(why, why_size, "%s is %s; it must be %s%s %g %s %g%s", hyper->name,
             number_text(text, value), whole ? "a whole number " : "",
             hyper->min_open ? "above" : "from", hyper->min, hyper->max_open ? "to below" : "to",
             hyper->max, hyper->nullable ? ", or null" : "");
    return false;
}

bool hyper_parse(const struct hyper *hyper, const char *text, double *out)
{
    char why[160], *end;

    if (hyper->kind == HYPER_FLAG) {
        *out = strcmp(text, "true") == 0;
        return *out != 0 || strcmp(text, "false") == 0;
    }
    if (hyper->kind == HYPER_CHOICE) {
        for (size_t i = 0; hyper->choices[i] != NULL; i++)
            if (strcmp(hyper->choices[i], text) == 0) {
                *out = (double)i;
                return true;
            }
        return false;
    }
    *out = strtod(text, &end);
    if (strcmp(text, "null") == 0)
        *out = (double)NAN;
    else if (end == text || *end != '\0' || isnan(*out))
        return false;
    return hyper_allows(hyper, *out, why, sizeof why);
}

bool slot_needed(const struct slot *slot, const double *hyper)
{
    return slot->needed == NULL || slot->needed(hyper);
}

size_t slot_extent(const struct slot *slot, const struct tensor *tensor)
{
    /* One without elements may have rows all the same. */
    return slot->extent == NULL || tensor->count == 0 ? tensor->count : slot->extent(tensor);
}
