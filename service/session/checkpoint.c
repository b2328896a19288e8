/* Saving a state: one stream of bytes,
 *
 *     u64 size of the head | head | weights | their average, if any | bases, the newest first |
 *     slots that are stored, in declaration order
 *
 * cut into chunks. A small state is one chunk in one transaction; a large one goes in slices
 * between which the other sessions' steps pass, and counts only once it is sealed. With the seal go
 * the lines of the ledger of steps since the checkpoint before. */
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { SLICE_CHUNKS = 16 };

struct save {
    struct commit_item item; /* first */
    struct session *session;
    const struct checkpoint *what;
    struct journal_entry *receipts; /* NULL: none */
    struct span parts[1 + VECTORS_MAX];
    size_t part_count;
    size_t part, offset; /* where the next slice starts */
    uint64_t id;
    uint64_t step;
    uint32_t chunk; /* the next */
    uint64_t bytes;
    uint64_t round_lsn; /* where the open round begins, UINT64_MAX: none is */
    bool last;          /* the slice seals */
    struct checkpoint_place *place;
    struct checkpoint_place *replaced; /* goes with the seal; NULL: none */
};

enum status session_put_record(struct session *session, const struct spec *spec, uint64_t lineage,
                               struct store *store, struct fault *fault)
{
    struct session_record record = {.created_us = session->created_us,
                                    .request = session->request,
                                    .spec = *spec,
                                    .layout = session->layout,
                                    .lineage = lineage,
                                    .parent_moment = session->parent_moment};
    struct packer packer = {0};
    enum status status;

    memcpy(record.parent, session->parent, sizeof record.parent);
    POINT(before_record);
    session_record_pack(&packer, &record);
    struct store_session row = {
        .key = session->key, .id = session->stored_id, .record = packer_span(&packer)};
    if (packer.failed)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    else if (packer.used > STORE_CHUNK_BYTES)
        status = fault_set(fault, STATUS_TOO_LARGE, "/parameters",
                           "names and shapes take %zu bytes; the limit is %d: use fewer tensors or "
                           "shorter names",
                           packer.used, STORE_CHUNK_BYTES);
    else
        status = store->backend->session_put(store, &row, fault);
    POINT(after_record);
    packer_close(&packer);
    return status;
}

/* What belongs to the state's last step, and the seal. */
static enum status write_seal(struct save *save, struct commit_turn *turn, uint32_t chunks,
                              struct fault *fault)
{
    const struct store_backend *backend = turn->store->backend;
    struct journal_entry *entries[] = {save->receipts, save->what->before};
    enum status status = STATUS_OK;

    for (size_t i = 0; i < 2 && status == STATUS_OK; i++)
        if (entries[i] != NULL) {
            POINT(before_receipts);
            status = entries[i]->item.write(&entries[i]->item, turn, fault);
            POINT(after_receipts);
        }
    if (status != STATUS_OK)
        return status;

    struct store_checkpoint seal = {.id = save->id,
                                    .session = save->session->key,
                                    .lsn = turn->lsn,
                                    .step = save->step,
                                    .chunks = chunks,
                                    .bytes = save->bytes};
    save->place->lsn = turn->lsn;
    save->place->from = turn->lsn;
    if (save->round_lsn <= turn->lsn)
        save->place->from = save->round_lsn - 1;
    save->place->chunks = chunks;
    POINT(before_seal);
    status = backend->checkpoint_seal(turn->store, &seal, fault);
    POINT(after_seal);
    if (status == STATUS_OK && save->replaced != NULL)
        status = backend->checkpoint_drop(turn->store, save->replaced->id, fault);
    if (status == STATUS_OK && save->what->record)
        status = session_put_record(save->session, save->what->spec, save->what->lineage,
                                    turn->store, fault);
    return status;
}

/* Writes up to SLICE_CHUNKS chunks from where the last slice ended; the last one seals. A retry
 * starts over from the same place. */
static enum status write_slice(struct commit_item *item, struct commit_turn *turn,
                               struct fault *fault)
{
    struct save *save = (struct save *)(void *)item;
    const struct store_backend *backend = turn->store->backend;
    size_t part = save->part, offset = save->offset;
    uint32_t chunk = save->chunk;
    enum status status = STATUS_OK;

    POINT(before_slice);
    if (BUG(drop_before_seal) && save->replaced != NULL)
        status = backend->checkpoint_drop(turn->store, save->replaced->id, fault);
    for (int count = 0; count < SLICE_CHUNKS && part < save->part_count && status == STATUS_OK;
         count++) {
        struct span *from = &save->parts[part];
        size_t rest = from->size - offset;
        size_t size = rest < STORE_CHUNK_BYTES ? rest : STORE_CHUNK_BYTES;
        status = backend->checkpoint_put(turn->store, save->id, save->session->key, chunk++,
                                         span_of(from->data + offset, size), fault);
        POINT(in_slice);
        offset += size;
        if (offset == from->size) {
            part++;
            offset = 0;
        }
    }
    return status == STATUS_OK && save->last ? write_seal(save, turn, chunk, fault) : status;
}

