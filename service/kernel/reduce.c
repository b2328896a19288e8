/* Sums in fixed lanes. */
#include "service/kernel/reduce.h"

#include "service/core/simd.h"

enum { LANES = 16 };

static inline double lanes_sum(const double lane[LANES])
{
    double sum[LANES];

    for (int k = 0; k < LANES; k++)
        sum[k] = lane[k];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            sum[k] += sum[k + half];
    return sum[0];
}

KERNEL double REAL(reduce_squares)(const real *values, size_t count)
{
    double lane[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= count; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            lane[k] += (double)values[i + k] * (double)values[i + k];
    for (size_t k = 0; i + k < count; k++)
        lane[k] += (double)values[i + k] * (double)values[i + k];
    return lanes_sum(lane);
}

KERNEL void REAL(reduce_update)(const real *next, const real *last, size_t count,
                                double *difference, double *sum)
{
    double moved[LANES] = {0}, size[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        /* Two loops: gcc 12 turns one into half a vector loop. */
        for (size_t k = 0; k < LANES; k++) {
            double step = (double)(real)(next[i + k] - last[i + k]);
            moved[k] += step * step;
        }
        for (size_t k = 0; k < LANES; k++)
            size[k] += (double)next[i + k] * (double)next[i + k];
    }
    for (size_t k = 0; i + k < count; k++) {
        double step = (double)(real)(next[i + k] - last[i + k]);
        moved[k] += step * step;
        size[k] += (double)next[i + k] * (double)next[i + k];
    }
    *difference = lanes_sum(moved);
    *sum = lanes_sum(size);
}
