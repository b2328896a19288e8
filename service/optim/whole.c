/* The step of one tensor, in blocks of WHOLE_BLOCK elements: gradient, weights, next weights and
 * two slots of a block are 160 KiB in f32 and stay in the second-level cache between the stages. */
#include "service/optim/whole.h"

#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/crew.h"
#include "service/kernel/reduce.h"
#include "service/kernel/unpack.h"
#include "service/kernel/vector.h"

enum { SEGMENT_MIN = 8 * WHOLE_BLOCK };

size_t REAL(whole_segment)(size_t count)
{
    size_t segment = (count + WHOLE_SEGMENTS - 1) / WHOLE_SEGMENTS;

    segment = (segment + WHOLE_BLOCK - 1) / WHOLE_BLOCK * WHOLE_BLOCK;
    return segment < SEGMENT_MIN ? SEGMENT_MIN : segment;
}

const real *REAL(condition)(const struct conditioning *conditioning, const real *g,
                            const real *param, real *q, size_t count)
{
    const struct conditioning *c = conditioning;
    bool clips = isfinite(c->clip_value);

    if (c->rescale == 1 && c->clip_scale == 1 && !clips && c->decay == 0)
        return g;
    if (clips && !c->clips_last) {
        REAL(vector_scale)(q, g, (real)c->rescale, count);
        REAL(vector_clamp)(q, (real)c->clip_value, count);
        if (c->clip_scale != 1)
            for (size_t i = 0; i < count; i++)
                q[i] *= (real)c->clip_scale;
    } else {
        REAL(vector_scale)(q, g, (real)(c->rescale * c->clip_scale), count);
    }
    if (c->decay != 0)
        REAL(vector_add_scaled)(q, param, (real)c->decay, count);
    if (clips && c->clips_last)
        REAL(vector_clamp)(q, (real)c->clip_value, count);
    return q;
}

const real *REAL(shrink)(const struct conditioning *conditioning, const real *param, real *shrunk,
                         size_t count)
{
    if (conditioning->shrink == 0)
        return param;
    REAL(vector_scale)(shrunk, param, (real)(1 - conditioning->shrink), count);
    return shrunk;
}

const real *REAL(gradient_block)(const struct wire_gradient *gradient, size_t start, size_t count,
                                 real *scratch)
{
    const unsigned char *from =
        (const unsigned char *)gradient->data + start * dtype_size(gradient->wire);

    if (gradient->form != FORM_DENSE)
        REAL(unpack_block)(gradient, start, count, scratch);
    else if (gradient->wire == REAL_DTYPE)
        return (const real *)(const void *)from;
    else
        dtype_convert(REAL_DTYPE, scratch, gradient->wire, from, count);
    return scratch;
}

const real *REAL(whole_load)(const struct whole *whole, size_t start, size_t count,
                             const real *param, real *scratch)
{
    const real *g =
        REAL(gradient_block)(whole->gradient, whole->piece.start + start, count, scratch);
    real *q = scratch + WHOLE_BLOCK;

    if (!whole->rule->raw)
        return REAL(condition)(&whole->conditioning, g, param, q, count);
    /* A raw rule conditions for itself; only clip_scale, the gradient's own, is done for it. */
    if (whole->conditioning.clip_scale == 1)
        return g;
    REAL(vector_scale)(q, g, (real)whole->conditioning.clip_scale, count);
    return q;
}

/* One pass over a tensor: reduce or update. */
struct pass {
    const struct whole *whole;
    void (*reduce)(const struct piece *piece, const void *context, double *sums);
    void (*update)(const struct piece *piece, const void *context);
    const void *context;
    size_t segment;
    size_t sum_count;
    struct tally_run run; /* of an update: its sums are moved and size */
    double sums[WHOLE_SEGMENTS][WHOLE_SUMS_MAX];
    struct tally_edge edges[WHOLE_SEGMENTS];
};

/* The average and the norms, beside the weights while they are in cache. */
static void finish_block(const struct whole *whole, const real *next, const real *last,
                         size_t start, size_t count, struct tally_walk *tally)
{
    size_t at = whole->piece.start + start, end = at + count;

    if (whole->average != NULL)
        REAL(vector_average)
    (real_at(whole->next_average, start), real_at(whole->average, start), next,
     (real)whole->average_rest, count);
    while (at < end) {
        size_t some = tally_piece(tally, at, end);
        double moved, size;
        REAL(reduce_update)(next, last, some, &moved, &size);
        at += some;
        next += some;
        last += some;
        tally_add(tally, at, moved, size);
    }
}

