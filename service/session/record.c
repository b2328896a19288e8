/* Bytes at rest of events, sessions and checkpoints. */
#include "service/session/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/point.h"

/* What formats 3 and 4 have more stands at the end of each record. */
enum { RECORD_FORMAT_FIRST = 2, RECORD_FORMAT = 4 };

static bool unpack_format(struct unpacker *unpacker)
{
    unpacker->format = unpack_u32(unpacker);
    return !unpacker->failed && unpacker->format >= RECORD_FORMAT_FIRST &&
           unpacker->format <= RECORD_FORMAT;
}

static enum status damaged(struct fault *fault, const char *what)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "a stored %s is damaged or was written by another version", what);
}

struct event event_make(enum event_kind kind, uint64_t step)
{
    double nothing = (double)NAN;

    return (struct event){.kind = kind,
                          .step = step,
                          .created_us = clock_unix_us(),
                          .grad_norm = nothing,
                          .clip_scale = 1,
                          .loss = nothing,
                          .examples = nothing,
                          .snapshot_examples = nothing,
                          .lr = nothing,
                          .momentum = nothing,
                          .beta1 = nothing,
                          .beta2 = nothing};
}

void event_pack(struct packer *packer, const struct event *event)
{
    pack_u32(packer, RECORD_FORMAT);
    pack_u32(packer, event->kind);
    pack_u64(packer, event->step);
    pack_u64(packer, event->base_step);
    pack_u64(packer, event->created_us);
    pack_u32(packer, (uint32_t)event->wire);
    const double numbers[] = {event->grad_norm, event->clip_scale, event->loss,  event->examples,
                              event->lr,        event->momentum,   event->beta1, event->beta2};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pack_f64(packer, numbers[i]);
    pack_u32(packer, event->keyed);
    if (event->keyed)
        pack_fixed(packer, event->key.bytes, sizeof event->key.bytes);
    pack_fixed(packer, event->payload.bytes, sizeof event->payload.bytes);
    pack_text(packer, event->worker[0] != '\0' ? event->worker : NULL);
    pack_u64(packer, event->seq);
    pack_u32(packer, event->cursor != NULL);
    if (event->cursor != NULL)
        pack_bytes(packer, event->cursor, event->cursor_size);
    pack_u64(packer, event->lineage);
    pack_u64(packer, event->origin);
    pack_u32(packer, event->nonfinite.tensors);
    for (uint32_t i = 0; i < event->nonfinite.tensors; i++) {
        pack_u32(packer, event->nonfinite.of[i].tensor);
        pack_u32(packer, event->nonfinite.of[i].count);
    }
    pack_u64(packer, event->told_step);
    if (event->told_step > 0)
        pack_fixed(packer, event->told.bytes, sizeof event->told.bytes);
    pack_u32(packer, (uint32_t)event->form);
    pack_u64(packer, event->size);
    pack_u32(packer, event->delta);
    pack_u64(packer, event->clock);
    pack_u64(packer, event->snapshot);
    pack_u64(packer, event->snapshot_workers);
    pack_f64(packer, event->snapshot_examples);
    pack_text(packer, event->part[0] != '\0' ? event->part : NULL);
    pack_u32(packer, event->summed);
}

struct wire_gradient event_gradient(const struct layout *layout, const struct event *event,
                                    struct buffer *body, size_t body_offset)
{
    return (struct wire_gradient){
        .data = body->data + body_offset,
        .wire = event->wire,
        .count = layout->count,
        .form = event->form,
        .size = event->form == FORM_DENSE ? layout->count * dtype_size(event->wire) : event->size,
        .layout = layout};
}

static void unpack_nonfinite(struct unpacker *unpacker, struct nonfinite_counts *out)
{
    out->tensors = unpack_u32(unpacker);
    unpacker->failed |= out->tensors > NONFINITE_TENSORS_MAX;
    for (uint32_t i = 0; i < out->tensors && !unpacker->failed; i++) {
        out->of[i].tensor = unpack_u32(unpacker);
        out->of[i].count = unpack_u32(unpacker);
    }
}

enum status event_unpack(struct span record, struct event *out, struct fault *fault)
{
    struct unpacker unpacker = {.data = record.data, .size = record.size};
    struct event event = {0};

