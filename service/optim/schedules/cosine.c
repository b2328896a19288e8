/* cosine: half a cosine from lr to final_lr at max_steps; final_lr after.
 *
 *     final_lr + (lr - final_lr) (1 + cos(pi (n - W) / (max_steps - W))) / 2
 *
 * Source: MXNet lr_scheduler.CosineScheduler; Loshchilov & Hutter 2017, eq. 5. MXNet's text says 0
 * after the last step, its code stays at final_lr, and so do we. PyTorch's CosineAnnealingLR has
 * this rate at its epoch n, whose first is 0: it is one step behind. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { MAX_STEPS = SCHEDULE_OWN, FINAL_LR };

static const struct hyper hypers[] = {
    WARMUP,
    [MAX_STEPS] = WHOLE("max_steps", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps",
                        "the step at which the rate is final_lr"),
    [FINAL_LR] = NUMBER("final_lr", 0, 0, SCHEDULE_LR_MAX, "the rate from max_steps on"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    double max_steps = setting->value[MAX_STEPS], final_lr = setting->value[FINAL_LR];

    if ((double)n >= max_steps)
        return final_lr;
    double done = (double)n - setting->value[SCHEDULE_WARMUP_STEPS];
    return anneal_cosine(lr, final_lr, done, max_steps - (double)n);
}

extern const struct schedule schedule_cosine;
const struct schedule schedule_cosine = {
    .name = "cosine",
    .summary = "Half a cosine from lr to final_lr",
    .formula = "final_lr + (lr-final_lr) (1+cos(pi (n-W)/(max_steps-W)))/2, from max_steps on "
               "final_lr",
    .source = "MXNet CosineScheduler; Loshchilov & Hutter 2017, eq. 5",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
    .check = schedule_check_max_steps,
};
