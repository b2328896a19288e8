/* What it costs to be an HTTP server that professionals trust. */
#include "tests/bench/bench.h"

void bench_surface(const struct bench *bench)
{
    bench_tails(bench);
    bench_crowd(bench);
    bench_layers(bench);
}
