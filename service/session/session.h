/* A session from the inside; for service/session/ only.
 *
 * A session is always in memory as its registry entry (id, layout, configuration, where its records
 * lie in the journal); its state (weights, slots, ledger) comes when it is used and leaves when it
 * is idle.
 *
 * Turns: everything that changes a session takes a ticket under the mutex, may wait for the
 * journal, and then waits for its turn: turns are taken one at a time in ticket order. So the
 * journal's order is the order of admission is the order of application, while several steps of one
 * session may be in the journal's group commit at once. */
#ifndef DESCENT_SESSION_SESSION_H
#define DESCENT_SESSION_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/session/advance.h"
#include "service/session/commit.h"
#include "service/session/engine.h"
#include "service/session/ledger.h"
#include "service/session/plan.h"
#include "service/session/receipts.h"
#include "service/session/record.h"
#include "service/session/round.h"
#include "service/session/sample.h"
#include "service/session/snapshot.h"
#include "storage/store.h"

/* A hash that a receipt told. The event of a later step carries it into the journal, so that
 * a replay has something to be held against before the next checkpoint. */
enum { TOLD_MAX = 64 };
struct told {
    uint64_t step;
    struct digest hash;
};

/* What leaves memory when a session is idle. Changed by the holder of the turn; `current`,
 * `last`, `cursor`, `ledger` and the average of the norms under the mutex too, because
 * readers and those who come to be admitted look at them. */
struct state {
    struct revision *current;
    struct buffer *slot[SLOTS_MAX];   /* NULL where not needed */
    double scalar[SCALARS_MAX];       /* of the rule */
    struct buffer *workspace;         /* scratch memory of the rule; NULL: none */
    size_t base_count, bases_max;     /* revisions kept for gradients that come late */
    struct revision *base[BASES_MAX]; /* [i]: that of i + 1 steps before the current */
    uint64_t updates;                 /* t of the rule: steps that were applied */
    struct receipt last;
    char *cursor; /* malloc'ed or NULL */
    struct ledger ledger;
    double norm_average; /* of the gradients' norms, over the last norm_count or NORMS_MAX */
    uint64_t norm_count;
    struct told told[TOLD_MAX]; /* the newest hashes of receipts, by step modulo TOLD_MAX */
    uint64_t told_step;         /* the newest; 0: none */
    struct receipts receipts;   /* the ledger of steps since the newest checkpoint */
    size_t note_count;          /* of each of its lines: tensors, or 0 when there are too many */
    struct sample *sample;      /* of the last gradient; NULL: without notes */
    struct round round;         /* that is open */
    struct buffer *mean;        /* room for that of a round; NULL: none was needed yet */
    struct snapshot snapshot;   /* the newest */
};

struct event_place {
    struct event_place *next;
    struct event_place *next_alike; /* EVENT_RECEIPTS, EVENT_REWIND: the next of that kind */
    uint64_t lsn;                   /* of the first chunk */
    uint64_t step;
    uint64_t lineage; /* after it */
    uint64_t origin;  /* EVENT_REWIND: the lineage it goes back to */
    uint32_t kind;
    uint32_t chunks;
    uint64_t bytes;
};

/* Those of one kind, by rising lsn: few among many that need not be walked. */
struct event_list {
    struct event_place *first, **end;
};

struct checkpoint_place {
    struct checkpoint_place *next;
    uint64_t id, lsn, step, lineage;
    uint64_t from; /* replay begins after this: lsn, or where the round that was open began */
    uint32_t chunks;
    uint64_t bytes;
};

/* A step that was admitted and has not finished; on its thread's stack. */
struct flight {
    struct flight *next;
    bool keyed;
    struct digest key;
    const char *worker; /* NULL: none with a seq */
    uint64_t seq;
    const char *name; /* of the worker, with a seq or without; NULL: none */
    uint64_t round;   /* session->closings when it was admitted */
    bool waits;       /* a contribution to a round that it does not close */
};

/* Somebody who waits for the open round to close; on its thread's stack. */
struct waiter {
    struct waiter *next;
    uint64_t lineage;
    bool done;
    struct receipt receipt;
    struct revision *revision; /* retained */
};

