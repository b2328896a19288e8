/* The store: bytes at rest, behind few domain verbs, so that SQLite, memory and one day
 * PostgreSQL serve alike.
 *
 * What it keeps
 * - Sessions: one record each: a number (key), the public id, an opaque record of at most
 *   STORE_CHUNK_BYTES.
 * - The journal: one log for all sessions, in the order of log sequence numbers (lsn, from 1,
 *   rising, gaps allowed). An event of n chunks takes n lsns in a row; chunk 0 carries its head.
 * - Checkpoints: the state of a session as a byte stream in chunks; counts only once it is sealed.
 * No verb knows what the bytes mean. No blob is longer than STORE_CHUNK_BYTES. A durable backend
 * stores every row with an XXH3-64 and checks it when read: a damaged one is STATUS_STORAGE_FAILED
 * with a detail that names where, never returned.
 *
 * Transactions: write verbs are called between begin and commit, by one thread at a time (begin
 * waits for its turn). Nothing of a transaction is seen by a read or survives a crash unless commit
 * returned OK; when commit returned OK all of it is on disk for good. Any failure between begin and
 * commit: call rollback; the store is then as it was before begin. begin also checks the owner
 * epoch: if another process has opened the same storage since, it fails with STATUS_STORAGE_FAILED
 * and goes on failing (fencing).
 *
 * Order: in a transaction that appends and drops, append first. Space freed in a transaction cannot
 * be filled again in the same one without being saved first; dropping first made 4 MB commits 60 %
 * slower.
 *
 * Failures: STATUS_STORAGE_FULL (no space: nothing changed, try again later), STATUS_STORAGE_FAILED
 * (I/O error, damage, lost ownership), STATUS_INTERNAL (out of memory, or a call that no correct
 * caller makes). After an I/O error in a write the store refuses further writes with
 * STATUS_STORAGE_FAILED until maintain() has reopened and checked it. One failure cannot be undone:
 * the very last sync of a commit fails, and the disk kept the commit all the same. Then maintain()
 * goes on failing and says so: only a new open (a restart) brings what is in memory and what is
 * stored together again. Out-parameters are written on OK only.
 *
 * Threads: every verb may be called from any thread; turns are taken in the order of asking, so
 * that neither reads nor transactions starve. Reads wait while a transaction is open; a thread that
 * has one open, or that is inside a visitor of scan, must not call begin, a read or maintain.
 */
#ifndef DESCENT_STORAGE_STORE_H
#define DESCENT_STORAGE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/span.h"
#include "service/core/status.h"

enum { STORE_CHUNK_BYTES = 512 * 1024, STORE_HEAD_BYTES = 16 * 1024, STORE_ID_BYTES = 97 };

struct store_session {
    int64_t key;        /* > 0, never used again */
    const char *id;     /* unique, at most STORE_ID_BYTES characters */
    struct span record; /* opaque */
};

struct store_event {
    uint64_t lsn;     /* of this chunk */
    int64_t session;  /* key */
    uint64_t step;    /* the step the event leads to; opaque to the store */
    uint32_t kind;    /* opaque, > 0 */
    uint32_t chunk;   /* 0 .. chunks-1; the event's first lsn is lsn - chunk */
    uint32_t chunks;  /* >= 1 */
    struct span head; /* chunk 0 only, at most STORE_HEAD_BYTES; empty elsewhere */
    struct span body; /* at most STORE_CHUNK_BYTES, may be empty */
};

struct store_checkpoint {
    uint64_t id;     /* 1 .. 2^43 - 1, rising, never used again */
    int64_t session; /* key */
    uint64_t lsn;    /* the last lsn whose effect is in it */
    uint64_t step;
    uint32_t chunks; /* chunk indices are 0 .. chunks-1, fewer than 2^20 */
    uint64_t bytes;  /* of the whole stream */
};

/* What scan() calls; each returns OK to go on. Pointers are valid during the call only. */
struct store_visitor {
    void *context;
    enum status (*session)(void *context, const struct store_session *session);
    enum status (*checkpoint)(void *context,
                              const struct store_checkpoint *checkpoint); /* sealed */
    /* Every event by rising lsn: its chunk 0, then each chunk behind it, for who wants to know
     * (`chunk` may be NULL). Head and body are not read: they have a size and no data. */
    enum status (*event)(void *context, const struct store_event *event);
    enum status (*chunk)(void *context, const struct store_event *event);
};

/* STORE_INSPECT looks at what is there, for offline checks: it takes the folder as STORE_SERVE
 * does, but needs an existing database of the present schema, raises no epoch, drops no unsealed
 * checkpoint, and begin and maintain fail. All it may write is what a crash left to be rolled back.
 */
enum store_use { STORE_SERVE, STORE_INSPECT };

struct store_options {
    const char *folder; /* where the files live; unused by "memory" */
    bool create;        /* make the folder and the database when absent; not with STORE_INSPECT */
    enum store_use use;
};

/* How long work on a whole store goes; either may be NULL. Called by the thread that asked. */
struct store_watch {
    void *context;
    /* `doing` is a constant word or two; bytes, done <= total. Several times a second. */
    void (*progress)(void *context, const char *doing, uint64_t done, uint64_t total);
    void (*finding)(void *context, const char *sentence); /* damage: what is wrong, and where */
};

/* What a store holds, and how much of it is damaged. */
struct store_report {
    uint64_t sessions, checkpoints,
        events;     /* checkpoints: sealed; events: with their first chunk */
    uint64_t bytes; /* of records, heads, bodies and chunks */
    uint64_t findings;
};

struct store;

struct store_backend {
    const char *scheme;  /* "sqlite", "memory" */
    const char *meaning; /* one line for the documentation */
    bool durable;        /* what is committed survives close and a new open */

