/* States and revisions, and what an event makes of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/advance.h"
#include "service/session/session.h"

struct revision *revision_new(size_t bytes)
{
    struct revision *revision = calloc(1, sizeof *revision);

    if (revision == NULL)
        return NULL;
    revision->references = 1;
    if (bytes > 0 && (revision->weights = buffer_new(bytes)) == NULL) {
        free(revision);
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
    struct wire_gradient vector = {weights->data, dtype, layout->count};
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};

    advances(dtype)->measure(&vector, &measure);
    return check_finite(layout, "parameters", measure.bad_count, measure.bad_index,
                        STATUS_INVALID_FIELD, fault);
}

struct state *state_new(void)
{
    return calloc(1, sizeof(struct state));
}

void state_free(struct state *state)
{
    if (state == NULL)
        return;
    revision_release(state->current);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        buffer_release(state->slot[k]);
    free(state->cursor);
    ledger_close(&state->ledger);
    free(state);
}

uint64_t state_bytes(const struct layout *layout, const struct spec *spec)
{
    uint64_t vectors = 1;

    for (size_t k = 0; k < spec->rule->slot_count; k++)
        vectors += slot_needed(&spec->rule->slots[k], spec->hyper);
    return vectors * layout->count * dtype_size(spec->dtype);
}

enum status state_slots_missing(const struct state *state, const struct spec *spec, size_t count,
                                struct buffer *added[SLOTS_MAX], struct fault *fault)
{
    for (size_t k = 0; k < spec->rule->slot_count; k++) {
        if (state->slot[k] != NULL || !slot_needed(&spec->rule->slots[k], spec->hyper))
            continue;
        added[k] = buffer_new_zeroed(count * dtype_size(spec->dtype));
        if (added[k] != NULL)
            continue;
        while (k-- > 0) {
            buffer_release(added[k]);
            added[k] = NULL;
        }
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for optimizer state");
    }
    return STATUS_OK;
}

void state_fit(struct state *state, const struct spec *spec, struct buffer *take_added[SLOTS_MAX])
{
    for (size_t k = 0; k < SLOTS_MAX; k++) {
        if (take_added[k] != NULL)
            state->slot[k] = take_added[k];
        if (k < spec->rule->slot_count && slot_needed(&spec->rule->slots[k], spec->hyper))
            continue;
        buffer_release(state->slot[k]);
        state->slot[k] = NULL;
    }
}

void event_hyper(const struct spec *spec, const struct event *event, double hyper[HYPERS_MAX])
{
    const struct {
        const char *name;
        double value;
    } overrides[] = {
        {"lr", event->lr},
        {"momentum", event->momentum},
        {"beta1", event->beta1},
        {"beta2", event->beta2},
    };

    memcpy(hyper, spec->hyper, sizeof spec->hyper);
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++)
        if (!isnan(overrides[i].value)) {
            size_t index = optimizer_hyper(spec->rule, overrides[i].name);
            PRE(index < spec->rule->hyper_count);
            hyper[index] = overrides[i].value;
        }
}

static void apply_gradient(struct state *state, const struct spec *spec, size_t count,
                           const struct event *event, void *gradient, struct revision *next,
                           struct receipt *receipt)
{
    double hyper[HYPERS_MAX];
    double clip = spec->gradient.clip_value;

    event_hyper(spec, event, hyper);
    struct advance advance = {.rule = spec->rule,
                              .hyper = hyper,
                              .update = ++state->updates,
                              .gradient = {gradient, event->wire, count},
                              .rescale = spec->gradient.rescale,
                              .clip_value = isnan(clip) ? HUGE_VAL : clip,
                              .clip_scale = event->clip_scale,
                              .param = state->current->weights->data,
                              .next_param = next->weights->data};
    for (size_t k = 0; k < SLOTS_MAX; k++)
        advance.slot[k] = state->slot[k] == NULL ? NULL : state->slot[k]->data;
    advances(spec->dtype)->run(&advance);
    receipt->kind = RECEIPT_APPLIED;
    receipt->lr = hyper[HYPER_LR];
    receipt->update_norm = advance.update_norm;
    receipt->param_norm = advance.param_norm;
}

void event_apply(struct state *state, const struct spec *spec, size_t count,
                 const struct event *event, struct buffer *body, size_t body_offset,
                 struct revision *next, struct receipt *receipt)
{
    double nothing = (double)NAN;

    *receipt = (struct receipt){.step = event->step,
                                .lineage = state->current->lineage,
                                .durable_step = event->step,
                                .base_step = event->base_step,
                                .staleness = event->step - 1 - event->base_step,
                                .lr = nothing,
                                .grad_norm = event->grad_norm,
                                .clip_scale = event->clip_scale,
                                .update_norm = nothing,
                                .param_norm = nothing,
                                .loss = event->loss};
    next->step = event->step;
    next->lineage = state->current->lineage;
    switch (event->kind) {
    case EVENT_GRADIENT:
        apply_gradient(state, spec, count, event, body->data + body_offset, next, receipt);
        break;
    case EVENT_SKIP:
        next->weights = buffer_retain(state->current->weights);
        receipt->kind = RECEIPT_SKIPPED;
        break;
    case EVENT_WEIGHTS:
        next->weights = buffer_retain(body);
        receipt->kind = RECEIPT_REPLACED;
        break;
    default:
        PRE(false);
    }
}

void state_publish(struct state *state, const struct event *event, struct revision *take_next,
                   const struct receipt *receipt, char *take_cursor)
{
    revision_release(state->current);
    state->current = take_next;
    state->last = *receipt;
    if (take_cursor != NULL) {
        free(state->cursor);
        state->cursor = take_cursor;
    }
    if (event->keyed)
        ledger_add_key(&state->ledger, &event->key, &event->payload, receipt);
    if (event->seq > 0)
        ledger_add_worker(&state->ledger, event->worker, event->seq, &event->payload, receipt);
}
