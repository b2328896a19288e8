/* lion: steps of one size, in the direction of an interpolated momentum's signs.
 *
 *     w <- w - lr sign(beta1 m + (1 - beta1) q),  sign(0) = 0;  m <- beta2 m + (1 - beta2) q
 *
 * The paper's + weight_decay w beside the sign is decoupled decay, the default mode here. The old m
 * stands in the sign. Source: Chen et al. 2023, algorithm 2. */
#include "service/optim/rule.h"

enum { BETA1 = HYPER_OWN, BETA2 };

static const struct hyper hypers[] = {
    LR(1e-4),
    WEIGHT_DECAY(0, DECAY_DECOUPLED),
    [BETA1] = FRACTION("beta1", 0.9, "share of the momentum in the direction"),
    [BETA2] = FRACTION("beta2", 0.99, "decay of the momentum"),
};

static const struct slot slots[] = {
    {.name = "m", .meaning = "momentum"},
};

struct scalars {
    real beta1, rest1, beta2, rest2, lr;
};

KERNEL static void lion(size_t count, const real *restrict g, const real *restrict w,
                        real *restrict next, real *restrict m, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real direction = s.beta1 * m[i] + s.rest1 * g[i];
        real step = direction > 0 ? s.lr : direction < 0 ? -s.lr : 0;
        m[i] = s.beta2 * m[i] + s.rest2 * g[i];
        next[i] = w[i] - step;
    }
}

static void update(const struct piece *p)
{
    const double *hyper = p->hyper;

    lion(p->count, p->grad, p->param, p->next_param, p->slot[0],
         (struct scalars){.beta1 = (real)hyper[BETA1],
                          .rest1 = (real)(1 - hyper[BETA1]),
                          .beta2 = (real)hyper[BETA2],
                          .rest2 = (real)(1 - hyper[BETA2]),
                          .lr = (real)hyper[HYPER_LR]});
}

extern const struct optimizer REAL(lion);
const struct optimizer REAL(lion) = {
    .name = "lion",
    .summary = "Evolved sign momentum: one slot, steps of size lr",
    .formula = "w <- (1 - lr weight_decay) w;  w <- w - lr sign(beta1 m + (1-beta1) q);  "
               "m <- beta2 m + (1-beta2) q",
    .source = "Chen et al. 2023, algorithm 2",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
