/* Products of large matrices, by OpenBLAS, in tiles that the crew shares. Matrices are in C order,
 * without gaps; no side exceeds BLAS_SIDE_MAX. What an output holds before is not read.
 *
 * The bits depend on the machine (OpenBLAS picks kernels by the CPU): what comes out of here must
 * be journaled, never computed again by a replay. They do not depend on the number of threads. */
#ifndef DESCENT_KERNEL_BLAS_H
#define DESCENT_KERNEL_BLAS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "service/kernel/real.h"

#define BLAS_SIDE_MAX ((size_t)INT_MAX) /* of the BLAS interface */

/* out = scale P + factor addend + diagonal I: a symmetric matrix, written in full. P is in in'
 * ([rows, rows]), or in' in ([cols, cols]) where `columns` is set. addend: symmetric, NULL for
 * none. */
struct blas_gram {
    size_t rows, cols; /* of in */
    bool columns;
    const void *in;
    double scale;
    const void *addend;
    double factor, diagonal;
};
void REAL(blas_gram)(const struct blas_gram *gram, real *out);

/* out[rows, cols] = left[rows, inner] right[inner, cols] */
void REAL(blas_multiply)(real *out, const real *left, const real *right, size_t rows, size_t inner,
                         size_t cols);

/* Around every call of OpenBLAS; for blas.c alone. */
void blas_enter(void);
void blas_leave(void);

#endif
