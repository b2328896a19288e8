/* What the engine does with snapshots. A new one and its end are taken alone; shards are admitted
 * one after the other, are in the journal's group commit together and are added in ticket order.
 * All are on disk before the answer, also where steps need not be: a shard that was acknowledged
 * and lost would be waited for by nobody but the snapshot. */
#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/advance.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"

/* --- what may be asked for --- */

/* Finds that the number names the newest snapshot (0: whichever it is). A change needs that too,
 * but it may come late: `stale` is then said, not that there is none. Mutex held. */
static enum status check_number(const struct snapshot *snapshot, uint64_t number, bool change,
                                struct fault *fault)
{
    unsigned long long newest = snapshot->number, named = number;

    if (newest > 0 && (number == 0 || number == newest))
        return STATUS_OK;
    if (newest == 0)
        return fault_set(fault, STATUS_SNAPSHOT_NOT_FOUND, "",
                         "this session has no snapshot; POST .../snapshots makes one");
    if (number > snapshot->last)
        fault_set(fault, STATUS_SNAPSHOT_NOT_FOUND, "",
                  "this session has had no snapshot %llu yet; the newest is %llu", named, newest);
    else
        fault_set(fault, change ? STATUS_SNAPSHOT_STALE : STATUS_SNAPSHOT_NOT_FOUND, "",
                  "snapshot %llu is not kept any more: %llu has taken its place", named, newest);
    return fault_extra(fault, "current_snapshot", newest);
}

static enum status check_svrg(const struct session *session, struct fault *fault)
{
    if (!session->spec.svrg.on)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "this session does without SVRG; PATCH it with {\"svrg\": {}} first");
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "a snapshot needs the journal, and with durability \"checkpoint\" there "
                         "is none; PATCH durability.mode");
    return STATUS_OK;
}

/* --- changes --- */

struct change {
    struct session *session;
    struct event event;
    struct wire_gradient gradient; /* EVENT_SHARD */
    struct buffer *body;           /* NULL: none */
    size_t offset;
    struct snapshot_room room; /* EVENT_SNAPSHOT */
    struct journal_entry *entry;
    uint64_t ticket;
};

/* Queues the event, so that its place in the order is fixed. Mutex held. */
static enum status enqueue(struct change *change, struct fault *fault)
{
    struct session *session = change->session;
    enum status status;

    change->event.step = session->admitted_step;
    change->event.lineage = session->lineage;
    status = journal_entry_new(session, &change->event, change->body, change->offset,
                               change->gradient.size, &change->entry, fault);
    if (status == STATUS_OK)
        commit_enqueue(session->engine->committer, &change->entry->item);
    return status;
}

/* What the event, which is on disk, makes of the snapshot. In its turn; mutex held on entry and
 * exit. */
static enum snapshot_effect apply(struct change *change)
{
    struct session *session = change->session;
    struct snapshot *snapshot = &session->state->snapshot;
    enum snapshot_effect effect = SNAPSHOT_STAYS;

    if (change->event.kind == EVENT_SNAPSHOT) {
        PRE(session->state->current->step == change->event.step);
        snapshot_begin(snapshot, session->state->current, &change->event, &change->room);
        POINT(after_snapshot);
    } else {
        effect = snapshot_effect(snapshot, &change->event);
        pthread_mutex_unlock(&session->mutex);
        snapshot_compute(snapshot, effect, &change->event, session->dtype, &change->gradient);
        pthread_mutex_lock(&session->mutex);
        snapshot_publish(snapshot, effect, &change->event);
        POINT(after_shard);
    }
    session->dirty++;
    session->journal_since += change->gradient.size;
    return effect;
}

/* Waits for the disk and the turn, and applies. Mutex held on entry and exit. */
static enum status finish(struct change *change, bool exclusive, enum snapshot_effect *effect,
                          struct fault *fault)
{
    struct session *session = change->session;

    pthread_mutex_unlock(&session->mutex);
    enum status status = commit_wait(&change->entry->item, fault);
    pthread_mutex_lock(&session->mutex);
    session_await_turn(session, change->ticket);
    if (status == STATUS_OK)
        *effect = apply(change);
    session_end_turn(session, exclusive, status != STATUS_OK);
    return status;
}

/* A failure costs nothing but a longer journal. */
static void save_if_due(struct session *session)
{
    struct fault fault;

    if (session_save(session, false, &fault) != STATUS_OK)
        log_warning("session %s: no checkpoint after a snapshot's event: %s", session->stored_id,
                    fault.detail);
}

