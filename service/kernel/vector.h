/* Element-wise vector operations on `real`. Nothing overlaps unless an argument is named in place.
 * All counts are elements. */
#ifndef DESCENT_KERNEL_VECTOR_H
#define DESCENT_KERNEL_VECTOR_H

#include <stddef.h>

#include "service/kernel/real.h"

/* out = factor * in */
void REAL(vector_scale)(real *restrict out, const real *restrict in, real factor, size_t count);

/* values = min(max(values, -bound), bound); NaN stays NaN */
void REAL(vector_clamp)(real *values, real bound, size_t count);

/* values += factor * other */
void REAL(vector_add_scaled)(real *restrict values, const real *restrict other, real factor,
                             size_t count);

/* out = last + rest * (value - last): a step of a moving average with decay 1 - rest */
void REAL(vector_average)(real *restrict out, const real *restrict last, const real *restrict value,
                          real rest, size_t count);

/* sum += weight * in, in double */
void REAL(vector_add_weighted)(double *restrict sum, const real *restrict in, double weight,
                               size_t count);

/* The same for four, one after the other, with one pass over the sums. */
void REAL(vector_add_four_weighted)(double *restrict sum, const real *const in[4],
                                    const double weight[4], size_t count);

/* sum += one * sign(in), sign(0) = 0 */
void REAL(vector_add_signs)(double *restrict sum, const real *restrict in, double one,
                            size_t count);

/* out = sum / divisor, rounded once; in place where out is sum */
void REAL(vector_quotient)(real *out, const double *sum, double divisor, size_t count);

/* out = sign(sum) */
void REAL(vector_signs)(real *restrict out, const double *restrict sum, size_t count);

#endif
