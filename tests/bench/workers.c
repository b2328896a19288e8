/* Many workers on one session, each on a connection of its own that always has a contribution under
 * way: contributions and bytes a second by mode, by number of workers and by coding, every one on
 * disk before its answer; beside a bare server that reads the same bodies and a plain append and
 * fdatasync of the same bytes, one after the other. The best of several rounds that take turns.
 * In mode sync everyone waits for the round to close, so a round takes the time of its slowest. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/codings.h"

enum { COUNT = 1000000, FEW = 10000, WORKERS_MAX = 64, ROUNDS = 3, FILE_BYTES_MAX = 1 << 28 };

static const struct {
    const char *name, *aggregation; /* %zu: how many workers */
    const char *headers;
} modes[] = {
    {"async", "{\"mode\":\"async\"}", ""},
    {"sync", "{\"mode\":\"sync\",\"workers\":%zu}", "Prefer: wait=60\r\n"},
    {"accumulate", "{\"mode\":\"async\",\"accumulate\":%zu}", ""},
    {"ssp", "{\"mode\":\"ssp\",\"staleness\":1000000}", ""},
};
enum { MODES = sizeof modes / sizeof *modes, ASYNC = 0, SYNC = 1 };

static const size_t crowds[] = {1, 4, 16, 64};
enum { CROWDS = sizeof crowds / sizeof *crowds, CROWD = 2 /* where codings are compared */ };

/* --- the disk --- */

struct disk {
    int fd;
    size_t used;
};

static struct disk disk_open(const char *folder)
{
    const char *path = bench_text("%s/workers-append", folder);
    struct disk disk = {.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};

    if (disk.fd < 0)
        bench_fail(path);
    unlink(path);
    return disk;
}

/* Appends a second, each on disk. The file begins anew now and then, beside the clock. */
static double disk_rate(struct disk *disk, const struct request_bytes *body, double seconds)
{
    double spent = 0;
    size_t count = 0;

    for (; spent < seconds; count++) {
        if ((disk->used += body->size) > FILE_BYTES_MAX) {
            if (ftruncate(disk->fd, 0) != 0 || fsync(disk->fd) != 0)
                bench_fail("truncate");
            disk->used = body->size;
        }
        double began = bench_now();
        for (size_t written = 0; written < body->size;) {
            ssize_t got = write(disk->fd, body->data + written, body->size - written);
            if (got <= 0)
                bench_fail("write");
            written += (size_t)got;
        }
        if (fdatasync(disk->fd) != 0)
            bench_fail("fdatasync");
        spent += bench_now() - began;
    }
    return (double)count / spent;
}

/* --- one row --- */

static struct request_bytes worker_request(const char *id, size_t worker, size_t mode,
                                           const struct gradient_form *coding,
                                           const struct request_bytes *body)
{
    const char *path = bench_text("/v1/sessions/%s/gradients?worker=w%zu%s%s", id, worker,
                                  coding->query[0] != '\0' ? "&" : "", coding->query);
    const char *headers = bench_text("Content-Type: %s\r\n%s", coding->media, modes[mode].headers);

    return load_request("POST", path, headers, body->data, body->size);
}

static void measure(unsigned port, struct disk *disk, size_t mode, size_t workers, size_t count,
                    const struct gradient_form *coding, double seconds)
{
    static size_t number;
    struct request_bytes requests[WORKERS_MAX], body = gradient_form_body(coding, count);
    double ours[ROUNDS], bares[ROUNDS], disks[ROUNDS];
    char aggregation[128], id[32];
    struct child bare;

    snprintf(id, sizeof id, "s%zu", number++);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(aggregation, sizeof aggregation, modes[mode].aggregation, workers);
#pragma GCC diagnostic pop
    const char *shape = strcmp(coding->name, "rows") == 0 ? bench_text("%zu,100", count / 100)
                                                          : bench_text("%zu", count);
    load_once(port, "PUT", bench_text("/v1/sessions/%s", id),
              bench_text("{\"optimizer\":\"sgd\",\"parameters\":{\"w\":{\"shape\":[%s],\"init\":"
                         "\"zeros\"}},\"aggregation\":%s,\"history\":{\"keep_steps\":10}}",
                         shape, aggregation));
    for (size_t i = 0; i < workers; i++)
        requests[i] = worker_request(id, i, mode, coding, &body);
    bare_start(&bare, BARE_SHORT, body.size);
    struct load *to_ours = load_open(port, requests, workers);
    struct load *to_bare = load_open(bare.port, requests, workers);
    size_t whole = modes[mode].headers[0] != '\0' ? workers : 0; /* no round stays half */
    for (size_t round = 0; round < ROUNDS; round++) {
        bares[round] = load_run(to_bare, seconds / 2, 0).rate;
        double began = bench_now();
        size_t answered = 0;
        do
            answered += load_run(to_ours, whole > 0 ? 0 : seconds, whole).count;
        while (bench_now() - began < seconds);
        ours[round] = (double)answered / (bench_now() - began);
        disks[round] = disk_rate(disk, &body, seconds / 4);
    }
    double rate = bench_maximum(ours, ROUNDS), served = bench_maximum(bares, ROUNDS);
    double written = bench_maximum(disks, ROUNDS);
    const char *what = bench_text("%s, %s, %zu worker%s, %zu K parameters", modes[mode].name,
                                  coding->name, workers, workers > 1 ? "s" : "", count / 1000);
    const char *limit =
        bench_text("bare server %.0f/s; append and fdatasync %.0f/s, one by one", served, written);
    bench_row(what,
              bench_text("%.0f contributions/s, %.0f MB/s", rate, rate * (double)body.size / 1e6),
              limit, rate / (served < written ? served : written), AIM_NONE, 0);
    load_close(to_ours);
    load_close(to_bare);
    child_stop(&bare);
    load_once(port, "DELETE", bench_text("/v1/sessions/%s", id), "");
    for (size_t i = 0; i < workers; i++)
        free(requests[i].data);
    free(body.data);
}

static void measure_traffic(const struct bench *bench)
{
    static const char *const options[] = {"--history-bytes-max", "268435456", NULL};
    double seconds = bench->seconds / 40;
    struct disk disk = disk_open(bench->folder);
    struct child server;

    child_start_server(&server, bench, "workers", options);
    for (size_t mode = 0; mode < MODES; mode++)
        for (size_t crowd = 0; crowd < CROWDS; crowd++)
            measure(server.port, &disk, mode, crowds[crowd], FEW, gradient_form_at(0), seconds);
    for (size_t mode = ASYNC; mode <= SYNC; mode++)
        for (size_t i = 0; gradient_form_at(i) != NULL; i++)
            measure(server.port, &disk, mode, crowds[CROWD], COUNT, gradient_form_at(i), seconds);
    child_stop(&server);
    close(disk.fd);
}

void bench_workers(const struct bench *bench)
{
    bench_mean(bench);
    measure_traffic(bench);
    bench_pairs(bench);
}
