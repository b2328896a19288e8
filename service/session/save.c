/* When the state of a session is saved. */
#include "service/session/checkpoint.h"
#include "service/session/session.h"

enum { EVENTS_PER_CHECKPOINT = 4096 };
/* Of lines of the ledger in memory, between them a sixteenth of the state. */
#define LEDGER_BYTES_LOW ((uint64_t)512 << 10)
#define LEDGER_BYTES_HIGH ((uint64_t)16 << 20)
/* Who asked for rare checkpoints gets one early only where the lines would be many times that. */
#define LEDGER_BYTES_RARE ((size_t)64 << 20)
#define JOURNAL_BYTES_LOW ((uint64_t)4 << 20)
#define JOURNAL_BYTES_HIGH ((uint64_t)256 << 20)

/* Whether the journal since the last checkpoint is long enough for another, or the mode asks for
 * one. Mutex held. */
static bool wants_checkpoint(const struct session *session)
{
    uint64_t state = state_bytes(session->layout, session->plan, &session->spec);
    uint64_t limit = 16 * state, ledger = state / 16;

    /* It can wait for the round to close, but not for ever. */
    if (session->state->round.count > 0 && session->journal_since < 4 * JOURNAL_BYTES_HIGH &&
        session->dirty < 4 * EVENTS_PER_CHECKPOINT &&
        session->state->receipts.lines.used < LEDGER_BYTES_RARE)
        return false;
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT)
        return session->dirty >= session->spec.durability.steps ||
               session->state->receipts.lines.used >= LEDGER_BYTES_RARE;
    /* Sixteen steps' worth of state bounds the cost of saving it to a few per cent of the
     * journal's; but recovery reads it all. */
    if (limit > JOURNAL_BYTES_HIGH)
        limit = JOURNAL_BYTES_HIGH;
    if (limit < 4 * state)
        limit = 4 * state;
    if (limit < JOURNAL_BYTES_LOW)
        limit = JOURNAL_BYTES_LOW;
    if (ledger > LEDGER_BYTES_HIGH)
        ledger = LEDGER_BYTES_HIGH;
    if (ledger < LEDGER_BYTES_LOW)
        ledger = LEDGER_BYTES_LOW;
    return session->journal_since >= limit || session->dirty >= EVENTS_PER_CHECKPOINT ||
           session->state->receipts.lines.used >= ledger;
}

enum status session_checkpoint_own(struct session *session, bool record, struct fault *fault)
{
    struct checkpoint what = {.state = session->state,
                              .spec = &session->spec,
                              .lineage = session->lineage,
                              .record = record};

    return session_checkpoint(session, &what, fault);
}

enum status session_save(struct session *session, bool always, struct fault *fault)
{
    enum status status = STATUS_OK;
    uint64_t ticket;

    pthread_mutex_lock(&session->mutex);
    if (!always && !wants_checkpoint(session))
        goto unlock;
    if ((status = session_admit_alone(session, &ticket, fault)) != STATUS_OK)
        goto unlock;
    if (always ? session->dirty > 0 : wants_checkpoint(session)) {
        pthread_mutex_unlock(&session->mutex);
        status = session_checkpoint_own(session, false, fault);
        pthread_mutex_lock(&session->mutex);
    }
    session_end_turn(session, true, false);
unlock:
    pthread_mutex_unlock(&session->mutex);
    return status;
}
