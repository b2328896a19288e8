/* The number work of a step: one pass over the gradient to measure it, then the parts of the
 * plan. */
#include "service/session/advance.h"

#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/crew.h"
#include "service/kernel/real.h"
#include "service/kernel/reduce.h"
#include "service/kernel/vector.h"
#include "service/tensor/packed.h"

/* Below it, squares that were too small for a double may be missing: 2^-1022 / 2^-52. */
#define SQUARES_MIN 0x1p-970

/* Squares of doubles overflow, or vanish, where their norm does not: sum those of elements from ..
 * end-1 again, scaled by the largest. */
static double careful_norm(const struct wire_gradient *gradient, size_t from, size_t end,
                           double rescale, double bound)
{
    real scratch[WHOLE_BLOCK];
    double largest = 0, sum = 0;

    rescale = fabs(rescale);
    for (int pass = 0; pass < 2; pass++)
        for (size_t start = from; start < end; start += WHOLE_BLOCK) {
            size_t count = end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK;
            const real *block = REAL(gradient_block)(gradient, start, count, scratch);
            for (size_t i = 0; i < count; i++) {
                double size = fmin(fabs((double)block[i]), bound / rescale);
                if (pass == 0)
                    largest = fmax(largest, size);
                else if (largest > 0)
                    sum += size / largest * (size / largest);
            }
        }
    return rescale * largest * sqrt(sum);
}

/* How many of elements start .. end-1 are not finite; *first: the first of them, if there is
 * one. */
static size_t find_nonfinite(const struct wire_gradient *gradient, size_t start, size_t end,
                             size_t *first)
{
    real scratch[WHOLE_BLOCK];
    size_t found = 0;

    for (; start < end; start += WHOLE_BLOCK) {
        size_t count = end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK;
        const real *block = REAL(gradient_block)(gradient, start, count, scratch);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]) && found++ == 0)
                *first = start + i;
    }
    return found;
}

static bool squares_hold(double sum)
{
    return isfinite(sum) && sum >= SQUARES_MIN;
}

struct measuring {
    const struct wire_gradient *gradient;
    const struct measure *measure;
    size_t segment;
    struct tally_run run; /* its sums are squares and zeros */
    double sum[WHOLE_SEGMENTS], clipped_sum[WHOLE_SEGMENTS];
    struct tally_edge edges[WHOLE_SEGMENTS];
};

/* The norms and zeros of a block's tensors. */
static void measure_tensors(struct tally_walk *tally, const real *block, size_t at, size_t count)
{
    for (size_t end = at + count; at < end;) {
        size_t some = tally_piece(tally, at, end);
        double squares, zeros;
        REAL(reduce_gradient)(block, some, &squares, &zeros);
        at += some;
        block += some;
        tally_add(tally, at, squares, zeros);
    }
}

static void measure_segment(void *context, size_t index)
{
    struct measuring *work = context;
    const struct measure *m = work->measure;
    real scratch[WHOLE_BLOCK], clipped[WHOLE_BLOCK];
    size_t start = index * work->segment, end = start + work->segment;
    double sum = 0, clipped_sum = 0;
    struct tally_walk tally;

    if (m->notes != NULL)
        tally_begin(&tally, &work->run, start, &work->edges[index]);
    if (end > work->gradient->count)
        end = work->gradient->count;
    for (; start < end; start += WHOLE_BLOCK) {
        size_t count = end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK;
        const real *block = REAL(gradient_block)(work->gradient, start, count, scratch);
        if (m->notes != NULL)
            measure_tensors(&tally, block, start, count);
        else
            sum += REAL(reduce_squares)(block, count);
        if (m->norm_clipped && isfinite(m->clip_value)) {
            REAL(vector_scale)(clipped, block, (real)m->rescale, count);
            REAL(vector_clamp)(clipped, (real)m->clip_value, count);
            clipped_sum += REAL(reduce_squares)(clipped, count);
        }
    }
    if (m->notes != NULL) {
        tally_end(&tally);
        sum = tally.all.one;
    }
    work->sum[index] = sum;
    work->clipped_sum[index] = clipped_sum;
}

static void write_note(void *context, size_t index, struct tally_sums sums)
{
    const struct measure *m = context;

    m->notes[index].grad_norm = (float)(fabs(m->rescale) * sqrt(sums.one));
    m->notes[index].zeros = (float)(sums.two / (double)m->layout->tensors[index].count);
}

