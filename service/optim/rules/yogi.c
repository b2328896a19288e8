/* yogi: the second moment moves towards q^2 by steps that do not grow with itself.
 *
 *     m <- beta1 m + (1 - beta1) q;  v <- v - (1 - beta2) sign(v - q^2) q^2
 *     w <- w - lr mh / (sqrt(v / (1 - beta2^t)) + eps),  mh = m / (1 - beta1^t)
 *
 * v starts at 0 and is corrected as Adam's is; the paper has no correction.
 * Source: Zaheer et al. 2018, algorithm 2. */
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { M, V };

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    ADAPTIVE(0.999, 1e-3),
};

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
};

KERNEL static void yogi(size_t count, const real *restrict g, const real *restrict w,
                        real *restrict next, real *restrict m, real *restrict v, struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_YOGI, false);
}

static void update(const struct piece *p)
{
    yogi(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V],
         adaptive_at(p->hyper, p->step, true, 1));
}

extern const struct optimizer REAL(yogi);
const struct optimizer REAL(yogi) = {
    .name = "yogi",
    .summary = "Adam with a second moment that grows and shrinks by additive steps",
    .formula = "m <- beta1 m + (1-beta1) q;  v <- v - (1-beta2) sign(v - q^2) q^2;  "
               "w <- w - lr mh/(sqrt(vh) + eps), mh = m/(1-beta1^t), vh = v/(1-beta2^t)",
    .source = "Zaheer et al. 2018, algorithm 2",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
