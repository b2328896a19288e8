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

/* Below it, squares that were too small for a double may be missing: 2^-1022 / 2^-52. */
#define SQUARES_MIN 0x1p-970

/* Squares of doubles overflow, or vanish, where their norm does not: sum again, scaled by the
 * largest. */
static double careful_norm(const struct wire_gradient *gradient, double rescale, double bound)
{
    real scratch[WHOLE_BLOCK];
    double largest = 0, sum = 0;

    rescale = fabs(rescale);
    for (int pass = 0; pass < 2; pass++)
        for (size_t start = 0; start < gradient->count; start += WHOLE_BLOCK) {
            size_t count =
                gradient->count - start < WHOLE_BLOCK ? gradient->count - start : WHOLE_BLOCK;
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

static void find_nonfinite(const struct wire_gradient *gradient, struct measure *measure)
{
    real scratch[WHOLE_BLOCK];

    for (size_t start = 0; start < gradient->count; start += WHOLE_BLOCK) {
        size_t count =
            gradient->count - start < WHOLE_BLOCK ? gradient->count - start : WHOLE_BLOCK;
        const real *block = REAL(gradient_block)(gradient, start, count, scratch);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]) && measure->bad_count++ == 0)
                measure->bad_index = start + i;
    }
}

static bool squares_hold(double sum)
{
    return isfinite(sum) && sum >= SQUARES_MIN;
}

struct measuring {
    const struct wire_gradient *gradient;
    const struct measure *measure;
    size_t segment;
    double sum[WHOLE_SEGMENTS], clipped_sum[WHOLE_SEGMENTS];
};

static void measure_segment(void *context, size_t index)
{
    struct measuring *work = context;
    const struct measure *m = work->measure;
    real scratch[WHOLE_BLOCK], clipped[WHOLE_BLOCK];
    size_t start = index * work->segment, end = start + work->segment;
    double sum = 0, clipped_sum = 0;

    if (end > work->gradient->count)
        end = work->gradient->count;
    for (; start < end; start += WHOLE_BLOCK) {
        size_t count = end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK;
        const real *block = REAL(gradient_block)(work->gradient, start, count, scratch);
        sum += REAL(reduce_squares)(block, count);
        if (m->norm_clipped && isfinite(m->clip_value)) {
            REAL(vector_scale)(clipped, block, (real)m->rescale, count);
            REAL(vector_clamp)(clipped, (real)m->clip_value, count);
            clipped_sum += REAL(reduce_squares)(clipped, count);
        }
    }
    work->sum[index] = sum;
    work->clipped_sum[index] = clipped_sum;
}

/* A sum of squares is finite only if every element is: one pass answers both questions. */
static void measure(const struct wire_gradient *gradient, struct measure *m)
{
    struct measuring work; /* not its sums: clearing them costs more than a small step */

    work.gradient = gradient;
    work.measure = m;
    work.segment = REAL(whole_segment)(gradient->count);
    size_t segments = (gradient->count + work.segment - 1) / work.segment;
    double sum = 0, clipped_sum = 0;

    crew_run(segments, measure_segment, &work);
    for (size_t i = 0; i < segments; i++) {
        sum += work.sum[i];
        clipped_sum += work.clipped_sum[i];
    }
    m->bad_count = 0;
    m->norm = fabs(m->rescale) * sqrt(sum);
    m->clipped_norm = isfinite(m->clip_value) ? sqrt(clipped_sum) : m->norm;
    if (squares_hold(sum) &&
        (!m->norm_clipped || !isfinite(m->clip_value) || squares_hold(clipped_sum)))
        return;
    find_nonfinite(gradient, m);
    if (m->bad_count > 0)
        return;
    m->norm = careful_norm(gradient, m->rescale, HUGE_VAL);
    m->clipped_norm = careful_norm(gradient, m->rescale, m->clip_value);
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
            if (!isfinite(block[i]))
                memset((unsigned char *)gradient->data + (start + i) * size, 0, size);
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
                            .count = part->count,
                            .adapt = part->adapt,
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
                            .average_rest = a->average_rest};
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
