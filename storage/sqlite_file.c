/* Opening, settings, schema and the meaning of result codes.
 *
 * Settings, and why. Milliseconds per commit, everything synced; (a) one 4 MB event in 8 chunks and
 * one such event dropped, (b) 64 events of 4 KB and 64 dropped, (c) one event of 4 KB and one
 * dropped; ext4 on a virtual disk on which an append and fdatasync of the same bytes took (a) 3 to
 * 12, (b) 0.28 and (c) 0.14:
 *
 *   journal   pages    (a)   (b)   (c)        journal   pages    (a)   (b)   (c)
 *   WAL       64 KiB   8.5   1.4   0.38       PERSIST    8 KiB   8.6   1.4   0.69
 *   TRUNCATE  64 KiB   4.2   1.8   0.9        PERSIST   16 KiB   5.8   1.2   0.72
 *   PERSIST   64 KiB   3.5   1.3   0.8        PERSIST   32 KiB   3.6   1.1   0.67
 *
 * - journal_mode=PERSIST. WAL writes every byte twice and sums it besides; it wins for single small
 * events only. A rollback journal writes a page that was free before just once, in place; PERSIST
 * spares the file system the metadata of truncation. It also has no part in the WAL-reset bug of
 * this SQLite.
 * - 32 KiB pages: 512 KiB chunks cost 1.5 % and few writes, a small commit journals four or five
 * pages, not more.
 * - auto_vacuum=INCREMENTAL costs nothing measurable: its map spares a drop from reading the pages
 * it frees.
 * - locking_mode stays NORMAL: a begin then sees what is really on disk, the owner epoch above all,
 * and a backup of the running database can be taken with sqlite3's .backup. It costs (c) 0.1 ms,
 * which sqlite_vfs.c wins back.
 * - cache of 16 MiB: transactions up to that size are written once, at commit; larger ones spill as
 * they go.
 */
#include "storage/sqlite_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "service/core/contract.h"
#include "service/core/embed.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "storage/sqlite_vfs.h"

EMBED(schema_0001, "storage/schema/0001_initial.sql");

static const char *const migrations[] = {
    schema_0001_begin}; /* migration i leads to version i + 1 */

enum {
    SCHEMA_VERSION = sizeof migrations / sizeof *migrations,
    APPLICATION_ID = 0x6473636E, /* "dscn" */
    WAIT_MS_MAX = 25,            /* between two tries, as SQLite's own handler begins */
    WAIT_MS_SAID = 5000          /* a wait that is worth a line in the log */
};

/* Only for a new file: on an old one the second is a write, and opening must not write before all
 * is checked. */
static const char settings_new[] = "PRAGMA page_size = 32768; PRAGMA auto_vacuum = INCREMENTAL";

/* The cache is counted in pages, 512 of 32 KiB: given in KiB, SQLite 3.40 converts it with the page
 * size the file had before the setting above, and would keep eight times as much. */
static const char settings[] = "PRAGMA synchronous = FULL;"
                               "PRAGMA secure_delete = OFF;"
                               "PRAGMA mmap_size = 0;"
                               "PRAGMA cache_size = 512;"
                               "PRAGMA temp_store = MEMORY;"
                               "PRAGMA cell_size_check = ON;"
                               "PRAGMA trusted_schema = OFF;"
                               "PRAGMA recursive_triggers = OFF;"
                               "PRAGMA foreign_keys = OFF";

static const char *const statements[] = {
#define STATEMENT(name, sql) sql,
#include "storage/sqlite_statements.def"
#undef STATEMENT
};

enum status sqlite_file_fault(const struct sqlite_file *file, int code, struct fault *fault)
{
    const char *path = file->path;
    int cause = file->db != NULL ? sqlite3_system_errno(file->db) : 0;
    const char *words = cause != 0 ? strerror(cause) : sqlite3_errstr(code);

