/* A rule with its vectors. */
#include "tests/bench/subject.h"

#include <math.h>
#include <string.h>

#include "service/core/simd.h"
#include "tests/bench/bench.h"

static struct buffer *vector(size_t count, unsigned seed)
{
    struct buffer *buffer = buffer_new_zeroed(count * sizeof(float));

    if (buffer == NULL)
        bench_fail("memory");
    if (seed > 0)
        bench_fill((float *)(void *)buffer->data, count, seed);
    return buffer;
}

static float *numbers(const struct buffer *buffer)
{
    return (float *)(void *)buffer->data;
}

static float *from(const struct buffer *buffer, size_t start)
{
    return buffer == NULL ? NULL : numbers(buffer) + start;
}

void subject_open(struct subject *subject, const char *rule, size_t rows, size_t columns)
{
    subject_open_many(subject, rule, 1, rows, columns);
}

static struct layout *layout_of(size_t tensors, size_t rows, size_t columns)
{
    const size_t shape[] = {rows, columns};
    struct layout *layout = layout_new();
    struct fault fault;

    for (size_t i = 0; i < tensors && layout != NULL; i++) {
        const char *name = bench_text("w%zu", i);
        if (layout_add(layout, name, strlen(name), 2, shape, &fault) != STATUS_OK)
            bench_fail("memory");
    }
    if (layout == NULL || layout_seal(layout, &fault) != STATUS_OK)
        bench_fail("memory");
    return layout;
}

void subject_open_many(struct subject *subject, const char *rule, size_t tensors, size_t rows,
                       size_t columns)
{
    struct spec spec;
    struct fault fault;

    *subject = (struct subject){.rule = optimizer_find(rule, DTYPE_F32),
                                .count = tensors * rows * columns};
    spec_init(&spec);
    spec_set_rule(&spec, subject->rule);
    memcpy(subject->hyper, spec.hyper, sizeof subject->hyper);
    subject->layout = layout_of(tensors, rows, columns);
    if (plan_new(&spec, subject->layout, &subject->plan, &fault) != STATUS_OK)
        bench_fail("memory");
    subject->gradient = vector(subject->count, 1);
    subject->weights = vector(subject->count, 2);
    subject->next = vector(subject->count, 0);
    subject->advance =
        (struct advance){.plan = subject->plan,
                         .hyper = subject->hyper,
                         .gradient = {subject->gradient->data, DTYPE_F32, subject->count},
                         .rescale = 1,
                         .clip_value = HUGE_VAL,
                         .clip_scale = 1,
                         .scalar = subject->scalar};
    for (size_t k = 0; k < subject->rule->scalar_count; k++)
        subject->scalar[k] = subject->rule->scalars[k].initial;
    for (size_t k = 0; k < subject->rule->slot_count; k++)
        if (subject->plan->slot_count[k] > 0 &&
            slot_needed(&subject->rule->slots[k], subject->hyper)) {
            subject->slot[k] = vector(subject->plan->slot_count[k], 0);
            subject->advance.slot[k] = subject->slot[k]->data;
        }
    if (subject->plan->workspace > 0) {
        subject->workspace = vector(subject->plan->workspace / sizeof(float) + 1, 0);
        subject->advance.workspace = subject->workspace->data;
    }
    if (subject->plan->proposal_count > 0) {
        subject->proposal = vector(subject->plan->proposal_count, 0);
        subject->advance.proposal = subject->proposal->data;
    }
    if (subject->rule->bases != NULL && subject->rule->bases(subject->hyper) > 0) {
        subject->base = vector(subject->count, 3);
        subject->advance.base = subject->base->data;
    }
}

void subject_close(struct subject *subject)
{
    buffer_release(subject->gradient);
    buffer_release(subject->weights);
    buffer_release(subject->next);
    buffer_release(subject->base);
    buffer_release(subject->workspace);
    buffer_release(subject->proposal);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        buffer_release(subject->slot[k]);
    plan_free(subject->plan);
    layout_release(subject->layout);
    buffer_pool_trim(0);
}

static void swap_weights(struct subject *subject)
{
    struct buffer *next = subject->next;

    subject->next = subject->weights;
    subject->weights = next;
}

void subject_step(struct subject *subject)
{
    subject->advance.update++;
    subject->advance.param = subject->weights->data;
    subject->advance.next_param = subject->next->data;
    if (subject->proposal != NULL)
        advance_f32.propose(&subject->advance, subject->proposal->data);
    advance_f32.run(&subject->advance);
    swap_weights(subject);
}

void subject_update(struct subject *subject)
{
    struct advance *a = &subject->advance;
    size_t count;

    a->update++;
    if (subject->rule->begin != NULL)
        subject->rule->begin(subject->hyper, a->update, subject->scalar);
    for (size_t start = 0; start < subject->count; start += count) {
        void *slot[SLOTS_MAX] = {NULL};
        count = subject->count - start < WHOLE_BLOCK ? subject->count - start : WHOLE_BLOCK;
        for (size_t k = 0; k < subject->rule->slot_count; k++)
            slot[k] = from(subject->slot[k], start);
        subject->rule->update(&(struct piece){.count = count,
                                              .start = start,
                                              .step = a->update,
                                              .hyper = subject->hyper,
                                              .scalar = subject->scalar,
                                              .grad = from(subject->gradient, start),
                                              .param = from(subject->weights, start),
                                              .last = from(subject->weights, start),
                                              .next_param = from(subject->next, start),
                                              .base = from(subject->base, start),
                                              .slot = slot});
    }
    swap_weights(subject);
}

double subject_bytes(const struct subject *subject)
{
    double count = 3 + (subject->base != NULL); /* g, w, w' */

    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (subject->slot[k] != NULL)
            count += 2 * (double)subject->plan->slot_count[k] / (double)subject->count;
    return count * sizeof(float);
}

KERNEL static void triad(float *restrict out, const float *restrict a, const float *restrict b,
                         float s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = a[i] + s * b[i];
}

void subject_triad(struct subject *subject)
{
    triad(numbers(subject->next), numbers(subject->gradient), numbers(subject->weights), 3,
          subject->count);
    __asm__ volatile("" ::: "memory"); /* what is repeated must not be left out */
}

double subject_time(void (*run)(struct subject *subject), struct subject *subject, size_t repeats)
{
    double began = bench_now();

    for (size_t i = 0; i < repeats; i++)
        run(subject);
    return (bench_now() - began) * 1e9 / (double)repeats / (double)subject->count;
}