    bool known = unpack_format(&unpacker);
    event.kind = unpack_u32(&unpacker);
    event.step = unpack_u64(&unpacker);
    event.base_step = unpack_u64(&unpacker);
    event.created_us = unpack_u64(&unpacker);
    event.wire = (enum dtype)unpack_u32(&unpacker);
    double *const numbers[] = {&event.grad_norm, &event.clip_scale, &event.loss,  &event.examples,
                               &event.lr,        &event.momentum,   &event.beta1, &event.beta2};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = unpack_f64(&unpacker);
    event.keyed = unpack_u32(&unpacker) != 0;
    if (event.keyed)
        unpack_fixed(&unpacker, event.key.bytes, sizeof event.key.bytes);
    unpack_fixed(&unpacker, event.payload.bytes, sizeof event.payload.bytes);
    unpack_text(&unpacker, event.worker, sizeof event.worker);
    event.seq = unpack_u64(&unpacker);
    if (unpack_u32(&unpacker) != 0) {
        struct span cursor = unpack_bytes(&unpacker);
        event.cursor = (const char *)cursor.data;
        event.cursor_size = cursor.size;
    }
    if (unpacker.format >= 3) {
        event.lineage = unpack_u64(&unpacker);
        event.origin = unpack_u64(&unpacker);
        unpack_nonfinite(&unpacker, &event.nonfinite);
        if ((event.told_step = unpack_u64(&unpacker)) > 0)
            unpack_fixed(&unpacker, event.told.bytes, sizeof event.told.bytes);
    }
    if (unpacker.format >= 4) {
        event.form = (enum gradient_form)unpack_u32(&unpacker);
        event.size = unpack_u64(&unpacker);
        event.delta = unpack_u32(&unpacker) != 0;
        event.clock = unpack_u64(&unpacker);
        event.snapshot = unpack_u64(&unpacker);
        event.snapshot_workers = unpack_u64(&unpacker);
        event.snapshot_examples = unpack_f64(&unpacker);
        unpack_text(&unpacker, event.part, sizeof event.part);
        event.summed = unpack_u32(&unpacker) != 0;
    }
    event.format = unpacker.format;
    if (event.kind == EVENT_SKIP) /* format 3 had no word for it */
        event.form = FORM_NONE;
    event.keyed &= !BUG(forget_key);
    event.seq = BUG(forget_seq) ? 0 : event.seq;
    event.lr = BUG(lose_override) ? (double)NAN : event.lr;
    if (unpacker.failed || !known || event.wire >= DTYPE_COUNT || event.form >= FORM_COUNT ||
        event.kind < EVENT_GRADIENT || event.kind > EVENT_KIND_LAST)
        return damaged(fault, "event");
    *out = event;
    return STATUS_OK;
}

void session_record_pack(struct packer *packer, const struct session_record *record)
{
    const struct layout *layout = record->layout;

    pack_u32(packer, RECORD_FORMAT);
    pack_u64(packer, record->created_us);
    pack_fixed(packer, record->request.bytes, sizeof record->request.bytes);
    spec_pack(packer, &record->spec);
    pack_u32(packer, (uint32_t)layout->tensor_count);
    for (size_t i = 0; i < layout->tensor_count; i++) {
        pack_text(packer, layout->tensors[i].name);
        pack_u32(packer, layout->tensors[i].rank);
        for (unsigned k = 0; k < layout->tensors[i].rank; k++)
            pack_u64(packer, layout->tensors[i].shape[k]);
    }
    pack_u64(packer, record->lineage);
    pack_text(packer, record->parent);
    pack_u64(packer, record->parent_moment.lineage);
    pack_u64(packer, record->parent_moment.step);
}

static enum status unpack_layout(struct unpacker *unpacker, struct layout **out,
                                 struct fault *fault)
{
    struct layout *layout = layout_new();
    enum status status = STATUS_OK;

    if (layout == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (uint32_t count = unpack_u32(unpacker); count > 0 && status == STATUS_OK; count--) {
        struct span name = unpack_bytes(unpacker);
        uint32_t rank = unpack_u32(unpacker);
        size_t shape[LAYOUT_RANK_MAX];
        if (unpacker->failed || rank > LAYOUT_RANK_MAX) {
            status = damaged(fault, "layout");
            break;
        }
        for (uint32_t k = 0; k < rank; k++)
            shape[k] = unpack_u64(unpacker);
        status = layout_add(layout, (const char *)name.data, name.size, rank, shape, fault);
    }
    if (status == STATUS_OK)
        status = layout_seal(layout, fault);
    if (status == STATUS_OK)
        *out = layout;
    else
        layout_release(layout);
    return status;
}

enum status session_record_unpack(struct span bytes, struct session_record *out,
                                  struct fault *fault)
{
    struct unpacker unpacker = {.data = bytes.data, .size = bytes.size};
    struct session_record record = {.lineage = 0};
    enum status status;

