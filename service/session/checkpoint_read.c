/* Reading a checkpoint: the stream that checkpoint.c writes, into a state of its own. */
#include <stdlib.h>
#include <string.h>

#include "service/session/replay.h"
#include "service/session/session.h"
#include "storage/store.h"

/* Reads a checkpoint's stream in order. */
struct stream {
    struct store *store;
    const struct checkpoint_place *place;
    uint32_t chunk;      /* the next to read */
    unsigned char *data; /* STORE_CHUNK_BYTES */
    size_t used, size;
};

static enum status stream_read(struct stream *stream, void *out, size_t size, struct fault *fault)
{
    unsigned char *to = out;
    enum status status;

    while (size > 0) {
        if (stream->used == stream->size) {
            if (stream->chunk == stream->place->chunks)
                return fault_set(fault, STATUS_STORAGE_FAILED, "", "a checkpoint is too short");
            stream->used = 0;
            status = stream->store->backend->checkpoint_read(stream->store, stream->place->id,
                                                             stream->chunk++, stream->data,
                                                             &stream->size, fault);
            if (status == STATUS_INTERNAL) /* memory is out: nothing is wrong with what is stored */
                return status;
            if (status != STATUS_OK)
                return fault_set(fault, STATUS_STORAGE_FAILED, "", "checkpoint %llu: %.300s",
                                 (unsigned long long)stream->place->id, fault->detail);
        }
        size_t piece = stream->size - stream->used;
        if (piece > size)
            piece = size;
        memcpy(to, stream->data + stream->used, piece);
        stream->used += piece;
        to += piece;
        size -= piece;
    }
    return STATUS_OK;
}

static enum status read_head(struct stream *stream, struct checkpoint_head *head,
                             struct ledger *ledger, struct fault *fault)
{
    unsigned char prefix[8];
    unsigned char *bytes = NULL;
    enum status status = stream_read(stream, prefix, sizeof prefix, fault);

    if (status != STATUS_OK)
        return status;
    struct unpacker unpacker = {.data = prefix, .size = sizeof prefix};
    uint64_t size = unpack_u64(&unpacker);
    if (size > stream->place->bytes)
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "a checkpoint's head is damaged");
    if ((bytes = malloc(size)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = stream_read(stream, bytes, size, fault)) == STATUS_OK)
        status = checkpoint_head_unpack(span_of(bytes, size), head, ledger, fault);
    free(bytes);
    return status;
}

enum status replay_misfit(struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "a stored configuration is not one of this session");
}

enum status checkpoint_read(struct replay *replay, const struct checkpoint_place *place,
                            struct fault *fault)
{
    struct session *session = replay->session;
    struct stream stream = {.store = session->engine->store, .place = place, .data = replay->chunk};
    struct checkpoint_head head;
    struct ledger ledger = {.keys = NULL};
    struct vector vectors[VECTORS_MAX];
    enum status status = read_head(&stream, &head, &ledger, fault);

    if (status != STATUS_OK)
        return status;
    replay->loaded.spec = head.spec;
    replay->hashed = head.hashed;
    replay->state_hash = head.state_hash;
    if (!session_fits(session, &head.spec)) {
        free(head.cursor);
        snapshot_drop(&head.snapshot);
        ledger_close(&ledger);
        return replay_misfit(fault);
    }
    status = state_of_head(session->plan, &head, &ledger, &replay->loaded.state, fault);
    size_t count = status != STATUS_OK
                       ? 0
                       : state_vectors(replay->loaded.state, session->plan, head.slots, vectors);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = stream_read(&stream, vectors[i].data->data, vectors[i].size, fault);
    return status;
}
