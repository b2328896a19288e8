/* Parameters, columns and checksums. */
#include "storage/sqlite_row.h"

#include <endian.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/hash.h"

struct row_binding row_bind(struct sqlite_file *file, enum sqlite_statement statement)
{
    return (struct row_binding){.statement = file->statement[statement], .code = SQLITE_OK};
}

void row_bind_number(struct row_binding *binding, uint64_t value)
{
    if (binding->code == SQLITE_OK)
        binding->code = sqlite3_bind_int64(binding->statement, ++binding->at, (int64_t)value);
}

void row_bind_bytes(struct row_binding *binding, struct span bytes)
{
    if (binding->code == SQLITE_OK)
        binding->code = sqlite3_bind_blob64(binding->statement, ++binding->at,
                                            bytes.size > 0 ? bytes.data : (const void *)"",
                                            bytes.size, SQLITE_STATIC);
}

/* The XXH3-64 of a row: its numbers, and the XXH3-64 of each of its blobs, as little-endian words.
 */
static uint64_t row_checksum(const uint64_t *words, size_t count)
{
    uint64_t little[8];

    PRE(count <= sizeof little / sizeof *little);
    for (size_t i = 0; i < count; i++)
        little[i] = htole64(words[i]);
    return hash_u64(little, count * sizeof *little);
}

#define ROW_CHECKSUM(...)                                                                          \
    row_checksum((const uint64_t[]){__VA_ARGS__},                                                  \
                 sizeof(const uint64_t[]){__VA_ARGS__} / sizeof(uint64_t))

static uint64_t bytes_checksum(struct span bytes)
{
    return hash_u64(bytes.size > 0 ? bytes.data : (const void *)"", bytes.size);
}

uint64_t row_checksum_event(const struct store_event *event)
{
    return ROW_CHECKSUM(event->lsn, (uint64_t)event->session, event->step, event->kind,
                        event->chunk, event->chunks, bytes_checksum(event->head),
                        bytes_checksum(event->body));
}

uint64_t row_kind(const struct store_event *event)
{
    uint64_t sum = ROW_CHECKSUM(event->lsn, (uint64_t)event->session, event->step, event->kind,
                                event->chunk, event->chunks) >>
                   32;

    return (sum > 0 ? sum : 1) << 32 | event->kind;
}

bool row_kind_valid(const struct store_event *event, uint64_t column)
{
    return column >> 32 == 0 || column == row_kind(event);
}

bool row_event_possible(const struct store_event *event)
{
    return event->session > 0 && event->kind > 0 && event->chunk < event->chunks &&
           event->chunk < event->lsn && event->lsn <= INT64_MAX &&
           event->head.size <= (event->chunk == 0 ? STORE_HEAD_BYTES : 0) &&
           event->body.size <= STORE_CHUNK_BYTES;
}

bool row_session_possible(const struct store_session *session)
{
    return session->key > 0 && strlen(session->id) <= STORE_ID_BYTES &&
           session->record.size <= STORE_CHUNK_BYTES;
}

uint64_t row_checksum_session(const struct store_session *session)
{
    return ROW_CHECKSUM((uint64_t)session->key, bytes_checksum(span_text(session->id)),
                        bytes_checksum(session->record));
}

uint64_t row_checksum_checkpoint(const struct store_checkpoint *checkpoint)
{
    return ROW_CHECKSUM(checkpoint->id, (uint64_t)checkpoint->session, checkpoint->lsn,
                        checkpoint->step, checkpoint->chunks, checkpoint->bytes);
}

uint64_t row_checksum_chunk(uint64_t place, struct span body)
{
    return ROW_CHECKSUM(place, bytes_checksum(body));
}

/* Whether a checkpoint may have this id. */
static bool place_exists(uint64_t id)
{
    return id > 0 && id >> (63 - ROW_CHUNK_BITS) == 0;
}

uint64_t row_place(uint64_t id, uint32_t chunk)
{
    PRE(place_exists(id) && chunk <= ROW_CHUNK_LAST);
    return id << ROW_CHUNK_BITS | chunk;
}

uint64_t row_lsn(uint64_t lsn)
{
    return lsn > INT64_MAX ? INT64_MAX : lsn;
}

uint64_t row_number(sqlite3_stmt *row, int column)
{
    return (uint64_t)sqlite3_column_int64(row, column);
}

bool row_span(sqlite3_stmt *row, int column, struct span *out)
{
    const void *data = sqlite3_column_blob(row, column);
    int size = sqlite3_column_bytes(row, column);

    *out = span_of(data, (size_t)size);
    return size == 0 || data != NULL;
}

struct store_event row_event(sqlite3_stmt *row)
{
    return (struct store_event){
        .lsn = row_number(row, 0),
        .session = sqlite3_column_int64(row, 1),
        .step = row_number(row, 2),
        .kind = (uint32_t)row_number(row, 3),
        .chunk = (uint32_t)row_number(row, 4),
        .chunks = (uint32_t)row_number(row, 5),
    };
}

struct store_checkpoint row_checkpoint(sqlite3_stmt *row)
{
    return (struct store_checkpoint){
        .id = row_number(row, 0),
        .session = sqlite3_column_int64(row, 1),
        .lsn = row_number(row, 2),
        .step = row_number(row, 3),
        .chunks = (uint32_t)row_number(row, 4),
        .bytes = row_number(row, 5),
    };
}

bool row_is_unsealed(sqlite3_stmt *row)
{
    bool zeros = true;

    for (int column = 2; column <= 7; column++)
        zeros = zeros && sqlite3_column_int64(row, column) == 0;
    return zeros;
}

bool row_checkpoint_good(sqlite3_stmt *row, const struct store_checkpoint *checkpoint)
{
    return sqlite3_column_int64(row, 7) == 1 && place_exists(checkpoint->id) &&
           checkpoint->session > 0 && row_checksum_checkpoint(checkpoint) == row_number(row, 6);
}
