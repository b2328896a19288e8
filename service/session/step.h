/* A step on its way, for step.c and the files named below. */
#ifndef DESCENT_SESSION_STEP_H
#define DESCENT_SESSION_STEP_H

#include "service/session/session.h"

struct step {
    struct session *session;
    const struct submission *submission; /* NULL: weights are replaced */
    const struct submission *given;      /* the one that came, where `submission` is `corrected` */
    struct submission corrected;         /* by a snapshot */
    const struct precondition *match;
    bool closing;          /* closes the open round, whose time is up; submission is NULL */
    struct buffer *body;   /* borrowed, or `joined` */
    struct buffer *joined; /* the gradient with what the rule proposes for it; NULL: nothing */
    size_t offset, size;
    struct spec spec;      /* as of admission */
    uint64_t spec_version; /* of it */
    struct event event;
    struct flight flight;
    struct waiter waiter;
    bool waiting;                /* the waiter is on the session's list */
    size_t bad_count, bad_index; /* elements that came not finite, before they were replaced */

    struct gathering *gathering;       /* of the round that it closes; NULL: alone */
    struct contribution *contribution; /* EVENT_CONTRIBUTION: what it adds */
    struct journal_entry *entry;       /* NULL when the mode does not journal */
    struct revision *next;
    struct tensor_note *notes; /* NULL: too many tensors, or no gradient */
    char *cursor;
    bool exclusive; /* admitted alone */
    bool proposes;  /* it closes a round and the rule proposes: it has to be admitted alone */
    uint64_t ticket;
    uint64_t started_us;
    struct stages stages;
    float turn_ms, apply_ms; /* waited for its turn; apply_ms of `stages`, once it is known */
};

/* --- step_prepare.c --- */

/* The event as far as it is known before admission: of a gradient, of weights that replace the
 * session's, of a round that closes with what it has. Mutex not held. */
enum status step_prepare_gradient(struct step *step, struct fault *fault);
enum status step_prepare_weights(struct step *step, struct fault *fault);
enum status step_prepare_close(struct step *step, struct fault *fault);

/* --- admission.c --- */

/* Whether this request was seen before: *seen tells, *out is then its outcome. A flight with the
 * same key or sequence number, or a number out of order, is refused. Mutex held. */
enum status step_check_repeat(struct step *step, bool *seen, struct outcome *out,
                              struct fault *fault);

/* Admits the step: checks it and queues its event, so that ticket order is journal order. A step
 * that proposes is admitted alone, because it is computed from the state that it changes. *going:
 * it has its turn to take; *again: the configuration changed since it was prepared. Mutex held. */
enum status step_admit(struct step *step, bool *going, bool *again, bool *seen, struct outcome *out,
                       struct fault *fault);

/* Ends what step_admit began, when the turn was taken. Mutex held. */
void step_land(struct step *step);

/* --- aggregation.c --- */

/* What the mode of aggregation says of a contribution that is valid otherwise, and whether it
 * closes the round: sets the event's kind, step and clock. Mutex held; admitted. */
enum status step_check_round(struct step *step, struct fault *fault);

/* Whether the round whose time is up is there still, and enough of it. Mutex held; admitted. */
bool step_may_close(const struct session *session);

/* Of a contribution under a configuration, before anything is known of the session. */
enum status step_check_mode(const struct step *step, struct fault *fault);

/* --- wait.c --- */

/* Puts the step's waiter on the list, when it wants to wait and the receipt is RECEIPT_WAITING.
 * Mutex held. */
void step_start_waiting(struct step *step, const struct receipt *receipt);

/* Waits as long as it wants; *out is then the final receipt, if there is one. STALE_GRADIENT when
 * the session went back meanwhile, SESSION_NOT_FOUND. Mutex not held. */
enum status step_wait(struct step *step, struct outcome *out, struct fault *fault);

/* --- snapshot_step.c --- */

/* Puts the estimate in the place of a gradient that came with a pair, until step_uncorrect. Mutex
 * not held. */
enum status step_correct(struct step *step, struct fault *fault);
void step_uncorrect(struct step *step);

/* Which member of the request has the number at bad_index that is not finite. */
const char *step_member_at_fault(const struct step *step);

/* SNAPSHOT_STALE when another snapshot has taken the place of the one that corrected the step.
 * Mutex held. */
enum status step_check_snapshot(const struct step *step, struct fault *fault);

/* --- quarantine.c --- */

/* ABNORMAL_GRADIENT when the norm is too far above those before. Mutex held. */
enum status step_check_norm(const struct step *step, struct fault *fault);

/* Keeps the gradient that was refused so, in a turn of its own, and adds to the fault where. Called
 * when admitted; mutex held on entry and exit. False when it could not be kept (storage failed). */
bool step_quarantine(struct step *step, struct fault *fault);

#endif
