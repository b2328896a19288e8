/* adafactor: Adam's second moment of a matrix, kept as one number a row and one a column.
 *
 *     b = 1 - t^beta2_decay;  R, C: averages with decay b of q^2's row and column means
 *     V = R C / mean(R);  U = q / sqrt(max(V, eps1^2));  U <- U / max(1, rms(U) / d)
 *     w <- w - max(eps2, rms(w)) min(lr, 1 / sqrt(t)) U
 *     vectors and scalars: V <- b V + (1 - b) q^2
 *
 * The last two dimensions are the matrix; those before them count matrices, each with its own R and
 * C, as in PyTorch; rms is the tensor's. mean(R) = 0: V = 0 (PyTorch bounds it below by eps1).
 * Roots are taken of R / mean(R) and of C, once for each row and column: sqrt(max(V, eps1^2)) =
 * max(a_i b_j, eps1). Sums in double; averages stop at the largest number there is.
 * Passes over a matrix: row and column sums, reading q (4 bytes a parameter in f32); norms of U and
 * w, reading q and w (8); the update, reading q and w and writing w (12). A vector takes the last
 * two, with V in both (16, 16).
 *
 * The first pass is cut by the shape alone, whatever the number of threads. Small matrices are
 * taken as many at a time as fill a block. Others are cut into strips of STRIP_ROWS rows or more
 * by at most WHOLE_BLOCK columns; sums that are parts of a row or a column are put into the
 * workspace and added in order.
 * Source: Shazeer & Stern 2018, algorithms 4 and 5; PyTorch torch.optim.Adafactor. */
#include <string.h>

#include "service/core/crew.h"
#include "service/kernel/elementary.h"
#include "service/kernel/factor.h"
#include "service/optim/layerwise.h"
#include "service/optim/rule.h"

enum { BETA2_DECAY = HYPER_OWN, EPS1, EPS2, D };
enum { ROW, COL, V };
/* Sums of columns are then an eighth of a byte a parameter; a strip has TASK elements or more. */
enum { STRIP_ROWS = 64, TASK = 8 * WHOLE_BLOCK };

/* Numbers of matrices, their rows and columns; 0 of a tensor that is none. */
struct shape {
    size_t matrices, rows, columns;
};

static struct shape shape_of(const struct tensor *tensor)
{
    if (tensor->rank < 2 || tensor->count == 0)
        return (struct shape){0};
    const size_t *last = &tensor->shape[tensor->rank - 2];
    return (struct shape){tensor->count / last[0] / last[1], last[0], last[1]};
}

static size_t row_extent(const struct tensor *tensor)
{
    struct shape shape = shape_of(tensor);

    return shape.matrices * shape.rows;
}

static size_t column_extent(const struct tensor *tensor)
{
    struct shape shape = shape_of(tensor);

    return shape.matrices * shape.columns;
}

static size_t vector_extent(const struct tensor *tensor)
{
    return tensor->rank < 2 ? tensor->count : 0;
}

static const struct hyper hypers[] = {
    LR(0.01),
    WEIGHT_DECAY(0, DECAY_L2),
    [BETA2_DECAY] = NUMBER("beta2_decay", -0.8, -10, 0, "the second moment decays by 1 - t to it"),
    [EPS1] = OPTIONAL("eps1", 0, 1e30, "least root of V; null: the dtype's machine epsilon"),
    [EPS2] = NUMBER("eps2", 1e-3, 0, 1e30, "least rms of the weights to reckon with"),
    [D] = POSITIVE("d", 1, 1e30, "largest rms of U"),
};

static const struct slot slots[] = {
    [ROW] = {.name = "row", .meaning = "average of row means", .extent = row_extent, .per = "row"},
    [COL] = {.name = "col",
             .meaning = "average of column means",
             .extent = column_extent,
             .per = "column"},
    [V] = {.name = "v",
           .meaning = "second moment of vectors",
           .extent = vector_extent,
           .per = "parameter of a vector"},
};

struct step {
    const struct whole *whole;
    struct shape shape;
    size_t strip_rows, down, across; /* strips of a matrix: rows of one, their number each way */
    size_t together;                 /* matrices in a block; 0: in strips */
    double keep, take;               /* b, 1 - b */
    real eps1, rate;
    double *row_sums;    /* [matrices][rows][across], across > 1 */
    double *column_sums; /* [matrices][down][columns], in strips */
    real *row_roots;     /* [matrices][rows] */
    real *column_roots;  /* [matrices][columns] */
};

static void set_strips(struct step *step, const struct tensor *tensor)
{
    struct shape shape = shape_of(tensor);
    size_t width = shape.columns < WHOLE_BLOCK ? shape.columns : WHOLE_BLOCK;

    step->shape = shape;
    step->together = WHOLE_BLOCK / shape.columns / shape.rows;
    step->strip_rows = TASK / width > STRIP_ROWS ? TASK / width : STRIP_ROWS;
    step->down = (shape.rows + step->strip_rows - 1) / step->strip_rows;
    step->across = (shape.columns + WHOLE_BLOCK - 1) / WHOLE_BLOCK;
}