/* The name that is stored: tenant, '/', id. */
enum { STORED_ID_BYTES = TENANT_BYTES + 1 + SESSION_ID_BYTES };

struct tenant {
    char name[TENANT_BYTES + 1];   /* "": the default one */
    uint64_t sessions, parameters; /* guarded by the registry's lock */
    uint64_t bytes;                /* atomic: of events and checkpoints */
};

struct session {
    struct engine *engine;
    unsigned references; /* atomic */
    int64_t key;
    struct tenant *tenant;
    char stored_id[STORED_ID_BYTES + 1]; /* for storage, logs and whoever runs the server */
    const char *id;                      /* within it: the name among the tenant's sessions */
    uint64_t created_us;
    struct digest request;
    struct layout *layout;
    struct plan *plan;
    enum dtype dtype;
    char parent[SESSION_ID_BYTES + 1]; /* "": not a fork */
    struct moment parent_moment;
    bool hidden; /* being created: guarded by the registry's lock */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t turn;
    bool creating;          /* its first checkpoint is being written */
    uint64_t tickets;       /* given out */
    uint64_t turns;         /* finished */
    uint64_t admitted_step; /* the step the last admitted event leads to */
    bool exclusive;         /* a change is under way: nothing is admitted */
    uint64_t arrivals;      /* who came to be admitted */
    uint64_t called;        /* and who left the queue, admitted or not */
    bool failed; /* a commit failed: nothing is admitted until those in flight are gone */
    bool deleted;
    struct flight *flights;
    bool overdue;      /* when it was opened its round had all that it needs, or a deadline */
    uint64_t closings; /* rounds that admitted events close */
    uint64_t closed;   /* of them: closed */
    struct waiter *waiters;
    unsigned watchers;   /* threads in session_await_step */
    pthread_cond_t news; /* on the monotonic clock: for waiters and watchers */
    unsigned followers;  /* threads in session_follow */
    pthread_cond_t told; /* likewise, for them: a step is published and on disk */
    bool timed;          /* on the engine's list of rounds with a deadline; under its mutex */
    uint64_t due_us;     /* monotonic; likewise */
    struct session *next_timed;
    struct commit_order order;
    struct spec spec;      /* as of the last turn */
    uint64_t spec_version; /* counts its changes */
    uint64_t step, lineage, durable_step;
    struct state *state; /* NULL: not in memory */
    bool loading;
    unsigned readers;       /* of what is stored: nothing of it may go */
    unsigned users;         /* threads that need the state to stay */
    uint64_t used_us;       /* monotonic */
    uint64_t dirty;         /* events since the newest checkpoint, journaled or not */
    uint64_t journal_since; /* bytes of them */

    struct event_place *events, **events_end;         /* all that are kept, by rising lsn */
    struct event_list receipts, rewinds;              /* of them */
    size_t event_count, step_count, quarantine_count; /* of them: all, revisions, refused */
    struct checkpoint_place *checkpoints;             /* newest first */
};

/* What is off the lists of the sessions and not yet off the disk: checkpoints, the oldest first,
 * then ranges of the journal. */
struct dropping {
    struct checkpoint_place *checkpoints;
    struct range *ranges;
    size_t count, capacity;
};

struct engine {
    struct engine_options options;
    struct store *store;
    struct committer *committer;
    pthread_rwlock_t lock;     /* guards the registry */
    struct session **sessions; /* by tenant and id; one reference each */
    size_t count, capacity;
    struct tenant **tenants; /* by name; each stays as long as the engine */
    size_t tenant_count;
    int64_t next_key;
    uint64_t next_checkpoint; /* atomic */
    uint64_t journal_bytes;   /* atomic: kept in the journal */
    uint64_t journal_lsn;     /* atomic: its end */
    uint64_t oldest_lsn;      /* when it was opened: nothing is stored before it */
    pthread_mutex_t past;     /* one state of the past in memory at a time */
    bool draining;            /* atomic: nobody waits any more */
    pthread_t timekeeper;     /* closes rounds at their deadline: timekeeper.c */
    pthread_mutex_t time_mutex;
    pthread_cond_t time;
    struct session *timed; /* retained */
    bool time_up;          /* the engine ends; under time_mutex */
    pthread_mutex_t trimming;
    struct dropping owed; /* under trimming */
    pthread_t housekeeper;
    pthread_mutex_t wake_mutex;
    pthread_cond_t wake;
    bool stopping; /* under wake_mutex */
};

