/* The store in memory: the same promises but the one of durability; for tests and for work that may
 * be lost.
 *
 * Every row is an item under a pair of numbers in a sorted array. A transaction changes the arrays
 * at once and notes each change (what stood there before, what stands there now); rollback walks
 * the notes backwards. No checksums: there is no medium that could rot. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "storage/store.h"
#include "storage/turn.h"

enum { CHUNK_COUNT_MAX = 1 << 20, ID_BITS = 43 }; /* the limits of store.h */

struct item {
    uint64_t key;  /* session key, lsn, checkpoint id */
    uint64_t part; /* chunk of a checkpoint, else 0 */
    union {
        struct store_session session;
        struct store_event event;
        struct store_checkpoint checkpoint;
        struct span body;
    } value; /* its pointers lead into bytes[] */
    unsigned char bytes[];
};

struct table {
    struct item **items; /* by (key, part) */
    size_t count, capacity;
};

struct change {
    struct table *table;
    struct item *before, *after; /* either may be NULL */
};

struct memory_store {
    struct store store;
    struct turn turn; /* guards all below */
    struct table sessions, journal, checkpoints, chunks;
    struct change *changes; /* of the open transaction */
    size_t change_count, change_capacity;
    uint64_t lsn_last, lsn_before;
    bool open, spoiled;
    bool inspect; /* takes no writes */
};

extern const struct store_backend store_memory;

static struct memory_store *memory_of(struct store *store)
{
    PRE(store != NULL && store->backend == &store_memory);
    return (struct memory_store *)store;
}

/* --- tables
 * ------------------------------------------------------------------------------------------
 */

/* The index of (key, part), or of the first item behind it. */
static size_t table_place(const struct table *table, uint64_t key, uint64_t part)
{
    size_t low = 0, high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct item *item = table->items[middle];
        if (item->key < key || (item->key == key && item->part < part))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct item *table_find(const struct table *table, uint64_t key, uint64_t part)
{
    size_t place = table_place(table, key, part);
    struct item *item = place < table->count ? table->items[place] : NULL;

    return item != NULL && item->key == key && item->part == part ? item : NULL;
}

static bool grow(void **array, size_t *capacity, size_t count, size_t item_size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity * 2 + 16;
    void *larger = realloc(*array, wanted * item_size);
    if (larger == NULL)
        return false;
    *array = larger;
    *capacity = wanted;
    return true;
}

/* Puts `after` where `before` stands. There is room. */
static void table_change(struct table *table, const struct item *before, struct item *after)
{
    const struct item *any = before != NULL ? before : after;
    size_t place = table_place(table, any->key, any->part);
    struct item **at = table->items + place;

    if (before != NULL && after != NULL) {
        *at = after;
    } else if (after != NULL) {
        memmove(at + 1, at, (table->count - place) * sizeof *at);
        *at = after;
        table->count++;
    } else {
        table->count--;
        memmove(at, at + 1, (table->count - place) * sizeof *at);
    }
}

static void table_close(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->items[i]);
    free(table->items);
}

/* --- changes
 * ------------------------------------------------------------------------------------------
 */

static enum status spoil(struct memory_store *self, enum status status)
{
    self->spoiled = true;
    return status;
}

static enum status out_of_memory(struct memory_store *self, struct fault *fault)
{
    return spoil(self, fault_set(fault, STATUS_INTERNAL, "", "The server is out of memory."));
}

static enum status misuse(struct memory_store *self, struct fault *fault, const char *what)
{
    return spoil(self, fault_set(fault, STATUS_INTERNAL, "",
                                 "The store was asked for the impossible: %s.", what));
}

/* Takes `take_after` (NULL: out of memory) into the table, in the place of what has its numbers. */
static enum status put(struct memory_store *self, struct table *table, struct item *take_after,
                       struct fault *fault)
{
    PRE(self->open);
    if (take_after == NULL ||
        !grow((void **)&self->changes, &self->change_capacity, self->change_count,
              sizeof *self->changes) ||
        !grow((void **)&table->items, &table->capacity, table->count, sizeof *table->items)) {
        free(take_after);
        return out_of_memory(self, fault);
    }
    struct item *before = table_find(table, take_after->key, take_after->part);
    self->changes[self->change_count++] = (struct change){table, before, take_after};
    table_change(table, before, take_after);
    return STATUS_OK;
}

