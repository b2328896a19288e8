/* Sums in double over `real` vectors, in sixteen fixed lanes that are added in a fixed order: the
 * same bits whatever the vector width. */
#ifndef DESCENT_KERNEL_REDUCE_H
#define DESCENT_KERNEL_REDUCE_H

#include <stddef.h>

#include "service/kernel/real.h"

/* sum of values^2 */
double REAL(reduce_squares)(const real *values, size_t count);

/* *sum = sum of values^2, as above; *zeros = how many are 0. count < 2^32 */
void REAL(reduce_gradient)(const real *values, size_t count, double *sum, double *zeros);

/* *difference = sum of (next - last)^2 (the difference rounded to real), *sum = sum of next^2 */
void REAL(reduce_update)(const real *next, const real *last, size_t count, double *difference,
                         double *sum);

#endif
