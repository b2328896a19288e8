/* The memory of exactly once. */
#include "service/session/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"

void ledger_close(struct ledger *ledger)
{
    free(ledger->keys);
    free(ledger->marks);
    free(ledger->workers);
    *ledger = (struct ledger){0};
}

static uint64_t mark_of(const struct digest *key)
{
    uint64_t mark;

    memcpy(&mark, key->bytes, sizeof mark);
    return mark;
}

const struct ledger_key *ledger_find_key(const struct ledger *ledger, const struct digest *key,
                                         uint64_t step)
{
    uint64_t mark = mark_of(key);

    /* The newest first: what is asked for again is mostly that. */
    for (size_t i = ledger->key_count; i-- > 0;) {
        size_t at = (ledger->key_start + i) % ledger->key_capacity;
        if (ledger->marks[at] != mark)
            continue;
        const struct ledger_key *entry = &ledger->keys[at];
        if (memcmp(entry->key.bytes, key->bytes, sizeof key->bytes) == 0 &&
            entry->receipt.step + LEDGER_STEPS > step)
            return entry;
    }
    return NULL;
}

const struct ledger_worker *ledger_find_worker(const struct ledger *ledger, const char *name)
{
    for (size_t i = 0; i < ledger->worker_count; i++)
        if (strcmp(ledger->workers[i].name, name) == 0)
            return &ledger->workers[i];
    return NULL;
}

/* Drops the oldest keys that are too old to be found. */
static void expire_keys(struct ledger *ledger)
{
    size_t newest = (ledger->key_start + ledger->key_count - 1) % ledger->key_capacity;
    uint64_t step = ledger->keys[newest].receipt.step;

    while (ledger->key_count > 0 &&
           ledger->keys[ledger->key_start].receipt.step + LEDGER_STEPS <= step) {
        ledger->key_start = (ledger->key_start + 1) % ledger->key_capacity;
        ledger->key_count--;
    }
}

/* Into a larger ring, laid out from its start. */
static bool grow_keys(struct ledger *ledger, size_t capacity)
{
    struct ledger_key *keys = malloc(capacity * sizeof *keys);
    uint64_t *marks = malloc(capacity * sizeof *marks);

    if (keys == NULL || marks == NULL) {
        free(keys);
        free(marks);
        return false;
    }
    for (size_t i = 0; i < ledger->key_count; i++) {
        size_t at = (ledger->key_start + i) % ledger->key_capacity;
        keys[i] = ledger->keys[at];
        marks[i] = ledger->marks[at];
    }
    free(ledger->keys);
    free(ledger->marks);
    ledger->keys = keys;
    ledger->marks = marks;
    ledger->key_start = 0;
    ledger->key_capacity = capacity;
    return true;
}

static bool reserve_keys(struct ledger *ledger, size_t more)
{
    size_t capacity = ledger->key_capacity == 0 ? 16 : ledger->key_capacity;

    if (ledger->key_count + more > capacity && ledger->key_count > 0)
        expire_keys(ledger);
    while (capacity < ledger->key_count + more)
        capacity *= 2;
    if (capacity > LEDGER_KEYS_MAX)
        capacity = LEDGER_KEYS_MAX;
    return capacity == ledger->key_capacity || grow_keys(ledger, capacity);
}

static bool reserve_workers(struct ledger *ledger, size_t more)
{
    size_t capacity = ledger->worker_capacity == 0 ? 4 : ledger->worker_capacity;

    while (capacity < ledger->worker_count + more)
        capacity *= 2;
    if (capacity == ledger->worker_capacity)
        return true;
    struct ledger_worker *workers = realloc(ledger->workers, capacity * sizeof *workers);
    if (workers == NULL)
        return false;
    ledger->workers = workers;
    ledger->worker_capacity = capacity;
    return true;
}

bool ledger_reserve(struct ledger *ledger, size_t more)
{
    return reserve_keys(ledger, more) && reserve_workers(ledger, more);
}

void ledger_add_key(struct ledger *ledger, const struct digest *key, const struct digest *payload,
                    const struct receipt *receipt)
{
    PRE(ledger->key_capacity > 0);
    if (ledger->key_count == ledger->key_capacity) {
        ledger->key_start = (ledger->key_start + 1) % ledger->key_capacity;
        ledger->key_count--;
    }
    size_t place = (ledger->key_start + ledger->key_count++) % ledger->key_capacity;
    ledger->keys[place] = (struct ledger_key){*key, *payload, *receipt};
    ledger->marks[place] = mark_of(key);
}

