/* begin, commit, rollback, and what each failure leaves behind.
 *
 * After a failed commit the connection is asked whether the old state is back: SQLite raises the
 * change counter in the file's header with every write that counts, and takes it back when it rolls
 * back. Had the counter risen all the same (the last sync failed, after the journal was already
 * invalid), the store is `in_doubt` and can only be opened anew. */
#include "storage/sqlite_store.h"

#include "service/core/contract.h"
#include "service/core/point.h"

struct sqlite_store *sqlite_store_of(struct store *store)
{
    PRE(store != NULL && store->backend == &store_sqlite);
    return (struct sqlite_store *)store;
}

/* The end of every write: SQLITE_DONE is OK. */
enum status sqlite_store_written(struct sqlite_store *self, int code, struct fault *fault)
{
    int kind = code & 0xFF;

    if (code == SQLITE_DONE)
        return STATUS_OK;
    self->spoiled = true;
    if ((kind == SQLITE_IOERR && code != SQLITE_IOERR_NOMEM) || kind == SQLITE_CORRUPT ||
        kind == SQLITE_NOTADB || kind == SQLITE_CANTOPEN)
        self->broken = true;
    return sqlite_file_fault(&self->file, code, fault);
}

/* A call that no correct caller makes. */
enum status sqlite_store_misuse(struct sqlite_store *self, struct fault *fault, const char *what)
{
    self->spoiled = true;
    return fault_set(fault, STATUS_INTERNAL, "", "The store was asked for the impossible: %s.",
                     what);
}

/* Back to the state before begin. The connection may have rolled back by itself already. */
void sqlite_store_undo(struct sqlite_store *self)
{
    if (!sqlite3_get_autocommit(self->file.db) &&
        sqlite_file_run(&self->file, SQL_ROLLBACK) != SQLITE_DONE)
        self->broken = true;
    self->lsn_last = self->lsn_before;
    self->open = false;
    self->spoiled = false;
}

/* After a failed commit: a read makes SQLite roll back what is left, then the counter must be the
 * old one. */
static void settle(struct sqlite_store *self)
{
    int64_t epoch;
    uint32_t counter;

    if (sqlite_file_number(&self->file, SQL_EPOCH, &epoch) != SQLITE_DONE ||
        sqlite_file_counter(&self->file, &counter) != SQLITE_DONE || counter != self->counter) {
        self->in_doubt = true;
        self->broken = true;
    }
}

enum status sqlite_store_looked_at(const struct sqlite_store *self, struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "%s was opened to be looked at only and takes no writes.", self->file.path);
}

enum status sqlite_store_owned(const struct sqlite_store *self, struct sqlite_file *file,
                               struct fault *fault)
{
    int64_t epoch;
    int code = sqlite_file_number(file, SQL_EPOCH, &epoch);

    if (code != SQLITE_DONE)
        return sqlite_file_fault(file, code, fault);
    if (epoch != self->epoch && !BUG(no_fence))
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s was taken over by another process. Stop this one.", file->path);
    return STATUS_OK;
}

enum status sqlite_store_open(struct sqlite_store *self, struct fault *fault)
{
    self->lsn_before = self->lsn_last;
    self->spoiled = false;
    enum status status = sqlite_store_written(self, sqlite_file_run(&self->file, SQL_BEGIN), fault);
    if (status == STATUS_OK)
        status = sqlite_store_owned(self, &self->file, fault);
    if (status == STATUS_OK)
        status =
            sqlite_store_written(self, sqlite_file_counter(&self->file, &self->counter), fault);
    if (status == STATUS_OK)
        self->open = true;
    else
        sqlite_store_undo(self);
    return status;
}

/* Ends the transaction either way. */
enum status sqlite_store_end(struct sqlite_store *self, struct fault *fault)
{
    enum status status;

    if (self->spoiled)
        status = sqlite_store_misuse(self, fault, "to commit after a write had failed");
    else if ((status = sqlite_store_written(self, sqlite_file_run(&self->file, SQL_COMMIT),
                                            fault)) != STATUS_OK) {
        sqlite_store_undo(self);
        settle(self);
        return BUG(ignore_commit_error) ? STATUS_OK : status;
    }
    if (status != STATUS_OK)
        sqlite_store_undo(self);
    self->open = false;
    return status;
}

enum status sqlite_begin(struct store *store, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    enum status status;

    if (self->inspect)
        return sqlite_store_looked_at(self, fault);
    turn_take(&self->turn);
    if (self->broken)
        status = fault_set(fault, STATUS_STORAGE_FAILED, "",
                           "%s failed earlier and takes no writes until it has been checked. It is "
                           "tried again by itself; look at the disk and at the log.",
                           self->file.path);
    else
        status = sqlite_store_open(self, fault);
    if (status != STATUS_OK)
        turn_pass(&self->turn);
    return status;
}

enum status sqlite_commit(struct store *store, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);

    PRE(self->open);
    enum status status = sqlite_store_end(self, fault);
    turn_pass(&self->turn);
    return status;
}

void sqlite_rollback(struct store *store)
{
    struct sqlite_store *self = sqlite_store_of(store);

    PRE(self->open);
    sqlite_store_undo(self);
    turn_pass(&self->turn);
}
