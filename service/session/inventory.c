/* What is stored, read when the engine opens: every session with its places in the journal and its
 * checkpoints, and what has no session any more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/point.h"
#include "service/session/event.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "storage/store.h"

struct opening {
    struct engine *engine;
    struct fault *fault;
    struct session **by_key; /* sorted once all are there */
    size_t count, capacity;
    struct orphans *orphans;
    struct session *of;        /* whose event `place` is */
    struct event_place *place; /* the last event, as long as chunks of it may come; or NULL */
    bool sorted;
};

/* Numbers that are counted up and never used again: half of them are more than any server came to,
 * and so many are left for what comes. */
#define KEY_MAX (INT64_MAX / 2)
#define CHECKPOINT_MAX (UINT64_C(1) << 42)
#define LSN_MAX ((uint64_t)INT64_MAX / 2)

static enum status check_count(const struct opening *opening, bool good, const char *what,
                               uint64_t number)
{
    if (good)
        return STATUS_OK;
    return fault_set(opening->fault, STATUS_STORAGE_FAILED, "",
                     "%s %llu has a number that no server came to. Restore the folder from a "
                     "backup.",
                     what, (unsigned long long)number);
}

static enum status visit_session(void *context, const struct store_session *row)
{
    struct opening *opening = context;
    struct engine *engine = opening->engine;
    char name[TENANT_BYTES + 1];
    const char *id;
    struct session_record record;
    struct fault why;
    enum status status;

    status = check_count(opening, row->key <= KEY_MAX, "session", (uint64_t)row->key);
    if (status != STATUS_OK)
        return status;
    if (row->key >= engine->next_key)
        engine->next_key = row->key + 1;
    if (!tenant_split(row->id, name, &id))
        return fault_set(opening->fault, STATUS_STORAGE_FAILED, "",
                         "\"%.120s\" is no name of a session. Use the version of descent that "
                         "wrote it, or restore the folder from a backup.",
                         row->id);
    /* Going on without it would drop its checkpoints and events as nobody's. */
    if ((status = session_record_unpack(row->record, &record, &why)) != STATUS_OK)
        return fault_set(opening->fault, status, "",
                         "session %s cannot be read: %.200s. Use the version of descent that wrote "
                         "it, or restore the folder from a backup.",
                         row->id, why.detail);
    struct plan *plan = NULL;
    struct session *session = NULL;
    struct tenant *tenant = engine_tenant(engine, name);
    if (tenant != NULL &&
        (status = plan_new(&record.spec, record.layout, &plan, opening->fault)) == STATUS_OK &&
        (session = session_new(engine, row->key, tenant, id, &record, plan)) == NULL)
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
    bool good = row->id <= CHECKPOINT_MAX && row->session <= KEY_MAX && row->lsn <= LSN_MAX;
    enum status status = check_count(opening, good, "checkpoint", row->id);

    if (status != STATUS_OK)
        return status;
    if (row->id > engine->next_checkpoint)
        engine->next_checkpoint = row->id;
    if (row->session >= engine->next_key)
        engine->next_key = row->session + 1;
    if (row->lsn > engine->journal_lsn) /* the journal's last events may be gone already */
        engine->journal_lsn = row->lsn;
    if (session == NULL) {
        struct orphans *orphans = opening->orphans;
        uint64_t *grown = realloc(orphans->checkpoints,
                                  (orphans->checkpoint_count + 1) * sizeof *orphans->checkpoints);
        if (grown == NULL)
            return STATUS_INTERNAL;
        orphans->checkpoints = grown;
        orphans->checkpoints[orphans->checkpoint_count++] = row->id;
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
    session_count_bytes(session, place->bytes, 0);
    return STATUS_OK;
}

static enum status note_orphan(struct opening *opening, const struct store_event *row)
{
    struct orphans *orphans = opening->orphans;

