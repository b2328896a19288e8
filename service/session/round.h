/* The open round: contributions that have come for the next step. Part of a session's state.
 *
  * Its members stay in memory in the form they came in and in the journal as EVENT_CONTRIBUTION; a
 * checkpoint does not have them: a replay from it begins before the first of them
 * (checkpoint_place.from).
 *
 * The list changes only by the holder of the turn with the session's mutex held; so admission may
 * look at it under the mutex, and who closes the round may read it without. */
#ifndef DESCENT_SESSION_ROUND_H
#define DESCENT_SESSION_ROUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/buffer.h"
#include "service/session/engine.h"
#include "service/session/ledger.h"
#include "service/session/mean.h"
#include "service/session/record.h"

struct contribution {
    struct contribution *next;
    struct member about;
    uint64_t place; /* order of arrival */
    bool keyed;
    struct digest key;
    bool delta;
    struct wire_gradient gradient; /* FORM_NONE: none, it was not finite and is skipped */
    struct buffer *buffer;         /* retained; NULL: none */
};

struct round {
    struct contribution *first, **end; /* by arrival; end NULL: empty */
    size_t count;
    uint64_t bytes;      /* of the members' gradients */
    uint64_t started_us; /* unix time of the first */
};

/* What an event contributes; body may be NULL when its form is FORM_NONE. NULL when memory is
 * out. */
struct contribution *contribution_new(const struct layout *layout, const struct event *event,
                                      struct buffer *body, size_t body_offset);
void contribution_free(struct contribution *contribution); /* NULL is allowed */

void round_add(struct round *round, struct contribution *take_contribution, uint64_t created_us);

/* Whether that worker is a member. */
bool round_has(const struct round *round, const char *worker);

/* The ledger forgets what the round has of its members: it is dropped. */
void round_disown(const struct round *round, struct ledger *ledger);

/* Drops the members. */
void round_clear(struct round *round);

/* Room for one who closes a round of so many members, itself included. */
struct gathering {
    size_t capacity;
    struct contribution own; /* form FORM_NONE and no buffer: it only closes */
    bool has_own;
    struct contribution **members; /* in the order of the mean, once taken */
    struct member *lines;          /* likewise: for the ledger of steps */
    struct mean_member *terms;
    struct wire_gradient *rows; /* the gradients, where all of them have rows */
    size_t count;
    uint64_t bytes;
};

/* NULL when memory is out. */
struct gathering *gathering_new(size_t capacity);
void gathering_free(struct gathering *gathering); /* NULL is allowed */

/* What the rule is to see of a closed round. */
struct estimate {
    struct wire_gradient gradient; /* FORM_NONE: nothing, the round is skipped */
    bool delta;                    /* times -1 */
    double loss;                   /* mean of those that were told, weighted alike */
    double examples;
    uint64_t base_step; /* the oldest */
};

/* The members of the round, and what the closing event contributes itself, in the order of the mean
 * (worker, seq, arrival); their mean, in mean[count] of the session's dtype unless a single member
 * is its own. The round does not change. */
struct estimate gathering_take(struct gathering *gathering, const struct round *round,
                               const struct layout *layout, const struct spec *spec,
                               const struct event *event, struct buffer *body, size_t body_offset,
                               struct buffer *mean);

/* Empties the round after its step; each member's entry of the ledger gets the final receipt. */
void round_settle(struct round *round, struct ledger *ledger, const struct receipt *receipt);

#endif
