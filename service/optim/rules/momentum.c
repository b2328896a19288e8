/* momentum: heavy ball or Nesterov with the learning rate outside, as objax and PyTorch.
 *
 *     v <- momentum v + (1 - dampening) q        (t = 1: v = q)
 *     w <- w - lr (nesterov ? q + momentum v : v)
 *
 * Source: PyTorch torch.optim.SGD; objax.optimizer.Momentum; Sutskever et al. 2013, eq. 3 and 4, in
 * PyTorch's form. */
#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN, NESTEROV, DAMPENING };

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [MOMENTUM] = FRACTION("momentum", 0.9, "how much of the velocity is kept"),
    [NESTEROV] = FLAG("nesterov", 0, "look ahead along the new velocity"),
    [DAMPENING] = NUMBER("dampening", 0, 0, 1, "share of the gradient kept out of the velocity"),
};

static const struct slot slots[] = {
    {.name = "v", .meaning = "velocity, without the learning rate"},
};

KERNEL static void heavy_ball(size_t count, const real *restrict g, const real *restrict w,
                              real *restrict next, real *restrict v, real lr, real keep, real take)
{
    for (size_t i = 0; i < count; i++) {
        real velocity = keep * v[i] + take * g[i];
        v[i] = velocity;
        next[i] = w[i] - lr * velocity;
    }
}

KERNEL static void nesterov(size_t count, const real *restrict g, const real *restrict w,
                            real *restrict next, real *restrict v, real lr, real momentum,
                            real keep, real take)
{
    for (size_t i = 0; i < count; i++) {
        real velocity = keep * v[i] + take * g[i];
        v[i] = velocity;
        next[i] = w[i] - lr * (g[i] + momentum * velocity);
    }
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;
    bool first = piece->step == 1;
    real keep = first ? 0 : (real)hyper[MOMENTUM];
    real take = first ? 1 : (real)(1 - hyper[DAMPENING]);

    if (hyper[NESTEROV] != 0)
        nesterov(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0],
                 (real)hyper[HYPER_LR], (real)hyper[MOMENTUM], keep, take);
    else
        heavy_ball(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0],
                   (real)hyper[HYPER_LR], keep, take);
}

extern const struct optimizer REAL(momentum);
const struct optimizer REAL(momentum) = {
    .name = "momentum",
    .summary = "Heavy-ball or Nesterov momentum with the learning rate outside the velocity",
    .formula = "v <- momentum v + (1 - dampening) q  (t = 1: v = q);  "
               "w <- w - lr (nesterov ? q + momentum v : v)",
    .source = "PyTorch torch.optim.SGD; Sutskever et al. 2013, eq. 3-4",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
