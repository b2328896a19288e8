/* The write verbs. */
#include "storage/sqlite_store.h"

#include <string.h>

#include "service/core/contract.h"
#include "storage/sqlite_row.h"

/* Runs what was bound, then lets go of it. */
static int write_step(struct sqlite_store *self, enum sqlite_statement statement, int code)
{
    PRE(self->open);
    if (self->spoiled)
        code =
            SQLITE_ABORT; /* SQLite may have rolled back: this would be a transaction of its own */
    if (code == SQLITE_OK)
        return sqlite_file_run(&self->file, statement);
    sqlite_file_reset(&self->file, statement);
    return code;
}

static enum status write_run(struct sqlite_store *self, enum sqlite_statement statement,
                             const struct row_binding *binding, struct fault *fault)
{
    return sqlite_store_written(self, write_step(self, statement, binding->code), fault);
}

enum status sqlite_session_put(struct store *store, const struct store_session *session,
                               struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct row_binding binding = row_bind(&self->file, SQL_SESSION_PUT);

    PRE(row_session_possible(session));
    row_bind_number(&binding, (uint64_t)session->key);
    if (binding.code == SQLITE_OK)
        binding.code =
            sqlite3_bind_text(binding.statement, ++binding.at, session->id, -1, SQLITE_STATIC);
    row_bind_number(&binding, row_checksum_session(session));
    row_bind_bytes(&binding, session->record);
    int code = write_step(self, SQL_SESSION_PUT, binding.code);
    if (code != SQLITE_CONSTRAINT_UNIQUE)
        return sqlite_store_written(self, code, fault);
    self->spoiled = true;
    return fault_set(fault, STATUS_SESSION_EXISTS, "", "There is a session \"%s\" already.",
                     session->id);
}

enum status sqlite_session_drop(struct store *store, int64_t key, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct row_binding binding = row_bind(&self->file, SQL_SESSION_DROP);

    row_bind_number(&binding, (uint64_t)key);
    return write_run(self, SQL_SESSION_DROP, &binding, fault);
}

enum status sqlite_event_append(struct store *store, const struct store_event *event,
                                struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct row_binding binding = row_bind(&self->file, SQL_EVENT_APPEND);

    if (event->lsn <= self->lsn_last || event->lsn > INT64_MAX)
        return sqlite_store_misuse(self, fault, "to append an event that is not the newest");
    PRE(row_event_possible(event));
    row_bind_number(&binding, event->lsn);
    row_bind_number(&binding, (uint64_t)event->session);
    row_bind_number(&binding, event->step);
    row_bind_number(&binding, row_kind(event));
    row_bind_number(&binding, event->chunk);
    row_bind_number(&binding, event->chunks);
    row_bind_number(&binding, row_checksum_event(event));
    row_bind_bytes(&binding, event->head);
    row_bind_bytes(&binding, event->body);
    enum status status = write_run(self, SQL_EVENT_APPEND, &binding, fault);
    if (status == STATUS_OK)
        self->lsn_last = event->lsn;
    return status;
}

enum status sqlite_event_drop(struct store *store, uint64_t first, uint64_t last,
                              struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct row_binding binding = row_bind(&self->file, SQL_EVENT_DROP);

    row_bind_number(&binding, row_lsn(first));
    row_bind_number(&binding, row_lsn(last));
    return write_run(self, SQL_EVENT_DROP, &binding, fault);
}

/* The first and the last place of a checkpoint's chunks. */
static struct row_binding bind_places(struct sqlite_store *self, enum sqlite_statement statement,
                                      uint64_t id)
{
    struct row_binding binding = row_bind(&self->file, statement);

    row_bind_number(&binding, row_place(id, 0));
    row_bind_number(&binding, row_place(id, ROW_CHUNK_LAST));
    return binding;
}

enum status sqlite_checkpoint_put(struct store *store, uint64_t id, int64_t session, uint32_t chunk,
                                  struct span body, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    uint64_t place = row_place(id, chunk);

    PRE(session > 0 && body.size <= STORE_CHUNK_BYTES);
    struct row_binding opening = row_bind(&self->file, SQL_CHECKPOINT_OPEN);
    row_bind_number(&opening, id);
    row_bind_number(&opening, (uint64_t)session);
    enum status status = write_run(self, SQL_CHECKPOINT_OPEN, &opening, fault);
    if (status != STATUS_OK)
        return status;
    struct row_binding binding = row_bind(&self->file, SQL_CHECKPOINT_PUT);
    row_bind_number(&binding, place);
    row_bind_number(&binding, row_checksum_chunk(place, body));
    row_bind_bytes(&binding, body);
    return write_run(self, SQL_CHECKPOINT_PUT, &binding, fault);
}

enum status sqlite_checkpoint_seal(struct store *store, const struct store_checkpoint *checkpoint,
                                   struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    int64_t chunks = 0;

    PRE(self->open && checkpoint->session > 0 && checkpoint->lsn <= INT64_MAX);
    struct row_binding counting = bind_places(self, SQL_CHECKPOINT_COUNT, checkpoint->id);
    int code = counting.code;
    if (code == SQLITE_OK)
        code = sqlite_file_number(&self->file, SQL_CHECKPOINT_COUNT, &chunks);
    if (code != SQLITE_DONE)
        return sqlite_store_written(self, code, fault);
    if (chunks != checkpoint->chunks)
        return sqlite_store_misuse(self, fault, "to seal a checkpoint that is not complete");
    struct row_binding binding = row_bind(&self->file, SQL_CHECKPOINT_SEAL);
    row_bind_number(&binding, checkpoint->id);
    row_bind_number(&binding, (uint64_t)checkpoint->session);
    row_bind_number(&binding, checkpoint->lsn);
    row_bind_number(&binding, checkpoint->step);
    row_bind_number(&binding, checkpoint->chunks);
    row_bind_number(&binding, checkpoint->bytes);
    row_bind_number(&binding, row_checksum_checkpoint(checkpoint));
    return write_run(self, SQL_CHECKPOINT_SEAL, &binding, fault);
}

enum status sqlite_checkpoint_drop(struct store *store, uint64_t id, struct fault *fault)
{
    struct sqlite_store *self = sqlite_store_of(store);
    struct row_binding row = row_bind(&self->file, SQL_CHECKPOINT_DROP);

    row_bind_number(&row, id);
    enum status status = write_run(self, SQL_CHECKPOINT_DROP, &row, fault);
    if (status != STATUS_OK)
        return status;
    struct row_binding chunks = bind_places(self, SQL_CHECKPOINT_CLEAR, id);
    return write_run(self, SQL_CHECKPOINT_CLEAR, &chunks, fault);
}