enum status session_snapshot(struct session *session, uint64_t workers, double examples,
                             struct snapshot_view *out, struct fault *fault)
{
    struct change change = {.session = session, .event = event_make(EVENT_SNAPSHOT, 0)};
    enum snapshot_effect effect = SNAPSHOT_STAYS;
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    change.event.snapshot_workers = workers;
    change.event.snapshot_examples = examples;
    pthread_mutex_lock(&session->mutex);
    if ((status = session_admit_alone(session, &change.ticket, fault)) == STATUS_OK) {
        status = check_svrg(session, fault);
        if (status == STATUS_OK)
            status = snapshot_room(session->dtype, session->layout->count, &change.room, fault);
        change.event.snapshot = session->state->snapshot.last + 1;
        if (status == STATUS_OK && (status = enqueue(&change, fault)) == STATUS_OK)
            status = finish(&change, true, &effect, fault);
        else
            session_end_turn(session, true, false);
    }
    if (status == STATUS_OK)
        *out = snapshot_view(&session->state->snapshot);
    pthread_mutex_unlock(&session->mutex);
    snapshot_room_release(&change.room);
    journal_entry_free(change.entry);
    if (status == STATUS_OK)
        save_if_due(session);
    session_leave(session);
    return status;
}

enum status session_snapshot_close(struct session *session, uint64_t number,
                                   struct snapshot_view *out, struct fault *fault)
{
    struct change change = {.session = session, .event = event_make(EVENT_SNAPSHOT_CLOSE, 0)};
    enum status status = session_enter(session, fault);
    enum snapshot_effect effect = SNAPSHOT_STAYS;
    bool going = false;

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    if ((status = session_admit_alone(session, &change.ticket, fault)) == STATUS_OK) {
        const struct snapshot *snapshot = &session->state->snapshot;
        status = check_number(snapshot, number, true, fault);
        if (status == STATUS_OK && !snapshot->ready && snapshot->part_count == 0)
            status = fault_set(fault, STATUS_INVALID_REQUEST, "",
                               "nothing of snapshot %llu has come yet; there is no mean of nothing",
                               (unsigned long long)snapshot->number);
        change.event.snapshot = snapshot->number;
        going = status == STATUS_OK && !snapshot->ready;
        if (going && (status = enqueue(&change, fault)) == STATUS_OK)
            status = finish(&change, true, &effect, fault);
        else
            session_end_turn(session, true, false);
    }
    if (status == STATUS_OK)
        *out = snapshot_view(&session->state->snapshot);
    pthread_mutex_unlock(&session->mutex);
    journal_entry_free(change.entry);
    if (status == STATUS_OK && going)
        save_if_due(session);
    session_leave(session);
    return status;
}

/* --- shards --- */

/* What can be wrong with it wherever the session stands, before its turn. */
static enum status check_shard(struct change *change, const struct shard *shard,
                               struct fault *fault)
{
    const struct session *session = change->session;
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};

    advances(session->dtype)->measure(&change->gradient, &measure);
    change->event.grad_norm = measure.norm;
    if (measure.bad_count > 0)
        return check_finite(session->layout, "gradients", measure.bad_count, measure.bad_index,
                            STATUS_NONFINITE_GRADIENT, fault);
    if (snapshot_allows(session->dtype, measure.norm, shard->examples, shard->summed))
        return STATUS_OK;
    return fault_set(
        fault, STATUS_NONFINITE_GRADIENT, "/gradients",
        "a gradient of norm %g over %g examples leads beyond the largest number of the "
        "session's precision",
        measure.norm, shard->examples);
}

/* Why a part has no effect: it is there already, which is as good, or it comes too late. Mutex
 * held. */
static enum status why_not(const struct session *session, const struct event *event, bool *replayed,
                           struct fault *fault)
{
    const struct snapshot *snapshot = &session->state->snapshot;
    struct digest name = snapshot_name(event->worker, event->part, event->seq);
    const struct snapshot_part *part = snapshot_find(snapshot, &name);

    *replayed = part != NULL;
    if (part != NULL && memcmp(&part->payload, &event->payload, sizeof part->payload) != 0)
        return fault_set(fault, STATUS_IDEMPOTENCY_MISMATCH, "",
                         "this worker's part has come with another payload already; name what is a "
                         "part of its own in `part`");
    if (part != NULL)
        return STATUS_OK;
    if (snapshot->ready)
        return fault_set(fault, STATUS_SNAPSHOT_CLOSED, "",
                         "snapshot %llu is ready: all that was announced has come, or it was "
                         "closed. Who sends several parts announces examples, not workers",
                         (unsigned long long)snapshot->number);
    return fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
                     "snapshot %llu has %d parts, which is the limit; send larger ones",
                     (unsigned long long)snapshot->number, SNAPSHOT_PARTS_MAX);
}

/* Whether the shard is to be journaled, when it is admitted. What is in flight before it may still
 * take its place. Mutex held. */
