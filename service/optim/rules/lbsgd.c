/* lbsgd: a large batch from batch_scale gradients in turn, with a rate that warms up to its size.
 *
 *     k = begin_epoch * updates_per_epoch + t;  G <- G + g;  k % batch_scale != 0: nothing moves
 *     else: g = G / batch_scale, conditioned;  sgd with lr * mult:
 *           v <- momentum v - lr mult q;  w <- w + v  (momentum 0: w <- w - lr mult q);  G <- 0
 *     n = warmup_epochs * updates_per_epoch, B = batch_scale;  k >= n: mult = B, else
 *     linear 1 + (B - 1) k/n;  power2 1 + (B - 1) (k/n)^2;  sqrt 1 + (B - 1) sqrt(k/n)
 *         (1 where n <= 1)
 *     lars, at every k and for each tensor: sqrt(w.w / (G.G + weight_decay w.w + 1e-18)) within
 *         0.01 and 100, of the mean G before it is conditioned; 1 with adapt=false
 *
 * t counts gradients, not movements. clip_norm acts on each gradient before it is added,
 * rescale, clip_value and decay on the mean; decoupled decay is lr mult weight_decay, and acts only
 * when weights move. The weight_decay of lars is that of the l2 modes.
 * Source: MXNet 1.9.1 optimizer.LBSGD; You, Gitman & Ginsburg 2017. */
#include <string.h>

#include "service/optim/layerwise.h"
#include "service/optim/rule.h"

enum {
    MOMENTUM = HYPER_OWN,
    WARMUP_STRATEGY,
    WARMUP_EPOCHS,
    BATCH_SCALE,
    UPDATES_PER_EPOCH,
    BEGIN_EPOCH
};
enum strategy { LINEAR, POWER2, SQRT, LARS };
enum { G, VELOCITY };

static const char *const strategies[] = {"linear", "power2", "sqrt", "lars", NULL};

/* Epochs times updates stay below 1e18: with a step below 2^63 that is no overflow. */
static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [MOMENTUM] = FRACTION("momentum", 0, "how much of the last update is kept"),
    [WARMUP_STRATEGY] = CHOICE("warmup_strategy", LINEAR, strategies,
                               "how the rate grows to batch_scale times lr; lars: by each "
                               "tensor's norms instead"),
    [WARMUP_EPOCHS] = WHOLE("warmup_epochs", 5, 0, 1e9, "epochs", "how long it grows"),
    [BATCH_SCALE] = WHOLE("batch_scale", 1, 1, 1e9, "gradients", "how many make one update"),
    [UPDATES_PER_EPOCH] = WHOLE("updates_per_epoch", 32, 1, 1e9, "gradients", "length of an epoch"),
    [BEGIN_EPOCH] = WHOLE("begin_epoch", 0, 0, 1e9, "epochs", "where counting begins"),
};

static bool has_momentum(const double *hyper)
{
    return hyper[MOMENTUM] != 0;
}

static const struct slot slots[] = {
    [G] = {.name = "G", .meaning = "sum of the gradients since the last update"},
    [VELOCITY] = {.name = "v",
                  .meaning = "velocity, with the learning rate in it",
                  .needed = has_momentum},
};

struct step {
    struct conditioning conditioning; /* of the mean */
    real scale, rate, momentum;
};

KERNEL static void gather(size_t count, const real *restrict g, const real *restrict w,
                          real *restrict next, real *restrict sum)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] += g[i];
        next[i] = w[i];
    }
}

KERNEL static void average(size_t count, const real *restrict g, const real *restrict sum,
                           real *restrict mean, real scale)
{
    for (size_t i = 0; i < count; i++)
        mean[i] = (sum[i] + g[i]) / scale;
}

KERNEL static void plain(size_t count, const real *restrict q, const real *restrict w,
                         real *restrict next, real rate)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] - rate * q[i];
}

