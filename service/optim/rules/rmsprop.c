/* rmsprop: the gradient over the root of its mean square; centered, with momentum, or both.
 *
 *     n <- rho n + (1 - rho) q^2;  centered: m <- rho m + (1 - rho) q
 *     d = sqrt(x + eps)  [outside: sqrt(x) + eps],  x = n  [centered: max(n - m^2, 0)]
 *     momentum = 0:      w <- w - lr q/d
 *     momentum:          v <- momentum v + lr q/d;  w <- w - v       (MXNet, Graves)
 *     lr_in_momentum=false:  v <- momentum v + q/d;  w <- w - lr v   (PyTorch)
 *     then w is clipped to +-clip_weights, unless that is null
 *
 * Scalars instead of loops: sqrt(x + inside) + outside, one of the two being 0; the velocity takes
 * take q/d and the weights give * velocity, one of the two being lr and the other 1; no clipping is
 * clipping at infinity. n - m^2 is a variance: rounding must not make it negative. Source: Tieleman
 * & Hinton 2012, lecture 6.5; Graves 2013, eq. 38 to 41 (centered); MXNet 1.9.1, RMSProp; PyTorch,
 * torch.optim.RMSprop. */
#include "service/optim/rule.h"

enum { RHO = HYPER_OWN, EPS, EPS_MODE, MOMENTUM, CENTERED, LR_IN_MOMENTUM, CLIP_WEIGHTS };
enum eps_mode { INSIDE, OUTSIDE };
enum { N, M, V };

static const char *const eps_modes[] = {"inside", "outside", NULL};

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    [RHO] = FRACTION("rho", 0.9, "decay of the mean square"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite"),
    [EPS_MODE] = CHOICE("eps_mode", INSIDE, eps_modes,
                        "where eps is added: under the root (inside), after it (outside)"),
    [MOMENTUM] = FRACTION("momentum", 0, "how much of the last update is kept"),
    [CENTERED] = FLAG("centered", 0, "take the mean's square from the mean square: the variance"),
    [LR_IN_MOMENTUM] = FLAG("lr_in_momentum", 1, "the learning rate is frozen into the velocity"),
    /* 0 would clip every weight to 0, which nobody wants: the bound is positive in f32 too. */
    [CLIP_WEIGHTS] = OPTIONAL("clip_weights", 1e-30, 1e30, "largest size of a weight"),
};

static bool is_centered(const double *hyper)
{
    return hyper[CENTERED] != 0;
}

static bool has_momentum(const double *hyper)
{
    return hyper[MOMENTUM] != 0;
}

static const struct slot slots[] = {
    [N] = {.name = "n", .meaning = "mean square"},
    [M] = {.name = "m", .meaning = "mean", .needed = is_centered},
    [V] = {.name = "v", .meaning = "velocity", .needed = has_momentum},
};

/* The scalars of one step, computed in double and rounded once. */
struct scalars {
    real rho, rest, inside, outside, momentum, take, give, bound;
};

/* q / 0 = 0: with eps = 0, no gradient yet, or none whose square is more than 0, must not make NaN
 * or infinity. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

static inline real root(real square, const struct scalars *s)
{
    return real_sqrt(square + s->inside) + s->outside;
}

static inline real clipped(real value, real bound)
{
    value = value > bound ? bound : value;
    return value < -bound ? -bound : value;
}

/* At least 0, and infinite where both squares are: their difference is no number. */
static inline real variance(real square, real mean)
{
    real rest = square - mean * mean;

    return rest > 0 ? rest : square > (real)REAL_MAX ? square : 0;
}

KERNEL static void plain(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict n, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real square = s.rho * n[i] + s.rest * (g[i] * g[i]);
        n[i] = square;
        next[i] = clipped(w[i] - quotient(s.take * g[i], root(square, &s)), s.bound);
    }
}

KERNEL static void with_momentum(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict n, real *restrict v,
                                 struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real square = s.rho * n[i] + s.rest * (g[i] * g[i]);
        real velocity = s.momentum * v[i] + quotient(s.take * g[i], root(square, &s));
        n[i] = square;
        v[i] = velocity;
        next[i] = clipped(w[i] - s.give * velocity, s.bound);
    }
}

KERNEL static void centered(size_t count, const real *restrict g, const real *restrict w,
                            real *restrict next, real *restrict n, real *restrict m,
                            struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real square = s.rho * n[i] + s.rest * (g[i] * g[i]);
        real mean = s.rho * m[i] + s.rest * g[i];
        n[i] = square;
        m[i] = mean;
        next[i] =
            clipped(w[i] - quotient(s.take * g[i], root(variance(square, mean), &s)), s.bound);
    }
}

KERNEL static void centered_with_momentum(size_t count, const real *restrict g,
                                          const real *restrict w, real *restrict next,
                                          real *restrict n, real *restrict m, real *restrict v,
                                          struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real square = s.rho * n[i] + s.rest * (g[i] * g[i]);
        real mean = s.rho * m[i] + s.rest * g[i];
        real velocity =
            s.momentum * v[i] + quotient(s.take * g[i], root(variance(square, mean), &s));
        n[i] = square;
        m[i] = mean;
        v[i] = velocity;
        next[i] = clipped(w[i] - s.give * velocity, s.bound);
    }
}

static struct scalars scalars_of(const double *hyper, bool has_velocity)
{
    bool inside = hyper[EPS_MODE] == INSIDE;
    bool taken = hyper[LR_IN_MOMENTUM] != 0 || !has_velocity;

    return (struct scalars){
        .rho = (real)hyper[RHO],
        .rest = (real)(1 - hyper[RHO]),
        .inside = (real)(inside ? hyper[EPS] : 0),
        .outside = (real)(inside ? 0 : hyper[EPS]),
        .momentum = (real)hyper[MOMENTUM],
        .take = (real)(taken ? hyper[HYPER_LR] : 1),
        .give = (real)(taken ? 1 : hyper[HYPER_LR]),
        .bound = (real)(isnan(hyper[CLIP_WEIGHTS]) ? HUGE_VAL : hyper[CLIP_WEIGHTS]),
    };
}

static void update(const struct piece *p)
{
    void *n = p->slot[N], *m = p->slot[M], *v = p->slot[V];
    struct scalars scalars = scalars_of(p->hyper, v != NULL);

    if (m == NULL && v == NULL)
        plain(p->count, p->grad, p->param, p->next_param, n, scalars);
    else if (m == NULL)
        with_momentum(p->count, p->grad, p->param, p->next_param, n, v, scalars);
    else if (v == NULL)
        centered(p->count, p->grad, p->param, p->next_param, n, m, scalars);
    else
        centered_with_momentum(p->count, p->grad, p->param, p->next_param, n, m, v, scalars);
}

extern const struct optimizer REAL(rmsprop);
const struct optimizer REAL(rmsprop) = {
    .name = "rmsprop",
    .summary = "The gradient over the root of its mean square; centered, with momentum, or both",
    .formula = "n <- rho n + (1-rho) q^2;  centered: m <- rho m + (1-rho) q;  "
               "d = sqrt(max(n - m^2, 0) + eps)  (outside: sqrt(..) + eps);  "
               "v <- momentum v + lr q/d;  w <- w - v;  w clipped to +-clip_weights",
    .source = "Tieleman & Hinton 2012, lecture 6.5; Graves 2013, eq. 38-41; MXNet 1.9.1 RMSProp",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