/* --- session.c: life, turns, residence --- */

/* A session with one reference; layout is retained, the plan is its own on success. NULL when
 * memory is out. */
struct session *session_new(struct engine *engine, int64_t key, struct tenant *tenant,
                            const char *id, const struct session_record *record, struct plan *plan);

/* Makes the state resident and keeps it so until session_leave. SESSION_NOT_FOUND when deleted. */
enum status session_enter(struct session *session, struct fault *fault);
void session_leave(struct session *session);

/* The same without counting as use: for housekeeping. */
enum status session_pin(struct session *session, struct fault *fault);
void session_unpin(struct session *session);

/* Frees the state if it is saved and nobody needs it. */
void session_evict(struct session *session);

/* Tickets. All with the mutex held. Whoever comes is admitted in the order of arrival, when no
 * change is exclusive and no failure drains; who wants to be alone also when nothing is in flight.
 * SESSION_NOT_FOUND when deleted. The caller then takes a ticket, or leaves, before it gives up the
 * mutex. */
enum status session_await_admission(struct session *session, bool exclusive, struct fault *fault);
uint64_t session_ticket(struct session *session, bool exclusive);
/* Both, to be alone. */
enum status session_admit_alone(struct session *session, uint64_t *ticket, struct fault *fault);
void session_await_turn(struct session *session, uint64_t ticket);
void session_end_turn(struct session *session, bool exclusive, bool failed);

/* --- wait.c --- */

/* Tells those who wait: of a step that was published (closes: and was that of the round), of a
 * rewind or a deletion (receipt NULL). Mutex held. */
void session_tell(struct session *session, bool closes, const struct receipt *receipt);

/* More of what was published is on disk. Mutex held. */
void session_tell_durable(struct session *session);

/* --- timekeeper.c --- */

/* The open round may be due: at that time (monotonic) it is closed if it then may be. Mutex of the
 * session held. */
void session_close_at(struct session *session, uint64_t due_us);

/* The same when it has members and a deadline, or as many as it needs: not sooner than in least_us.
 * Mutex held. */
void session_watch_round(struct session *session, uint64_t least_us);

enum status timekeeper_start(struct engine *engine, struct fault *fault);
void timekeeper_stop(struct engine *engine);

/* --- step.c --- */

/* Closes the open round without another contribution, if its time is up. */
enum status session_close_round(struct session *session, struct fault *fault);
/* The same where the state is in memory and there is a round to close. The caller has entered. */
enum status session_close_due(struct session *session, struct fault *fault);

/* --- state.c --- */

/* A revision with one reference and room for `bytes` of weights (0: none yet), and for as much of
 * their average. NULL when memory is out. */
struct revision *revision_new(size_t bytes, bool averaged);

/* OK when bad_count is 0; else `status` naming tensor and index, where = "/<member>/<tensor>". */
enum status check_finite(const struct layout *layout, const char *member, size_t bad_count,
                         size_t bad_index, enum status status, struct fault *fault);

/* INVALID_FIELD when weights of the session's dtype hold NaN or infinity. */
enum status check_weights(const struct layout *layout, enum dtype dtype,
                          const struct buffer *weights, struct fault *fault);

/* An empty state with notes for the layout. NULL when memory is out. */
struct state *state_new(const struct layout *layout);
void state_free(struct state *state); /* NULL is allowed */

/* Bytes of weights and state of a session, in memory or not. */
uint64_t state_bytes(const struct layout *layout, const struct plan *plan, const struct spec *spec);

/* TOO_LARGE when that is more than this engine keeps or stores of one session. */
enum status engine_check_size(const struct engine *engine, const struct layout *layout,
                              const struct plan *plan, const struct spec *spec,
                              struct fault *fault);

