/* Sums in fixed lanes. */
#include "service/kernel/reduce.h"

#include "service/core/simd.h"
#include "service/kernel/lanes.h"

/* What fills no lanes is put into lanes of zeros, for that keeps a compiler in its registers. And
 * every sum has a loop of its own over a piece that is in cache: gcc 12 makes half a vector loop,
 * or none, of two sums in one. */
static inline void fill_lanes(real lane[LANES], const real *values, size_t count)
{
    uint32_t some = (uint32_t)count; /* as wide as a lane of f32 */

    for (uint32_t k = 0; k < LANES; k++)
        lane[k] = k < some ? values[k] : 0;
}

static inline void add_squares(double lane[LANES], const real *values)
{
    for (size_t k = 0; k < LANES; k++)
        lane[k] += (double)values[k] * (double)values[k];
}

static inline void add_moves(double lane[LANES], const real *next, const real *last)
{
    for (size_t k = 0; k < LANES; k++) {
        double step = (double)(real)(next[k] - last[k]);
        lane[k] += step * step;
    }
}

static inline void add_zeros(uint32_t lane[LANES], const real *values)
{
    for (size_t k = 0; k < LANES; k++)
        lane[k] += values[k] == 0 ? 1 : 0;
}

KERNEL double REAL(reduce_squares)(const real *values, size_t count)
{
    double lane[LANES] = {0};
    real rest[LANES];
    size_t whole = count - count % LANES;

    for (size_t i = 0; i < whole; i += LANES)
        add_squares(lane, values + i);
    if (whole < count) {
        fill_lanes(rest, values + whole, count - whole);
        add_squares(lane, rest);
    }
    return lanes_sum(lane);
}

KERNEL void REAL(reduce_gradient)(const real *values, size_t count, double *sum, double *zeros)
{
    double lane[LANES] = {0};
    uint32_t zero[LANES] = {0}, found = 0;
    real rest[LANES];
    size_t whole = count - count % LANES;

    for (size_t i = 0; i < whole; i += LANES)
        add_squares(lane, values + i);
    for (size_t i = 0; i < whole; i += LANES)
        add_zeros(zero, values + i);
    if (whole < count) {
        fill_lanes(rest, values + whole, count - whole);
        add_squares(lane, rest);
        add_zeros(zero, rest);
        whole += LANES;
    }
    for (size_t k = 0; k < LANES; k++)
        found += zero[k];
    *zeros = (double)(found - (uint32_t)(whole - count)); /* less those that fill it up */
    *sum = lanes_sum(lane);
}

KERNEL void REAL(reduce_update)(const real *next, const real *last, size_t count,
                                double *difference, double *sum)
{
    double moved[LANES] = {0}, size[LANES] = {0};
    real rest[LANES], other[LANES];
    size_t whole = count - count % LANES;

    for (size_t i = 0; i < whole; i += LANES)
        add_moves(moved, next + i, last + i);
    for (size_t i = 0; i < whole; i += LANES)
        add_squares(size, next + i);
    if (whole < count) {
        fill_lanes(rest, next + whole, count - whole);
        fill_lanes(other, last + whole, count - whole);
        add_moves(moved, rest, other);
        add_squares(size, rest);
    }
    *difference = lanes_sum(moved);
    *sum = lanes_sum(size);
}
