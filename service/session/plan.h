/* How a rule goes over a layout: the parts it is called with, one a tensor (grain tensor) or one
 * for each run of tensors that are treated alike (grain element), with the factors of their groups
 * and where their state lies. Fixed for a session's life. */
#ifndef DESCENT_SESSION_PLAN_H
#define DESCENT_SESSION_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/status.h"
#include "service/optim/optimizer.h"
#include "service/session/spec.h"
#include "service/tensor/layout.h"

struct part {
    const struct tensor *tensor;       /* of the layout; NULL: a run */
    size_t tensor_start, tensor_count; /* tensors of the layout it consists of, empty ones too */
    size_t start, count;               /* elements; count > 0 */
    double lr_mult, weight_decay_mult;
    bool adapt;
    size_t slot_start[SLOTS_MAX]; /* where its numbers begin in each slot */
    size_t proposal_start;
};

struct plan {
    const struct optimizer *rule;
    const struct layout *layout;
    size_t part_count; /* 0: every tensor is empty */
    struct part *parts;
    size_t slot_count[SLOTS_MAX]; /* numbers of each slot, needed or not */
    size_t proposal_count;        /* numbers that the rule proposes */
    size_t workspace;             /* bytes, for the tensor that needs most */
};

/* The plan of spec's rule and groups for the layout, which must outlive it. INVALID_FIELD for a
 * pattern of a group that matches no tensor, where = "/groups/i/tensors/k"; INTERNAL when memory is
 * out. */
enum status plan_new(const struct spec *spec, const struct layout *layout, struct plan **out,
                     struct fault *fault);
void plan_free(struct plan *plan); /* NULL is allowed */

#endif
