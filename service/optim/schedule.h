/* Learning-rate schedules: pure functions of the step. Each is service/optim/schedules/<name>.c and
 * one line in schedules.def. Any of them takes a warm-up:
 *
 *     n < warmup_steps:  linear: begin + (lr - begin) n / warmup_steps;  constant: begin
 *
 * For every step n >= 1, every lr from 0 to 1e30 and settings that schedule_check lets through, a
 * rate is finite and not negative, and its bits depend on no libm. */
#ifndef DESCENT_OPTIM_SCHEDULE_H
#define DESCENT_OPTIM_SCHEDULE_H

#include <math.h>

#include "service/optim/optimizer.h"

enum { SCHEDULE_STEPS_MAX = 64 };

/* Every schedule declares these three first, by the macro WARMUP. */
enum { SCHEDULE_WARMUP_STEPS, SCHEDULE_WARMUP_BEGIN_LR, SCHEDULE_WARMUP_MODE, SCHEDULE_OWN };

struct schedule;

/* A schedule with its settings: a plain value. */
struct schedule_setting {
    const struct schedule *schedule;
    double
        value[HYPERS_MAX]; /* declaration order; a HYPER_STEPS holds its length, NaN: not given */
    double steps[SCHEDULE_STEPS_MAX]; /* of the one HYPER_STEPS, ascending */
};

struct schedule {
    const char *name;
    const char *summary;
    const char *formula; /* lr: the optimizer's; n: the step; W: warmup_steps */
    const char *source;
    const struct hyper *hypers;
    size_t hyper_count;
    /* The rate at step n (first: 1) after warm-up, from the optimizer's lr. */
    double (*rate)(const struct schedule_setting *setting, double lr, uint64_t n);
    /* NULL, or a sentence that says how to mend settings that do not go together, and the field at
     * fault. NULL: nothing to check. */
    const char *(*check)(const struct schedule_setting *setting, const char **field);
};

const struct schedule *schedule_find(const char *name); /* NULL: none */
const struct schedule *schedule_at(size_t index);       /* NULL past the end */

/* The schedule with its defaults. */
void schedule_set(struct schedule_setting *setting, const struct schedule *schedule);

/* NULL when the settings are whole, in range and go together; else a sentence, and the field at
 * fault. why: room for the sentence. */
const char *schedule_check(const struct schedule_setting *setting, const char **field, char *why,
                           size_t why_size);

/* The rate of step n, the first being 1. */
double schedule_rate(const struct schedule_setting *setting, double lr, uint64_t n);

/* --- what schedules are made of --- */

/* On the way from `begin` to `end`, with so many steps done and left: along a line, and along half
 * a cosine. */
double anneal_linear(double begin, double end, double done, double left);
double anneal_cosine(double begin, double end, double done, double left);

/* factor^count for 0 < factor <= 1. */
double schedule_decay(double factor, uint64_t count);

/* The `check` of schedules whose first own field is max_steps: the warm-up ends before it. */
const char *schedule_check_max_steps(const struct schedule_setting *setting, const char **field);

/* A step as a double is exact below 2^53 = 9.007e15. */
#define SCHEDULE_STEP_MAX 1e15
#define SCHEDULE_LR_MAX 1e30 /* as an optimizer's lr */

/* The default of a field that has none and may not be null. */
#define MUST_BE_GIVEN ((double)NAN)

extern const char *const warmup_modes[];

#define WARMUP                                                                                     \
    [SCHEDULE_WARMUP_STEPS] = WHOLE("warmup_steps", 0, 0, SCHEDULE_STEP_MAX, "steps",              \
                                    "the rate is led up to lr before this step"),                  \
    [SCHEDULE_WARMUP_BEGIN_LR] =                                                                   \
        NUMBER("warmup_begin_lr", 0, 0, SCHEDULE_LR_MAX, "where the warm-up starts"),              \
    [SCHEDULE_WARMUP_MODE] = CHOICE("warmup_mode", 0, warmup_modes,                                \
                                    "linear: rises from warmup_begin_lr; constant: stays there")

/* The factor of one decay: the rate never grows, so it stays finite. */
#define DECAY(name_, initial_, meaning_) POSITIVE(name_, initial_, 1, meaning_)

/* A list of steps; min and max hold for each of them. */
#define STEPS(name_, nullable_, meaning_)                                                          \
    {                                                                                              \
        .name = name_, .kind = HYPER_STEPS, .initial = (double)NAN, .min = 1,                      \
        .max = SCHEDULE_STEP_MAX, .nullable = nullable_, .unit = "steps", .meaning = meaning_      \
    }

#endif
