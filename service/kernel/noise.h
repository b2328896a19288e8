/* Standard normal numbers for the update rules: a pure function of (seed, step, element), so that
 * replay, threads and any cut of the vector draw the same. */
#ifndef DESCENT_KERNEL_NOISE_H
#define DESCENT_KERNEL_NOISE_H

#include <stddef.h>
#include <stdint.h>

#include "service/kernel/real.h"

/* What a step's stream is counted from. The streams that the parameters were drawn from (rng.h) are
 * the tensors' indices, under the same seed: noise must not repeat them. */
#define NOISE_STREAM 0x6e6f697365000000 /* "noise" */

/* out[k] = the number of element start + k, k < count. Elements 2j and 2j + 1 share the block
 * rng_block(seed, NOISE_STREAM + step, j): u and v are its halves' first 53 bits as fractions, and
 * the two numbers are sqrt(-2 log(1 - u)) times cos(2 pi v) and sin(2 pi v) (Box & Muller 1958),
 * so at most 8.6 in size. Floats are the doubles, rounded. */
void REAL(noise_normal)(real *out, uint64_t seed, uint64_t step, uint64_t start, size_t count);

#endif
