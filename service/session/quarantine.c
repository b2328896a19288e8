/* Gradients that are refused for their norm: far above the moving average of those before. They
 * stay in the journal for a while, to be looked at. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/event.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/step.h"

enum { NORMS_MIN = 10 }; /* below it there is no average to speak of */

enum status step_check_norm(const struct step *step, struct fault *fault)
{
    const struct session *session = step->session;
    const struct state *state = session->state;
    double ratio = session->spec.gradient.max_norm_ratio, norm = step->event.grad_norm;

    if (isnan(ratio) || state->norm_count < NORMS_MIN || state->norm_average <= 0 ||
        norm <= ratio * state->norm_average)
        return STATUS_OK;
    return fault_set(fault, STATUS_ABNORMAL_GRADIENT, "/gradients",
                     "its norm %.6g is %.3g times the moving average %.6g of those before; "
                     "gradient.max_norm_ratio allows %g. It was not applied",
                     norm, norm / state->norm_average, state->norm_average, ratio);
}

bool step_quarantine(struct step *step, struct fault *fault)
{
    struct session *session = step->session;
    const struct submission *s = step->submission;
    struct journal_entry *entry = NULL;
    struct event event = step->event;
    uint64_t ticket = step->ticket, lsn = 0;
    char detail[sizeof fault->detail];
    struct fault trouble;

    event.kind = EVENT_QUARANTINE;
    event.step = session->admitted_step;
    event.clock = 0;
    event.lineage = session->lineage;
    event.keyed = false; /* its key is free for another attempt */
    if (journal_entry_new(session, &event, s->buffer, s->offset, event.size, &entry, &trouble) !=
        STATUS_OK)
        return true; /* it is not kept; nothing was queued */
    if (!step->exclusive)
        ticket = session_ticket(session, false);
    commit_enqueue(session->engine->committer, &entry->item);
    pthread_mutex_unlock(&session->mutex);
    POINT(in_quarantine);
    enum status status = commit_wait(&entry->item, &trouble);
    POINT(after_quarantine);
    pthread_mutex_lock(&session->mutex);
    session_await_turn(session, ticket);
    lsn = entry->lsn;
    if (!step->exclusive)
        session_end_turn(session, false, status != STATUS_OK);
    journal_entry_free(entry);
    if (lsn > 0) {
        memcpy(detail, fault->detail, sizeof detail);
        fault_set(fault, STATUS_ABNORMAL_GRADIENT, "/gradients",
                  "%.300s and is kept for download as .../quarantine/%llu", detail,
                  (unsigned long long)lsn);
        fault_extra(fault, "quarantine", lsn);
    }
    return status == STATUS_OK;
}

/* The newest QUARANTINE_MAX places, the newest first. Mutex held. */
static size_t list_places(const struct session *session, struct event_place out[QUARANTINE_MAX])
{
    size_t skipped =
        session->quarantine_count > QUARANTINE_MAX ? session->quarantine_count - QUARANTINE_MAX : 0;
    size_t count = session->quarantine_count - skipped, at = count;

    for (const struct event_place *place = session->events; place != NULL; place = place->next) {
        if (place->kind != EVENT_QUARANTINE)
            continue;
        if (skipped > 0)
            skipped--;
        else
            out[--at] = *place;
    }
    return count;
}

static struct quarantined about_of(const struct event_place *place, const struct event *event)
{
    struct quarantined about = {.number = place->lsn,
                                .step = event->step,
                                .created_us = event->created_us,
                                .dtype = event->wire,
                                .grad_norm = event->grad_norm,
                                .loss = event->loss};

    memcpy(about.worker, event->worker, sizeof about.worker);
    return about;
}

static enum status start_reading(struct session *session, struct event_place out[QUARANTINE_MAX],
                                 size_t *found, struct fault *fault)
{
    pthread_mutex_lock(&session->mutex);
    enum status status = session_start_reading(session, fault);
    *found = status == STATUS_OK ? list_places(session, out) : 0;
    pthread_mutex_unlock(&session->mutex);
    return status;
}

static void end_reading(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    session_end_reading(session);
    pthread_mutex_unlock(&session->mutex);
}

enum status session_quarantine(struct session *session, struct quarantined out[QUARANTINE_MAX],
                               size_t *count, struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    unsigned char *chunk = malloc(STORE_CHUNK_BYTES);
    struct event_place places[QUARANTINE_MAX];
    struct event event;
    size_t found;
    enum status status;

    if (chunk == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = start_reading(session, places, &found, fault)) != STATUS_OK) {
        free(chunk);
        return status;
    }
    for (size_t i = 0; i < found && status == STATUS_OK; i++) {
        status = session_read_head(session, &places[i], head, chunk, &event, fault);
        if (status == STATUS_OK)
            out[i] = about_of(&places[i], &event);
    }
    end_reading(session);
    free(chunk);
    *count = found;
    return status;
}

/* A compressed gradient is handed out as what it stands for. */
static enum status spread(const struct session *session, struct event *event, struct buffer **body,
                          struct fault *fault)
{
    struct mean_member alone = {event_gradient(session->layout, event, *body, 0), 1};
    struct mean mean = {.members = &alone, .count = 1, .divisor = 1};
    struct buffer *out = buffer_new(session->layout->count * dtype_size(session->dtype));

    if (out == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (session->dtype == DTYPE_F64)
        mean_take_f64(&mean, out->data);
    else
        mean_take_f32(&mean, out->data);
    buffer_release(*body);
    *body = out;
    event->wire = session->dtype;
    return STATUS_OK;
}

enum status session_quarantined(struct session *session, uint64_t number, struct quarantined *about,
                                struct buffer **out, struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    unsigned char *chunk = malloc(STORE_CHUNK_BYTES);
    struct event_place places[QUARANTINE_MAX];
    struct buffer *body = NULL;
    struct event event;
    size_t i = 0, found;
    enum status status;

    if (chunk == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = start_reading(session, places, &found, fault)) != STATUS_OK) {
        free(chunk);
        return status;
    }
    while (i < found && places[i].lsn != number)
        i++;
    if (i == found)
        status = fault_set(fault, STATUS_NOT_FOUND, "",
                           "no gradient %llu is in quarantine here (the newest %d are kept); GET "
                           ".../quarantine lists them",
                           (unsigned long long)number, QUARANTINE_MAX);
    else
        status = session_read_event(session, &places[i], head, chunk, &event, &body, fault);
    if (status == STATUS_OK)
        status = event_check_body(session->plan, &event, body, fault);
    if (status == STATUS_OK && event.form != FORM_DENSE)
        status = spread(session, &event, &body, fault);
    end_reading(session);
    free(chunk);
    if (status == STATUS_OK) {
        *about = about_of(&places[i], &event);
        *out = body;
    } else {
        buffer_release(body);
    }
    return status;
}
