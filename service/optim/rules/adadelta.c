/* adadelta: steps in the unit of the weights, from the mean squares of gradients and of steps.
 *
 *     a <- rho a + (1 - rho) q^2;  u = sqrt(d + eps) / sqrt(a + eps) q
 *     d <- rho d + (1 - rho) u^2;  w <- w - lr u
 *
 * Two roots instead of the one of the quotient: q / sqrt(a + eps) is at most 1 / sqrt(1 - rho), so
 * that nothing overflows or fades whatever the sizes of a and d; the second root costs no time, the
 * loop waits for memory. Source: Zeiler 2012, algorithm 1; lr as PyTorch, torch.optim.Adadelta. */
#include "service/optim/rule.h"

enum { RHO = HYPER_OWN, EPS };
enum { A, D };

static const struct hyper hypers[] = {
    LR(1.0),
    WEIGHT_DECAY(0, DECAY_L2),
    [RHO] = FRACTION("rho", 0.9, "decay of both mean squares"),
    [EPS] = NUMBER("eps", 1e-6, 0, 1e30, "starts the steps: they stay 0 where it is 0"),
};

static const struct slot slots[] = {
    [A] = {.name = "a", .meaning = "mean square of gradients"},
    [D] = {.name = "d", .meaning = "mean square of steps"},
};

/* q / 0 = 0: with eps = 0, no gradient yet, or none whose square is more than 0, must not make NaN
 * or infinity. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

KERNEL static void adapt(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict a, real *restrict d, real lr, real rho,
                         real rest, real eps)
{
    for (size_t i = 0; i < count; i++) {
        real square = rho * a[i] + rest * (g[i] * g[i]);
        real step = real_sqrt(d[i] + eps) * quotient(g[i], real_sqrt(square + eps));
        a[i] = square;
        d[i] = rho * d[i] + rest * (step * step);
        next[i] = w[i] - lr * step;
    }
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;

    adapt(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[A],
          piece->slot[D], (real)hyper[HYPER_LR], (real)hyper[RHO], (real)(1 - hyper[RHO]),
          (real)hyper[EPS]);
}

extern const struct optimizer REAL(adadelta);
const struct optimizer REAL(adadelta) = {
    .name = "adadelta",
    .summary = "Steps in the unit of the weights, from mean squares of gradients and steps",
    .formula = "a <- rho a + (1-rho) q^2;  u = sqrt(d + eps)/sqrt(a + eps) q;  "
               "d <- rho d + (1-rho) u^2;  w <- w - lr u",
    .source = "Zeiler 2012, algorithm 1; PyTorch torch.optim.Adadelta",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