/* How many chunks are left from here on. */
static size_t chunks_left(const struct save *save)
{
    size_t chunks = 0;

    for (size_t part = save->part; part < save->part_count; part++) {
        size_t size = save->parts[part].size - (part == save->part ? save->offset : 0);
        chunks += (size + STORE_CHUNK_BYTES - 1) / STORE_CHUNK_BYTES;
    }
    return chunks;
}

static void skip_chunks(struct save *save, size_t count)
{
    for (; count > 0 && save->part < save->part_count; count--) {
        save->chunk++;
        save->offset += STORE_CHUNK_BYTES;
        if (save->offset >= save->parts[save->part].size) {
            save->part++;
            save->offset = 0;
        }
    }
}

static enum status drop_checkpoint(struct commit_item *item, struct commit_turn *turn,
                                   struct fault *fault)
{
    struct save *save = (struct save *)(void *)item;

    return turn->store->backend->checkpoint_drop(turn->store, save->id, fault);
}

static enum status run_item(struct save *save,
                            enum status (*write)(struct commit_item *, struct commit_turn *,
                                                 struct fault *),
                            struct fault *fault)
{
    struct committer *committer = save->session->engine->committer;

    save->item = (struct commit_item){.order = &save->session->order, .write = write};
    commit_enqueue(committer, &save->item);
    return commit_wait(&save->item, fault);
}

static enum status write_slices(struct save *save, struct fault *fault)
{
    enum status status = STATUS_OK;
    struct fault ignored;

    do {
        size_t left = chunks_left(save);
        save->last = left <= SLICE_CHUNKS;
        if ((status = run_item(save, write_slice, fault)) == STATUS_OK)
            skip_chunks(save, left < SLICE_CHUNKS ? left : SLICE_CHUNKS);
        POINT(after_slice);
        if (save->what->before != NULL && !save->last)
            POINT(in_rewind);
    } while (status == STATUS_OK && !save->last);
    if (status != STATUS_OK) {
        /* The save stands alone: nothing builds on it, so the order is sound. What was written of
         * it goes when storage allows, at the latest when it is opened again. */
        commit_order_mend(save->session->engine->committer, &save->session->order);
        if (run_item(save, drop_checkpoint, &ignored) != STATUS_OK)
            commit_order_mend(save->session->engine->committer, &save->session->order);
    }
    return status;
}

/* Without a journal the checkpoint before this one leads nowhere: no event follows it. */
static struct checkpoint_place *useless_after_this(struct session *session)
{
    struct checkpoint_place *newest = NULL;

    pthread_mutex_lock(&session->mutex);
    /* With a journal, which is long, it is not looked through. */
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT && session->readers == 0) {
        const struct event_place *event = session->events;
        newest = session->checkpoints;
        while (event != NULL && newest != NULL &&
               (event->lsn <= newest->lsn || event->kind == EVENT_QUARANTINE))
            event = event->next;
        if (event != NULL)
            newest = NULL;
    }
    pthread_mutex_unlock(&session->mutex);
    return newest;
}

static void note_saved(struct save *save)
{
    struct session *session = save->session;

    pthread_mutex_lock(&session->mutex);
    /* At once: a line is either in memory or in the journal for those who read the ledger. */
    if (save->receipts != NULL)
        journal_entry_landed(save->receipts);
    if (save->what->before != NULL)
        journal_entry_landed(save->what->before);
    receipts_close(&session->state->receipts);
    save->place->next = session->checkpoints;
    session->checkpoints = save->place;
    session_count_bytes(session, save->place->bytes, 0);
    if (save->replaced != NULL) { /* it was the newest */
        session_count_bytes(session, 0, save->replaced->bytes);
        save->place->next = save->replaced->next;
        free(save->replaced);
    }
    save->place = NULL;
    session->dirty = 0;
    session->journal_since = 0;
    if (save->step > session->durable_step) {
        session->durable_step = save->step;
        session_tell_durable(session);
    }
    pthread_mutex_unlock(&session->mutex);
}

/* Small states go as one chunk. */
static enum status join_parts(struct save *save, unsigned char **joined, struct fault *fault)
{
    size_t used = 0;

