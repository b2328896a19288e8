/* libFuzzer target: any bytes as descent.db. The store refuses the folder with a sentence, or opens
 * it and serves what passes its checksums; the engine on it likewise. */
#include "tests/fuzz/input.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { MEMORY_MAX = 1 << 26, ROWS_MAX = 64, PARAMETERS_MAX = 1 << 16 };

static char folder[64], path[96];

static void sweep(void)
{
    static const char *const names[] = {"", "-wal", "-shm", "-journal"};
    char name[128];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "%s%s", path, names[i]);
        unlink(name);
    }
}

static void leave(void)
{
    char name[128];

    sweep();
    snprintf(name, sizeof name, "%s/descent.lock", folder);
    unlink(name);
    rmdir(folder);
}

static void place(const uint8_t *data, size_t size)
{
    if (folder[0] == '\0') {
        log_set_level(LOG_OFF);
        struct stat about;
        snprintf(folder, sizeof folder, "%s/descent-fuzz-XXXXXX",
                 stat("/dev/shm", &about) == 0 ? "/dev/shm" : "/tmp");
        PRE(mkdtemp(folder) != NULL);
        snprintf(path, sizeof path, "%s/descent.db", folder);
        atexit(leave);
    }
    sweep();
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    PRE(file >= 0 && write(file, data, size) == (ssize_t)size);
    close(file);
}

struct rows {
    uint64_t lsn[ROWS_MAX];
    size_t events;
    struct {
        uint64_t id;
        uint32_t chunks;
    } checkpoints[ROWS_MAX];
    size_t checkpoint_count;
};

static enum status see_session(void *context, const struct store_session *session)
{
    (void)context;
    POST(session->key > 0 && strlen(session->id) <= STORE_ID_BYTES);
    POST(session->record.size <= STORE_CHUNK_BYTES);
    return STATUS_OK;
}

static enum status see_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    struct rows *rows = context;

    if (rows->checkpoint_count < ROWS_MAX) {
        rows->checkpoints[rows->checkpoint_count].id = checkpoint->id;
        rows->checkpoints[rows->checkpoint_count++].chunks = checkpoint->chunks;
    }
    return STATUS_OK;
}

static enum status see_event(void *context, const struct store_event *event)
{
    struct rows *rows = context;

    POST(event->chunk == 0 && event->chunks >= 1 && event->kind > 0);
    if (rows->events < ROWS_MAX)
        rows->lsn[rows->events++] = event->lsn;
    return STATUS_OK;
}

static void read_all(struct store *store)
{
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    struct rows rows = {.events = 0};
    struct store_visitor visitor = {&rows, see_session, see_checkpoint, see_event, NULL};
    struct store_event event;
    size_t size;
    struct fault fault;

    store_backend(store)->scan(store, &visitor, &fault);
    for (size_t i = 0; i < rows.events; i++)
        store_backend(store)->event_read(store, rows.lsn[i], head, body, &event, &fault);
    for (size_t i = 0; i < rows.checkpoint_count; i++)
        for (uint32_t chunk = 0; chunk < rows.checkpoints[i].chunks && chunk < 4; chunk++)
            store_backend(store)->checkpoint_read(store, rows.checkpoints[i].id, chunk, body, &size,
                                                  &fault);
}

/* The sessions of every tenant. */
static void use(struct engine *engine)
{
    struct revision *revision;
    struct digest digest;
    struct moment moment;
    struct fault fault;
    size_t count;

    struct session **sessions = engine_sessions(engine, &count);
    PRE(sessions != NULL);
    for (size_t i = 0; i < count; i++) {
        if (session_revision(sessions[i], &revision, &fault) == STATUS_OK) {
            revision_release(revision);
            session_hash(sessions[i], NULL, &moment, &digest, &fault);
        }
        session_release(sessions[i]);
    }
    free(sessions);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct engine_options options = {.sessions_max = 8,
                                     .parameters_max = PARAMETERS_MAX,
                                     .memory_bytes_max = MEMORY_MAX,
                                     .idle_s = 3600,
                                     .history_bytes_max = MEMORY_MAX};
    struct store_report report;
    struct store *store;
    struct engine *engine;
    struct fault fault = {.status = STATUS_OK};

    place(data, size);
    if (store_inspect(folder, &store, &fault) == STATUS_OK) {
        read_all(store);
        store_backend(store)->verify(store, NULL, &report, &fault);
        store_close(store);
    } else {
        POST(strlen(fault.detail) > 0);
    }
    if (store_open(folder, false, &options.take_store, &fault) == STATUS_OK) {
        read_all(options.take_store);
        if (engine_open(&options, &engine, &fault) == STATUS_OK) {
            use(engine);
            engine_close(engine);
        }
    } else {
        POST(strlen(fault.detail) > 0);
    }
    return 0;
}
