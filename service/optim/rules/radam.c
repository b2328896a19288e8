/* radam: Adam whose rate is rectified while its second moment rests on few gradients.
 *
 *     m <- beta1 m + (1 - beta1) q;  v <- beta2 v + (1 - beta2) q^2;  mh = m / (1 - beta1^t)
 *     r_inf = 2 / (1 - beta2) - 1;  r = r_inf - 2 t beta2^t / (1 - beta2^t)
 *     r > 5:  w <- w - lr mh l sqrt(1 - beta2^t) / (sqrt(v) + eps),
 *             l = sqrt((r - 4) (r - 2) r_inf / ((r_inf - 4) (r_inf - 2) r))
 *     else:   w <- w - lr mh
 *
 * r never exceeds r_inf, so that beta2 <= 2/3 (r_inf <= 5) is momentum for ever. eps is added to
 * the uncorrected root and the bound is 5, as in PyTorch (the paper: no eps, 4).
 * Source: Liu et al. 2020, algorithm 2; PyTorch torch.optim.RAdam. */
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { M, V };

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    ADAPTIVE(0.999, 1e-8),
};

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
};

/* l, or 0 where there is none yet. */
static double rectification(double beta2, uint64_t step)
{
    double last = power(beta2, step), limit = 2 / (1 - beta2) - 1;
    double length = limit - 2 * (double)step * last / (1 - last);

    if (!(length > 5))
        return 0;
    return sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length));
}

KERNEL static void rectified(size_t count, const real *restrict g, const real *restrict w,
                             real *restrict next, real *restrict m, real *restrict v,
                             struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_PLAIN, false);
}

KERNEL static void unrectified(size_t count, const real *restrict g, const real *restrict w,
                               real *restrict next, real *restrict m, real *restrict v,
                               struct adaptive s)
{
    for (size_t i = 0; i < count; i++) {
        real first = adaptive_first(m[i], g[i], &s);
        m[i] = first;
        v[i] = adaptive_second(v[i], first, g[i], &s, ADAPTIVE_PLAIN);
        next[i] = w[i] - s.rate * first;
    }
}

static void update(const struct piece *p)
{
    double factor = rectification(p->hyper[BETA2], p->step);

    if (factor > 0)
        rectified(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V],
                  adaptive_at(p->hyper, p->step, false, factor));
    else
        unrectified(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V],
                    adaptive_at(p->hyper, p->step, true, 1));
}

extern const struct optimizer REAL(radam);
const struct optimizer REAL(radam) = {
    .name = "radam",
    .summary = "Adam with a rectified rate: momentum first, adaptive once the variance is known",
    .formula = "m, v as adam;  r_inf = 2/(1-beta2) - 1;  r = r_inf - 2 t beta2^t/(1-beta2^t);  "
               "r > 5: w <- w - lr mh sqrt((r-4)(r-2) r_inf/((r_inf-4)(r_inf-2) r)) "
               "sqrt(1-beta2^t)/(sqrt(v) + eps);  else w <- w - lr mh;  mh = m/(1-beta1^t)",
    .source = "Liu et al. 2020, algorithm 2; PyTorch torch.optim.RAdam",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
