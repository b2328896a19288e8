/* muon: momentum whose every matrix is replaced by about the nearest orthogonal one before it moves
 * the weights.
 *
 *     B <- momentum B + (1 - momentum) q;  U = nesterov ? momentum B + (1 - momentum) q : B
 *     X = U / norm(U);  ns_steps times:  A = X X',  X <- a X + (b A + c A A) X
 *     w <- (1 - lr weight_decay) w - lr sqrt(max(1, rows / cols)) X
 *
 * The iteration (Newton-Schulz, with coefficients that pull singular values up fast and leave them
 * between about 0.7 and 1.2) is computed as X <- (a I + b A + c A A) X: A A = A A' is symmetric too
 * and costs half of a product. Where there are more rows than columns, A = X' X and X <- X (...).
 * Tensors that are no matrix take adamw.
 *
 * Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". */
#include "service/core/crew.h"
#include "service/kernel/blas.h"
#include "service/kernel/reduce.h"
#include "service/optim/adaptive.h"
#include "service/optim/rule.h"

enum { MOMENTUM = ADAPTIVE_OWN, NESTEROV, NS_STEPS };
enum { B, V };

/* The author's, chosen for the steepest slope at 0 that keeps the values in their band. */
#define NS_A 3.4445
#define NS_B (-4.7750)
#define NS_C 2.0315

static const struct hyper hypers[] = {
    LR(0.02),
    WEIGHT_DECAY(0.1, DECAY_DECOUPLED),
    [BETA1] = FRACTION("beta1", 0.9, "decay of the first moment; tensors that are no matrix"),
    [BETA2] = FRACTION("beta2", 0.999, "decay of the second moment; tensors that are no matrix"),
    [EPS] = NUMBER("eps", 1e-8, 0, 1e30, "keeps the quotient finite; tensors that are no matrix"),
    [MOMENTUM] = FRACTION("momentum", 0.95, "share of the momentum that is kept"),
    [NESTEROV] = FLAG("nesterov", 1, "orthogonalise the momentum of one step ahead"),
    /* 20: a singular value of 3.4445^-20 = 2e-11 of the norm rises to 1; f32 holds no smaller. */
    [NS_STEPS] = WHOLE("ns_steps", 5, 1, 20, "iterations", "how far a matrix is orthogonalised"),
};

static bool is_matrix(const struct tensor *tensor)
{
    return tensor->rank == 2 && tensor->shape[0] <= BLAS_SIDE_MAX &&
           tensor->shape[1] <= BLAS_SIDE_MAX;
}

static size_t no_matrix_extent(const struct tensor *tensor)
{
    return is_matrix(tensor) ? 0 : tensor->count;
}

static const struct slot slots[] = {
    [B] = {.name = "B", .meaning = "momentum; the first moment of a tensor that is no matrix"},
    [V] = {.name = "v",
           .meaning = "second moment of a tensor that is no matrix",
           .extent = no_matrix_extent,
           .per = "parameter of a tensor that is no matrix"},
};

/* --- the matrix to apply: depends on the machine --- */

static size_t proposal_extent(const struct tensor *tensor)
{
    return is_matrix(tensor) ? tensor->count : 0;
}

/* Numbers of a matrix of X or of A, so that what follows it is aligned. */
static size_t padded(size_t count)
{
    return (count + 64 / sizeof(real) - 1) / (64 / sizeof(real)) * (64 / sizeof(real));
}

static size_t shorter(const struct tensor *tensor)
{
    return tensor->shape[0] < tensor->shape[1] ? tensor->shape[0] : tensor->shape[1];
}

/* One X (the other is the proposal), A and the polynomial of A. */
static size_t workspace(const struct tensor *tensor)
{
    size_t side = shorter(tensor);

    if (!is_matrix(tensor))
        return 0;
    return (padded(tensor->count) + 2 * padded(side * side)) * sizeof(real);
}

KERNEL static void look_ahead(size_t count, const real *restrict q, const real *restrict b,
                              real *restrict u, real momentum, real rest, bool nesterov)
{
    /* U is momentum B + (1 - momentum) q of the new B, or the new B. */
    real outer = nesterov ? momentum : 1, inner = nesterov ? rest : 0;

    for (size_t i = 0; i < count; i++)
        u[i] = outer * (momentum * b[i] + rest * q[i]) + inner * q[i];
}

struct target {
    real *u;
    size_t start; /* of the tensor */
};

static void fill_direction(const struct piece *p, const void *context, double *sums)
{
    const struct target *target = context;
    real *u = target->u + (p->start - target->start);

    look_ahead(p->count, p->grad, p->slot[B], u, (real)p->hyper[MOMENTUM],
               (real)(1 - p->hyper[MOMENTUM]), p->hyper[NESTEROV] != 0);
    sums[0] += REAL(reduce_squares)(u, p->count);
}

struct division {
    real *x;
    double norm;
    size_t count, segment;
};

KERNEL static void divide(real *x, double norm, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = (real)((double)x[i] / norm);
}

