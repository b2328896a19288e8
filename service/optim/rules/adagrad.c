/* adagrad: rates that fall with the squares seen so far.
 *
 *     h <- h + q^2
 *     inside:   w <- w - lr' q / sqrt(h + eps)      (MXNet)
 *     outside:  w <- w - lr' q / (sqrt(h) + eps)    (the paper's code, PyTorch)
 *     lr' = lr / (1 + (t-1) lr_decay)
 *
 * One loop for both: sqrt(h + inside) + outside, one of the two being 0. h starts at
 * initial_accumulator. Source: Duchi, Hazan & Singer 2011, figure 1, diagonal form; MXNet 1.9.1,
 * AdaGrad; PyTorch torch.optim.Adagrad for lr_decay. */
#include "service/optim/rule.h"

enum { EPS = HYPER_OWN, EPS_MODE, INITIAL_ACCUMULATOR, LR_DECAY };
enum eps_mode { INSIDE, OUTSIDE };

static const char *const eps_modes[] = {"inside", "outside", NULL};

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [EPS] = NUMBER("eps", 1e-7, 0, 1e30, "keeps the quotient finite"),
    [EPS_MODE] = CHOICE("eps_mode", INSIDE, eps_modes,
                        "where eps is added: under the root (inside), after it (outside)"),
    [INITIAL_ACCUMULATOR] =
        NUMBER("initial_accumulator", 0, 0, 1e30, "what the sum of squares starts at"),
    [LR_DECAY] = NUMBER("lr_decay", 0, 0, 1e30, "lr is divided by 1 + (t-1) lr_decay"),
};

static const struct slot slots[] = {
    {.name = "h", .meaning = "sum of squares", .initial = INITIAL_ACCUMULATOR},
};

/* q / 0 = 0: with eps = 0, no gradient yet, or none whose square is more than 0, must not make NaN
 * or infinity. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

KERNEL static void adapt(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict h, real lr, real inside, real outside)
{
    for (size_t i = 0; i < count; i++) {
        real sum = h[i] + g[i] * g[i];
        h[i] = sum;
        next[i] = w[i] - quotient(lr * g[i], real_sqrt(sum + inside) + outside);
    }
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;
    double lr = hyper[HYPER_LR] / (1 + (double)(piece->step - 1) * hyper[LR_DECAY]);
    bool inside = hyper[EPS_MODE] == INSIDE;

    adapt(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[0], (real)lr,
          (real)(inside ? hyper[EPS] : 0), (real)(inside ? 0 : hyper[EPS]));
}

extern const struct optimizer REAL(adagrad);
const struct optimizer REAL(adagrad) = {
    .name = "adagrad",
    .summary = "Adaptive rates from the sum of squares; eps_mode picks MXNet's or PyTorch's form",
    .formula = "h <- h + q^2;  w <- w - lr' q/sqrt(h + eps)  (outside: sqrt(h) + eps);  "
               "lr' = lr/(1 + (t-1) lr_decay)",
    .source = "Duchi, Hazan & Singer 2011, figure 1; MXNet 1.9.1 AdaGrad",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