KERNEL static void with_momentum(size_t count, const real *restrict q, const real *restrict w,
                                 real *restrict next, real *restrict v, real rate, real momentum)
{
    for (size_t i = 0; i < count; i++) {
        real velocity = momentum * v[i] - rate * q[i];
        v[i] = velocity;
        next[i] = w[i] + velocity;
    }
}

static void gather_piece(const struct piece *p, const void *context)
{
    (void)context;
    gather(p->count, p->grad, p->param, p->next_param, p->slot[G]);
}

static void squares_piece(const struct piece *p, const void *context, double *sums)
{
    const struct step *step = context;
    real mean[WHOLE_BLOCK];

    average(p->count, p->grad, p->slot[G], mean, step->scale);
    sums[0] = REAL(reduce_squares)(mean, p->count);
    sums[1] = REAL(reduce_squares)(p->param, p->count);
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct step *step = context;
    real mean[WHOLE_BLOCK], conditioned[WHOLE_BLOCK], shrunk[WHOLE_BLOCK];

    average(p->count, p->grad, p->slot[G], mean, step->scale);
    memset(p->slot[G], 0, p->count * sizeof(real));
    const real *q = REAL(condition)(&step->conditioning, mean, p->param, conditioned, p->count);
    const real *w = REAL(shrink)(&step->conditioning, p->param, shrunk, p->count);
    if (p->slot[VELOCITY] == NULL)
        plain(p->count, q, w, p->next_param, step->rate);
    else
        with_momentum(p->count, q, w, p->next_param, p->slot[VELOCITY], step->rate, step->momentum);
}

static double warmed(const double *hyper, uint64_t k)
{
    double n = hyper[WARMUP_EPOCHS] * hyper[UPDATES_PER_EPOCH], scale = hyper[BATCH_SCALE];

    if ((double)k >= n)
        return scale;
    if (n <= 1)
        return 1;
    double done = (double)k / n;
    switch ((enum strategy)hyper[WARMUP_STRATEGY]) {
    case POWER2:
        done *= done;
        break;
    case SQRT:
        done = sqrt(done);
        break;
    default:
        break;
    }
    return 1 + (scale - 1) * done;
}

static double layer_rate(const struct whole *whole, const struct step *step)
{
    double sums[2];

    if (!whole->adapt)
        return 1;
    REAL(whole_reduce)(whole, squares_piece, step, 2, sums);
    double ratio = sqrt(sums[1] / (sums[0] + step->conditioning.decay * sums[1] + 1e-18));
    return ratio > 100 ? 100 : ratio > 0.01 ? ratio : 0.01;
}

static void update_tensor(struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    uint64_t k =
        (uint64_t)hyper[BEGIN_EPOCH] * (uint64_t)hyper[UPDATES_PER_EPOCH] + whole->piece.step;
    struct step step = {.conditioning = whole->conditioning,
                        .scale = (real)hyper[BATCH_SCALE],
                        .momentum = (real)hyper[MOMENTUM]};

    if (k % (uint64_t)hyper[BATCH_SCALE] != 0) {
        REAL(whole_update)(whole, gather_piece, NULL);
        return;
    }
    double mult = hyper[WARMUP_STRATEGY] == LARS ? layer_rate(whole, &step) : warmed(hyper, k);
    step.conditioning.clip_scale = 1; /* every g came with its own */
    step.conditioning.shrink *= mult;
    step.rate = layer_real(hyper[HYPER_LR] * mult);
    REAL(whole_update)(whole, move_piece, &step);
}

extern const struct optimizer REAL(lbsgd);
const struct optimizer REAL(lbsgd) = {
    .name = "lbsgd",
    .summary = "SGD on the mean of batch_scale gradients, with the large batch's warm-up",
    .formula = "G <- G + g;  every batch_scale gradients: v <- momentum v - lr mult q of "
               "G/batch_scale, w <- w + v, G <- 0;  mult grows from 1 to batch_scale",
    .source = "MXNet 1.9.1 optimizer.LBSGD; You, Gitman & Ginsburg 2017",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .raw = true,
    .update_tensor = update_tensor,
};