/* Where squares overflow or vanish in double: divides x by its largest first. 0: all are 0. */
static double careful_norm(real *x, size_t count)
{
    double largest = 0;

    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)x[i]));
    if (largest == 0)
        return 0;
    divide(x, largest, count);
    return sqrt(REAL(reduce_squares)(x, count));
}

static void divide_segment(void *context, size_t index)
{
    const struct division *d = context;
    size_t start = index * d->segment, rest = d->count - start;

    divide(d->x + start, d->norm, rest < d->segment ? rest : d->segment);
}

/* X = U / norm(U), or false when U is 0. */
static bool normalise(real *x, size_t count, double squares)
{
    struct division division = {x, sqrt(squares), count, REAL(whole_segment)(count)};

    /* Below 2^-970, squares that were too small for a double may be missing: 2^-1022 / 2^-52. */
    if (!isfinite(squares) || squares < 0x1p-970)
        division.norm = careful_norm(x, count);
    if (division.norm == 0)
        return false;
    crew_run((count + division.segment - 1) / division.segment, divide_segment, &division);
    return true;
}

static void newton_schulz(const struct tensor *tensor, const real *x, real *next, real *a,
                          real *poly)
{
    size_t rows = tensor->shape[0], cols = tensor->shape[1], side = shorter(tensor);
    bool tall = rows > cols;
    const struct blas_gram of_x = {
        .rows = rows, .cols = cols, .columns = tall, .in = x, .scale = 1};
    const struct blas_gram of_a = {.rows = side,
                                   .cols = side,
                                   .in = a,
                                   .scale = NS_C,
                                   .addend = a,
                                   .factor = NS_B,
                                   .diagonal = NS_A};

    REAL(blas_gram)(&of_x, a);
    REAL(blas_gram)(&of_a, poly);
    if (tall)
        REAL(blas_multiply)(next, x, poly, rows, side, cols);
    else
        REAL(blas_multiply)(next, poly, x, rows, side, cols);
}

static void propose(struct whole *whole, void *proposal)
{
    const struct tensor *tensor = whole->tensor;
    unsigned steps = (unsigned)whole->piece.hyper[NS_STEPS];

    if (!is_matrix(tensor))
        return;
    real *spare = whole->workspace, *a = spare + padded(whole->count);
    real *poly = a + padded(shorter(tensor) * shorter(tensor));
    /* The last of the turns ends in the proposal. */
    real *x = steps % 2 == 0 ? proposal : spare, *next = steps % 2 == 0 ? spare : proposal;
    struct target target = {x, whole->piece.start};
    double squares;

    REAL(whole_reduce)(whole, fill_direction, &target, 1, &squares);
    if (!normalise(x, whole->count, squares)) {
        memset(proposal, 0, whole->count * sizeof(real));
        return;
    }
    for (; steps > 0; steps--) {
        newton_schulz(tensor, x, next, a, poly);
        real *last = x;
        x = next;
        next = last;
    }
}

/* --- the step --- */

KERNEL static void move(size_t count, const real *restrict q, const real *restrict w,
                        const real *restrict x, real *restrict next, real *restrict b,
                        real momentum, real rest, real rate)
{
    for (size_t i = 0; i < count; i++) {
        b[i] = momentum * b[i] + rest * q[i];
        next[i] = w[i] - rate * x[i];
    }
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct whole *whole = context;
    double rows = (double)whole->tensor->shape[0], cols = (double)whole->tensor->shape[1];
    double rate = p->hyper[HYPER_LR] * sqrt(rows > cols ? rows / cols : 1);
    const real *x = real_at(whole->proposal, p->start - whole->piece.start);

    move(p->count, p->grad, p->param, x, p->next_param, p->slot[B], (real)p->hyper[MOMENTUM],
         (real)(1 - p->hyper[MOMENTUM]), (real)rate);
}

KERNEL static void adapt(size_t count, const real *restrict q, const real *restrict w,
                         real *restrict next, real *restrict m, real *restrict v, struct adaptive s)
{
    adaptive_loop(count, q, w, next, m, v, NULL, s, ADAPTIVE_PLAIN, false);
}

static void adapt_piece(const struct piece *p, const void *context)
{
    const struct whole *whole = context;

    adapt(p->count, p->grad, p->param, p->next_param, p->slot[B],
          real_at(p->slot[V], p->start - whole->piece.start),
          adaptive_at(p->hyper, p->step, true, 1));
}

static void update_tensor(struct whole *whole)
{
    REAL(whole_update)(whole, is_matrix(whole->tensor) ? move_piece : adapt_piece, whole);
}

extern const struct optimizer REAL(muon);
const struct optimizer REAL(muon) = {
    .name = "muon",
    .summary = "Momentum made orthogonal, matrix by matrix; AdamW for other tensors",
    .formula = "B <- momentum B + (1-momentum) q;  X = orthogonal part of B, or of momentum B + "
               "(1-momentum) q;  w <- (1 - lr wd) w - lr sqrt(max(1, rows/cols)) X",
    .source = "Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .workspace = workspace,
    .proposal_extent = proposal_extent,
    .propose = propose,
    .update_tensor = update_tensor,
};
