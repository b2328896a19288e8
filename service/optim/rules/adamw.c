/* adamw: Adam with the decay apart from the gradient.
 *
 *     w <- (1 - lr weight_decay) w, by the pipeline;  then adam, eps_mode outside:
 *     m <- beta1 m + (1 - beta1) q;  v <- beta2 v + (1 - beta2) q^2
 *     w <- w - lr mh / (sqrt(v / (1 - beta2^t)) + eps),  mh = m / (1 - beta1^t)
 *     amsgrad:  x <- max(x, v) stands for v
 *
 * The same numbers as adam with weight_decay_mode decoupled; a rule of its own for its defaults.
 * The decay is lr weight_decay, as in PyTorch (the paper scales it by the schedule alone).
 * Source: Loshchilov & Hutter 2019, algorithm 2; PyTorch torch.optim.AdamW. */
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { AMSGRAD = ADAPTIVE_OWN };
enum { M, V, X };

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY(0.01, DECAY_DECOUPLED),
    ADAPTIVE(0.999, 1e-8),
    [AMSGRAD] = FLAG("amsgrad", 0, "divide by the largest second moment so far"),
};

static bool has_amsgrad(const double *hyper)
{
    return hyper[AMSGRAD] != 0;
}

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
    [X] = {.name = "x", .meaning = "largest second moment so far", .needed = has_amsgrad},
};

KERNEL static void plain(size_t count, const real *restrict g, const real *restrict w,
                         real *restrict next, real *restrict m, real *restrict v, struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, NULL, s, ADAPTIVE_PLAIN, false);
}

KERNEL static void amsgrad(size_t count, const real *restrict g, const real *restrict w,
                           real *restrict next, real *restrict m, real *restrict v,
                           real *restrict x, struct adaptive s)
{
    adaptive_loop(count, g, w, next, m, v, x, s, ADAPTIVE_PLAIN, false);
}

static void update(const struct piece *p)
{
    struct adaptive s = adaptive_at(p->hyper, p->step, true, 1);

    if (p->slot[X] == NULL)
        plain(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V], s);
    else
        amsgrad(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V], p->slot[X], s);
}

extern const struct optimizer REAL(adamw);
const struct optimizer REAL(adamw) = {
    .name = "adamw",
    .summary = "Adam with decoupled weight decay; AMSGrad if wanted",
    .formula = "w <- (1 - lr weight_decay) w;  m <- beta1 m + (1-beta1) q;  "
               "v <- beta2 v + (1-beta2) q^2;  w <- w - lr mh/(sqrt(vh) + eps), "
               "mh = m/(1-beta1^t), vh = v/(1-beta2^t)",
    .source = "Loshchilov & Hutter 2019, algorithm 2; PyTorch torch.optim.AdamW",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .lazy_rows = true,
    .update = update,
};
