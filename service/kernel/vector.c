/* Element-wise vector operations. Portable loops; see service/core/simd.h. */
#include "service/kernel/vector.h"

#include "service/core/simd.h"

KERNEL void REAL(vector_scale)(real *restrict out, const real *restrict in, real factor,
                               size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = factor * in[i];
}

KERNEL void REAL(vector_clamp)(real *values, real bound, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        real value = values[i];
        value = value > bound ? bound : value;
        values[i] = value < -bound ? -bound : value;
    }
}

KERNEL void REAL(vector_add_scaled)(real *restrict values, const real *restrict other, real factor,
                                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] += factor * other[i];
}

KERNEL void REAL(vector_average)(real *restrict out, const real *restrict last,
                                 const real *restrict value, real rest, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = last[i] + rest * (value[i] - last[i]);
}

KERNEL void REAL(vector_add_weighted)(double *restrict sum, const real *restrict in, double weight,
                                      size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += weight * (double)in[i];
}

KERNEL static void add_four(double *restrict sum, const real *restrict a, const real *restrict b,
                            const real *restrict c, const real *restrict d, const double weight[4],
                            size_t count)
{
    double wa = weight[0], wb = weight[1], wc = weight[2], wd = weight[3];

    for (size_t i = 0; i < count; i++)
        sum[i] = (((sum[i] + wa * (double)a[i]) + wb * (double)b[i]) + wc * (double)c[i]) +
                 wd * (double)d[i];
}

void REAL(vector_add_four_weighted)(double *restrict sum, const real *const in[4],
                                    const double weight[4], size_t count)
{
    add_four(sum, in[0], in[1], in[2], in[3], weight, count);
}

KERNEL void REAL(vector_add_signs)(double *restrict sum, const real *restrict in, double one,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double up = in[i] > 0 ? one : 0;
        double down = in[i] < 0 ? one : 0;
        sum[i] += up - down;
    }
}

KERNEL void REAL(vector_quotient)(real *out, const double *sum, double divisor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (real)(sum[i] / divisor);
}

KERNEL void REAL(vector_signs)(real *restrict out, const double *restrict sum, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        real up = sum[i] > 0 ? 1 : 0;
        real down = sum[i] < 0 ? 1 : 0;
        out[i] = up - down;
    }
}
