/* The number work of a step: measure a gradient, then advance weights and state by a rule, both in
 * blocks that stay in cache, so that conversion, rescaling, clipping, decay and the receipt's norms
 * cost no further pass over memory.
 *
 *     c = clip_scale * clamp(rescale * g, clip_value)
 *     clip_scale = min(1, clip_norm / norm of the clamped vector)
 *     l2:          q = c + weight_decay * w
 *     decoupled:   q = c, and w shrunk by 1 - lr * weight_decay first
 *     l2_clipped:  q = clamp(clip_scale * rescale * g + weight_decay * w), the norm unclamped
 *
 * Written once, compiled for float and double; `advances(dtype)` gives the functions of a
 * precision. */
#ifndef DESCENT_SESSION_ADVANCE_H
#define DESCENT_SESSION_ADVANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/optim/optimizer.h"
#include "service/tensor/dtype.h"

/* A gradient as it came: `count` elements of `wire` dtype, any of the four. */
struct wire_gradient {
    void *data;
    enum dtype wire;
    size_t count;
};

struct measure {
    double rescale;    /* not 0 */
    double clip_value; /* infinity: none */
    bool norm_clipped; /* take the clipped norm too (clip_norm is set) */
    /* results */
    double norm;         /* L2 norm of rescale * g */
    double clipped_norm; /* L2 norm of clamp(rescale * g); set when norm_clipped */
    size_t bad_count;    /* elements that are not finite in the session's dtype */
    size_t bad_index;    /* the first of them */
};

struct advance {
    const struct optimizer *rule;
    const double *hyper; /* as declared; lr as it is to be used */
    uint64_t update;     /* t: updates applied including this one */
    struct wire_gradient gradient;
    double rescale, clip_value, clip_scale; /* 1, infinity, 1: nothing to do */
    const void *param;                      /* [count] of the rule's dtype */
    void *next_param;                       /* [count] */
    void *slot[SLOTS_MAX];                  /* [count] each; NULL where not needed */
    /* results */
    double update_norm, param_norm; /* L2 norms of w(t) - w(t-1) and of w(t) */
};

struct advance_functions {
    /* One pass over the gradient. */
    void (*measure)(const struct wire_gradient *gradient, struct measure *measure);
    /* Replaces what is not finite (in the session's dtype) by zero, in place. */
    void (*zero_nonfinite)(const struct wire_gradient *gradient);
    /* One pass over everything. The gradient is finite. */
    void (*run)(struct advance *advance);
};

extern const struct advance_functions advance_f32, advance_f64;

static inline const struct advance_functions *advances(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? &advance_f64 : &advance_f32;
}

#endif
