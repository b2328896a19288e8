/* nadam: adam with Nesterov's momentum, whose coefficient follows a schedule.
 *
 *     mu_t = beta1 (1 - 0.5 * 0.96^(t schedule_decay));  P <- P mu_t;  P' = P mu_{t+1}
 *     m <- beta1 m + (1 - beta1) q;  v <- beta2 v + (1 - beta2) q^2
 *     mb = (1 - mu_t) q / (1 - P) + mu_{t+1} m / (1 - P')
 *     w <- w - lr mb / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * P, the product of the schedule so far, is a scalar of the session. It multiplies once a step, the
 * same for every tensor; MXNet 1.9.1 multiplies one P again for each tensor. Source: Dozat 2016,
 * section 3; PyTorch 2, torch.optim.NAdam. */
#include "service/kernel/elementary.h"
#include "service/optim/rule.h"

enum { BETA1 = HYPER_OWN, BETA2, EPS, SCHEDULE_DECAY };
enum { M, V };
enum { P };

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    [BETA1] = FRACTION("beta1", 0.9, "decay of the first moment; where its schedule ends"),
    [BETA2] = FRACTION("beta2", 0.999, "decay of the second moment"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite"),
    [SCHEDULE_DECAY] =
        NUMBER("schedule_decay", 0.004, 0, 1e30, "how fast momentum rises from half of beta1"),
};

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
};

static const struct scalar scalars[] = {
    [P] = {"P", "product of the momentum's schedule", 1},
};

/* The scalars of one step, computed in double and rounded once. */
struct rates {
    real beta1, rest1, beta2, rest2, of_gradient, of_moment, root, eps;
};

static double momentum_at(const double *hyper, double step)
{
    return hyper[BETA1] * (1 - 0.5 * elementary_power(0.96, step * hyper[SCHEDULE_DECAY]));
}

static void begin(const double *hyper, uint64_t step, double *scalar)
{
    scalar[P] *= momentum_at(hyper, (double)step);
}

/* x / 0 = 0: with eps = 0, no gradient yet, or none whose square is more than 0, must not make NaN
 * or infinity. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

KERNEL static void adapt(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict m, real *restrict v, struct rates s)
{
    for (size_t i = 0; i < count; i++) {
        real first = s.beta1 * m[i] + s.rest1 * g[i];
        real second = s.beta2 * v[i] + s.rest2 * (g[i] * g[i]);
        m[i] = first;
        v[i] = second;
        next[i] = w[i] - quotient(s.of_gradient * g[i] + s.of_moment * first,
                                  real_sqrt(second) * s.root + s.eps);
    }
}

static struct rates rates_at(const double *hyper, uint64_t step, double product)
{
    double now = momentum_at(hyper, (double)step), then = momentum_at(hyper, (double)step + 1);

    return (struct rates){
        .beta1 = (real)hyper[BETA1],
        .rest1 = (real)(1 - hyper[BETA1]),
        .beta2 = (real)hyper[BETA2],
        .rest2 = (real)(1 - hyper[BETA2]),
        .of_gradient = (real)(hyper[HYPER_LR] * (1 - now) / (1 - product)),
        .of_moment = (real)(hyper[HYPER_LR] * then / (1 - product * then)),
        .root = (real)(1 / sqrt(1 - power(hyper[BETA2], step))),
        .eps = (real)hyper[EPS],
    };
}

static void update(const struct piece *piece)
{
    adapt(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[M],
          piece->slot[V], rates_at(piece->hyper, piece->step, piece->scalar[P]));
}

extern const struct optimizer REAL(nadam);
const struct optimizer REAL(nadam) = {
    .name = "nadam",
    .summary = "Adam with Nesterov's momentum on a schedule",
    .formula = "mu_t = beta1 (1 - 0.5 * 0.96^(t schedule_decay));  P <- P mu_t;  "
               "P' = P mu_{t+1};  m <- beta1 m + (1-beta1) q;  v <- beta2 v + (1-beta2) q^2;  "
               "w <- w - lr ((1-mu_t) q/(1-P) + mu_{t+1} m/(1-P'))/(sqrt(v/(1-beta2^t)) + eps)",
    .source = "Dozat 2016, section 3; PyTorch torch.optim.NAdam",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .scalars = scalars,
    .scalar_count = COUNT_OF(scalars),
    .begin = begin,
    .lazy_rows = true,
    .update = update,
};
