/* The mean of a round's gradients, f32, on the threads of the crew: what it reads and writes a
 * second beside a triad a = b + s c over vectors of the same length on as many threads, both
 * best of several rounds that take turns. One pass over each member is 4 bytes an element and
 * member; the mean itself is 4 more. */
#include <stdlib.h>

#include "service/core/buffer.h"
#include "service/core/crew.h"
#include "service/core/simd.h"
#include "service/session/mean.h"
#include "tests/bench/bench.h"
#include "tests/bench/subject.h"

enum { TIMES = 7, MEMBERS_MAX = 64, BUFFERS_MAX = 16, TRIAD_BYTES = 12, SEGMENT = 65536 };

static const size_t counts[] = {1000000, 16000000}, crowds[] = {2, 4, 16, 64};
enum { COUNTS = sizeof counts / sizeof *counts, CROWDS = sizeof crowds / sizeof *crowds };

static float *numbers(size_t count, unsigned seed)
{
    float *out = aligned_alloc(64, count * sizeof *out);

    if (out == NULL)
        bench_fail("memory");
    bench_fill(out, count, seed);
    return out;
}

struct triad {
    float *a;
    const float *b, *c;
    size_t count;
};

KERNEL static void add(float *restrict a, const float *restrict b, const float *restrict c,
                       size_t count)
{
    for (size_t i = 0; i < count; i++)
        a[i] = b[i] + 3 * c[i];
}

static void triad(void *context, size_t segment)
{
    const struct triad *t = context;
    size_t start = segment * SEGMENT, left = t->count - start;

    add(t->a + start, t->b + start, t->c + start, left < SEGMENT ? left : SEGMENT);
}

static void measure(size_t count, bool vote)
{
    struct mean_member members[MEMBERS_MAX];
    float *vectors[BUFFERS_MAX], *out = numbers(count, 0);
    double triads[TIMES], means[CROWDS][TIMES];

    for (size_t i = 0; i < BUFFERS_MAX; i++)
        vectors[i] = numbers(count, (unsigned)i);
    for (size_t i = 0; i < MEMBERS_MAX; i++) /* more of them than any cache holds */
        members[i] = (struct mean_member){
            .gradient = dense_gradient(vectors[i % BUFFERS_MAX], DTYPE_F32, count),
            .weight = vote ? 1 : 32};
    for (size_t round = 0; round < TIMES; round++) {
        struct triad vector = {out, vectors[0], vectors[1], count};
        double began = bench_now();
        crew_run((count + SEGMENT - 1) / SEGMENT, triad, &vector);
        triads[round] = bench_now() - began;
        for (size_t crowd = 0; crowd < CROWDS; crowd++) {
            struct mean mean = {.members = members,
                                .count = crowds[crowd],
                                .divisor = vote ? 1 : 32.0 * (double)crowds[crowd],
                                .vote = vote};
            began = bench_now();
            mean_take_f32(&mean, out);
            means[crowd][round] = bench_now() - began;
        }
    }
    double limit = TRIAD_BYTES * (double)count / bench_minimum(triads, TIMES) / 1e9;
    for (size_t crowd = 0; crowd < CROWDS; crowd++) {
        double took = bench_minimum(means[crowd], TIMES);
        double rate = 4 * (double)(crowds[crowd] + 1) * (double)count / took / 1e9;
        bench_row(bench_text("the %s of %zu, %zu M parameters", vote ? "vote" : "mean",
                             crowds[crowd], count / 1000000),
                  bench_text("%.2f ms, %.1f GB/s", took * 1e3, rate),
                  bench_text("triad %.1f GB/s", limit), rate / limit, AIM_AT_LEAST, 0.85);
    }
    for (size_t i = 0; i < BUFFERS_MAX; i++)
        free(vectors[i]);
    free(out);
}

void bench_mean(const struct bench *bench)
{
    (void)bench;
    crew_start();
    for (size_t i = 0; i < COUNTS; i++)
        measure(counts[i], false);
    measure(counts[0], true);
    crew_stop();
}
