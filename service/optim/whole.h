/* The step of one tensor (or, for rules of grain element, of a run of tensors that are treated
 * alike): where the cutting, the conditioning, the receipt's norms and the average are done, so
 * that a rule sees only pieces that are in cache.
 *
 *     c = clip_scale * clamp(rescale * g, clip_value)
 *     l2:          q = c + decay * w
 *     l2_clipped:  q = clamp(clip_scale * rescale * g + decay * w)
 *     decoupled:   q = c, and w shrunk by 1 - lr * decay first
 *
 * A rule of grain tensor gets a `struct whole` and passes over it as often as its formula needs:
 * whole_reduce for passes that add up numbers (and may write slots), whole_update exactly once, at
 * the end, for the pass that writes next_param. Each pass is cut over the crew by the tensor's
 * length alone, and sums are added in order: the bits do not depend on the number of threads.
 * Written once, compiled for float and double. */
#ifndef DESCENT_OPTIM_WHOLE_H
#define DESCENT_OPTIM_WHOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "service/kernel/real.h"
#include "service/optim/optimizer.h"
#include "service/optim/tally.h"
#include "service/tensor/gradient.h"
#include "service/tensor/note.h"
#include "service/tensor/packed.h"

enum { WHOLE_BLOCK = 8192, WHOLE_SEGMENTS = 1024, WHOLE_SUMS_MAX = 4 };

struct whole {
    const struct optimizer *rule;
    const struct tensor *tensor;  /* grain tensor: its shape; else NULL */
    const struct tensor *tensors; /* neighbours in the layout, of which it consists */
    size_t tensor_count;          /* > 0 */
    size_t count;                 /* > 0 */
    bool adapt;                   /* false: the group wants no layer-wise rate */
    bool lazy;                    /* only rows that were sent move: the rule is lazy_rows, and the
                                     gradient is FORM_ROWS */
    struct piece piece;   /* of the whole: start, step, hyper, scalar, seed; param (before decoupled
                           decay), next_param, base and slots at their first element */
    void *workspace;      /* as the rule asked for, 64-byte aligned */
    const void *proposal; /* what `propose` computed; [proposal_extent] */
    const struct wire_gradient *gradient; /* of the model */
    struct conditioning conditioning;
    const void *average; /* moving average of the weights, [count]; NULL: none */
    void *next_average;  /* [count] */
    double average_rest; /* 1 - decay */
    /* results of whole_update */
    double moved, size;        /* sums of (w(t) - w(t-1))^2 and of w(t)^2 */
    struct tensor_note *notes; /* [tensor_count]: update_norm and weight_norm of the tensors that
                                  are not empty; NULL: not wanted */
};

/* Whether element `start` of the tensor moves: lazily, not all do. */
static inline bool whole_moves(const struct whole *whole, size_t start)
{
    bool sent = true;

    if (whole->lazy)
        packed_run(whole->gradient, whole->piece.start + start, whole->piece.start + start + 1,
                   &sent);
    return sent;
}

/* How a long vector is cut for the crew: parts of so many elements, whole blocks, at most
 * WHOLE_SEGMENTS of them, by its length alone, so that sums that are added part by part have the
 * same bits whatever the number of threads. */
size_t REAL(whole_segment)(size_t count);

/* Elements start .. start+count-1 of the gradient as `real`, whatever tensors they are of: the
 * wire's own memory where it is not compressed and the types agree, else converted into
 * scratch[count]. */
const real *REAL(gradient_block)(const struct wire_gradient *gradient, size_t start, size_t count,
                                 real *scratch);

/* q of elements start .. start+count-1 of the tensor (count <= WHOLE_BLOCK): computed into scratch,
 * which has room for 2 * WHOLE_BLOCK, or where it lies already. param: the same elements of w. */
const real *REAL(whole_load)(const struct whole *whole, size_t start, size_t count,
                             const real *param, real *scratch);

/* Calls task(piece, context, sums) for pieces of at most WHOLE_BLOCK elements that cover the
 * tensor; what each adds to its sums is added up into sums[sum_count] (at most WHOLE_SUMS_MAX). */
void REAL(whole_reduce)(const struct whole *whole,
                        void (*task)(const struct piece *piece, const void *context, double *sums),
                        const void *context, size_t sum_count, double *sums);

/* The same for the pass that writes next_param. Lazily, what does not move is copied, and the
 * task sees no piece of it. */
void REAL(whole_update)(struct whole *whole,
                        void (*task)(const struct piece *piece, const void *context),
                        const void *context);

/* q = conditioned g for `count` <= WHOLE_BLOCK elements: into q, or g itself where there is nothing
 * to do. For rules that are `raw`. */
const real *REAL(condition)(const struct conditioning *conditioning, const real *g,
                            const real *param, real *q, size_t count);
/* w after decoupled decay, likewise: into shrunk, or param itself. */
const real *REAL(shrink)(const struct conditioning *conditioning, const real *param, real *shrunk,
                         size_t count);

#endif
