/* Closes rounds when their time is up: a thread that sleeps until the earliest deadline of those
 * that are open. */
#include <pthread.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/core/log.h"
#include "service/session/session.h"

enum { AGAIN_US = 1000000, BUSY_US = 10000 }; /* after a failure; while others are in flight */

void session_close_at(struct session *session, uint64_t due_us)
{
    struct engine *engine = session->engine;

    pthread_mutex_lock(&engine->time_mutex);
    bool sooner = !session->timed || due_us < session->due_us;
    if (!session->timed) {
        session->timed = true;
        session->due_us = due_us;
        session->next_timed = engine->timed;
        engine->timed = session_retain(session);
    } else if (sooner) {
        session->due_us = due_us;
    }
    if (sooner)
        pthread_cond_signal(&engine->time);
    pthread_mutex_unlock(&engine->time_mutex);
}

/* The link to the session that is due first; of an empty list to its end. */
static struct session **first_due(struct engine *engine)
{
    struct session **first = &engine->timed;

    for (struct session **link = first; *link != NULL; link = &(*link)->next_timed)
        if ((*link)->due_us < (*first)->due_us)
            first = link;
    return first;
}

static void sleep_until(struct engine *engine, uint64_t due_us)
{
    struct timespec until = {.tv_sec = (time_t)(due_us / 1000000),
                             .tv_nsec = (long)(due_us % 1000000) * 1000};

    if (due_us == UINT64_MAX)
        pthread_cond_wait(&engine->time, &engine->time_mutex);
    else
        pthread_cond_timedwait(&engine->time, &engine->time_mutex, &until);
}

static void close_due(struct session *session)
{
    struct fault fault;
    enum status status = session_close_round(session, &fault);

    if (status == STATUS_SESSION_NOT_FOUND)
        return;
    if (status == STATUS_OK) { /* it may have been the deadline of another round than is open now */
        pthread_mutex_lock(&session->mutex);
        if (session->state != NULL)
            session_watch_round(session, BUSY_US);
        pthread_mutex_unlock(&session->mutex);
        return;
    }
    log_warning("session %s: its round is not closed in time: %s", session->stored_id,
                fault.detail);
    session_close_at(session, clock_monotonic_us() + AGAIN_US);
}

static void *run(void *context)
{
    struct engine *engine = context;

    pthread_mutex_lock(&engine->time_mutex);
    while (!engine->time_up) {
        struct session **link = first_due(engine), *session = *link;
        uint64_t due_us = session == NULL ? UINT64_MAX : session->due_us;
        if (due_us > clock_monotonic_us()) {
            sleep_until(engine, due_us);
            continue;
        }
        *link = session->next_timed;
        session->timed = false;
        pthread_mutex_unlock(&engine->time_mutex);
        close_due(session);
        session_release(session);
        pthread_mutex_lock(&engine->time_mutex);
    }
    while (engine->timed != NULL) {
        struct session *session = engine->timed;
        engine->timed = session->next_timed;
        session->timed = false;
        session_release(session);
    }
    pthread_mutex_unlock(&engine->time_mutex);
    return NULL;
}

enum status timekeeper_start(struct engine *engine, struct fault *fault)
{
    if (pthread_create(&engine->timekeeper, NULL, run, engine) != 0)
        return fault_set(fault, STATUS_INTERNAL, "", "cannot start the timekeeping thread");
    return STATUS_OK;
}

void timekeeper_stop(struct engine *engine)
{
    pthread_mutex_lock(&engine->time_mutex);
    engine->time_up = true;
    pthread_cond_signal(&engine->time);
    pthread_mutex_unlock(&engine->time_mutex);
    pthread_join(engine->timekeeper, NULL);
}
