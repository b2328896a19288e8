/* constant: the optimizer's lr at every step (after the warm-up). */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

static const struct hyper hypers[] = {WARMUP};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    (void)setting;
    (void)n;
    return lr;
}

extern const struct schedule schedule_constant;
const struct schedule schedule_constant = {
    .name = "constant",
    .summary = "The optimizer's lr at every step",
    .formula = "lr",
    .source = "none needed",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
};