/* Whether a configuration that was stored later can be one of this session: what is fixed for its
 * life is the same. Mutex not held. */
bool session_fits(struct session *session, const struct spec *spec);

/* What a state lacks under a configuration: starts empty. */
struct addition {
    struct buffer *slot[SLOTS_MAX];
    struct buffer *workspace;
};

/* Allocates the slots that `spec` needs and the state, which has its weights, lacks, each as it
 * starts. INTERNAL when
 * memory is out: nothing is left allocated. */
enum status state_lacks(const struct state *state, const struct plan *plan, const struct spec *spec,
                        struct addition *out, struct fault *fault);
void addition_release(struct addition *addition);
/* Takes them over and drops what `spec` does not need. */
void state_fit(struct state *state, const struct plan *plan, const struct spec *spec,
               struct addition *take_added);

/* The scalars as they start. */
void state_start(struct state *state, const struct optimizer *rule);

/* Room for the lines and keys of so many events more, with so many members in all: false when
 * memory is out. */
bool state_reserve(struct state *state, size_t events, size_t members);

/* What the worker of a contribution is told that is one of `received` so far. */
struct receipt state_waiting(const struct state *state, const struct spec *spec,
                             const struct event *event, uint64_t received);

/* What an EVENT_CONTRIBUTION makes of a state: the open round has one member more. state_reserve
 * has made room. take_cursor: malloc'ed or NULL. *out: what its worker is told. */
void state_contribute(struct state *state, const struct spec *spec, const struct event *event,
                      struct contribution *take_contribution, char *take_cursor,
                      struct receipt *out);

/* Makes the result current. state_reserve has made room. take_cursor: malloc'ed, NULL when the
 * event has none. */
void state_publish(struct state *state, const struct event *event, struct revision *take_next,
                   const struct step_line *line, char *take_cursor);

/* --- vectors.c: a state as vectors, for checkpoints and images --- */

enum { VECTORS_MAX = 4 + BASES_MAX + SLOTS_MAX };

struct vector {
    enum {
        VECTOR_WEIGHTS,
        VECTOR_AVERAGE,
        VECTOR_BASE,
        VECTOR_SLOT,
        VECTOR_SNAPSHOT, /* its weights */
        VECTOR_SUM,      /* its shards', in f64 */
        VECTOR_MEAN      /* or, when it is ready, their mean */
    } kind;
    size_t index; /* of the base (0: the newest) or slot */
    struct buffer *data;
    size_t size; /* bytes */
};

/* The slots that have to be stored, one bit each: before the first update one that starts as zeros
 * needs no room. */
uint32_t state_stored_slots(const struct state *state, const struct plan *plan);

/* The vectors of a state in their order, with the slots of those bits; returns how many. */
size_t state_vectors(const struct state *state, const struct plan *plan, uint32_t slots,
                     struct vector out[VECTORS_MAX]);

/* The head of a checkpoint of this state. */
struct checkpoint_head state_head(const struct state *state, const struct spec *spec,
                                  const struct plan *plan);

/* The state that a head tells of, with room for its vectors, whose contents are undefined. Takes
 * the head's cursor and the ledger in any case. STORAGE_FAILED for a head that cannot be of such a
 * session. */
enum status state_of_head(const struct plan *plan, struct checkpoint_head *take_head,
                          struct ledger *take_ledger, struct state **out, struct fault *fault);

/* --- journal.c --- */

/* Where the round begins that is open after an event, by where the one before it did; UINT64_MAX:
 * none is open. */
uint64_t event_round(const struct event_place *place, uint64_t round_lsn);

/* An event on its way to the journal. */
struct journal_entry {
    struct commit_item item;   /* first */
    struct session *session;   /* retained */
    struct event_place *place; /* NULL once it is on the session's list */
    uint64_t lsn;              /* once it landed; 0: not */
    struct packer head;
    struct buffer *body; /* retained; NULL: none */
    size_t offset, size;
    bool deferred;           /* frees itself when written */
    const struct spec *spec; /* EVENT_SPEC: the record to store with it */
};

