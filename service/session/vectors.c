/* A state as a head and vectors: what a checkpoint stores and an image carries. */
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

uint32_t state_stored_slots(const struct state *state, const struct plan *plan)
{
    uint32_t stored = 0;

    for (size_t k = 0; k < plan->rule->slot_count; k++) {
        const struct slot *slot = &plan->rule->slots[k];
        bool starts_so = state->updates == 0 && slot->initial == 0 && !slot->starts_as_weights;
        if (state->slot[k] != NULL && !starts_so)
            stored |= 1u << k;
    }
    return stored;
}

size_t state_vectors(const struct state *state, const struct plan *plan, uint32_t slots,
                     struct vector out[VECTORS_MAX])
{
    size_t element = dtype_size(plan->rule->dtype), size = plan->layout->count * element;
    const struct revision *current = state->current;
    size_t count = 0;

    out[count++] = (struct vector){VECTOR_WEIGHTS, 0, current->weights, size};
    if (current->average != NULL)
        out[count++] = (struct vector){VECTOR_AVERAGE, 0, current->average, size};
    for (size_t i = 0; i < state->base_count; i++)
        out[count++] = (struct vector){VECTOR_BASE, i, state->base[i]->weights, size};
    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (slots >> k & 1)
            out[count++] =
                (struct vector){VECTOR_SLOT, k, state->slot[k], plan->slot_count[k] * element};
    if (state->snapshot.number == 0)
        return count;
    const struct snapshot *snapshot = &state->snapshot;
    out[count++] = (struct vector){VECTOR_SNAPSHOT, 0, snapshot->weights->weights, size};
    if (snapshot->ready)
        out[count++] = (struct vector){VECTOR_MEAN, 0, snapshot->mean, size};
    else
        out[count++] =
            (struct vector){VECTOR_SUM, 0, snapshot->sum, plan->layout->count * sizeof(double)};
    return count;
}

struct checkpoint_head state_head(const struct state *state, const struct spec *spec,
                                  const struct plan *plan)
{
    struct checkpoint_head head = {.step = state->current->step,
                                   .lineage = state->current->lineage,
                                   .updates = state->updates,
                                   .base_count = state->base_count,
                                   .last = state->last,
                                   .cursor = state->cursor,
                                   .spec = *spec,
                                   .slots = state_stored_slots(state, plan),
                                   .hashed = true,
                                   .norm_average = state->norm_average,
                                   .norm_count = state->norm_count,
                                   .snapshot = state->snapshot};

    memcpy(head.scalar, state->scalar, sizeof head.scalar);
    head.state_hash = state_hash(state, state->current, plan);
    return head;
}

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a state");
}

static enum status misfit(struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "a checkpoint has state that its rule does not have");
}

/* The current revision, and those before it, the newest first. */
static enum status make_revisions(struct state *state, const struct checkpoint_head *head,
                                  size_t size, struct fault *fault)
{
    const struct spec *spec = &head->spec;

    if ((state->current = revision_new(size, spec->ema.on)) == NULL)
        return no_memory(fault);
    state->current->step = head->step;
    state->current->lineage = head->lineage;
    state->current->average_divisor = spec_average_divisor(spec, head->updates);
    while (state->base_count < head->base_count) {
        struct revision *base = revision_new(size, false);
        if (base == NULL)
            return no_memory(fault);
        base->step = head->step - 1 - state->base_count;
        base->lineage = head->lineage;
        state->base[state->base_count++] = base;
    }
    return STATUS_OK;
}

enum status state_of_head(const struct plan *plan, struct checkpoint_head *take_head,
                          struct ledger *take_ledger, struct state **out, struct fault *fault)
{
    const struct checkpoint_head *head = take_head;
    struct addition added = {.workspace = NULL};
    struct state *state = state_new(plan->layout);
    enum status status;

    if (state == NULL) {
        free(take_head->cursor);
        snapshot_drop(&take_head->snapshot);
        ledger_close(take_ledger);
        return no_memory(fault);
    }
    state->cursor = head->cursor;
    state->ledger = *take_ledger;
    state->last = head->last;
    state->updates = head->updates;
    state->norm_average = head->norm_average;
    state->norm_count = head->norm_count;
    state->snapshot = head->snapshot;
    memcpy(state->scalar, head->scalar, sizeof state->scalar);
    status =
        make_revisions(state, head, plan->layout->count * dtype_size(plan->rule->dtype), fault);
    if (status == STATUS_OK)
        status =
            snapshot_make_room(&state->snapshot, plan->rule->dtype, plan->layout->count, fault);
    if (status == STATUS_OK)
        status = state_lacks(state, plan, &head->spec, &added, fault);
    if (status != STATUS_OK)
        goto done;
    state_fit(state, plan, &head->spec, &added);
    if (state->base_count != head->base_count)
        status = misfit(fault);
    for (size_t k = 0; k < 32 && status == STATUS_OK; k++)
        if ((head->slots >> k & 1) && (k >= SLOTS_MAX || state->slot[k] == NULL))
            status = misfit(fault);
done:
    if (status == STATUS_OK)
        *out = state;
    else
        state_free(state);
    return status;
}
