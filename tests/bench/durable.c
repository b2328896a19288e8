/* Durability `step`: a million parameters, each step on disk before its answer, with checkpoints
 * and retention at work; beside a step with durability `checkpoint` and a plain append + fdatasync
 * of the same bytes on the same file system. Means, since what is slow now and then counts; the
 * three take turns. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/bench/bench.h"

/* History enough for retention to be at work within a short run. */
enum { COUNT = 1000000, KEEP_STEPS = 50, WARM_STEPS = 150, TURN_APPENDS = 40, FILE_APPENDS = 64 };
#define HISTORY "67108864"

struct disk {
    int fd;
    size_t appends;
};

static struct disk disk_open(const char *folder)
{
    const char *path = bench_text("%s/append", folder);
    struct disk disk = {.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};

    if (disk.fd < 0)
        bench_fail(path);
    unlink(path);
    return disk;
}

/* Seconds of one append. The file begins anew now and then, beside the clock. */
static double disk_append(struct disk *disk, const struct request_bytes *bytes)
{
    if (++disk->appends % FILE_APPENDS == 0 &&
        (ftruncate(disk->fd, 0) != 0 || fsync(disk->fd) != 0))
        bench_fail("truncate");
    double began = bench_now();
    for (size_t written = 0; written < COUNT * sizeof(float);) {
        ssize_t got = write(disk->fd, bytes->data + written, COUNT * sizeof(float) - written);
        if (got <= 0)
            bench_fail("write");
        written += (size_t)got;
    }
    if (fdatasync(disk->fd) != 0)
        bench_fail("fdatasync");
    return bench_now() - began;
}

/* A sum of times, and of how many. */
struct sum {
    double total;
    size_t count;
};

static void add(struct sum *sum, double mean, size_t count)
{
    sum->total += mean * (double)count;
    sum->count += count;
}

static double mean(const struct sum *sum)
{
    return sum->total / (double)sum->count;
}

void bench_durable(const struct bench *bench)
{
    static const char *const options[] = {"--history-bytes-max", HISTORY, NULL};
    struct child server;
    struct sum durable = {0}, quick = {0}, append = {0};

    child_start_server(&server, bench, "durable", options);
    load_create_session(server.port, "c", COUNT,
                        ",\"durability\":{\"mode\":\"checkpoint\",\"steps\":1000}");
    load_create_session(server.port, "s", COUNT,
                        bench_text(",\"history\":{\"keep_steps\":%d}", KEEP_STEPS));
    struct request_bytes checkpoint_request = load_step_request("c", COUNT, "");
    struct request_bytes step_request = load_step_request("s", COUNT, "");
    struct load *checkpoints = load_open(server.port, &checkpoint_request, 1);
    struct load *steps = load_open(server.port, &step_request, 1);
    struct disk disk = disk_open(bench->folder);

    load_run(checkpoints, 60, WARM_STEPS);
    load_run(steps, 60, WARM_STEPS);
    for (double left = bench->seconds; left > 0;) {
        double began = bench_now();
        struct load_result result = load_run(steps, 1.5, 0);
        add(&durable, result.mean, result.count);
        result = load_run(checkpoints, 0.25, 0);
        add(&quick, result.mean, result.count);
        for (int i = 0; i < TURN_APPENDS; i++)
            add(&append, disk_append(&disk, &step_request), 1);
        left -= bench_now() - began;
    }
    double limit = mean(&quick) + 2.5 * mean(&append);
    bench_row("step, 1 M raw f32, durability step (mean)",
              bench_text("%.2f ms", mean(&durable) * 1e3),
              bench_text("checkpoint step %.2f ms + 2.5 x append and fdatasync %.2f ms",
                         mean(&quick) * 1e3, mean(&append) * 1e3),
              mean(&durable) / limit, AIM_AT_MOST, 1);
    close(disk.fd);
    load_close(checkpoints);
    load_close(steps);
    free(checkpoint_request.data);
    free(step_request.data);
    child_stop(&server);
}
