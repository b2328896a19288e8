/* The read verbs: nothing is handed out whose checksum is wrong. */
#include "storage/sqlite_store.h"

#include <inttypes.h>
#include <string.h>

#include "service/core/point.h"
#include "storage/sqlite_row.h"

static enum status damaged(struct sqlite_store *self, const char *what, uint64_t number,
                           struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "%s %" PRIu64 " in %s is damaged: its checksum is wrong. Restore the file "
                     "from a backup.",
                     what, number, self->file.path);
}

static enum status visit_session(struct sqlite_store *self, sqlite3_stmt *row,
                                 const struct store_visitor *visitor, struct fault *fault)
{
    struct store_session session = {
        .key = sqlite3_column_int64(row, 0),
        .id = (const char *)sqlite3_column_text(row, 1),
    };

    if (session.id == NULL || !row_span(row, 3, &session.record))
        return sqlite_file_fault(&self->file, SQLITE_NOMEM, fault);
    if (!row_session_possible(&session) || row_checksum_session(&session) != row_number(row, 2))
        return damaged(self, "The record of session", (uint64_t)session.key, fault);
    return visitor->session(visitor->context, &session);
}

static enum status visit_checkpoint(struct sqlite_store *self, sqlite3_stmt *row,
                                    const struct store_visitor *visitor, struct fault *fault)
{
    struct store_checkpoint checkpoint = row_checkpoint(row);

    if (!row_checkpoint_good(row, &checkpoint))
        return damaged(self, "The record of checkpoint", checkpoint.id, fault);
    return visitor->checkpoint(visitor->context, &checkpoint);
}

/* Whether the numbers of a journal row are those that were written. The row's checksum includes
 * head and body, which a scan does not read; of a row of before there was one of the numbers alone
 * it must, for they say which rows go when a session does. */
static enum status check_numbers(struct sqlite_store *self, const struct store_event *event,
                                 uint64_t kind, bool *good, struct fault *fault)
{
    struct row_binding binding = row_bind(&self->file, SQL_EVENT_READ);

    *good = row_event_possible(event) && row_kind_valid(event, kind);
    if (!*good || kind >> 32 != 0)
        return STATUS_OK;
    row_bind_number(&binding, event->lsn);
    int code = binding.code == SQLITE_OK ? sqlite3_step(binding.statement) : binding.code;
    struct store_event whole = *event;
    if (code == SQLITE_ROW && (!row_span(binding.statement, 7, &whole.head) ||
                               !row_span(binding.statement, 8, &whole.body)))
        code = SQLITE_NOMEM;
    *good = code == SQLITE_ROW && row_checksum_event(&whole) == row_number(binding.statement, 6);
    sqlite_file_reset(&self->file, SQL_EVENT_READ);
    return code == SQLITE_ROW || code == SQLITE_DONE /* a damaged tree hides it from a search */
               ? STATUS_OK
               : sqlite_file_fault(&self->file, code, fault);
}

static enum status visit_event(struct sqlite_store *self, sqlite3_stmt *row,
                               const struct store_visitor *visitor, struct fault *fault)
{
    struct store_event event = row_event(row);
    bool good;

    event.head.size = row_number(row, 6);
    event.body.size = row_number(row, 7);
    enum status status = check_numbers(self, &event, row_number(row, 3), &good, fault);
    if (status != STATUS_OK)
        return status;
    if (!good)
        return damaged(self, "The record of the event at lsn", event.lsn, fault);
    if (event.chunk == 0)
        return visitor->event(visitor->context, &event);
    return visitor->chunk != NULL ? visitor->chunk(visitor->context, &event) : STATUS_OK;
}

static enum status scan_rows(struct sqlite_store *self, enum sqlite_statement statement,
                             enum status (*visit)(struct sqlite_store *, sqlite3_stmt *,
                                                  const struct store_visitor *, struct fault *),
                             const struct store_visitor *visitor, struct fault *fault)
{
    sqlite3_stmt *row = self->file.statement[statement];
    enum status status = STATUS_OK;
    int code = SQLITE_ROW;

    while (status == STATUS_OK && (code = sqlite3_step(row)) == SQLITE_ROW)
        status = visit(self, row, visitor, fault);
    if (status == STATUS_OK && code != SQLITE_DONE)
        status = sqlite_file_fault(&self->file, code, fault);
    sqlite_file_reset(&self->file, statement);
    return status;
}