    if (code == SQLITE_IOERR_NOMEM)
        code = SQLITE_NOMEM;
    switch (code & 0xFF) {
    case SQLITE_FULL:
        return fault_set(fault, STATUS_STORAGE_FULL, "",
                         "There is no space left for %s. Nothing was changed; free some space and "
                         "try again.",
                         path);
    case SQLITE_NOMEM:
        return fault_set(fault, STATUS_INTERNAL, "", "The server is out of memory.");
    case SQLITE_NOTADB:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s is not a database. Move it away, or name another folder.", path);
    case SQLITE_CORRUPT:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s is damaged (%s). Restore it from a backup.", path,
                         sqlite3_errstr(code));
    case SQLITE_ERROR: /* of statements that never change: what they name is not there, or the
                          format is unknown */
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s is damaged: its schema is not what it was (%s). Restore it from a "
                         "backup.",
                         path, sqlite3_errstr(code));
    case SQLITE_CANTOPEN:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s cannot be opened: %s. It must exist and be writable by this user.",
                         path, words);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s cannot be written. It and its folder must be writable by this user.",
                         path);
    case SQLITE_BUSY:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s is locked by another program. End that program and try again.", path);
    case SQLITE_IOERR:
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "Reading or writing %s failed: %s (SQLite code %d).", path, words, code);
    default:
        return fault_set(fault, STATUS_INTERNAL, "", "%s refused a statement: %s (SQLite code %d).",
                         path, sqlite3_errstr(code), code);
    }
}

void sqlite_file_reset(struct sqlite_file *file, enum sqlite_statement statement)
{
    sqlite3_reset(
        file->statement[statement]); /* repeats the error of the last step, already seen */
    sqlite3_clear_bindings(file->statement[statement]);
}

int sqlite_file_run(struct sqlite_file *file, enum sqlite_statement statement)
{
    int code = sqlite3_step(file->statement[statement]);

    PRE(code != SQLITE_ROW);
    sqlite_file_reset(file, statement);
    return code;
}

int sqlite_file_number(struct sqlite_file *file, enum sqlite_statement statement, int64_t *out)
{
    int code = sqlite3_step(file->statement[statement]);

    if (code == SQLITE_ROW) {
        *out = sqlite3_column_int64(file->statement[statement], 0);
        code = SQLITE_DONE;
    } else if (code == SQLITE_DONE) {
        code = SQLITE_CORRUPT; /* each of these queries has a row, unless someone took it away */
    }
    sqlite_file_reset(file, statement);
    return code;
}

int sqlite_file_counter(struct sqlite_file *file, uint32_t *out)
{
    enum { COUNTER_OFFSET = 24 }; /* big-endian, in the database header */
    unsigned char raw[4];
    sqlite3_file *handle = NULL;
    int code = sqlite3_file_control(file->db, "main", SQLITE_FCNTL_FILE_POINTER, &handle);

    if (code == SQLITE_OK)
        code = handle->pMethods->xRead(handle, raw, sizeof raw, COUNTER_OFFSET);
    if (code != SQLITE_OK)
        return code;
    *out = (uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 | (uint32_t)raw[2] << 8 | raw[3];
    return SQLITE_DONE;
}

/* Who holds the file is a backup, as a rule, and ends: waits up to SQLITE_WAIT_S. Sums the sleeps
 * that were asked for; they are not shorter. */
static int wait_for_others(void *unused, int tries)
{
    int delay = tries + 1 < WAIT_MS_MAX ? tries + 1 : WAIT_MS_MAX;
    int64_t waited = tries < WAIT_MS_MAX ? (int64_t)tries * (tries + 1) / 2
                                         : WAIT_MS_MAX * (WAIT_MS_MAX + 1) / 2 +
                                               (int64_t)(tries - WAIT_MS_MAX) * WAIT_MS_MAX;

    (void)unused;
    if (waited >= (int64_t)SQLITE_WAIT_S * 1000)
        return 0;
    if (waited < WAIT_MS_SAID && waited + delay >= WAIT_MS_SAID)
        log_warning("the database is in use by another program, perhaps a backup: waiting for it");
    sqlite3_sleep(delay);
    return 1;
}

/* One number from a statement that is not worth keeping. */
static int number_once(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *out = sqlite3_column_int64(statement, 0);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return code;
}

/* The name of the rollback journal's mode must come back as it was asked for. */
static int journal_set(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, "PRAGMA journal_mode = PERSIST", -1, &statement, NULL);

    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        const unsigned char *mode = sqlite3_column_text(statement, 0);
        if (mode == NULL)
            code = SQLITE_NOMEM;
        else
            code = strcmp((const char *)mode, "persist") == 0 ? SQLITE_OK : SQLITE_BUSY;
    }
    sqlite3_finalize(statement);
    return code;
}

/* Takes the schema from `version` to the next one, whole or not at all. */
static int migrate_once(sqlite3 *db, int64_t version)
{
    char stamp[96];
    int code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

    snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %" PRId64,
             APPLICATION_ID, version + 1);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, migrations[version], NULL, NULL, NULL);
    POINT(in_migration);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, stamp, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (code != SQLITE_OK && !sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* the first error is the one to tell */
    return code;
}

