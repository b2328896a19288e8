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
#include "service/tensor/gradient.h"
#include "service/tensor/layout.h"
#include "service/tensor/note.h"

struct engine;
struct session;
struct store;

enum {
    SESSION_ID_BYTES = 64,
    TENANT_BYTES = 32,
    WORKER_BYTES = 64,
    CURSOR_BYTES = 4096,
    KEY_BYTES = 255
};

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

/* Names a revision for ever. */
struct moment {
    uint64_t lineage, step;
};

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

enum receipt_kind {
    RECEIPT_NONE,
    RECEIPT_APPLIED,
    RECEIPT_SKIPPED,
    RECEIPT_REPLACED,
    RECEIPT_WAITING /* a contribution to a round that is still open */
};

/* What the client is told of an event that made a step, or will: RECEIPT_WAITING has the step that
 * its round leads to, lineage, durable_step, base_step, grad_norm, loss, received and expected.
 * NaN: not known. */
struct receipt {
    uint32_t kind; /* enum receipt_kind */
    uint64_t step, lineage, durable_step, base_step, staleness;
    double lr, grad_norm, clip_scale, update_norm, param_norm, loss;
    bool hashed; /* spec.hash_every asked for it */
    struct digest state_hash;
    uint64_t received, expected; /* contributions of the round; 1 and 1: of one alone */
    uint64_t snapshot;           /* that it was corrected by; 0: none */
    bool counts_due;             /* svrg.update_freq is set: due says whether */
    bool due;                    /* it is time for a new snapshot */
};

/* --- tenants --- */

/* Whose a new session is. Every tenant has names of its own and sees no others. The limits count
 * over all sessions of the tenant. */
struct owner {
    const char *tenant;      /* "": the default one */
    uint64_t sessions_max;   /* 0: no limit */
    uint64_t parameters_max; /* likewise */
};

/* Whether the text can name a tenant other than the default one: [a-z0-9][a-z0-9_-]{0,31}. */
bool tenant_valid(const char *name);

/* When it may be worth to try again what a quota has refused that only a deletion mends. */
enum { QUOTA_RETRY_S = 60 };

/* What a tenant's sessions have together; `bytes`: in the journal and in checkpoints, without what
 * the storage adds of its own. After a restart the bytes of small events are not known to the
 * byte. */
struct tenant_usage {
    uint64_t sessions, parameters, bytes;
};
void engine_tenant_usage(struct engine *engine, const char *tenant, struct tenant_usage *out);

/* --- sessions --- */

/* Whether the text can be a session id: [a-z0-9][a-z0-9_-]{0,63}. */
bool session_id_valid(const char *id);

struct session_request {
    const char *id;            /* NULL: the server picks one */
    const struct owner *owner; /* NULL: the default tenant, without limits */
    const struct spec *spec;
    struct layout *layout; /* borrowed; the engine retains it */
    struct buffer
        *weights; /* borrowed; layout->count elements of spec->dtype; checked to be finite */
};

/* Creates; on disk when it returns. The session comes retained. An id in use: with the same request
 * (spec, layout, weights) OK and *created false, else SESSION_EXISTS. QUOTA_EXCEEDED. */
enum status engine_create(struct engine *engine, const struct session_request *request,
                          struct session **out, bool *created, struct fault *fault);

/* The session of that id of a tenant, retained. SESSION_NOT_FOUND. */
enum status engine_find(struct engine *engine, const char *tenant, const char *id,
                        struct session **out, struct fault *fault);

/* Up to `count` sessions of a tenant with ids after `after` ("" for the first), in id order,
 * retained. *more: there are others. */
size_t engine_list(struct engine *engine, const char *tenant, const char *after,
                   struct session **out, size_t count, bool *more);

/* How many there are. Takes the lock of the list for a moment: that it returns shows that nobody
 * holds that for good. */
size_t engine_session_count(struct engine *engine);

struct session *session_retain(struct session *session);
void session_release(struct session *session); /* NULL is allowed */

/* Everything about a session at one moment. */
struct session_view {
    char id[SESSION_ID_BYTES + 1];
    uint64_t created_us;
    struct spec spec;
    uint64_t step, durable_step, lineage;
    bool has_cursor;
    char cursor[CURSOR_BYTES + 1];
    struct receipt last;               /* kind RECEIPT_NONE before the first */
    char parent[SESSION_ID_BYTES + 1]; /* "": not a fork */
    struct moment parent_moment;
    uint64_t round_received; /* contributions to the open round (that of step + 1) */
    uint64_t snapshot;       /* the newest snapshot's number; 0: none */
    bool snapshot_ready;
};

