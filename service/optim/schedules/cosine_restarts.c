/* cosine_restarts: half cosines from lr to final_lr, one after the other, each `mult` times as long
 * as the last.
 *
 *     final_lr + (lr - final_lr) (1 + cos(pi s / length)) / 2
 *     s: steps since the restart, 0 for step 1; length: first, first mult, first mult^2 ...
 *
 * Source: PyTorch torch.optim.lr_scheduler.CosineAnnealingWarmRestarts; Loshchilov & Hutter 2017.
 * The first step of each cycle has lr; final_lr itself is never reached. The warm-up does not shift
 * it. */
#include "service/optim/declare.h"
#include "service/optim/schedule.h"

enum { FIRST = SCHEDULE_OWN, MULT, FINAL_LR };

static const struct hyper hypers[] = {
    WARMUP,
    [FIRST] =
        WHOLE("first", MUST_BE_GIVEN, 1, SCHEDULE_STEP_MAX, "steps", "length of the first cycle"),
    [MULT] = WHOLE("mult", 1, 1, 1e6, "times", "how much longer each cycle is than the last"),
    [FINAL_LR] = NUMBER("final_lr", 0, 0, SCHEDULE_LR_MAX, "where each cycle is heading"),
};

static double rate(const struct schedule_setting *setting, double lr, uint64_t n)
{
    uint64_t length = (uint64_t)setting->value[FIRST], mult = (uint64_t)setting->value[MULT];
    uint64_t since = n - 1;
    double whole = (double)length; /* of a cycle that outlasts every step, where length cannot be */

    if (mult == 1)
        since %= length;
    /* From mult = 2 on cycle k is at least 2^k long: at most 64 rounds. */
    while (since >= length) {
        since -= length;
        whole = (double)length * (double)mult;
        length = length > UINT64_MAX / mult ? UINT64_MAX : length * mult;
    }
    double left = whole < 0x1p63 ? (double)(length - since) : whole - (double)since;
    return anneal_cosine(lr, setting->value[FINAL_LR], (double)since, left);
}

extern const struct schedule schedule_cosine_restarts;
const struct schedule schedule_cosine_restarts = {
    .name = "cosine_restarts",
    .summary = "Half cosines from lr to final_lr, one after the other, each mult times as long",
    .formula = "final_lr + (lr-final_lr) (1+cos(pi s/length))/2, s: steps since the restart, "
               "length: first mult^k",
    .source = "PyTorch CosineAnnealingWarmRestarts; Loshchilov & Hutter 2017",
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .rate = rate,
};
