/* Waiting for others: for the open round to close, for a later step, for what the ledger says of
 * it. Nobody waits once the engine drains. */
#include <pthread.h>

#include "service/core/clock.h"
#include "service/core/metric.h"
#include "service/session/past.h"
#include "service/session/session.h"
#include "service/session/step.h"

/* Later is never: of a thread's wait, which has a limit anyhow. */
enum { WAIT_S_MAX = 3600 };

static struct timespec deadline_of(double wait_s)
{
    uint64_t now = clock_monotonic_us();
    uint64_t at = now + (uint64_t)((wait_s < WAIT_S_MAX ? wait_s : WAIT_S_MAX) * 1e6);

    return (struct timespec){.tv_sec = (time_t)(at / 1000000),
                             .tv_nsec = (long)(at % 1000000) * 1000};
}

static bool draining(const struct session *session)
{
    return __atomic_load_n(&session->engine->draining, __ATOMIC_ACQUIRE);
}

/* False when the time is up or the engine drains. */
static bool await_news(struct session *session, const struct timespec *until)
{
    return !draining(session) &&
           pthread_cond_timedwait(&session->news, &session->mutex, until) == 0;
}

void session_tell_durable(struct session *session)
{
    if (session->followers > 0)
        pthread_cond_broadcast(&session->told);
}

void session_tell(struct session *session, bool closes, const struct receipt *receipt)
{
    for (struct waiter *waiter = session->waiters; waiter != NULL && closes; waiter = waiter->next)
        if (!waiter->done && waiter->lineage == session->lineage) {
            waiter->done = true;
            waiter->receipt = *receipt;
            waiter->revision = revision_retain(session->state->current);
        }
    if (session->waiters != NULL || session->watchers > 0)
        pthread_cond_broadcast(&session->news);
    if (receipt == NULL || session->step <= session->durable_step)
        session_tell_durable(session);
}

void step_start_waiting(struct step *step, const struct receipt *receipt)
{
    struct session *session = step->session;

    if (step->submission == NULL || step->submission->dry_run || step->submission->wait_s <= 0 ||
        receipt->kind != RECEIPT_WAITING || step->waiting)
        return;
    step->waiting = true;
    step->waiter = (struct waiter){.next = session->waiters, .lineage = session->lineage};
    session->waiters = &step->waiter;
}

static void unlist(struct session *session, const struct waiter *waiter)
{
    struct waiter **link = &session->waiters;

    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
}

static enum status went_back(struct session *session, struct fault *fault)
{
    if (session->deleted)
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "", "session %s was deleted",
                         session->id);
    fault_set(fault, STATUS_STALE_GRADIENT, "",
              "the session went back while the round was open, and the contribution with it; "
              "fetch the parameters and compute it again");
    return fault_extra(fault, "current_step", session->step);
}

enum status step_wait(struct step *step, struct outcome *out, struct fault *fault)
{
    struct session *session = step->session;
    struct waiter *waiter = &step->waiter;
    enum status status = STATUS_OK;

    if (!step->waiting)
        return STATUS_OK;
    struct timespec until = deadline_of(step->submission->wait_s);
    metric_move(GAUGE_WAITING, METRIC_AWAITED_ROUND, 1);
    pthread_mutex_lock(&session->mutex);
    while (!waiter->done && !session->deleted && waiter->lineage == session->lineage &&
           await_news(session, &until))
        ;
    unlist(session, waiter);
    step->waiting = false;
    if (waiter->done) {
        revision_release(out->revision);
        out->revision = waiter->revision;
        out->receipt = waiter->receipt;
        uint64_t durable = session->durable_step;
        out->receipt.durable_step = durable < out->receipt.step ? durable : out->receipt.step;
    } else if (session->deleted || waiter->lineage != session->lineage) {
        status = went_back(session, fault);
        revision_release(out->revision);
    }
    pthread_mutex_unlock(&session->mutex);
    metric_move(GAUGE_WAITING, METRIC_AWAITED_ROUND, -1);
    return status;
}

enum status session_await_step(struct session *session, uint64_t after, double wait_s, bool *newer,
                               struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    struct timespec until = deadline_of(wait_s);
    metric_move(GAUGE_WAITING, METRIC_AWAITED_STEP, 1);
    pthread_mutex_lock(&session->mutex);
    uint64_t lineage = session->lineage;
    session->watchers++;
    while (session->step <= after && session->lineage == lineage && !session->deleted &&
           await_news(session, &until))
        ;
    session->watchers--;
    *newer = session->step > after || session->lineage != lineage;
    if (session->deleted)
        status = went_back(session, fault);
    pthread_mutex_unlock(&session->mutex);
    metric_move(GAUGE_WAITING, METRIC_AWAITED_STEP, -1);
    session_leave(session);
    return status;
}

/* What a follower who stands at `at` may be told. Mutex held. */
static struct following look(const struct session *session, const struct moment *at)
{
    uint64_t told = session->step < session->durable_step ? session->step : session->durable_step;

    if (at->lineage != session->lineage)
        return session_line_from(session, at);
    if (at->step > session->step)
        return (struct following){FOLLOW_BACK, {session->lineage, told}};
    return (struct following){at->step < told ? FOLLOW_STEPS : FOLLOW_NOTHING,
                              {session->lineage, told}};
}

enum status session_follow(struct session *session, const struct moment *at, double wait_s,
                           struct following *out, struct fault *fault)
{
    struct timespec until = deadline_of(wait_s);
    enum status status = STATUS_OK;

    /* The state may leave memory meanwhile: step and lineage stay. */
    pthread_mutex_lock(&session->mutex);
    session->followers++;
    while (!session->deleted && (*out = look(session, at)).kind == FOLLOW_NOTHING && wait_s > 0 &&
           !draining(session) &&
           pthread_cond_timedwait(&session->told, &session->mutex, &until) == 0)
        ;
    session->followers--;
    if (session->deleted)
        status =
            fault_set(fault, STATUS_SESSION_NOT_FOUND, "", "session %s was deleted", session->id);
    pthread_mutex_unlock(&session->mutex);
    return status;
}

void engine_drain(struct engine *engine)
{
    __atomic_store_n(&engine->draining, true, __ATOMIC_RELEASE);
    pthread_rwlock_rdlock(&engine->lock);
    for (size_t i = 0; i < engine->count; i++) {
        pthread_mutex_lock(&engine->sessions[i]->mutex);
        pthread_cond_broadcast(&engine->sessions[i]->news);
        pthread_cond_broadcast(&engine->sessions[i]->told);
        pthread_mutex_unlock(&engine->sessions[i]->mutex);
    }
    pthread_rwlock_unlock(&engine->lock);
}
