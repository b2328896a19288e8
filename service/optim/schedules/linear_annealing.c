/* linear_annealing: a straight line from lr to min_lr at max_steps; then min_lr, or from the start.
 *
 *     lr - (lr - min_lr) s / max_steps,  s = min(n, max_steps); with cycle: n mod max_steps
 *
 * Source: objax.optimizer.scheduler.LinearAnnealing, lr (1 - (s / max) (1 - min_lr / lr)): the same
 * without dividing by lr, which may be 0. With cycle step max_steps itself has lr again, as objax;
 * cycle is off by default, where objax has it on: a rate that jumps back up is to be asked for. The
 * warm-up does not shift it. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { MAX_STEPS = SCHEDULE_OWN, MIN_LR, CYCLE };

static const struct hyper hypers[] = {
    WARMUP,
    [MAX_STEPS] = WHOLE("max_steps", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps",
                        "the step at which the rate is min_lr"),
    [MIN_LR] = NUMBER("min_lr", 0, 0, SCHEDULE_LR_MAX, "the rate at the end of the line"),
    [CYCLE] = FLAG("cycle", 0, "start over every max_steps steps"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    uint64_t max_steps = (uint64_t)setting->value[MAX_STEPS];
    uint64_t step = n < max_steps ? n : max_steps;

    if (setting->value[CYCLE] != 0)
        step = n % max_steps;
    return anneal_linear(lr, setting->value[MIN_LR], (double)step, (double)(max_steps - step));
}

static const char *check(const struct schedule_setting *setting, const char **field)
{
    return setting->value[CYCLE] != 0 ? NULL : schedule_check_max_steps(setting, field);
}

extern const struct schedule schedule_linear_annealing;
const struct schedule schedule_linear_annealing = {
    .name = "linear_annealing",
    .summary = "A straight line from lr to min_lr, once or over and over",
    .formula = "lr - (lr-min_lr) s/max_steps, s = min(n, max_steps); with cycle: n mod max_steps",
    .source = "objax LinearAnnealing",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
    .check = check,
};
