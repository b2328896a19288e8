/* The engine: opening, housekeeping, closing. */
#include "service/session/engine.h"
#include "service/session/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/crew.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { HOUSEKEEPING_MS = 200, TRIM_US = 2000000, POOL_IDLE_S = 10 };

/* --- housekeeping --- */

/* Saves and frees the state of a session nobody uses. */
static void evict(struct session *session)
{
    struct fault fault;

    pthread_mutex_lock(&session->mutex);
    bool idle = session->state != NULL && session->users == 0 && !session->deleted;
    bool dirty = session->dirty > 0;
    pthread_mutex_unlock(&session->mutex);
    if (!idle || (dirty && session_pin(session, &fault) != STATUS_OK))
        return;
    if (dirty) {
        if (session_save(session, true, &fault) != STATUS_OK)
            log_warning("session %s stays in memory: %s", session->stored_id, fault.detail);
        session_unpin(session);
    }
    POINT(before_evict);
    session_evict(session);
    POINT(after_evict);
}

struct resident {
    struct session *session;
    uint64_t used_us;
    uint64_t bytes;
};

static int compare_use(const void *a, const void *b)
{
    uint64_t left = ((const struct resident *)a)->used_us;
    uint64_t right = ((const struct resident *)b)->used_us;

    return left < right ? -1 : left > right;
}

/* Evicts what is idle for too long, and, over the memory limit, what was used longest ago. */
static void evict_idle(struct engine *engine)
{
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);
    struct resident *residents = count == 0 ? NULL : calloc(count, sizeof *residents);
    uint64_t bytes = 0;
    size_t resident_count = 0;

    for (size_t i = 0; i < count && residents != NULL; i++) {
        pthread_mutex_lock(&sessions[i]->mutex);
        if (sessions[i]->state != NULL) {
            struct resident *resident = &residents[resident_count++];
            resident->session = sessions[i];
            resident->used_us = sessions[i]->used_us;
            resident->bytes =
                state_bytes(sessions[i]->layout, sessions[i]->plan, &sessions[i]->spec) +
                sessions[i]->state->receipts.lines.capacity + sessions[i]->state->round.bytes;
            bytes += resident->bytes;
        }
        pthread_mutex_unlock(&sessions[i]->mutex);
    }
    metric_set(GAUGE_STATE_BYTES, 0, (int64_t)bytes);
    uint64_t now = clock_monotonic_us(); /* after the loop: no use is later */
    if (resident_count > 1)
        qsort(residents, resident_count, sizeof *residents, compare_use);
    for (size_t i = 0; i < resident_count; i++) {
        if (now - residents[i].used_us < engine->options.idle_s * 1000000 &&
            bytes <= engine->options.memory_bytes_max)
            break;
        evict(residents[i].session);
        bytes -= residents[i].bytes;
    }
    for (size_t i = 0; i < count; i++)
        session_release(sessions[i]);
    free(residents);
    free(sessions);
}

static void *keep_house(void *context)
{
    struct engine *engine = context;
    struct timespec until;
    uint64_t trimmed_at = 0, evicted_us = clock_monotonic_us(), trimmed_us = evicted_us;

    pthread_mutex_lock(&engine->wake_mutex);
    while (!engine->stopping) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += HOUSEKEEPING_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&engine->wake, &engine->wake_mutex, &until);
        if (engine->stopping)
            break;
        pthread_mutex_unlock(&engine->wake_mutex);
        uint64_t end = __atomic_load_n(&engine->journal_lsn, __ATOMIC_RELAXED);
        uint64_t since_us = clock_monotonic_us() - trimmed_us;
        if (end - trimmed_at >= 64 || (end != trimmed_at && since_us > TRIM_US)) {
            engine_trim(engine);
            trimmed_at = end;
            trimmed_us = clock_monotonic_us();
        }
        if (clock_monotonic_us() - evicted_us > 1000000) {
            evict_idle(engine);
            buffer_pool_trim(POOL_IDLE_S);
            evicted_us = clock_monotonic_us();
        }
        pthread_mutex_lock(&engine->wake_mutex);
    }
    pthread_mutex_unlock(&engine->wake_mutex);
    return NULL;
}

/* --- life --- */

static void engine_free(struct engine *engine)
{
    if (engine->committer != NULL)
        committer_stop(engine->committer);
    while (engine->count > 0)
        engine_forget(engine, engine->sessions[engine->count - 1]);
    free(engine->sessions);
    engine_free_owed(engine);
    metric_move(GAUGE_JOURNAL_BYTES, 0, -(int64_t)engine->journal_bytes);
    engine_free_tenants(engine);
    store_close(engine->store);
    crew_stop();
    pthread_rwlock_destroy(&engine->lock);
    pthread_mutex_destroy(&engine->wake_mutex);
    pthread_mutex_destroy(&engine->past);
    pthread_mutex_destroy(&engine->trimming);
    pthread_cond_destroy(&engine->wake);
    pthread_mutex_destroy(&engine->time_mutex);
    pthread_cond_destroy(&engine->time);
    free(engine);
}