    if (save->bytes > STORE_CHUNK_BYTES)
        return STATUS_OK;
    if ((*joined = malloc(save->bytes)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < save->part_count; i++) {
        memcpy(*joined + used, save->parts[i].data, save->parts[i].size);
        used += save->parts[i].size;
    }
    save->parts[0] = span_of(*joined, used);
    save->part_count = 1;
    return STATUS_OK;
}

static void list_parts(struct save *save, const struct session *session, struct span head)
{
    const struct state *state = save->what->state;
    struct vector vectors[VECTORS_MAX];
    size_t count =
        state_vectors(state, session->plan, state_stored_slots(state, session->plan), vectors);

    save->parts[save->part_count++] = head;
    for (size_t i = 0; i < count; i++)
        save->parts[save->part_count++] = span_of(vectors[i].data->data, vectors[i].size);
    for (size_t i = 0; i < save->part_count; i++)
        save->bytes += save->parts[i].size;
}

/* The head after its size. */
static void pack_head(struct packer *packer, const struct session *session,
                      const struct checkpoint *what)
{
    struct checkpoint_head head = state_head(what->state, what->spec, session->plan);
    struct packer body = {0};

    checkpoint_head_pack(&body, &head, what->ledger != NULL ? what->ledger : &what->state->ledger);
    pack_u64(packer, body.used);
    pack_fixed(packer, body.data, body.used);
    packer->failed |= body.failed;
    packer_close(&body);
}

/* The ledger's lines as an event. They are of the session's own state, whatever is stored. */
static enum status list_receipts(struct save *save, struct fault *fault)
{
    struct session *session = save->session;
    const struct receipts *receipts = &session->state->receipts;
    struct event event = event_make(EVENT_RECEIPTS, session->state->current->step);
    enum status status;

    if (receipts->count == 0 || BUG(forget_receipts))
        return STATUS_OK;
    event.lineage = session->lineage;
    struct buffer *body = buffer_new(receipts->lines.used);
    if (body == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for the ledger");
    memcpy(body->data, receipts->lines.data, receipts->lines.used);
    status = journal_entry_new(session, &event, body, 0, body->size, &save->receipts, fault);
    buffer_release(body);
    return status;
}

static enum status write_nothing(struct commit_item *item, struct commit_turn *turn,
                                 struct fault *fault)
{
    (void)item;
    (void)turn;
    (void)fault;
    return STATUS_OK;
}

/* Where the open round begins in the journal, once all of it is there. */
static enum status find_round(struct save *save, struct fault *fault)
{
    struct session *session = save->session;
    bool open = save->what->state->round.count > 0 && save->what->before == NULL;
    enum status status = open ? run_item(save, write_nothing, fault) : STATUS_OK;

    save->round_lsn = UINT64_MAX;
    if (status != STATUS_OK) /* nothing stands on it */
        commit_order_mend(session->engine->committer, &session->order);
    if (!open || status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    for (const struct event_place *place = session->events; place != NULL; place = place->next)
        save->round_lsn = event_round(place, save->round_lsn);
    pthread_mutex_unlock(&session->mutex);
    return STATUS_OK;
}

static void tell(const struct save *save, uint64_t took_us)
{
    metric_observe(HISTOGRAM_CHECKPOINT_TIME, 0, took_us);
    metric_count(COUNTER_CHECKPOINT_BYTES, 0, save->bytes);
    log_debug("session %s saved at step %llu: %llu bytes in %llu us", save->session->stored_id,
              (unsigned long long)save->step, (unsigned long long)save->bytes,
              (unsigned long long)took_us);
}

enum status session_checkpoint(struct session *session, const struct checkpoint *what,
                               struct fault *fault)
{
    const struct revision *current = what->state->current;
    struct packer head = {0};
    struct save save = {.session = session, .what = what};
    uint64_t begun_us = clock_monotonic_us();
    unsigned char *joined = NULL;
    enum status status;

    pack_head(&head, session, what);
    save.place = calloc(1, sizeof *save.place);
    if (head.failed || save.place == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        goto done;
    }
    list_parts(&save, session, packer_span(&head));
    save.id = __atomic_add_fetch(&session->engine->next_checkpoint, 1, __ATOMIC_RELAXED);
    save.step = current->step;
    if (what->before == NULL)
        save.replaced = useless_after_this(session);
    save.place->id = save.id;
    save.place->step = save.step;
    save.place->lineage = current->lineage;
    save.place->bytes = save.bytes;
    if ((status = find_round(&save, fault)) == STATUS_OK &&
        (status = list_receipts(&save, fault)) == STATUS_OK &&
        (status = join_parts(&save, &joined, fault)) == STATUS_OK)
        status = write_slices(&save, fault);
    POINT(after_checkpoint);
    if (status == STATUS_OK) {
        note_saved(&save);
        tell(&save, clock_monotonic_us() - begun_us);
    }
done:
    journal_entry_free(save.receipts);
    packer_close(&head);
    free(joined);
    free(save.place);
    return status;
}
