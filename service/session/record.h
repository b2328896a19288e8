/* What is written: events of the journal and the head of a checkpoint, as bytes and back. */
#ifndef DESCENT_SESSION_RECORD_H
#define DESCENT_SESSION_RECORD_H

#include "service/core/pack.h"
#include "service/core/status.h"
#include "service/session/engine.h"
#include "service/session/ledger.h"
#include "service/session/snapshot.h"
#include "service/session/spec.h"
#include "service/tensor/gradient.h"
#include "service/tensor/layout.h"

enum event_kind {
    EVENT_GRADIENT = 1, /* body: the gradient in its wire dtype, and what the rule proposed for it,
                           if it does */
    EVENT_SKIP = 2,     /* a gradient that was not finite, counted and not applied; no body */
    EVENT_WEIGHTS = 3,  /* body: weights in the session's dtype */
    EVENT_SPEC = 4,     /* body: the new configuration; makes no step */
    EVENT_RECEIPTS = 5, /* body: lines of the ledger of steps (receipts.h) up to this step */
    EVENT_REWIND = 6,   /* back to this step; a checkpoint of it follows in the same transaction */
    EVENT_QUARANTINE = 7,      /* body: a gradient that was refused, in its wire dtype */
    EVENT_CONTRIBUTION = 8,    /* body: a gradient; it joins the open round and makes no step. The
                                 EVENT_GRADIENT (or EVENT_SKIP) after it closes the round */
    EVENT_DISMISS = 9,         /* the worker of this name is forgotten */
    EVENT_SNAPSHOT = 10,       /* the weights of this step are frozen as w~; no body */
    EVENT_SHARD = 11,          /* body: a shard's gradient at w~, in its form */
    EVENT_SNAPSHOT_CLOSE = 12, /* what came of the snapshot is all of it */
    EVENT_KIND_LAST = EVENT_SNAPSHOT_CLOSE,
};

/* Numbers of a gradient that were not finite, by tensor, as far as there is room. */
enum { NONFINITE_TENSORS_MAX = 64 };
struct nonfinite_counts {
    uint32_t tensors;
    struct {
        uint32_t tensor, count;
    } of[NONFINITE_TENSORS_MAX];
};

/* The head of an event: everything but the numbers. With the state before it and the body it
 * determines the state after it to the last bit. */
struct event {
    uint32_t kind;
    uint64_t step;    /* the step it leads to; where it makes none, the step it stands at */
    uint64_t lineage; /* after it */
    uint64_t origin;  /* EVENT_REWIND: the lineage of the revision that it goes back to */
    uint64_t base_step;
    uint64_t created_us;
    enum dtype wire;
    double grad_norm, clip_scale, loss, examples;
    uint32_t format;                   /* that it was read from */
    double lr, momentum, beta1, beta2; /* NaN: not overridden */
    bool keyed;
    struct digest key, payload; /* payload: of a step with a key or a seq */
    char worker[WORKER_BYTES + 1];
    uint64_t seq;
    const char *cursor; /* NULL: none; in the record when read */
    size_t cursor_size;
    struct nonfinite_counts nonfinite; /* before they were replaced */
    uint64_t told_step; /* the newest step whose state_hash was told by then; 0: none */
    struct digest told;
    /* of rounds and workers */
    enum gradient_form form; /* of the body */
    uint64_t size;           /* bytes of the gradient in the body; 0: none (a round that is closed
                                without a contribution). Format 3: count * dtype size */
    bool delta;              /* the body is w_client - w_fetched: a gradient times -1 */
    uint64_t clock;          /* the worker's contributions up to and with this one; 0: no worker */
    /* of snapshots */
    uint64_t snapshot;           /* its number; of a step: the one it was corrected by; 0: none */
    uint64_t snapshot_workers;   /* EVENT_SNAPSHOT: how many are announced; 0: not said */
    double snapshot_examples;    /* likewise; NaN: not said */
    char part[WORKER_BYTES + 1]; /* EVENT_SHARD: "" : none */
    bool summed;                 /* EVENT_SHARD: the gradient is a sum over its examples */
};

/* Whether the event leads to a revision of its own. */
static inline bool event_steps(uint32_t kind)
{
    return kind >= EVENT_GRADIENT && kind <= EVENT_WEIGHTS;
}

/* An event of now with nothing known but its kind and step. */
struct event event_make(enum event_kind kind, uint64_t step);

void event_pack(struct packer *packer, const struct event *event);

/* The gradient in an event's body. */
struct wire_gradient event_gradient(const struct layout *layout, const struct event *event,
                                    struct buffer *body, size_t body_offset);
/* The cursor points into the record. STORAGE_FAILED when it cannot be read. */
enum status event_unpack(struct span record, struct event *out, struct fault *fault);

/* The immutable part of a session and its newest configuration: the store's session record. */
struct session_record {
    uint64_t created_us;
    struct digest request; /* of what it was created with */
    struct spec spec;
    struct layout *layout;             /* one reference when read */
    uint64_t lineage;                  /* the newest */
    char parent[SESSION_ID_BYTES + 1]; /* "": not a fork */
    struct moment parent_moment;
};

void session_record_pack(struct packer *packer, const struct session_record *record);
enum status session_record_unpack(struct span bytes, struct session_record *out,
                                  struct fault *fault);

/* The head of a checkpoint: all of a state that is not weights and slots. */
struct checkpoint_head {
    uint64_t step, lineage, updates;
    struct receipt last;
    char *cursor; /* malloc'ed or NULL */
    struct spec spec;
    double scalar[SCALARS_MAX];
    uint64_t base_count; /* revisions stored for gradients that come late */
    uint32_t slots;      /* bit k: slot k is stored; else it is as it starts, or not there */
    bool hashed;         /* format 2 has no hash */
    struct digest state_hash;
    double norm_average; /* of the gradients, over so many */
    uint64_t norm_count;
    struct snapshot snapshot; /* without its vectors; its parts are the head's own when read */
};

void checkpoint_head_pack(struct packer *packer, const struct checkpoint_head *head,
                          const struct ledger *ledger);
enum status checkpoint_head_unpack(struct span bytes, struct checkpoint_head *out,
                                   struct ledger *ledger, struct fault *fault);

#endif
