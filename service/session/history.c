/* The past of a session: where a moment is in the journal, its state, its weights, its hash.
 *
 * The journal is one line of events; EVENT_REWIND says from where on a new lineage goes on. A
 * revision (lineage, step) is found by walking from its lineage to the one it came from, as far as
 * the step lies before the place where they part. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

/* --- finding --- */

/* The rewind that began a lineage, or NULL: the first one, or its beginning is not kept. */
static const struct event_place *beginning(const struct session *session, uint64_t lineage)
{
    const struct event_place *place = session->rewinds.first;

    while (place != NULL && place->lineage != lineage)
        place = place->next_alike;
    return place;
}

/* The lineage whose step it is on the line that leads to (lineage, step). */
static uint64_t line_of(const struct session *session, uint64_t lineage, uint64_t step)
{
    const struct event_place *rewind;

    while ((rewind = beginning(session, lineage)) != NULL && step <= rewind->step)
        lineage = rewind->origin;
    return lineage;
}

enum status rewinds_list(const struct session *session, struct rewinds *out, struct fault *fault)
{
    size_t count = 0;

    for (const struct event_place *at = session->rewinds.first; at != NULL; at = at->next_alike)
        count++;
    *out = (struct rewinds){.places = malloc((count + 1) * sizeof *out->places)};
    if (out->places == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (const struct event_place *at = session->rewinds.first; at != NULL; at = at->next_alike)
        out->places[out->count++] = *at;
    return STATUS_OK;
}

uint64_t rewinds_line(const struct rewinds *rewinds, uint64_t lineage, uint64_t step)
{
    /* Newest first: a rewind leads to a lineage that began before it. */
    for (size_t i = rewinds->count; i-- > 0;)
        if (rewinds->places[i].lineage == lineage && step <= rewinds->places[i].step)
            lineage = rewinds->places[i].origin;
    return lineage;
}

struct following session_line_from(const struct session *session, const struct moment *at)
{
    uint64_t durable =
        session->durable_step < session->step ? session->durable_step : session->step;
    const struct following lost = {FOLLOW_LOST, {session->lineage, durable}};
    uint64_t own = at->lineage, line = session->lineage; /* of both, down to where they part */
    uint64_t step = at->step;     /* the last that both lines have, of those up to `at` */
    uint64_t end = session->step; /* the last of lineage `line` on the present line */

    while (own != line) {
        uint64_t *newer = own > line ? &own : &line;
        uint64_t *last = own > line ? &step : &end;
        const struct event_place *rewind =
            *newer <= session->lineage ? beginning(session, *newer) : NULL;
        if (rewind == NULL)
            return lost;
        *last = rewind->step < *last ? rewind->step : *last;
        *newer = rewind->origin;
    }
    step = end < step ? end : step;
    uint64_t next = line_of(session, session->lineage, step + 1);
    if (step == at->step && next == at->lineage)
        return (struct following){FOLLOW_STEPS, {next, end}};
    return (struct following){FOLLOW_BACK, {next, step}};
}

/* The event or checkpoint of a step of this very lineage; false: none is kept. */
static bool find_own(const struct session *session, uint64_t lineage, uint64_t step,
                     struct position *out)
{
    const struct event_place *event = session->events;
    const struct checkpoint_place *oldest = session->checkpoints, *checkpoint = NULL;

