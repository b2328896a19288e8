/* The optimizer service: all that api/ may call. No sockets, no JSON, no SQL.
 *
 * Threads: every function may be called from any thread. Steps of one session are applied one after
 * the other in the order they were admitted; sessions do not wait for each other; readers wait for
 * nobody. */
#ifndef DESCENT_SESSION_ENGINE_H
#define DESCENT_SESSION_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/buffer.h"
#include "service/core/hash.h"
#include "service/core/status.h"
#include "service/session/spec.h"
#include "service/tensor/layout.h"

struct engine;
struct session;
struct store;

enum { SESSION_ID_BYTES = 64, WORKER_BYTES = 64, CURSOR_BYTES = 4096, KEY_BYTES = 255 };

struct engine_options {
    struct store *take_store;
    uint64_t sessions_max;
    uint64_t parameters_max;    /* elements of one model */
    uint64_t memory_bytes_max;  /* weights and state in memory; beyond it idle sessions leave */
    uint64_t idle_s;            /* a session unused for so long leaves memory */
    uint64_t history_bytes_max; /* journal kept beyond what recovery needs */
};

/* Reads what is stored (session by session the state comes back on first use) and starts the
 * threads. Takes the store in any case. */
enum status engine_open(const struct engine_options *options, struct engine **out,
                        struct fault *fault);

/* Commits what is waiting, checkpoints every changed session, stops the threads, closes the store,
 * frees. No call may be running. */
void engine_close(struct engine *take_engine);

/* Checkpoints every changed session, whoever else uses the engine. */
void engine_save(struct engine *engine);

/* OK when steps can be taken: the last write to the store worked, or a new one does. */
enum status engine_ready(struct engine *engine, struct fault *fault);

/* --- revisions --- */

/* The weights at a step: immutable, reference-counted. */
struct revision {
    uint64_t step, lineage;
    struct buffer *weights; /* layout->count elements of the session's dtype */
    struct buffer *average; /* their moving average, likewise; NULL: the session keeps none */
    double average_divisor; /* it is served divided by this; 1: as it is */
    unsigned references;    /* internal */
};

struct revision *revision_retain(struct revision *revision);
void revision_release(struct revision *revision); /* NULL is allowed */

/* --- receipts --- */

enum receipt_kind { RECEIPT_NONE, RECEIPT_APPLIED, RECEIPT_SKIPPED, RECEIPT_REPLACED };

/* What the client is told of an event that made a step. NaN: not known. */
struct receipt {
    uint32_t kind; /* enum receipt_kind */
    uint64_t step, lineage, durable_step, base_step, staleness;
    double lr, grad_norm, clip_scale, update_norm, param_norm, loss;
};

/* --- sessions --- */

/* Whether the text can be a session id: [a-z0-9][a-z0-9_-]{0,63}. */
bool session_id_valid(const char *id);

struct session_request {
    const char *id; /* NULL: the server picks one */
    const struct spec *spec;
    struct layout *layout; /* borrowed; the engine retains it */
    struct buffer
        *weights; /* borrowed; layout->count elements of spec->dtype; checked to be finite */
};

/* Creates; on disk when it returns. The session comes retained. An id in use: with the same request
 * (spec, layout, weights) OK and *created false, else SESSION_EXISTS. */
enum status engine_create(struct engine *engine, const struct session_request *request,
                          struct session **out, bool *created, struct fault *fault);

/* The session of that id, retained. SESSION_NOT_FOUND. */
enum status engine_find(struct engine *engine, const char *id, struct session **out,
                        struct fault *fault);

/* Up to `count` sessions with ids after `after` ("" for the first), in id order, retained. *more:
 * there are others. */
size_t engine_list(struct engine *engine, const char *after, struct session **out, size_t count,
                   bool *more);

void session_release(struct session *session); /* NULL is allowed */

/* Everything about a session at one moment. */
struct session_view {
    char id[SESSION_ID_BYTES + 1];
    uint64_t created_us;
    struct spec spec;
    uint64_t step, durable_step, lineage;
    bool has_cursor;
    char cursor[CURSOR_BYTES + 1];
    struct receipt last; /* kind RECEIPT_NONE before the first */
};

/* Fills the view. `brief` leaves out cursor and last and never loads state from disk. */
enum status session_view(struct session *session, bool brief, struct session_view *out,
                         struct fault *fault);

/* Fixed for a session's life; needs no lock. */
const struct layout *session_layout(const struct session *session);
enum dtype session_dtype(const struct session *session);

/* The current revision, retained. */
enum status session_revision(struct session *session, struct revision **out, struct fault *fault);

/* --- steps --- */

/* If-Match: the revision must be one of these. What names no revision is counted out: it never
 * matches. */
enum { PRECONDITION_TAGS_MAX = 8 };
struct precondition {
    bool given;
    size_t count;
    struct {
        uint64_t lineage, step;
    } tags[PRECONDITION_TAGS_MAX];
};

struct submission {
    struct buffer *buffer; /* the gradient: layout->count elements of `dtype` from `offset`;
                              retained by the engine */
    size_t offset;         /* bytes */
    enum dtype dtype;
    bool has_base_step;
    uint64_t base_step;
    double loss;                       /* NaN: not given */
    double examples;                   /* > 0; 1 when not given */
    const char *worker;                /* NULL: none; not empty */
    uint64_t seq;                      /* 0: none */
    const char *cursor;                /* NULL: not given */
    double lr, momentum, beta1, beta2; /* NaN: not overridden */
    const char *key;                   /* Idempotency-Key or NULL */
    struct digest payload;             /* of what came with the key or the seq */
    struct precondition match;
};

struct outcome {
    struct receipt receipt;
    bool replayed; /* a stored receipt: nothing was applied now */
    struct revision
        *revision; /* retained: the weights after this step; when replayed, the current ones */
};

/* Takes one step: checks, journals, applies, publishes. api/openapi.json says what each part means,
 * under gradients_submit. */
enum status session_submit(struct session *session, const struct submission *submission,
                           struct outcome *out, struct fault *fault);

/* Replaces the weights by an event; state is kept; the step counts one up. `weights` is
 * layout->count elements of the session's dtype, finite; retained. */
enum status session_replace(struct session *session, struct buffer *weights,
                            const struct precondition *match, struct outcome *out,
                            struct fault *fault);

/* Changes the configuration by an event. `change` edits a copy of the current spec and may refuse;
 * dtype and rule must stay. */
enum status session_patch(struct session *session,
                          enum status (*change)(void *context, struct spec *spec,
                                                struct fault *fault),
                          void *context, struct fault *fault);

/* Deletes: running steps finish first; afterwards every call on the session is SESSION_NOT_FOUND.
 */
enum status session_delete(struct engine *engine, struct session *session, struct fault *fault);

/* What is in memory, for tests and the bench. */
struct engine_usage {
    size_t sessions, resident;
    uint64_t resident_bytes, journal_bytes;
};
void engine_usage(struct engine *engine, struct engine_usage *out);

#endif
