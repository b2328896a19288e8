/* What history costs and gives, at the engine: recovery after a crash, bytes a step, reading the
 * past, forks and rewinds, replay beside live steps, hashes and notes. Adam, f32, one tensor. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/session/replay.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"
#include "tests/bench/bench.h"
#include "tests/bench/past.h"

/* --- recovery --- */

enum { RECOVERIES = 3 };

/* One look at a store. Seconds. */
struct recovery {
    char folder[256];
    double open, load; /* the engine; the first read of the session */
    double rows;       /* the same rows through the store, with their checksums */
    double raw;        /* as many bytes with pread */
    uint64_t events, bytes;
};

static void recover(void *context)
{
    struct recovery *out = context;
    struct revision *revision;
    struct fault fault;
    double began = bench_now();
    struct engine *engine = past_open(out->folder);

    out->open = bench_now() - began;
    struct session *session = past_find(engine, "a");
    past_must(session_revision(session, &revision, &fault), &fault);
    out->load = bench_now() - began - out->open;
    out->events = session->dirty;
    out->bytes = session->checkpoints->bytes;
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (place->lsn > session->checkpoints->lsn)
            out->bytes += place->bytes;
}

static void read_rows(struct store *store, const struct session *session)
{
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    const struct checkpoint_place *checkpoint = session->checkpoints;
    struct store_event event;
    struct fault fault;
    size_t size;

    for (uint32_t i = 0; i < checkpoint->chunks; i++)
        past_must(store->backend->checkpoint_read(store, checkpoint->id, i, body, &size, &fault),
                  &fault);
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        for (uint32_t i = 0; i < place->chunks && place->lsn > checkpoint->lsn; i++)
            past_must(store->backend->event_read(store, place->lsn + i, head, body, &event, &fault),
                      &fault);
}

static void read_limits(void *context)
{
    struct recovery *out = context;
    struct engine *engine = past_open(out->folder);
    struct session *session = past_find(engine, "a");
    static unsigned char piece[STORE_CHUNK_BYTES];
    double began = bench_now();

    read_rows(engine->store, session);
    out->rows = bench_now() - began;
    const char *path = bench_text("%s/descent.db", out->folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        bench_fail(path);
    began = bench_now();
    for (uint64_t done = 0; done < out->bytes; done += sizeof piece)
        if (pread(fd, piece, sizeof piece, (off_t)done) < 0)
            bench_fail(path);
    out->raw = bench_now() - began;
    close(fd);
}

static void report_recovery(const char *folder, const char *what)
{
    struct recovery *recovery = past_shared(sizeof *recovery);
    double opens[RECOVERIES], loads[RECOVERIES], rows[RECOVERIES], raws[RECOVERIES];

    snprintf(recovery->folder, sizeof recovery->folder, "%s", folder);
    for (size_t i = 0; i < RECOVERIES; i++) {
        past_apart(recover, recovery);
        past_apart(read_limits, recovery);
        opens[i] = recovery->open * 1e3;
        loads[i] = recovery->load * 1e3;
        rows[i] = recovery->rows * 1e3;
        raws[i] = recovery->raw * 1e3;
    }
    double load = bench_minimum(loads, RECOVERIES), row = bench_minimum(rows, RECOVERIES);
    double bytes = (double)recovery->bytes;
    bench_row(bench_text("recovery, %s, %zu events, %.1f MB", what, (size_t)recovery->events,
                         bytes / 1e6),
              bench_text("%.1f ms (median %.1f; open %.1f): %.0f events/s, %.0f MB/s", load,
                         bench_median(loads, RECOVERIES), bench_median(opens, RECOVERIES),
                         (double)recovery->events / load * 1e3, bytes / load / 1e3),
              bench_text("rows and checksums %.1f ms, pread %.1f ms", row,
                         bench_minimum(raws, RECOVERIES)),
              load / row, AIM_NONE, 0);
}

static void bench_recovery(const struct bench *bench)
{
    static const size_t lengths[] = {1024, 256, 64, 16},
                        counts[] = {1000, 100000, 1000000, 16000000};
    char folder[256];

    snprintf(folder, sizeof folder, "%s/lengths", bench->folder);
    struct past past = {.folder = folder,
                        .count = 100000,
                        .wire = DTYPE_F32,
                        .steps = lengths[0],
                        .mode = DURABILITY_INTERVAL};
    past_crash(&past);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        past_cut(folder, lengths[i]);
        report_recovery(folder, "100 K parameters");
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(folder, sizeof folder, "%s/size%zu", bench->folder, i);
        past.count = counts[i];
        past.steps = past_length(counts[i], DTYPE_F32);
        past_crash(&past);
        report_recovery(folder, bench_text("%s parameters", past_size(counts[i])));
    }
}

/* --- bytes a step --- */

struct cost {
    char folder[256];
    struct past past;
    double gradients, heads, lines, checkpoints, file; /* bytes of them all */
    uint64_t events;
};

static double folder_bytes(const char *folder)
{
    struct stat about;
    const char *path = bench_text("%s/descent.db", folder);

    if (stat(path, &about) != 0)
        bench_fail(path);
    return (double)about.st_size;
}

static void weigh(void *context)
{
    struct cost *cost = context;
    struct past *past = &cost->past;
    struct engine *engine = past_open(cost->folder);
    struct session *session = past_create(engine, "a", past);
    double before = folder_bytes(cost->folder);
    struct checkpoint_view views[64];
    struct moment moment;
    struct fault fault;

    past_steps(session, past_gradient(past->count, past->wire), past->wire, past->steps);
    past_settle(session);
    past_must(session_checkpoint_now(session, &moment, &fault), &fault);
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (place->kind == EVENT_RECEIPTS)
            cost->lines += (double)place->bytes;
        else
            cost->heads += (double)place->bytes;
    cost->gradients = (double)(past->steps * past->count * dtype_size(past->wire));
    cost->heads -= cost->gradients;
    size_t count = session_checkpoints(session, views, 64);
    for (size_t i = 0; i + 1 < count && i < 64; i++) /* but the first */
        cost->checkpoints += (double)views[i].bytes;
    engine_close(engine);
    cost->file = folder_bytes(cost->folder) - before;
}

static void bench_bytes(const struct bench *bench)
{
    static const size_t counts[] = {1000, 100000, 1000000};
    static const enum dtype wires[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    struct cost *cost = past_shared(sizeof *cost);

    for (size_t i = 0; i < 9; i++) {
        size_t count = counts[i / 3];
        enum dtype wire = wires[i % 3];
        *cost = (struct cost){.past = {.count = count,
                                       .wire = wire,
                                       .steps = past_length(count, wire),
                                       .mode = DURABILITY_INTERVAL}};
        snprintf(cost->folder, sizeof cost->folder, "%s/bytes%zu", bench->folder, i);
        past_apart(weigh, cost);
        double steps = (double)cost->past.steps, file = cost->file / steps;
        double rows =
            file - (cost->gradients + cost->heads + cost->lines + cost->checkpoints) / steps;
        bench_row(bench_text("bytes a step, %s parameters, %s", past_size(count), dtype_name(wire)),
                  bench_text("%.0f: head %.0f, line %.0f, rows and pages %.0f, checkpoints %.0f",
                             file, cost->heads / steps, cost->lines / steps, rows,
                             cost->checkpoints / steps),
                  bench_text("the gradient %.0f", cost->gradients / steps),
                  file / (cost->gradients / steps), AIM_NONE, 0);
    }
}

void bench_history(const struct bench *bench)
{
    bench_recovery(bench);
    bench_bytes(bench);
    bench_past(bench);
}
