/* The catalogue of schedules, their warm-up, and the curves they share. */
#include "service/optim/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/kernel/elementary.h"
#include "service/kernel/real.h"
#include "service/optim/declare.h"

const char *const warmup_modes[] = {"linear", "constant", NULL};

#define SCHEDULE(name) extern const struct schedule schedule_##name;
#include "service/optim/schedules.def"
#undef SCHEDULE

static const struct schedule *const schedules[] = {
#define SCHEDULE(name) &schedule_##name,
#include "service/optim/schedules.def"
#undef SCHEDULE
};

const struct schedule *schedule_at(size_t index)
{
    return index < COUNT_OF(schedules) ? schedules[index] : NULL;
}

const struct schedule *schedule_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(schedules); i++)
        if (strcmp(schedules[i]->name, name) == 0)
            return schedules[i];
    return NULL;
}

void schedule_set(struct schedule_setting *setting, const struct schedule *schedule)
{
    PRE(schedule->hyper_count <= HYPERS_MAX);
    memset(setting, 0, sizeof *setting);
    setting->schedule = schedule;
    for (size_t i = 0; i < schedule->hyper_count; i++)
        setting->value[i] = schedule->hypers[i].initial;
}

/* A list of steps: not empty, not too long, whole numbers in range, ascending. */
static const char *check_steps(const struct schedule_setting *setting, const struct hyper *hyper,
                               double length, char *why, size_t why_size)
{
    if (!(length >= 1 && length <= SCHEDULE_STEPS_MAX)) {
        snprintf(why, why_size, "%s has %.17g numbers; it must have 1 to %d", hyper->name, length,
                 SCHEDULE_STEPS_MAX);
        return why;
    }
    for (size_t i = 0; i < (size_t)length; i++) {
        double step = setting->steps[i];
        if (!(step >= hyper->min && step <= hyper->max && step == floor(step))) {
            snprintf(why, why_size, "%s[%zu] is %.17g; it must be a whole number from %g to %g",
                     hyper->name, i, step, hyper->min, hyper->max);
            return why;
        }
        if (i > 0 && step <= setting->steps[i - 1]) {
            snprintf(why, why_size, "%s[%zu] is %.17g after %.17g; each must be more than the last",
                     hyper->name, i, step, setting->steps[i - 1]);
            return why;
        }
    }
    return NULL;
}

const char *schedule_check(const struct schedule_setting *setting, const char **field, char *why,
                           size_t why_size)
{
    const struct schedule *schedule = setting->schedule;

    for (size_t i = 0; i < schedule->hyper_count; i++) {
        const struct hyper *hyper = &schedule->hypers[i];
        double value = setting->value[i];
        *field = hyper->name;
        if (isnan(value) && isnan(hyper->initial) && !hyper->nullable) {
            snprintf(why, why_size, "%s needs %s: %s", schedule->name, hyper->name, hyper->meaning);
            return why;
        }
        if (!hyper_allows(hyper, value, why, why_size))
            return why;
        if (hyper->kind == HYPER_STEPS && !isnan(value) &&
            check_steps(setting, hyper, value, why, why_size) != NULL)
            return why;
    }
    return schedule->check == NULL ? NULL : schedule->check(setting, field);
}

const char *schedule_check_max_steps(const struct schedule_setting *setting, const char **field)
{
    *field = "max_steps";
    if (setting->value[SCHEDULE_OWN] > setting->value[SCHEDULE_WARMUP_STEPS])
        return NULL;
    return "max_steps counts from the first step, warm-up included, and must be more than "
           "warmup_steps: raise max_steps or lower warmup_steps";
}

double schedule_rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    double warmup_steps = setting->value[SCHEDULE_WARMUP_STEPS];
    double begin = setting->value[SCHEDULE_WARMUP_BEGIN_LR];

    PRE(n > 0);
    if ((double)n >= warmup_steps)
        return setting->schedule->rate(setting, lr, n);
    if (setting->value[SCHEDULE_WARMUP_MODE] != 0)
        return begin;
    return begin + (lr - begin) * (double)n / warmup_steps;
}

/* Both weigh the two ends instead of adding to one of them, and nothing is subtracted: the result
 * is exact at both ends, lies between them but for rounding, and is right to a few units in its own
 * last place also where it is nearly 0. */
double anneal_linear(double begin, double end, double done, double left)
{
    double all = done + left;

    return begin * (left / all) + end * (done / all);
}

/* (1 + cos(pi d)) / 2 = sin^2(pi (1 - d) / 2) and (1 - cos(pi d)) / 2 = sin^2(pi d / 2). */
double anneal_cosine(double begin, double end, double done, double left)
{
    double all = done + left;
    double rise = elementary_sinpi(0.5 * (left / all));
    double fall = elementary_sinpi(0.5 * (done / all));

    return begin * (rise * rise) + end * (fall * fall);
}

/* Repeated squaring errs by at most half a unit for each factor (and is exact for powers of 1/2),
 * elementary_power by 1 + 3 |count log(factor)|, at most 2237 units where the result is not 0. */
double schedule_decay(double factor, uint64_t count)
{
    return count <= 64 ? power(factor, count) : elementary_power(factor, (double)count);
}
