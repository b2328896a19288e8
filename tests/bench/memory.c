/* Memory of the server after twenty raw steps of ten million parameters with Adam: two slots, two
 * weight buffers and one gradient are 200 MB. */
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"

enum { COUNT = 10000000, STEPS = 20, VECTORS = 5, OWN_MB = 20 };

/* Bytes of a line such as "VmRSS:   123 kB". */
static double status_bytes(pid_t pid, const char *field)
{
    FILE *file = fopen(bench_text("/proc/%d/status", (int)pid), "r");
    char line[256];
    double kib = -1;

    if (file == NULL)
        bench_fail("/proc");
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtod(line + strlen(field) + 1, NULL);
    fclose(file);
    return kib * 1024;
}

static void measure(const struct bench *bench, const char *mode, const char *more)
{
    struct child server;
    struct request_bytes request = load_step_request("m", COUNT, "");

    child_start_server(&server, bench, mode, NULL);
    load_create_session(server.port, "m", COUNT, more);
    struct load *load = load_open(server.port, &request, 1);
    load_run(load, 600, STEPS);
    double resident = status_bytes(server.pid, "VmRSS"), peak = status_bytes(server.pid, "VmHWM");
    double vectors = (double)VECTORS * COUNT * sizeof(float);
    double limit = 1.15 * vectors + OWN_MB * 1e6;
    bench_row(bench_text("RSS, 10 M parameters, Adam, 20 raw steps, durability %s", mode),
              bench_text("%.0f MB (peak %.0f)", resident / 1e6, peak / 1e6),
              bench_text("1.15 x %.0f MB + %d MB", vectors / 1e6, OWN_MB), resident / limit,
              AIM_AT_MOST, 1);
    load_close(load);
    free(request.data);
    child_stop(&server);
}

void bench_memory(const struct bench *bench)
{
    measure(bench, "step", "");
    measure(bench, "checkpoint", ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":10}");
}