/* Lays the arrays into memory (NULL: only adds up), doubles first. Returns their bytes. */
static size_t set_arrays(struct step *step, unsigned char *memory)
{
    size_t rows = step->shape.matrices * step->shape.rows;
    size_t columns = step->shape.matrices * step->shape.columns;
    size_t row_sums = step->across > 1 ? rows * step->across * sizeof(double) : 0;
    size_t column_sums = step->together == 0 ? columns * step->down * sizeof(double) : 0;

    if (memory != NULL) {
        step->row_sums = (double *)(void *)memory;
        step->column_sums = (double *)(void *)(memory + row_sums);
        step->row_roots = (real *)(void *)(memory + row_sums + column_sums);
        step->column_roots = step->row_roots + rows;
    }
    return row_sums + column_sums + (rows + columns) * sizeof(real);
}

static size_t workspace(const struct tensor *tensor)
{
    struct step step;

    if (shape_of(tensor).matrices == 0)
        return 0;
    set_strips(&step, tensor);
    return set_arrays(&step, NULL);
}

/* --- sums of rows and columns --- */

/* Rows are counted over all matrices, and so are columns. */
static void finish_rows(const struct step *step, size_t first, const double *sums, size_t count)
{
    real *slot = step->whole->piece.slot[ROW];

    REAL(factor_average)
    (slot + first, sums, count, (double)step->shape.columns, step->keep, step->take);
}

static void finish_columns(const struct step *step, size_t first, const double *sums, size_t count)
{
    real *slot = step->whole->piece.slot[COL];

    REAL(factor_average)
    (slot + first, sums, count, (double)step->shape.rows, step->keep, step->take);
    REAL(factor_column_roots)(step->column_roots + first, slot + first, count);
}

static void finish_roots(const struct step *step, size_t matrix, size_t count)
{
    const real *slot = step->whole->piece.slot[ROW];
    size_t rows = step->shape.rows;

    REAL(factor_row_roots)(step->row_roots + matrix * rows, slot + matrix * rows, count, rows);
}

static void add_matrices(void *context, size_t index)
{
    const struct step *step = context;
    const struct shape *shape = &step->shape;
    size_t first = index * step->together, left = shape->matrices - first;
    size_t count = left < step->together ? left : step->together,
           size = shape->rows * shape->columns;
    real scratch[2 * WHOLE_BLOCK];
    double row_sums[WHOLE_BLOCK], column_sums[WHOLE_BLOCK];
    const real *q = layer_load(step->whole, first * size, count * size, scratch);

    memset(column_sums, 0, count * shape->columns * sizeof *column_sums);
    REAL(factor_squares)
    (q, count * shape->rows, shape->columns, shape->rows, row_sums, column_sums);
    finish_rows(step, first * shape->rows, row_sums, count * shape->rows);
    finish_columns(step, first * shape->columns, column_sums, count * shape->columns);
    finish_roots(step, first, count);
}

static void add_strip(void *context, size_t index)
{
    const struct step *step = context;
    size_t tile = index % step->across, part = index / step->across; /* of all matrices' down */
    size_t rows = step->shape.rows, columns = step->shape.columns, start = tile * WHOLE_BLOCK;
    size_t first = part % step->down * step->strip_rows, base = part / step->down * rows;
    size_t end = rows - first < step->strip_rows ? rows : first + step->strip_rows;
    size_t width = columns - start < WHOLE_BLOCK ? columns - start : WHOLE_BLOCK;
    size_t together = step->across > 1 ? 1 : WHOLE_BLOCK / columns;
    double row_sums[WHOLE_BLOCK], *column_sums = step->column_sums + part * columns + start;
    real scratch[2 * WHOLE_BLOCK];

    memset(column_sums, 0, width * sizeof *column_sums);
    for (size_t row = base + first, count; row < base + end; row += count) {
        count = together < base + end - row ? together : base + end - row;
        const real *q = layer_load(step->whole, row * columns + start, count * width, scratch);
        REAL(factor_squares)(q, count, width, count + 1, row_sums, column_sums);
        if (step->across == 1)
            finish_rows(step, row, row_sums, count);
        else
            step->row_sums[row * step->across + tile] = row_sums[0];
    }
}

/* What the strips of a matrix left in the workspace. */
static void finish_matrix(const struct step *step, size_t matrix)
{
    size_t rows = step->shape.rows, columns = step->shape.columns;
    double *sums = step->column_sums + matrix * step->down * columns;

    for (size_t i = matrix * rows; step->across > 1 && i < (matrix + 1) * rows; i++) {
        double sum = 0;
        for (size_t k = 0; k < step->across; k++)
            sum += step->row_sums[i * step->across + k];
        finish_rows(step, i, &sum, 1);
    }
    for (size_t k = 1; k < step->down; k++)
        for (size_t i = 0; i < columns; i++)
            sums[i] += sums[k * columns + i];
    finish_columns(step, matrix * columns, sums, columns);
    finish_roots(step, matrix, 1);
}

