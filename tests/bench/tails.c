/* How long a small step takes under load, the slow ones too: 1,000 raw f32 on 1, 16 and 64
 * connections, each with a session of its own, beside a bare server that reads the same bodies.
 * Every connection is always busy, so that latency is mostly waiting for its turn. The medians of
 * several rounds that take turns. */
#include <stdlib.h>

#include "tests/bench/bench.h"

enum { COUNT = 1000, CONNECTIONS_MAX = 64, ROUNDS = 9, SUBJECTS = 4 };

static const struct subject_of_load {
    const char *name;
    const char *more; /* of the session; NULL: the bare server */
    bool memory;      /* the server keeps nothing */
} subjects[SUBJECTS] = {
    {.name = "bare server", .more = NULL},
    {.name = "in memory only", .more = "", .memory = true},
    {.name = "on disk within a second",
     .more = ",\"durability\":{\"mode\":\"interval\",\"seconds\":1}"},
    {.name = "on disk before the answer", .more = ""},
};

struct tails {
    double median[ROUNDS], p99[ROUNDS], p999[ROUNDS];
};

static void open_subject(const struct subject_of_load *subject, unsigned port, int number,
                         struct request_bytes *requests)
{
    char id[32];

    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        snprintf(id, sizeof id, "t%d-%d", number, i);
        if (subject->more != NULL)
            load_create_session(port, id, COUNT, subject->more);
        requests[i] = load_step_request(id, COUNT, "");
    }
}

static void print(const char *name, struct tails *tails, struct tails *bare, int connections)
{
    double p99 = bench_median(tails->p99, ROUNDS), limit = bench_median(bare->p99, ROUNDS);

    bench_row(bench_text("p50, p99, p99.9 of a small step %s, %d connection%s", name, connections,
                         connections > 1 ? "s" : ""),
              bench_text("%.2f, %.2f, %.2f ms", bench_median(tails->median, ROUNDS) * 1e3,
                         p99 * 1e3, bench_median(tails->p999, ROUNDS) * 1e3),
              bench_text("bare server %.2f, %.2f, %.2f ms",
                         bench_median(bare->median, ROUNDS) * 1e3, limit * 1e3,
                         bench_median(bare->p999, ROUNDS) * 1e3),
              p99 / limit, AIM_NONE, 0);
}

static void measure(const unsigned *ports, struct request_bytes (*requests)[CONNECTIONS_MAX],
                    int connections, double seconds)
{
    struct load *loads[SUBJECTS];
    struct tails tails[SUBJECTS];

    for (int i = 0; i < SUBJECTS; i++)
        loads[i] = load_open(ports[i], requests[i], (size_t)connections);
    for (size_t round = 0; round < ROUNDS + 1; round++) { /* the first to warm up */
        size_t at = round > 0 ? round - 1 : 0;
        for (int i = 0; i < SUBJECTS; i++) {
            struct load_result result = load_run(loads[i], seconds, 0);
            tails[i].median[at] = result.median;
            tails[i].p99[at] = result.p99;
            tails[i].p999[at] = result.p999;
        }
    }
    for (int i = 1; i < SUBJECTS; i++)
        print(subjects[i].name, &tails[i], &tails[0], connections);
    for (int i = 0; i < SUBJECTS; i++)
        load_close(loads[i]);
}

void bench_tails(const struct bench *bench)
{
    static const char *const in_memory[] = {"--data", "memory:", NULL};
    static struct request_bytes requests[SUBJECTS][CONNECTIONS_MAX];
    static const int connections[] = {1, 16, 64};
    struct child bare, memory, disk;
    double seconds = bench->seconds / 4 / ROUNDS;

    bare_start(&bare, BARE_SHORT, COUNT * sizeof(float));
    child_start_server(&memory, bench, "unused", in_memory);
    child_start_server(&disk, bench, "tails", NULL);
    unsigned ports[SUBJECTS] = {bare.port, memory.port, disk.port, disk.port};
    for (int i = 0; i < SUBJECTS; i++)
        open_subject(&subjects[i], ports[i], i, requests[i]);
    for (size_t i = 0; i < sizeof connections / sizeof *connections; i++)
        measure(ports, requests, connections[i], seconds / 2);
    for (int i = 0; i < SUBJECTS; i++)
        for (int k = 0; k < CONNECTIONS_MAX; k++)
            free(requests[i][k].data);
    child_stop(&bare);
    child_stop(&memory);
    child_stop(&disk);
}
