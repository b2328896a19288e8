/* factor: times `factor` every `step` steps, down to stop_factor_lr.
 *
 *     max(lr factor^(ceil(n / step) - 1), stop_factor_lr)
 *
 * so steps 1 .. step have lr itself. Source: MXNet lr_scheduler.FactorScheduler. Choices: a
 * stop_factor_lr above lr does nothing, where MXNet raises the rate to it after the first decay (an
 * lr of 0 must stay 0). MXNet keeps the decayed rate between calls; here a smaller n has its own
 * rate. The warm-up does not shift it. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { STEP = SCHEDULE_OWN, FACTOR, STOP_FACTOR_LR };

static const struct hyper hypers[] = {
    WARMUP,
    [STEP] = WHOLE("step", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps", "from decay to decay"),
    [FACTOR] = DECAY("factor", 1, "what the rate is multiplied by"),
    [STOP_FACTOR_LR] = NUMBER("stop_factor_lr", 1e-8, 0, SCHEDULE_LR_MAX, "the lowest rate"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    uint64_t decays = (n - 1) / (uint64_t)setting->value[STEP];
    double decayed = lr * schedule_decay(setting->value[FACTOR], decays);
    double stop = setting->value[STOP_FACTOR_LR];

    stop = stop < lr ? stop : lr;
    return decayed > stop ? decayed : stop;
}

extern const struct schedule schedule_factor;
const struct schedule schedule_factor = {
    .name = "factor",
    .summary = "Times factor every so many steps, down to a lowest rate",
    .formula = "max(lr factor^(ceil(n/step)-1), min(stop_factor_lr, lr))",
    .source = "MXNet FactorScheduler",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
};
