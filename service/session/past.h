/* The past of a session: moments, the line that leads to them, states that were. */
#ifndef DESCENT_SESSION_PAST_H
#define DESCENT_SESSION_PAST_H

#include "service/session/replay.h"

/* Where a moment is in the journal. */
struct position {
    uint64_t lsn; /* of the last chunk of the event that led to it, or of a checkpoint of it */
    struct moment moment;
};

/* Finds a moment, with the turn held exclusively, after what is not on disk yet has been brought
 * there. The current revision (query NULL, or its name) is at UINT64_MAX. Mutex held on entry and
 * exit. */
enum status session_settle(struct session *session, const struct moment_query *query,
                           struct position *out, struct fault *fault);

/* The rewinds of a session, copied, so that many steps can be placed without its list. */
struct rewinds {
    struct event_place *places; /* malloc'ed */
    size_t count;
};

/* INTERNAL when memory is out. Mutex held. */
enum status rewinds_list(const struct session *session, struct rewinds *out, struct fault *fault);

/* The lineage whose step it is on the line that leads to (lineage, step). */
uint64_t rewinds_line(const struct rewinds *rewinds, uint64_t lineage, uint64_t step);

/* Where the line of the present lineage goes on from a moment of another. Mutex held. */
struct following session_line_from(const struct session *session, const struct moment *at);

/* The state at a moment (query NULL: now), read from what is stored, with the engine's `past` held
 * until session_leave_past. */
enum status session_enter_past(struct session *session, const struct moment_query *query,
                               struct loaded *out, struct fault *fault);
void session_leave_past(struct session *session, struct loaded *loaded);

/* Readers of what is stored. With the mutex held; SESSION_NOT_FOUND when deleted, for then it
 * goes. */
enum status session_start_reading(struct session *session, struct fault *fault);
void session_end_reading(struct session *session);

/* Mutex held on entry and exit: waits until nobody reads what is stored, for it goes. */
void session_await_readers(struct session *session);

#endif
