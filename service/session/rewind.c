/* Going back: the session's state becomes the one of an earlier revision, under the next lineage.
 * One transaction: the ledger's lines so far, the rewind, a checkpoint of the state it leads to,
 * and the session's record. What was after that revision stays in the journal as long as history is
 * kept. */
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"

/* What describes the session rather than the step stays as it is. */
static void keep_settings(struct spec *spec, const struct spec *now)
{
    spec->durability = now->durability;
    spec->keep_steps = now->keep_steps;
    spec->hash_every = now->hash_every;
    spec->label_count = now->label_count;
    spec->label_bytes = now->label_bytes;
    memcpy(spec->labels, now->labels, sizeof spec->labels);
}

/* The new state in place of the old one, which is freed, but for the memory of exactly once:
 * what was applied under a key is not applied again, though it was left behind. Mutex held. */
static void put_state(struct session *session, struct loaded *loaded, struct ledger *take_ledger)
{
    const struct revision *current = loaded->state->current;

    ledger_close(&loaded->state->ledger);
    loaded->state->ledger = *take_ledger;
    *take_ledger = (struct ledger){.keys = NULL};
    state_free(session->state);
    round_clear(&loaded->state->round); /* of the current revision: left behind as well */
    session->state = loaded->state;
    loaded->state = NULL;
    session->spec = loaded->spec;
    session->spec_version++;
    session->lineage = current->lineage;
    session->step = session->admitted_step = session->durable_step = current->step;
    session_tell(session, false, NULL);
}

/* With the turn held. */
static enum status go_back(struct session *session, struct loaded *loaded, uint64_t step,
                           bool *failed, struct fault *fault)
{
    uint64_t lineage = session->lineage + !BUG(rewind_keeps_lineage);
    struct event event = event_make(EVENT_REWIND, step);
    struct ledger ledger;
    struct checkpoint what = {.state = loaded->state,
                              .spec = &loaded->spec,
                              .lineage = lineage,
                              .ledger = &ledger,
                              .record = !BUG(rewind_forgets_record)};
    enum status status;

    if (!ledger_copy(&session->state->ledger, &ledger))
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    round_disown(&session->state->round, &ledger);
    event.lineage = lineage;
    event.origin = loaded->state->current->lineage;
    loaded->state->current->lineage = lineage;
    loaded->state->snapshot.last = session->state->snapshot.last;
    keep_settings(&loaded->spec, &session->spec);
    if ((status = spec_check(&loaded->spec, fault)) != STATUS_OK) {
        ledger_close(&ledger);
        return status;
    }
    status = journal_entry_new(session, &event, NULL, 0, 0, &what.before, fault);
    if (status != STATUS_OK) {
        ledger_close(&ledger);
        return status;
    }
    POINT(before_rewind);
    status = session_checkpoint(session, &what, fault);
    POINT(after_rewind);
    *failed = status != STATUS_OK;
    if (status == STATUS_OK) {
        pthread_mutex_lock(&session->mutex);
        put_state(session, loaded, &ledger);
        pthread_mutex_unlock(&session->mutex);
    }
    journal_entry_free(what.before);
    ledger_close(&ledger);
    return status;
}

/* Finds and loads the revision with the turn held. Mutex held on entry and exit. */
static enum status load_target(struct session *session, const struct moment_query *query,
                               struct loaded *loaded, struct fault *fault)
{
    struct position position;
    enum status status = session_settle(session, query, &position, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = session_start_reading(session, fault)) != STATUS_OK)
        return status;
    pthread_mutex_unlock(&session->mutex);
    status = session_load(session, position.lsn, loaded, fault);
    pthread_mutex_lock(&session->mutex);
    session_end_reading(session);
    return status;
}

enum status session_rewind(struct session *session, const struct moment_query *query,
                           struct fault *fault)
{
    struct loaded loaded = {.state = NULL};
    enum status status = session_enter(session, fault);
    bool failed = false;
    uint64_t ticket;

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->engine->past);
    pthread_mutex_lock(&session->mutex);
    if ((status = session_admit_alone(session, &ticket, fault)) == STATUS_OK) {
        if ((status = load_target(session, query, &loaded, fault)) == STATUS_OK) {
            pthread_mutex_unlock(&session->mutex);
            /* The lines of a replay are those that the journal has already. */
            receipts_close(&loaded.state->receipts);
            status = go_back(session, &loaded, query->step, &failed, fault);
            pthread_mutex_lock(&session->mutex);
        }
        session_end_turn(session, true, failed);
    }
    pthread_mutex_unlock(&session->mutex);
    pthread_mutex_unlock(&session->engine->past);
    state_free(loaded.state);
    session_leave(session);
    return status;
}