/* Before the tensors that are not empty are noted. */
static void start_notes(struct measure *m, struct tally_run *run)
{
    for (size_t i = 0; i < m->layout->tensor_count; i++)
        m->notes[i].grad_norm = m->notes[i].zeros = 0;
    *run = (struct tally_run){m->layout->tensors, m->layout->tensor_count, write_note, m};
}

static void count_nonfinite(const struct wire_gradient *gradient, struct measure *m)
{
    for (size_t i = 0; i < m->layout->tensor_count; i++) {
        const struct tensor *tensor = &m->layout->tensors[i];
        size_t first, end = tensor->offset + tensor->count;
        size_t found = find_nonfinite(gradient, tensor->offset, end, &first);
        m->notes[i].nonfinite = found < UINT32_MAX ? (uint32_t)found : UINT32_MAX;
    }
}

/* Where squares of doubles overflow or vanish, a norm is beyond 2^500 or below 2^-480 and so beyond
 * a float whatever it is, unless the scale is as far from 1. */
static void mend_notes(const struct wire_gradient *gradient, struct measure *m)
{
    double scale = fabs(m->rescale);

    if (REAL_DTYPE == DTYPE_F32 || (scale > 0x1p-300 && scale < 0x1p300))
        return;
    for (size_t i = 0; i < m->layout->tensor_count; i++) {
        const struct tensor *tensor = &m->layout->tensors[i];
        m->notes[i].grad_norm = (float)careful_norm(
            gradient, tensor->offset, tensor->offset + tensor->count, m->rescale, HUGE_VAL);
    }
}

/* A sum of squares is finite only if every element is: one pass answers both questions. */
static void measure(const struct wire_gradient *gradient, struct measure *m)
{
    struct measuring work; /* not its sums: clearing them costs more than a small step */

    work.gradient = gradient;
    work.measure = m;
    work.segment = REAL(whole_segment)(gradient->count);
    if (m->notes != NULL)
        start_notes(m, &work.run);
    size_t segments = (gradient->count + work.segment - 1) / work.segment;
    double sum = 0, clipped_sum = 0;

    crew_run(segments, measure_segment, &work);
    for (size_t i = 0; i < segments; i++) {
        sum += work.sum[i];
        clipped_sum += work.clipped_sum[i];
    }
    if (m->notes != NULL)
        tally_join(&work.run, work.edges, segments);
    m->bad_count = 0;
    m->norm = fabs(m->rescale) * sqrt(sum);
    m->clipped_norm = isfinite(m->clip_value) ? sqrt(clipped_sum) : m->norm;
    /* No square of a float vanishes in a double. */
    bool zeros = REAL_DTYPE == DTYPE_F32 && sum == 0;
    if (!zeros && (!squares_hold(sum) ||
                   (m->norm_clipped && isfinite(m->clip_value) && !squares_hold(clipped_sum)))) {
        m->bad_count = find_nonfinite(gradient, 0, gradient->count, &m->bad_index);
        if (m->bad_count > 0) {
            if (m->notes != NULL)
                count_nonfinite(gradient, m);
            return;
        }
        m->norm = careful_norm(gradient, 0, gradient->count, m->rescale, HUGE_VAL);
        m->clipped_norm = careful_norm(gradient, 0, gradient->count, m->rescale, m->clip_value);
    }
    if (m->notes != NULL)
        mend_notes(gradient, m);
}

static void zero_nonfinite(const struct wire_gradient *gradient)
{
    real scratch[WHOLE_BLOCK];
    size_t size = dtype_size(gradient->wire);

    for (size_t start = 0; start < gradient->count; start += WHOLE_BLOCK) {
        size_t count =
            gradient->count - start < WHOLE_BLOCK ? gradient->count - start : WHOLE_BLOCK;
        const real *block = REAL(gradient_block)(gradient, start, count, scratch);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]) && gradient->form == FORM_DENSE)
                memset((unsigned char *)gradient->data + (start + i) * size, 0, size);
            else if (!isfinite(block[i]))
                packed_zero(gradient, start + i);
    }
}

