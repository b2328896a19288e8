/* Contributions to rounds that can be made again from a seed, what plain loops make of them, and a
 * twin: an asynchronous session that is fed those means as dense gradients. What should work and
 * does not fails the test. */
#ifndef DESCENT_TESTS_ROUNDS_H
#define DESCENT_TESTS_ROUNDS_H

#include "service/session/engine.h"

enum { OFFERS_MAX = 16 };

struct offer {
    char worker[16]; /* "": none */
    uint64_t seq;    /* 0: none */
    uint64_t seed;   /* of its numbers */
    double examples;
    enum dtype wire;
    bool delta;
    bool based; /* says base_step */
    uint64_t base_step;
};

/* Draws numbers, wire type, examples and kind; worker and seq are the caller's. */
struct offer offer_draw(const char *worker, uint64_t seq, uint64_t *random);

/* The caller releases the submission's buffer. */
struct submission offer_submission(const struct offer *offer, size_t count);
enum status offer_try(struct session *session, const struct offer *offer, struct receipt *receipt,
                      bool *replayed, struct fault *fault);
/* One that must be taken now. */
struct receipt offer_make(struct session *session, const struct offer *offer);

/* Fails unless it is refused with that status and leaves the session and its open round as they
 * were. */
void offer_refused(struct session *session, const struct offer *offer, enum status status);
/* Fails unless it gets a stored receipt, which comes back, and changes as little. */
struct receipt offer_repeated(struct session *session, const struct offer *offer);

/* What a round of these is worth, by plain loops in double, in `dtype`: ordered by name, seq and
 * place in the array. */
enum plain { PLAIN_MEAN, PLAIN_SUM, PLAIN_VOTE };
struct buffer *offers_plain(const struct offer *members, size_t member_count, enum plain plain,
                            enum dtype dtype, size_t count);

/* --- sessions --- */

/* Synchronous, with that many workers. */
struct spec rounds_spec(enum dtype dtype, const char *rule, uint64_t workers);
/* A few tensors of odd sizes, or of `count` elements and a matrix beside. */
struct layout *rounds_layout(size_t count);
struct session *rounds_create(struct engine *engine, const char *id, const struct spec *spec,
                              struct layout *layout);

/* An asynchronous session of the same id, layout, weights and configuration in its own engine. */
struct twin {
    struct engine *engine;
    struct session *session;
};
struct twin twin_open(const char *id, const struct spec *spec, struct layout *layout);
void twin_close(struct twin *twin);
/* Feeds it the round, as one gradient. */
struct receipt twin_step(const struct twin *twin, const struct offer *members, size_t member_count,
                         enum plain plain);
/* Fails unless both stand at the same step with the same state. */
void twin_hold(const struct twin *twin, struct session *session);
/* Fails unless the receipts tell of the same step. */
void twin_hold_receipt(const struct receipt *twin, const struct receipt *receipt);

/* Fails unless the ledger says that these, sorted, were the members of the step. */
void rounds_hold_members(struct session *session, uint64_t step, const struct offer *members,
                         size_t member_count);

/* The worker of that name; name "" when it is not known. */
struct worker_view rounds_worker(struct session *session, const char *name);

/* Changes the aggregation by PATCH. */
void rounds_patch(struct session *session, void (*change)(struct spec *spec, uint64_t value),
                  uint64_t value);

/* A change for it: lr = 1 / value. */
void rounds_rate(struct spec *spec, uint64_t value);

/* Makes a checkpoint. */
void rounds_save(struct session *session);

#endif