/* Puts an event at the end of the session's list, which takes it, and takes the first after *link
 * off it. Mutex held. */
void session_list_event(struct session *session, struct event_place *take_place);
struct event_place *session_unlist_event(struct session *session, struct event_place **link);

/* An entry for the event, with room for everything that must not fail later. body may be NULL.
 * INTERNAL when memory is out. */
enum status journal_entry_new(struct session *session, const struct event *event,
                              struct buffer *body, size_t offset, size_t size,
                              struct journal_entry **out, struct fault *fault);
void journal_entry_free(struct journal_entry *entry); /* NULL is allowed */
/* For an entry that is written as part of another item: entry->item.write, then, when that was
 * committed, this. Mutex held. */
void journal_entry_landed(struct journal_entry *entry);

/* --- inventory.c --- */

/* Rows of the journal: lsns first..last. */
struct range {
    uint64_t first, last, bytes;
};

/* What belongs to no session. */
struct orphans {
    uint64_t *checkpoints;
    size_t checkpoint_count;
    struct range *events;
    size_t event_count, event_capacity;
};

/* Fills the registry of a new engine from its store. */
enum status engine_read_store(struct engine *engine, struct orphans *out, struct fault *fault);
void orphans_close(struct orphans *orphans);

/* --- retention.c --- */

/* Drops journal and checkpoints that neither recovery nor history needs. */
void engine_trim(struct engine *engine);
void engine_free_owed(struct engine *engine);

/* Gives back the space of a session that was deleted. What a failure leaves behind has no owner and
 * goes later. */
void session_drop_contents(struct session *session);

/* Writes so many bytes and drops them again, to see whether storage takes them. */
enum status engine_probe(struct engine *engine, size_t bytes, struct fault *fault);

/* Drops checkpoints and events that belong to no session, and what stands before the first event.
 */
void engine_drop_orphans(struct engine *engine, struct orphans *orphans);

/* --- create.c --- */

/* The plan of what is to be a session. TOO_LARGE for more than this engine keeps. */
enum status engine_plan(const struct engine *engine, const struct spec *spec,
                        const struct layout *layout, struct plan **out, struct fault *fault);

/* Makes a session of a record and a state, which it takes in any case; the plan is made anew. An id
 * in use: with a record of the same request OK and *created false, else SESSION_EXISTS; id NULL:
 * the server picks one; owner NULL: the default tenant, without limits. */
enum status engine_adopt(struct engine *engine, const struct owner *owner, const char *id,
                         const struct session_record *record, struct state *take_state,
                         struct session **out, bool *created, struct fault *fault);

/* --- tenant.c --- */

/* The tenant of that name, which is made if there is none; NULL when memory is out. Lock held for
 * writing. */
struct tenant *engine_tenant(struct engine *engine, const char *name);
void engine_free_tenants(struct engine *engine);

/* The parts of a stored id; false when it is none. *id points into it. */
bool tenant_split(const char *stored, char tenant[TENANT_BYTES + 1], const char **id);

/* Whether a session of so many parameters may be added: QUOTA_EXCEEDED. Lock held. */
enum status tenant_check(const struct tenant *tenant, const struct owner *owner, size_t parameters,
                         struct fault *fault);

/* Bytes of the session's events and checkpoints that came to be stored, and that went. */
void session_count_bytes(struct session *session, uint64_t added, uint64_t gone);

/* --- registry.c --- */

/* Where the id of a tenant is or belongs. Lock held. */
size_t registry_place(const struct engine *engine, const char *tenant, const char *id, bool *found);

/* Puts a session into the registry, which takes its reference. SESSION_EXISTS. Lock held for
 * writing. */
enum status registry_enrol(struct engine *engine, struct session *session, struct fault *fault);

/* All sessions, retained, in a malloc'ed array of *count; NULL when memory is out. */
struct session **engine_sessions(struct engine *engine, size_t *count);

/* Takes a session out of the registry. */
void engine_forget(struct engine *engine, struct session *session);

#endif
