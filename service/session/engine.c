/* The engine: opening, housekeeping, closing. */
#include "service/session/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/crew.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { HOUSEKEEPING_MS = 200, POOL_IDLE_S = 10 };

/* --- opening --- */

struct opening {
    struct engine *engine;
    struct fault *fault;
    struct session **by_key; /* sorted once all are there */
    size_t count, capacity;
    uint64_t *orphans; /* checkpoints without a session */
    size_t orphan_count;
    bool sorted;
    bool event_seen;
};

static enum status visit_session(void *context, const struct store_session *row)
{
    struct opening *opening = context;
    struct engine *engine = opening->engine;
    struct session_record record;
    struct fault why;
    enum status status;

    if (row->key >= engine->next_key)
        engine->next_key = row->key + 1;
    /* Going on without it would drop its checkpoints and events as nobody's. */
    if ((status = session_record_unpack(row->record, &record, &why)) != STATUS_OK)
        return fault_set(opening->fault, status, "",
                         "session %s cannot be read: %.200s. Use the version of descent that wrote "
                         "it, or restore the folder from a backup.",
                         row->id, why.detail);
    struct plan *plan = NULL;
    struct session *session = NULL;
    if ((status = plan_new(&record.spec, record.layout, &plan, opening->fault)) == STATUS_OK &&
        (session = session_new(engine, row->key, row->id, &record, plan)) == NULL)
        plan_free(plan);
    layout_release(record.layout);
    if (session == NULL)
        return status != STATUS_OK ? status : STATUS_INTERNAL;
    if (opening->count == opening->capacity) {
        size_t capacity = opening->capacity == 0 ? 64 : 2 * opening->capacity;
        struct session **by_key = realloc(opening->by_key, capacity * sizeof *by_key);
        if (by_key == NULL) {
            session_release(session);
            return STATUS_INTERNAL;
        }
        opening->by_key = by_key;
        opening->capacity = capacity;
    }
    opening->by_key[opening->count++] = session;
    return STATUS_OK;
}

static int compare_keys(const void *a, const void *b)
{
    int64_t left = (*(struct session *const *)a)->key, right = (*(struct session *const *)b)->key;

    return left < right ? -1 : left > right;
}

static struct session *find_key(struct opening *opening, int64_t key)
{
    struct session probe = {.key = key}, *pointer = &probe;

    if (!opening->sorted && opening->count > 1)
        qsort(opening->by_key, opening->count, sizeof *opening->by_key, compare_keys);
    opening->sorted = true;
    struct session **found = opening->count == 0
                                 ? NULL
                                 : bsearch(&pointer, opening->by_key, opening->count,
                                           sizeof *opening->by_key, compare_keys);

    return found == NULL ? NULL : *found;
}

static enum status visit_checkpoint(void *context, const struct store_checkpoint *row)
{
    struct opening *opening = context;
    struct engine *engine = opening->engine;

    struct session *session = find_key(opening, row->session);

    if (row->id > engine->next_checkpoint)
        engine->next_checkpoint = row->id;
    if (row->session >= engine->next_key)
        engine->next_key = row->session + 1;
    if (row->lsn > engine->journal_lsn) /* the journal's last events may be gone already */
        engine->journal_lsn = row->lsn;
    if (session == NULL) {
        uint64_t *orphans =
            realloc(opening->orphans, (opening->orphan_count + 1) * sizeof *orphans);
        if (orphans == NULL)
            return STATUS_INTERNAL;
        opening->orphans = orphans;
        opening->orphans[opening->orphan_count++] = row->id;
        return STATUS_OK;
    }
    struct checkpoint_place *place = calloc(1, sizeof *place);
    if (place == NULL)
        return STATUS_INTERNAL;
    *place = (struct checkpoint_place){.next = session->checkpoints,
                                       .id = row->id,
                                       .lsn = row->lsn,
                                       .step = row->step,
                                       .chunks = row->chunks,
                                       .bytes = row->bytes};
    session->checkpoints = place;
    if (row->step >= session->step)
        session->step = session->admitted_step = session->durable_step = row->step;
    return STATUS_OK;
}

static enum status visit_event(void *context, const struct store_event *row)
{
    struct opening *opening = context;
    struct engine *engine = opening->engine;
    POINT(in_scan);
    struct session *session = find_key(opening, row->session);

