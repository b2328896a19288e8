/* Checkpoints: what is written, and when. checkpoint_read.c brings them back: see replay.h. */
#ifndef DESCENT_SESSION_CHECKPOINT_H
#define DESCENT_SESSION_CHECKPOINT_H

#include "service/session/session.h"

/* --- checkpoint.c --- */

/* What a checkpoint stores. */
struct checkpoint {
    struct state *state;          /* the session's own, or the one it is about to get */
    const struct spec *spec;      /* of the state */
    uint64_t lineage;             /* the newest, for the record */
    const struct ledger *ledger;  /* of keys and workers; NULL: the state's */
    bool record;                  /* the session's record is stored in the same transaction */
    struct journal_entry *before; /* an event that goes before it, or NULL */
};

/* Saves a state. The caller holds the turn exclusively, not the mutex: every event admitted so
 * far is applied and stands in the commit queue before this, so the journal's position at the seal
 * is the state's. The ledger's lines since the last checkpoint of the session's present state are
 * written with it. */
enum status session_checkpoint(struct session *session, const struct checkpoint *what,
                               struct fault *fault);

/* Writes the session's record into the open transaction. */
enum status session_put_record(struct session *session, const struct spec *spec, uint64_t lineage,
                               struct store *store, struct fault *fault);

/* --- save.c --- */

/* The session's own state. */
enum status session_checkpoint_own(struct session *session, bool record, struct fault *fault);

/* Takes an exclusive turn and saves the state, if it is time (or `always`, when anything changed).
 * The caller has entered. */
enum status session_save(struct session *session, bool always, struct fault *fault);

#endif
