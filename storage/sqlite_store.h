/* What the parts of the SQLite backend share. */
#ifndef DESCENT_STORAGE_SQLITE_STORE_H
#define DESCENT_STORAGE_SQLITE_STORE_H

#include "storage/sqlite_file.h"
#include "storage/store.h"
#include "storage/turn.h"

struct sqlite_store {
    struct store store;
    struct turn turn; /* guards all below */
    struct sqlite_file file;
    char *folder;
    int lock;            /* descriptor of the lock file */
    int64_t epoch;       /* ours; another one in the file: the storage was taken over */
    uint64_t lsn_last;   /* the highest so far, this transaction included */
    uint64_t lsn_before; /* the same at begin */
    uint32_t counter;    /* the file's change counter at begin */
    bool inspect;        /* opened to be looked at only */
    bool open;           /* a transaction is open */
    bool spoiled;        /* a write of this transaction failed: it can only be rolled back */
    bool
        broken; /* an I/O error in a write: nothing more is written before maintain() has checked */
    bool in_doubt; /* a failed commit may be on disk; the counter tells */
};

extern const struct store_backend store_sqlite;

struct sqlite_store *sqlite_store_of(struct store *store);

/* --- sqlite_transaction.c; the caller holds the turn --- */

/* Opens and ends a transaction. After any failure the state is the one before. */
enum status sqlite_store_open(struct sqlite_store *self, struct fault *fault);
enum status sqlite_store_end(struct sqlite_store *self, struct fault *fault);
void sqlite_store_undo(struct sqlite_store *self);

/* The end of every write: OK for SQLITE_DONE, else spoils the transaction and perhaps breaks the
 * store. */
enum status sqlite_store_written(struct sqlite_store *self, int code, struct fault *fault);

/* A call that no correct caller makes: spoils the transaction. */
enum status sqlite_store_misuse(struct sqlite_store *self, struct fault *fault, const char *what);

/* The refusal of a write to a store that was opened with STORE_INSPECT. */
enum status sqlite_store_looked_at(const struct sqlite_store *self, struct fault *fault);

/* OK while the epoch in `file` is ours. */
enum status sqlite_store_owned(const struct sqlite_store *self, struct sqlite_file *file,
                               struct fault *fault);

/* --- the verbs of store.h --- */

enum status sqlite_begin(struct store *store, struct fault *fault);
enum status sqlite_commit(struct store *store, struct fault *fault);
void sqlite_rollback(struct store *store);

enum status sqlite_session_put(struct store *store, const struct store_session *session,
                               struct fault *fault);
enum status sqlite_session_drop(struct store *store, int64_t key, struct fault *fault);
enum status sqlite_event_append(struct store *store, const struct store_event *event,
                                struct fault *fault);
enum status sqlite_event_drop(struct store *store, uint64_t first, uint64_t last,
                              struct fault *fault);
enum status sqlite_checkpoint_put(struct store *store, uint64_t id, int64_t session, uint32_t chunk,
                                  struct span body, struct fault *fault);
enum status sqlite_checkpoint_seal(struct store *store, const struct store_checkpoint *checkpoint,
                                   struct fault *fault);
enum status sqlite_checkpoint_drop(struct store *store, uint64_t id, struct fault *fault);

enum status sqlite_scan(struct store *store, const struct store_visitor *visitor,
                        struct fault *fault);
enum status sqlite_event_read(struct store *store, uint64_t lsn,
                              unsigned char head[STORE_HEAD_BYTES],
                              unsigned char body[STORE_CHUNK_BYTES], struct store_event *event,
                              struct fault *fault);
enum status sqlite_checkpoint_read(struct store *store, uint64_t id, uint32_t chunk,
                                   unsigned char body[STORE_CHUNK_BYTES], size_t *size,
                                   struct fault *fault);

/* sqlite_verify.c */
enum status sqlite_verify(struct store *store, const struct store_watch *watch,
                          struct store_report *report, struct fault *fault);
/* The same of a file that is no store, opened in any mode but COPY. */
enum status sqlite_file_verify(struct sqlite_file *file, const struct store_watch *watch,
                               struct store_report *report, struct fault *fault);

/* sqlite_care.c */
enum status sqlite_backup(const char *folder, const char *to, const struct store_watch *watch,
                          uint64_t *bytes, struct fault *fault);
enum status sqlite_restore(const char *folder, const char *from, const struct store_watch *watch,
                           struct store_report *report, struct fault *fault);
enum status sqlite_compact(const char *folder, const struct store_watch *watch, uint64_t *before,
                           uint64_t *after, struct fault *fault);

#endif
