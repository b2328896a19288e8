/* The store in one SQLite file: open, close, housekeeping, and the table of verbs. Settings and
 * figures: sqlite_file.c; tables: schema/; statements: sqlite_statements.def.
 *
 * One connection does everything; a turn is held from begin to commit or rollback and for the
 * length of a read. */
#include "storage/sqlite_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "storage/lockfile.h"

enum {
    CHECKED_PAGES = 4096, /* 128 MiB are checked whole at every open, in about 0.1 s */
    VACUUM_SLICE = 256,   /* pages: 8 MiB move in about 20 ms, as long as one commit may wait */
    JOURNAL_KEEP_BYTES =
        16 * 1024 * 1024 /* what a large transaction leaves beyond this is cut off in maintain */
};

/* SQLite's check of the structure by one of the statements of that name. */
static enum status quick_check(struct sqlite_file *file, enum sqlite_statement statement,
                               struct fault *fault)
{
    sqlite3_stmt *row = file->statement[statement];
    enum status status = STATUS_OK;
    int code = sqlite3_step(row);
    const unsigned char *words = code == SQLITE_ROW ? sqlite3_column_text(row, 0) : NULL;

    if (code != SQLITE_ROW)
        status = sqlite_file_fault(file, code, fault);
    else if (words == NULL)
        status = sqlite_file_fault(file, SQLITE_NOMEM, fault);
    else if (strcmp((const char *)words, "ok") != 0)
        status = fault_set(fault, STATUS_STORAGE_FAILED, "",
                           "%s is damaged: %s. Restore it from a backup.", file->path, words);
    sqlite_file_reset(file, statement);
    return status;
}

/* After an I/O error: a new connection takes over when the file is ours, whole, and as the last
 * good commit left it. */
static enum status heal(struct sqlite_store *self, struct fault *fault)
{
    struct sqlite_file fresh;
    uint32_t counter = 0;
    enum status status = sqlite_file_open(&fresh, self->folder, SQLITE_FILE_EXISTING, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = sqlite_store_owned(self, &fresh, fault)) != STATUS_OK ||
        (status = quick_check(&fresh, SQL_QUICK_CHECK, fault)) != STATUS_OK)
        goto done;
    int code = sqlite_file_counter(&fresh, &counter);
    if (code != SQLITE_DONE)
        status = sqlite_file_fault(&fresh, code, fault);
    else if (self->in_doubt && counter != self->counter)
        status = fault_set(fault, STATUS_STORAGE_FAILED, "",
                           "%s kept a change that was reported as failed. Restart the server, so "
                           "that it reads what is stored.",
                           fresh.path);
    if (status != STATUS_OK)
        goto done;
    sqlite_file_close(&self->file);
    self->file = fresh;
    self->broken = false;
    self->in_doubt = false;
    log_warning("%s was opened again after an error and found whole", self->file.path);
done:
    if (status != STATUS_OK)
        sqlite_file_close(&fresh);
    return status;
}

/* How long the file is, and whether more of it is free than should be. Steady use fills free pages
 * again, so some stay: an eighth, and a slice. */
static int count_pages(struct sqlite_store *self, int64_t *pages, bool *excess)
{
    int64_t unused = 0;
    int code = sqlite_file_number(&self->file, SQL_PAGES, pages);

    if (code == SQLITE_DONE)
        code = sqlite_file_number(&self->file, SQL_PAGES_FREE, &unused);
    *excess = code == SQLITE_DONE && unused > *pages / 8 + VACUUM_SLICE;
    return code;
}

/* Gives a slice of the file's end back. No more of a file that does not get shorter. */
static int vacuum_slice(struct sqlite_store *self, bool *more)
{
    char sql[48];
    int64_t before = 0, after = 0;
    int code = count_pages(self, &before, more);

    if (code != SQLITE_DONE || !*more)
        return code;
    snprintf(sql, sizeof sql, "PRAGMA incremental_vacuum(%d)", VACUUM_SLICE);
    if ((code = sqlite3_exec(self->file.db, sql, NULL, NULL, NULL)) != SQLITE_OK)
        return code;
    code = count_pages(self, &after, more);
    *more &= after < before;
    return code;
}