/* The conditioning of a part, and its hyperparameters with the group's factors. */
static void set_part(const struct advance *a, const struct part *part, double hyper[HYPERS_MAX],
                     struct conditioning *out)
{
    int mode = (int)a->hyper[HYPER_WEIGHT_DECAY_MODE];
    bool owned = a->plan->rule->decays && mode == DECAY_L2;

    memcpy(hyper, a->hyper, HYPERS_MAX * sizeof *hyper);
    hyper[HYPER_LR] *= part->lr_mult;
    double decay = hyper[HYPER_WEIGHT_DECAY] * part->weight_decay_mult;
    *out = (struct conditioning){.rescale = a->rescale,
                                 .clip_value = a->clip_value,
                                 .clip_scale = a->clip_scale,
                                 .decay = owned || mode == DECAY_DECOUPLED ? 0 : decay,
                                 .clips_last = mode == DECAY_L2_CLIPPED,
                                 .shrink = mode == DECAY_DECOUPLED ? hyper[HYPER_LR] * decay : 0};
    hyper[HYPER_WEIGHT_DECAY] = owned ? decay : 0;
}

/* Fills the whole for a part. hyper and slot: memory that the whole points to. */
static void set_whole(const struct advance *a, const struct part *part, double hyper[HYPERS_MAX],
                      void *slot[SLOTS_MAX], struct whole *whole)
{
    *whole = (struct whole){.rule = a->plan->rule,
                            .tensor = part->tensor,
                            .tensors = &a->plan->layout->tensors[part->tensor_start],
                            .tensor_count = part->tensor_count,
                            .count = part->count,
                            .adapt = part->adapt,
                            .lazy = a->plan->rule->lazy_rows && gradient_has_rows(&a->gradient),
                            .piece = {.count = part->count,
                                      .start = part->start,
                                      .step = a->update,
                                      .hyper = hyper,
                                      .scalar = a->scalar,
                                      .seed = a->seed,
                                      .param = real_at(a->param, part->start),
                                      .next_param = real_at(a->next_param, part->start),
                                      .base = real_at(a->base, part->start),
                                      .slot = slot},
                            .workspace = a->workspace,
                            .proposal = real_at(a->proposal, part->proposal_start),
                            .gradient = &a->gradient,
                            .average = real_at(a->average, part->start),
                            .next_average = real_at(a->next_average, part->start),
                            .average_rest = a->average_rest,
                            .notes = a->notes == NULL ? NULL : &a->notes[part->tensor_start]};
    set_part(a, part, hyper, &whole->conditioning);
    whole->piece.conditioning = &whole->conditioning;
    for (size_t k = 0; k < SLOTS_MAX; k++)
        slot[k] = real_at(a->slot[k], part->slot_start[k]);
}

static void propose(const struct advance *a, void *proposal)
{
    double hyper[HYPERS_MAX];
    void *slot[SLOTS_MAX];
    struct whole whole;

    for (size_t i = 0; i < a->plan->part_count; i++) {
        set_whole(a, &a->plan->parts[i], hyper, slot, &whole);
        a->plan->rule->propose(&whole, real_at(proposal, a->plan->parts[i].proposal_start));
    }
}

static void update_element(const struct piece *piece, const void *context)
{
    const struct optimizer *rule = context;

    rule->update(piece);
}

static void run(struct advance *a)
{
    const struct optimizer *rule = a->plan->rule;
    double hyper[HYPERS_MAX];
    void *slot[SLOTS_MAX];
    struct whole whole;
    double moved = 0, size = 0;

    PRE(rule->dtype == REAL_DTYPE && a->update > 0);
    if (rule->begin != NULL)
        rule->begin(a->hyper, a->update, a->scalar);
    for (size_t i = 0; a->notes != NULL && i < a->plan->layout->tensor_count; i++)
        a->notes[i].update_norm = a->notes[i].weight_norm = 0; /* the empty ones stay so */
    for (size_t i = 0; i < a->plan->part_count; i++) {
        set_whole(a, &a->plan->parts[i], hyper, slot, &whole);
        if (rule->update != NULL)
            REAL(whole_update)(&whole, update_element, rule);
        else
            rule->update_tensor(&whole);
        moved += whole.moved;
        size += whole.size;
    }
    a->update_norm = sqrt(moved);
    a->param_norm = sqrt(size);
}

const struct advance_functions REAL(advance) = {
    .measure = measure, .zero_nonfinite = zero_nonfinite, .propose = propose, .run = run};