/* Fills the view. `brief` leaves out cursor and last and never loads state from disk. */
enum status session_view(struct session *session, bool brief, struct session_view *out,
                         struct fault *fault);

/* Fixed for a session's life; needs no lock. */
const struct layout *session_layout(const struct session *session);
enum dtype session_dtype(const struct session *session);
uint64_t session_created_us(const struct session *session); /* no other of its name has it */

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
    struct buffer *buffer; /* the gradient, from `offset`; retained by the engine */
    size_t offset;         /* bytes */
    enum dtype dtype;
    enum gradient_form form; /* FORM_DENSE: layout->count elements of `dtype`; else as packed.h */
    size_t size;             /* bytes; 0: follows from dtype where the form is FORM_DENSE */
    bool delta;              /* it is w_client - w_fetched: a gradient times -1 */
    uint64_t snapshot;       /* the one that `pair` was computed at; 0: none */
    struct buffer *pair;     /* the same batch's gradient at the snapshot's weights: dense, of
                                `dtype`, from pair_offset */
    size_t pair_offset;
    double wait_s; /* how long to wait for the round to close; 0: not at all */
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
    bool dry_run;                 /* tells what would happen and changes nothing */
    double receive_ms, decode_ms; /* how long the caller took, for the ledger of steps */
};

struct outcome {
    struct receipt receipt; /* RECEIPT_WAITING: the round is open still */
    bool replayed;          /* a stored receipt: nothing was applied now */
    struct revision
        *revision; /* retained: the weights after this step; when replayed, the current ones */
};

/* Takes one step: checks, journals, applies, publishes. api/openapi.json says what each part means,
 * under gradients_submit. */
enum status session_submit(struct session *session, const struct submission *submission,
                           struct outcome *out, struct fault *fault);

/* Waits until the session stands at a later step than `after`, or goes back (*newer), at most
 * wait_s seconds, or until the engine drains. SESSION_NOT_FOUND when it is deleted meanwhile. */
enum status session_await_step(struct session *session, uint64_t after, double wait_s, bool *newer,
                               struct fault *fault);

/* From now on nobody waits for rounds and steps: those who do are answered at once. */
void engine_drain(struct engine *engine);

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

/* --- workers --- */

struct worker_view {
    char name[WORKER_BYTES + 1];
    uint64_t seq;           /* the last; 0: it counts none */
    uint64_t contributions; /* ssp: its clock */
    uint64_t base_step;     /* of the last */
    uint64_t lag;           /* steps since then */
    uint64_t seen_us;       /* unix time of the last */
    bool live;              /* within the lease */
    bool waiting;           /* it has contributed to the open round */
};

/* All that are known, by name, in a malloc'ed array. */
enum status session_workers(struct session *session, struct worker_view **out, size_t *count,
                            struct fault *fault);

/* Forgets a worker by an event: its seq starts again at 1 and it holds up nobody. What it has
 * contributed stays. NOT_FOUND. */
enum status session_dismiss(struct session *session, const char *name, struct fault *fault);

/* --- snapshots (SVRG) --- */

enum { SNAPSHOT_PARTS_MAX = 65536 };

/* A session has one snapshot, the newest: a new one replaces it. */
struct snapshot_view {
    uint64_t number;        /* of this session, from 1, never used again */
    uint64_t step, lineage; /* of the weights */
    uint64_t created_us;
    bool ready;
    uint64_t workers_expected; /* 0: not said */
    double examples_expected;  /* NaN: not said */
    uint64_t workers, parts;   /* that came */
    double examples;           /* of them */
};

/* Freezes the current weights. */
enum status session_snapshot(struct session *session, uint64_t workers, double examples,
                             struct snapshot_view *out, struct fault *fault);

/* number 0: the newest. SNAPSHOT_NOT_FOUND. */
enum status session_snapshot_view(struct session *session, uint64_t number,
                                  struct snapshot_view *out, struct fault *fault);

/* w~, retained. */
enum status session_snapshot_weights(struct session *session, uint64_t number,
                                     struct revision **out, struct fault *fault);

/* mu in the session's dtype, retained. SNAPSHOT_COLLECTING before it is ready. */
enum status session_snapshot_gradient(struct session *session, uint64_t number, struct buffer **out,
                                      struct fault *fault);

struct shard {
    struct buffer *buffer; /* the gradient, as of a submission */
    size_t offset, size;
    enum dtype dtype;
    enum gradient_form form;
    double examples;    /* > 0 */
    bool summed;        /* the gradient is a sum over its examples, else their mean */
    const char *worker; /* NULL: none */
    const char *part;   /* NULL: none */
    struct digest payload;
};

