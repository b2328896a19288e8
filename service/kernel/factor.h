/* Second moments of matrices kept as one number a row and one a column: V_ij = R_i C_j / mean(R),
 * whose root is a_i b_j with a_i = sqrt(R_i / mean(R)), b_j = sqrt(C_j). Matrices of one size lie
 * one after the other, rows in C order; averages stop at the largest number there is. */
#ifndef DESCENT_KERNEL_FACTOR_H
#define DESCENT_KERNEL_FACTOR_H

#include <stddef.h>

#include "service/kernel/real.h"

/* row_sums[r] = sum of the squares of row r of q[count][columns]; squares are added to
 * column_sums[][columns], whose next row is gone to after every `rows` rows. */
void REAL(factor_squares)(const real *q, size_t count, size_t columns, size_t rows,
                          double *row_sums, double *column_sums);

/* averages <- keep averages + take sums / of */
void REAL(factor_average)(real *averages, const double *sums, size_t count, double of, double keep,
                          double take);

/* a of [matrices][rows], b of any number. */
void REAL(factor_row_roots)(real *a, const real *averages, size_t matrices, size_t rows);
void REAL(factor_column_roots)(real *b, const real *averages, size_t count);

/* sqrt(V) of `count` elements from number `start` on: a[matrices][rows] times b[matrices][columns].
 */
void REAL(factor_roots)(real *out, size_t start, size_t count, const real *a, const real *b,
                        size_t rows, size_t columns);

#endif
