/* Sessions with a past, at the engine itself, in processes of their own: one that makes a store and
 * is gone without closing it, and others that look at what it left. What fails ends the program. */
#ifndef DESCENT_TESTS_BENCH_PAST_H
#define DESCENT_TESTS_BENCH_PAST_H

#include <stddef.h>
#include <stdint.h>

#include "service/session/engine.h"

/* A session of one tensor with Adam in f32. */
struct past {
    const char *folder; /* of its store */
    size_t count;       /* parameters */
    enum dtype wire;    /* of its gradients */
    size_t steps;
    enum durability mode;
    uint64_t hash_every;
};

/* Memory that this process and those forked off it share, zeroed. */
void *past_shared(size_t size);

/* Runs it in a process of its own, where the crew is started, that ends without cleaning up. */
void past_apart(void (*run)(void *context), void *context);

/* Ends the program with the fault unless the status is OK. */
void past_must(enum status status, const struct fault *fault);

/* The most gradients that the policy of checkpoints leaves behind the newest one. */
size_t past_length(size_t count, enum dtype wire);

/* An engine on the folder, which keeps all history. */
struct engine *past_open(const char *folder);
struct session *past_create(struct engine *engine, const char *id, const struct past *past);
struct session *past_find(struct engine *engine, const char *id);

/* Gradients of that wire dtype, and steps with it; seconds of them all. */
struct buffer *past_gradient(size_t count, enum dtype wire);
double past_steps(struct session *session, struct buffer *gradient, enum dtype wire, size_t steps);

/* Until every step is on disk. */
void past_settle(struct session *session);

/* Makes a store with one such session, "a", whose process is gone. */
void past_crash(const struct past *past);

/* Leaves of that session the first checkpoint and so many steps after it. */
void past_cut(const char *folder, size_t steps);

/* "100 K", "16 M" */
const char *past_size(size_t count);

#endif
