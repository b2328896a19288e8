/* The number work of SVRG: the sum of a snapshot's shards, their mean, and the estimate that a step
 * takes in place of its gradient. Each is one pass over memory, cut over the crew by the length
 * alone: the bits do not depend on the number of threads. Written once, compiled for float and
 * double; `estimates(dtype)` gives the functions of a precision. */
#ifndef DESCENT_SESSION_ESTIMATE_H
#define DESCENT_SESSION_ESTIMATE_H

#include "service/tensor/dtype.h"
#include "service/tensor/gradient.h"

struct estimate_functions {
    /* sum[i] += weight * g[i], in double; g as `real`. sum: [gradient->count]. */
    void (*add)(const struct wire_gradient *gradient, double weight, double *sum);
    /* mean[i] = sum[i] / total, rounded to `real`. In place where mean is sum. */
    void (*mean)(const double *sum, double total, void *mean, size_t count);
    /* out[i] = g[i] - coefficient * (pair[i] - mean[i]), in double, rounded once to `real`. */
    void (*correct)(const struct wire_gradient *gradient, const struct wire_gradient *pair,
                    const void *mean, double coefficient, void *out);
};

extern const struct estimate_functions estimate_f32, estimate_f64;

static inline const struct estimate_functions *estimates(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? &estimate_f64 : &estimate_f32;
}

#endif
