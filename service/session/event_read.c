/* Reading events back from the journal. */
#include <string.h>

#include "service/session/replay.h"
#include "service/session/session.h"
#include "storage/store.h"

/* The head of an event, which is of the kind that its row says. */
static enum status unpack(const struct event_place *place, struct span head, struct event *event,
                          struct fault *fault)
{
    enum status status = event_unpack(head, event, fault);

    if (status != STATUS_OK || event->kind == place->kind)
        return status;
    return fault_set(fault, STATUS_STORAGE_FAILED, "", "the journal is damaged at lsn %llu",
                     (unsigned long long)place->lsn);
}

/* A row of the journal that must be there. */
static enum status read_row(struct session *session, uint64_t lsn,
                            unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                            struct store_event *row, struct fault *fault)
{
    struct store *store = session->engine->store;
    enum status status = store->backend->event_read(store, lsn, head, chunk_data, row, fault);

    return status != STATUS_NOT_FOUND ? status
                                      : fault_set(fault, STATUS_STORAGE_FAILED, "",
                                                  "the journal lacks lsn %llu; descent verify says "
                                                  "more",
                                                  (unsigned long long)lsn);
}

enum { IN_PLACE_FROM = 128 * 1024 }; /* bytes; what is smaller is copied rather than given room */

enum status session_read_event(struct session *session, const struct event_place *place,
                               unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                               struct event *event, struct buffer **body, struct fault *fault)
{
    size_t used = 0;
    enum status status = STATUS_OK;
    /* A large body is read to where it belongs: there is room for every chunk in full. */
    bool in_place = place->chunks > 1 || place->bytes >= IN_PLACE_FROM;

    *body = NULL;
    if (in_place && (*body = buffer_new((size_t)place->chunks * STORE_CHUNK_BYTES)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (uint32_t chunk = 0; chunk < place->chunks && status == STATUS_OK; chunk++) {
        unsigned char other_head[STORE_HEAD_BYTES];
        unsigned char *to = in_place ? (*body)->data + used : chunk_data;
        struct store_event row;
        status =
            read_row(session, place->lsn + chunk, chunk == 0 ? head : other_head, to, &row, fault);
        if (status == STATUS_OK &&
            (row.session != session->key || row.chunk != chunk || row.chunks != place->chunks))
            status =
                fault_set(fault, STATUS_STORAGE_FAILED, "", "the journal is damaged at lsn %llu",
                          (unsigned long long)(place->lsn + chunk));
        if (status == STATUS_OK && chunk == 0)
            status = unpack(place, row.head, event, fault);
        if (status != STATUS_OK)
            break;
        if (!in_place && (*body = buffer_new(row.body.size)) == NULL)
            status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        else if (!in_place && row.body.size > 0)
            memcpy((*body)->data, row.body.data, row.body.size);
        used += row.body.size;
    }
    if (status == STATUS_OK) {
        buffer_shrink(*body, used);
    } else {
        buffer_release(*body);
        *body = NULL;
    }
    return status;
}

enum status session_read_head(struct session *session, const struct event_place *place,
                              unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                              struct event *event, struct fault *fault)
{
    struct store_event row;
    enum status status = read_row(session, place->lsn, head, chunk_data, &row, fault);

    if (status == STATUS_OK && (row.session != session->key || row.chunk != 0))
        status = fault_set(fault, STATUS_STORAGE_FAILED, "", "the journal is damaged at lsn %llu",
                           (unsigned long long)place->lsn);
    return status == STATUS_OK ? unpack(place, row.head, event, fault) : status;
}
