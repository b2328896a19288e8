/* Events on their way to the journal: an item of the commit queue that writes head and body in
 * chunks. */
#include <stdlib.h>

#include "service/core/contract.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "storage/store.h"

static enum status write_entry(struct commit_item *item, struct commit_turn *turn,
                               struct fault *fault)
{
    struct journal_entry *entry = (struct journal_entry *)(void *)item;
    const struct store_backend *backend = turn->store->backend;
    enum status status = STATUS_OK;

    entry->place->lsn = turn->lsn + 1;
    for (uint32_t chunk = 0; chunk < entry->place->chunks && status == STATUS_OK; chunk++) {
        size_t start = (size_t)chunk * STORE_CHUNK_BYTES;
        size_t rest = entry->size - start;
        struct store_event event = {
            .lsn = turn->lsn + 1,
            .session = entry->session->key,
            .step = entry->place->step,
            .kind = entry->place->kind,
            .chunk = chunk,
            .chunks = entry->place->chunks,
            .head = chunk == 0 ? packer_span(&entry->head) : span_of(NULL, 0),
        };
        if (entry->size > 0)
            event.body = span_of(entry->body->data + entry->offset + start,
                                 rest < STORE_CHUNK_BYTES ? rest : STORE_CHUNK_BYTES);
        status = backend->event_append(turn->store, &event, fault);
        POINT(after_row);
        turn->lsn++;
    }
    if (status == STATUS_OK && entry->spec != NULL)
        status = session_put_record(entry->session, entry->spec, entry->place->lineage, turn->store,
                                    fault);
    return status;
}

static void count_event(struct session *session, const struct event_place *place, size_t change)
{
    session->event_count += change;
    session->step_count += event_steps(place->kind) ? change : 0;
    session->quarantine_count += place->kind == EVENT_QUARANTINE ? change : 0;
}

uint64_t event_round(const struct event_place *place, uint64_t round_lsn)
{
    if (event_closes(place->kind) || place->kind == EVENT_REWIND || BUG(round_ends_at_checkpoint))
        return UINT64_MAX;
    return place->kind == EVENT_CONTRIBUTION && round_lsn == UINT64_MAX ? place->lsn : round_lsn;
}

/* The list of its kind, or NULL: those are found among all. */
static struct event_list *list_of(struct session *session, const struct event_place *place)
{
    return place->kind == EVENT_RECEIPTS ? &session->receipts
           : place->kind == EVENT_REWIND ? &session->rewinds
                                         : NULL;
}

static void list_alike(struct session *session, struct event_place *place)
{
    struct event_list *list = list_of(session, place);

    if (list == NULL)
        return;
    *list->end = place;
    list->end = &place->next_alike;
}

/* What goes is among the first. */
static void unlist_alike(struct session *session, struct event_place *place)
{
    struct event_list *list = list_of(session, place);

    if (list == NULL)
        return;
    struct event_place **link = &list->first;
    while (*link != place)
        link = &(*link)->next_alike;
    if (list->end == &place->next_alike)
        list->end = link;
    *link = place->next_alike;
}

void session_list_event(struct session *session, struct event_place *take_place)
{
    __atomic_add_fetch(&session->engine->journal_bytes, take_place->bytes, __ATOMIC_RELAXED);
    session_count_bytes(session, take_place->bytes, 0);
    metric_move(GAUGE_JOURNAL_BYTES, 0, (int64_t)take_place->bytes);
    count_event(session, take_place, 1);
    *session->events_end = take_place;
    session->events_end = &take_place->next;
    list_alike(session, take_place);
}

struct event_place *session_unlist_event(struct session *session, struct event_place **link)
{
    struct event_place *place = *link;

    __atomic_sub_fetch(&session->engine->journal_bytes, place->bytes, __ATOMIC_RELAXED);
    session_count_bytes(session, 0, place->bytes);
    metric_move(GAUGE_JOURNAL_BYTES, 0, -(int64_t)place->bytes);
    count_event(session, place, (size_t)-1);
    if (session->events_end == &place->next)
        session->events_end = link;
    *link = place->next;
    unlist_alike(session, place);
    return place;
}

void journal_entry_landed(struct journal_entry *entry)
{
    struct session *session = entry->session;
    struct event_place *place = entry->place;

    metric_count(COUNTER_JOURNAL_EVENTS, 0, 1);
    metric_count(COUNTER_JOURNAL_WRITTEN, 0, place->bytes);
    if (session->deleted)
        return;
    __atomic_store_n(&session->engine->journal_lsn, place->lsn + place->chunks - 1,
                     __ATOMIC_RELAXED);
    session_list_event(session, place);
    if (event_steps(place->kind) && place->step > session->durable_step) {
        session->durable_step = place->step;
        if (place->step <= session->step)
            session_tell_durable(session);
    }
    entry->lsn = place->lsn;
    entry->place = NULL;
}

static void entry_done(struct commit_item *item, enum status status)
{
    struct journal_entry *entry = (struct journal_entry *)(void *)item;

    if (status == STATUS_OK) {
        pthread_mutex_lock(&entry->session->mutex);
        journal_entry_landed(entry);
        pthread_mutex_unlock(&entry->session->mutex);
    }
    if (entry->deferred)
        journal_entry_free(entry);
}

enum status journal_entry_new(struct session *session, const struct event *event,
                              struct buffer *body, size_t offset, size_t size,
                              struct journal_entry **out, struct fault *fault)
{
    struct journal_entry *entry = calloc(1, sizeof *entry);

    if (entry == NULL || (entry->place = calloc(1, sizeof *entry->place)) == NULL)
        goto failed;
    event_pack(&entry->head, event);
    if (entry->head.failed)
        goto failed;
    PRE(entry->head.used <= STORE_HEAD_BYTES);
    entry->session = session_retain(session);
    entry->body = body == NULL ? NULL : buffer_retain(body);
    entry->offset = offset;
    entry->size = size;
    entry->place->kind = event->kind;
    entry->place->step = event->step;
    entry->place->lineage = event->lineage;
    entry->place->origin = event->origin;
    entry->place->chunks =
        size == 0 ? 1 : (uint32_t)((size + STORE_CHUNK_BYTES - 1) / STORE_CHUNK_BYTES);
    entry->place->bytes = size + entry->head.used;
    entry->item = (struct commit_item){.order = &session->order,
                                       .bytes = sizeof *entry + entry->head.used + size,
                                       .write = write_entry,
                                       .done = entry_done};
    *out = entry;
    return STATUS_OK;
failed:
    journal_entry_free(entry);
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

void journal_entry_free(struct journal_entry *entry)
{
    if (entry == NULL)
        return;
    free(entry->place);
    packer_close(&entry->head);
    buffer_release(entry->body);
    session_release(entry->session);
    free(entry);
}