/* Adds a shard by an event. *replayed: this worker's part was there already, with the same payload
 * (IDEMPOTENCY_MISMATCH with another). SNAPSHOT_STALE for a number that was replaced,
 * SNAPSHOT_CLOSED for a new part of one that is ready, NONFINITE_GRADIENT. */
enum status session_snapshot_add(struct session *session, uint64_t number,
                                 const struct shard *shard, struct snapshot_view *out,
                                 bool *replayed, struct fault *fault);

/* What came is all: INVALID_REQUEST when nothing did. Of one that is ready: OK. */
enum status session_snapshot_close(struct session *session, uint64_t number,
                                   struct snapshot_view *out, struct fault *fault);

/* --- history --- */

/* A revision somebody asks for. Where no lineage is named, it is the step on the line that leads to
 * the current revision. */
struct moment_query {
    bool has_lineage;
    uint64_t lineage, step;
};

/* All verbs below that take a moment: HISTORY_GONE (extra "oldest_step") when it is not kept any
 * more, NOT_FOUND when there has been no such step, STORAGE_FAILED naming the place when what is
 * stored does not lead to the hashes and receipts stored with it. query NULL: the current
 * revision. */

/* The weights (and their average) as they were. */
enum status session_revision_at(struct session *session, const struct moment_query *query,
                                struct revision **out, struct fault *fault);

/* XXH3-128 of layout, step, weights and state (state_hash.h says exactly of what). */
enum status session_hash(struct session *session, const struct moment_query *query,
                         struct moment *moment, struct digest *out, struct fault *fault);

/* Where the time of a step went; NaN: not known, for it is not kept over a crash. */
struct stages {
    float receive_ms, decode_ms, admit_ms, commit_ms, apply_ms;
};

/* A contribution to the round of a step. */
struct member {
    char worker[WORKER_BYTES + 1]; /* "": none */
    uint64_t seq;                  /* 0: none */
    uint64_t base_step;
    double examples, loss; /* NaN: not given */
    double grad_norm;      /* of its gradient */
    uint64_t bytes;
};

/* One line of the ledger of steps. */
struct step_line {
    struct receipt receipt; /* durable_step: its own */
    uint64_t created_us;
    char worker[WORKER_BYTES + 1]; /* "": none */
    uint64_t seq;                  /* 0: none */
    uint64_t bytes;                /* of the gradient as it was journaled */
    struct stages stages;
    size_t note_count; /* tensors of the layout, or 0: not known */
    const struct tensor_note *notes;
    size_t member_count; /* of a round of several, in the order of the mean; 0: of one alone, which
                            the line is about */
    const struct member *members;
};

/* Calls visit for the lines of the steps from..to (inclusive) that are kept, rising, on the line of
 * query's lineage (its step is not looked at); a visit that does not return OK ends it with its
 * status. *oldest: the first step that is kept; where oldest is NULL the newest steps cost little.
 */
enum status session_steps(struct session *session, const struct moment_query *query, uint64_t from,
                          uint64_t to,
                          enum status (*visit)(void *context, const struct step_line *line),
                          void *context, uint64_t *oldest, struct fault *fault);

/* Where somebody goes on reading the ledger who was told all up to a moment, that he is never told
 * a step twice, misses one, or is told one that a crash takes back: of steps that are not on disk
 * nothing is told. */
struct following {
    enum {
        FOLLOW_NOTHING, /* there is nothing new */
        FOLLOW_STEPS,   /* read session_steps of to.lineage from at.step + 1 to to.step */
        FOLLOW_BACK,    /* the session went back: what came after step to.step is left behind, and
                           to.lineage goes on from there */
        FOLLOW_LOST,    /* how that line leads to the present one, to.lineage, is not kept */
    } kind;
    struct moment to;
};

/* Waits at most wait_s seconds for something new, or until the engine drains; loads no state, and
 * keeps none in memory. SESSION_NOT_FOUND when it is deleted. */
enum status session_follow(struct session *session, const struct moment *at, double wait_s,
                           struct following *out, struct fault *fault);

/* Goes back to a revision under the next lineage. Configuration: as it was then, but for
 * durability, history, hash_every and labels, which stay. */
enum status session_rewind(struct session *session, const struct moment_query *query,
                           struct fault *fault);

enum fork_state { FORK_KEEP, FORK_RESET };
enum fork_slot { FORK_SLOT_KEPT, FORK_SLOT_FRESH, FORK_SLOT_DROPPED };

