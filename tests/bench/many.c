/* Small steps: 1,000 parameters on 64 connections to 64 sessions, beside a bare server that reads
 * the same bodies. Requests a second in the best of several rounds that take turns. */
#include <stdlib.h>

#include "tests/bench/bench.h"

enum { COUNT = 1000, CONNECTIONS = 64, ROUNDS = 9 };

/* Creates the sessions and opens a connection for each. */
static struct load *open_sessions(unsigned port, const char *prefix, const char *more,
                                  struct request_bytes *requests)
{
    for (int i = 0; i < CONNECTIONS; i++) {
        const char *id = bench_text("%s%d", prefix, i);
        load_create_session(port, id, COUNT, more);
        requests[i] = load_step_request(bench_text("%s%d", prefix, i), COUNT, "");
    }
    return load_open(port, requests, CONNECTIONS);
}

void bench_many(const struct bench *bench)
{
    struct child server, bare;
    struct request_bytes quick[CONNECTIONS], durable[CONNECTIONS];
    double bares[ROUNDS], checkpoints[ROUNDS], steps[ROUNDS];
    double seconds = bench->seconds / 2 / ROUNDS;

    child_start_server(&server, bench, "many", NULL);
    bare_start(&bare, BARE_SHORT, COUNT * sizeof(float));
    struct load *to_checkpoints = open_sessions(
        server.port, "c", ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":1000}", quick);
    struct load *to_steps = open_sessions(server.port, "s", "", durable);
    struct load *to_bare = load_open(bare.port, quick, CONNECTIONS);

    load_run(to_checkpoints, seconds / 4, 0);
    load_run(to_steps, seconds / 4, 0);
    for (size_t round = 0; round < ROUNDS; round++) {
        bares[round] = load_run(to_bare, seconds / 2, 0).rate;
        checkpoints[round] = load_run(to_checkpoints, seconds / 2, 0).rate;
        steps[round] = load_run(to_steps, seconds, 0).rate;
    }
    double limit = bench_maximum(bares, ROUNDS);
    double checkpoint = bench_maximum(checkpoints, ROUNDS), step = bench_maximum(steps, ROUNDS);
    const char *bare_text = bench_text("bare server %.0f/s", limit);
    bench_row("64 connections, 1,000 raw f32, durability checkpoint",
              bench_text("%.0f steps/s", checkpoint), bare_text, checkpoint / limit, AIM_AT_LEAST,
              0.6);
    bench_row("64 connections, 1,000 raw f32, durability step", bench_text("%.0f steps/s", step),
              bare_text, step / limit, AIM_AT_LEAST, 0.4);
    load_close(to_checkpoints);
    load_close(to_steps);
    load_close(to_bare);
    for (int i = 0; i < CONNECTIONS; i++) {
        free(quick[i].data);
        free(durable[i].data);
    }
    child_stop(&bare);
    child_stop(&server);
}
