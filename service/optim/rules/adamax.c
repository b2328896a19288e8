/* adamax: adam with the largest gradient, fading, in place of the root of the mean square.
 *
 *     m <- beta1 m + (1 - beta1) q
 *     outside:  u <- max(beta2 u, |q|);        w <- w - lr / (1 - beta1^t) m / (u + eps)
 *     inside:   u <- max(beta2 u, |q| + eps);  w <- w - lr / (1 - beta1^t) m / u      (PyTorch)
 *
 * One loop for both: |q| + inside and u + outside, one of the two being 0. 0/0 = 0: the paper has
 * no eps (eps = 0), and MXNet 1.9.1 makes NaN of a gradient that is 0 from the start. Source:
 * Kingma & Ba 2015, algorithm 2. */
#include "service/optim/rule.h"

enum { BETA1 = HYPER_OWN, BETA2, EPS, EPS_MODE };
enum eps_mode { OUTSIDE, INSIDE };
enum { M, U };

static const char *const eps_modes[] = {"outside", "inside", NULL};

static const struct hyper hypers[] = {
    LR(0.002),
    WEIGHT_DECAY(0, DECAY_L2),
    [BETA1] = FRACTION("beta1", 0.9, "decay of the first moment"),
    [BETA2] = FRACTION("beta2", 0.999, "decay of the largest gradient"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite"),
    [EPS_MODE] = CHOICE("eps_mode", OUTSIDE, eps_modes,
                        "where eps is added: to u in the quotient (outside), to the size of the "
                        "gradient (inside)"),
};

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [U] = {.name = "u", .meaning = "largest gradient, fading"},
};

/* The scalars of one step, computed in double and rounded once. */
struct scalars {
    real beta1, rest1, beta2, rate, inside, outside;
};

/* m / 0 = 0: u = 0 where no gradient has come yet. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

static inline real magnitude(real value)
{
    real other = 0 - value;

    return value > other ? value : other;
}

KERNEL static void adapt(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict m, real *restrict u, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real first = s.beta1 * m[i] + s.rest1 * g[i];
        real faded = s.beta2 * u[i], size = magnitude(g[i]) + s.inside;
        real largest = faded > size ? faded : size;
        m[i] = first;
        u[i] = largest;
        next[i] = w[i] - quotient(s.rate * first, largest + s.outside);
    }
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;
    bool inside = hyper[EPS_MODE] == INSIDE;
    struct scalars scalars = {
        .beta1 = (real)hyper[BETA1],
        .rest1 = (real)(1 - hyper[BETA1]),
        .beta2 = (real)hyper[BETA2],
        .rate = (real)(hyper[HYPER_LR] / (1 - power(hyper[BETA1], piece->step))),
        .inside = (real)(inside ? hyper[EPS] : 0),
        .outside = (real)(inside ? 0 : hyper[EPS]),
    };

    adapt(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[M],
          piece->slot[U], scalars);
}

extern const struct optimizer REAL(adamax);
const struct optimizer REAL(adamax) = {
    .name = "adamax",
    .summary = "Adam with the largest gradient, fading, in place of the mean square's root",
    .formula = "m <- beta1 m + (1-beta1) q;  u <- max(beta2 u, |q|)  (inside: |q| + eps);  "
               "w <- w - lr/(1-beta1^t) m/(u + eps)  (inside: m/u)",
    .source = "Kingma & Ba 2015, algorithm 2",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