/* Takes everything from (first, 0) to (last, any part) out of the table. */
static enum status drop(struct memory_store *self, struct table *table, uint64_t first,
                        uint64_t last, struct fault *fault)
{
    PRE(self->open);
    size_t begin = table_place(table, first, 0), end = begin;

    for (; end < table->count && table->items[end]->key <= last; end++) {
        if (!grow((void **)&self->changes, &self->change_capacity, self->change_count + end - begin,
                  sizeof *self->changes))
            return out_of_memory(self, fault);
        self->changes[self->change_count + end - begin] =
            (struct change){table, table->items[end], NULL};
    }
    if (end == begin)
        return STATUS_OK; /* perhaps there is not even an array */
    self->change_count += end - begin;
    memmove(table->items + begin, table->items + end, (table->count - end) * sizeof *table->items);
    table->count -= end - begin;
    return STATUS_OK;
}

/* An item with room for two runs of bytes, copied one after the other. NULL when memory is out. */
static struct item *item_new(uint64_t key, uint64_t part, struct span *first, struct span *second)
{
    struct item *item = malloc(sizeof *item + first->size + second->size);

    if (item == NULL)
        return NULL;
    item->key = key;
    item->part = part;
    if (first->size > 0)
        memcpy(item->bytes, first->data, first->size);
    if (second->size > 0)
        memcpy(item->bytes + first->size, second->data, second->size);
    first->data = item->bytes;
    second->data = item->bytes + first->size;
    return item;
}

/* --- transactions
 * ------------------------------------------------------------------------------------------
 */

static enum status memory_begin(struct store *store, struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    if (self->inspect)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The memory was opened to be looked at only.");
    turn_take(&self->turn);
    self->open = true;
    self->spoiled = false;
    self->lsn_before = self->lsn_last;
    return STATUS_OK;
}

static void memory_rollback(struct store *store)
{
    struct memory_store *self = memory_of(store);

    PRE(self->open);
    while (self->change_count > 0) {
        struct change *change = &self->changes[--self->change_count];
        table_change(change->table, change->after, change->before);
        free(change->after);
    }
    self->lsn_last = self->lsn_before;
    self->open = false;
    turn_pass(&self->turn);
}

static enum status memory_commit(struct store *store, struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    PRE(self->open);
    if (self->spoiled) {
        memory_rollback(store);
        return fault_set(fault, STATUS_INTERNAL, "",
                         "The store was asked for the impossible: to commit after a write had "
                         "failed.");
    }
    for (size_t i = 0; i < self->change_count; i++)
        free(self->changes[i].before);
    self->change_count = 0;
    self->open = false;
    turn_pass(&self->turn);
    return STATUS_OK;
}

/* --- writes
 * ------------------------------------------------------------------------------------------
 */

static enum status memory_session_put(struct store *store, const struct store_session *session,
                                      struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    struct span id = span_of(session->id, strlen(session->id) + 1);
    struct span record = session->record;

    PRE(session->key > 0 && id.size <= STORE_ID_BYTES + 1 && record.size <= STORE_CHUNK_BYTES);
    for (size_t i = 0; i < self->sessions.count; i++) {
        const struct store_session *other = &self->sessions.items[i]->value.session;
        if (other->key != session->key && strcmp(other->id, session->id) == 0)
            return spoil(self, fault_set(fault, STATUS_SESSION_EXISTS, "",
                                         "There is a session \"%s\" already.", session->id));
    }
    struct item *item = item_new((uint64_t)session->key, 0, &id, &record);
    if (item != NULL)
        item->value.session = (struct store_session){session->key, (const char *)id.data, record};
    return put(self, &self->sessions, item, fault);
}

static enum status memory_session_drop(struct store *store, int64_t key, struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    return drop(self, &self->sessions, (uint64_t)key, (uint64_t)key, fault);
}