    bool known = unpack_format(&unpacker);
    record.created_us = unpack_u64(&unpacker);
    unpack_fixed(&unpacker, record.request.bytes, sizeof record.request.bytes);
    if (unpacker.failed || !known)
        return damaged(fault, "session");
    if ((status = spec_unpack(&unpacker, &record.spec, fault)) != STATUS_OK ||
        (status = unpack_layout(&unpacker, &record.layout, fault)) != STATUS_OK)
        return status;
    if (unpacker.format >= 3) {
        record.lineage = unpack_u64(&unpacker);
        unpack_text(&unpacker, record.parent, sizeof record.parent);
        record.parent_moment.lineage = unpack_u64(&unpacker);
        record.parent_moment.step = unpack_u64(&unpacker);
    }
    if (unpacker.failed) {
        layout_release(record.layout);
        return damaged(fault, "session");
    }
    *out = record;
    return STATUS_OK;
}

void checkpoint_head_pack(struct packer *packer, const struct checkpoint_head *head,
                          const struct ledger *ledger)
{
    pack_u32(packer, RECORD_FORMAT);
    pack_u64(packer, head->step);
    pack_u64(packer, head->lineage);
    pack_u64(packer, head->updates);
    receipt_pack(packer, &head->last);
    pack_text(packer, head->cursor);
    spec_pack(packer, &head->spec);
    for (size_t i = 0; i < SCALARS_MAX; i++)
        pack_f64(packer, head->scalar[i]);
    pack_u64(packer, head->base_count);
    pack_u32(packer, head->slots);
    ledger_pack(packer, ledger);
    pack_u32(packer, head->hashed);
    pack_fixed(packer, head->state_hash.bytes, sizeof head->state_hash.bytes);
    pack_f64(packer, head->norm_average);
    pack_u64(packer, head->norm_count);
    snapshot_pack(packer, &head->snapshot);
}

enum status checkpoint_head_unpack(struct span bytes, struct checkpoint_head *out,
                                   struct ledger *ledger, struct fault *fault)
{
    struct unpacker unpacker = {.data = bytes.data, .size = bytes.size};
    struct checkpoint_head head = {0};
    char cursor[CURSOR_BYTES + 1];
    enum status status;

    bool known = unpack_format(&unpacker);
    head.step = unpack_u64(&unpacker);
    head.lineage = unpack_u64(&unpacker);
    head.updates = unpack_u64(&unpacker);
    receipt_unpack(&unpacker, &head.last);
    bool has_cursor = unpack_text(&unpacker, cursor, sizeof cursor);
    if (unpacker.failed || !known)
        return damaged(fault, "checkpoint");
    if ((status = spec_unpack(&unpacker, &head.spec, fault)) != STATUS_OK)
        return status;
    for (size_t i = 0; i < SCALARS_MAX; i++)
        head.scalar[i] = unpack_f64(&unpacker);
    head.base_count = unpack_u64(&unpacker);
    if (head.base_count > BASES_MAX)
        return damaged(fault, "checkpoint");
    head.slots = unpack_u32(&unpacker);
    if (has_cursor && (head.cursor = strdup(cursor)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (!ledger_unpack(&unpacker, ledger)) {
        free(head.cursor);
        return unpacker.failed ? damaged(fault, "checkpoint")
                               : fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    if (unpacker.format >= 3) {
        head.hashed = unpack_u32(&unpacker) != 0;
        unpack_fixed(&unpacker, head.state_hash.bytes, sizeof head.state_hash.bytes);
        head.norm_average = unpack_f64(&unpacker);
        head.norm_count = unpack_u64(&unpacker);
    }
    bool unpacked = snapshot_unpack(&unpacker, &head.snapshot);
    if (!unpacked && !unpacker.failed) {
        free(head.cursor);
        ledger_close(ledger);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    bool countable = head.step < COUNT_MAX && head.lineage < COUNT_MAX &&
                     head.updates < COUNT_MAX && head.snapshot.last < COUNT_MAX;
    if (unpacker.failed || !countable || !isfinite(head.norm_average) || head.norm_average < 0) {
        free(head.cursor);
        snapshot_drop(&head.snapshot);
        ledger_close(ledger);
        return damaged(fault, "checkpoint");
    }
    *out = head;
    return STATUS_OK;
}
