/* What may leave the disk. The journal is one log, so it is shortened from its old end only: up to
 * the first event that some session needs, for recovery (events after its newest checkpoint) or for
 * the history it was promised (keep_steps). Above history_bytes_max history gives way, oldest
 * first, and sessions that lag behind are checkpointed. */
#include <stdlib.h>

#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { LSNS_PER_DROP_MIN = 256, LSNS_PER_DROP_MAX = 65536 };
#define BYTES_PER_DROP ((uint64_t)64 << 20)
#define PROBE_BYTES_MAX ((size_t)64 << 20)

struct drop {
    struct commit_item item; /* first */
    uint64_t checkpoint;     /* 0: none */
    uint64_t first, last;    /* lsns; last < first: none */
};

static enum status write_drop(struct commit_item *item, struct commit_turn *turn,
                              struct fault *fault)
{
    struct drop *drop = (struct drop *)(void *)item;
    const struct store_backend *backend = turn->store->backend;
    enum status status = STATUS_OK;

    if (drop->checkpoint > 0)
        status = backend->checkpoint_drop(turn->store, drop->checkpoint, fault);
    if (status == STATUS_OK && drop->first <= drop->last)
        status = backend->event_drop(turn->store, drop->first, drop->last, fault);
    POINT(after_drop);
    return status;
}

static enum status run_drop(struct engine *engine, struct drop drop)
{
    struct fault fault;

    drop.item = (struct commit_item){.write = write_drop};
    commit_enqueue(engine->committer, &drop.item);
    enum status status = commit_wait(&drop.item, &fault);
    if (status != STATUS_OK)
        log_warning("space is not given back yet: %s", fault.detail);
    return status;
}

static enum status drop_checkpoints(struct engine *engine, struct checkpoint_place *take_places)
{
    enum status status = STATUS_OK;

    while (take_places != NULL) {
        struct checkpoint_place *next = take_places->next;
        if (status == STATUS_OK)
            status = run_drop(engine, (struct drop){.checkpoint = take_places->id, .first = 1});
        free(take_places);
        take_places = next;
    }
    return status;
}

void engine_drop_orphans(struct engine *engine, const uint64_t *checkpoints, size_t count)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = run_drop(engine, (struct drop){.checkpoint = checkpoints[i], .first = 1});
    /* A trim that was cut short may have left the last chunks of an event without their first. */
    if (status == STATUS_OK && engine->trimmed_lsn > 0)
        run_drop(engine, (struct drop){.first = 1, .last = engine->trimmed_lsn});
}

struct probe {
    struct commit_item item; /* first */
    uint64_t id;
    size_t bytes;
    const unsigned char *zeros; /* STORE_CHUNK_BYTES */
};

/* A checkpoint of nobody that is never sealed: if it is not dropped below, the next open does it.
 */
static enum status write_probe(struct commit_item *item, struct commit_turn *turn,
                               struct fault *fault)
{
    struct probe *probe = (struct probe *)(void *)item;
    enum status status = STATUS_OK;
    uint32_t chunk = 0;

    for (size_t used = 0; used < probe->bytes && status == STATUS_OK; used += STORE_CHUNK_BYTES)
        status = turn->store->backend->checkpoint_put(
            turn->store, probe->id, 1, chunk++, span_of(probe->zeros, STORE_CHUNK_BYTES), fault);
    return status;
}

enum status engine_probe(struct engine *engine, size_t bytes, struct fault *fault)
{
    unsigned char *zeros = calloc(1, STORE_CHUNK_BYTES);
    struct probe probe = {.item = {.bytes = bytes, .write = write_probe}, .zeros = zeros};

    if (zeros == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    probe.bytes = bytes > PROBE_BYTES_MAX ? PROBE_BYTES_MAX : bytes + 1;
    probe.id = __atomic_add_fetch(&engine->next_checkpoint, 1, __ATOMIC_RELAXED);
    commit_enqueue(engine->committer, &probe.item);
    enum status status = commit_wait(&probe.item, fault);
    free(zeros);
    if (status == STATUS_OK)
        run_drop(engine, (struct drop){.checkpoint = probe.id, .first = 1});
    return status;
}

void session_drop_contents(struct session *session)
{
    struct engine *engine = session->engine;
    struct event_place *place;
    enum status status;

    pthread_mutex_lock(&session->mutex);
    struct checkpoint_place *checkpoints = session->checkpoints;
    struct event_place *events = session->events;
    session->checkpoints = NULL;
    session->events = NULL;
    session->events_end = &session->events;
    pthread_mutex_unlock(&session->mutex);
    status = drop_checkpoints(engine, checkpoints);
    while ((place = events) != NULL) {
        /* Events of one session that lie side by side go together. */
        struct drop drop = {.first = place->lsn, .last = place->lsn - 1};
        while (events != NULL && events->lsn == drop.last + 1 &&
               drop.last - drop.first + 1 < LSNS_PER_DROP_MIN) {
            drop.last = events->lsn + events->chunks - 1;
            __atomic_sub_fetch(&engine->journal_bytes, events->bytes, __ATOMIC_RELAXED);
            place = events->next;
            free(events);
            events = place;
        }
        /* Small ones scattered among other sessions' are not worth a transaction: they go with the
         * old end of the log. */
        if (status == STATUS_OK && drop.last > drop.first)
            status = run_drop(engine, drop);
    }
}

/* The oldest checkpoint a session must keep: the one its promised history starts from, or, with the
 * log cut at `cut`, the oldest whose events are all there. */
static struct checkpoint_place *anchor_of(const struct session *session, uint64_t cut)
{
    uint64_t wanted =
        session->step > session->spec.keep_steps ? session->step - session->spec.keep_steps : 0;
    struct checkpoint_place *anchor = session->checkpoints;
    uint64_t bytes = 0;

