/* ftml: follow the moving leader: adaptive rates in the form of a regularised leader.
 *
 *     v <- beta2 v + (1 - beta2) q^2;  d' = (1 - beta1^t) / lr (sqrt(v / (1 - beta2^t)) + eps)
 *     z <- beta1 z + (1 - beta1) q - (d' - beta1 d) w;  d <- d';  w = -z / d'
 *
 * The same in other order: y = beta1 (z + d w) + (1 - beta1) q;  z <- y - d' w;  w <- w - y/d'.
 * z + d w is 0 but for rounding while nobody else moves the weights, so y is as small as the
 * gradient. As it stands the formula makes w anew from two large numbers at each step, and weights
 * wander by their rounding where the gradient is 0. In f32 too the loop is in double, but for root
 * and quotient, as z and d w cancel.
 *
 * lr = 0, or so small that d' is infinite: v goes on, weights, z and d stay, so that z + d w, what
 * the next step needs, stays too. Source: Zheng & Kwok 2017, algorithm 1; MXNet 1.9.1,
 * ftml_update. */
#include <float.h>

#include "service/optim/rule.h"

enum { BETA1 = HYPER_OWN, BETA2, EPS };
enum { D, V, Z };

/* The largest `real`: with an infinite v, d w would be no number where w is 0. */
#define SQUARE_MAX (REAL_BITS == 64 ? DBL_MAX : (double)FLT_MAX)

static const struct hyper hypers[] = {
    LR(0.0025),
    WEIGHT_DECAY(0, DECAY_L2),
    [BETA1] = FRACTION("beta1", 0.6, "decay of the leader"),
    [BETA2] = FRACTION("beta2", 0.999, "decay of the second moment"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite"),
};

static const struct slot slots[] = {
    [D] = {.name = "d", .meaning = "curvature: one over the rate of each weight"},
    [V] = {.name = "v", .meaning = "second moment"},
    [Z] = {.name = "z", .meaning = "leader: -d w"},
};

/* The scalars of one step: d' = scale sqrt(v) + offset. */
struct scalars {
    double beta1, rest1, beta2, rest2, scale, offset;
};

/* y / 0 = 0: with eps = 0, no gradient yet, or none whose square is more than 0, must not make NaN
 * or infinity. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

KERNEL static void follow(size_t count, const real *restrict g, const real *restrict w,
                          real *restrict next, real *restrict d, real *restrict v, real *restrict z,
                          struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        double gradient = (double)g[i], weight = (double)w[i];
        double second = s.beta2 * (double)v[i] + s.rest2 * (gradient * gradient);
        second = second < SQUARE_MAX ? second : SQUARE_MAX;
        double curvature = s.scale * (double)real_sqrt((real)second) + s.offset;
        double slope = s.beta1 * ((double)z[i] + (double)d[i] * weight) + s.rest1 * gradient;
        v[i] = (real)second;
        d[i] = (real)curvature;
        z[i] = (real)(slope - curvature * weight);
        next[i] = w[i] - quotient((real)slope, (real)curvature);
    }
}

KERNEL static void stay(size_t count, const real *restrict g, const real *restrict w,
                        real *restrict next, real *restrict v, real beta2, real rest2)
{
    for (size_t i = 0; i < count; i++) {
        v[i] = beta2 * v[i] + rest2 * (g[i] * g[i]);
        next[i] = w[i];
    }
}

static void update(const struct piece *p)
{
    const double *hyper = p->hyper;
    double scale = (1 - power(hyper[BETA1], p->step)) / hyper[HYPER_LR];
    struct scalars s = {
        .beta1 = hyper[BETA1],
        .rest1 = 1 - hyper[BETA1],
        .beta2 = hyper[BETA2],
        .rest2 = 1 - hyper[BETA2],
        .scale = scale / sqrt(1 - power(hyper[BETA2], p->step)),
        .offset = scale * hyper[EPS],
    };

    if (hyper[HYPER_LR] != 0 && isfinite((real)s.scale) && isfinite((real)s.offset))
        follow(p->count, p->grad, p->param, p->next_param, p->slot[D], p->slot[V], p->slot[Z], s);
    else
        stay(p->count, p->grad, p->param, p->next_param, p->slot[V], (real)s.beta2, (real)s.rest2);
}

extern const struct optimizer REAL(ftml);
const struct optimizer REAL(ftml) = {
    .name = "ftml",
    .summary = "Follow the moving leader: adaptive rates in the form of a regularised leader",
    .formula = "v <- beta2 v + (1-beta2) q^2;  "
               "d' = (1-beta1^t)/lr (sqrt(v/(1-beta2^t)) + eps);  "
               "z <- beta1 z + (1-beta1) q - (d' - beta1 d) w;  d <- d';  w = -z/d'",
    .source = "Zheng & Kwok 2017, algorithm 1; MXNet 1.9.1 ftml_update",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