    if (!opening->event_seen)
        engine->trimmed_lsn = row->lsn - 1;
    opening->event_seen = true;
    if (row->lsn + row->chunks - 1 > engine->journal_lsn)
        engine->journal_lsn = row->lsn + row->chunks - 1;
    if (row->session >= engine->next_key)
        engine->next_key = row->session + 1;
    if (session == NULL)
        return STATUS_OK; /* of a deleted session: goes with the old end of the log */
    struct event_place *place = calloc(1, sizeof *place);
    if (place == NULL)
        return STATUS_INTERNAL;
    uint64_t bytes = (uint64_t)row->chunks * STORE_CHUNK_BYTES;
    uint64_t vector =
        (session->layout->count + session->plan->proposal_count) * dtype_size(session->dtype);
    *place = (struct event_place){.lsn = row->lsn,
                                  .step = row->step,
                                  .chunks = row->chunks,
                                  .bytes = bytes < vector ? bytes : vector};
    *session->events_end = place;
    session->events_end = &place->next;
    engine->journal_bytes += place->bytes;
    if (row->step > session->step)
        session->step = session->admitted_step = session->durable_step = row->step;
    return STATUS_OK;
}

static enum status read_store(struct engine *engine, struct opening *opening, struct fault *fault)
{
    struct store_visitor visitor = {.context = opening,
                                    .session = visit_session,
                                    .checkpoint = visit_checkpoint,
                                    .event = visit_event};
    enum status status;

    opening->fault = fault;
    fault_set(fault, STATUS_INTERNAL, "", "out of memory while reading the storage");
    if ((status = engine->store->backend->scan(engine->store, &visitor, fault)) != STATUS_OK)
        return status;
    POINT(after_scan);
    if (!opening->event_seen)
        engine->trimmed_lsn = engine->journal_lsn;
    for (size_t i = 0; i < opening->count; i++) {
        if ((status = registry_enrol(engine, opening->by_key[i], fault)) != STATUS_OK)
            return status;
        opening->by_key[i] = NULL;
    }
    return STATUS_OK;
}

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
            log_warning("session %s stays in memory: %s", session->id, fault.detail);
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
                state_bytes(sessions[i]->layout, sessions[i]->plan, &sessions[i]->spec);
            bytes += resident->bytes;
        }
        pthread_mutex_unlock(&sessions[i]->mutex);
    }
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
    uint64_t trimmed_at = 0, evicted_us = clock_monotonic_us();

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
        if (end - trimmed_at >= 64) {
            engine_trim(engine);
            trimmed_at = end;
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
    for (size_t i = 0; i < engine->count; i++)
        session_release(engine->sessions[i]);
    free(engine->sessions);
    store_close(engine->store);
    crew_stop();
    pthread_rwlock_destroy(&engine->lock);
    pthread_mutex_destroy(&engine->wake_mutex);
    pthread_cond_destroy(&engine->wake);
    free(engine);
}

enum status engine_open(const struct engine_options *options, struct engine **out,
                        struct fault *fault)
{
    struct engine *engine = calloc(1, sizeof *engine);
    struct opening opening = {.engine = engine};
    pthread_condattr_t monotonic;
    enum status status;

    if (engine == NULL) {
        store_close(options->take_store);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    crew_start();
    engine->options = *options;
    engine->store = options->take_store;
    engine->next_key = 1;
    pthread_rwlock_init(&engine->lock, NULL);
    pthread_mutex_init(&engine->wake_mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if ((status = read_store(engine, &opening, fault)) == STATUS_OK)
        status = committer_start(engine->store, engine->journal_lsn, &engine->committer, fault);
    if (status == STATUS_OK)
        engine_drop_orphans(engine, opening.orphans, opening.orphan_count);
    if (status == STATUS_OK && pthread_create(&engine->housekeeper, NULL, keep_house, engine) != 0)
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot start the housekeeping thread");
    for (size_t i = 0; i < opening.count; i++)
        session_release(opening.by_key[i]);
    free(opening.by_key);
    free(opening.orphans);
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
                log_error("session %s: not saved at the end: %s", session->id, fault.detail);
            session_unpin(session);
        }
        session_release(session);
    }
    free(sessions);
}

void engine_close(struct engine *take_engine)
{
    struct engine *engine = take_engine;

    pthread_mutex_lock(&engine->wake_mutex);
    engine->stopping = true;
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->wake_mutex);
    pthread_join(engine->housekeeper, NULL);
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
    status = engine->store->backend->maintain(engine->store, fault);
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
                state_bytes(sessions[i]->layout, sessions[i]->plan, &sessions[i]->spec);
        }
        pthread_mutex_unlock(&sessions[i]->mutex);
        session_release(sessions[i]);
    }
    free(sessions);
}
