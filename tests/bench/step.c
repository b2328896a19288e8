/* A step over HTTP: raw f32, a million parameters, durability `checkpoint`, one client, beside a
 * bare server that reads the same body, or sends it back. The median of the best of
 * several rounds that take turns. */
#include <stdlib.h>

#include "tests/bench/bench.h"

enum { COUNT = 1000000, ROUNDS = 15 };

static const char checkpoint[] = ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":1000}";

static void compare(const struct child *server, const char *what, const char *limit,
                    const char *headers, enum bare_answer answer, double seconds)
{
    struct child bare;
    struct request_bytes request = load_step_request("step", COUNT, headers);
    double ours[ROUNDS], theirs[ROUNDS];

    bare_start(&bare, answer, COUNT * sizeof(float));
    struct load *to_ours = load_open(server->port, &request, 1);
    struct load *to_bare = load_open(bare.port, &request, 1);
    load_run(to_ours, seconds, 50); /* to warm up */
    load_run(to_bare, seconds, 50);
    for (size_t round = 0; round < ROUNDS; round++) {
        theirs[round] = load_run(to_bare, seconds / 2, 0).median;
        ours[round] = load_run(to_ours, seconds / 2, 0).median;
    }
    double mine = bench_minimum(ours, ROUNDS), other = bench_minimum(theirs, ROUNDS);
    bench_row(what, bench_text("%.2f ms", mine * 1e3), bench_text("%s %.2f ms", limit, other * 1e3),
              mine / other, AIM_AT_MOST, 1.5);
    load_close(to_ours);
    load_close(to_bare);
    child_stop(&bare);
    free(request.data);
}

void bench_step(const struct bench *bench)
{
    struct child server;
    double seconds = bench->seconds / 2 / ROUNDS;

    child_start_server(&server, bench, "step", NULL);
    load_create_session(server.port, "step", COUNT, checkpoint);
    compare(&server, "step, 1 M raw f32, durability checkpoint", "bare server reads", "",
            BARE_SHORT, seconds);
    compare(&server, "the same, answered with the parameters", "bare server echoes",
            "Prefer: return=representation\r\nAccept: application/octet-stream\r\n", BARE_ECHO,
            seconds);
    child_stop(&server);
}
