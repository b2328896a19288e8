/* The whole file against its checksums.
 *
 * First SQLite's own check of pages, trees and indices, then every row of every table, by rising
 * key. Where a table cannot be read on, the rest is read from its other end, so that one bad page
 * hides no more than lies on it. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "storage/sqlite_row.h"
#include "storage/sqlite_store.h"

struct check {
    struct sqlite_file *file;
    const struct store_watch *watch;
    struct store_report report;
    uint64_t total;      /* about what all rows take, in bytes */
    uint64_t next_lsn;   /* what the event needs next, with `missing` chunks to come */
    uint64_t missing;    /* 0: no event is open */
    uint64_t checkpoint; /* the id whose presence was asked for last */
};

struct table {
    const char *name, *key;
    const char *query; /* without its ORDER BY; the key comes first */
    int (*row)(struct check *check, sqlite3_stmt *row, bool forward); /* SQLITE_OK or the error */
};

static void finding(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void finding(struct check *check, const char *format, ...)
{
    char sentence[512];
    va_list arguments;

    check->report.findings++;
    if (check->watch->finding == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    check->watch->finding(check->watch->context, sentence);
}

static void progress(const struct check *check, const char *doing, uint64_t done)
{
    if (check->watch->progress != NULL)
        check->watch->progress(check->watch->context, doing,
                               done < check->total ? done : check->total, check->total);
}

/* Whether an error tells of the file; the others tell of this process, and end the check. */
static bool is_damage(int code)
{
    int kind = code & 0xFF;

    return code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_IOERR_NOMEM &&
           kind != SQLITE_NOMEM && kind != SQLITE_BUSY && kind != SQLITE_FULL;
}

/* Each line that SQLite has to say is a finding, but for its headings. */
static void integrity_lines(struct check *check, const char *words)
{
    while (*words != '\0') {
        int size = (int)strcspn(words, "\n");
        if (size > 0 && strncmp(words, "***", 3) != 0)
            finding(check, "The structure of the file is damaged: %.*s.", size, words);
        words += size;
        words += *words == '\n';
    }
}

static int integrity_check(struct check *check)
{
    sqlite3_stmt *row = check->file->statement[SQL_INTEGRITY_CHECK];
    int code;

    progress(check, "structure", 0);
    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        const char *words = (const char *)sqlite3_column_text(row, 0);
        if (words == NULL) {
            code = SQLITE_NOMEM;
            break;
        }
        if (strcmp(words, "ok") != 0)
            integrity_lines(check, words);
    }
    sqlite_file_reset(check->file, SQL_INTEGRITY_CHECK);
    if (is_damage(code)) {
        finding(check, "The structure of the file cannot be checked: %s.", sqlite3_errstr(code));
        code = SQLITE_DONE;
    }
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* --- rows --- */

static int check_owner(struct check *check, sqlite3_stmt *row, bool forward)
{
    (void)forward;
    if (sqlite3_column_int64(row, 1) < 0)
        finding(check, "The record of the owner is damaged: its epoch is negative.");
    return SQLITE_OK;
}

static int check_session(struct check *check, sqlite3_stmt *row, bool forward)
{
    struct store_session session = {.key = sqlite3_column_int64(row, 0),
                                    .id = (const char *)sqlite3_column_text(row, 1)};

    (void)forward;
    if (session.id == NULL && sqlite3_column_type(row, 1) == SQLITE_NULL)
        session.id = ""; /* cannot be, so its checksum is wrong */
    if (session.id == NULL || !row_span(row, 3, &session.record))
        return SQLITE_NOMEM;
    check->report.sessions++;
    check->report.bytes += session.record.size;
    if (!row_session_possible(&session) || row_checksum_session(&session) != row_number(row, 2))
        finding(check, "The record of session %" PRId64 " is damaged: its checksum is wrong.",
                session.key);
    return SQLITE_OK;
}

/* How many chunks of a checkpoint there are; none that can be counted is a finding of its own. */
static int count_chunks(struct check *check, uint64_t id, int64_t *out)
{
    struct row_binding binding = row_bind(check->file, SQL_CHECKPOINT_COUNT);

    row_bind_number(&binding, row_place(id, 0));
    row_bind_number(&binding, row_place(id, ROW_CHUNK_LAST));
    if (binding.code != SQLITE_OK)
        return binding.code;
    int code = sqlite_file_number(check->file, SQL_CHECKPOINT_COUNT, out);
    if (is_damage(code)) {
        finding(check, "The chunks of checkpoint %" PRIu64 " cannot be counted: %s.", id,
                sqlite3_errstr(code));
        *out = -1;
        code = SQLITE_DONE;
    }
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int check_checkpoint(struct check *check, sqlite3_stmt *row, bool forward)
{
    struct store_checkpoint checkpoint = row_checkpoint(row);
    int64_t chunks = 0;
    int code = SQLITE_OK;

    (void)forward;
    if (row_is_unsealed(row))
        return SQLITE_OK;
    check->report.checkpoints++;
    if (!row_checkpoint_good(row, &checkpoint)) {
        finding(check, "The record of checkpoint %" PRIu64 " is damaged: its checksum is wrong.",
                checkpoint.id);
        return SQLITE_OK;
    }
    if ((code = count_chunks(check, checkpoint.id, &chunks)) == SQLITE_OK && chunks >= 0 &&
        chunks != checkpoint.chunks)
        finding(check,
                "Checkpoint %" PRIu64 " of session %" PRId64 " has %" PRId64 " chunks, not %u.",
                checkpoint.id, checkpoint.session, chunks, checkpoint.chunks);
    return code;
}

/* Asks once for each checkpoint whether it is there: its chunks lie side by side. */
static int check_parent(struct check *check, uint64_t id)
{
    int64_t there = 0;

    if (id == check->checkpoint)
        return SQLITE_OK;
    check->checkpoint = id;
    struct row_binding binding = row_bind(check->file, SQL_CHECKPOINT_THERE);
    row_bind_number(&binding, id);
    if (binding.code != SQLITE_OK)
        return binding.code;
    int code = sqlite_file_number(check->file, SQL_CHECKPOINT_THERE, &there);
    if (code != SQLITE_DONE)
        return is_damage(code) ? SQLITE_OK : code; /* the table of checkpoints has told already */
    if (there == 0)
        finding(check, "There are chunks of checkpoint %" PRIu64 ", but no record of it.", id);
    return SQLITE_OK;
}

static int check_chunk(struct check *check, sqlite3_stmt *row, bool forward)
{
    uint64_t place = row_number(row, 0), id = place >> ROW_CHUNK_BITS;
    struct span body;

    (void)forward;
    if (!row_span(row, 2, &body))
        return SQLITE_NOMEM;
    check->report.bytes += body.size;
    if (row_checksum_chunk(place, body) != row_number(row, 1))
        finding(check,
                "Chunk %" PRIu64 " of checkpoint %" PRIu64 " is damaged: its checksum is wrong.",
                place & ROW_CHUNK_LAST, id);
    return check_parent(check, id);
}

/* An event that has its first chunk has all, one after the other. The last chunks of one may be
 * alone: a trim of the log's old end was cut short, and the server's next start goes on with it. */
static void check_sequence(struct check *check, const struct store_event *event)
{
    if (check->missing > 0 && (event == NULL || event->lsn != check->next_lsn)) {
        finding(check, "The event before lsn %" PRIu64 " lacks its last %" PRIu64 " chunks.",
                check->next_lsn, check->missing);
        check->missing = 0;
    }
    if (event == NULL)
        return;
    if (event->chunk == 0)
        check->missing = event->chunks;
    if (check->missing > 0)
        check->missing--;
    check->next_lsn = event->lsn + 1;
}

static int check_event(struct check *check, sqlite3_stmt *row, bool forward)
{
    struct store_event event = row_event(row);

    if (!row_span(row, 7, &event.head) || !row_span(row, 8, &event.body))
        return SQLITE_NOMEM;
    check->report.events += event.chunk == 0;
    check->report.bytes += event.head.size + event.body.size;
    if (!row_event_possible(&event) || row_checksum_event(&event) != row_number(row, 6)) {
        finding(check,
                "The event at lsn %" PRIu64 " (session %" PRId64 ", step %" PRIu64
                ") is damaged: its checksum is wrong.",
                event.lsn, event.session, event.step);
        check->missing = 0; /* what it says of its chunks means nothing */
    } else if (forward) {
        check_sequence(check, &event);
    }
    return SQLITE_OK;
}

static const struct table tables[] = {
    {"owner", "one", "SELECT one, epoch FROM owner", check_owner},
    {"session", "key", "SELECT key, id, checksum, record FROM session", check_session},
    {"checkpoint", "id",
     "SELECT id, session, lsn, step, chunks, bytes, checksum, sealed FROM checkpoint",
     check_checkpoint},
    {"checkpoint_chunk", "place", "SELECT place, checksum, body FROM checkpoint_chunk",
     check_chunk},
    {"journal", "lsn",
     "SELECT lsn, session, step, kind, chunk, chunks, checksum, head, body FROM journal",
     check_event},
};

/* Reads the table from one end until its other one, an error, or the key `stop`. *last: the key of
 * the last row that was read; what it was when there is none. */
static int check_rows(struct check *check, const struct table *table, bool forward, int64_t stop,
                      int64_t *last)
{
    char sql[192];
    sqlite3_stmt *row = NULL;
    int64_t key = forward ? INT64_MIN : INT64_MAX;

    snprintf(sql, sizeof sql, "%s ORDER BY %s %s", table->query, table->key,
             forward ? "ASC" : "DESC");
    int code = sqlite3_prepare_v2(check->file->db, sql, -1, &row, NULL);
    if (code != SQLITE_OK)
        return code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        int64_t found = sqlite3_column_int64(row, 0);
        if (!forward && found <= stop) {
            code = SQLITE_DONE;
            break;
        }
        if (forward ? found <= key : found >= key) {
            code = SQLITE_CORRUPT; /* SQLite follows a pointer into a tree as it is */
            break;
        }
        *last = key = found;
        int told = table->row(check, row, forward);
        if (told != SQLITE_OK) {
            code = told;
            break;
        }
        progress(check, "checksums", check->report.bytes);
    }
    sqlite3_finalize(row);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int check_table(struct check *check, const struct table *table)
{
    int64_t low = INT64_MIN, high = INT64_MAX;
    int code = check_rows(check, table, true, 0, &low);

    if (table->row == check_owner && code == SQLITE_OK && low != 1)
        finding(check, "The record of the owner is missing.");
    if (!is_damage(code))
        return code;
    const char *why = sqlite3_errstr(code);
    code = check_rows(check, table, false, low, &high);
    if (low == INT64_MIN && high == INT64_MAX)
        finding(check, "The table %s cannot be read: %s.", table->name, why);
    else if (low == INT64_MIN)
        finding(check, "The table %s cannot be read before %s %" PRId64 ": %s.", table->name,
                table->key, high, why);
    else if (high == INT64_MAX)
        finding(check, "The table %s cannot be read after %s %" PRId64 ": %s.", table->name,
                table->key, low, why);
    else
        finding(check, "The table %s cannot be read between %s %" PRId64 " and %" PRId64 ": %s.",
                table->name, table->key, low, high, why);
    check->missing = 0;
    return is_damage(code) ? SQLITE_OK : code;
}

/* About the bytes in use, for the progress; 0 when the file does not say. */
static uint64_t bytes_in_use(struct sqlite_file *file)
{
    int64_t pages = 0, unused = 0;

    if (sqlite_file_number(file, SQL_PAGES, &pages) != SQLITE_DONE ||
        sqlite_file_number(file, SQL_PAGES_FREE, &unused) != SQLITE_DONE || pages < unused)
        return 0;
    return (uint64_t)(pages - unused) * SQLITE_PAGE_BYTES;
}

enum status sqlite_file_verify(struct sqlite_file *file, const struct store_watch *watch,
                               struct store_report *report, struct fault *fault)
{
    static const struct store_watch nobody = {0};
    struct check check = {.file = file, .watch = watch != NULL ? watch : &nobody};

    check.total = bytes_in_use(file);
    int code = integrity_check(&check);
    for (size_t i = 0; i < sizeof tables / sizeof *tables && code == SQLITE_OK; i++)
        code = check_table(&check, &tables[i]);
    check_sequence(&check, NULL);
    if (code != SQLITE_OK)
        return sqlite_file_fault(file, code, fault);
    progress(&check, "checksums", check.total);
    *report = check.report;
    return STATUS_OK;
}

enum status sqlite_verify(struct store *store, const struct store_watch *watch,
                          struct store_report *report, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);

    turn_take(&self->turn);
    enum status status = sqlite_file_verify(&self->file, watch, report, fault);
    turn_pass(&self->turn);
    return status;
}
