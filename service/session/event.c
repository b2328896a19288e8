/* What an event makes of a state: a pure function, for live steps and replay alike. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/advance.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

bool notes_new(const struct layout *layout, struct tensor_note **out)
{
    *out = NULL;
    return layout->tensor_count > NOTES_MAX ||
           (*out = calloc(layout->tensor_count, sizeof **out)) != NULL;
}

void nonfinite_of_notes(const struct tensor_note *notes, const struct layout *layout,
                        struct nonfinite_counts *out)
{
    out->tensors = 0;
    for (size_t i = 0; notes != NULL && i < layout->tensor_count; i++)
        if (notes[i].nonfinite > 0 && out->tensors < NONFINITE_TENSORS_MAX) {
            out->of[out->tensors].tensor = (uint32_t)i;
            out->of[out->tensors++].count = notes[i].nonfinite;
        }
}

void notes_of_nonfinite(const struct nonfinite_counts *counts, const struct layout *layout,
                        struct tensor_note *notes)
{
    for (size_t i = 0; notes != NULL && i < layout->tensor_count; i++)
        notes[i].nonfinite = 0;
    for (size_t i = 0; notes != NULL && i < counts->tensors; i++)
        if (counts->of[i].tensor < layout->tensor_count)
            notes[counts->of[i].tensor].nonfinite = counts->of[i].count;
}

void event_overrides(const struct spec *spec, const struct event *event, double hyper[HYPERS_MAX])
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

struct measure event_measure(const struct spec *spec, const struct plan *plan,
                             const struct wire_gradient *gradient, struct event *event,
                             struct tensor_note *notes)
{
    double clip_norm = spec->gradient.clip_norm;
    /* l2_clipped clips after the decay, a raw rule by itself: the norm is of what is not clipped
     * yet. */
    bool clips_first = !isnan(spec->gradient.clip_value) &&
                       spec->hyper[HYPER_WEIGHT_DECAY_MODE] != DECAY_L2_CLIPPED && !spec->rule->raw;
    struct measure measure = {.rescale = spec->gradient.rescale,
                              .clip_value = clips_first ? spec->gradient.clip_value : HUGE_VAL,
                              .norm_clipped = !isnan(clip_norm),
                              .layout = notes == NULL ? NULL : plan->layout,
                              .notes = notes};

    advances(spec->dtype)->measure(gradient, &measure);
    event->grad_norm = measure.bad_count > 0 ? (double)NAN : measure.norm;
    event->clip_scale = 1;
    if (measure.bad_count == 0 && !isnan(clip_norm) && measure.clipped_norm > clip_norm)
        event->clip_scale = clip_norm / measure.clipped_norm;
    return measure;
}

bool event_norm_holds(const struct event *event, double norm)
{
    return event->format < 3 || !isfinite(event->grad_norm) ||
           fabs(norm - event->grad_norm) <= 1e-9 * event->grad_norm;
}

/* The proposal is aligned as a buffer is. */
size_t event_proposal_offset(size_t count, const struct event *event)
{
    return (count * dtype_size(event->wire) + 63) / 64 * 64;
}

size_t event_body_size(const struct plan *plan, size_t count, const struct event *event)
{
    switch (event->kind) {
    case EVENT_GRADIENT:
        if (plan->proposal_count > 0)
            return event_proposal_offset(count, event) +
                   plan->proposal_count * dtype_size(plan->rule->dtype);
        return count * dtype_size(event->wire);
    case EVENT_WEIGHTS:
        return count * dtype_size(plan->rule->dtype);
    default:
        return 0;
    }
}

bool event_base_kept(const struct state *state, const struct event *event)
{
    return event->kind != EVENT_GRADIENT || state->bases_max == 0 ||
           event->step - 1 - event->base_step <= state->base_count;
}

/* The weights that the gradient was computed at, if the rule asks for them and they are not the
 * current ones. */
static const void *base_of(const struct state *state, const struct event *event)
{
    uint64_t behind = event->step - 1 - event->base_step;

    if (state->bases_max == 0 || behind == 0)
        return NULL;
    PRE(behind <= state->base_count);
    return state->base[behind - 1]->weights->data;
}

static void set_advance(struct state *state, const struct plan *plan, const struct spec *spec,
                        const struct event *event, struct buffer *body, size_t body_offset,
                        double hyper[HYPERS_MAX], struct advance *out)
{
    double clip = spec->gradient.clip_value;
    size_t count = plan->layout->count;
    unsigned char *gradient = body->data + body_offset;

    event_overrides(spec, event, hyper);
    if (isnan(event->lr))
        hyper[HYPER_LR] = schedule_rate(&spec->schedule, spec->hyper[HYPER_LR], event->step);
    *out = (struct advance){.plan = plan,
                            .hyper = hyper,
                            .update = state->updates + 1,
                            .seed = spec->seed,
                            .gradient = {gradient, event->wire, count},
                            .rescale = spec->gradient.rescale,
                            .clip_value = isnan(clip) ? HUGE_VAL : clip,
                            .clip_scale = event->clip_scale,
                            .param = state->current->weights->data,
                            .base = base_of(state, event),
                            .scalar = state->scalar};
    if (state->workspace != NULL)
        out->workspace = state->workspace->data;
    if (plan->proposal_count > 0)
        out->proposal = gradient + event_proposal_offset(count, event);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        out->slot[k] = state->slot[k] == NULL ? NULL : state->slot[k]->data;
}

