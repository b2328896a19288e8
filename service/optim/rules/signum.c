/* signum: steps of one size, along the sign of the mean gradient.
 *
 *     m <- momentum m + (1 - momentum) q;  w <- (1 - lr wd_lh) w - lr sign(m),  sign(0) = 0
 *     momentum = 0, SignSGD:  w <- (1 - lr (weight_decay + wd_lh)) w - lr sign(c)
 *
 * Without momentum L2 decay does not go through the sign, where it would be a matter of all or
 * nothing: so the rule gets c and decays by itself (mode l2; in the other modes weight_decay is 0
 * here). wd_lh is the decoupled decay of Loshchilov & Hutter, which MXNet has beside the other.
 * Source: Bernstein et al. 2018, algorithms 1 and 2; MXNet 1.9.1, signsgd_update and
 * signum_update. */
#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN, WD_LH };

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY_OWN(0),
    [MOMENTUM] = FRACTION("momentum", 0.9, "decay of the mean; 0: signs of the gradient itself"),
    [WD_LH] = NUMBER("wd_lh", 0, 0, 1e30, "decoupled decay: weights shrink by lr * wd_lh"),
};

static bool has_momentum(const double *hyper)
{
    return hyper[MOMENTUM] != 0;
}

static const struct slot slots[] = {
    {.name = "m", .meaning = "mean gradient", .needed = has_momentum},
};

/* rate * sign(value) */
static inline real along(real value, real rate)
{
    return value > 0 ? rate : value < 0 ? -rate : 0;
}

KERNEL static void plain(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real lr, real keep)
{
    for (size_t i = 0; i < count; i++)
        next[i] = keep * w[i] - along(g[i], lr);
}

KERNEL static void with_momentum(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict m, real lr, real keep,
                                 real decay, real momentum, real rest)
{
    for (size_t i = 0; i < count; i++) {
        real mean = momentum * m[i] + rest * (g[i] + decay * w[i]);
        m[i] = mean;
        next[i] = keep * w[i] - along(mean, lr);
    }
}

/* m with momentum 0, for a step that overrides it: the next finds it there. */
KERNEL static void remember(size_t count, const real *restrict g, const real *restrict w,
                            real *restrict m, real decay)
{
    for (size_t i = 0; i < count; i++)
        m[i] = g[i] + decay * w[i];
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;
    double lr = hyper[HYPER_LR], decay = hyper[HYPER_WEIGHT_DECAY], momentum = hyper[MOMENTUM];

    if (momentum == 0) {
        plain(piece->count, piece->grad, piece->param, piece->next_param, (real)lr,
              (real)(1 - lr * (decay + hyper[WD_LH])));
        if (piece->slot[0] != NULL)
            remember(piece->count, piece->grad, piece->param, piece->slot[0], (real)decay);
    } else {
        with_momentum(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0],
                      (real)lr, (real)(1 - lr * hyper[WD_LH]), (real)decay, (real)momentum,
                      (real)(1 - momentum));
    }
}

extern const struct optimizer REAL(signum);
const struct optimizer REAL(signum) = {
    .name = "signum",
    .summary = "Steps of one size along the sign of the mean gradient; SignSGD without momentum",
    .formula = "m <- momentum m + (1-momentum) q;  w <- (1 - lr wd_lh) w - lr sign(m)  "
               "(momentum 0: w <- (1 - lr (weight_decay + wd_lh)) w - lr sign(c))",
    .source = "Bernstein et al. 2018, algorithms 1-2; MXNet 1.9.1 signum_update",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .decays = true,
    .lazy_rows = true,
    .update = update,
};
