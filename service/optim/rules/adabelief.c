/* adabelief: steps are large where gradients do what the first moment foretold.
 *
 *     m <- beta1 m + (1 - beta1) q;  s <- beta2 s + (1 - beta2) (q - m)^2 + eps
 *     w <- w - lr mh / (sqrt(s / (1 - beta2^t)) + eps),  mh = m / (1 - beta1^t)
 *
 * eps stands twice, as in the paper: in s, where it adds up, and beside the root. In (q - m) m is
 * the new one. Source: Zhuang et al. 2020, algorithm 2. */
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { M, S };

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0, DECAY_L2),
    ADAPTIVE(0.999, 1e-16),
};

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [S] = {.name = "s", .meaning = "variance about the first moment"},
};

KERNEL static void belief(size_t count, const real *restrict g, const real *restrict w,
                          real *restrict next, real *restrict m, real *restrict v,
                          struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_BELIEF, false);
}

static void update(const struct piece *p)
{
    belief(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[S],
           adaptive_at(p->hyper, p->step, true, 1));
}

extern const struct optimizer REAL(adabelief);
const struct optimizer REAL(adabelief) = {
    .name = "adabelief",
    .summary = "Adam with the gradient's variance about its own average as second moment",
    .formula = "m <- beta1 m + (1-beta1) q;  s <- beta2 s + (1-beta2) (q - m)^2 + eps;  "
               "w <- w - lr mh/(sqrt(sh) + eps), mh = m/(1-beta1^t), sh = s/(1-beta2^t)",
    .source = "Zhuang et al. 2020, algorithm 2",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