void event_propose(struct state *state, const struct plan *plan, const struct spec *spec,
                   const struct event *event, struct buffer *body)
{
    double hyper[HYPERS_MAX];
    struct advance advance;

    set_advance(state, plan, spec, event, body, 0, hyper, &advance);
    advances(spec->dtype)
        ->propose(&advance, body->data + event_proposal_offset(plan->layout->count, event));
}

/* Of a gradient that was not applied there is nothing to tell but what was not finite. */
static void clear_notes(struct tensor_note *notes, size_t count)
{
    float unknown = (float)NAN;

    for (size_t i = 0; notes != NULL && i < count; i++)
        notes[i] =
            (struct tensor_note){unknown, unknown, unknown, unknown, unknown, notes[i].nonfinite};
}

static void apply_gradient(struct state *state, const struct plan *plan, const struct spec *spec,
                           const struct event *event, struct buffer *body, size_t body_offset,
                           struct tensor_note *notes, struct revision *next,
                           struct receipt *receipt)
{
    double hyper[HYPERS_MAX];
    struct advance advance;

    set_advance(state, plan, spec, event, body, body_offset, hyper, &advance);
    advance.notes = notes;
    advance.next_param = next->weights->data;
    if (state->current->average != NULL) {
        advance.average = state->current->average->data;
        advance.next_average = next->average->data;
        advance.average_rest = 1 - spec->ema.decay;
    }
    advances(spec->dtype)->run(&advance);
    if (state->sample != NULL)
        sample_turn(state->sample, plan->layout, &advance.gradient, notes);
    state->updates++;
    receipt->kind = RECEIPT_APPLIED;
    receipt->lr = hyper[HYPER_LR];
    receipt->update_norm = advance.update_norm;
    receipt->param_norm = advance.param_norm;
}

static struct buffer *retain_average(const struct state *state)
{
    return state->current->average == NULL ? NULL : buffer_retain(state->current->average);
}

/* What remembers the weights before the last update remembers none from before a replacement. */
static void restart_slots(struct state *state, const struct plan *plan, const struct buffer *body)
{
    for (size_t k = 0; k < plan->rule->slot_count; k++)
        if (plan->rule->slots[k].starts_as_weights && state->slot[k] != NULL)
            memcpy(state->slot[k]->data, body->data,
                   plan->slot_count[k] * dtype_size(plan->rule->dtype));
}

static struct step_line line_of(const struct state *state, const struct event *event,
                                uint64_t bytes)
{
    double nothing = (double)NAN;
    float unknown = (float)NAN;
    struct step_line line = {.receipt = {.step = event->step,
                                         .lineage = state->current->lineage,
                                         .durable_step = event->step,
                                         .base_step = event->base_step,
                                         .staleness = event->step - 1 - event->base_step,
                                         .lr = nothing,
                                         .grad_norm = event->grad_norm,
                                         .clip_scale = event->clip_scale,
                                         .update_norm = nothing,
                                         .param_norm = nothing,
                                         .loss = event->loss},
                             .created_us = event->created_us,
                             .seq = event->seq,
                             .bytes = bytes,
                             .stages = {unknown, unknown, unknown, unknown, unknown}};

    memcpy(line.worker, event->worker, sizeof line.worker);
    return line;
}

void event_apply(struct state *state, const struct plan *plan, const struct spec *spec,
                 const struct event *event, struct buffer *body, size_t body_offset,
                 struct tensor_note *notes, struct revision *next, struct step_line *line)
{
    struct receipt *receipt = &line->receipt;

    *line = line_of(state, event, event_body_size(plan, plan->layout->count, event));
    next->step = event->step;
    next->lineage = state->current->lineage;
    switch (event->kind) {
    case EVENT_GRADIENT:
        apply_gradient(state, plan, spec, event, body, body_offset, notes, next, receipt);
        break;
    case EVENT_SKIP:
        next->weights = buffer_retain(state->current->weights);
        next->average = retain_average(state);
        receipt->kind = RECEIPT_SKIPPED;
        clear_notes(notes, plan->layout->tensor_count);
        break;
    case EVENT_WEIGHTS:
        next->weights = buffer_retain(body);
        next->average = retain_average(state);
        restart_slots(state, plan, body);
        receipt->kind = RECEIPT_REPLACED;
        notes = NULL;
        break;
    default:
        PRE(false);
    }
    next->average_divisor = spec_average_divisor(spec, state->updates);
    line->notes = notes;
    line->note_count = notes == NULL ? 0 : plan->layout->tensor_count;
    receipt->hashed = spec->hash_every > 0 && next->step % spec->hash_every == 0;
    if (receipt->hashed)
        receipt->state_hash = state_hash(state, next, plan);
}