static void factor(struct step *step)
{
    const struct shape *shape = &step->shape;

    if (step->together > 0) {
        crew_run((shape->matrices + step->together - 1) / step->together, add_matrices, step);
        return;
    }
    crew_run(shape->matrices * step->down * step->across, add_strip, step);
    for (size_t i = 0; i < shape->matrices; i++)
        finish_matrix(step, i);
}

/* --- norms and update --- */

KERNEL static void add_to_vector(size_t count, const real *restrict q, real *restrict v, real keep,
                                 real take)
{
    const real largest = (real)REAL_MAX;

    for (size_t i = 0; i < count; i++) {
        real square = q[i] * q[i] < largest ? q[i] * q[i] : largest;
        real sum = keep * v[i] + take * square;
        v[i] = sum < largest ? sum : largest;
    }
}

/* q / max(root, eps1) with q / 0 = 0: eps1 = 0 and V = 0. */
static inline real quotient(real q, real root, real eps1)
{
    real d = root > eps1 ? root : eps1;

    return d == 0 ? 0 : q / d;
}

KERNEL static void direction(size_t count, const real *restrict q, const real *restrict root,
                             real *restrict u, real eps1)
{
    for (size_t i = 0; i < count; i++)
        u[i] = quotient(q[i], root[i], eps1);
}

KERNEL static void move(size_t count, const real *restrict q, const real *restrict w,
                        real *restrict next, const real *restrict root, real eps1, real rate)
{
    for (size_t i = 0; i < count; i++)
        next[i] = w[i] - rate * quotient(q[i], root[i], eps1);
}

/* V of a piece of a vector. */
static real *vector_slot(const struct step *step, const struct piece *piece)
{
    return real_at(piece->slot[V], piece->start - step->whole->piece.start);
}

/* sqrt(V) of a piece. */
static void load_roots(const struct step *step, const struct piece *p, real *roots)
{
    if (step->shape.matrices > 0)
        REAL(factor_roots)
    (roots, p->start - step->whole->piece.start, p->count, step->row_roots, step->column_roots,
     step->shape.rows, step->shape.columns);
    else REAL(factor_column_roots)(roots, vector_slot(step, p), p->count);
}

static void norms_piece(const struct piece *p, const void *context, double *sums)
{
    const struct step *step = context;
    real roots[WHOLE_BLOCK], u[WHOLE_BLOCK];

    if (step->shape.matrices == 0)
        add_to_vector(p->count, p->grad, vector_slot(step, p), (real)step->keep, (real)step->take);
    load_roots(step, p, roots);
    direction(p->count, p->grad, roots, u, step->eps1);
    sums[0] = REAL(reduce_squares)(u, p->count);
    sums[1] = REAL(reduce_squares)(p->param, p->count);
}

static void move_piece(const struct piece *p, const void *context)
{
    const struct step *step = context;
    real roots[WHOLE_BLOCK];

    load_roots(step, p, roots);
    move(p->count, p->grad, p->param, p->next_param, roots, step->eps1, step->rate);
}

static double rate_of(const double *hyper, double t, const double *sums, size_t count)
{
    double direction = sqrt(sums[0] / (double)count), size = sqrt(sums[1] / (double)count);
    double rate = hyper[HYPER_LR] < 1 / sqrt(t) ? hyper[HYPER_LR] : 1 / sqrt(t);

    if (!layer_norm_exists(size) || size < hyper[EPS2])
        size = hyper[EPS2];
    return direction > hyper[D] ? rate * size / (direction / hyper[D]) : rate * size;
}

static void update_tensor(struct whole *whole)
{
    const double *hyper = whole->piece.hyper;
    double t = (double)whole->piece.step, sums[2];
    double take = elementary_power(t, hyper[BETA2_DECAY]);
    struct step step = {.whole = whole,
                        .keep = 1 - take,
                        .take = take,
                        .eps1 = (real)(isnan(hyper[EPS1]) ? REAL_EPSILON : hyper[EPS1])};

    if (whole->tensor->rank >= 2) {
        set_strips(&step, whole->tensor);
        set_arrays(&step, whole->workspace);
        factor(&step);
    }
    REAL(whole_reduce)(whole, norms_piece, &step, 2, sums);
    step.rate = layer_real(rate_of(hyper, t, sums, whole->count));
    REAL(whole_update)(whole, move_piece, &step);
}

extern const struct optimizer REAL(adafactor);
const struct optimizer REAL(adafactor) = {
    .name = "adafactor",
    .summary = "Second moments of matrices as one number a row and one a column; steps in "
               "proportion to the weights",
    .formula = "b = 1 - t^beta2_decay;  R, C: averages of the row and column means of q^2;  "
               "V = R C/mean(R);  U = q/sqrt(max(V, eps1^2));  U <- U/max(1, rms(U)/d);  "
               "w <- w - max(eps2, rms(w)) min(lr, 1/sqrt(t)) U",
    .source = "Shazeer & Stern 2018, algorithms 4 and 5; PyTorch torch.optim.Adafactor",
    .dtype = REAL_DTYPE,
    .hypers = hypers,
    .hyper_count = COUNT_OF(hypers),
    .slots = slots,
    .slot_count = COUNT_OF(slots),
    .workspace = workspace,
    .update_tensor = update_tensor,
};
