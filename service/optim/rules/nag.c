/* nag: Nesterov's accelerated gradient with the learning rate inside the velocity.
 *
 *     v <- momentum v - lr q;  w <- w + momentum v - lr q
 *
 * The weights that are served are the lookahead point: where the next gradient is to be computed.
 * As in `sgd` the learning rate is frozen into v. Source: MXNet 1.9.1, nag_mom_update; Sutskever et
 * al. 2013, eq. 3 and 4, in the variables of Bengio et al. 2013, section 3.5. */
#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN };

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [MOMENTUM] = FRACTION("momentum", 0.9, "how much of the last update is kept"),
};

static const struct slot slots[] = {
    {.name = "v", .meaning = "velocity, with the learning rate in it"},
};

KERNEL static void look_ahead(size_t count, const real *restrict g, const real *restrict w,
                              real *restrict next, real *restrict v, real lr, real momentum)
{
    for (size_t i = 0; i < count; i++) {
        real slope = lr * g[i];
        real velocity = momentum * v[i] - slope;
        v[i] = velocity;
        next[i] = w[i] + (momentum * velocity - slope);
    }
}

static void update(const struct piece *piece)
{
    look_ahead(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0],
               (real)piece->hyper[HYPER_LR], (real)piece->hyper[MOMENTUM]);
}

extern const struct optimizer REAL(nag);
const struct optimizer REAL(nag) = {
    .name = "nag",
    .summary = "Nesterov's accelerated gradient, learning rate inside the velocity",
    .formula = "v <- momentum v - lr q;  w <- w + momentum v - lr q",
    .source = "MXNet 1.9.1 nag_mom_update; Sutskever et al. 2013, eq. 3-4",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