    while (oldest != NULL && oldest->next != NULL)
        oldest = oldest->next;
    while (event != NULL &&
           (!event_steps(event->kind) || event->lineage != lineage || event->step != step))
        event = event->next;
    if (event != NULL && oldest != NULL && event->lsn > oldest->lsn) {
        *out = (struct position){event->lsn + event->chunks - 1, {lineage, step}};
        return true;
    }
    /* The oldest of that revision: later ones may have another configuration. */
    for (const struct checkpoint_place *at = session->checkpoints; at != NULL; at = at->next)
        if (at->lineage == lineage && at->step == step)
            checkpoint = at;
    if (checkpoint == NULL)
        return false;
    *out = (struct position){checkpoint->lsn, {lineage, step}};
    return true;
}

/* The first step on the line of a lineage that is kept. */
static uint64_t oldest_step(const struct session *session, uint64_t lineage)
{
    uint64_t oldest = session->step;

    for (const struct checkpoint_place *place = session->checkpoints; place != NULL;
         place = place->next)
        if (place->step < oldest && line_of(session, lineage, place->step) <= place->lineage)
            oldest = place->step;
    return oldest;
}

/* Whether there has ever been such a step, as far as can be told. */
static bool was_reached(const struct session *session, uint64_t lineage, uint64_t step)
{
    uint64_t own = line_of(session, lineage, step);
    bool known = false; /* how far that lineage came */

    if (own != lineage)
        return true; /* somebody went back to it, or to a step after it */
    if (own == session->lineage)
        return step <= session->step;
    /* What tells of the end of a lineage goes last, but for what stays when all around it has gone;
     * and all that follows a checkpoint is there. */
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        if (place->lineage == own && place->kind != EVENT_REWIND) {
            known |= place->kind != EVENT_RECEIPTS && place->kind != EVENT_QUARANTINE;
            if (place->step >= step)
                return true;
        }
    for (const struct checkpoint_place *place = session->checkpoints; place != NULL;
         place = place->next)
        if (place->lineage == own) {
            known = true;
            if (place->step >= step)
                return true;
        }
    return !known; /* it may have been */
}

static enum status find(const struct session *session, const struct moment_query *query,
                        struct position *out, struct fault *fault)
{
    uint64_t lineage = query->has_lineage ? query->lineage : session->lineage;
    const struct event_place *rewind;

    if (lineage > session->lineage)
        return fault_set(fault, STATUS_NOT_FOUND, "/lineage",
                         "session %s has no lineage %llu; the newest is %llu", session->id,
                         (unsigned long long)lineage, (unsigned long long)session->lineage);
    for (uint64_t at = lineage;; at = rewind->origin) {
        if (find_own(session, at, query->step, out))
            return STATUS_OK;
        rewind = beginning(session, at);
        if (rewind == NULL || query->step > rewind->step)
            break;
    }
    if (!was_reached(session, lineage, query->step)) {
        fault_set(
            fault, STATUS_NOT_FOUND, "/step",
            "session %s has not come to step %llu in lineage %llu; it stands at \"%llu-%llu\"",
            session->id, (unsigned long long)query->step, (unsigned long long)lineage,
            (unsigned long long)session->lineage, (unsigned long long)session->step);
        return fault_extra(fault, "current_step", session->step);
    }
    uint64_t oldest = oldest_step(session, lineage);
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT)
        fault_set(fault, STATUS_HISTORY_GONE, "/step",
                  "step %llu is not kept: with durability \"checkpoint\" there are only the steps "
                  "at which the state was saved (GET .../checkpoints lists them)",
                  (unsigned long long)query->step);
    else
        fault_set(fault, STATUS_HISTORY_GONE, "/step",
                  "step %llu is not kept any more; the oldest is %llu. history.keep_steps says how "
                  "many are (and --history-bytes-max for the whole server)",
                  (unsigned long long)query->step, (unsigned long long)oldest);
    return fault_extra(fault, "oldest_step", oldest);
}

/* --- reading --- */

enum status session_start_reading(struct session *session, struct fault *fault)
{
    if (session->deleted)
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "", "session %s was deleted",
                         session->id);
    session->readers++;
    return STATUS_OK;
}

void session_end_reading(struct session *session)
{
    session->readers--;
    pthread_cond_broadcast(&session->turn);
}

void session_await_readers(struct session *session)
{
    while (session->loading || session->readers > 0)
        pthread_cond_wait(&session->turn, &session->mutex);
}

static bool is_current(const struct session *session, const struct moment_query *query)
{
    return query == NULL || (query->step == session->step &&
                             (!query->has_lineage || query->lineage == session->lineage));
}

/* Whether it is a revision of the present lineage that may not be on disk yet. What has not come is
 * not there to be saved, and other lineages were saved when they ended. */
static bool may_wait(const struct session *session, const struct moment_query *query)
{
    return query->step > session->durable_step && query->step <= session->step &&
           (!query->has_lineage || query->lineage == session->lineage);
}

enum status session_settle(struct session *session, const struct moment_query *query,
                           struct position *out, struct fault *fault)
{
    bool current = is_current(session, query);
    bool waits = query != NULL && may_wait(session, query);
    enum status status = STATUS_OK;

    if ((current || waits) && session->dirty > 0) {
        pthread_mutex_unlock(&session->mutex);
        status = session_checkpoint_own(session, false, fault);
        pthread_mutex_lock(&session->mutex);
    }
    if (status != STATUS_OK || !current)
        return status != STATUS_OK ? status : find(session, query, out, fault);
    *out = (struct position){UINT64_MAX, {session->lineage, session->step}};
    return STATUS_OK;
}

