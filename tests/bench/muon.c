/* Muon's step on a matrix in f32 beside sgemm of the same shape in the same run, by useful flops a
 * second. An iteration on rows x columns with r = min, c = max needs A = X X' (r^2 c, half of a
 * product, because A is symmetric), A A (r^3, likewise) and A' X (2 r^2 c): 3 r^2 c + r^3; the
 * step's other passes count as time, not as flops. sgemm: 2 r^2 c for r x r times r x c. One
 * thread, and all. Also as build/bench/muon.csv, for the README's table. */
#include <cblas.h>
#include <unistd.h>

#include "service/core/crew.h"
#include "tests/bench/bench.h"
#include "tests/bench/subject.h"

enum { ROUNDS = 5 };
static const double share_aim = 0.8;

static const struct {
    size_t rows, columns;
} shapes[] = {{1024, 1024}, {512, 2048}, {4096, 1024}, {2048, 2048}};

/* Seconds of one sgemm, r x r times r x c. */
static double time_sgemm(const struct subject *subject, size_t r, size_t c, float *square)
{
    double began = bench_now();

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)r, (int)c, (int)r, 1, square,
                (int)r, (const float *)(void *)subject->gradient->data, (int)c, 0,
                (float *)(void *)subject->next->data, (int)c);
    return bench_now() - began;
}

static void measure(size_t index, bool all, FILE *table)
{
    size_t rows = shapes[index].rows, columns = shapes[index].columns;
    size_t r = rows < columns ? rows : columns, c = rows < columns ? columns : rows;
    struct buffer *square = buffer_new(r * r * sizeof(float));
    double steps[ROUNDS], products[ROUNDS];
    struct subject subject;

    if (square == NULL)
        bench_fail("memory");
    bench_fill((float *)(void *)square->data, r * r, 4);
    subject_open(&subject, "muon", rows, columns);
    if (all)
        crew_start();
    for (size_t round = 0; round < ROUNDS; round++) {
        openblas_set_num_threads(all ? (int)sysconf(_SC_NPROCESSORS_ONLN) : 1);
        products[round] = time_sgemm(&subject, r, c, (float *)(void *)square->data);
        openblas_set_num_threads(1); /* as the server has it: the crew shares the tiles */
        steps[round] = subject_time(subject_step, &subject, 1) * 1e-9 * (double)subject.count;
    }
    if (all)
        crew_stop();
    double iterations = subject.hyper[optimizer_hyper(subject.rule, "ns_steps")];
    double wide = (double)r * (double)r * (double)c, cube = (double)r * (double)r * (double)r;
    double step = bench_minimum(steps, ROUNDS), product = bench_minimum(products, ROUNDS);
    double ours = iterations * (3 * wide + cube) / step, limit = 2 * wide / product;
    bench_row(
        bench_text("Muon's step, %zu x %zu, %s", rows, columns, all ? "all threads" : "one thread"),
        bench_text("%.1f ms, %.0f Gflop/s", step * 1e3, ours * 1e-9),
        bench_text("sgemm %.0f Gflop/s", limit * 1e-9), ours / limit, AIM_AT_LEAST, share_aim);
    if (!all)
        fprintf(table, "%zu,%zu,%.1f,%.3f\n", rows, columns, step * 1e9 / (double)(rows * columns),
                ours / limit);
    subject_close(&subject);
    buffer_release(square);
}

void bench_muon(const struct bench *bench)
{
    FILE *table = fopen("build/bench/muon.csv", "w");

    (void)bench;
    if (table == NULL)
        bench_fail("build/bench/muon.csv");
    fprintf(table, "rows,columns,ns,share\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int all = 0; all < 2; all++)
            measure(i, all != 0, table);
    fclose(table);
}
