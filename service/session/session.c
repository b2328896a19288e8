/* A session's life: references, residence, turns, views. */
#include "service/session/session.h"
#include "service/session/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"
#include "service/core/point.h"

bool session_id_valid(const char *id)
{
    size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    return length > 0 && length <= SESSION_ID_BYTES && id[length] == '\0' && id[0] != '_' &&
           id[0] != '-';
}

struct session *session_new(struct engine *engine, int64_t key, struct tenant *tenant,
                            const char *id, const struct session_record *record, struct plan *plan)
{
    struct session *session = calloc(1, sizeof *session);
    pthread_condattr_t monotonic;

    if (session == NULL)
        return NULL;
    PRE(session_id_valid(id));
    session->engine = engine;
    session->references = 1;
    session->key = key;
    session->tenant = tenant;
    int prefix = snprintf(session->stored_id, sizeof session->stored_id, "%s%s", tenant->name,
                          tenant->name[0] != '\0' ? "/" : "");
    session->id = session->stored_id + prefix;
    memcpy(session->stored_id + prefix, id, strlen(id) + 1);
    session->created_us = record->created_us;
    session->request = record->request;
    session->layout = layout_retain(record->layout);
    session->plan = plan;
    session->dtype = record->spec.dtype;
    session->spec = record->spec;
    session->lineage = record->lineage;
    memcpy(session->parent, record->parent, sizeof session->parent);
    session->parent_moment = record->parent_moment;
    session->events_end = &session->events;
    session->receipts.end = &session->receipts.first;
    session->rewinds.end = &session->rewinds.first;
    session->used_us = clock_monotonic_us();
    pthread_mutex_init(&session->mutex, NULL);
    pthread_cond_init(&session->turn, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&session->news, &monotonic);
    pthread_cond_init(&session->told, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return session;
}

struct session *session_retain(struct session *session)
{
    __atomic_add_fetch(&session->references, 1, __ATOMIC_RELAXED);
    return session;
}

void session_release(struct session *session)
{
    if (session == NULL || __atomic_sub_fetch(&session->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (session->state != NULL)
        metric_move(GAUGE_SESSIONS_RESIDENT, 0, -1);
    state_free(session->state);
    plan_free(session->plan);
    layout_release(session->layout);
    while (session->events != NULL) {
        struct event_place *next = session->events->next;
        free(session->events);
        session->events = next;
    }
    while (session->checkpoints != NULL) {
        struct checkpoint_place *next = session->checkpoints->next;
        free(session->checkpoints);
        session->checkpoints = next;
    }
    pthread_mutex_destroy(&session->mutex);
    pthread_cond_destroy(&session->turn);
    pthread_cond_destroy(&session->news);
    pthread_cond_destroy(&session->told);
    free(session);
}

uint64_t session_created_us(const struct session *session)
{
    return session->created_us;
}

const struct layout *session_layout(const struct session *session)
{
    return session->layout;
}

enum dtype session_dtype(const struct session *session)
{
    return session->dtype;
}

bool session_fits(struct session *session, const struct spec *spec)
{
    const struct spec *own = &session->spec;

    pthread_mutex_lock(&session->mutex); /* what is read of the past is read beside changes */
    bool fits = spec->rule == own->rule && spec->dtype == own->dtype &&
                spec->ema.on == own->ema.on && spec->groups.count == own->groups.count &&
                spec->groups.pattern_bytes == own->groups.pattern_bytes &&
                memcmp(spec->groups.patterns, own->groups.patterns, own->groups.pattern_bytes) == 0;
    pthread_mutex_unlock(&session->mutex);
    return fits;
}

static enum status gone(const struct session *session, struct fault *fault)
{
    return fault_set(fault, STATUS_SESSION_NOT_FOUND, "", "session %s was deleted", session->id);
}

enum status session_pin(struct session *session, struct fault *fault)
{
    enum status status = STATUS_OK;
    struct loaded loaded;

    pthread_mutex_lock(&session->mutex);
    session->users++;
    while (session->loading && !session->deleted)
        pthread_cond_wait(&session->turn, &session->mutex);
    if (session->deleted) {
        status = gone(session, fault);
    } else if (session->state == NULL) {
        session->loading = true;
        pthread_mutex_unlock(&session->mutex);
        status = session_load(session, UINT64_MAX, &loaded, fault);
        pthread_mutex_lock(&session->mutex);
        session->loading = false;
        if (status == STATUS_OK) {
            const struct revision *current = loaded.state->current;
            session->state = loaded.state;
            metric_move(GAUGE_SESSIONS_RESIDENT, 0, 1);
            session->step = session->admitted_step = current->step;
            session->lineage = current->lineage;
            session->dirty = loaded.replayed;
            session->journal_since = loaded.bytes;
            session_watch_round(session, 0);
        }
        pthread_cond_broadcast(&session->turn);
    }
    if (status != STATUS_OK)
        session->users--;
    pthread_mutex_unlock(&session->mutex);
    return status;
}

void session_unpin(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    PRE(session->users > 0);
    session->users--;
    pthread_mutex_unlock(&session->mutex);
}

enum status session_enter(struct session *session, struct fault *fault)
{
    pthread_mutex_lock(&session->mutex);
    session->used_us = clock_monotonic_us();
    pthread_mutex_unlock(&session->mutex);
    return session_pin(session, fault);
}

void session_evict(struct session *session)
{
    struct state *state = NULL;

    pthread_mutex_lock(&session->mutex);
    if (session->users == 0 && session->dirty == 0 && session->tickets == session->turns) {
        state = session->state;
        session->state = NULL;
    }
    pthread_mutex_unlock(&session->mutex);
    if (state != NULL)
        metric_move(GAUGE_SESSIONS_RESIDENT, 0, -1);
    state_free(state);
}

void session_leave(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    PRE(session->users > 0);
    session->users--;
    session->used_us = clock_monotonic_us();
    pthread_mutex_unlock(&session->mutex);
}

enum status session_await_admission(struct session *session, bool exclusive, struct fault *fault)
{
    uint64_t place = session->arrivals++;

    while (!session->deleted &&
           (place != session->called || session->exclusive || session->failed ||
            (exclusive && session->tickets != session->turns)))
        pthread_cond_wait(&session->turn, &session->mutex);
    if (++session->called != session->arrivals)
        pthread_cond_broadcast(&session->turn);
    return session->deleted ? gone(session, fault) : STATUS_OK;
}

uint64_t session_ticket(struct session *session, bool exclusive)
{
    session->exclusive = exclusive;
    return ++session->tickets;
}

enum status session_admit_alone(struct session *session, uint64_t *ticket, struct fault *fault)
{
    enum status status = session_await_admission(session, true, fault);

    if (status == STATUS_OK)
        *ticket = session_ticket(session, true);
    return status;
}

void session_await_turn(struct session *session, uint64_t ticket)
{
    while (session->turns != ticket - 1)
        pthread_cond_wait(&session->turn, &session->mutex);
}

void session_end_turn(struct session *session, bool exclusive, bool failed)
{
    session->turns++;
    session->failed |= failed;
    if (exclusive)
        session->exclusive = false;
    if (session->turns == session->tickets) {
        session->admitted_step = session->step;
        session->closings = session->closed;
        if (session->failed) {
            session->failed = false;
            commit_order_mend(session->engine->committer, &session->order);
        }
    }
    pthread_cond_broadcast(&session->turn);
}

enum status session_view(struct session *session, bool brief, struct session_view *out,
                         struct fault *fault)
{
    enum status status;

    if (!brief && (status = session_enter(session, fault)) != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    memcpy(out->id, session->id, strlen(session->id) + 1);
    out->created_us = session->created_us;
    out->spec = session->spec;
    out->step = session->step;
    /* On disk a little before it is applied: nobody is told of a step that cannot be fetched yet.
     */
    out->durable_step =
        session->durable_step < session->step ? session->durable_step : session->step;
    out->lineage = session->lineage;
    memcpy(out->parent, session->parent, sizeof out->parent);
    out->parent_moment = session->parent_moment;
    out->has_cursor = false;
    out->last = (struct receipt){.kind = RECEIPT_NONE};
    out->round_received = 0;
    out->snapshot = brief ? 0 : session->state->snapshot.number;
    out->snapshot_ready = !brief && session->state->snapshot.ready;
    if (!brief) {
        const char *cursor = session->state->cursor;
        out->last = session->state->last;
        out->has_cursor = cursor != NULL;
        if (cursor != NULL)
            memcpy(out->cursor, cursor, strlen(cursor) + 1);
        if (session->closings == session->closed)
            out->round_received = session->state->round.count;
    }
    pthread_mutex_unlock(&session->mutex);
    if (!brief)
        session_leave(session);
    return STATUS_OK;
}

enum status session_revision(struct session *session, struct revision **out, struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    *out = revision_retain(BUG(stale_read) && session->state->base_count > 0
                               ? session->state->base[0]
                               : session->state->current);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return STATUS_OK;
}
