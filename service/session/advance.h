/* The number work of a step: measure a gradient, then advance weights and state by a rule, tensor
 * by tensor (service/optim/whole.h), so that conversion, rescaling, clipping, decay, the average
 * and the receipt's norms cost no further pass over memory.
 *
 *     clip_scale = min(1, clip_norm / norm of clamp(rescale * g, clip_value)), over all tensors;
 *     with l2_clipped and for rules that are raw the norm is of rescale * g
 *
 * Written once, compiled for float and double; `advances(dtype)` gives the functions of a
 * precision. */
#ifndef DESCENT_SESSION_ADVANCE_H
#define DESCENT_SESSION_ADVANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/optim/optimizer.h"
#include "service/optim/whole.h"
#include "service/session/plan.h"
#include "service/tensor/dtype.h"

struct measure {
    double rescale;    /* not 0 */
    double clip_value; /* infinity: none */
    bool norm_clipped; /* take the clipped norm too (clip_norm is set) */
    /* For each tensor (both NULL: not wanted; the norm of all is then summed in another order):
     * grad_norm and zeros are set, not finite where the tensor is not; nonfinite only when there
     * are any, so that what is zeroed and measured again keeps its count. */
    const struct layout *layout;
    struct tensor_note *notes; /* [layout->tensor_count] */
    /* results */
    double norm;         /* L2 norm of rescale * g */
    double clipped_norm; /* L2 norm of clamp(rescale * g); set when norm_clipped */
    size_t bad_count;    /* elements that are not finite in the session's dtype */
    size_t bad_index;    /* the first of them */
};

struct advance {
    const struct plan *plan;
    const double *hyper; /* as declared; lr as it is to be used before the groups' factors */
    uint64_t update;     /* t: updates applied including this one */
    uint64_t seed;
    struct wire_gradient gradient;
    double rescale, clip_value, clip_scale; /* 1, infinity, 1: nothing to do */
    const void *param;                      /* [count] of the rule's dtype */
    void *next_param;                       /* [count] */
    const void *base;                       /* [count]; NULL: not asked for */
    void *slot[SLOTS_MAX];                  /* [plan->slot_count[k]] each; NULL where not needed */
    double *scalar;                         /* [SCALARS_MAX] */
    void *workspace;                        /* plan->workspace bytes */
    const void *proposal;                   /* [plan->proposal_count] */
    const void *average;                    /* [count]; NULL: none */
    void *next_average;                     /* [count] */
    double average_rest;                    /* 1 - decay */
    struct tensor_note *notes;              /* [plan->layout->tensor_count]; NULL: not wanted */
    /* results; and update_norm and weight_norm of the notes */
    double update_norm, param_norm; /* L2 norms of w(t) - w(t-1) and of w(t) */
};

struct advance_functions {
    /* One pass over the gradient. */
    void (*measure)(const struct wire_gradient *gradient, struct measure *measure);
    /* Replaces what is not finite (in the session's dtype) by zero, in place. */
    void (*zero_nonfinite)(const struct wire_gradient *gradient);
    /* What the rule proposes (see optimizer.h), into [plan->proposal_count]; changes nothing else
     * but the workspace. The gradient is finite. */
    void (*propose)(const struct advance *advance, void *proposal);
    /* The step. The gradient is finite. */
    void (*run)(struct advance *advance);
};

extern const struct advance_functions advance_f32, advance_f64;

static inline const struct advance_functions *advances(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? &advance_f64 : &advance_f32;
}

#endif
