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

static void take_block(const struct work *work, size_t start, size_t count)
{
    const struct mean *mean = work->mean;
    double sum[WHOLE_BLOCK];
    real scratch[WHOLE_BLOCK];

    memset(sum, 0, count * sizeof *sum);
    for (size_t k = 0; k < mean->count; k++) {
        const struct mean_member *member = &mean->members[k];
        const real *block = REAL(gradient_block)(&member->gradient, start, count, scratch);
        if (mean->vote)
            REAL(vector_add_signs)(sum, block, member->weight < 0 ? -1 : 1, count);
        else
            REAL(vector_add_weighted)(sum, block, member->weight, count);
    }
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
    for (; start < end; start += WHOLE_BLOCK)
        take_block(work, start, end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK);
}

void REAL(mean_take)(const struct mean *mean, void *out)
{
    size_t count = mean->members[0].gradient.count;
    struct work work = {mean, out, count, REAL(whole_segment)(count)};

    crew_run((count + work.segment - 1) / work.segment, take_segment, &work);
}