/* The journal file is cut at a commit while there is a limit. Only here: at every commit it would
 * cost what journal_mode=TRUNCATE does. */
static int journal_limit(struct sqlite_store *self, int bytes)
{
    char sql[64];

    snprintf(sql, sizeof sql, "PRAGMA journal_size_limit = %d", bytes);
    int code = sqlite3_exec(self->file.db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? SQLITE_DONE : code;
}

static enum status tidy(struct sqlite_store *self, bool *more, struct fault *fault)
{
    enum status status = sqlite_store_open(self, fault);

    if (status != STATUS_OK)
        return status;
    if (more != NULL)
        status = sqlite_store_written(self, vacuum_slice(self, more), fault);
    POINT(in_maintain);
    if (status == STATUS_OK)
        status = sqlite_store_written(self, sqlite_file_run(&self->file, SQL_PROBE), fault);
    if (status == STATUS_OK)
        status = sqlite_store_written(self, journal_limit(self, JOURNAL_KEEP_BYTES), fault);
    if (status == STATUS_OK)
        status = sqlite_store_end(self, fault);
    else
        sqlite_store_undo(self);
    self->in_doubt = false; /* nothing that a caller knows of was in this transaction */
    if (journal_limit(self, -1) != SQLITE_DONE)
        self->broken = true;
    return status;
}

/* Makes it whole if it must, and writable. */
static enum status mend(struct sqlite_store *self, struct fault *fault)
{
    enum status status = self->broken ? heal(self, fault) : STATUS_OK;

    return status == STATUS_OK ? tidy(self, NULL, fault) : status;
}

static enum status sqlite_maintain(struct store *store, bool *more, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct fault why;
    enum status status;
    bool left = false;

    if (self->inspect)
        return sqlite_store_looked_at(self, fault);
    turn_take(&self->turn);
    if (self->broken || more == NULL) {
        status = mend(self, fault);
    } else if ((status = tidy(self, &left, &why)) != STATUS_OK) {
        /* Space that cannot be given back is no reason to refuse what comes next. */
        left = false;
        if ((status = mend(self, fault)) == STATUS_OK)
            log_warning("storage: no space was given back: %s", why.detail);
    }
    if (status == STATUS_OK && more != NULL)
        *more = left;
    POINT(after_maintain);
    turn_pass(&self->turn);
    return status;
}

/* One transaction: the next epoch, and away with checkpoints that nobody sealed. */
static enum status take_over(struct sqlite_store *self, struct fault *fault)
{
    int64_t unsealed = 0, lsn = 0;
    enum status status =
        sqlite_store_written(self, sqlite_file_number(&self->file, SQL_EPOCH, &self->epoch), fault);

    if (status != STATUS_OK || (status = sqlite_store_open(self, fault)) != STATUS_OK)
        return status;
    status = sqlite_store_written(self, sqlite_file_run(&self->file, SQL_EPOCH_RAISE), fault);
    while (status == STATUS_OK) {
        status = sqlite_store_written(
            self, sqlite_file_number(&self->file, SQL_CHECKPOINT_UNSEALED, &unsealed), fault);
        if (status != STATUS_OK || unsealed == 0)
            break;
        status = sqlite_checkpoint_drop(&self->store, (uint64_t)unsealed, fault);
    }
    if (status == STATUS_OK)
        status =
            sqlite_store_written(self, sqlite_file_number(&self->file, SQL_LSN_LAST, &lsn), fault);
    POINT(in_take_over);
    if (status != STATUS_OK) {
        sqlite_store_undo(self);
        return status;
    }
    if ((status = sqlite_store_end(self, fault)) == STATUS_OK) {
        self->epoch++;
        self->lsn_last = (uint64_t)lsn;
    }
    return status;
}

/* A damaged page can hide rows, the newest of the journal too, without any of them being wrong: no
 * row's checksum tells. Where it takes no time worth speaking of, that is found out before anybody
 * is served; in a larger file only for the tables whose rows a server cannot miss, and the journal,
 * which may be a thousand times as large, is `descent verify`'s. */
static enum status check_open(struct sqlite_store *self, struct fault *fault)
{
    int64_t pages = 0;
    int code = sqlite_file_number(&self->file, SQL_PAGES, &pages);

    if (code != SQLITE_DONE)
        return sqlite_file_fault(&self->file, code, fault);
    if (pages <= CHECKED_PAGES)
        return quick_check(&self->file, SQL_QUICK_CHECK, fault);
    enum status status = quick_check(&self->file, SQL_QUICK_CHECK_SESSION, fault);
    return status == STATUS_OK ? quick_check(&self->file, SQL_QUICK_CHECK_CHECKPOINT, fault)
                               : status;
}

static void sqlite_close(struct store *take_store)
{
    struct sqlite_store *self = sqlite_store_of(take_store);

    PRE(!self->open);
    if (self->file.db != NULL)
        sqlite_file_close(&self->file);
    if (self->lock >= 0)
        lockfile_release(self->lock);
    turn_close(&self->turn);
    free(self->folder);
    free(self);
}

static enum status open_folder(struct sqlite_store *self, const struct store_options *options,
                               struct fault *fault)
{
    enum sqlite_file_mode mode = self->inspect     ? SQLITE_FILE_INSPECT
                                 : options->create ? SQLITE_FILE_CREATE
                                                   : SQLITE_FILE_EXISTING;
    enum status status;

    /* A folder that has no database shall not get a lock file either. */
    if (self->inspect && (status = sqlite_file_there(self->folder, fault)) != STATUS_OK)
        return status;
    status = lockfile_take(self->folder, mode == SQLITE_FILE_CREATE, &self->lock, fault);
    if (status == STATUS_OK)
        status = sqlite_file_open(&self->file, self->folder, mode, fault);
    if (status == STATUS_OK && !self->inspect)
        status = check_open(self, fault);
    if (status == STATUS_OK && !self->inspect)
        status = take_over(self, fault);
    POINT(after_take_over);
    return status;
}

static enum status sqlite_open(const struct store_options *options, struct store **out,
                               struct fault *fault)
{
    if (options->folder == NULL || options->folder[0] == '\0')
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "The storage needs a folder, for instance sqlite:/var/lib/descent.");
    struct sqlite_store *self = calloc(1, sizeof *self);
    if (self == NULL || !turn_init(&self->turn)) {
        free(self);
        return fault_set(fault, STATUS_INTERNAL, "", "The server is out of memory.");
    }
    self->store.backend = &store_sqlite;
    self->lock = -1;
    self->inspect = options->use == STORE_INSPECT;
    self->folder = strdup(options->folder);
    enum status status = self->folder != NULL ? open_folder(self, options, fault)
                                              : fault_set(fault, STATUS_INTERNAL, "",
                                                          "The server is out of memory.");
    if (status == STATUS_OK)
        *out = &self->store;
    else
        sqlite_close(&self->store);
    return status;
}

const struct store_backend store_sqlite = {
    .scheme = "sqlite",
    .meaning = "one SQLite file, FOLDER/descent.db; what is committed survives a power cut",
    .durable = true,
    .open = sqlite_open,
    .close = sqlite_close,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .session_put = sqlite_session_put,
    .session_drop = sqlite_session_drop,
    .event_append = sqlite_event_append,
    .event_drop = sqlite_event_drop,
    .checkpoint_put = sqlite_checkpoint_put,
    .checkpoint_seal = sqlite_checkpoint_seal,
    .checkpoint_drop = sqlite_checkpoint_drop,
    .scan = sqlite_scan,
    .event_read = sqlite_event_read,
    .checkpoint_read = sqlite_checkpoint_read,
    .maintain = sqlite_maintain,
    .verify = sqlite_verify,
    .backup = sqlite_backup,
    .restore = sqlite_restore,
    .compact = sqlite_compact,
};
