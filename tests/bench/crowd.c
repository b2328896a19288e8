/* Small steps beside a thousand open connections that are silent: requests a second on 16
 * connections of a server that has them and of one that has not, in rounds that take turns; and
 * what they cost in memory. */
#include <stdlib.h>
#include <sys/resource.h>

#include "tests/bench/bench.h"

enum { COUNT = 1000, BUSY = 16, IDLE = 1000, ROUNDS = 15 };

struct side {
    struct child server;
    struct request_bytes requests[BUSY];
    struct load *busy;
};

static void open_side(struct side *side, const struct bench *bench, const char *name)
{
    static const char *const options[] = {"--connections-max", "2000", NULL};

    child_start_server(&side->server, bench, name, options);
    for (int i = 0; i < BUSY; i++) {
        char id[32];
        snprintf(id, sizeof id, "s%d", i);
        load_create_session(side->server.port, id, COUNT,
                            ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":1000}");
        side->requests[i] = load_step_request(id, COUNT, "");
    }
    side->busy = load_open(side->server.port, side->requests, BUSY);
}

static void close_side(struct side *side)
{
    load_close(side->busy);
    for (int i = 0; i < BUSY; i++)
        free(side->requests[i].data);
    child_stop(&side->server);
}

/* Kilobytes of memory that a process has. */
static double resident(const struct child *child)
{
    FILE *file = fopen(bench_text("/proc/%d/statm", (int)child->pid), "r");
    double pages = 0;

    if (file == NULL || fscanf(file, "%*s %lf", &pages) != 1)
        bench_fail("the memory of a server");
    fclose(file);
    return pages * 4;
}

/* A connection, and the bench, have one end of each. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        bench_fail("descriptors");
    if (limit.rlim_cur >= IDLE + 256)
        return;
    limit.rlim_cur = limit.rlim_max < IDLE + 256 ? limit.rlim_max : IDLE + 256;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < IDLE + 256)
        bench_fail("too few files can be open: raise ulimit -n");
}

void bench_crowd(const struct bench *bench)
{
    struct side alone, crowded;
    struct request_bytes idle[IDLE], hello = load_request("GET", "/livez", "", "", 0);
    double with[ROUNDS], without[ROUNDS], ratio[ROUNDS], seconds = bench->seconds / 5 / ROUNDS;

    allow_descriptors();
    open_side(&alone, bench, "alone");
    open_side(&crowded, bench, "crowded");
    load_run(crowded.busy, seconds, 0);
    double memory = resident(&crowded.server);
    for (int i = 0; i < IDLE; i++)
        idle[i] = hello;
    struct load *crowd = load_open(crowded.server.port, idle, IDLE);
    load_run(crowd, 0, IDLE); /* each of them says hello once */
    memory = resident(&crowded.server) - memory;
    for (size_t round = 0; round < ROUNDS + 1; round++) {
        size_t at = round > 0 ? round - 1 : 0;
        without[at] = load_run(alone.busy, seconds, 0).rate;
        with[at] = load_run(crowded.busy, seconds, 0).rate;
        ratio[at] = with[at] / without[at];
    }
    bench_row("16 busy connections beside 1,000 open ones, 1,000 raw f32",
              bench_text("%.0f steps/s", bench_median(with, ROUNDS)),
              bench_text("alone %.0f/s", bench_median(without, ROUNDS)),
              bench_median(ratio, ROUNDS), AIM_AT_LEAST, 0.9);
    bench_row("memory of an open connection", bench_text("%.1f KB", memory / IDLE),
              "a thread and 64 KiB for the header, as far as they are touched", memory / IDLE,
              AIM_NONE, 0);
    load_close(crowd);
    close_side(&alone);
    close_side(&crowded);
    free(hello.data);
}
