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

    for (size_t i = 0; i < ledger->key_count; i++) {
        if (ledger->marks[i] != mark)
            continue;
        const struct ledger_key *entry = &ledger->keys[i];
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

/* The ring only wraps once it is at its full size, so it grows by plain realloc. */
static bool reserve_keys(struct ledger *ledger, size_t more)
{
    size_t capacity = ledger->key_capacity == 0 ? 16 : ledger->key_capacity;

    while (capacity < ledger->key_count + more)
        capacity *= 2;
    if (capacity > LEDGER_STEPS)
        capacity = LEDGER_STEPS;
    if (capacity == ledger->key_capacity)
        return true;
    struct ledger_key *keys = realloc(ledger->keys, capacity * sizeof *keys);
    if (keys == NULL)
        return false;
    ledger->keys = keys;
    uint64_t *marks = realloc(ledger->marks, capacity * sizeof *marks);
    if (marks == NULL)
        return false;
    ledger->marks = marks;
    ledger->key_capacity = capacity;
    return true;
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
    size_t place = ledger->key_count;

    PRE(ledger->key_capacity > 0);
    if (ledger->key_count < ledger->key_capacity)
        ledger->key_count++;
    else {
        place = ledger->key_start;
        ledger->key_start = (ledger->key_start + 1) % ledger->key_capacity;
    }
    ledger->keys[place] = (struct ledger_key){*key, *payload, *receipt};
    ledger->marks[place] = mark_of(key);
}

void ledger_add_worker(struct ledger *ledger, const char *name, uint64_t seq,
                       const struct digest *payload, const struct receipt *receipt)
{
    struct ledger_worker *worker =
        (struct ledger_worker *)(uintptr_t)ledger_find_worker(ledger, name);

    if (worker == NULL && ledger->worker_count == LEDGER_WORKERS_MAX) {
        /* The one that has been silent for longest makes room. */
        worker = ledger->workers;
        for (size_t i = 1; i < ledger->worker_count; i++)
            if (ledger->workers[i].receipt.step < worker->receipt.step)
                worker = &ledger->workers[i];
        memcpy(worker->name, name, strlen(name) + 1);
    } else if (worker == NULL) {
        PRE(ledger->worker_count < ledger->worker_capacity && strlen(name) <= WORKER_BYTES);
        worker = &ledger->workers[ledger->worker_count++];
        memcpy(worker->name, name, strlen(name) + 1);
    }
    worker->seq = seq;
    worker->payload = *payload;
    worker->receipt = *receipt;
}

void receipt_pack(struct packer *packer, const struct receipt *receipt)
{
    pack_u32(packer, receipt->kind);
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
}

void receipt_unpack(struct unpacker *unpacker, struct receipt *out)
{
    out->kind = unpack_u32(unpacker);
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
    unpacker->failed |= out->kind > RECEIPT_REPLACED;
    out->hashed = unpacker->format >= 3 && unpack_u32(unpacker) != 0;
    out->state_hash = (struct digest){.bytes = {0}};
    if (out->hashed)
        unpack_fixed(unpacker, out->state_hash.bytes, sizeof out->state_hash.bytes);
}

void ledger_pack(struct packer *packer, const struct ledger *ledger)
{
    pack_u32(packer, (uint32_t)ledger->key_count);
    for (size_t i = 0; i < ledger->key_count; i++) {
        const struct ledger_key *entry = &ledger->keys[(ledger->key_start + i) % ledger->key_count];
        pack_fixed(packer, entry->key.bytes, sizeof entry->key.bytes);
        pack_fixed(packer, entry->payload.bytes, sizeof entry->payload.bytes);
        receipt_pack(packer, &entry->receipt);
    }
    pack_u32(packer, (uint32_t)ledger->worker_count);
    for (size_t i = 0; i < ledger->worker_count; i++) {
        pack_text(packer, ledger->workers[i].name);
        pack_u64(packer, ledger->workers[i].seq);
        pack_fixed(packer, ledger->workers[i].payload.bytes, sizeof(struct digest));
        receipt_pack(packer, &ledger->workers[i].receipt);
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
        if (receipt.kind == RECEIPT_NONE || !ledger_reserve(&ledger, 1))
            goto failed;
        ledger_add_key(&ledger, &key, &payload, &receipt);
    }
    for (uint32_t count = unpack_u32(unpacker); count > 0 && !unpacker->failed; count--) {
        char name[WORKER_BYTES + 1];
        unpack_text(unpacker, name, sizeof name);
        uint64_t seq = unpack_u64(unpacker);
        struct digest payload;
        unpack_fixed(unpacker, payload.bytes, sizeof payload.bytes);
        receipt_unpack(unpacker, &receipt);
        if (receipt.kind == RECEIPT_NONE || !ledger_reserve(&ledger, 1))
            goto failed;
        ledger_add_worker(&ledger, name, seq, &payload, &receipt);
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
