/* The mean of a round: one pass over each member's gradient, in whatever form it came, a block of
 * all of them at a time, so that the sums stay in cache.
 *
 *     mean:  out = sum_k n_k g_k / sum_k n_k        sum:  out = sum_k g_k
 *     vote:  out = sign(sum_k sign(g_k)), sign(0) = 0
 *
 * The sums are taken in double, in the members' order, and rounded once: the bits depend on that
 * order alone, not on threads. A delta (w_client - w_fetched) counts as a gradient times -1. */
#ifndef DESCENT_SESSION_MEAN_H
#define DESCENT_SESSION_MEAN_H

#include <stdbool.h>
#include <stddef.h>

#include "service/tensor/gradient.h"

struct mean_member {
    struct wire_gradient gradient;
    double weight; /* n_k, or 1; negative for a delta */
};

struct mean {
    const struct mean_member *members;
    size_t count;   /* > 0 */
    double divisor; /* sum of the n_k, or 1 */
    bool vote;
};

/* Into out[count], count being that of each gradient. */
void mean_take_f32(const struct mean *mean, void *out);
void mean_take_f64(const struct mean *mean, void *out);

#endif
