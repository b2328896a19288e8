/* Samples of gradients and their angles. */
#include "service/session/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "service/core/simd.h"
#include "service/kernel/lanes.h"

enum { RUNS = SAMPLE_TENSOR / SAMPLE_RUN, TASK_NUMBERS = 1 << 16 };

/* In f32: what a double has beyond it moves no angle. */
struct sample {
    bool kept;
    size_t count; /* of all numbers */
    /* [tensor_count]: where its numbers start, and the sum of their squares */
    struct share {
        size_t start;
        double squares;
    } * shares;
    float numbers[]; /* tensor by tensor */
};

static size_t size_in(size_t count)
{
    return count < SAMPLE_TENSOR ? count : SAMPLE_TENSOR;
}

/* The runs do not overlap: (count - SAMPLE_RUN) / (RUNS - 1) >= SAMPLE_RUN. */
static size_t run_start(size_t count, size_t run)
{
    return run * (count - SAMPLE_RUN) / (RUNS - 1);
}

size_t sample_position(size_t count, size_t index)
{
    return count <= SAMPLE_TENSOR ? index
                                  : run_start(count, index / SAMPLE_RUN) + index % SAMPLE_RUN;
}

static size_t numbers_of(const struct layout *layout)
{
    size_t count = 0;

    for (size_t i = 0; i < layout->tensor_count; i++)
        count += size_in(layout->tensors[i].count);
    return count;
}

size_t sample_bytes(const struct layout *layout)
{
    return sizeof(struct sample) + numbers_of(layout) * sizeof(float) +
           layout->tensor_count * sizeof(struct share);
}

struct sample *sample_new(const struct layout *layout)
{
    struct sample *sample = malloc(sizeof *sample + numbers_of(layout) * sizeof(float));
    struct share *shares = calloc(layout->tensor_count, sizeof *shares);

    if (sample == NULL || shares == NULL) {
        free(sample);
        free(shares);
        return NULL;
    }
    sample->shares = shares;
    sample->count = 0;
    for (size_t i = 0; i < layout->tensor_count; i++) {
        shares[i].start = sample->count;
        sample->count += size_in(layout->tensors[i].count);
    }
    sample_forget(sample);
    return sample;
}

void sample_free(struct sample *sample)
{
    if (sample != NULL)
        free(sample->shares);
    free(sample);
}

void sample_forget(struct sample *sample)
{
    sample->kept = false;
}

/* The tensor's numbers of the sample: where they lie, or in scratch. */
static const float *take(const struct tensor *tensor, const struct wire_gradient *gradient,
                         float scratch[SAMPLE_TENSOR])
{
    if (tensor->count <= SAMPLE_TENSOR)
        return gradient_block_f32(gradient, tensor->offset, tensor->count, scratch);
    for (size_t run = 0; run < RUNS; run++) {
        float *to = scratch + run * SAMPLE_RUN;
        const float *from = gradient_block_f32(
            gradient, tensor->offset + run_start(tensor->count, run), SAMPLE_RUN, to);
        if (from != to)
            memcpy(to, from, SAMPLE_RUN * sizeof *to);
    }
    return scratch;
}

/* *product = sum of kept * now, *squares = sum of now^2; then kept = now. */
KERNEL static void turn(float *restrict kept, const float *restrict now, size_t count,
                        double *product, double *squares)
{
    double both[LANES] = {0}, one[LANES] = {0};
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; k++)
            both[k] += (double)kept[i + k] * (double)now[i + k];
        for (size_t k = 0; k < LANES; k++)
            one[k] += (double)now[i + k] * (double)now[i + k];
        for (size_t k = 0; k < LANES; k++)
            kept[i + k] = now[i + k];
    }
    if (i < count) {
        float rest[LANES], other[LANES];
        uint32_t some = (uint32_t)(count - i);
        for (uint32_t k = 0; k < LANES; k++)
            rest[k] = k < some ? now[i + k] : 0;
        for (uint32_t k = 0; k < LANES; k++)
            other[k] = k < some ? kept[i + k] : 0;
        for (size_t k = 0; k < LANES; k++)
            both[k] += (double)other[k] * (double)rest[k];
        for (size_t k = 0; k < LANES; k++)
            one[k] += (double)rest[k] * (double)rest[k];
        for (; i < count; i++)
            kept[i] = now[i];
    }
    *product = lanes_sum(both);
    *squares = lanes_sum(one);
}

/* Of the angle between vectors of these squares; 0 / 0 is NaN, and so is what is not finite. */
static float cosine(double product, double one, double other)
{
    double value = product / (sqrt(one) * sqrt(other));

    return (float)(value > 1 ? 1 : value < -1 ? -1 : value);
}

struct turning {
    struct sample *sample;
    const struct layout *layout;
    const struct wire_gradient *gradient;
    struct tensor_note *notes;
    size_t tasks;
};

/* Part `index` of the tensors. */
static void turn_some(void *context, size_t index)
{
    const struct turning *work = context;
    size_t tensors = work->layout->tensor_count;
    float scratch[SAMPLE_TENSOR];

    for (size_t i = tensors * index / work->tasks; i < tensors * (index + 1) / work->tasks; i++) {
        const struct tensor *tensor = &work->layout->tensors[i];
        struct share *share = &work->sample->shares[i];
        double product, squares;
        turn(work->sample->numbers + share->start, take(tensor, work->gradient, scratch),
             size_in(tensor->count), &product, &squares);
        if (work->notes != NULL)
            work->notes[i].cosine =
                work->sample->kept ? cosine(product, share->squares, squares) : (float)NAN;
        share->squares = squares;
    }
}

void sample_turn(struct sample *sample, const struct layout *layout,
                 const struct wire_gradient *gradient, struct tensor_note *notes)
{
    size_t tasks = sample->count / TASK_NUMBERS + 1;
    struct turning work = {sample, layout, gradient, notes,
                           tasks < layout->tensor_count ? tasks : layout->tensor_count};

    if (!sample->kept)
        memset(sample->numbers, 0, sample->count * sizeof *sample->numbers);
    crew_run(work.tasks, turn_some, &work);
    sample->kept = true;
}