enum status sqlite_scan(struct store *store, const struct store_visitor *visitor,
                        struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);

    turn_take(&self->turn);
    enum status status = scan_rows(self, SQL_SESSION_SCAN, visit_session, visitor, fault);
    if (status == STATUS_OK)
        status = scan_rows(self, SQL_CHECKPOINT_SCAN, visit_checkpoint, visitor, fault);
    if (status == STATUS_OK)
        status = scan_rows(self, SQL_EVENT_SCAN, visit_event, visitor, fault);
    turn_pass(&self->turn);
    return status;
}

/* Steps to the one row that was bound for. */
static enum status read_row(struct sqlite_store *self, const struct row_binding *binding,
                            const char *what, uint64_t number, struct fault *fault)
{
    int code = binding->code;

    if (code == SQLITE_OK)
        code = sqlite3_step(binding->statement);
    if (code == SQLITE_ROW)
        return STATUS_OK;
    if (code == SQLITE_DONE)
        return fault_set(fault, STATUS_NOT_FOUND, "", "%s %" PRIu64 " is not stored.", what,
                         number);
    return sqlite_file_fault(&self->file, code, fault);
}

enum status sqlite_event_read(struct store *store, uint64_t lsn,
                              unsigned char head[STORE_HEAD_BYTES],
                              unsigned char body[STORE_CHUNK_BYTES], struct store_event *event,
                              struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);

    turn_take(&self->turn);
    struct row_binding binding = row_bind(&self->file, SQL_EVENT_READ);
    row_bind_number(&binding, row_lsn(lsn));
    enum status status = read_row(self, &binding, "The event at lsn", lsn, fault);
    if (status != STATUS_OK)
        goto done;
    struct store_event found = row_event(binding.statement);
    if (!row_span(binding.statement, 7, &found.head) ||
        !row_span(binding.statement, 8, &found.body)) {
        status = sqlite_file_fault(&self->file, SQLITE_NOMEM, fault);
        goto done;
    }
    if ((row_checksum_event(&found) != row_number(binding.statement, 6) && !BUG(no_checksum)) ||
        !row_event_possible(&found)) {
        status = damaged(self, "The event at lsn", lsn, fault);
        goto done;
    }
    if (found.head.size > 0)
        memcpy(head, found.head.data, found.head.size);
    if (found.body.size > 0)
        memcpy(body, found.body.data, found.body.size);
    found.head.data = head;
    found.body.data = body;
    *event = found;
done:
    sqlite_file_reset(&self->file, SQL_EVENT_READ);
    turn_pass(&self->turn);
    return status;
}

enum status sqlite_checkpoint_read(struct store *store, uint64_t id, uint32_t chunk,
                                   unsigned char body[STORE_CHUNK_BYTES], size_t *size,
                                   struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    uint64_t place = row_place(id, chunk);
    struct span found;

    turn_take(&self->turn);
    struct row_binding binding = row_bind(&self->file, SQL_CHECKPOINT_READ);
    row_bind_number(&binding, place);
    enum status status = read_row(self, &binding, "The chunk of checkpoint", id, fault);
    if (status != STATUS_OK)
        goto done;
    if (!row_span(binding.statement, 1, &found))
        status = sqlite_file_fault(&self->file, SQLITE_NOMEM, fault);
    else if ((row_checksum_chunk(place, found) != row_number(binding.statement, 0) &&
              !BUG(no_checksum)) ||
             found.size > STORE_CHUNK_BYTES)
        status = damaged(self, "Checkpoint", id, fault);
    if (status != STATUS_OK)
        goto done;
    if (found.size > 0)
        memcpy(body, found.data, found.size);
    *size = found.size;
done:
    sqlite_file_reset(&self->file, SQL_CHECKPOINT_READ);
    turn_pass(&self->turn);
    return status;
}
