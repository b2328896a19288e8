/* lars: momentum with a rate for each tensor, the size of its weights over that of its gradient.
 *
 *     r = trust_coefficient norm(w) / (norm(c) + weight_decay norm(w) + eps),
 *         1 where a norm is 0 or the group has adapt=false
 *     v <- momentum v + lr r (c + weight_decay w);  w <- w - v
 *
 * lr and r are frozen into v, as in MXNet. The norm is that of c, which is
 * clipped (MXNet: of what is not clipped yet).
 * Passes: norms, reading q and w (8 bytes a parameter in f32; none with adapt=false); the update,
 * reading q, w, v and writing v, w (20 bytes).
 * Source: You, Gitman & Ginsburg 2017, algorithm 1; MXNet 1.9.1 optimizer.LARS. */
#include "service/optim/layerwise.h"
#include "service/optim/rule.h"

enum { MOMENTUM = HYPER_OWN, TRUST_COEFFICIENT, EPS };

static const struct hyper hypers[] = {
    LR(0.1),
    WEIGHT_DECAY_OWN(1e-4),
    [MOMENTUM] = FRACTION("momentum", 0.9, "how much of the last update is kept"),
    [TRUST_COEFFICIENT] =
        POSITIVE("trust_coefficient", 0.001, 1e30, "size of an update beside its weights"),
    [EPS] = NUMBER("eps", 1e-5, 0, 1e30, "keeps the quotient finite"),
};

static const struct slot slots[] = {
    {.name = "v", .meaning = "velocity to be subtracted, with the learning rate in it"},
};

struct scalars {
    real momentum, rate, decay;
};

KERNEL static void lars(size_t count, const real *restrict g, const real *restrict w,
                        real *restrict next, real *restrict v, struct scalars s)
{
    for (size_t i = 0; i < count; i++) {
        real q = g[i] + s.decay * w[i];
        real velocity = s.momentum * v[i] + s.rate * q;
        v[i] = velocity;
        next[i] = w[i] - velocity;
    }
}

static void update_piece(const struct piece *p, const void *context)
{
    const struct scalars *scalars = context;

    lars(p->count, p->grad, p->param, p->next_param, p->slot[0], *scalars);
}

static double local_rate(const struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    double sums[2];

    if (!whole->adapt)
        return 1;
    REAL(whole_reduce)(whole, layer_squares, NULL, 2, sums);
    double slope = sqrt(sums[0]), size = sqrt(sums[1]);
    if (!layer_norm_exists(slope) || !layer_norm_exists(size))
        return 1;
    return hyper[TRUST_COEFFICIENT] * size /
           (slope + hyper[HYPER_WEIGHT_DECAY] * size + hyper[EPS]);
}

static void update_tensor(struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    struct scalars scalars = {.momentum = (real)hyper[MOMENTUM],
                              .rate = layer_real(hyper[HYPER_LR] * local_rate(whole)),
                              .decay = (real)hyper[HYPER_WEIGHT_DECAY]};

    REAL(whole_update)(whole, update_piece, &scalars);
}

extern const struct optimizer REAL(lars);
const struct optimizer REAL(lars) = {
    .name = "lars",
    .summary = "Layer-wise adaptive rates for momentum: each tensor moves in proportion to itself",
    .formula = "r = trust_coefficient norm(w)/(norm(c) + weight_decay norm(w) + eps), 1 if a norm "
               "is 0;  v <- momentum v + lr r (c + weight_decay w);  w <- w - v",
    .source = "You, Gitman & Ginsburg 2017, algorithm 1; MXNet 1.9.1 optimizer.LARS",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .decays = true,
    .update_tensor = update_tensor,
};
