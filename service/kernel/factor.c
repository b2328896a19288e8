/* Sums, averages and roots of rows and columns. Squares are summed in double: along wide rows in
 * sixteen fixed lanes, as in reduce.c, along narrow ones in order. */
#include "service/kernel/factor.h"

#include <float.h>

#include "service/core/simd.h"

enum { LANES = 16 };

#if REAL_BITS == 64
#define LARGEST DBL_MAX
#else
#define LARGEST ((double)FLT_MAX)
#endif

static inline double lanes_sum(double lane[LANES])
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

static inline double wide_row(const real *restrict q, size_t columns, double *restrict sums)
{
    double lane[LANES] = {0}, square[LANES];
    size_t i = 0;

    for (; i + LANES <= columns; i += LANES) {
        for (size_t k = 0; k < LANES; k++)
            square[k] = (double)q[i + k] * (double)q[i + k];
        for (size_t k = 0; k < LANES; k++)
            lane[k] += square[k];
        for (size_t k = 0; k < LANES; k++)
            sums[i + k] += square[k];
    }
    for (size_t k = 0; i + k < columns; k++) {
        double last = (double)q[i + k] * (double)q[i + k];
        lane[k] += last;
        sums[i + k] += last;
    }
    return lanes_sum(lane);
}

static inline double narrow_row(const real *restrict q, size_t columns, double *restrict sums)
{
    double sum = 0;

    for (size_t i = 0; i < columns; i++) {
        double square = (double)q[i] * (double)q[i];
        sum += square;
        sums[i] += square;
    }
    return sum;
}

KERNEL void REAL(factor_squares)(const real *restrict q, size_t count, size_t columns, size_t rows,
                                 double *restrict row_sums, double *restrict column_sums)
{
    size_t left = rows;

    for (size_t r = 0; r < count; r++, q += columns) {
        row_sums[r] = columns < LANES ? narrow_row(q, columns, column_sums)
                                      : wide_row(q, columns, column_sums);
        if (--left == 0) {
            left = rows;
            column_sums += columns;
        }
    }
}

KERNEL void REAL(factor_average)(real *restrict averages, const double *restrict sums, size_t count,
                                 double of, double keep, double take)
{
    for (size_t i = 0; i < count; i++) {
        double value = keep * (double)averages[i] + take * (sums[i] / of);
        averages[i] = (real)(value < LARGEST ? value : LARGEST);
    }
}

/* Terms of the mean are divided before they are added: the sum may exceed a double. R = 0: a =
 * 0. */
KERNEL void REAL(factor_row_roots)(real *restrict a, const real *restrict averages, size_t matrices,
                                   size_t rows)
{
    double share = 1 / (double)rows;

    for (size_t i = 0; i < matrices; i++, a += rows, averages += rows) {
        double mean = 0;
        for (size_t k = 0; k < rows; k++)
            mean += share * (double)averages[k];
        mean = mean > 0 ? mean : 1;
        for (size_t k = 0; k < rows; k++)
            a[k] = (real)sqrt((double)averages[k] / mean);
    }
}

KERNEL void REAL(factor_column_roots)(real *restrict b, const real *restrict averages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        b[i] = real_sqrt(averages[i]);
}

KERNEL void REAL(factor_roots)(real *restrict out, size_t start, size_t count,
                               const real *restrict a, const real *restrict b, size_t rows,
                               size_t columns)
{
    size_t row = start / columns, column = start % columns, rows_left = rows - row % rows;

    a += row;
    b += row / rows * columns;
    for (size_t size; count > 0; count -= size, out += size) {
        size = columns - column < count ? columns - column : count;
        for (size_t k = 0; k < size; k++)
            out[k] = *a * b[column + k];
        a++;
        column = 0;
        if (--rows_left == 0) {
            rows_left = rows;
            b += columns;
        }
    }
}