static enum status memory_event_append(struct store *store, const struct store_event *event,
                                       struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    struct store_event value = *event;

    PRE(event->session > 0 && event->kind > 0 && event->chunk < event->chunks);
    PRE(event->head.size <= (event->chunk == 0 ? STORE_HEAD_BYTES : 0));
    PRE(event->body.size <= STORE_CHUNK_BYTES);
    if (event->lsn <= self->lsn_last || event->lsn > INT64_MAX)
        return misuse(self, fault, "to append an event that is not the newest");
    struct item *item = item_new(event->lsn, 0, &value.head, &value.body);
    if (item != NULL)
        item->value.event = value;
    enum status status = put(self, &self->journal, item, fault);
    if (status == STATUS_OK)
        self->lsn_last = event->lsn;
    return status;
}

static enum status memory_event_drop(struct store *store, uint64_t first, uint64_t last,
                                     struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    return drop(self, &self->journal, first, last, fault);
}

static enum status memory_checkpoint_put(struct store *store, uint64_t id, int64_t session,
                                         uint32_t chunk, struct span body, struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    struct span none = {0};

    PRE(id > 0 && id >> ID_BITS == 0 && session > 0);
    PRE(chunk < CHUNK_COUNT_MAX && body.size <= STORE_CHUNK_BYTES);
    struct item *item = item_new(id, chunk, &body, &none);
    if (item != NULL)
        item->value.body = body;
    return put(self, &self->chunks, item, fault);
}

static enum status memory_checkpoint_seal(struct store *store,
                                          const struct store_checkpoint *checkpoint,
                                          struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    struct span none = {0}, nothing = {0};
    size_t first = table_place(&self->chunks, checkpoint->id, 0);
    size_t last = table_place(&self->chunks, checkpoint->id, CHUNK_COUNT_MAX);

    PRE(checkpoint->id > 0 && checkpoint->session > 0 && checkpoint->lsn <= INT64_MAX);
    if (last - first != checkpoint->chunks)
        return misuse(self, fault, "to seal a checkpoint that is not complete");
    struct item *item = item_new(checkpoint->id, 0, &none, &nothing);
    if (item != NULL)
        item->value.checkpoint = *checkpoint;
    return put(self, &self->checkpoints, item, fault);
}

static enum status memory_checkpoint_drop(struct store *store, uint64_t id, struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    enum status status = drop(self, &self->checkpoints, id, id, fault);

    return status == STATUS_OK ? drop(self, &self->chunks, id, id, fault) : status;
}

/* --- reads
 * ------------------------------------------------------------------------------------------
 */

static enum status memory_scan(struct store *store, const struct store_visitor *visitor,
                               struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    enum status status = STATUS_OK;

    (void)fault; /* only a visitor can fail, and it has its own */
    turn_take(&self->turn);
    for (size_t i = 0; i < self->sessions.count && status == STATUS_OK; i++)
        status = visitor->session(visitor->context, &self->sessions.items[i]->value.session);
    for (size_t i = 0; i < self->checkpoints.count && status == STATUS_OK; i++)
        status =
            visitor->checkpoint(visitor->context, &self->checkpoints.items[i]->value.checkpoint);
    for (size_t i = 0; i < self->journal.count && status == STATUS_OK; i++) {
        struct store_event event = self->journal.items[i]->value.event;
        event.head.data = event.body.data = NULL;
        if (event.chunk == 0)
            status = visitor->event(visitor->context, &event);
        else if (visitor->chunk != NULL)
            status = visitor->chunk(visitor->context, &event);
    }
    turn_pass(&self->turn);
    return status;
}