/* The rule's own part of a block. */
static void run_piece(const struct pass *pass, size_t start, size_t count, double *sums)
{
    const struct whole *whole = pass->whole;
    const struct optimizer *rule = whole->rule;
    const real *last = real_at(whole->piece.param, start);
    real scratch[2 * WHOLE_BLOCK], shrunk[WHOLE_BLOCK];
    void *slot[SLOTS_MAX] = {NULL};
    struct piece piece = whole->piece;

    piece.count = count;
    piece.start += start;
    piece.last = last;
    piece.param = rule->raw ? last : REAL(shrink)(&whole->conditioning, last, shrunk, count);
    piece.grad = REAL(whole_load)(whole, start, count, piece.param, scratch);
    piece.next_param = real_at(whole->piece.next_param, start);
    piece.base = real_at(whole->piece.base, start);
    for (size_t k = 0; k < rule->slot_count; k++)
        slot[k] = rule->slots[k].extent != NULL ? whole->piece.slot[k]
                                                : real_at(whole->piece.slot[k], start);
    piece.slot = slot;
    if (pass->reduce != NULL) {
        double own[WHOLE_SUMS_MAX] = {0};
        pass->reduce(&piece, pass->context, own);
        for (size_t k = 0; k < pass->sum_count; k++)
            sums[k] += own[k];
    } else {
        pass->update(&piece, pass->context);
    }
}

/* Only the rows that were sent move. */
static void run_lazily(const struct pass *pass, size_t start, size_t count)
{
    const struct whole *whole = pass->whole;
    bool sent;

    for (size_t end = start + count, some; start < end; start += some) {
        some = packed_run(whole->gradient, whole->piece.start + start, whole->piece.start + end,
                          &sent);
        if (sent)
            run_piece(pass, start, some, NULL);
        else
            memcpy(real_at(whole->piece.next_param, start), real_at(whole->piece.param, start),
                   some * sizeof(real));
    }
}

static void run_block(const struct pass *pass, size_t start, size_t count, double *sums,
                      struct tally_walk *tally)
{
    const struct whole *whole = pass->whole;

    if (whole->lazy && pass->update != NULL)
        run_lazily(pass, start, count);
    else
        run_piece(pass, start, count, sums);
    if (pass->update != NULL)
        finish_block(whole, real_at(whole->piece.next_param, start),
                     real_at(whole->piece.param, start), start, count, tally);
}

static void run_segment(void *context, size_t index)
{
    struct pass *pass = context;
    size_t start = index * pass->segment, end = start + pass->segment;
    double sums[WHOLE_SUMS_MAX] = {0};
    struct tally_walk tally;

    if (end > pass->whole->count)
        end = pass->whole->count;
    if (pass->update != NULL)
        tally_begin(&tally, &pass->run, pass->whole->piece.start + start, &pass->edges[index]);
    for (; start < end; start += WHOLE_BLOCK)
        run_block(pass, start, end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK, sums, &tally);
    if (pass->update != NULL) {
        tally_end(&tally);
        sums[0] = tally.all.one;
        sums[1] = tally.all.two;
    }
    for (size_t k = 0; k < WHOLE_SUMS_MAX; k++)
        pass->sums[index][k] = sums[k];
}

static size_t run_pass(struct pass *pass, double *sums)
{
    size_t segments;

    pass->segment = REAL(whole_segment)(pass->whole->count);
    segments = (pass->whole->count + pass->segment - 1) / pass->segment;
    crew_run(segments, run_segment, pass);
    for (size_t k = 0; k < pass->sum_count; k++) {
        sums[k] = 0;
        for (size_t i = 0; i < segments; i++)
            sums[k] += pass->sums[i][k];
    }
    return segments;
}

void REAL(whole_reduce)(const struct whole *whole,
                        void (*task)(const struct piece *piece, const void *context, double *sums),
                        const void *context, size_t sum_count, double *sums)
{
    struct pass pass; /* not its sums: clearing them costs more than a small step */

    PRE(sum_count <= WHOLE_SUMS_MAX);
    pass.whole = whole;
    pass.reduce = task;
    pass.update = NULL;
    pass.context = context;
    pass.sum_count = sum_count;
    run_pass(&pass, sums);
}

static void write_note(void *context, size_t index, struct tally_sums sums)
{
    struct tensor_note *notes = context;

    notes[index].update_norm = (float)sqrt(sums.one);
    notes[index].weight_norm = (float)sqrt(sums.two);
}

void REAL(whole_update)(struct whole *whole,
                        void (*task)(const struct piece *piece, const void *context),
                        const void *context)
{
    struct pass pass; /* as above */
    double sums[2];

    pass.whole = whole;
    pass.reduce = NULL;
    pass.update = task;
    pass.context = context;
    pass.sum_count = 2;
    pass.run = (struct tally_run){.tensors = whole->tensors,
                                  .count = whole->tensor_count,
                                  .note = whole->notes == NULL ? NULL : write_note,
                                  .context = whole->notes};
    size_t segments = run_pass(&pass, sums);
    tally_join(&pass.run, pass.edges, segments);
    whole->moved = sums[0];
    whole->size = sums[1];
}
