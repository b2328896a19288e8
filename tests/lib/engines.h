/* Engines, sessions and steps in a line each, for tests of service/session/. What should work and
 * does not fails the test. */
#ifndef DESCENT_TESTS_ENGINES_H
#define DESCENT_TESTS_ENGINES_H

#include "service/session/engine.h"

/* Options with room for everything; change them before engines_open. */
struct engine_options engines_options(void);

/* Opens the store of that URL and an engine on it. options may be NULL. */
struct engine *engines_open(const char *url, const struct engine_options *options);
struct engine *engines_open_store(struct store *store, const struct engine_options *options);

/* The defaults with that rule, and a change of one hyperparameter. */
struct spec engines_spec(enum dtype dtype, const char *rule);
void engines_hyper(struct spec *spec, const char *name, double value);

/* A layout of one tensor and weights drawn from (id, count). */
enum status engines_try_create(struct engine *engine, const char *id, const struct spec *spec,
                               size_t count, struct session **out, bool *created,
                               struct fault *fault);
/* The same with a layout of any tensors. */
enum status engines_try_create_of(struct engine *engine, const char *id, const struct spec *spec,
                                  struct layout *layout, struct session **out, bool *created,
                                  struct fault *fault);
struct session *engines_create(struct engine *engine, const char *id, const struct spec *spec,
                               size_t count);
struct session *engines_find(struct engine *engine, const char *id);

/* Normally distributed numbers in a wire dtype. */
struct buffer *engines_gradient(enum dtype wire, size_t count, uint64_t *random);
/* Equal numbers in f32. */
struct buffer *engines_constant(size_t count, float value);

/* A step with this gradient and nothing else. */
struct submission engines_submission(struct buffer *gradient, enum dtype wire);

/* Submits and drops the revision. */
enum status engines_submit(struct session *session, const struct submission *submission,
                           struct receipt *receipt, bool *replayed, struct fault *fault);
/* One plain step with a random f32 gradient. */
struct receipt engines_step(struct session *session, uint64_t *random);
void engines_steps(struct session *session, size_t count, uint64_t *random);

/* Sets a hyperparameter by PATCH. */
enum status engines_try_patch(struct session *session, const char *name, double value,
                              struct fault *fault);
void engines_patch(struct session *session, const char *name, double value);

struct session_view engines_view(struct session *session);

/* Everything that replay must bring back: step, weights, slots, updates, cursor, configuration, and
 * with `ledger` also every receipt kept. */
struct digest engines_digest(struct session *session, bool ledger);
#define ck_assert_digest_eq(a, b)                                                                  \
    do {                                                                                           \
        struct digest left_ = (a), right_ = (b);                                                   \
        ck_assert_mem_eq(left_.bytes, right_.bytes, sizeof left_.bytes);                           \
    } while (0)

/* The hash of the state as it is. */
struct digest engines_hash(struct session *session);
void engines_rewind(struct session *session, uint64_t step);

/* Waits until `done(context)`, at most seconds; whether it came true. */
bool engines_await(bool (*done)(void *context), void *context, double seconds);

#endif