/* Is it ours, and not of the future? Then brings it up to date, or asks that it is. */
static enum status recognize(struct sqlite_file *file, enum sqlite_file_mode mode,
                             struct fault *fault)
{
    int64_t version = 0, application = 0, tables = 0;
    int code = number_once(file->db, "PRAGMA user_version", &version);

    if (code == SQLITE_OK)
        code = number_once(file->db, "PRAGMA application_id", &application);
    if (code == SQLITE_OK)
        code = number_once(file->db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (code != SQLITE_OK)
        return sqlite_file_fault(file, code, fault);
    bool fresh = tables == 0 && version == 0 && application == 0;
    if (fresh && mode >= SQLITE_FILE_INSPECT)
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "%s is empty.", file->path);
    if (!fresh && application != APPLICATION_ID)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s is the database of another program. Move it away, or name another "
                         "folder.",
                         file->path);
    if (mode == SQLITE_FILE_COPY)
        return STATUS_OK;
    if (version < 0 || version > SCHEMA_VERSION)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s was made by a newer descent (schema %" PRId64 ", this one knows up to "
                         "%d). Run that version, or name another folder.",
                         file->path, version, SCHEMA_VERSION);
    if (mode == SQLITE_FILE_INSPECT && version < SCHEMA_VERSION)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "%s was made by an older descent (schema %" PRId64 ", now %d). Start the "
                         "server on it once, which brings it up to date.",
                         file->path, version, SCHEMA_VERSION);
    if (fresh)
        code = sqlite3_exec(file->db, settings_new, NULL, NULL, NULL);
    for (; version < SCHEMA_VERSION && code == SQLITE_OK; version++)
        code = migrate_once(file->db, version);
    return code == SQLITE_OK ? STATUS_OK : sqlite_file_fault(file, code, fault);
}

enum status sqlite_file_there(const char *folder, struct fault *fault)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/descent.db", folder) >= sizeof path)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The path of the storage folder is too long.");
    if (access(path, F_OK) == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "There is no database in %s: %s/descent.db: %s.", folder, folder,
                     strerror(errno));
}

enum status sqlite_file_open(struct sqlite_file *file, const char *folder,
                             enum sqlite_file_mode mode, struct fault *fault)
{
    enum status status = STATUS_OK;

    *file = (struct sqlite_file){.db = NULL};
    if ((size_t)snprintf(file->path, sizeof file->path, "%s/descent.db", folder) >=
        sizeof file->path)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The path of the storage folder is too long.");
    int code = sqlite_vfs_register();
    if (code == SQLITE_OK)
        code = sqlite3_open_v2(file->path, &file->db,
                               SQLITE_OPEN_READWRITE |
                                   (mode == SQLITE_FILE_CREATE ? SQLITE_OPEN_CREATE : 0) |
                                   SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                               SQLITE_VFS_NAME);
    if (code == SQLITE_OK && sqlite3_db_readonly(file->db, "main") == 1)
        code = SQLITE_READONLY;
    if (code == SQLITE_OK)
        code = sqlite3_busy_handler(file->db, wait_for_others, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(file->db, settings, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = journal_set(file->db);
    if (code == SQLITE_OK && mode >= SQLITE_FILE_INSPECT)
        code = sqlite3_exec(file->db, "PRAGMA query_only = ON", NULL, NULL, NULL);
    if (code == SQLITE_OK && BUG(skip_sync))
        code = sqlite3_exec(file->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
    if (code == SQLITE_OK && (status = recognize(file, mode, fault)) != STATUS_OK)
        goto done;
    for (size_t i = 0; i < SQL_COUNT && code == SQLITE_OK && mode != SQLITE_FILE_COPY; i++)
        code = sqlite3_prepare_v3(file->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                                  &file->statement[i], NULL);
    if (code != SQLITE_OK)
        status = sqlite_file_fault(file, code, fault);
done:
    if (status != STATUS_OK)
        sqlite_file_close(file);
    return status;
}

void sqlite_file_close(struct sqlite_file *file)
{
    for (size_t i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(file->statement[i]);
    POST(sqlite3_close(file->db) == SQLITE_OK); /* fails only when a statement is still there */
    *file = (struct sqlite_file){.db = NULL};
}
