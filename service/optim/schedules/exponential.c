/* exponential: times gamma at every step but the first.
 *
 *     lr gamma^(n - 1)
 *
 * Source: PyTorch torch.optim.lr_scheduler.ExponentialLR, whose first step has lr itself. (gamma^n
 * is step_decay with step_size 1.) PyTorch lets gamma be above 1; here a rate must stay finite for
 * ever, so it may not. The warm-up does not shift it: it ends at lr gamma^(W - 1). */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { GAMMA = SCHEDULE_OWN };

static const struct hyper hypers[] = {
    WARMUP,
    [GAMMA] = DECAY("gamma", MUST_BE_GIVEN, "what the rate is multiplied by"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    return lr * schedule_decay(setting->value[GAMMA], n - 1);
}

extern const struct schedule schedule_exponential;
const struct schedule schedule_exponential = {
    .name = "exponential",
    .summary = "Times gamma at every step but the first",
    .formula = "lr gamma^(n-1)",
    .source = "PyTorch ExponentialLR",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
};
