/* One connection to one descent.db: opened, recognized, brought to the newest schema, its
 * statements prepared. */
#ifndef DESCENT_STORAGE_SQLITE_FILE_H
#define DESCENT_STORAGE_SQLITE_FILE_H

#include <limits.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/core/status.h"

enum sqlite_statement {
#define STATEMENT(name, sql) SQL_##name,
#include "storage/sqlite_statements.def"
#undef STATEMENT
    SQL_COUNT
};

struct sqlite_file {
    char path[PATH_MAX];
    sqlite3 *db;
    sqlite3_stmt *statement[SQL_COUNT];
};

/* A server's commit waits for an outside reader (a backup) so long before it fails: the copy of a
 * backup holds it for less, so that no backup, however large, can fail a commit. At 100 MB/s that
 * is a copy of 150 GB. */
enum { SQLITE_WAIT_S = 1800, SQLITE_BACKUP_S = 1500 };

enum { SQLITE_PAGE_BYTES = 32768 };

enum sqlite_file_mode {
    SQLITE_FILE_CREATE,   /* a new one, or as EXISTING */
    SQLITE_FILE_EXISTING, /* brought to the newest schema */
    SQLITE_FILE_INSPECT,  /* of the newest schema; statements that write fail */
    SQLITE_FILE_COPY      /* of any schema, not even an unknown one is refused; no statements */
};

/* OK when FOLDER/descent.db is there; the fault says what is not. */
enum status sqlite_file_there(const char *folder, struct fault *fault);

/* Opens FOLDER/descent.db; the caller holds the folder's lock unless it means to COPY. On failure
 * nothing stays open. */
enum status sqlite_file_open(struct sqlite_file *file, const char *folder,
                             enum sqlite_file_mode mode, struct fault *fault);
void sqlite_file_close(struct sqlite_file *file);

/* The status and the sentence for a result code of SQLite. Call it before anything else touches the
 * connection. */
enum status sqlite_file_fault(const struct sqlite_file *file, int code, struct fault *fault);

/* Runs a statement that gives no rows, then lets go of what was bound. Returns SQLITE_DONE or the
 * error. */
int sqlite_file_run(struct sqlite_file *file, enum sqlite_statement statement);

/* Ends a statement early or after its last row, and lets go of what was bound. */
void sqlite_file_reset(struct sqlite_file *file, enum sqlite_statement statement);

/* Runs a statement whose one row is one number. Returns SQLITE_DONE or the error. */
int sqlite_file_number(struct sqlite_file *file, enum sqlite_statement statement, int64_t *out);

/* The file change counter in the header on disk: every committed write raises it. Returns
 * SQLITE_DONE or the error. */
int sqlite_file_counter(struct sqlite_file *file, uint32_t *out);

#endif