    /* Opens, takes ownership (raises the owner epoch, durable), drops checkpoints never sealed.
     * Faults carry one clear sentence: not writable, locked by another process (with its pid), made
     * by a newer version, not a database. */
    enum status (*open)(const struct store_options *options, struct store **out,
                        struct fault *fault);
    void (*close)(struct store *take_store);

    enum status (*begin)(struct store *store, struct fault *fault);
    enum status (*commit)(struct store *store,
                          struct fault *fault); /* on failure: already rolled back */
    void (*rollback)(struct store *store);

    /* Writes, between begin and commit. */
    enum status (*session_put)(
        struct store *store, const struct store_session *session,
        struct fault *fault); /* by key; repeat replaces. id of another key: SESSION_EXISTS */
    enum status (*session_drop)(struct store *store, int64_t key,
                                struct fault *fault); /* the record only; absent is OK */
    enum status (*event_append)(
        struct store *store, const struct store_event *event,
        struct fault *fault); /* one chunk; lsn must be the highest so far, else INTERNAL */
    enum status (*event_drop)(struct store *store, uint64_t first, uint64_t last,
                              struct fault *fault); /* lsns first..last, absent ones are OK */
    enum status (*checkpoint_put)(struct store *store, uint64_t id, int64_t session, uint32_t chunk,
                                  struct span body, struct fault *fault); /* repeat replaces */
    enum status (*checkpoint_seal)(
        struct store *store, const struct store_checkpoint *checkpoint,
        struct fault *fault); /* every chunk must be there, else INTERNAL */
    enum status (*checkpoint_drop)(struct store *store, uint64_t id,
                                   struct fault *fault); /* sealed or not; absent is OK */

    /* Reads, at any time outside a transaction of the same thread. */
    enum status (*scan)(
        struct store *store, const struct store_visitor *visitor,
        struct fault *fault); /* all sessions, then all checkpoints, then all events */
    /* Reads one chunk of the journal. event->head and ->body point into head[] and body[] of the
     * caller. */
    enum status (*event_read)(struct store *store, uint64_t lsn,
                              unsigned char head[STORE_HEAD_BYTES],
                              unsigned char body[STORE_CHUNK_BYTES], struct store_event *event,
                              struct fault *fault); /* absent: NOT_FOUND */
    enum status (*checkpoint_read)(struct store *store, uint64_t id, uint32_t chunk,
                                   unsigned char body[STORE_CHUNK_BYTES], size_t *size,
                                   struct fault *fault); /* absent: NOT_FOUND */

    /* Housekeeping when there is time: after an I/O error reopens and checks, folds logs back, and
     * unless `more` is NULL gives space back, one slice that takes about as long as a commit;
     * *more: there is another, so call again. OK when the store can be written (a real small write
     * was tried and is durable), also when the slice alone failed: *more is false then. */
    enum status (*maintain)(struct store *store, bool *more, struct fault *fault);

    /* Reads everything and holds it against its checksums: every record, head, body and chunk; that
     * a sealed checkpoint and every event that has a first chunk have all of them; that no chunk is
     * without its checkpoint; and the medium's own structure. Goes on after a finding. OK when it
     * came to the end, whatever it found; the store is taken for all that time. */
    enum status (*verify)(struct store *store, const struct store_watch *watch,
                          struct store_report *report, struct fault *fault);

    /* Care of a folder that no store_open of this process holds; see store_backup, store_restore
     * and store_compact below. NULL when nothing is kept. */
    enum status (*backup)(const char *folder, const char *to, const struct store_watch *watch,
                          uint64_t *bytes, struct fault *fault);
    enum status (*restore)(const char *folder, const char *from, const struct store_watch *watch,
                           struct store_report *report, struct fault *fault);
    enum status (*compact)(const char *folder, const struct store_watch *watch, uint64_t *before,
                           uint64_t *after, struct fault *fault);
};

/* Opens by URL: "sqlite:FOLDER", "memory:", or a bare folder (sqlite). */
enum status store_open(const char *url, bool create, struct store **out, struct fault *fault);

/* Opens what is there to look at it: STORE_INSPECT. */
enum status store_inspect(const char *url, struct store **out, struct fault *fault);

/* Copies the database into the folder `to` (made when absent, one level), as of one moment, whether
 * or not a server uses it. Commits of that server wait until the copy is whole; a copy that takes
 * longer than they can wait is given up. `to` gets the whole copy or none, durably, and must hold
 * no database. *bytes: its size. */
enum status store_backup(const char *url, const char *to, const struct store_watch *watch,
                         uint64_t *bytes, struct fault *fault);

/* Puts the database of the folder `from` in place, where none may be, after the copy has passed
 * verify (damage: STATUS_STORAGE_FAILED, and *report is written too). Brings an older schema up to
 * date. Neither folder may be in use; `from` is only read. All or nothing, durably. */
enum status store_restore(const char *url, const char *from, const struct store_watch *watch,
                          struct store_report *report, struct fault *fault);

/* Writes the database anew without its gaps and puts it in the old one's place once it has passed
 * verify. The folder must not be in use. Interrupted at any time, the old or the new one is there,
 * whole. Sizes in bytes. */
enum status store_compact(const char *url, const struct store_watch *watch, uint64_t *before,
                          uint64_t *after, struct fault *fault);

/* The verbs, dispatched. See above for what each promises. */
void store_close(struct store *take_store);
const struct store_backend *store_backend(const struct store *store);

/* Every backend, in table order; NULL past the end. For the contract tests. */
const struct store_backend *store_backend_at(size_t index);

/* The first member of every backend's own struct. */
struct store {
    const struct store_backend *backend;
};

#endif
