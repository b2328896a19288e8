/* What may leave the disk: of every session the events that it needs neither for recovery (those
 * after its newest checkpoint) nor for the history it was promised (keep_steps). Above
 * history_bytes_max history gives way, that of all sessions oldest first, and sessions that lag
 * behind are checkpointed. */
#include <stdlib.h>
#include <string.h>

#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/past.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { LSNS_PER_DROP = 65536, RANGES_PER_DROP = 1024 };
#define BYTES_PER_DROP ((uint64_t)64 << 20)
#define PROBE_BYTES_MAX ((size_t)64 << 20)

struct drop {
    struct commit_item item; /* first */
    uint64_t checkpoint;     /* 0: none */
    const struct range *ranges;
    size_t count;
};

static enum status write_drop(struct commit_item *item, struct commit_turn *turn,
                              struct fault *fault)
{
    struct drop *drop = (struct drop *)(void *)item;
    const struct store_backend *backend = turn->store->backend;
    enum status status = STATUS_OK;

    if (drop->checkpoint > 0)
        status = backend->checkpoint_drop(turn->store, drop->checkpoint, fault);
    for (size_t i = 0; i < drop->count && status == STATUS_OK; i++)
        status =
            backend->event_drop(turn->store, drop->ranges[i].first, drop->ranges[i].last, fault);
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

static struct checkpoint_place *oldest_first(struct checkpoint_place *take_places)
{
    struct checkpoint_place *out = NULL;

    if (BUG(drop_newest_first))
        return take_places;
    while (take_places != NULL) {
        struct checkpoint_place *next = take_places->next;
        take_places->next = out;
        out = take_places;
        take_places = next;
    }
    return out;
}

static void free_places(struct checkpoint_place *places)
{
    while (places != NULL) {
        struct checkpoint_place *next = places->next;
        free(places);
        places = next;
    }
}

/* In the order of the list, the oldest first, each in its own transaction: whatever cuts it short,
 * every event that is kept still has the checkpoints after it, which lead on where a rewind is.
 * Returns what is left. */
static struct checkpoint_place *drop_checkpoints(struct engine *engine,
                                                 struct checkpoint_place *places)
{
    while (places != NULL &&
           run_drop(engine, (struct drop){.checkpoint = places->id}) == STATUS_OK) {
        struct checkpoint_place *next = places->next;
        free(places);
        places = next;
    }
    return places;
}

static int compare_ranges(const void *a, const void *b)
{
    uint64_t left = ((const struct range *)a)->first, right = ((const struct range *)b)->first;

    return left < right ? -1 : left > right;
}

/* What lies side by side goes as one range, so much as is good for one transaction. */
static size_t merge_ranges(struct range *ranges, size_t count)
{
    size_t merged = 0;

    if (count == 0)
        return 0;
    qsort(ranges, count, sizeof *ranges, compare_ranges);
    for (size_t i = 1; i < count; i++) {
        struct range *last = &ranges[merged];
        if (ranges[i].first == last->last + 1 && last->bytes + ranges[i].bytes <= BYTES_PER_DROP &&
            ranges[i].last - last->first < LSNS_PER_DROP) {
            last->last = ranges[i].last;
            last->bytes += ranges[i].bytes;
        } else {
            ranges[++merged] = ranges[i];
        }
    }
    return merged + 1;
}

/* Drops rows of the journal, the oldest first, in transactions between which the steps pass.
 * Returns how many ranges are left, which are then the first. */
static size_t drop_ranges(struct engine *engine, struct range *ranges, size_t count)
{
    size_t done = 0;

    count = merge_ranges(ranges, count);
    while (done < count) {
        size_t taken = 1;
        uint64_t bytes = ranges[done].bytes;
        while (done + taken < count && taken < RANGES_PER_DROP &&
               bytes + ranges[done + taken].bytes <= BYTES_PER_DROP)
            bytes += ranges[done + taken++].bytes;
        if (run_drop(engine, (struct drop){.ranges = ranges + done, .count = taken}) != STATUS_OK)
            break;
        POINT(between_drops);
        done += taken;
    }
    if (done > 0 && done < count)
        memmove(ranges, ranges + done, (count - done) * sizeof *ranges);
    return count - done;
}

void engine_drop_orphans(struct engine *engine, struct orphans *orphans)
{
    struct range before = {.first = 1, .last = engine->oldest_lsn - 1};
    enum status status = STATUS_OK;

    for (size_t i = 0; i < orphans->checkpoint_count && status == STATUS_OK; i++)
        status = run_drop(engine, (struct drop){.checkpoint = orphans->checkpoints[i]});
    /* A drop that was cut short may have left the last chunks of an event without their first. */
    if (status == STATUS_OK && before.last > 0)
        status = run_drop(engine, (struct drop){.ranges = &before, .count = 1});
    if (status == STATUS_OK)
        drop_ranges(engine, orphans->events, orphans->event_count);
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
        run_drop(engine, (struct drop){.checkpoint = probe.id});
    return status;
}

static struct range range_of(const struct event_place *place)
{
    return (struct range){place->lsn, place->lsn + place->chunks - 1, place->bytes};
}

void session_drop_contents(struct session *session)
{
    struct engine *engine = session->engine;
    size_t count = 0;

    pthread_mutex_lock(&session->mutex);
    session_await_readers(session); /* they walk the lists that go now; no more of them come */
    struct checkpoint_place *checkpoints = session->checkpoints;
    struct range *ranges = malloc((session->event_count + 1) * sizeof *ranges);
    session->checkpoints = NULL;
    for (const struct checkpoint_place *at = checkpoints; at != NULL; at = at->next)
        session_count_bytes(session, 0, at->bytes);
    while (session->events != NULL) {
        struct event_place *place = session_unlist_event(session, &session->events);
        if (ranges != NULL) /* else at the next open */
            ranges[count++] = range_of(place);
        free(place);
    }
    pthread_mutex_unlock(&session->mutex);
    free_places(drop_checkpoints(engine, oldest_first(checkpoints)));
    drop_ranges(engine, ranges, count);
    free(ranges);
}

/* --- trimming --- */

/* The lsn of the oldest step that was promised: so many steps back from the newest, over all
 * lineages; 0: all that there are. Mutex held. */
static uint64_t promised_lsn(const struct session *session)
{
    uint64_t steps = session->step_count;

    if (steps <= session->spec.keep_steps)
        return 0;
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (event_steps(place->kind) && steps-- == session->spec.keep_steps)
            return place->lsn;
    return UINT64_MAX; /* keep_steps is 0 */
}

/* The oldest checkpoint a session must keep: the one that its promised history starts from, or,
 * with the log cut at `cut`, the oldest whose events are all there. */
static struct checkpoint_place *anchor_of(const struct session *session, uint64_t cut)
{
    uint64_t promised = BUG(trim_ignores_keep_steps) ? UINT64_MAX : promised_lsn(session);
    struct checkpoint_place *anchor = session->checkpoints;
    uint64_t bytes = 0;

