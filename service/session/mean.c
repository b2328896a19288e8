/* The mean of a round, block by block. */
#include "service/session/mean.h"

#include <string.h>

#include "service/core/crew.h"
#include "service/kernel/real.h"
#include "service/kernel/vector.h"
#include "service/optim/whole.h"

struct work {
    const struct mean *mean;
    real *out;
    size_t count, segment;
};

/* So many elements at a time that their sums, and what is unpacked of four members, stay in
 * first-level cache. */
enum { MEAN_BLOCK = 2048, GROUP = 4 };

static void add_one(const struct mean *mean, const struct mean_member *member, double *sum,
                    size_t start, size_t count)
{
    real scratch[MEAN_BLOCK];
    const real *block = REAL(gradient_block)(&member->gradient, start, count, scratch);

    if (mean->vote)
        REAL(vector_add_signs)(sum, block, member->weight < 0 ? -1 : 1, count);
    else
        REAL(vector_add_weighted)(sum, block, member->weight, count);
}

static void add_group(const struct mean_member *members, double *sum, size_t start, size_t count)
{
    real scratch[GROUP][MEAN_BLOCK];
    const real *block[GROUP];
    double weight[GROUP];

    for (size_t k = 0; k < GROUP; k++) {
        block[k] = REAL(gradient_block)(&members[k].gradient, start, count, scratch[k]);
        weight[k] = members[k].weight;
    }
    REAL(vector_add_four_weighted)(sum, block, weight, count);
}

static void take_block(const struct work *work, size_t start, size_t count)
{
    const struct mean *mean = work->mean;
    double sum[MEAN_BLOCK];
    size_t k = 0;

    memset(sum, 0, count * sizeof *sum);
    for (; !mean->vote && k + GROUP <= mean->count; k += GROUP)
        add_group(&mean->members[k], sum, start, count);
    for (; k < mean->count; k++)
        add_one(mean, &mean->members[k], sum, start, count);
    if (mean->vote)
        REAL(vector_signs)(work->out + start, sum, count);
    else
        REAL(vector_quotient)(work->out + start, sum, mean->divisor, count);
}

static void take_segment(void *context, size_t index)
{
    const struct work *work = context;
    size_t start = index * work->segment, end = start + work->segment;

    if (end > work->count)
        end = work->count;
    for (; start < end; start += MEAN_BLOCK)
        take_block(work, start, end - start < MEAN_BLOCK ? end - start : MEAN_BLOCK);
}

void REAL(mean_take)(const struct mean *mean, void *out)
{
    size_t count = mean->members[0].gradient.count;
    struct work work = {mean, out, count, REAL(whole_segment)(count)};

    crew_run((count + work.segment - 1) / work.segment, take_segment, &work);
}
