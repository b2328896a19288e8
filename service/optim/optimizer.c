/* The catalogue of update rules. */
#include "service/optim/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"
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

size_t optimizer_hyper(const struct optimizer *optimizer, const char *name)
{
    size_t i = 0;

    while (i < optimizer->hyper_count && strcmp(optimizer->hypers[i].name, name) != 0)
        i++;
    return i;
}

bool hyper_allows(const struct hyper *hyper, double value, char *why, size_t why_size)
{
    if (hyper->kind != HYPER_NUMBER)
        return true;
    if (isfinite(value) && value >= hyper->min &&
        (hyper->max_open ? value < hyper->max : value <= hyper->max))
        return true;
    snprintf(why, why_size, "%s is %.17g; it must be from %g %s %g", hyper->name, value, hyper->min,
             hyper->max_open ? "to below" : "to", hyper->max);
    return false;
}

bool slot_needed(const struct slot *slot, const double *hyper)
{
    return slot->needed == NULL || slot->needed(hyper);
}
