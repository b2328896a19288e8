/* A whole session at one moment, out of the session and into another one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/core/utf8.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

/* What struct image hides. */
struct contents {
    struct plan *plan;
    struct state *state;
    struct session_record record; /* layout: the image's */
    struct packer packed_record, packed_head;
};

void image_free(struct image *image)
{
    if (image == NULL)
        return;
    struct contents *contents = image->internal;
    for (size_t i = 0; i < image->vector_count; i++) {
        free(image->vectors[i].extent);
        free(image->vectors[i].start);
    }
    if (contents != NULL) {
        state_free(contents->state);
        plan_free(contents->plan);
        packer_close(&contents->packed_record);
        packer_close(&contents->packed_head);
    }
    free(contents);
    layout_release(image->layout);
    free(image);
}

static struct image *image_new(void)
{
    struct image *image = calloc(1, sizeof *image);

    if (image != NULL && (image->internal = calloc(1, sizeof(struct contents))) == NULL) {
        free(image);
        return NULL;
    }
    return image;
}

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

static void name_vector(const struct plan *plan, const struct vector *from,
                        struct image_vector *out)
{
    switch (from->kind) {
    case VECTOR_WEIGHTS:
        out->prefix[0] = '\0';
        break;
    case VECTOR_AVERAGE:
        strcpy(out->prefix, "average/");
        break;
    case VECTOR_BASE: /* how many steps before the current revision */
        snprintf(out->prefix, sizeof out->prefix, "base/%zu/", from->index + 1);
        break;
    case VECTOR_SLOT:
        snprintf(out->prefix, sizeof out->prefix, "slot/%s/", plan->rule->slots[from->index].name);
        break;
    case VECTOR_SNAPSHOT:
        strcpy(out->prefix, "snapshot/");
        break;
    case VECTOR_SUM:
        strcpy(out->prefix, "snapshot_sum/");
        break;
    case VECTOR_MEAN:
        strcpy(out->prefix, "snapshot_gradient/");
        break;
    }
}

/* Where each tensor's numbers are. */
static bool place_tensors(const struct plan *plan, const struct layout *layout,
                          const struct vector *from, struct image_vector *out)
{
    const struct slot *slot = from->kind == VECTOR_SLOT ? &plan->rule->slots[from->index] : NULL;
    size_t start = 0;

    out->dtype = from->kind == VECTOR_SUM ? DTYPE_F64 : plan->rule->dtype;
    out->shaped = slot == NULL || slot->extent == NULL;
    out->extent = calloc(layout->tensor_count, sizeof *out->extent);
    out->start = calloc(layout->tensor_count, sizeof *out->start);
    if (out->extent == NULL || out->start == NULL)
        return false;
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        out->extent[i] = slot == NULL ? tensor->count : slot_extent(slot, tensor);
        out->start[i] = start;
        start += out->extent[i];
    }
    POST(start * dtype_size(out->dtype) == from->size);
    return true;
}

static enum status list_vectors(struct image *image, uint32_t slots, struct fault *fault)
{
    struct contents *contents = image->internal;
    struct vector vectors[VECTORS_MAX];
    size_t count = state_vectors(contents->state, contents->plan, slots, vectors);

    PRE(count <= sizeof image->vectors / sizeof *image->vectors);
    for (size_t i = 0; i < count; i++) {
        struct image_vector *out = &image->vectors[image->vector_count++];
        out->data = vectors[i].data;
        name_vector(contents->plan, &vectors[i], out);
        if (!place_tensors(contents->plan, image->layout, &vectors[i], out))
            return no_memory(fault);
    }
    return STATUS_OK;
}

/* A file has no open round, and nobody was seen where it goes. */
static void leave_behind(struct state *state)
{
    round_disown(&state->round, &state->ledger);
    for (size_t i = 0; i < state->ledger.worker_count; i++)
        state->ledger.workers[i].seen_us = 0;
}

