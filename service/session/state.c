/* States and revisions: memory, slots, what becomes current. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/advance.h"
#include "service/session/event.h"
#include "service/session/session.h"

/* The moving average of the norms is the plain mean at first, then forgets one part in so many a
 * step. */
enum { NORMS_MAX = 100 };

struct revision *revision_new(size_t bytes, bool averaged)
{
    struct revision *revision = calloc(1, sizeof *revision);

    if (revision == NULL)
        return NULL;
    revision->references = 1;
    if ((bytes > 0 && (revision->weights = buffer_new(bytes)) == NULL) ||
        (bytes > 0 && averaged && (revision->average = buffer_new(bytes)) == NULL)) {
        revision_release(revision);
        return NULL;
    }
    return revision;
}

struct revision *revision_retain(struct revision *revision)
{
    __atomic_add_fetch(&revision->references, 1, __ATOMIC_RELAXED);
    return revision;
}

void revision_release(struct revision *revision)
{
    if (revision == NULL || __atomic_sub_fetch(&revision->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    buffer_release(revision->weights);
    buffer_release(revision->average);
    free(revision);
}

enum status check_finite(const struct layout *layout, const char *member, size_t bad_count,
                         size_t bad_index, enum status status, struct fault *fault)
{
    const struct tensor *tensor = layout->tensors;
    char where[300];

    if (bad_count == 0)
        return STATUS_OK;
    while (bad_index >= tensor->offset + tensor->count)
        tensor++;
    snprintf(where, sizeof where, "/%s/", member);
    pointer_escape(where + strlen(where), sizeof where - strlen(where), tensor->name);
    return fault_set(fault, status, where,
                     "%zu element%s not finite in the session's precision, the first at index "
                     "%zu of tensor %s",
                     bad_count, bad_count == 1 ? " is" : "s are", bad_index - tensor->offset,
                     tensor->name);
}

enum status check_weights(const struct layout *layout, enum dtype dtype,
                          const struct buffer *weights, struct fault *fault)
{
    struct wire_gradient vector = dense_gradient(weights->data, dtype, layout->count);
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};

    advances(dtype)->measure(&vector, &measure);
    return check_finite(layout, "parameters", measure.bad_count, measure.bad_index,
                        STATUS_INVALID_FIELD, fault);
}

struct state *state_new(const struct layout *layout)
{
    struct state *state = calloc(1, sizeof *state);

    if (state == NULL || layout->tensor_count > NOTES_MAX)
        return state;
    state->note_count = layout->tensor_count;
    if ((state->sample = sample_new(layout)) != NULL)
        return state;
    state_free(state);
    return NULL;
}

/* Forgets all but the newest `count` bases. */
static void keep_bases(struct state *state, size_t count)
{
    while (state->base_count > count)
        revision_release(state->base[--state->base_count]);
}

void state_free(struct state *state)
{
    if (state == NULL)
        return;
    revision_release(state->current);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        buffer_release(state->slot[k]);
    buffer_release(state->workspace);
    keep_bases(state, 0);
    free(state->cursor);
    ledger_close(&state->ledger);
    receipts_close(&state->receipts);
    round_clear(&state->round);
    buffer_release(state->mean);
    sample_free(state->sample);
    snapshot_drop(&state->snapshot);
    free(state);
}

static size_t bases_of(const struct spec *spec)
{
    return spec->rule->bases == NULL ? 0 : spec->rule->bases(spec->hyper);
}

/* A slot without numbers (a rule may have none for these shapes) is not there. */
static bool slot_exists(const struct plan *plan, const struct spec *spec, size_t k)
{
    return k < plan->rule->slot_count && plan->slot_count[k] > 0 &&
           slot_needed(&plan->rule->slots[k], spec->hyper);
}

uint64_t state_bytes(const struct layout *layout, const struct plan *plan, const struct spec *spec)
{
    uint64_t numbers = layout->count * (1 + spec->ema.on + bases_of(spec));

    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (slot_exists(plan, spec, k))
            numbers += plan->slot_count[k];
    uint64_t sample = layout->tensor_count > NOTES_MAX ? 0 : sample_bytes(layout);
    return numbers * dtype_size(spec->dtype) + plan->workspace + sample +
           snapshot_bytes(spec, layout->count);
}

/* A slot as it starts: zeros, the weights, or all at the value of a hyperparameter. */
static struct buffer *new_slot(const struct state *state, const struct plan *plan,
                               const struct spec *spec, size_t k)
{
    const struct slot *slot = &plan->rule->slots[k];
    size_t count = plan->slot_count[k], element = dtype_size(spec->dtype);
    double value = spec->hyper[slot->initial];
    struct buffer *buffer = buffer_new_zeroed(count * element);

    if (buffer != NULL && slot->starts_as_weights)
        memcpy(buffer->data, state->current->weights->data, count * element);
    if (buffer == NULL || slot->initial == 0 || value == 0)
        return buffer;
    dtype_convert(spec->dtype, buffer->data, DTYPE_F64, &value, 1);
    for (size_t done = 1; done < count; done *= 2) /* doubling what is there */
        memcpy(buffer->data + done * element, buffer->data,
               (done < count - done ? done : count - done) * element);
    return buffer;
}

void addition_release(struct addition *addition)
{
    for (size_t k = 0; k < SLOTS_MAX; k++)
        buffer_release(addition->slot[k]);
    buffer_release(addition->workspace);
    *addition = (struct addition){.workspace = NULL};
}

enum status state_lacks(const struct state *state, const struct plan *plan, const struct spec *spec,
                        struct addition *out, struct fault *fault)
{
    bool lacks = false;

    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (state->slot[k] == NULL && slot_exists(plan, spec, k))
            lacks |= (out->slot[k] = new_slot(state, plan, spec, k)) == NULL;
    if (state->workspace == NULL && plan->workspace > 0)
        lacks |= (out->workspace = buffer_new(plan->workspace)) == NULL;
    if (!lacks)
        return STATUS_OK;
    addition_release(out);
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory for optimizer state");
}

void state_fit(struct state *state, const struct plan *plan, const struct spec *spec,
               struct addition *take_added)
{
    for (size_t k = 0; k < SLOTS_MAX; k++) {
        if (take_added->slot[k] != NULL)
            state->slot[k] = take_added->slot[k];
        if (slot_exists(plan, spec, k))
            continue;
        buffer_release(state->slot[k]);
        state->slot[k] = NULL;
    }
    if (take_added->workspace != NULL)
        state->workspace = take_added->workspace;
    state->bases_max = bases_of(spec);
    keep_bases(state, state->bases_max);
}

void state_start(struct state *state, const struct optimizer *rule)
{
    for (size_t k = 0; k < rule->scalar_count; k++)
        state->scalar[k] = rule->scalars[k].initial;
}

/* A norm beyond the largest double is infinite: no average could forget it. */
static void note_norm(struct state *state, double norm)
{
    if (!isfinite(norm))
        return;
    if (state->norm_count < NORMS_MAX)
        state->norm_count++;
    state->norm_average += (norm - state->norm_average) / (double)state->norm_count;
}

bool state_reserve(struct state *state, size_t events, size_t members)
{
    return ledger_reserve(&state->ledger, events) &&
           receipts_reserve(&state->receipts, events, state->note_count, members);
}

static void take_cursor_of(struct state *state, char *take_cursor)
{
    if (take_cursor == NULL)
        return;
    free(state->cursor);
    state->cursor = take_cursor;
}

/* What makes the event's repeat known. */
static void note_sender(struct state *state, const struct event *event,
                        const struct receipt *receipt)
{
    struct ledger_worker worker = {.seq = event->seq,
                                   .payload = event->payload,
                                   .receipt = *receipt,
                                   .clock = event->clock,
                                   .base_step = event->base_step,
                                   .step = receipt->step,
                                   .seen_us = event->created_us};

    if (event->keyed)
        ledger_add_key(&state->ledger, &event->key, &event->payload, receipt);
    if (event->worker[0] == '\0' || (event->seq == 0 && event->clock == 0))
        return;
    memcpy(worker.name, event->worker, sizeof worker.name);
    ledger_add_worker(&state->ledger, &worker);
}

struct receipt state_waiting(const struct state *state, const struct spec *spec,
                             const struct event *event, uint64_t received)
{
    const struct revision *current = state->current;
    double nothing = (double)NAN;

    return (struct receipt){.kind = RECEIPT_WAITING,
                            .step = current->step + 1,
                            .lineage = current->lineage,
                            .durable_step = current->step,
                            .base_step = event->base_step,
                            .staleness = current->step - event->base_step,
                            .lr = nothing,
                            .grad_norm = event->grad_norm,
                            .clip_scale = nothing,
                            .update_norm = nothing,
                            .param_norm = nothing,
                            .loss = event->loss,
                            .received = received,
                            .expected = spec_round_size(spec),
                            .snapshot = event->snapshot};
}

void state_contribute(struct state *state, const struct spec *spec, const struct event *event,
                      struct contribution *take_contribution, char *take_cursor,
                      struct receipt *out)
{
    round_add(&state->round, take_contribution, event->created_us);
    *out = state_waiting(state, spec, event, state->round.count);
    take_cursor_of(state, take_cursor);
    note_sender(state, event, out);
}

void state_publish(struct state *state, const struct event *event, struct revision *take_next,
                   const struct step_line *line, char *take_cursor)
{
    const struct receipt *receipt = &line->receipt;

    receipts_add(&state->receipts, line);
    if (receipt->hashed) {
        state->told_step = receipt->step;
        state->told[receipt->step % TOLD_MAX] = (struct told){receipt->step, receipt->state_hash};
    }
    /* Admission looks at it. */
    if (event->kind == EVENT_GRADIENT && line->member_count == 0)
        note_norm(state, event->grad_norm);
    for (size_t i = 0; i < line->member_count; i++)
        note_norm(state, line->members[i].grad_norm);
    if (state->bases_max > 0) {
        keep_bases(state, state->bases_max - 1);
        memmove(state->base + 1, state->base, state->base_count * sizeof *state->base);
        state->base[0] = state->current;
        state->base_count++;
    } else {
        revision_release(state->current);
    }
    state->current = take_next;
    state->last = *receipt;
    take_cursor_of(state, take_cursor);
    note_sender(state, event, receipt);
    if (event_closes(event->kind))
        round_settle(&state->round, &state->ledger, receipt);
}
