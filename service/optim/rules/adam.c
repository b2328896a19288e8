/* adam: adaptive moments, in its three forms, with AMSGrad.
 *
 *     m <- beta1 m + (1 - beta1) q;  v <- beta2 v + (1 - beta2) q^2
 *     outside:  w <- w - lr mh / (sqrt(v / (1 - beta2^t)) + eps),  mh = m / (1 - beta1^t)
 *               (the paper, PyTorch)
 *     hat:      w <- w - a m / (sqrt(v) + eps),  a = lr sqrt(1 - beta2^t) / (1 - beta1^t)
 *               (MXNet, Keras)
 *     inside:   w <- w - a m / sqrt(v + eps)     (objax)
 *     amsgrad:  x <- max(x, v) stands for v
 *
 * `outside` and `hat` are one loop: sqrt(v) * r + eps with r = 1 / sqrt(1 - beta2^t) or 1.
 * Source: Kingma & Ba 2015, algorithm 1 and the remark after it; Reddi et al. 2018, algorithm 2. */
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { EPS_MODE = ADAPTIVE_OWN, AMSGRAD };
enum eps_mode { OUTSIDE, HAT, INSIDE };
enum { M, V, X };

static const char *const eps_modes[] = {"outside", "hat", "inside", NULL};

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    ADAPTIVE(0.999, 1e-8),
    [EPS_MODE] = CHOICE("eps_mode", OUTSIDE, eps_modes,
                        "where eps is added: after the corrected root (outside), after the "
                        "uncorrected root (hat), under the root (inside)"),
    [AMSGRAD] = FLAG("amsgrad", 0, "divide by the largest second moment so far"),
};

static bool has_amsgrad(const double *hyper)
{
    return hyper[AMSGRAD] != 0;
}

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
    [X] = {.name = "x", .meaning = "largest second moment so far", .needed = has_amsgrad},
};

KERNEL static void plain_outside(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict m, real *restrict v,
                                 struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_PLAIN, false);
}

KERNEL static void plain_inside(size_t count, const real *restrict g, const real *restrict w,
                                real *restrict next, real *restrict m, real *restrict v,
                                struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_PLAIN, true);
}

KERNEL static void amsgrad_outside(size_t count, const real *restrict g, const real *restrict w,
                                   real *restrict next, real *restrict m, real *restrict v,
                                   real *restrict x, struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, x, s, ADAPTIVE_PLAIN, false);
}

KERNEL static void amsgrad_inside(size_t count, const real *restrict g, const real *restrict w,
                                  real *restrict next, real *restrict m, real *restrict v,
                                  real *restrict x, struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, x, s, ADAPTIVE_PLAIN, true);
}

static void update(const struct piece *p)
{
    struct adaptive s = adaptive_at(p->hyper, p->step, p->hyper[EPS_MODE] == OUTSIDE, 1);
    bool inside = p->hyper[EPS_MODE] == INSIDE;

    if (p->slot[X] == NULL)
        (inside ? plain_inside : plain_outside)(p->count, p->grad, p->param, p->next_param,
                                                p->slot[M], p->slot[V], s);
    else
        (inside ? amsgrad_inside : amsgrad_outside)(p->count, p->grad, p->param, p->next_param,
                                                    p->slot[M], p->slot[V], p->slot[X], s);
}

extern const struct optimizer REAL(adam);
const struct optimizer REAL(adam) = {
    .name = "adam",
    .summary = "Adaptive moments; eps_mode picks the paper's, MXNet's or objax's form; AMSGrad",
    .formula = "m <- beta1 m + (1-beta1) q;  v <- beta2 v + (1-beta2) q^2;  "
               "w <- w - lr mh/(sqrt(vh) + eps), mh = m/(1-beta1^t), vh = v/(1-beta2^t)",
    .source = "Kingma & Ba 2015, algorithm 1; Reddi et al. 2018, algorithm 2",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
