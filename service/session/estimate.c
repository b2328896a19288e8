/* SVRG's passes over memory. */
#include "service/session/estimate.h"

#include "service/core/crew.h"
#include "service/core/simd.h"
#include "service/kernel/real.h"
#include "service/kernel/vector.h"
#include "service/optim/whole.h"

KERNEL static void correct_block(real *restrict out, const real *restrict g,
                                 const real *restrict pair, const real *restrict mean,
                                 double coefficient, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (real)((double)g[i] - coefficient * ((double)pair[i] - (double)mean[i]));
}

struct pass {
    const struct wire_gradient *gradient, *pair;
    const double *from;
    const void *mean;
    void *out;
    double factor; /* weight, total or coefficient */
    void (*block)(const struct pass *pass, size_t start, size_t count);
    size_t count, segment;
};

static void add_at(const struct pass *pass, size_t start, size_t count)
{
    real scratch[WHOLE_BLOCK];
    const real *block = REAL(gradient_block)(pass->gradient, start, count, scratch);

    REAL(vector_add_weighted)((double *)pass->out + start, block, pass->factor, count);
}

static void mean_at(const struct pass *pass, size_t start, size_t count)
{
    REAL(vector_quotient)(real_at(pass->out, start), pass->from + start, pass->factor, count);
}

static void correct_at(const struct pass *pass, size_t start, size_t count)
{
    real scratch[WHOLE_BLOCK], other[WHOLE_BLOCK];

    correct_block(real_at(pass->out, start),
                  REAL(gradient_block)(pass->gradient, start, count, scratch),
                  REAL(gradient_block)(pass->pair, start, count, other), real_at(pass->mean, start),
                  pass->factor, count);
}

static void run_segment(void *context, size_t index)
{
    const struct pass *pass = context;
    size_t start = index * pass->segment, end = start + pass->segment;

    if (end > pass->count)
        end = pass->count;
    for (; start < end; start += WHOLE_BLOCK)
        pass->block(pass, start, end - start < WHOLE_BLOCK ? end - start : WHOLE_BLOCK);
}

static void run(struct pass *pass)
{
    pass->segment = REAL(whole_segment)(pass->count);
    crew_run((pass->count + pass->segment - 1) / pass->segment, run_segment, pass);
}

static void add(const struct wire_gradient *gradient, double weight, double *sum)
{
    run(&(struct pass){.gradient = gradient,
                       .out = sum,
                       .factor = weight,
                       .block = add_at,
                       .count = gradient->count});
}

static void mean(const double *sum, double total, void *out, size_t count)
{
    run(&(struct pass){.from = sum, .out = out, .factor = total, .block = mean_at, .count = count});
}

static void correct(const struct wire_gradient *gradient, const struct wire_gradient *pair,
                    const void *mean_of_all, double coefficient, void *out)
{
    run(&(struct pass){.gradient = gradient,
                       .pair = pair,
                       .mean = mean_of_all,
                       .out = out,
                       .factor = coefficient,
                       .block = correct_at,
                       .count = gradient->count});
}

const struct estimate_functions REAL(estimate) = {.add = add, .mean = mean, .correct = correct};
