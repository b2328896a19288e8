/* Bringing a state back: the newest checkpoint, then every event after it, through the same
 * event_apply as live steps. */
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/point.h"
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

static enum status misfit(struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "a stored configuration is not one of this session");
}

/* The revisions before the current one, the newest first. */
static enum status load_bases(struct state *state, const struct checkpoint_head *head,
                              struct stream *stream, size_t vector, struct fault *fault)
{
    enum status status = STATUS_OK;

    while (state->base_count < head->base_count && status == STATUS_OK) {
        struct revision *base = revision_new(vector, false);
        if (base == NULL)
            return fault_set(fault, STATUS_INTERNAL, "", "out of memory for earlier weights");
        base->step = head->step - 1 - state->base_count;
        base->lineage = head->lineage;
        state->base[state->base_count++] = base;
        status = stream_read(stream, base->weights->data, vector, fault);
    }
    return status;
}

static enum status load_checkpoint(struct session *session, struct stream *stream,
                                   struct state *state, struct spec *spec, struct fault *fault)
{
    size_t vector = session->layout->count * dtype_size(session->dtype);
    size_t element = dtype_size(session->dtype);
    struct checkpoint_head head;
    struct addition added = {.workspace = NULL};
    enum status status = read_head(stream, &head, &state->ledger, fault);

