/* A fork on its way, for fork.c and fork_replay.c. */
#ifndef DESCENT_SESSION_FORK_H
#define DESCENT_SESSION_FORK_H

#include "service/session/session.h"

struct fork {
    struct session *parent;
    const struct fork_request *request;
    struct spec spec;
    struct plan *plan;
    struct state *state;
    struct tensor_note *notes;
    bool norms_hold;            /* measured as the parent did: with the same rescale */
    struct event_place *events; /* of the parent after the revision, for a replay */
    size_t event_count;
    struct fork_outcome *outcome;
};

/* --- fork_replay.c --- */

/* Lists the parent's steps after the revision, on the line of that lineage, each with the
 * contributions to its round; those at which another revision took over end it. INVALID_FIELD when
 * the parent journals none. Mutex held. */
enum status fork_list_events(struct fork *fork, uint64_t lineage, uint64_t step,
                             struct fault *fault);

/* Takes those steps with the fork's state. STORAGE_FAILED when one is not there, HISTORY_MISMATCH
 * when a gradient is not the one that was accepted. */
enum status fork_replay(struct fork *fork, struct fault *fault);

#endif
