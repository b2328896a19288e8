/* ftrl: follow the proximally regularised leader; L1 that makes weights exactly 0.
 *
 *     s = (sqrt(n + c^2) - sqrt(n)) / lr;  z <- z + c - s w;  n <- n + c^2
 *     w = 0 where |z| <= lambda1,
 *         else (sign(z) lambda1 - z) / ((beta + sqrt(n)) / lr + weight_decay)
 *
 * weight_decay is the formula's own L2 term in mode l2. n starts at initial_accumulator.
 *
 * In f32 too the loop is in double: z + c - s w, the difference of roots and |z| - lambda1 all
 * cancel, and a weight near the threshold would be made of little but their roundings. It costs two
 * roots; there is one quotient, in `real`, with 1/lr multiplied into its numerator. n stays finite,
 * as infinity less infinity is no number.
 *
 * lr = 0 has no formula, both quotients are infinite; such a step, or one whose 1/lr is infinite,
 * leaves weights and state as they are. Weights follow from z and n: what a session starts with, or
 * is given later, fades only through s w. Source: McMahan et al. 2013, algorithm 1; MXNet 1.9.1,
 * ftrl_update. */
#include <float.h>
#include <string.h>

#include "service/optim/rule.h"

enum { LAMBDA1 = HYPER_OWN, BETA, INITIAL_ACCUMULATOR };
enum { Z, N };

/* The largest `real`. */
#define SUM_MAX (REAL_BITS == 64 ? DBL_MAX : (double)FLT_MAX)

static const struct hyper hypers[] = {
    LR(0.1),
    WEIGHT_DECAY_OWN(0),
    [LAMBDA1] = NUMBER("lambda1", 0.01, 0, 1e30, "L1 regularisation: how large z must be"),
    [BETA] = NUMBER("beta", 1, 0, 1e30, "smooths the rate of each weight: lr / (beta + sqrt n)"),
    [INITIAL_ACCUMULATOR] =
        NUMBER("initial_accumulator", 0, 0, 1e30, "what the sum of squares starts at"),
};

static const struct slot slots[] = {
    [Z] = {.name = "z", .meaning = "sum of gradients, less what the weights make up for"},
    [N] = {.name = "n", .meaning = "sum of squares", .initial = INITIAL_ACCUMULATOR},
};

/* x / 0 = 0: no gradient yet, or none whose square is more than 0. */
static inline real quotient(real numerator, real denominator)
{
    return denominator == 0 ? 0 : numerator / denominator;
}

/* The scalars of one step: base is beta + lr weight_decay. */
struct scalars {
    double lr, per_lr, lambda1, base;
};

KERNEL static void follow(size_t count, const real *restrict g, const real *restrict w,
                          real *restrict next, real *restrict z, real *restrict n, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        double c = (double)g[i], last = (double)n[i], sum = last + c * c;
        sum = sum < SUM_MAX ? sum : SUM_MAX;
        double root = sqrt(sum), rise = (root - sqrt(last)) * s.per_lr;
        double leader = (double)z[i] + c - rise * (double)w[i];
        double over = (leader > 0 ? leader : 0 - leader) - s.lambda1;
        real size = quotient((real)(s.lr * (over > 0 ? over : 0)), (real)(s.base + root));
        z[i] = (real)leader;
        n[i] = (real)sum;
        next[i] = leader > 0 ? 0 - size : size; /* 0 - 0 is 0 */
    }
}

static void update(const struct piece *piece)
{
    const double *hyper = piece->hyper;
    double lr = hyper[HYPER_LR];
    struct scalars s = {.lr = lr,
                        .per_lr = 1 / lr,
                        .lambda1 = hyper[LAMBDA1],
                        .base = hyper[BETA] + lr * hyper[HYPER_WEIGHT_DECAY]};

    if (isfinite((real)s.per_lr))
        follow(piece->count, piece->grad, piece->param, piece->next_param, piece->slot[Z],
               piece->slot[N], s);
    else
        memcpy(piece->next_param, piece->param, piece->count * sizeof(real));
}

extern const struct optimizer REAL(ftrl);
const struct optimizer REAL(ftrl) = {
    .name = "ftrl",
    .summary = "Follow the proximally regularised leader: L1 with weights that are exactly 0",
    .formula = "s = (sqrt(n + c^2) - sqrt(n))/lr;  z <- z + c - s w;  n <- n + c^2;  w = 0 if "
               "|z| <= lambda1, else (sign(z) lambda1 - z)/((beta + sqrt(n))/lr + weight_decay)",
    .source = "McMahan et al. 2013, algorithm 1; MXNet 1.9.1 ftrl_update",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .decays = true,
    .lazy_rows = true,
    .update = update,
};