    if (status != STATUS_OK)
        return status;
    state->cursor = head.cursor;
    state->last = head.last;
    state->updates = head.updates;
    memcpy(state->scalar, head.scalar, sizeof state->scalar);
    *spec = head.spec;
    if (!session_fits(session, spec))
        return misfit(fault);
    if ((state->current = revision_new(vector, spec->ema.on)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for the weights");
    state->current->step = head.step;
    state->current->lineage = head.lineage;
    state->current->average_divisor = spec_average_divisor(spec, head.updates);
    if ((status = stream_read(stream, state->current->weights->data, vector, fault)) != STATUS_OK)
        return status;
    if (spec->ema.on &&
        (status = stream_read(stream, state->current->average->data, vector, fault)) != STATUS_OK)
        return status;
    if ((status = load_bases(state, &head, stream, vector, fault)) != STATUS_OK ||
        (status = state_lacks(state, session->plan, spec, &added, fault)) != STATUS_OK)
        return status;
    state_fit(state, session->plan, spec, &added);
    for (size_t k = 0; k < SLOTS_MAX && status == STATUS_OK; k++)
        if (head.slots >> k & 1) {
            if (state->slot[k] == NULL)
                return fault_set(fault, STATUS_STORAGE_FAILED, "",
                                 "a checkpoint has a slot that its rule does not have");
            status = stream_read(stream, state->slot[k]->data,
                                 session->plan->slot_count[k] * element, fault);
        }
    return status;
}

/* Reads one event: its head into the caller's memory (event->cursor points there), its body into a
 * buffer. */
static enum status read_event(struct session *session, const struct event_place *place,
                              unsigned char head[STORE_HEAD_BYTES], unsigned char *chunk_data,
                              struct event *event, struct buffer **body, struct fault *fault)
{
    struct store *store = session->engine->store;
    size_t used = 0;
    enum status status = STATUS_OK;

    *body = NULL;
    for (uint32_t chunk = 0; chunk < place->chunks && status == STATUS_OK; chunk++) {
        unsigned char other_head[STORE_HEAD_BYTES];
        struct store_event row;
        status = store->backend->event_read(
            store, place->lsn + chunk, chunk == 0 ? head : other_head, chunk_data, &row, fault);
        if (status != STATUS_OK)
            break;
        if (row.session != session->key || row.chunk != chunk || row.chunks != place->chunks) {
            status =
                fault_set(fault, STATUS_STORAGE_FAILED, "", "the journal is damaged at lsn %llu",
                          (unsigned long long)(place->lsn + chunk));
            break;
        }
        if (chunk == 0) {
            if ((status = event_unpack(row.head, event, fault)) != STATUS_OK)
                break;
            size_t room =
                place->chunks > 1 ? (size_t)place->chunks * STORE_CHUNK_BYTES : row.body.size;
            if ((*body = buffer_new(room)) == NULL) {
                status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
                break;
            }
        }
        if (row.body.size > 0)
            memcpy((*body)->data + used, row.body.data, row.body.size);
        used += row.body.size;
    }
    if (status == STATUS_OK)
        buffer_shrink(*body, used);
    return status;
}

static enum status replay_spec(struct session *session, struct state *state, struct spec *spec,
                               const struct buffer *body, struct fault *fault)
{
    struct unpacker unpacker = {.data = body->data, .size = body->size};
    struct addition added = {.workspace = NULL};
    enum status status = spec_unpack(&unpacker, spec, fault);

    if (status == STATUS_OK && !session_fits(session, spec))
        status = misfit(fault);
    if (status == STATUS_OK)
        status = state_lacks(state, session->plan, spec, &added, fault);
    if (status == STATUS_OK)
        state_fit(state, session->plan, spec, &added);
    return status;
}

static enum status replay_step(struct session *session, struct state *state,
                               const struct spec *spec, const struct event *event,
                               struct buffer *body, struct fault *fault)
{
    size_t count = session->layout->count;
    bool applies = event->kind == EVENT_GRADIENT;
    struct revision *next;
    struct receipt receipt;
    char *cursor = NULL;

    if (event->step != state->current->step + 1 ||
        body->size < event_body_size(session->plan, count, event) || !event_base_kept(state, event))
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "the journal does not fit the state: step %llu follows step %llu",
                         (unsigned long long)event->step, (unsigned long long)state->current->step);
    next = revision_new(applies ? count * dtype_size(session->dtype) : 0, spec->ema.on);
    if (event->cursor != NULL)
        cursor = strndup(event->cursor, event->cursor_size);
    if (next == NULL || (event->cursor != NULL && cursor == NULL) ||
        !ledger_reserve(&state->ledger, 1)) {
        revision_release(next);
        free(cursor);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    if (BUG(replay_twice))
        event_apply(state, session->plan, spec, count, event, body, 0, next, &receipt);
    event_apply(state, session->plan, spec, count, event, body, 0, next, &receipt);
    state_publish(state, event, next, &receipt, cursor);
    return STATUS_OK;
}

static enum status replay_event(struct session *session, struct state *state, struct spec *spec,
                                const struct event_place *place, unsigned char *chunk_data,
                                struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    struct event event;
    struct buffer *body;
    enum status status = read_event(session, place, head, chunk_data, &event, &body, fault);

    if (status == STATUS_OK && !(BUG(forget_spec) && event.kind == EVENT_SPEC))
        status = event.kind == EVENT_SPEC ? replay_spec(session, state, spec, body, fault)
                                          : replay_step(session, state, spec, &event, body, fault);
    buffer_release(body);
    return status;
}

enum status session_load(struct session *session, struct state **out, struct fault *fault)
{
    struct stream stream = {.store = session->engine->store, .place = session->checkpoints};
    struct state *state = state_new();
    struct spec spec;
    uint64_t replayed = 0, bytes = 0;
    enum status status;

    stream.data = malloc(STORE_CHUNK_BYTES);
    if (state == NULL || stream.data == NULL)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    else if (stream.place == NULL)
        status = fault_set(fault, STATUS_STORAGE_FAILED, "", "no checkpoint is stored");
    else
        status = load_checkpoint(session, &stream, state, &spec, fault);
    POINT(after_checkpoint_read);
    for (const struct event_place *place = session->events; place != NULL && status == STATUS_OK;
         place = place->next)
        if (place->lsn > stream.place->lsn &&
            !(BUG(drop_event_on_recovery) && place->next == NULL)) {
            status = replay_event(session, state, &spec, place, stream.data, fault);
            replayed++;
            POINT(after_replayed_event);
            bytes += place->bytes;
        }
    free(stream.data);
    if (status != STATUS_OK) {
        state_free(state);
        if (fault != NULL)
            log_error("session %s cannot be loaded: %s", session->id, fault->detail);
        return status;
    }
    pthread_mutex_lock(&session->mutex);
    session->dirty = replayed;
    session->journal_since = bytes;
    pthread_mutex_unlock(&session->mutex);
    log_debug("session %s loaded at step %llu, %llu events replayed", session->id,
              (unsigned long long)state->current->step, (unsigned long long)replayed);
    *out = state;
    return STATUS_OK;
}
