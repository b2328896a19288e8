/* `make bench`: runs the benchmarks that are named, or all, and prints the rows of a table. */
#include "tests/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    void (*run)(const struct bench *bench);
} benches[] = {
    {"kernel", bench_kernel},   {"rules", bench_rules},     {"muon", bench_muon},
    {"json", bench_json},       {"step", bench_step},       {"durable", bench_durable},
    {"many", bench_many},       {"memory", bench_memory},   {"history", bench_history},
    {"workers", bench_workers}, {"surface", bench_surface},
};
enum { BENCHES = sizeof benches / sizeof *benches };

void bench_row(const char *what, const char *ours, const char *limit, double ratio,
               enum aim_kind kind, double aim)
{
    bool met = kind == AIM_AT_LEAST ? ratio >= aim : ratio <= aim;

    printf("| %s | %s | %s | %.2f | ", what, ours, limit, ratio);
    if (kind == AIM_NONE)
        printf("| |\n");
    else
        printf("%s %g | %s |\n", kind == AIM_AT_LEAST ? "at least" : "at most", aim,
               met ? "yes" : "**no**");
    fflush(stdout);
}

const char *bench_text(const char *format, ...)
{
    static char texts[8][200];
    static size_t next;
    char *out = texts[next++ % 8];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(out, sizeof texts[0], format, arguments);
    va_end(arguments);
    return out;
}

void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s%s%s\n", what, errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    exit(EXIT_FAILURE);
}

double bench_now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

double bench_minimum(const double *values, size_t count)
{
    double least = values[0];

    for (size_t i = 1; i < count; i++)
        least = fmin(least, values[i]);
    return least;
}

double bench_maximum(const double *values, size_t count)
{
    double most = values[0];

    for (size_t i = 1; i < count; i++)
        most = fmax(most, values[i]);
    return most;
}

void bench_fill(float *out, size_t count, unsigned seed)
{
    unsigned long long state = seed;

    for (size_t i = 0; i < count; i++) {
        double sum = 0; /* of four uniform numbers: near enough to normal, sd 0.58 */
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) / (1 << 24) - 0.5;
        }
        out[i] = (float)(sum * 0.0173);
    }
}

static void run_named(const struct bench *bench, const char *name)
{
    for (size_t i = 0; i < BENCHES; i++)
        if (name == NULL || strcmp(name, benches[i].name) == 0) {
            benches[i].run(bench);
            if (name != NULL)
                return;
        }
    if (name == NULL)
        return;
    fprintf(stderr, "bench: there is no benchmark \"%s\"\n", name);
    exit(EXIT_FAILURE);
}

int main(int count, char **arguments)
{
    struct bench bench = {
        .server = "build/descent", .python = "python3", .folder = NULL, .seconds = 20};
    int option;

    while ((option = getopt(count, arguments, "s:b:p:f:t:")) != -1)
        switch (option) {
        case 's':
            bench.server = optarg;
            break;
        case 'b':
            bench.before = optarg;
            break;
        case 'p':
            bench.python = optarg;
            break;
        case 'f':
            bench.folder = optarg;
            break;
        case 't':
            bench.seconds = strtod(optarg, NULL);
            break;
        default:
            return EXIT_FAILURE;
        }
    if (bench.folder == NULL || !(bench.seconds > 0)) {
        fprintf(stderr,
                "bench -f FOLDER [-s SERVER] [-b BEFORE] [-p PYTHON] [-t SECONDS] [NAME ...]\n");
        return EXIT_FAILURE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (optind == count)
        run_named(&bench, NULL);
    for (int i = optind; i < count; i++)
        run_named(&bench, arguments[i]);
    return EXIT_SUCCESS;
}
