/* Rows: parameters in order with the first error kept, columns, and the checksum that every row
 * carries. */
#ifndef DESCENT_STORAGE_SQLITE_ROW_H
#define DESCENT_STORAGE_SQLITE_ROW_H

#include "storage/sqlite_file.h"
#include "storage/store.h"

enum {
    ROW_CHUNK_BITS = 20,
    ROW_CHUNK_LAST = (1 << ROW_CHUNK_BITS) - 1
}; /* place = id << 20 | chunk */

struct row_binding {
    sqlite3_stmt *statement;
    int at;   /* parameters bound */
    int code; /* the first error, or SQLITE_OK */
};

struct row_binding row_bind(struct sqlite_file *file, enum sqlite_statement statement);
void row_bind_number(struct row_binding *binding, uint64_t value);

/* Not copied: the bytes stay where they are until the statement has run. */
void row_bind_bytes(struct row_binding *binding, struct span bytes);

uint64_t row_number(sqlite3_stmt *row, int column);

/* The columns of a journal row, without its blobs; of a checkpoint's record. In the order of the
 * statements that read them. */
struct store_event row_event(sqlite3_stmt *row);
struct store_checkpoint row_checkpoint(sqlite3_stmt *row);

/* Whether a checkpoint's record is one of being written; whether a sealed one is as it was sealed.
 */
bool row_is_unsealed(sqlite3_stmt *row);
bool row_checkpoint_good(sqlite3_stmt *row, const struct store_checkpoint *checkpoint);

/* A blob of the row, in SQLite's memory until the next step. False when memory ran out. */
bool row_span(sqlite3_stmt *row, int column, struct span *out);

/* Where a chunk of a checkpoint is; the largest lsn that a column holds. */
uint64_t row_place(uint64_t id, uint32_t chunk);
uint64_t row_lsn(uint64_t lsn);

/* The XXH3-64 of a row: its numbers, and the XXH3-64 of each of its blobs, as little-endian words.
 */
uint64_t row_checksum_event(const struct store_event *event);
uint64_t row_checksum_session(const struct store_session *session);
uint64_t row_checksum_checkpoint(const struct store_checkpoint *checkpoint);
uint64_t row_checksum_chunk(uint64_t place, struct span body);

/* What stands in the journal's column kind: the kind, and above it 32 bits of a checksum of the
 * row's numbers, so that a scan need not read head and body to know whose an event is. Rows written
 * before there was one have 0 there. row_kind_valid: the numbers are those that were written. */
uint64_t row_kind(const struct store_event *event);
bool row_kind_valid(const struct store_event *event, uint64_t column);

/* Whether the write verbs could have been given these numbers and sizes: what an old row says of
 * itself is in no checksum of a scan, and a right checksum proves only who computed it. */
bool row_event_possible(const struct store_event *event);
bool row_session_possible(const struct store_session *session);

#endif