/* The image of a state that was loaded, which it takes. */
static enum status make_image(struct session *session, struct loaded *loaded, struct image *image,
                              struct fault *fault)
{
    struct contents *contents = image->internal;
    struct session_record record = {.created_us = session->created_us,
                                    .request = session->request,
                                    .spec = loaded->spec,
                                    .layout = session->layout,
                                    .lineage = loaded->state->current->lineage,
                                    .parent_moment = session->parent_moment};
    struct checkpoint_head head = state_head(loaded->state, &loaded->spec, session->plan);
    enum status status;

    memcpy(record.parent, session->parent, sizeof record.parent);
    image->layout = layout_retain(session->layout);
    image->spec = loaded->spec;
    image->moment = (struct moment){head.lineage, head.step};
    image->state_hash = head.state_hash;
    contents->state = loaded->state;
    loaded->state = NULL;
    session_record_pack(&contents->packed_record, &record);
    if (BUG(export_forgets_ledger))
        ledger_close(&contents->state->ledger);
    leave_behind(contents->state);
    checkpoint_head_pack(&contents->packed_head, &head, &contents->state->ledger);
    if (contents->packed_record.failed || contents->packed_head.failed)
        return no_memory(fault);
    image->record = packer_span(&contents->packed_record);
    image->head = packer_span(&contents->packed_head);
    if ((status = plan_new(&image->spec, image->layout, &contents->plan, fault)) != STATUS_OK)
        return status;
    return list_vectors(image, head.slots, fault);
}

enum status session_export(struct session *session, const struct moment_query *query,
                           struct image **out, struct fault *fault)
{
    struct image *image = image_new();
    struct loaded loaded;
    enum status status;

    if (image == NULL)
        return no_memory(fault);
    if ((status = session_enter_past(session, query, &loaded, fault)) == STATUS_OK) {
        status = make_image(session, &loaded, image, fault);
        session_leave_past(session, &loaded);
    }
    if (status == STATUS_OK)
        *out = image;
    else
        image_free(image);
    return status;
}

static enum status unreadable(struct fault *fault)
{
    char why[200];

    snprintf(why, sizeof why, "%.190s", fault->detail);
    return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent_state",
                     "this state cannot be restored: %s", why);
}

static bool is_text(const char *text, size_t size)
{
    size_t length = 1;

    for (; size > 0 && length > 0; text += length, size -= length)
        length = utf8_length(text, size);
    return length > 0;
}

/* What is shown again as text is text: one session must not spoil the list of all. */
static bool texts_hold(const struct session_record *record, const struct checkpoint_head *head,
                       const struct ledger *ledger)
{
    for (size_t i = 0; i < ledger->worker_count; i++)
        if (!is_text(ledger->workers[i].name, strlen(ledger->workers[i].name)))
            return false;
    return (record->parent[0] == '\0' || session_id_valid(record->parent)) &&
           (head->cursor == NULL || is_text(head->cursor, strlen(head->cursor))) &&
           is_text(head->spec.labels, head->spec.label_bytes);
}

/* The head is of the session that the record tells of, and its counters are sound. */
static bool heads_fit(const struct session_record *record, const struct checkpoint_head *head,
                      const struct ledger *ledger)
{
    const struct spec *a = &record->spec, *b = &head->spec;

    return a->rule == b->rule && a->dtype == b->dtype && a->ema.on == b->ema.on &&
           a->groups.count == b->groups.count && head->hashed && texts_hold(record, head, ledger) &&
           record->parent_moment.step < COUNT_MAX && record->parent_moment.lineage < COUNT_MAX &&
           head->updates <= head->step && head->base_count <= head->step &&
           (head->snapshot.number == 0 ||
            (b->svrg.on && head->snapshot.weights->step <= head->step &&
             head->snapshot.weights->lineage <= head->lineage));
}

