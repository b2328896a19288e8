/* Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"). The same (seed, stream, index) gives the same number whatever was drawn
 * before, so replay and threads draw alike. */
#ifndef DESCENT_CORE_RNG_H
#define DESCENT_CORE_RNG_H

#include <stdint.h>

/* Four 32-bit numbers for one counter. */
void rng_block(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);

/* Uniform in [0, 1), 53 bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Standard normal (Box & Muller 1958). */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);

#endif
