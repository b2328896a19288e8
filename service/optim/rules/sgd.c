/* sgd: gradient descent with MXNet's momentum.
 *
 *     v <- momentum v - lr q;  w <- w + v        (momentum 0: w <- w - lr q, no state)
 *
 * The learning rate is frozen into v, so that a change of lr acts on new gradients only; `momentum`
 * is the form with lr outside. Source: MXNet 1.9.1, sgd_mom_update; Polyak 1964. */
#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN };

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [MOMENTUM] = FRACTION("momentum", 0, "how much of the last update is kept"),
};

static bool has_momentum(const double *hyper)
{
    return hyper[MOMENTUM] != 0;
}

static const struct slot slots[] = {
    {.name = "v", .meaning = "velocity, with the learning rate in it", .needed = has_momentum},
};

KERNEL static void plain(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real lr)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] - lr * g[i];
}

KERNEL static void with_momentum(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict v, real lr, real momentum)
{
    for (size_t i = 0; i < count; i++) {
        real velocity = momentum * v[i] - lr * g[i];
        v[i] = velocity;
        next[i] = w[i] + velocity;
    }
}

static void update(const struct piece *piece)
{
    real lr = (real)piece->hyper[HYPER_LR];

    if (piece->slot[0] == NULL)
        plain(piece->count, piece->grad, piece->param, piece->next_param, lr);
    else
        with_momentum(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0],
                      lr, (real)piece->hyper[MOMENTUM]);
}

extern const struct optimizer REAL(sgd);
const struct optimizer REAL(sgd) = {
    .name = "sgd",
    .summary = "Stochastic gradient descent, with momentum if wanted (learning rate inside it)",
    .formula = "v <- momentum v - lr q;  w <- w + v  (momentum 0: w <- w - lr q)",
    .source = "MXNet 1.9.1 sgd_mom_update; Polyak 1964, eq. 9",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
