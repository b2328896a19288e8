/* poly: a power of what is left, from lr to final_lr at max_steps; final_lr after.
 *
 *     final_lr + (lr - final_lr) (1 - (n - W) / (max_steps - W))^power
 *
 * Source: MXNet lr_scheduler.PolyScheduler. Its text says 0 after the last step, its code stays at
 * final_lr, and so do we. The power may be any number above 0. The base is computed as what is left
 * over all, without the subtraction, so that the last rates are not all rounding. */
#include "service/kernel/elementary.h"
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { MAX_STEPS = SCHEDULE_OWN, POWER, FINAL_LR };

static const struct hyper hypers[] = {
    WARMUP,
    [MAX_STEPS] = WHOLE("max_steps", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps",
                        "the step at which the rate is final_lr"),
    [POWER] = POSITIVE("power", 2, 1e3, "1: a straight line"),
    [FINAL_LR] = NUMBER("final_lr", 0, 0, SCHEDULE_LR_MAX, "the rate from max_steps on"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    double max_steps = setting->value[MAX_STEPS], final_lr = setting->value[FINAL_LR];

    if ((double)n >= max_steps)
        return final_lr;
    double left = (max_steps - (double)n) / (max_steps - setting->value[SCHEDULE_WARMUP_STEPS]);
    double share = elementary_power(left, setting->value[POWER]);
    return lr * share + final_lr * (1 - share);
}

extern const struct schedule schedule_poly;
const struct schedule schedule_poly = {
    .name = "poly",
    .summary = "A power of what is left of max_steps, from lr to final_lr",
    .formula = "final_lr + (lr-final_lr) (1-(n-W)/(max_steps-W))^power, from max_steps on final_lr",
    .source = "MXNet PolyScheduler",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
    .check = schedule_check_max_steps,
};
