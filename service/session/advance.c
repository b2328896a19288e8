/* The number work of a step, in blocks of BLOCK elements: gradient, weights, next weights and two
 * slots of a block are 160 KiB in f32 and stay in the second-level cache between the stages. */
#include "service/session/advance.h"

#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/crew.h"
#include "service/kernel/real.h"
#include "service/kernel/reduce.h"
#include "service/kernel/vector.h"

enum { BLOCK = 8192, SEGMENTS = 1024, SEGMENT_MIN = 8 * BLOCK };

/* Below it, squares that were too small for a double may be missing: 2^-1022 / 2^-52. */
#define SQUARES_MIN 0x1p-970

/* The block of the gradient as `real`: the wire's own memory where the types agree, else converted
 * into scratch. */
static const real *load(const struct wire_gradient *gradient, size_t start, size_t count,
                        real *scratch)
{
    const unsigned char *from =
        (const unsigned char *)gradient->data + start * dtype_size(gradient->wire);

    if (gradient->wire == REAL_DTYPE)
        return (const real *)(const void *)from;
    dtype_convert(REAL_DTYPE, scratch, gradient->wire, from, count);
    return scratch;
}

/* Squares of doubles overflow, or vanish, where their norm does not: sum again, scaled by the
 * largest. */
static double careful_norm(const struct wire_gradient *gradient, double rescale, double bound)
{
    real scratch[BLOCK];
    double largest = 0, sum = 0;

    rescale = fabs(rescale);
    for (int pass = 0; pass < 2; pass++)
        for (size_t start = 0; start < gradient->count; start += BLOCK) {
            size_t count = gradient->count - start < BLOCK ? gradient->count - start : BLOCK;
            const real *block = load(gradient, start, count, scratch);
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
    real scratch[BLOCK];

    for (size_t start = 0; start < gradient->count; start += BLOCK) {
        size_t count = gradient->count - start < BLOCK ? gradient->count - start : BLOCK;
        const real *block = load(gradient, start, count, scratch);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]) && measure->bad_count++ == 0)
                measure->bad_index = start + i;
    }
}

static bool squares_hold(double sum)
{
    return isfinite(sum) && sum >= SQUARES_MIN;
}

/* A large vector is cut into at most SEGMENTS parts for the crew, by its length alone: the parts'
 * sums are added in order, so that the bits do not depend on how many threads there are. */
static size_t segment_of(size_t count)
{
    size_t segment = (count + SEGMENTS - 1) / SEGMENTS;

    segment = (segment + BLOCK - 1) / BLOCK * BLOCK;
    return segment < SEGMENT_MIN ? SEGMENT_MIN : segment;
}

struct measuring {
    const struct wire_gradient *gradient;
    const struct measure *measure;
    size_t segment;
    double sum[SEGMENTS], clipped_sum[SEGMENTS];
};