void ledger_add_worker(struct ledger *ledger, const struct ledger_worker *about)
{
    struct ledger_worker *worker =
        (struct ledger_worker *)(uintptr_t)ledger_find_worker(ledger, about->name);

    if (worker != NULL && about->seq == 0) {
        worker->clock = about->clock;
        worker->base_step = about->base_step;
        worker->step = about->step;
        worker->seen_us = about->seen_us;
        return;
    }
    if (worker == NULL && ledger->worker_count == LEDGER_WORKERS_MAX) {
        /* The one that has been silent for longest makes room. */
        worker = ledger->workers;
        for (size_t i = 1; i < ledger->worker_count; i++)
            if (ledger->workers[i].step < worker->step)
                worker = &ledger->workers[i];
    } else if (worker == NULL) {
        PRE(ledger->worker_count < ledger->worker_capacity);
        worker = &ledger->workers[ledger->worker_count++];
    }
    *worker = *about;
}

void ledger_settle(struct ledger *ledger, const char *worker, uint64_t seq,
                   const struct digest *key, const struct receipt *receipt)
{
    struct ledger_worker *entry =
        (struct ledger_worker *)(uintptr_t)ledger_find_worker(ledger, worker);
    struct ledger_key *keyed =
        key == NULL ? NULL
                    : (struct ledger_key *)(uintptr_t)ledger_find_key(ledger, key, receipt->step);

    if (entry != NULL && seq > 0 && entry->seq == seq)
        entry->receipt = *receipt;
    if (keyed != NULL)
        keyed->receipt = *receipt;
}

void ledger_forget(struct ledger *ledger, const char *worker, uint64_t seq,
                   const struct digest *key)
{
    struct ledger_worker *entry =
        (struct ledger_worker *)(uintptr_t)ledger_find_worker(ledger, worker);

    if (entry != NULL && seq > 0 && entry->seq >= seq) {
        entry->seq = seq - 1;
        entry->receipt = (struct receipt){.kind = RECEIPT_NONE};
    }
    for (size_t i = 0; i < ledger->key_count && key != NULL; i++) {
        size_t at = (ledger->key_start + i) % ledger->key_capacity;
        if (memcmp(ledger->keys[at].key.bytes, key->bytes, sizeof key->bytes) != 0)
            continue;
        ledger->keys[at].key = (struct digest){.bytes = {0}}; /* that no text is known to have */
        ledger->marks[at] = mark_of(&ledger->keys[at].key);
    }
}

bool ledger_copy(const struct ledger *ledger, struct ledger *out)
{
    struct ledger copy = *ledger;

    copy.keys = malloc((ledger->key_capacity + 1) * sizeof *copy.keys);
    copy.marks = malloc((ledger->key_capacity + 1) * sizeof *copy.marks);
    copy.workers = malloc((ledger->worker_capacity + 1) * sizeof *copy.workers);
    if (copy.keys == NULL || copy.marks == NULL || copy.workers == NULL) {
        ledger_close(&copy);
        return false;
    }
    if (ledger->key_capacity > 0) {
        memcpy(copy.keys, ledger->keys, ledger->key_capacity * sizeof *copy.keys);
        memcpy(copy.marks, ledger->marks, ledger->key_capacity * sizeof *copy.marks);
    }
    if (ledger->worker_count > 0)
        memcpy(copy.workers, ledger->workers, ledger->worker_count * sizeof *copy.workers);
    *out = copy;
    return true;
}

void ledger_remove_worker(struct ledger *ledger, const char *name)
{
    struct ledger_worker *worker =
        (struct ledger_worker *)(uintptr_t)ledger_find_worker(ledger, name);

    if (worker != NULL)
        *worker = ledger->workers[--ledger->worker_count];
}

/* What a receipt has since format 4 follows it, and its kind says so: lines of receipts have no
 * format of their own. */
enum { RECEIPT_KIND_BITS = 8, RECEIPT_FORMAT = 4 };

void receipt_pack(struct packer *packer, const struct receipt *receipt)
{
    pack_u32(packer, receipt->kind | RECEIPT_FORMAT << RECEIPT_KIND_BITS);
    pack_u64(packer, receipt->step);
    pack_u64(packer, receipt->lineage);
    pack_u64(packer, receipt->durable_step);
    pack_u64(packer, receipt->base_step);
    pack_u64(packer, receipt->staleness);
    pack_f64(packer, receipt->lr);
    pack_f64(packer, receipt->grad_norm);
    pack_f64(packer, receipt->clip_scale);
    pack_f64(packer, receipt->update_norm);
    pack_f64(packer, receipt->param_norm);
    pack_f64(packer, receipt->loss);
    pack_u32(packer, receipt->hashed);
    if (receipt->hashed)
        pack_fixed(packer, receipt->state_hash.bytes, sizeof receipt->state_hash.bytes);
    pack_u64(packer, receipt->received);
    pack_u64(packer, receipt->expected);
    pack_u64(packer, receipt->snapshot);
    pack_u32(packer, (uint32_t)receipt->counts_due | (uint32_t)receipt->due << 1);
}

