/* step_decay: times gamma at every multiple of step_size, or at each of the listed steps.
 *
 *     lr gamma^floor(n / step_size)    or    lr gamma^#{k: n >= steps_k}
 *
 * inclusive: step step_size itself has the lower rate (factor and multi_factor keep the higher one
 * for it). Source: objax.optimizer.scheduler.StepDecay, whose step_size is a number or a list; here
 * they are two fields, and exactly one is given. PyTorch's StepLR and MultiStepLR count from 0:
 * their first step is this one's step 0. The warm-up does not shift it. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { STEP_SIZE = SCHEDULE_OWN, STEPS_AT, GAMMA };

static const struct hyper hypers[] = {
    WARMUP,
    [STEP_SIZE] = {.name = "step_size",
                   .kind = HYPER_WHOLE,
                   .initial = (double)NAN,
                   .min = 1,
                   .max = SCHEDULE_STEP_MAX,
                   .nullable = true,
                   .unit = "steps",
                   .meaning = "from decay to decay; this or steps"},
    [STEPS_AT] = STEPS("steps", true, "the steps of the decays, ascending; this or step_size"),
    [GAMMA] = DECAY("gamma", 0.1, "what the rate is multiplied by"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    uint64_t passed = 0;

    if (!isnan(setting->value[STEP_SIZE]))
        passed = n / (uint64_t)setting->value[STEP_SIZE];
    else
        while (passed < (uint64_t)setting->value[STEPS_AT] && n >= (uint64_t)setting->steps[passed])
            passed++;
    return lr * schedule_decay(setting->value[GAMMA], passed);
}

static const char *check(const struct schedule_setting *setting, const char **field)
{
    bool size = !isnan(setting->value[STEP_SIZE]), list = !isnan(setting->value[STEPS_AT]);

    *field = "step_size";
    if (size != list)
        return NULL;
    return size ? "step_decay takes either step_size or steps: leave one out, or set it to null"
                : "step_decay needs step_size (a decay every so many steps) or steps (a list)";
}

extern const struct schedule schedule_step_decay;
const struct schedule schedule_step_decay = {
    .name = "step_decay",
    .summary = "Times gamma at every multiple of step_size, or at each of the listed steps",
    .formula = "lr gamma^floor(n/step_size), or lr gamma^(how many of steps are <= n)",
    .source = "objax StepDecay",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
    .check = check,
};
