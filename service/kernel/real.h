/* `real` is float or double. Files that compute on the numbers of a session are written once and
 * compiled twice, with REAL_BITS 32 and 64 (see REAL in the Makefile); REAL(name) is name_f32 or
 * name_f64. */
#ifndef DESCENT_KERNEL_REAL_H
#define DESCENT_KERNEL_REAL_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "service/tensor/dtype.h"

#ifndef REAL_BITS
#define REAL_BITS 32 /* for tools that look at one file alone */
#endif

#if REAL_BITS == 64
#define real double
#define REAL(name) name##_f64
#define REAL_DTYPE DTYPE_F64
#define real_sqrt sqrt
#define REAL_MAX DBL_MAX
#define REAL_EPSILON DBL_EPSILON
#else
#define real float
#define REAL(name) name##_f32
#define REAL_DTYPE DTYPE_F32
#define real_sqrt sqrtf
#define REAL_MAX ((double)FLT_MAX)
#define REAL_EPSILON ((double)FLT_EPSILON)
#endif

/* Element `start` of a vector of `real`; NULL stays NULL. */
static inline void *real_at(const void *vector, size_t start)
{
    return vector == NULL ? NULL : (real *)(uintptr_t)vector + start;
}

/* base^exponent in double by repeated squaring: the same bits with every libm. */
static inline double power(double base, uint64_t exponent)
{
    double result = 1;

    for (; exponent > 0; exponent >>= 1, base *= base)
        if (exponent & 1)
            result *= base;
    return result;
}

#endif
