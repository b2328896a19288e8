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

/* Opens FOLDER/descent.db and migrates it; the caller holds the folder's lock. On failure nothing
 * stays open. */
enum status sqlite_file_open(struct sqlite_file *file, const char *folder, bool create,
                             struct fault *fault);
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
