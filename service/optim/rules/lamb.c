/* lamb: Adam's direction, and for each tensor a step as long as its weights.
 *
 *     m <- beta1 m + (1 - beta1) c;  v <- beta2 v + (1 - beta2) c^2
 *     u = mh / (sqrt(vh) + eps) + weight_decay w,  mh = m / (1 - beta1^t), vh = v / (1 - beta2^t)
 *         (bias_correction=false: mh = m, vh = v)
 *     r = clamp(norm(w), lower_bound, upper_bound) / norm(u),
 *         1 where either is 0 or the group has adapt=false
 *     w <- w - lr r u
 *
 * Passes: moments and norms, reading q, w, m, v and writing m, v (24 bytes a parameter in f32); the
 * update, which computes u once more from m, v and w and writes w (16 bytes).
 * Source: You et al. 2020, algorithm 2; MXNet 1.9.1 optimizer.LAMB for the bounds. */
#include "service/optim/adaptive.h"
#include "service/optim/layerwise.h"
#include "service/optim/rule.h"

enum { BIAS_CORRECTION = ADAPTIVE_OWN, LOWER_BOUND, UPPER_BOUND };
enum { M, V };

static const struct hyper hypers[] = {
    LR(0.001),
    WEIGHT_DECAY_OWN(0),
    ADAPTIVE(0.999, 1e-6),
    [BIAS_CORRECTION] = FLAG("bias_correction", 1, "correct the moments for their start at 0"),
    [LOWER_BOUND] = OPTIONAL("lower_bound", 0, 1e30, "least norm(w) to reckon with"),
    [UPPER_BOUND] = OPTIONAL("upper_bound", 0, 1e30, "largest norm(w) to reckon with"),
};

static const char *check(const double *hyper, const char **field)
{
    return layer_check_bounds(hyper[LOWER_BOUND], hyper[UPPER_BOUND], field);
}

static const struct slot slots[] = {
    [M] = {.name = "m", .meaning = "first moment"},
    [V] = {.name = "v", .meaning = "second moment"},
};

struct scalars {
    struct adaptive adaptive; /* rate: of mh alone */
    real decay, rate;         /* of w in u; of u */
};

static inline real direction(real m, real v, real w, const struct scalars *s)
{
    return adaptive_quotient(s->adaptive.rate * m, adaptive_denominator(v, &s->adaptive, false)) +
           s->decay * w;
}

KERNEL static void moments(size_t count, const real *restrict g, const real *restrict w,
                           real *restrict m, real *restrict v, real *restrict u, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real first = adaptive_first(m[i], g[i], &s.adaptive);
        real second = adaptive_second(v[i], first, g[i], &s.adaptive, ADAPTIVE_PLAIN);
        m[i] = first;
        v[i] = second;
        u[i] = direction(first, second, w[i], &s);
    }
}

KERNEL static void move(size_t count, const real *restrict w, real *restrict next,
                        const real *restrict m, const real *restrict v, struct scalars s)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] - s.rate * direction(m[i], v[i], w[i], &s);
}

static void moments_piece(const struct piece *p, const void *context, double *sums)
{
    const struct scalars *scalars = context;
    real u[WHOLE_BLOCK];

    moments(p->count, p->grad, p->param, p->slot[M], p->slot[V], u, *scalars);
    sums[0] = REAL(reduce_squares)(u, p->count);
    sums[1] = REAL(reduce_squares)(p->param, p->count);
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct scalars *scalars = context;

    move(p->count, p->param, p->next_param, p->slot[M], p->slot[V], *scalars);
}

static void update_tensor(struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    bool corrects = hyper[BIAS_CORRECTION] != 0;
    struct scalars scalars = {.adaptive = adaptive_at(hyper, whole->piece.step, true, 1),
                              .decay = (real)hyper[HYPER_WEIGHT_DECAY]};
    double sums[2], ratio = 1;

    scalars.adaptive.rate = (real)(corrects ? 1 / (1 - power(hyper[BETA1], whole->piece.step)) : 1);
    if (!corrects)
        scalars.adaptive.root = 1;
    REAL(whole_reduce)(whole, moments_piece, &scalars, 2, sums);
    if (whole->adapt)
        ratio = layer_ratio(layer_clamp(sqrt(sums[1]), hyper[LOWER_BOUND], hyper[UPPER_BOUND]),
                            sqrt(sums[0]));
    scalars.rate = layer_real(hyper[HYPER_LR] * ratio);
    REAL(whole_update)(whole, move_piece, &scalars);
}

extern const struct optimizer REAL(lamb);
const struct optimizer REAL(lamb) = {
    .name = "lamb",
    .summary = "Layer-wise adaptive moments for large batches: Adam's direction, steps as long as "
               "the weights",
    .formula = "m, v as adam;  u = mh/(sqrt(vh) + eps) + weight_decay w;  "
               "r = clamp(norm(w), lower_bound, upper_bound)/norm(u), 1 if either is 0;  "
               "w <- w - lr r u",
    .source = "You et al. 2020, algorithm 2; MXNet 1.9.1 optimizer.LAMB",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .check = check,
    .decays = true,
    .update_tensor = update_tensor,
};
