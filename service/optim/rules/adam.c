/* adam: adaptive moments, in its three forms, with AMSGrad.
 *
 *     m <- beta1 m + (1 - beta1) q;  v <- beta2 v + (1 - beta2) q^2
 *     outside:  w <- w - lr mh / (sqrt(v / (1 - beta2^t)) + eps),  mh = m / (1 - beta1^t)   (the
 * paper, PyTorch) hat:      w <- w - a m / (sqrt(v) + eps),  a = lr sqrt(1 - beta2^t) / (1 -
 * beta1^t)   (MXNet, Keras) inside:   w <- w - a m / sqrt(v + eps) (objax) amsgrad:  x <- max(x, v)
 * stands for v
 *
 * `outside` and `hat` are one loop: sqrt(v) * r + eps with r = 1 / sqrt(1 - beta2^t) or 1.
 * Source: Kingma & Ba 2015, algorithm 1 and the remark after it; Reddi et al. 2018, algorithm 2. */
#include "service/optim/rule.h"

enum { BETA1 = HYPER_OWN, BETA2, EPS, EPS_MODE, AMSGRAD };
enum eps_mode { OUTSIDE, HAT, INSIDE };
enum { M, V, X };

static const char *const eps_modes[] = {"outside", "hat", "inside", NULL};

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    [BETA1] = FRACTION("beta1", 0.9, "decay of the first moment"),
    [BETA2] = FRACTION("beta2", 0.999, "decay of the second moment"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite"),
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
    [M] = {"m", "first moment", NULL},
    [V] = {"v", "second moment", NULL},
    [X] = {"x", "largest second moment so far", has_amsgrad},
};

/* The scalars of one step, computed in double and rounded once. */
struct scalars {
    real beta1, rest1, beta2, rest2, rate, root, eps;
};

/* q / d with 0 / 0 = 0: eps = 0 and no gradient yet must not make NaN. */
static inline real quotient(real numerator, real denominator)
{
    return numerator == 0 ? 0 : numerator / denominator;
}

static inline real denominator(real second, const struct scalars *s, bool inside)
{
    return inside ? real_sqrt(second + s->eps) : real_sqrt(second) * s->root + s->eps;
}

static inline void plain_loop(size_t count, const real *restrict g, const real *restrict w,
                              real *restrict next, real *restrict m, real *restrict v,
                              const struct scalars scalars, bool inside)
{
    for (size_t i = 0; i < count; i++) {
        real first = scalars.beta1 * m[i] + scalars.rest1 * g[i];
        real second = scalars.beta2 * v[i] + scalars.rest2 * (g[i] * g[i]);
        m[i] = first;
        v[i] = second;
        next[i] = w[i] - quotient(scalars.rate * first, denominator(second, &scalars, inside));
    }
}

static inline void amsgrad_loop(size_t count, const real *restrict g, const real *restrict w,
                                real *restrict next, real *restrict m, real *restrict v,
                                real *restrict x, const struct scalars scalars, bool inside)
{
    for (size_t i = 0; i < count; i++) {
        real first = scalars.beta1 * m[i] + scalars.rest1 * g[i];
        real second = scalars.beta2 * v[i] + scalars.rest2 * (g[i] * g[i]);
        real largest = x[i] > second ? x[i] : second;
        m[i] = first;
        v[i] = second;
        x[i] = largest;
        next[i] = w[i] - quotient(scalars.rate * first, denominator(largest, &scalars, inside));
    }
}

KERNEL static void plain_outside(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict m, real *restrict v,
                                 struct scalars scalars)
{
    plain_loop(count, g, w, next, m, v, scalars, false);
}

KERNEL static void plain_inside(size_t count, const real *restrict g, const real *restrict w,
                                real *restrict next, real *restrict m, real *restrict v,
                                struct scalars scalars)
{
    plain_loop(count, g, w, next, m, v, scalars, true);
}

KERNEL static void amsgrad_outside(size_t count, const real *restrict g, const real *restrict w,
                                   real *restrict next, real *restrict m, real *restrict v,
                                   real *restrict x, struct scalars scalars)
{
    amsgrad_loop(count, g, w, next, m, v, x, scalars, false);
}

KERNEL static void amsgrad_inside(size_t count, const real *restrict g, const real *restrict w,
                                  real *restrict next, real *restrict m, real *restrict v,
                                  real *restrict x, struct scalars scalars)
{
    amsgrad_loop(count, g, w, next, m, v, x, scalars, true);
}

static struct scalars scalars_at(const double *hyper, uint64_t step)
{
    double correction1 = 1 - power(hyper[BETA1], step);
    double correction2 = sqrt(1 - power(hyper[BETA2], step));
    bool outside = hyper[EPS_MODE] == OUTSIDE;

    return (struct scalars){
        .beta1 = (real)hyper[BETA1],
        .rest1 = (real)(1 - hyper[BETA1]),
        .beta2 = (real)hyper[BETA2],
        .rest2 = (real)(1 - hyper[BETA2]),
        .rate = (real)(hyper[HYPER_LR] / correction1 * (outside ? 1 : correction2)),
        .root = (real)(outside ? 1 / correction2 : 1),
        .eps = (real)hyper[EPS],
    };
}

static void update(const struct piece *p)
{
    struct scalars scalars = scalars_at(p->hyper, p->step);
    bool inside = p->hyper[EPS_MODE] == INSIDE;

    if (p->slot[X] == NULL)
        (inside ? plain_inside : plain_outside)(p->count, p->grad, p->param, p->next_param,
                                                p->slot[M], p->slot[V], scalars);
    else
        (inside ? amsgrad_inside : amsgrad_outside)(p->count, p->grad, p->param, p->next_param,
                                                    p->slot[M], p->slot[V], p->slot[X], scalars);
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
    .update = update,
};
