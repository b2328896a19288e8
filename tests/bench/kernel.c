/* Adam in f32 on one thread, in nanoseconds a parameter: beside a triad a = b + s c in bytes a
 * second, and beside PyTorch's Adam. Adam moves 28 B a parameter (g, w read; w' written; m, v read
 * and written), the triad 12 B an element. Best of several rounds, each measuring all in turn.
 * The crew is not started, so that `advance` has one thread too. */
#include <math.h>
#include <stdlib.h>

#include "service/core/buffer.h"
#include "service/core/simd.h"
#include "service/session/advance.h"
#include "tests/bench/bench.h"

enum { ROUNDS = 25, ADAM_BYTES = 28, TRIAD_BYTES = 12 };

static const size_t counts[] = {1000, 16000, 250000, 1000000, 4000000, 16000000, 64000000};
enum { COUNTS = sizeof counts / sizeof *counts, AIMED = 5 /* 16 M: beyond every cache */ };

enum { GRADIENT, WEIGHTS, NEXT, FIRST, SECOND, VECTORS };

struct kernel {
    const struct optimizer *rule;
    double hyper[HYPERS_MAX];
    size_t count, repeats;
    struct buffer *vector[VECTORS];
    uint64_t update;
};

KERNEL static void triad(float *restrict out, const float *restrict a, const float *restrict b,
                         float s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = a[i] + s * b[i];
}

static float *vector(const struct kernel *kernel, int which)
{
    return (float *)(void *)kernel->vector[which]->data;
}

static void run_triad(struct kernel *kernel)
{
    triad(vector(kernel, NEXT), vector(kernel, GRADIENT), vector(kernel, WEIGHTS), 3,
          kernel->count);
    __asm__ volatile("" ::: "memory"); /* what is repeated must not be left out */
}

static void swap_weights(struct kernel *kernel)
{
    struct buffer *next = kernel->vector[NEXT];

    kernel->vector[NEXT] = kernel->vector[WEIGHTS];
    kernel->vector[WEIGHTS] = next;
}

static void run_rule(struct kernel *kernel)
{
    void *slot[SLOTS_MAX] = {vector(kernel, FIRST), vector(kernel, SECOND)};

    kernel->rule->update(&(struct piece){.count = kernel->count,
                                         .step = ++kernel->update,
                                         .hyper = kernel->hyper,
                                         .grad = vector(kernel, GRADIENT),
                                         .param = vector(kernel, WEIGHTS),
                                         .next_param = vector(kernel, NEXT),
                                         .slot = slot});
    swap_weights(kernel);
}

static void run_advance(struct kernel *kernel)
{
    struct advance advance = {.rule = kernel->rule,
                              .hyper = kernel->hyper,
                              .update = ++kernel->update,
                              .gradient = {vector(kernel, GRADIENT), DTYPE_F32, kernel->count},
                              .rescale = 1,
                              .clip_value = HUGE_VAL,
                              .clip_scale = 1,
                              .param = vector(kernel, WEIGHTS),
                              .next_param = vector(kernel, NEXT),
                              .slot = {vector(kernel, FIRST), vector(kernel, SECOND)}};

    advance_f32.run(&advance);
    swap_weights(kernel);
}

/* Nanoseconds an element. */
static double time_of(void (*run)(struct kernel *kernel), struct kernel *kernel)
{
    double began = bench_now();

    for (size_t i = 0; i < kernel->repeats; i++)
        run(kernel);
    return (bench_now() - began) * 1e9 / (double)kernel->repeats / (double)kernel->count;
}

/* The same of PyTorch; 0 when it is not there. */
static double time_of_torch(struct child *torch, const struct kernel *kernel)
{
    double took = 0;

    if (torch->pid == 0)
        return 0;
    fprintf(torch->in, "%zu %zu\n", kernel->count, kernel->repeats);
    fflush(torch->in);
    if (fscanf(torch->out, "%lf", &took) != 1)
        bench_fail("torch_adam.py ended");
    return took;
}

static const char *size_text(size_t count)
{
    return count < 1000000 ? bench_text("%zu K", count / 1000)
                           : bench_text("%zu M", count / 1000000);
}

static void report(const char *what, size_t index, double ours, double triad_ns, double torch_ns,
                   const char *version)
{
    const char *name = bench_text("%s, %s parameters", what, size_text(counts[index]));
    const char *mine = bench_text("%.3f ns/parameter, %.1f GB/s", ours, ADAM_BYTES / ours);

    bench_row(name, mine, bench_text("triad %.1f GB/s", TRIAD_BYTES / triad_ns),
              ADAM_BYTES / ours / (TRIAD_BYTES / triad_ns),
              index == AIMED ? AIM_AT_LEAST : AIM_NONE, 0.85);
    if (torch_ns > 0)
        bench_row(name, mine, bench_text("PyTorch %s %.3f ns/parameter", version, torch_ns),
                  torch_ns / ours, AIM_AT_LEAST, 4);
}

static void measure(struct kernel *kernel, size_t index, struct child *torch, const char *version)
{
    double triads[ROUNDS], rules[ROUNDS], advances[ROUNDS], torches[ROUNDS];

    kernel->count = counts[index];
    kernel->repeats = 4000000 / kernel->count + 1; /* short, to fall between disturbances */
    kernel->update = 0;
    for (unsigned i = 0; i < VECTORS; i++) {
        kernel->vector[i] = buffer_new_zeroed(kernel->count * sizeof(float));
        if (kernel->vector[i] == NULL)
            bench_fail("memory");
        if (i < FIRST)
            bench_fill(vector(kernel, (int)i), kernel->count, i + 1);
    }
    size_t rounds = index < AIMED ? ROUNDS : ROUNDS / 3;
    for (size_t round = 0; round < rounds; round++) {
        triads[round] = time_of(run_triad, kernel);
        rules[round] = time_of(run_rule, kernel);
        advances[round] = time_of(run_advance, kernel);
        torches[round] = time_of_torch(torch, kernel);
    }
    double triad_ns = bench_minimum(triads, rounds), torch_ns = bench_minimum(torches, rounds);
    report("Adam, the rule alone", index, bench_minimum(rules, rounds), triad_ns, torch_ns,
           version);
    report("Adam with norms", index, bench_minimum(advances, rounds), triad_ns, torch_ns, version);
    for (int i = 0; i < VECTORS; i++)
        buffer_release(kernel->vector[i]);
    buffer_pool_trim(0);
}

void bench_kernel(const struct bench *bench)
{
    struct kernel kernel = {.rule = optimizer_find("adam", DTYPE_F32)};
    struct child torch;
    char version[64] = "";
    const char *arguments[] = {bench->python, "tests/bench/torch_adam.py", NULL};

    for (size_t i = 0; i < kernel.rule->hyper_count; i++)
        kernel.hyper[i] = kernel.rule->hypers[i].initial;
    if (!child_start(&torch, arguments) || fscanf(torch.out, "%63s", version) != 1)
        fprintf(stderr, "bench: no PyTorch to compare with in %s\n", bench->python);
    for (size_t i = 0; i < COUNTS; i++)
        measure(&kernel, i, &torch, version);
    child_stop(&torch);
}