static void measure_segment(void *context, size_t index)
{
    struct measuring *work = context;
    const struct measure *m = work->measure;
    real scratch[BLOCK], clipped[BLOCK];
    size_t start = index * work->segment, end = start + work->segment;
    double sum = 0, clipped_sum = 0;

    if (end > work->gradient->count)
        end = work->gradient->count;
    for (; start < end; start += BLOCK) {
        size_t count = end - start < BLOCK ? end - start : BLOCK;
        const real *block = load(work->gradient, start, count, scratch);
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
    work.segment = segment_of(gradient->count);
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
    real scratch[BLOCK];
    size_t size = dtype_size(gradient->wire);

    for (size_t start = 0; start < gradient->count; start += BLOCK) {
        size_t count = gradient->count - start < BLOCK ? gradient->count - start : BLOCK;
        const real *block = load(gradient, start, count, scratch);
        for (size_t i = 0; i < count; i++)
            if (!isfinite(block[i]))
                memset((unsigned char *)gradient->data + (start + i) * size, 0, size);
    }
}

/* q of a block: what the rule sees as the gradient. Touches nothing when there is nothing to do. */
static const real *condition(const struct advance *a, const real *block, const real *param, real *q,
                             size_t count)
{
    double decay = a->hyper[HYPER_WEIGHT_DECAY];
    int mode = (int)a->hyper[HYPER_WEIGHT_DECAY_MODE];
    bool decays = decay != 0 && mode != DECAY_DECOUPLED;
    bool clips = isfinite(a->clip_value);
    bool clips_last = clips && mode == DECAY_L2_CLIPPED;

    if (a->rescale == 1 && a->clip_scale == 1 && !clips && !decays)
        return block;
    if (clips && !clips_last) {
        REAL(vector_scale)(q, block, (real)a->rescale, count);
        REAL(vector_clamp)(q, (real)a->clip_value, count);
        if (a->clip_scale != 1)
            for (size_t i = 0; i < count; i++)
                q[i] *= (real)a->clip_scale;
    } else {
        REAL(vector_scale)(q, block, (real)(a->rescale * a->clip_scale), count);
    }
    if (decays)
        REAL(vector_add_scaled)(q, param, (real)decay, count);
    if (clips_last)
        REAL(vector_clamp)(q, (real)a->clip_value, count);
    return q;
}

struct running {
    const struct advance *advance;
    size_t segment;
    double moved[SEGMENTS], size[SEGMENTS];
};

static void run_segment(void *context, size_t index)
{
    struct running *work = context;
    const struct advance *a = work->advance;
    real loaded[BLOCK], q[BLOCK], shrunk[BLOCK];
    double shrink = 1 - a->hyper[HYPER_LR] * a->hyper[HYPER_WEIGHT_DECAY];
    bool shrinks = a->hyper[HYPER_WEIGHT_DECAY] != 0 &&
                   (int)a->hyper[HYPER_WEIGHT_DECAY_MODE] == DECAY_DECOUPLED;
    size_t start = index * work->segment, end = start + work->segment;
    double moved = 0, size = 0;

    if (end > a->gradient.count)
        end = a->gradient.count;
    for (; start < end; start += BLOCK) {
        size_t count = end - start < BLOCK ? end - start : BLOCK;
        const real *param = (const real *)a->param + start;
        real *next = (real *)a->next_param + start;
        void *slot[SLOTS_MAX] = {NULL};
        double block_moved, block_size;

        for (size_t k = 0; k < a->rule->slot_count; k++)
            if (a->slot[k] != NULL)
                slot[k] = (real *)a->slot[k] + start;
        const real *block = load(&a->gradient, start, count, loaded);
        block = condition(a, block, param, q, count);
        if (shrinks)
            REAL(vector_scale)(shrunk, param, (real)shrink, count);
        a->rule->update(&(struct piece){.count = count,
                                        .step = a->update,
                                        .hyper = a->hyper,
                                        .grad = block,
                                        .param = shrinks ? shrunk : param,
                                        .next_param = next,
                                        .slot = slot});
        REAL(reduce_update)(next, param, count, &block_moved, &block_size);
        moved += block_moved;
        size += block_size;
    }
    work->moved[index] = moved;
    work->size[index] = size;
}

static void run(struct advance *a)
{
    struct running work;

    work.advance = a;
    work.segment = segment_of(a->gradient.count);
    size_t segments = (a->gradient.count + work.segment - 1) / work.segment;
    double moved = 0, size = 0;

    PRE(a->rule->dtype == REAL_DTYPE && a->update > 0);
    crew_run(segments, run_segment, &work);
    for (size_t i = 0; i < segments; i++) {
        moved += work.moved[i];
        size += work.size[i];
    }
    a->update_norm = sqrt(moved);
    a->param_norm = sqrt(size);
}

const struct advance_functions REAL(advance) = {
    .measure = measure, .zero_nonfinite = zero_nonfinite, .run = run};
