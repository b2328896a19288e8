/* sgld: stochastic gradient Langevin dynamics, which samples from exp(-loss) where sgd looks for
 * the minimum.
 *
 *     w <- w - lr/2 q + sqrt(lr) n,   n standard normal
 *
 * Each element's n is a function of the session's seed, t and its place in the model
 * (service/kernel/noise.h): any cut, any thread and a replay draw the same.
 * Source: Welling & Teh 2011, equation 4. */
#include <string.h>

#include "service/kernel/noise.h"
#include "service/optim/rule.h"

enum { BATCH = 512 }; /* numbers drawn at a time: they stay in first-level cache */

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
};

/* Gradient and noise are added to each other first: a drift too small to change w by itself then
 * still shows in the mean, as the noise decides where the sum is rounded to. */
KERNEL static void wander(size_t count, const real *restrict g, const real *restrict w,
                          real *restrict next, const real *restrict noise, real half, real root)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] + (root * noise[i] - half * g[i]);
}

static void update(const struct piece *p)
{
    const real *g = p->grad, *w = p->param;
    real *next = p->next_param, noise[BATCH];
    double lr = p->hyper[HYPER_LR];

    if (lr == 0) {
        memcpy(next, w, p->count * sizeof *next);
        return;
    }
    for (size_t done = 0, some; done < p->count; done += some) {
        some = p->count - done < BATCH ? p->count - done : BATCH;
        REAL(noise_normal)(noise, p->seed, p->step, p->start + done, some);
        wander(some, g + done, w + done, next + done, noise, (real)(lr / 2), (real)sqrt(lr));
    }
}

extern const struct optimizer REAL(sgld);
const struct optimizer REAL(sgld) = {
    .name = "sgld",
    .summary = "Stochastic gradient Langevin dynamics: gradient steps with noise that sample from "
               "the posterior; rescale = N / batch, the prior in weight_decay",
    .formula = "w <- w - lr/2 q + sqrt(lr) n,  n standard normal",
    .source = "Welling & Teh 2011, equation 4",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .update = update,
};
