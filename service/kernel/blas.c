/* The only user of OpenBLAS. It computes one tile on the thread that asks, and the tiles are the
 * crew's tasks: threads of its own would spin for work beside ours, and its own threading lets one
 * caller in at a time. */
#include "service/kernel/blas.h"

#include <cblas.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

#include "service/core/contract.h"
#include "service/core/crew.h"

#if REAL_BITS == 64
#define GEMM cblas_dgemm
#define SYRK cblas_dsyrk
#else
#define GEMM cblas_sgemm
#define SYRK cblas_ssyrk
#endif

/* Products of tiles of 256 to 384 run at nine tenths of the speed of large ones (128: eight
 * tenths); larger ones leave other threads without work. GRAIN: rows and columns that every kernel
 * takes together. MIRROR: so many rows of a page's stride stay in the first-level cache. */
enum { TILE_MAX = 384, GRAIN = 16, MIRROR = 8 };

/* OpenBLAS keeps a buffer of megabytes for every call that ever ran beside others, and ends the
 * process when they are more than it has room for: as many calls at once as there are cores, of
 * both precisions together. */
#if REAL_BITS == 64
static sem_t gate;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    openblas_set_num_threads(1);
    /* Built for OpenMP, it hands out those buffers without a lock. */
    if (openblas_get_parallel() == OPENBLAS_OPENMP || cores < 1)
        cores = 1;
    PRE(sem_init(&gate, 0, (unsigned)cores) == 0);
}

void blas_enter(void)
{
    pthread_once(&once, start);
    while (sem_wait(&gate) != 0)
        PRE(errno == EINTR);
}

void blas_leave(void)
{
    PRE(sem_post(&gate) == 0);
}
#endif

static size_t tiles(size_t side)
{
    return (side + TILE_MAX - 1) / TILE_MAX;
}

/* A side is cut evenly. */
static size_t tile_begin(size_t side, size_t index)
{
    size_t begin = (side * index / tiles(side) + GRAIN - 1) / GRAIN * GRAIN;

    return begin < side ? begin : side;
}

static size_t tile_side(size_t side, size_t index)
{
    return tile_begin(side, index + 1) - tile_begin(side, index);
}

struct gram_task {
    const struct blas_gram *gram;
    real *out;
    size_t side; /* of out */
};

/* to = from' */
static void mirror(real *to, const real *from, size_t side, size_t rows, size_t cols)
{
    for (size_t i = 0; i < rows; i += MIRROR)
        for (size_t k = 0; k < cols; k++)
            for (size_t r = i; r < i + MIRROR && r < rows; r++)
                to[k * side + r] = from[r * side + k];
}

/* Likewise within a tile on the diagonal, which gets its addition. */
static void complete(real *tile, size_t side, size_t rows, real diagonal)
{
    for (size_t i = 0; i < rows; i++) {
        tile[i * side + i] += diagonal;
        for (size_t k = 0; k < i; k++)
            tile[k * side + i] = tile[i * side + k];
    }
}

/* The tiles on and below the diagonal are numbered row by row. */
static void gram_tile(void *context, size_t index)
{
    const struct gram_task *task = context;
    const struct blas_gram *g = task->gram;
    size_t tile_row = 0, side = task->side;

    while (index > tile_row)
        index -= ++tile_row;
    bool diagonal = tile_row == index;
    size_t row = tile_begin(side, tile_row), rows = tile_side(side, tile_row);
    size_t col = tile_begin(side, index), cols = tile_side(side, index);
    size_t step = g->columns ? 1 : g->cols;
    const real *a = (const real *)g->in + row * step, *b = (const real *)g->in + col * step;
    int inner = (int)(g->columns ? g->rows : g->cols), stride = (int)g->cols;
    real *out = task->out + row * side + col;
    real scale = (real)g->scale, factor = g->addend == NULL ? 0 : (real)g->factor;

    for (size_t i = 0; g->addend != NULL && i < rows; i++)
        memcpy(out + i * side, (const real *)g->addend + (row + i) * side + col,
               cols * sizeof *out);
    blas_enter();
    if (diagonal)
        SYRK(CblasRowMajor, CblasLower, g->columns ? CblasTrans : CblasNoTrans, (int)rows, inner,
             scale, a, stride, factor, out, (int)side);
    else
        GEMM(CblasRowMajor, g->columns ? CblasTrans : CblasNoTrans,
             g->columns ? CblasNoTrans : CblasTrans, (int)rows, (int)cols, inner, scale, a, stride,
             b, stride, factor, out, (int)side);
    blas_leave();
    if (diagonal)
        complete(out, side, rows, (real)g->diagonal);
    else
        mirror(task->out + col * side + row, out, side, rows, cols);
}

void REAL(blas_gram)(const struct blas_gram *gram, real *out)
{
    struct gram_task task = {gram, out, gram->columns ? gram->cols : gram->rows};
    size_t count = tiles(task.side);

    PRE(gram->rows <= BLAS_SIDE_MAX && gram->cols <= BLAS_SIDE_MAX);
    crew_run(count * (count + 1) / 2, gram_tile, &task);
}

struct multiply_task {
    real *out;
    const real *left, *right;
    size_t rows, inner, cols;
};

static void multiply_tile(void *context, size_t index)
{
    const struct multiply_task *t = context;
    size_t tile_row = index / tiles(t->cols), tile_col = index % tiles(t->cols);
    size_t row = tile_begin(t->rows, tile_row), col = tile_begin(t->cols, tile_col);

    blas_enter();
    GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)tile_side(t->rows, tile_row),
         (int)tile_side(t->cols, tile_col), (int)t->inner, 1, t->left + row * t->inner,
         (int)t->inner, t->right + col, (int)t->cols, 0, t->out + row * t->cols + col,
         (int)t->cols);
    blas_leave();
}

void REAL(blas_multiply)(real *out, const real *left, const real *right, size_t rows, size_t inner,
                         size_t cols)
{
    struct multiply_task task = {out, left, right, rows, inner, cols};

    PRE(rows <= BLAS_SIDE_MAX && inner <= BLAS_SIDE_MAX && cols <= BLAS_SIDE_MAX);
    crew_run(tiles(rows) * tiles(cols), multiply_tile, &task);
}
