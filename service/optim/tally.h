/* Two sums of every tensor (and of all), from a pass that goes over a run of tensors by blocks in
 * segments (whole.h). Blocks and segments start and end anywhere in a tensor: a tally cuts each
 * block at the tensors' ends, and joins what several segments have of one tensor. Sums are added
 * in the order of the elements: their bits do not depend on who took which segment. */
#ifndef DESCENT_OPTIM_TALLY_H
#define DESCENT_OPTIM_TALLY_H

#include <stdbool.h>
#include <stddef.h>

#include "service/tensor/layout.h"

struct tally_sums {
    double one, two;
};

/* The tensors, and who is told. */
struct tally_run {
    const struct tensor *tensors; /* neighbours in a layout; they may be empty */
    size_t count;                 /* > 0 */
    /* The sums of a tensor that is not empty, once each; from any thread. NULL: only the sums of
     * all are wanted. */
    void (*note)(void *context, size_t index, struct tally_sums sums);
    void *context;
};

/* What a segment has of tensors that are not in it as a whole. */
struct tally_edge {
    struct tally_sums head; /* of the tensor that began before it */
    struct tally_sums tail; /* of the tensor that begins in it and goes on after it */
    size_t ended;           /* that of head, if it ends in it; else SIZE_MAX */
    bool begun;             /* there is a tail */
};

/* A segment under way. */
struct tally_walk {
    struct tally_sums all; /* after tally_end: of the segment */
    /* internal */
    const struct tally_run *run;
    struct tally_edge *edge;
    size_t from, index;
    bool open; /* some of tensor `index` is in `sums` */
    struct tally_sums sums;
};

/* A segment from that element of the model on. */
void tally_begin(struct tally_walk *tally, const struct tally_run *run, size_t from,
                 struct tally_edge *edge);
void tally_end(struct tally_walk *tally);

/* When all segments are through. */
void tally_join(const struct tally_run *run, const struct tally_edge *edges, size_t segments);

void tally_close(struct tally_walk *tally); /* internal */

/* How many of the elements at .. end-1 of the model are of one tensor: so many go into the next
 * tally_add. at: where the last ended. */
static inline size_t tally_piece(struct tally_walk *tally, size_t at, size_t end)
{
    const struct tensor *tensor = &tally->run->tensors[tally->index];

    for (; tensor->count == 0; tensor++)
        tally->index++;
    size_t tensor_end = tensor->offset + tensor->count;
    return (tensor_end < end ? tensor_end : end) - at;
}

/* The sums of these elements; end: where they end. */
static inline void tally_add(struct tally_walk *tally, size_t end, double one, double two)
{
    const struct tensor *tensor = &tally->run->tensors[tally->index];

    tally->sums.one += one;
    tally->sums.two += two;
    tally->open = true;
    if (end == tensor->offset + tensor->count)
        tally_close(tally);
}

#endif
