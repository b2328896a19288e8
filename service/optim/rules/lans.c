/* lans: LAMB on gradients of length 1, with Nesterov's step beside that of the moments.
 *
 *     g = c / norm(c), for each tensor (norm 0: g = c)
 *     m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
 *     u_m = mh / (sqrt(vh) + eps) + weight_decay w,  mh = m / (1 - beta1^t)
 *     u_g = g / (sqrt(vh) + eps) + weight_decay w,   vh = v / (1 - beta2^t)
 *         (bias_correction=false: mh = m, vh = v)
 *     r_k = clamp(norm(w), lower_bound, upper_bound) / norm(u_k),
 *         1 where either is 0 or the group has adapt=false
 *     w <- w - lr (beta1 r_m u_m + (1 - beta1) r_g u_g)
 *
 * The old w stands in both u, as in the paper (MXNet's unfused step takes the half-moved one in
 * u_g). Gradients are clipped before they are normalised, which is done in double.
 * Passes: norms, reading q and w (8 bytes a parameter in f32); moments and norms of u, reading q,
 * w, m, v and writing m, v (24 bytes); the update, which computes both u once more and writes w
 * (20 bytes). Source: Zheng et al. 2020, algorithm 2; MXNet 2.0 optimizer.LANS. */
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
    [M] = {.name = "m", .meaning = "first moment of gradients of length 1"},
    [V] = {.name = "v", .meaning = "second moment of gradients of length 1"},
};

struct scalars {
    struct adaptive adaptive;   /* rate: of mh alone */
    double inverse;             /* of norm(c) */
    real decay;                 /* of w in u */
    real rate_moment, rate_now; /* of u_m, of u_g */
};

struct directions {
    real moment, now;
};

static inline real normalised(real c, const struct scalars *s)
{
    return (real)((double)c * s->inverse);
}

static inline struct directions directions(real g, real m, real v, real w, const struct scalars *s)
{
    real denominator = adaptive_denominator(v, &s->adaptive, false), decay = s->decay * w;

    return (struct directions){adaptive_quotient(s->adaptive.rate * m, denominator) + decay,
                               adaptive_quotient(g, denominator) + decay};
}

KERNEL static void moments(size_t count, const real *restrict c, const real *restrict w,
                           real *restrict m, real *restrict v, real *restrict u_m,
                           real *restrict u_g, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real g = normalised(c[i], &s);
        real first = adaptive_first(m[i], g, &s.adaptive);
        real second = adaptive_second(v[i], first, g, &s.adaptive, ADAPTIVE_PLAIN);
        struct directions u = directions(g, first, second, w[i], &s);
        m[i] = first;
        v[i] = second;
        u_m[i] = u.moment;
        u_g[i] = u.now;
    }
}

KERNEL static void move(size_t count, const real *restrict c, const real *restrict w,
                        real *restrict next, const real *restrict m, const real *restrict v,
                        struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        struct directions u = directions(normalised(c[i], &s), m[i], v[i], w[i], &s);
        next[i] = w[i] - (s.rate_moment * u.moment + s.rate_now * u.now);
    }
}

static void moments_piece(const struct piece *p, const void *context, double *sums)
{
    const struct scalars *scalars = context;
    real u_m[WHOLE_BLOCK], u_g[WHOLE_BLOCK];

    moments(p->count, p->grad, p->param, p->slot[M], p->slot[V], u_m, u_g, *scalars);
    sums[0] = REAL(reduce_squares)(u_m, p->count);
    sums[1] = REAL(reduce_squares)(u_g, p->count);
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct scalars *scalars = context;

    move(p->count, p->grad, p->param, p->next_param, p->slot[M], p->slot[V], *scalars);
}

static void update_tensor(struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    bool corrects = hyper[BIAS_CORRECTION] != 0;
    double beta1 = hyper[BETA1], norms[2], sums[2], ratio_moment = 1, ratio_now = 1;
    struct scalars scalars = {.adaptive = adaptive_at(hyper, whole->piece.step, true, 1),
                              .decay = (real)hyper[HYPER_WEIGHT_DECAY]};

    scalars.adaptive.rate = (real)(corrects ? 1 / (1 - power(beta1, whole->piece.step)) : 1);
    if (!corrects)
        scalars.adaptive.root = 1;
    REAL(whole_reduce)(whole, layer_squares, NULL, 2, norms);
    double length = sqrt(norms[0]), size = sqrt(norms[1]);
    scalars.inverse = layer_norm_exists(length) ? 1 / length : 1;
    REAL(whole_reduce)(whole, moments_piece, &scalars, 2, sums);
    if (whole->adapt) {
        size = layer_clamp(size, hyper[LOWER_BOUND], hyper[UPPER_BOUND]);
        ratio_moment = layer_ratio(size, sqrt(sums[0]));
        ratio_now = layer_ratio(size, sqrt(sums[1]));
    }
    scalars.rate_moment = layer_real(hyper[HYPER_LR] * beta1 * ratio_moment);
    scalars.rate_now = layer_real(hyper[HYPER_LR] * (1 - beta1) * ratio_now);
    REAL(whole_update)(whole, move_piece, &scalars);
}

extern const struct optimizer REAL(lans);
const struct optimizer REAL(lans) = {
    .name = "lans",
    .summary = "LAMB on normalised gradients with Nesterov's step",
    .formula = "g = c/norm(c);  m, v as adam;  u_m = mh/(sqrt(vh) + eps) + weight_decay w;  "
               "u_g = g/(sqrt(vh) + eps) + weight_decay w;  r_k = clamp(norm(w))/norm(u_k), 1 if "
               "either is 0;  w <- w - lr (beta1 r_m u_m + (1-beta1) r_g u_g)",
    .source = "Zheng et al. 2020, algorithm 2; MXNet 2.0 optimizer.LANS",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .check = check,
    .decays = true,
    .update_tensor = update_tensor,
};
