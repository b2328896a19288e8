/* group_adagrad: AdaGrad with one accumulator for each row, for embeddings.
 *
 *     h_r <- h_r + mean_j q_rj^2;  w <- w - lr q / (sqrt(h_r) + eps)
 *
 * A row is everything under the first index; a scalar is one row, a vector has rows of one element.
 * Means and rates in double, rounded once. An accumulator stops at the largest number there is.
 * Passes: means, reading q (4 bytes a parameter in f32), cut into rows or, where rows are longer,
 * into tiles of TILE elements, whose sums are added in order; the update, reading q and w and
 * writing w (12 bytes). Vectors take one pass, with h at each element (20 bytes).
 * Rows that were not sent keep h too.
 * Source: MXNet 1.9.1 contrib.GroupAdaGrad; Duchi, Hazan & Singer 2011 for the accumulator. */
#include "service/core/crew.h"
#include "service/optim/layerwise.h"
#include "service/optim/rule.h"

enum { EPS = HYPER_OWN };
enum { TILE = 8 * WHOLE_BLOCK };

static size_t row_count(const struct tensor *tensor)
{
    return tensor->rank == 0 ? 1 : tensor->shape[0];
}

static size_t row_length(const struct tensor *tensor)
{
    return tensor->count == 0 ? 0 : tensor->count / row_count(tensor);
}

static size_t tiles(const struct tensor *tensor)
{
    return (row_length(tensor) + TILE - 1) / TILE;
}

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [EPS] = NUMBER("eps", 1e-6, 0, 1e30, "keeps the quotient finite"),
};

static const struct slot slots[] = {
    {.name = "h", .meaning = "sum of the mean squares", .extent = row_count, .per = "row"}};

/* A sum for each tile, where rows have several. */
static size_t workspace(const struct tensor *tensor)
{
    return tiles(tensor) > 1 ? row_count(tensor) * tiles(tensor) * sizeof(double) : 0;
}

/* lr / (sqrt(h) + eps); 0 where nothing has come and eps is 0. */
static inline real rate_of(real h, double lr, double eps)
{
    double denominator = sqrt((double)h) + eps, rate = denominator > 0 ? lr / denominator : 0;

    return (real)(rate < REAL_MAX ? rate : REAL_MAX);
}

static inline real accumulated(real h, double mean)
{
    double sum = (double)h + mean;

    return (real)(sum < REAL_MAX ? sum : REAL_MAX);
}

struct step {
    const struct whole *whole;
    size_t length, rows, tiles; /* of a row, rows, in a row */
    size_t rows_together;       /* in a task, where a row is one tile */
    double lr, eps;
};

/* Means of rows that are one tile each. */
static void add_rows(void *context, size_t index)
{
    const struct step *step = context;
    size_t row = index * step->rows_together, end = row + step->rows_together, last;
    size_t length = step->length, fit = length < WHOLE_BLOCK ? WHOLE_BLOCK / length : 1;
    real scratch[2 * WHOLE_BLOCK], *h = step->whole->piece.slot[0];

    for (end = end < step->rows ? end : step->rows; row < end; row = last) {
        last = row + fit < end ? row + fit : end;
        if (length <= WHOLE_BLOCK) {
            const real *q = layer_load(step->whole, row * length, (last - row) * length, scratch);
            for (size_t r = row; r < last; r++, q += length)
                if (whole_moves(step->whole, r * length))
                    h[r] = accumulated(h[r], layer_row_squares(q, length) / (double)length);
        } else if (whole_moves(step->whole, row * length)) {
            double sum = layer_load_squares(step->whole, row * length, length, scratch);
            h[row] = accumulated(h[row], sum / (double)length);
        }
    }
}

/* Sum of one tile of a row that has several. */
static void add_tile(void *context, size_t index)
{
    const struct step *step = context;
    size_t row = index / step->tiles, start = index % step->tiles * TILE;
    size_t count = step->length - start < TILE ? step->length - start : TILE;
    real scratch[2 * WHOLE_BLOCK];
    double *sums = step->whole->workspace;

    sums[index] = layer_load_squares(step->whole, row * step->length + start, count, scratch);
}

static void accumulate(struct step *step)
{
    real *h = step->whole->piece.slot[0];
    const double *sums = step->whole->workspace;

    if (step->tiles == 1) {
        crew_run((step->rows + step->rows_together - 1) / step->rows_together, add_rows, step);
        return;
    }
    crew_run(step->rows * step->tiles, add_tile, step);
    for (size_t r = 0; r < step->rows; r++) {
        if (!whole_moves(step->whole, r * step->length))
            continue;
        double sum = 0;
        for (size_t i = 0; i < step->tiles; i++)
            sum += sums[r * step->tiles + i];
        h[r] = accumulated(h[r], sum / (double)step->length);
    }
}

/* start: of the piece in the tensor. */
KERNEL static void move(size_t count, size_t start, size_t length, const real *restrict q,
                        const real *restrict w, real *restrict next, const real *restrict h,
                        double lr, double eps)
{
    size_t row = start / length, left = length - start % length;

    for (size_t i = 0, end; i < count; i = end, row++, left = length) {
        real rate = rate_of(h[row], lr, eps);
        end = left < count - i ? i + left : count;
        for (size_t k = i; k < end; k++)
            next[k] = w[k] - rate * q[k];
    }
}

/* Rows of one element. */
KERNEL static void move_single(size_t count, const real *restrict q, const real *restrict w,
                               real *restrict next, real *restrict h, real lr, real eps)
{
    for (size_t i = 0; i < count; i++) {
        real sum = h[i] + q[i] * q[i], denominator = real_sqrt(sum) + eps;
        h[i] = sum;
        next[i] = w[i] - (denominator == 0 ? 0 : lr * q[i] / denominator);
    }
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct step *step = context;
    size_t start = p->start - step->whole->piece.start;

    if (step->length == 1)
        move_single(p->count, p->grad, p->param, p->next_param, real_at(p->slot[0], start),
                    (real)step->lr, (real)step->eps);
    else
        move(p->count, start, step->length, p->grad, p->param, p->next_param, p->slot[0], step->lr,
             step->eps);
}

static void update_tensor(struct whole *whole)
{
    size_t length = row_length(whole->tensor);
    struct step step = {.whole = whole,
                        .length = length,
                        .rows = row_count(whole->tensor),
                        .tiles = tiles(whole->tensor),
                        .rows_together = length < TILE ? TILE / length : 1,
                        .lr = whole->piece.hyper[HYPER_LR],
                        .eps = whole->piece.hyper[EPS]};

    if (length > 1)
        accumulate(&step);
    REAL(whole_update)(whole, move_piece, &step);
}

extern const struct optimizer REAL(group_adagrad);
const struct optimizer REAL(group_adagrad) = {
    .name = "group_adagrad",
    .summary = "AdaGrad with one accumulator a row: a number for each entry of an embedding",
    .formula = "h_r <- h_r + mean_j q_rj^2;  w <- w - lr q/(sqrt(h_r) + eps)",
    .source = "MXNet 1.9.1 contrib.GroupAdaGrad; Duchi, Hazan & Singer 2011, section 1.3",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .workspace = workspace,
    .lazy_rows = true,
    .update_tensor = update_tensor,
};