static enum status check_place(struct change *change, uint64_t number, bool *going, bool *replayed,
                               struct fault *fault)
{
    struct session *session = change->session;
    struct snapshot *snapshot = &session->state->snapshot;
    size_t in_flight = session->tickets - session->turns;
    enum status status = check_number(snapshot, number, true, fault);

    *going = false;
    if (status != STATUS_OK || (status = check_svrg(session, fault)) != STATUS_OK)
        return status;
    change->event.snapshot = snapshot->number;
    change->event.seq = ++snapshot->arrivals;
    if (snapshot_effect(snapshot, &change->event) == SNAPSHOT_STAYS)
        return why_not(session, &change->event, replayed, fault);
    *going = true;
    if (snapshot_reserve(snapshot, in_flight + 1))
        return STATUS_OK;
    *going = false;
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* Admits, journals and adds it. Mutex held on entry and exit. */
static enum status take_shard(struct change *change, uint64_t number, bool *going, bool *replayed,
                              struct fault *fault)
{
    struct session *session = change->session;
    enum status status = session_await_admission(session, false, fault);
    enum snapshot_effect effect = SNAPSHOT_STAYS;

    if (status != STATUS_OK)
        return status;
    status = check_place(change, number, going, replayed, fault);
    if (!*going)
        return status;
    if ((status = enqueue(change, fault)) != STATUS_OK) {
        *going = false;
        return status;
    }
    change->ticket = session_ticket(session, false);
    status = finish(change, false, &effect, fault);
    if (status == STATUS_OK && effect == SNAPSHOT_STAYS)
        status = why_not(session, &change->event, replayed, fault);
    return status;
}

enum status session_snapshot_add(struct session *session, uint64_t number,
                                 const struct shard *shard, struct snapshot_view *out,
                                 bool *replayed, struct fault *fault)
{
    struct change change = {.session = session,
                            .event = event_make(EVENT_SHARD, 0),
                            .body = shard->buffer,
                            .offset = shard->offset};
    struct event *event = &change.event;
    enum status status;
    bool going = false;

    PRE(shard->examples > 0);
    PRE(shard->worker == NULL || strlen(shard->worker) <= WORKER_BYTES);
    PRE(shard->part == NULL || strlen(shard->part) <= WORKER_BYTES);
    *replayed = false;
    event->wire = shard->dtype;
    event->form = shard->form;
    event->size =
        shard->form == FORM_DENSE ? session->layout->count * dtype_size(shard->dtype) : shard->size;
    PRE(shard->offset + event->size <= shard->buffer->size);
    event->examples = shard->examples;
    event->summed = shard->summed;
    event->payload = shard->payload;
    if (shard->worker != NULL)
        strcpy(event->worker, shard->worker);
    if (shard->part != NULL)
        strcpy(event->part, shard->part);
    change.gradient = event_gradient(session->layout, event, shard->buffer, shard->offset);
    if ((status = session_enter(session, fault)) != STATUS_OK)
        return status;
    if ((status = check_shard(&change, shard, fault)) != STATUS_OK)
        goto done;
    pthread_mutex_lock(&session->mutex);
    if ((status = take_shard(&change, number, &going, replayed, fault)) == STATUS_OK)
        *out = snapshot_view(&session->state->snapshot);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK && going)
        save_if_due(session);
done:
    journal_entry_free(change.entry);
    session_leave(session);
    return status;
}

/* --- reading --- */

/* What is asked for (not NULL) of the newest snapshot. */
static enum status look(struct session *session, uint64_t number, struct snapshot_view *view,
                        struct revision **weights, struct buffer **mean, struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    const struct snapshot *snapshot = &session->state->snapshot;
    status = check_number(snapshot, number, false, fault);
    if (status == STATUS_OK && mean != NULL && !snapshot->ready)
        status = snapshot_collecting(snapshot, fault);
    if (status == STATUS_OK && view != NULL)
        *view = snapshot_view(snapshot);
    if (status == STATUS_OK && weights != NULL)
        *weights = revision_retain(snapshot->weights);
    if (status == STATUS_OK && mean != NULL)
        *mean = buffer_retain(snapshot->mean);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return status;
}

enum status session_snapshot_view(struct session *session, uint64_t number,
                                  struct snapshot_view *out, struct fault *fault)
{
    return look(session, number, out, NULL, NULL, fault);
}

enum status session_snapshot_weights(struct session *session, uint64_t number,
                                     struct revision **out, struct fault *fault)
{
    return look(session, number, NULL, out, NULL, fault);
}

enum status session_snapshot_gradient(struct session *session, uint64_t number, struct buffer **out,
                                      struct fault *fault)
{
    return look(session, number, NULL, NULL, out, fault);
}
