/* The workers of a session: who they are, and forgetting one. */
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct worker_view *)a)->name, ((const struct worker_view *)b)->name);
}

static struct worker_view view_of(const struct session *session, const struct ledger_worker *worker)
{
    struct worker_view view = {
        .seq = worker->seq,
        .contributions = worker->clock,
        .base_step = worker->base_step,
        .lag = session->step > worker->base_step ? session->step - worker->base_step : 0,
        .seen_us = worker->seen_us,
    };
    double silent_us = (double)clock_unix_us() - (double)worker->seen_us;

    view.live = silent_us <= session->spec.aggregation.lease_s * 1e6;
    view.waiting =
        session->closings == session->closed && round_has(&session->state->round, worker->name);
    memcpy(view.name, worker->name, sizeof view.name);
    return view;
}

enum status session_workers(struct session *session, struct worker_view **out, size_t *count,
                            struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    const struct ledger *ledger = &session->state->ledger;
    struct worker_view *views = malloc((ledger->worker_count + 1) * sizeof *views);
    for (size_t i = 0; i < ledger->worker_count && views != NULL; i++)
        views[i] = view_of(session, &ledger->workers[i]);
    *count = ledger->worker_count;
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    if (views == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (*count > 1)
        qsort(views, *count, sizeof *views, compare);
    *out = views;
    return STATUS_OK;
}

/* With the turn held exclusively: nothing of the worker is in flight. */
static enum status dismiss(struct session *session, const char *name, bool *failed,
                           struct fault *fault)
{
    struct event event = event_make(EVENT_DISMISS, session->step);
    struct journal_entry *entry = NULL;
    enum status status = STATUS_OK;

    if (ledger_find_worker(&session->state->ledger, name) == NULL)
        return fault_set(fault, STATUS_NOT_FOUND, "",
                         "the session knows no worker of this name; GET .../workers lists them");
    event.lineage = session->lineage;
    memcpy(event.worker, name, strlen(name) + 1);
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT) {
        /* Nothing is journaled: a checkpoint tells of it. */
        pthread_mutex_lock(&session->mutex);
        ledger_remove_worker(&session->state->ledger, name);
        session->dirty++;
        pthread_mutex_unlock(&session->mutex);
        return session_checkpoint_own(session, false, fault);
    }
    if ((status = journal_entry_new(session, &event, NULL, 0, 0, &entry, fault)) != STATUS_OK)
        return status;
    commit_enqueue(session->engine->committer, &entry->item);
    status = commit_wait(&entry->item, fault);
    POINT(after_dismiss);
    *failed = status != STATUS_OK;
    if (status == STATUS_OK) {
        pthread_mutex_lock(&session->mutex);
        ledger_remove_worker(&session->state->ledger, name);
        session->dirty++;
        pthread_mutex_unlock(&session->mutex);
    }
    journal_entry_free(entry);
    return status;
}

enum status session_dismiss(struct session *session, const char *name, struct fault *fault)
{
    enum status status;
    bool failed = false;
    uint64_t ticket;

    if (strlen(name) > WORKER_BYTES)
        return fault_set(fault, STATUS_NOT_FOUND, "", "no worker has a name of over %d bytes",
                         WORKER_BYTES);
    if ((status = session_enter(session, fault)) != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    status = session_admit_alone(session, &ticket, fault);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK) {
        status = dismiss(session, name, &failed, fault);
        pthread_mutex_lock(&session->mutex);
        session_end_turn(session, true, failed);
        pthread_mutex_unlock(&session->mutex);
    }
    session_leave(session);
    return status;
}