    for (struct checkpoint_place *older = anchor; older != NULL; older = older->next) {
        bytes += older == session->checkpoints ? 0 : older->bytes;
        if (older->lsn + 1 < cut || bytes > session->engine->options.history_bytes_max)
            break;
        anchor = older;
        if (older->step <= wanted)
            break;
    }
    return anchor;
}

/* The first event after `lsn`, or UINT64_MAX. */
static uint64_t first_event_after(const struct session *session, uint64_t lsn)
{
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (place->lsn > lsn)
            return place->lsn;
    return UINT64_MAX;
}

/* Forgets the events before `floor` and returns the checkpoints before the anchor. */
static struct checkpoint_place *shorten(struct session *session, uint64_t cut, uint64_t floor)
{
    struct checkpoint_place *dropped = NULL;

    pthread_mutex_lock(&session->mutex);
    if (!session->loading) {
        struct checkpoint_place *anchor = anchor_of(session, cut);
        if (anchor != NULL) {
            dropped = anchor->next;
            anchor->next = NULL;
        }
        while (session->events != NULL && session->events->lsn < floor) {
            struct event_place *next = session->events->next;
            __atomic_sub_fetch(&session->engine->journal_bytes, session->events->bytes,
                               __ATOMIC_RELAXED);
            free(session->events);
            session->events = next;
        }
        if (session->events == NULL)
            session->events_end = &session->events;
    }
    pthread_mutex_unlock(&session->mutex);
    return dropped;
}

/* A session that was not in memory leaves it again at once: many may lag after a crash. */
static void save_lagging(struct session *session)
{
    struct fault fault;

    pthread_mutex_lock(&session->mutex);
    bool resident = session->state != NULL;
    pthread_mutex_unlock(&session->mutex);
    if (session_pin(session, &fault) != STATUS_OK)
        return;
    if (session_save(session, true, &fault) != STATUS_OK)
        log_warning("session %s: no checkpoint: %s", session->id, fault.detail);
    session_unpin(session);
    if (!resident)
        session_evict(session);
}

/* Where the log must be cut to come back under its limit; 0: nowhere. Events are taken as equally
 * long. */
static uint64_t cut_of(const struct engine *engine, uint64_t end)
{
    uint64_t bytes = __atomic_load_n(&engine->journal_bytes, __ATOMIC_RELAXED);
    uint64_t limit = engine->options.history_bytes_max;

    if (bytes <= limit)
        return 0;
    double share = 1 - 0.9 * (double)limit / (double)bytes;
    return engine->trimmed_lsn + (uint64_t)(share * (double)(end - engine->trimmed_lsn));
}

static void drop_events(struct engine *engine, uint64_t floor, uint64_t end)
{
    uint64_t bytes = __atomic_load_n(&engine->journal_bytes, __ATOMIC_RELAXED);
    uint64_t each = bytes / (end - engine->trimmed_lsn + 1) + 1;
    uint64_t stride = BYTES_PER_DROP / each;

    stride = stride < LSNS_PER_DROP_MIN   ? LSNS_PER_DROP_MIN
             : stride > LSNS_PER_DROP_MAX ? LSNS_PER_DROP_MAX
                                          : stride;
    while (engine->trimmed_lsn + 1 < floor) {
        uint64_t last = engine->trimmed_lsn + stride;
        if (last >= floor)
            last = floor - 1;
        if (run_drop(engine, (struct drop){.first = engine->trimmed_lsn + 1, .last = last}) !=
            STATUS_OK)
            return;
        engine->trimmed_lsn = last;
        POINT(between_drops);
    }
}

void engine_trim(struct engine *engine)
{
    uint64_t end = __atomic_load_n(&engine->journal_lsn, __ATOMIC_ACQUIRE);
    uint64_t cut = cut_of(engine, end), floor = end + 1;
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);

    if (sessions == NULL)
        return; /* without asking every session nothing may go */
    for (size_t i = 0; i < count; i++) {
        struct session *session = sessions[i];
        pthread_mutex_lock(&session->mutex);
        bool lags = !session->deleted && !session->loading && session->checkpoints != NULL &&
                    first_event_after(session, session->checkpoints->lsn) < cut;
        pthread_mutex_unlock(&session->mutex);
        if (lags)
            save_lagging(session);
        pthread_mutex_lock(&session->mutex);
        if (!session->deleted) {
            struct checkpoint_place *anchor = anchor_of(session, cut);
            uint64_t need = session->loading || anchor == NULL
                                ? first_event_after(session, 0)
                                : first_event_after(session, anchor->lsn);
            floor = need < floor ? need : floor;
        }
        pthread_mutex_unlock(&session->mutex);
    }
    for (size_t i = 0; i < count; i++) {
        struct checkpoint_place *dropped = shorten(sessions[i], cut, floor);
        drop_checkpoints(engine, dropped);
        session_release(sessions[i]);
    }
    free(sessions);
    POINT(before_trim);
    drop_events(engine, BUG(trim_too_much) ? engine->journal_lsn + 1 : floor, end);
}
