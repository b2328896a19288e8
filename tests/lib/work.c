/* A session's vectors without an engine. */
#include "tests/lib/work.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

void *work_take(size_t size)
{
    void *memory = aligned_alloc(64, (size + 64) / 64 * 64);

    ck_assert_ptr_nonnull(memory);
    memset(memory, WORK_CANARY, (size + 64) / 64 * 64);
    return memory;
}

void work_init(struct work *work, const char *rule, enum dtype dtype, const char *layout)
{
    struct fault fault;

    memset(work, 0, sizeof *work);
    work->layout = tensors_layout(layout);
    work->element = dtype_size(dtype);
    spec_init(&work->spec);
    work->spec.dtype = dtype;
    ck_assert_ptr_nonnull(optimizer_find(rule, dtype));
    spec_set_rule(&work->spec, optimizer_find(rule, dtype));
    ck_assert_int_eq(plan_new(&work->spec, work->layout, &work->plan, &fault), STATUS_OK);
    for (size_t i = 0; i < WORK_VECTORS; i++) {
        size_t count = i < WORK_PROPOSAL ? work->layout->count : work->plan->proposal_count;
        if (i >= WORK_SLOT)
            count = i - WORK_SLOT < work->spec.rule->slot_count
                        ? work->plan->slot_count[i - WORK_SLOT]
                        : 0;
        work->size[i] = count * work->element;
        work->vector[i] = work_take(work->size[i]);
        if (i >= WORK_SLOT)
            memset(work->vector[i], 0, work->size[i]);
    }
    work->workspace = work_take(work->plan->workspace);
}

void work_close(struct work *work)
{
    for (size_t i = 0; i < WORK_VECTORS; i++)
        free(work->vector[i]);
    free(work->workspace);
    plan_free(work->plan);
    layout_release(work->layout);
}

double *work_hyper(struct work *work, const char *name)
{
    size_t index = optimizer_hyper(work->spec.rule, name);

    ck_assert_uint_lt(index, work->spec.rule->hyper_count);
    return &work->spec.hyper[index];
}

void work_fill(struct work *work, int vector, uint64_t seed, double scale)
{
    size_t count = work->size[vector] / work->element;
    double *values = work_take(count * sizeof *values);
    uint64_t state = testing_seed() ^ seed;

    for (size_t i = 0; i < count; i++)
        values[i] = scale * testing_normal(&state);
    dtype_convert(work->spec.dtype, work->vector[vector], DTYPE_F64, values, count);
    free(values);
}

double *work_numbers(const struct work *work, int vector, size_t start, size_t count)
{
    double *values = work_take(count * sizeof *values);

    ck_assert_uint_le((start + count) * work->element, work->size[vector]);
    dtype_convert(DTYPE_F64, values, work->spec.dtype, work->vector[vector] + start * work->element,
                  count);
    return values;
}

static struct advance advance_of(struct work *work, uint64_t update)
{
    struct advance advance = {
        .plan = work->plan,
        .hyper = work->spec.hyper,
        .update = update,
        .gradient = {work->vector[WORK_GRADIENT], work->spec.dtype, work->layout->count},
        .rescale = 1,
        .clip_value = HUGE_VAL,
        .clip_scale = 1,
        .param = work->vector[WORK_PARAM],
        .next_param = work->vector[WORK_NEXT],
        .workspace = work->workspace,
        .proposal = work->vector[WORK_PROPOSAL],
    };

    for (size_t k = 0; k < work->spec.rule->slot_count; k++)
        if (slot_needed(&work->spec.rule->slots[k], work->spec.hyper))
            advance.slot[k] = work->vector[WORK_SLOT + k];
    return advance;
}

void work_propose(struct work *work, uint64_t update)
{
    struct advance advance = advance_of(work, update);

    advances(work->spec.dtype)->propose(&advance, work->vector[WORK_PROPOSAL]);
}

void work_step(struct work *work, uint64_t update)
{
    struct advance advance = advance_of(work, update);

    advances(work->spec.dtype)->run(&advance);
    memcpy(work->vector[WORK_PARAM], work->vector[WORK_NEXT], work->size[WORK_PARAM]);
}

double work_rounding(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
}

double work_distance(const struct work *work, int vector, const long double *expected)
{
    size_t count = work->size[vector] / work->element;
    double *got = work_numbers(work, vector, 0, count);
    long double largest = 0;

    for (size_t i = 0; i < count; i++)
        largest =
            fmaxl(largest, isnan(got[i]) ? HUGE_VALL : fabsl((long double)got[i] - expected[i]));
    free(got);
    return (double)largest;
}