    if (orphans->event_count == orphans->event_capacity) {
        size_t capacity = orphans->event_capacity == 0 ? 64 : 2 * orphans->event_capacity;
        struct range *grown = realloc(orphans->events, capacity * sizeof *grown);
        if (grown == NULL)
            return STATUS_INTERNAL;
        orphans->events = grown;
        orphans->event_capacity = capacity;
    }
    orphans->events[orphans->event_count++] = (struct range){
        row->lsn, row->lsn + row->chunks - 1, (uint64_t)row->chunks * STORE_CHUNK_BYTES};
    return STATUS_OK;
}

/* All chunks of the last event have come. */
static void list_event(struct opening *opening)
{
    if (opening->place != NULL)
        session_list_event(opening->of, opening->place);
    opening->place = NULL;
}

static enum status visit_event(void *context, const struct store_event *row)
{
    struct opening *opening = context;
    struct engine *engine = opening->engine;
    struct session *session = find_key(opening, row->session);
    bool good = row->lsn <= LSN_MAX && row->session <= KEY_MAX;
    enum status status = check_count(opening, good, "the event at lsn", row->lsn);

    POINT(in_scan);
    list_event(opening);
    if (status != STATUS_OK)
        return status;
    if (engine->oldest_lsn == 0)
        engine->oldest_lsn = row->lsn;
    if (row->lsn + row->chunks - 1 > engine->journal_lsn)
        engine->journal_lsn = row->lsn + row->chunks - 1;
    if (row->session >= engine->next_key)
        engine->next_key = row->session + 1;
    if (session == NULL)
        return note_orphan(opening, row);
    struct event_place *place = calloc(1, sizeof *place);
    if (place == NULL)
        return STATUS_INTERNAL;
    *place = (struct event_place){.lsn = row->lsn,
                                  .step = row->step,
                                  .kind = row->kind,
                                  .chunks = row->chunks,
                                  .bytes = row->head.size + row->body.size};
    opening->of = session;
    opening->place = place;
    return STATUS_OK;
}

static enum status visit_chunk(void *context, const struct store_event *row)
{
    struct opening *opening = context;

    if (opening->place != NULL && row->session == opening->of->key)
        opening->place->bytes += row->body.size;
    return STATUS_OK;
}

/* What lies before a rewind, up to the one before it, is of the lineage that it ends. */
static void end_lineage(struct session *session, struct event_place *from,
                        const struct event_place *end, uint64_t lineage)
{
    for (; from != end; from = from->next)
        from->lineage = lineage;
    for (struct checkpoint_place *place = session->checkpoints; place != NULL; place = place->next)
        if (place->lineage == UINT64_MAX && (end == NULL || place->lsn < end->lsn))
            place->lineage = lineage;
}

/* The lineages of what is kept: each rewind says its own. They rise; one may be missing, where a
 * trim could not drop what was older and a later one has dropped it. */
static enum status place_lineages(struct session *session, unsigned char *chunk,
                                  struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    struct event_place *from = session->events;
    uint64_t lineage = 0;

    for (struct checkpoint_place *place = session->checkpoints; place != NULL; place = place->next)
        place->lineage = UINT64_MAX;
    for (struct event_place *place = session->events; place != NULL; place = place->next) {
        struct event event;
        if (place->kind != EVENT_REWIND)
            continue;
        enum status status = session_read_head(session, place, head, chunk, &event, fault);
        if (status != STATUS_OK)
            return status;
        if (event.lineage <= lineage || event.lineage > session->lineage ||
            event.origin >= event.lineage)
            return fault_set(fault, STATUS_STORAGE_FAILED, "",
                             "session %s: the journal is damaged at lsn %llu", session->stored_id,
                             (unsigned long long)place->lsn);
        lineage = event.lineage;
        place->origin = event.origin;
        end_lineage(session, from, place, lineage - 1);
        place->lineage = lineage;
        from = place->next;
    }
    end_lineage(session, from, NULL, session->lineage);
    return STATUS_OK;
}

/* Where the rounds began that were open at its checkpoints. */
static enum status place_rounds(struct session *session, struct fault *fault)
{
    struct checkpoint_place **places;
    uint64_t round_lsn = UINT64_MAX;
    size_t left = 0;