struct fork_request {
    const char *id;                   /* NULL: the server picks one */
    const struct owner *owner;        /* the parent's; NULL: the same, without limits */
    const struct moment_query *query; /* NULL: the current revision */
    /* Edits a copy of the parent's configuration as it was then; may change the rule, but not the
     * precision. NULL: as it is. */
    enum status (*change)(void *context, struct spec *spec, struct fault *fault);
    void *context;
    enum fork_state state;
    bool replay; /* runs the gradients that the parent took after it through the fork */
};

/* What became of the state. */
struct fork_outcome {
    struct moment parent;
    enum { FORK_KEPT, FORK_CONVERTED, FORK_FRESH } state;
    /* Slots of the new rule in its order, then those of the old that were dropped. */
    size_t slot_count;
    struct {
        const char *name;
        enum fork_slot fate;
    } slots[2 * SLOTS_MAX];
    uint64_t replayed; /* gradients of the parent that were run through it */
};

/* A new session, on disk when it returns; retained. SESSION_EXISTS for an id in use;
 * QUOTA_EXCEEDED. */
enum status session_fork(struct session *session, const struct fork_request *request,
                         struct session **out, struct fork_outcome *outcome, struct fault *fault);

/* Saves the state now, if anything changed; *out: the revision that the newest checkpoint has. */
enum status session_checkpoint_now(struct session *session, struct moment *out,
                                   struct fault *fault);

struct checkpoint_view {
    struct moment moment;
    uint64_t bytes;
};

/* The newest first: fills up to `count`, returns how many there are. */
size_t session_checkpoints(struct session *session, struct checkpoint_view *out, size_t count);

/* Gradients that were refused for their norm (spec.gradient.max_norm_ratio) and kept. */
struct quarantined {
    uint64_t number; /* of this session, rising */
    uint64_t step;   /* the session stood at */
    uint64_t created_us;
    enum dtype dtype;
    double grad_norm, loss;
    char worker[WORKER_BYTES + 1];
};
enum { QUARANTINE_MAX = 16 };

/* The newest first, at most QUARANTINE_MAX. */
enum status session_quarantine(struct session *session, struct quarantined out[QUARANTINE_MAX],
                               size_t *count, struct fault *fault);
/* The gradient, layout->count elements of about->dtype. NOT_FOUND. */
enum status session_quarantined(struct session *session, uint64_t number, struct quarantined *about,
                                struct buffer **out, struct fault *fault);

/* --- the whole state, as vectors and records --- */

/* One vector of a state, tensor by tensor: `extent[i]` numbers of tensor i from `start[i]`. Where
 * extent is one a parameter, it has the tensor's shape, else it is flat. */
struct image_vector {
    char prefix[64]; /* "", "average/", "base/1/", "slot/m/": before the tensor's name */
    struct buffer *data;
    enum dtype dtype;
    bool shaped;
    size_t *extent, *start; /* [layout->tensor_count] */
};

/* A session at one moment, apart from the session. */
struct image {
    struct layout *layout;
    struct spec spec;
    struct moment moment;
    struct digest state_hash;
    struct span record, head; /* what else there is: opaque, a few KiB to some MiB */
    size_t vector_count;
    struct image_vector vectors[4 + BASES_MAX + SLOTS_MAX];
    void *internal;
};

enum status session_export(struct session *session, const struct moment_query *query,
                           struct image **out, struct fault *fault);

/* The image that record and head (copied) tell of, with room for the vectors: to be filled.
 * INVALID_FIELD when they cannot be read; TOO_LARGE. */
enum status engine_image(struct engine *engine, struct span record, struct span head,
                         struct image **out, struct fault *fault);

/* Makes a session of an image whose vectors are filled. INVALID_FIELD when their hash is not the
 * one of the head. An id in use: with the same image OK and *created false, else SESSION_EXISTS.
 * owner NULL: as in session_request. */
enum status engine_import(struct engine *engine, const struct owner *owner, const char *id,
                          struct image *take_image, struct session **out, bool *created,
                          struct fault *fault);

void image_free(struct image *image); /* NULL is allowed */

/* --- proofs --- */

struct verify_report {
    uint64_t sessions, checkpoints, steps, hashes, findings;
};

/* Replays every session of a store (opened to serve or to inspect; nothing is written) from its
 * oldest checkpoint and holds it against every hash and receipt that is stored. watch (storage's,
 * may be NULL) is told of progress in bytes of the journal and of each finding. OK when it could
 * look at everything, whatever it found. */
struct store_watch;
enum status engine_verify(struct store *store, const struct store_watch *watch,
                          struct verify_report *out, struct fault *fault);

/* --- end of a session --- */

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