static enum status read_records(struct image *image, struct span record, struct span head,
                                struct checkpoint_head *read, struct ledger *ledger,
                                struct fault *fault)
{
    struct contents *contents = image->internal;
    enum status status;

    pack_fixed(&contents->packed_record, record.data, record.size);
    pack_fixed(&contents->packed_head, head.data, head.size);
    if (contents->packed_record.failed || contents->packed_head.failed)
        return no_memory(fault);
    image->record = packer_span(&contents->packed_record);
    image->head = packer_span(&contents->packed_head);
    if ((status = session_record_unpack(image->record, &contents->record, fault)) == STATUS_OK) {
        image->layout = contents->record.layout;
        status = checkpoint_head_unpack(image->head, read, ledger, fault);
    }
    if (status == STATUS_STORAGE_FAILED || status == STATUS_INVALID_FIELD)
        return unreadable(fault);
    if (status == STATUS_OK && !heads_fit(&contents->record, read, ledger)) {
        free(read->cursor);
        snapshot_drop(&read->snapshot);
        ledger_close(ledger);
        return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent_state",
                         "this state cannot be restored: its parts are not of one session");
    }
    return status;
}

enum status engine_image(struct engine *engine, struct span record, struct span head,
                         struct image **out, struct fault *fault)
{
    struct image *image = image_new();
    struct contents *contents;
    struct checkpoint_head read;
    struct ledger ledger = {.keys = NULL};
    enum status status;

    if (image == NULL)
        return no_memory(fault);
    contents = image->internal;
    if ((status = read_records(image, record, head, &read, &ledger, fault)) != STATUS_OK)
        goto done;
    image->spec = read.spec;
    image->moment = (struct moment){read.lineage, read.step};
    image->state_hash = read.state_hash;
    status = engine_plan(engine, &image->spec, image->layout, &contents->plan, fault);
    if (status != STATUS_OK) {
        free(read.cursor);
        snapshot_drop(&read.snapshot);
        ledger_close(&ledger);
        goto done;
    }
    status = state_of_head(contents->plan, &read, &ledger, &contents->state, fault);
    if (status == STATUS_STORAGE_FAILED)
        status = unreadable(fault);
    if (status == STATUS_OK && read.slots != state_stored_slots(contents->state, contents->plan))
        status = fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent_state",
                           "this state cannot be restored: it has other slots than its rule");
    if (status == STATUS_OK)
        status = list_vectors(image, read.slots, fault);
done:
    if (status == STATUS_OK)
        *out = image;
    else
        image_free(image);
    return status;
}

enum status engine_import(struct engine *engine, const struct owner *owner, const char *id,
                          struct image *take_image, struct session **out, bool *created,
                          struct fault *fault)
{
    struct image *image = take_image;
    struct contents *contents = image->internal;
    struct state *state = contents->state;
    struct session_record record = contents->record;
    struct digest hash = state_hash(state, state->current, contents->plan);
    struct digest parts[2] = {hash_bytes(image->record.data, image->record.size),
                              hash_bytes(image->head.data, image->head.size)};
    enum status status;

    if (memcmp(&hash, &image->state_hash, sizeof hash) != 0) {
        status = fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__/descent_state",
                           "the tensors do not have the state_hash that they were exported with; "
                           "send the file as it was fetched");
        goto done;
    }
    status = check_weights(image->layout, image->spec.dtype, state->current->weights, fault);
    if (status == STATUS_OK)
        status = snapshot_check(&state->snapshot, image->layout, image->spec.dtype, fault);
    if (status != STATUS_OK)
        goto done;
    record.created_us = clock_unix_us();
    record.request = hash_bytes(parts, sizeof parts);
    record.spec = image->spec;
    record.lineage = image->moment.lineage;
    contents->state = NULL;

    POINT(before_import);
    status = engine_adopt(engine, owner, id, &record, state, out, created, fault);
done:
    image_free(image);
    return status;
}
