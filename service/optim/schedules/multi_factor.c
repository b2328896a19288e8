/* multi_factor: times `factor` after each of the listed steps.
 *
 *     lr factor^#{k: n > steps_k}
 *
 * so step steps_k itself still has the rate before it (step_decay is the inclusive one). Source:
 * MXNet lr_scheduler.MultiFactorScheduler, without its state. The warm-up does not shift it. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { STEPS_AT = SCHEDULE_OWN, FACTOR };

static const struct hyper hypers[] = {
    WARMUP,
    [STEPS_AT] = STEPS("steps", false, "the steps after which the rate is multiplied, ascending"),
    [FACTOR] = DECAY("factor", 1, "what the rate is multiplied by"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    uint64_t passed = 0;

    while (passed < (uint64_t)setting->value[STEPS_AT] && n > (uint64_t)setting->steps[passed])
        passed++;
    return lr * schedule_decay(setting->value[FACTOR], passed);
}

extern const struct schedule schedule_multi_factor;
const struct schedule schedule_multi_factor = {
    .name = "multi_factor",
    .summary = "Times factor after each of the listed steps",
    .formula = "lr factor^(how many of steps are < n)",
    .source = "MXNet MultiFactorScheduler",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
};
