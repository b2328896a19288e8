/* dcasgd: asynchronous gradient descent that corrects gradients for their delay.
 *
 *     v <- momentum v - lr (q + lambda q^2 (w - w_base));  w <- w + v
 *
 * The gradient was computed at w_base; lambda q^2 stands for the diagonal of the Hessian, which
 * takes it to w. compensate=pulled: w_base is what the worker really pulled (the paper), where its
 * contribution names that revision, and w where it does not: no correction. compensate=previous:
 * the weights before the last update (MXNet), w itself at the first.
 *
 * w is what a rule is given: after decoupled decay, which w_base is before, so with that mode
 * w - w_base has the decay of this step in it. The square is taken in two factors with the
 * difference between them, so that a large q with w = w_base does not make infinity * 0.
 * Source: Zheng et al. 2017, eq. 10 and algorithm 2; MXNet 1.9.1, DCASGD. */
#include <string.h>

#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN, LAMBDA, COMPENSATE, REVISIONS };
enum compensate { PULLED, PREVIOUS };
enum { V, P };

static const char *const compensations[] = {"pulled", "previous", NULL};

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [MOMENTUM] = FRACTION("momentum", 0, "how much of the last update is kept"),
    [LAMBDA] = NUMBER("lambda", 0.04, 0, 1e30, "strength of the correction"),
    [COMPENSATE] = CHOICE("compensate", PULLED, compensations,
                          "for the way from: the weights the gradient was computed at (pulled), "
                          "the weights before the last update (previous)"),
    [REVISIONS] = WHOLE("revisions", 16, 1, BASES_MAX, "revisions",
                        "how many steps old a gradient may be (pulled): so many are kept"),
};

static bool has_momentum(const double *hyper)
{
    return hyper[MOMENTUM] != 0;
}

static bool keeps_previous(const double *hyper)
{
    return hyper[COMPENSATE] == PREVIOUS;
}

static size_t bases(const double *hyper)
{
    return hyper[COMPENSATE] == PULLED ? (size_t)hyper[REVISIONS] : 0;
}

static const struct slot slots[] = {
    [V] = {.name = "v",
           .meaning = "velocity, with the learning rate in it",
           .needed = has_momentum},
    [P] = {.name = "p",
           .meaning = "weights before the last update",
           .needed = keeps_previous,
           .starts_as_weights = true},
};

static inline real corrected(real gradient, real way, real lambda)
{
    return gradient + lambda * gradient * way * gradient;
}

/* base and w may be the same: both are only read. */
KERNEL static void plain(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, const real *restrict base, real lr, real lambda)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] - lr * corrected(g[i], w[i] - base[i], lambda);
}

KERNEL static void with_momentum(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, const real *restrict base, real *restrict v,
                                 real lr, real lambda, real momentum)
{
    for (size_t i = 0; i < count; i++) {
        real velocity = momentum * v[i] - lr * corrected(g[i], w[i] - base[i], lambda);
        v[i] = velocity;
        next[i] = w[i] + velocity;
    }
}

static void update(const struct piece *p)
{
    const double *hyper = p->hyper;
    const void *base = p->base == NULL ? p->last : p->base;
    real lr = (real)hyper[HYPER_LR], lambda = (real)hyper[LAMBDA];

    if (p->slot[P] != NULL)
        base = p->slot[P];
    if (p->slot[V] == NULL)
        plain(p->count, p->grad, p->param, p->next_param, base, lr, lambda);
    else
        with_momentum(p->count, p->grad, p->param, p->next_param, base, p->slot[V], lr, lambda,
                      (real)hyper[MOMENTUM]);
    if (p->slot[P] != NULL) /* the piece is in cache: this costs only the writing */
        memcpy(p->slot[P], p->last, p->count * sizeof(real));
}

extern const struct optimizer REAL(dcasgd);
const struct optimizer REAL(dcasgd) = {
    .name = "dcasgd",
    .summary = "Asynchronous gradient descent that corrects gradients for their delay",
    .formula = "v <- momentum v - lr (q + lambda q^2 (w - w_base));  w <- w + v",
    .source = "Zheng et al. 2017, eq. 10 and algorithm 2; MXNet 1.9.1 DCASGD",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .bases = bases,
    .lazy_rows = true,
    .update = update,
};