    for (struct checkpoint_place *older = anchor; older != NULL; older = older->next) {
        bytes += older == session->checkpoints ? 0 : older->bytes;
        if (older->from + 1 < cut || bytes > session->engine->options.history_bytes_max)
            break;
        anchor = older;
        if (older->lsn < promised)
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

/* What of the events before this one stays, and follows it. */
struct staying {
    bool something, lines; /* lines of the ledger */
    size_t quarantined_later;
};

/* Whether an event that is older than the anchor stays: lines of the ledger as long as the steps
 * that were promised, gradients in quarantine, and rewinds as long as anything before them. Lines
 * stay behind older ones too: after a rewind these may be of higher steps, and a ledger has no
 * gaps. */
static bool stays(const struct session *session, const struct event_place *place, uint64_t cut,
                  const struct staying *staying)
{
    switch (place->kind) {
    case EVENT_RECEIPTS:
        return place->lsn >= cut &&
               (staying->lines || place->step + session->spec.keep_steps > session->step);
    case EVENT_QUARANTINE:
        return place->lsn >= cut && staying->quarantined_later < QUARANTINE_MAX;
    case EVENT_REWIND:
        return staying->something;
    default:
        return false;
    }
}

static bool reserve_ranges(struct dropping *dropping, size_t more)
{
    size_t capacity = dropping->count + more;

    if (capacity <= dropping->capacity)
        return true;
    struct range *grown = realloc(dropping->ranges, 2 * capacity * sizeof *grown);
    if (grown == NULL)
        return false;
    dropping->ranges = grown;
    dropping->capacity = 2 * capacity;
    return true;
}

/* Takes the events that may go off the list: of those that are newer than the anchor only gradients
 * in quarantine, which replay passes over. Mutex held. */
static void forget_events(struct session *session, uint64_t anchor, uint64_t cut,
                          struct dropping *dropping)
{
    struct event_place **link = &session->events;
    struct staying staying = {.quarantined_later = session->quarantine_count};

    while (*link != NULL &&
           ((*link)->lsn <= anchor || staying.quarantined_later > QUARANTINE_MAX)) {
        struct event_place *place = *link;
        bool needed = place->lsn > anchor && place->kind != EVENT_QUARANTINE;
        staying.quarantined_later -= place->kind == EVENT_QUARANTINE;
        if (needed || stays(session, place, cut, &staying)) {
            staying.something = true;
            staying.lines |= place->kind == EVENT_RECEIPTS;
            link = &place->next;
            continue;
        }
        dropping->ranges[dropping->count++] = range_of(place);
        free(session_unlist_event(session, link));
    }
}

/* Forgets what neither recovery nor history needs: events into `dropping`, the checkpoints are
 * returned, the newest first. */
static struct checkpoint_place *shorten(struct session *session, uint64_t cut,
                                        struct dropping *dropping)
{
    struct checkpoint_place *dropped = NULL;

    pthread_mutex_lock(&session->mutex);
    if (!session->loading && session->readers == 0 && !session->deleted &&
        session->checkpoints != NULL && reserve_ranges(dropping, session->event_count)) {
        struct checkpoint_place *anchor = anchor_of(session, cut);
        dropped = anchor->next;
        anchor->next = NULL;
        for (const struct checkpoint_place *at = dropped; at != NULL; at = at->next)
            session_count_bytes(session, 0, at->bytes);
        forget_events(session, BUG(trim_too_much) ? UINT64_MAX : anchor->from, cut, dropping);
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
        log_warning("session %s: no checkpoint: %s", session->stored_id, fault.detail);
    session_unpin(session);
    if (!resident)
        session_evict(session);
}

/* Where the log must be cut to come back under its limit; 0: nowhere. Events are taken as equally
 * long. */
static uint64_t cut_of(const struct engine *engine, struct session *const *sessions, size_t count)
{
    uint64_t bytes = __atomic_load_n(&engine->journal_bytes, __ATOMIC_RELAXED);
    uint64_t end = __atomic_load_n(&engine->journal_lsn, __ATOMIC_RELAXED);
    uint64_t limit = engine->options.history_bytes_max, oldest = end;

    if (bytes <= limit)
        return 0;
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_lock(&sessions[i]->mutex);
        uint64_t first = first_event_after(sessions[i], 0);
        pthread_mutex_unlock(&sessions[i]->mutex);
        oldest = first < oldest ? first : oldest;
    }
    double share = 1 - 0.9 * (double)limit / (double)bytes;
    return oldest + (uint64_t)(share * (double)(end - oldest));
}

/* Takes off the disk what the lists have forgotten. Whether nothing is left. */
static bool give_back(struct engine *engine, struct dropping *dropping)
{
    dropping->checkpoints = drop_checkpoints(engine, dropping->checkpoints);
    if (dropping->checkpoints != NULL) /* one that stays keeps the events that lead on from it */
        return false;
    dropping->count = drop_ranges(engine, dropping->ranges, dropping->count);
    return dropping->count == 0;
}

void engine_free_owed(struct engine *engine)
{
    free_places(engine->owed.checkpoints);
    free(engine->owed.ranges);
}

static void trim(struct engine *engine)
{
    struct dropping *owed = &engine->owed;

    /* What failed before goes first: with what is newer gone it would lead nowhere. */
    if (!give_back(engine, owed))
        return;
    size_t count;
    struct session **sessions = engine_sessions(engine, &count);
    uint64_t cut = sessions == NULL ? 0 : cut_of(engine, sessions, count);

    for (size_t i = 0; sessions != NULL && i < count; i++) {
        struct session *session = sessions[i];
        if (owed->checkpoints != NULL) {
            session_release(session);
            continue;
        }
        pthread_mutex_lock(&session->mutex);
        bool lags = !session->deleted && !session->loading && session->checkpoints != NULL &&
                    first_event_after(session, session->checkpoints->lsn) < cut;
        pthread_mutex_unlock(&session->mutex);
        if (lags)
            save_lagging(session);
        struct checkpoint_place *dropped = shorten(session, cut, owed);
        POINT(in_trim);
        owed->checkpoints = drop_checkpoints(engine, oldest_first(dropped));
        session_release(session);
    }
    POINT(before_trim);
    if (owed->checkpoints == NULL)
        give_back(engine, owed);
    free(sessions);
}

void engine_trim(struct engine *engine)
{
    pthread_mutex_lock(&engine->trimming);
    trim(engine);
    pthread_mutex_unlock(&engine->trimming);
}
