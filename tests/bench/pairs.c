/* SVRG: a step that sends both gradients of its batch beside a plain step, a million parameters,
 * on disk within a second and before the answer, one client; and a bare server that reads one
 * body and two. A pair is twice the transfer and one pass of arithmetic: aimed at no more than
 * the second transfer. */
#include <stdlib.h>

#include "tests/bench/bench.h"

enum { COUNT = 1000000, ROUNDS = 9 };

static struct request_bytes request(const char *id, size_t vectors, const char *query)
{
    float *numbers = malloc(vectors * COUNT * sizeof *numbers);

    if (numbers == NULL)
        bench_fail("memory");
    bench_fill(numbers, vectors * COUNT, 1);
    struct request_bytes out = load_request("POST", bench_text("/v1/sessions/%s/%s", id, query),
                                            "Content-Type: application/octet-stream\r\n", numbers,
                                            vectors * COUNT * sizeof *numbers);
    free(numbers);
    return out;
}

static void compare(unsigned port, const char *id, const char *what, const char *durability,
                    double seconds)
{
    struct child bare;
    struct request_bytes plain, pair, shard;
    double plains[ROUNDS], pairs[ROUNDS], ones[ROUNDS], twos[ROUNDS];

    load_once(port, "PUT", bench_text("/v1/sessions/%s", id),
              bench_text("{\"optimizer\":\"sgd\",\"parameters\":{\"w\":{\"shape\":[%d],\"init\":"
                         "\"zeros\"}},\"svrg\":{},\"durability\":%s,\"history\":{\"keep_steps\":"
                         "10}}",
                         COUNT, durability));
    load_once(port, "POST", bench_text("/v1/sessions/%s/snapshots", id), "{\"workers\":1}");
    shard = request(id, 1, "snapshots/1/gradients?examples=1&worker=w");
    struct load *to_snapshot = load_open(port, &shard, 1);
    load_run(to_snapshot, 0, 1);
    load_close(to_snapshot);
    plain = request(id, 1, "gradients");
    pair = request(id, 2, "gradients?snapshot=1");
    bare_start(&bare, BARE_SHORT, 2 * COUNT * sizeof(float));
    struct load *to_plain = load_open(port, &plain, 1), *to_pair = load_open(port, &pair, 1);
    struct load *to_one = load_open(bare.port, &plain, 1), *to_two = load_open(bare.port, &pair, 1);
    load_run(to_plain, seconds / 4, 0);
    load_run(to_pair, seconds / 4, 0);
    for (size_t round = 0; round < ROUNDS; round++) {
        ones[round] = load_run(to_one, seconds / 4, 0).median;
        twos[round] = load_run(to_two, seconds / 4, 0).median;
        plains[round] = load_run(to_plain, seconds, 0).median;
        pairs[round] = load_run(to_pair, seconds, 0).median;
    }
    double single = bench_minimum(plains, ROUNDS), both = bench_minimum(pairs, ROUNDS);
    double transfer = bench_minimum(twos, ROUNDS) - bench_minimum(ones, ROUNDS);
    bench_row(bench_text("SVRG step with both gradients, 1 M raw f32, %s", what),
              bench_text("%.2f ms", both * 1e3),
              bench_text("plain step %.2f ms + reading the second body %.2f ms", single * 1e3,
                         transfer * 1e3),
              both / (single + transfer), AIM_AT_MOST, 1);
    load_close(to_plain);
    load_close(to_pair);
    load_close(to_one);
    load_close(to_two);
    child_stop(&bare);
    free(plain.data);
    free(pair.data);
    free(shard.data);
}

void bench_pairs(const struct bench *bench)
{
    double seconds = bench->seconds / 8 / ROUNDS;
    struct child server;

    child_start_server(&server, bench, "pairs", NULL);
    compare(server.port, "quick", "on disk later", "{\"mode\":\"interval\",\"seconds\":1}",
            seconds);
    compare(server.port, "durable", "on disk before the answer", "{\"mode\":\"step\"}", seconds);
    child_stop(&server);
}