void receipt_unpack(struct unpacker *unpacker, struct receipt *out)
{
    uint32_t first = unpack_u32(unpacker);
    bool newer = first >> RECEIPT_KIND_BITS == RECEIPT_FORMAT;

    *out = (struct receipt){.kind = first & ((1u << RECEIPT_KIND_BITS) - 1)};
    out->step = unpack_u64(unpacker);
    out->lineage = unpack_u64(unpacker);
    out->durable_step = unpack_u64(unpacker);
    out->base_step = unpack_u64(unpacker);
    out->staleness = unpack_u64(unpacker);
    out->lr = unpack_f64(unpacker);
    out->grad_norm = unpack_f64(unpacker);
    out->clip_scale = unpack_f64(unpacker);
    out->update_norm = unpack_f64(unpacker);
    out->param_norm = unpack_f64(unpacker);
    out->loss = unpack_f64(unpacker);
    unpacker->failed |= out->kind > RECEIPT_WAITING || (first >> RECEIPT_KIND_BITS != 0 && !newer);
    out->hashed = unpacker->format >= 3 && unpack_u32(unpacker) != 0;
    if (out->hashed)
        unpack_fixed(unpacker, out->state_hash.bytes, sizeof out->state_hash.bytes);
    out->received = out->expected = 1;
    if (!newer)
        return;
    out->received = unpack_u64(unpacker);
    out->expected = unpack_u64(unpacker);
    out->snapshot = unpack_u64(unpacker);
    uint32_t due = unpack_u32(unpacker);
    out->counts_due = due & 1;
    out->due = due >> 1 & 1;
}

void ledger_pack(struct packer *packer, const struct ledger *ledger)
{
    pack_u32(packer, (uint32_t)ledger->key_count);
    for (size_t i = 0; i < ledger->key_count; i++) {
        const struct ledger_key *entry =
            &ledger->keys[(ledger->key_start + i) % ledger->key_capacity];
        pack_fixed(packer, entry->key.bytes, sizeof entry->key.bytes);
        pack_fixed(packer, entry->payload.bytes, sizeof entry->payload.bytes);
        receipt_pack(packer, &entry->receipt);
    }
    pack_u32(packer, (uint32_t)ledger->worker_count);
    for (size_t i = 0; i < ledger->worker_count; i++) {
        const struct ledger_worker *worker = &ledger->workers[i];
        pack_text(packer, worker->name);
        pack_u64(packer, worker->seq);
        pack_fixed(packer, worker->payload.bytes, sizeof worker->payload);
        receipt_pack(packer, &worker->receipt);
        pack_u64(packer, worker->clock);
        pack_u64(packer, worker->base_step);
        pack_u64(packer, worker->step);
        pack_u64(packer, worker->seen_us);
    }
}

bool ledger_unpack(struct unpacker *unpacker, struct ledger *out)
{
    struct ledger ledger = {0};
    struct receipt receipt;

    for (uint32_t count = unpack_u32(unpacker); count > 0 && !unpacker->failed; count--) {
        struct digest key, payload;
        unpack_fixed(unpacker, key.bytes, sizeof key.bytes);
        unpack_fixed(unpacker, payload.bytes, sizeof payload.bytes);
        receipt_unpack(unpacker, &receipt);
        unpacker->failed |= receipt.kind == RECEIPT_NONE;
        if (unpacker->failed || !ledger_reserve(&ledger, 1))
            goto failed;
        ledger_add_key(&ledger, &key, &payload, &receipt);
    }
    for (uint32_t count = unpack_u32(unpacker); count > 0 && !unpacker->failed; count--) {
        struct ledger_worker worker;
        unpack_text(unpacker, worker.name, sizeof worker.name);
        worker.seq = unpack_u64(unpacker);
        unpack_fixed(unpacker, worker.payload.bytes, sizeof worker.payload);
        receipt_unpack(unpacker, &worker.receipt);
        worker.clock = worker.seq;
        worker.base_step = worker.receipt.base_step;
        worker.step = worker.receipt.step;
        worker.seen_us = 0;
        if (unpacker->format >= 4) {
            worker.clock = unpack_u64(unpacker);
            worker.base_step = unpack_u64(unpacker);
            worker.step = unpack_u64(unpacker);
            worker.seen_us = unpack_u64(unpacker);
        }
        unpacker->failed |= worker.seq > COUNT_MAX || worker.clock > COUNT_MAX ||
                            worker.base_step > COUNT_MAX || worker.step > COUNT_MAX;
        if (unpacker->failed || !ledger_reserve(&ledger, 1))
            goto failed;
        ledger_add_worker(&ledger, &worker);
    }
    if (unpacker->failed)
        goto failed;
    if (BUG(forget_ledger))
        ledger_close(&ledger);
    *out = ledger;
    return true;
failed:
    ledger_close(&ledger);
    return false;
}
