/* What rules of grain tensor share: sums of squares of a tensor's gradient and weights, and what
 * they make of norms. Squares are summed in double: a norm is 0 where every element is below 1e-162
 * and infinite where one is above 1e154 (only in f64); both count as no norm, and a rule goes on
 * without it. */
#ifndef DESCENT_OPTIM_LAYERWISE_H
#define DESCENT_OPTIM_LAYERWISE_H

#include <float.h>
#include <math.h>

#include "service/kernel/real.h"
#include "service/kernel/reduce.h"
#include "service/optim/whole.h"

/* A value >= 0, rounded; the largest `real` for one that is larger, as an infinite factor would
 * turn zeros into NaN; 0 for 0 * infinity. */
static inline real layer_real(double value)
{
    return (real)(value < REAL_MAX ? value : value >= REAL_MAX ? REAL_MAX : 0);
}

static inline bool layer_norm_exists(double norm)
{
    return norm > 0 && norm <= DBL_MAX;
}

/* one / other; 1 if either is no norm. */
static inline double layer_ratio(double one, double other)
{
    return layer_norm_exists(one) && layer_norm_exists(other) ? one / other : 1;
}

/* A number between two bounds that may be null. */
static inline double layer_clamp(double value, double lower, double upper)
{
    value = value < lower ? lower : value;
    return value > upper ? upper : value;
}

/* Of rules with lower_bound and upper_bound: their `check`. */
static inline const char *layer_check_bounds(double lower, double upper, const char **field)
{
    *field = "lower_bound";
    return lower > upper ? "lower_bound is more than upper_bound; swap them" : NULL;
}

/* A task of whole_reduce: sums[0] of q^2, sums[1] of w^2. */
static inline void layer_squares(const struct piece *piece, const void *context, double *sums)
{
    (void)context;
    sums[0] = REAL(reduce_squares)(piece->grad, piece->count);
    sums[1] = REAL(reduce_squares)(piece->param, piece->count);
}

/* q of elements start .. start+count-1 (count <= WHOLE_BLOCK) outside a pass of whole_reduce;
 * scratch has room for 2 * WHOLE_BLOCK. The weights are not shrunk for it: decay of the l2 modes,
 * for which alone q needs them, and decoupled decay exclude each other. */
static inline const real *layer_load(const struct whole *whole, size_t start, size_t count,
                                     real *scratch)
{
    return REAL(whole_load)(whole, start, count, real_at(whole->piece.param, start), scratch);
}

/* Sum of squares of a row that may be short: the lanes of reduce_squares cost as much as 16
 * elements. */
static inline double layer_row_squares(const real *row, size_t count)
{
    double sum = 0;

    if (count >= 16)
        return REAL(reduce_squares)(row, count);
    for (size_t i = 0; i < count; i++)
        sum += (double)row[i] * (double)row[i];
    return sum;
}

/* Sum of squares of q over any number of elements; scratch as above. */
static inline double layer_load_squares(const struct whole *whole, size_t start, size_t count,
                                        real *scratch)
{
    double sum = 0;

    for (size_t i = 0; i < count; i += WHOLE_BLOCK) {
        size_t size = count - i < WHOLE_BLOCK ? count - i : WHOLE_BLOCK;
        sum += REAL(reduce_squares)(layer_load(whole, start + i, size, scratch), size);
    }
    return sum;
}

#endif