static enum status memory_event_read(struct store *store, uint64_t lsn,
                                     unsigned char head[STORE_HEAD_BYTES],
                                     unsigned char body[STORE_CHUNK_BYTES],
                                     struct store_event *event, struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    turn_take(&self->turn);
    const struct item *item = table_find(&self->journal, lsn, 0);
    if (item != NULL) {
        *event = item->value.event;
        memcpy(head, event->head.data, event->head.size);
        memcpy(body, event->body.data, event->body.size);
        event->head.data = head;
        event->body.data = body;
    }
    turn_pass(&self->turn);
    return item != NULL ? STATUS_OK
                        : fault_set(fault, STATUS_NOT_FOUND, "",
                                    "The event at lsn %" PRIu64 " is not stored.", lsn);
}

static enum status memory_checkpoint_read(struct store *store, uint64_t id, uint32_t chunk,
                                          unsigned char body[STORE_CHUNK_BYTES], size_t *size,
                                          struct fault *fault)
{
    struct memory_store *self = memory_of(store);

    turn_take(&self->turn);
    const struct item *item = table_find(&self->chunks, id, chunk);
    if (item != NULL) {
        *size = item->value.body.size;
        memcpy(body, item->value.body.data, *size);
    }
    turn_pass(&self->turn);
    return item != NULL ? STATUS_OK
                        : fault_set(fault, STATUS_NOT_FOUND, "",
                                    "The chunk of checkpoint %" PRIu64 " is not stored.", id);
}

static enum status memory_maintain(struct store *store, bool *more, struct fault *fault)
{
    if (memory_of(store)->inspect)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "The memory was opened to be looked at only.");
    if (more != NULL)
        *more = false; /* freed memory went back at once */
    return STATUS_OK;
}

/* Nothing here can rot: only the sums. */
static enum status memory_verify(struct store *store, const struct store_watch *watch,
                                 struct store_report *report, struct fault *fault)
{
    struct memory_store *self = memory_of(store);
    struct store_report sum = {0};

    (void)watch;
    (void)fault;
    turn_take(&self->turn);
    sum.sessions = self->sessions.count;
    sum.checkpoints = self->checkpoints.count;
    for (size_t i = 0; i < self->sessions.count; i++)
        sum.bytes += self->sessions.items[i]->value.session.record.size;
    for (size_t i = 0; i < self->chunks.count; i++)
        sum.bytes += self->chunks.items[i]->value.body.size;
    for (size_t i = 0; i < self->journal.count; i++) {
        const struct store_event *event = &self->journal.items[i]->value.event;
        sum.events += event->chunk == 0;
        sum.bytes += event->head.size + event->body.size;
    }
    turn_pass(&self->turn);
    *report = sum;
    return STATUS_OK;
}

/* --- open and close
 * ------------------------------------------------------------------------------------------ */

static enum status memory_open(const struct store_options *options, struct store **out,
                               struct fault *fault)
{
    struct memory_store *self = calloc(1, sizeof *self);

    if (self == NULL || !turn_init(&self->turn)) {
        free(self);
        return fault_set(fault, STATUS_INTERNAL, "", "The server is out of memory.");
    }
    self->store.backend = &store_memory;
    self->inspect = options->use == STORE_INSPECT;
    *out = &self->store;
    return STATUS_OK;
}

static void memory_close(struct store *take_store)
{
    struct memory_store *self = memory_of(take_store);

    PRE(!self->open);
    table_close(&self->sessions);
    table_close(&self->journal);
    table_close(&self->checkpoints);
    table_close(&self->chunks);
    turn_close(&self->turn);
    free(self->changes);
    free(self);
}

const struct store_backend store_memory = {
    .scheme = "memory",
    .meaning = "the memory of the process; everything is lost when it ends",
    .durable = false,
    .open = memory_open,
    .close = memory_close,
    .begin = memory_begin,
    .commit = memory_commit,
    .rollback = memory_rollback,
    .session_put = memory_session_put,
    .session_drop = memory_session_drop,
    .event_append = memory_event_append,
    .event_drop = memory_event_drop,
    .checkpoint_put = memory_checkpoint_put,
    .checkpoint_seal = memory_checkpoint_seal,
    .checkpoint_drop = memory_checkpoint_drop,
    .scan = memory_scan,
    .event_read = memory_event_read,
    .checkpoint_read = memory_checkpoint_read,
    .maintain = memory_maintain,
    .verify = memory_verify,
};
