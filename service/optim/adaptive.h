/* What the rules of Adam's family share: their first hyperparameters, the scalars of a step, one
 * element's moments and quotient, and the loop over them. A rule's KERNEL calls the loop with
 * constants for `kind`, `inside` and a NULL x, so that the compiler drops what is not asked for. */
#ifndef DESCENT_OPTIM_ADAPTIVE_H
#define DESCENT_OPTIM_ADAPTIVE_H

#include <math.h>

#include "service/kernel/real.h"
#include "service/optim/declare.h"
#include "service/optim/optimizer.h"

enum { BETA1 = HYPER_OWN, BETA2, EPS, ADAPTIVE_OWN };

#define ADAPTIVE(beta2_, eps_)                                                                     \
    [BETA1] = FRACTION("beta1", 0.9, "decay of the first moment"),                                 \
    [BETA2] = FRACTION("beta2", beta2_, "decay of the second moment"),                             \
    [EPS] = NUMBER("eps", eps_, 0, 1e30, "keeps the quotient finite")

/* How the second moment v follows q and the new first moment m. */
enum adaptive_kind {
    ADAPTIVE_PLAIN,  /* v <- beta2 v + (1 - beta2) q^2 */
    ADAPTIVE_YOGI,   /* v <- v - (1 - beta2) sign(v - q^2) q^2 */
    ADAPTIVE_BELIEF, /* v <- beta2 v + (1 - beta2) (q - m)^2 + eps */
};

/* The scalars of one step, computed in double and rounded once: w <- w - rate m / (root sqrt(v) +
 * eps). */
struct adaptive {
    real beta1, rest1, beta2, rest2, rate, root, eps;
};

/* outside: eps is added to the corrected root, and root is its correction; else all of the
 * correction is in the rate. factor: of the rate. */
static inline struct adaptive adaptive_at(const double *hyper, uint64_t step, bool outside,
                                          double factor)
{
    double correction1 = 1 - power(hyper[BETA1], step);
    double correction2 = sqrt(1 - power(hyper[BETA2], step));

    return (struct adaptive){
        .beta1 = (real)hyper[BETA1],
        .rest1 = (real)(1 - hyper[BETA1]),
        .beta2 = (real)hyper[BETA2],
        .rest2 = (real)(1 - hyper[BETA2]),
        .rate = (real)(hyper[HYPER_LR] / correction1 * (outside ? 1 : correction2) * factor),
        .root = (real)(outside ? 1 / correction2 : 1),
        .eps = (real)hyper[EPS],
    };
}

static inline real adaptive_first(real m, real g, const struct adaptive *s)
{
    return s->beta1 * m + s->rest1 * g;
}

/* Yogi by comparisons: where v and q^2 are both too large for a `real` their difference is none. */
static inline real adaptive_second(real v, real first, real g, const struct adaptive *s,
                                   enum adaptive_kind kind)
{
    real square = kind == ADAPTIVE_BELIEF ? (g - first) * (g - first) : g * g;
    real step = s->rest2 * square;

    if (kind == ADAPTIVE_YOGI)
        return v > square ? v - step : v < square ? v + step : v;
    return kind == ADAPTIVE_BELIEF ? s->beta2 * v + step + s->eps : s->beta2 * v + step;
}

static inline real adaptive_denominator(real second, const struct adaptive *s, bool inside)
{
    return inside ? real_sqrt(second + s->eps) : real_sqrt(second) * s->root + s->eps;
}

/* n / d with n / 0 = 0: where eps = 0, no gradient yet or one whose square vanishes must make
 * neither NaN nor infinity. 0 without a sign: a rate of 0 leaves even a weight of -0 as it is. */
static inline real adaptive_quotient(real numerator, real denominator)
{
    return ((numerator == 0) | (denominator == 0)) ? 0 : numerator / denominator;
}

/* x: the largest second moment so far, which then stands for v; NULL: none is kept. */
static inline void adaptive_loop(size_t count, const real *restrict g, const real *restrict w,
                                 real *restrict next, real *restrict m, real *restrict v,
                                 real *restrict x, const struct adaptive s, enum adaptive_kind kind,
                                 bool inside)
{
    for (size_t i = 0; i < count; i++) {
        real first = adaptive_first(m[i], g[i], &s);
        real second = adaptive_second(v[i], first, g[i], &s, kind);
        m[i] = first;
        v[i] = second;
        if (x != NULL) {
            second = x[i] > second ? x[i] : second;
            x[i] = second;
        }
        next[i] =
            w[i] - adaptive_quotient(s.rate * first, adaptive_denominator(second, &s, inside));
    }
}

#endif
