/* Bringing a state back from what is stored. */
#ifndef DESCENT_SESSION_REPLAY_H
#define DESCENT_SESSION_REPLAY_H

#include "service/session/session.h"

/* --- replay.c --- */

/* A state read from what is stored, apart from the session's own. */
struct loaded {
    struct state *state;
    struct spec spec;
    uint64_t replayed, bytes; /* events after the checkpoint */
};

/* Brings the state after the event that ends at lsn `until` (UINT64_MAX: the newest) back: the
 * newest checkpoint that is not later, then the events after it. Nothing that is stored may go
 * meanwhile: `loading` or `readers` is set. HISTORY_MISMATCH when it does not lead to a hash that
 * is stored. */
enum status session_load(struct session *session, uint64_t until, struct loaded *out,
                         struct fault *fault);

/* The pieces of it, for verify.c. A run over what is stored: session_replay_start reads a
 * checkpoint, session_replay_event takes the next event (EVENT_RECEIPTS hands its body to
 * `receipts`, when not NULL). */
struct replay {
    struct session *session;
    struct loaded loaded;
    unsigned char *chunk; /* STORE_CHUNK_BYTES */
    struct tensor_note *notes;
    bool hashed;
    struct digest state_hash; /* of the checkpoint that it started from */
    uint64_t sealed;          /* its lsn: of the events up to it only the open round is taken */
    enum status (*receipts)(void *context, const struct buffer *body, struct fault *fault);
    void *context;
};
enum status session_replay_start(struct session *session, const struct checkpoint_place *place,
                                 struct replay *out, struct fault *fault);
enum status session_replay_event(struct replay *replay, const struct event_place *place,
                                 struct fault *fault);
void session_replay_end(struct replay *replay); /* frees all but what was taken out of it */

/* --- checkpoint_read.c --- */

/* Reads a checkpoint into replay->loaded, which holds none yet, and its hash. */
enum status checkpoint_read(struct replay *replay, const struct checkpoint_place *place,
                            struct fault *fault);

/* STORAGE_FAILED: a stored configuration is not one of the session. */
enum status replay_misfit(struct fault *fault);

/* --- event_read.c --- */

/* One event: its head into the caller's memory (event->cursor points there), its body into a
 * buffer; NULL on failure. */
enum status session_read_event(struct session *session, const struct event_place *place,
                               unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                               struct event *event, struct buffer **body, struct fault *fault);

/* The same without the body; chunk 0 is read. */
enum status session_read_head(struct session *session, const struct event_place *place,
                              unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                              struct event *event, struct fault *fault);

#endif