    for (struct checkpoint_place *at = session->checkpoints; at != NULL; at = at->next) {
        at->from = at->lsn;
        left++;
    }
    if ((places = malloc((left + 1) * sizeof *places)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    left = 0;
    for (struct checkpoint_place *at = session->checkpoints; at != NULL; at = at->next)
        places[left++] = at; /* the oldest last */
    for (const struct event_place *event = session->events; event != NULL && left > 0;
         event = event->next) {
        for (; left > 0 && places[left - 1]->lsn < event->lsn; left--)
            if (round_lsn != UINT64_MAX)
                places[left - 1]->from = round_lsn - 1;
        round_lsn = event_round(event, round_lsn);
    }
    while (left-- > 0 && round_lsn != UINT64_MAX)
        places[left]->from = round_lsn - 1;
    free(places);
    return STATUS_OK;
}

/* Whether the round that is open at the end may have to be closed without another contribution. */
static bool is_overdue(const struct session *session)
{
    uint64_t members = 0;

    for (const struct event_place *event = session->events; event != NULL; event = event->next)
        if (event_closes(event->kind) || event->kind == EVENT_REWIND)
            members = 0;
        else
            members += event->kind == EVENT_CONTRIBUTION;
    bool timed = session->spec.aggregation.mode == AGGREGATION_SYNC &&
                 !isnan(session->spec.aggregation.timeout_s);
    return members > 0 && (timed || members >= spec_round_size(&session->spec));
}

/* Where a session stands: at its newest checkpoint, or the last step after it. */
static void place_step(struct session *session)
{
    const struct checkpoint_place *newest = session->checkpoints;
    uint64_t step = newest == NULL ? 0 : newest->step;

    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (newest != NULL && place->lsn > newest->lsn && event_steps(place->kind))
            step = place->step;
    session->step = session->admitted_step = session->durable_step = step;
}

static enum status place_sessions(struct opening *opening, struct fault *fault)
{
    unsigned char *chunk = malloc(STORE_CHUNK_BYTES);
    enum status status = STATUS_OK;

    if (chunk == NULL)
        return STATUS_INTERNAL;
    for (size_t i = 0; i < opening->count && status == STATUS_OK; i++) {
        status = place_lineages(opening->by_key[i], chunk, fault);
        if (status == STATUS_OK)
            status = place_rounds(opening->by_key[i], fault);
        place_step(opening->by_key[i]);
        opening->by_key[i]->overdue = is_overdue(opening->by_key[i]);
    }
    free(chunk);
    for (size_t i = 0; i < opening->count && status == STATUS_OK; i++) {
        status = registry_enrol(opening->engine, opening->by_key[i], fault);
        if (status == STATUS_OK)
            opening->by_key[i] = NULL;
    }
    return status;
}

enum status engine_read_store(struct engine *engine, struct orphans *out, struct fault *fault)
{
    struct opening opening = {.engine = engine, .fault = fault, .orphans = out};
    struct store_visitor visitor = {.context = &opening,
                                    .session = visit_session,
                                    .checkpoint = visit_checkpoint,
                                    .event = visit_event,
                                    .chunk = visit_chunk};
    enum status status;

    engine->next_key = 1;
    fault_set(fault, STATUS_INTERNAL, "", "out of memory while reading the storage");
    status = engine->store->backend->scan(engine->store, &visitor, fault);
    list_event(&opening);
    POINT(after_scan);
    if (engine->oldest_lsn == 0)
        engine->oldest_lsn = engine->journal_lsn + 1;
    if (status == STATUS_OK)
        status = place_sessions(&opening, fault);
    for (size_t i = 0; i < opening.count; i++)
        session_release(opening.by_key[i]);
    free(opening.by_key);
    return status;
}

void orphans_close(struct orphans *orphans)
{
    free(orphans->checkpoints);
    free(orphans->events);
}