/* Reads the state at a moment. The turn is held for one that may not be on disk yet, and where
 * nothing is journaled, for there the next checkpoint replaces this one. Mutex held on entry and
 * exit; readers is counted. */
static enum status load_moment(struct session *session, const struct moment_query *query,
                               struct loaded *out, struct fault *fault)
{
    bool alone = is_current(session, query) || may_wait(session, query) ||
                 session->spec.durability.mode == DURABILITY_CHECKPOINT;
    struct position position;
    uint64_t ticket;
    enum status status = STATUS_OK;

    if (alone && (status = session_admit_alone(session, &ticket, fault)) != STATUS_OK)
        return status;
    status = alone ? session_settle(session, query, &position, fault)
                   : find(session, query, &position, fault);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK)
        status = session_load(session, position.lsn, out, fault);
    POINT(after_past);
    pthread_mutex_lock(&session->mutex);
    if (alone)
        session_end_turn(session, true, false);
    return status;
}

enum status session_enter_past(struct session *session, const struct moment_query *query,
                               struct loaded *out, struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->engine->past);
    pthread_mutex_lock(&session->mutex);
    if ((status = session_start_reading(session, fault)) == STATUS_OK) {
        status = load_moment(session, query, out, fault);
        session_end_reading(session);
    }
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK)
        return status;
    pthread_mutex_unlock(&session->engine->past);
    session_leave(session);
    return status;
}

void session_leave_past(struct session *session, struct loaded *loaded)
{
    state_free(loaded->state);
    pthread_mutex_unlock(&session->engine->past);
    session_leave(session);
}

enum status session_revision_at(struct session *session, const struct moment_query *query,
                                struct revision **out, struct fault *fault)
{
    struct loaded loaded;
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    bool current = is_current(session, query) || BUG(past_is_now);
    if (current)
        *out = revision_retain(session->state->current);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    if (current || (status = session_enter_past(session, query, &loaded, fault)) != STATUS_OK)
        return status;
    *out = revision_retain(loaded.state->current);
    session_leave_past(session, &loaded);
    return STATUS_OK;
}

/* Of the state in memory, in a turn of its own: slots change in place. *found: it is the one
 * that is asked for. */
static enum status hash_current(struct session *session, const struct moment_query *query,
                                bool *found, struct moment *moment, struct digest *out,
                                struct fault *fault)
{
    uint64_t ticket;
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    if ((status = session_admit_alone(session, &ticket, fault)) == STATUS_OK) {
        const struct state *state = session->state;
        *found = is_current(session, query);
        *moment = (struct moment){state->current->lineage, state->current->step};
        pthread_mutex_unlock(&session->mutex);
        if (*found)
            *out = state_hash(state, state->current, session->plan);
        pthread_mutex_lock(&session->mutex);
        session_end_turn(session, true, false);
    }
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return status;
}

enum status session_hash(struct session *session, const struct moment_query *query,
                         struct moment *moment, struct digest *out, struct fault *fault)
{
    struct loaded loaded;
    bool found = false;
    enum status status = hash_current(session, query, &found, moment, out, fault);

    if (status != STATUS_OK || found)
        return status;
    if ((status = session_enter_past(session, query, &loaded, fault)) != STATUS_OK)
        return status;
    const struct revision *current = loaded.state->current;
    *moment = (struct moment){current->lineage, current->step};
    *out = state_hash(loaded.state, current, session->plan);
    session_leave_past(session, &loaded);
    return STATUS_OK;
}

/* --- checkpoints --- */

enum status session_checkpoint_now(struct session *session, struct moment *out, struct fault *fault)
{
    enum status status = session_enter(session, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = session_save(session, true, fault)) == STATUS_OK) {
        pthread_mutex_lock(&session->mutex);
        if ((status = session_start_reading(session, fault)) == STATUS_OK) {
            *out = (struct moment){session->checkpoints->lineage, session->checkpoints->step};
            session_end_reading(session);
        }
        pthread_mutex_unlock(&session->mutex);
    }
    session_leave(session);
    return status;
}

size_t session_checkpoints(struct session *session, struct checkpoint_view *out, size_t count)
{
    size_t found = 0;

    pthread_mutex_lock(&session->mutex);
    for (const struct checkpoint_place *place = session->checkpoints; place != NULL;
         place = place->next, found++)
        if (found < count)
            out[found] = (struct checkpoint_view){{place->lineage, place->step}, place->bytes};
    pthread_mutex_unlock(&session->mutex);
    return found;
}
