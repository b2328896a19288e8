/* The hash of a state: what two sessions that took the same gradients have in common, on any
 * machine.
 *
 *     h = XXH3-128(digest of the layout | u64 step | u64 updates | u64 bit 0: average, bits 8..:
 *                  number of bases, bits 32..: which slots | f64 scalars[2])
 *     for every vector: weights, their average, bases (the newest first), slots in their order;
 *     for every 64 blocks of 256 KiB of it (the last ones are shorter):
 *         h = XXH3-128(h | XXH3-128 of each block)
 *
 * Numbers are little-endian, digests in the canonical order of the XXH3 specification. The blocks
 * are independent: the crew hashes them at the speed of memory. */
#ifndef DESCENT_SESSION_STATE_HASH_H
#define DESCENT_SESSION_STATE_HASH_H

#include "service/core/hash.h"
#include "service/session/plan.h"
#include "service/tensor/layout.h"

struct revision;
struct state;

/* Of the state once `next` is its current revision (or is it already). */
struct digest state_hash(const struct state *state, const struct revision *next,
                         const struct plan *plan);

#endif