/* What was found; the sessions' states come back on first use, with lines of their own. */
static void tell_recovery(const struct engine *engine, uint64_t took_us)
{
    uint64_t events = 0;

    for (size_t i = 0; i < engine->count; i++)
        events += engine->sessions[i]->event_count;
    const struct log_field fields[] = {{.name = "sessions", .number = engine->count},
                                       {.name = "journal_events", .number = events},
                                       {.name = "journal_bytes", .number = engine->journal_bytes},
                                       {.name = "duration_us", .number = took_us}};
    log_fields(engine->count > 0 ? LOG_INFO : LOG_DEBUG, "recovered", fields,
               sizeof fields / sizeof *fields);
}

enum status engine_open(const struct engine_options *options, struct engine **out,
                        struct fault *fault)
{
    struct engine *engine = calloc(1, sizeof *engine);
    struct orphans orphans = {.checkpoints = NULL};
    uint64_t begun_us = clock_monotonic_us();
    pthread_condattr_t monotonic;
    enum status status;

    if (engine == NULL) {
        store_close(options->take_store);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    crew_start();
    engine->options = *options;
    engine->store = options->take_store;
    pthread_rwlock_init(&engine->lock, NULL);
    pthread_mutex_init(&engine->wake_mutex, NULL);
    pthread_mutex_init(&engine->past, NULL);
    pthread_mutex_init(&engine->trimming, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->wake, &monotonic);
    pthread_mutex_init(&engine->time_mutex, NULL);
    pthread_cond_init(&engine->time, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if ((status = engine_read_store(engine, &orphans, fault)) == STATUS_OK) {
        tell_recovery(engine, clock_monotonic_us() - begun_us);
        status = committer_start(engine->store, engine->journal_lsn, &engine->committer, fault);
    }
    if (status == STATUS_OK)
        engine_drop_orphans(engine, &orphans);
    if (status == STATUS_OK && (status = timekeeper_start(engine, fault)) == STATUS_OK &&
        pthread_create(&engine->housekeeper, NULL, keep_house, engine) != 0) {
        timekeeper_stop(engine);
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot start the housekeeping thread");
    }
    orphans_close(&orphans);
    for (size_t i = 0; i < engine->count && status == STATUS_OK; i++)
        if (engine->sessions[i]->overdue)
            session_close_at(engine->sessions[i], 0);
    if (status == STATUS_OK)
        *out = engine;
    else
        engine_free(engine);
    return status;
}

void engine_save(struct engine *engine)
{
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);
    struct fault fault;

    for (size_t i = 0; i < count; i++) {
        struct session *session = sessions[i];
        pthread_mutex_lock(&session->mutex);
        bool changed = session->state != NULL && session->dirty > 0 && !session->deleted;
        pthread_mutex_unlock(&session->mutex);
        if (changed && session_pin(session, &fault) == STATUS_OK) {
            if (session_save(session, true, &fault) != STATUS_OK)
                log_error("session %s: not saved at the end: %s", session->stored_id, fault.detail);
            session_unpin(session);
        }
        session_release(session);
    }
    free(sessions);
}

void engine_close(struct engine *take_engine)
{
    struct engine *engine = take_engine;
    struct fault fault;

    pthread_mutex_lock(&engine->wake_mutex);
    engine->stopping = true;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->wake_mutex);
    pthread_join(engine->housekeeper, NULL);
    timekeeper_stop(engine);
    engine_ready(engine, &fault); /* after an I/O error it opens the store again */
    engine_save(engine);
    POINT(after_save);
    engine_free(engine);
}

enum status engine_ready(struct engine *engine, struct fault *fault)
{
    size_t bytes;
    enum status status = commit_trouble(engine->committer, &bytes, fault);

    if (status == STATUS_OK)
        return status;
    /* The last write failed: whether the next would is found out by trying one of its size, for a
     * full disk often takes small ones. */
    status = engine->store->backend->maintain(engine->store, NULL, fault);
    return status == STATUS_OK ? engine_probe(engine, bytes, fault) : status;
}

void engine_usage(struct engine *engine, struct engine_usage *out)
{
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);

    *out = (struct engine_usage){.sessions = count,
                                 .journal_bytes =
                                     __atomic_load_n(&engine->journal_bytes, __ATOMIC_RELAXED)};
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_lock(&sessions[i]->mutex);
        if (sessions[i]->state != NULL) {
            out->resident++;
            out->resident_bytes +=
                state_bytes(sessions[i]->layout, sessions[i]->plan, &sessions[i]->spec) +
                sessions[i]->state->round.bytes;
        }
        pthread_mutex_unlock(&sessions[i]->mutex);
        session_release(sessions[i]);
    }
    free(sessions);
}
