/* What an event makes of a state: a pure function, for live steps and replay alike. */
#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/advance.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

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

    /* A member of a round that was open while the weights were replaced may be older than all. */
    if (behind > state->base_count)
        behind = state->base_count;
    if (state->bases_max == 0 || behind == 0)
        return NULL;
    return state->base[behind - 1]->weights->data;
}

/* Older gradients than the session likes, where it takes them: their steps are shorter. */
static double stale_divisor(const struct spec *spec, const struct event *event)
{
    uint64_t staleness = event->step - 1 - event->base_step;
    uint64_t allowed = spec->aggregation.max_staleness;

    if (spec->aggregation.mode != AGGREGATION_ASYNC || spec->aggregation.stale != STALE_SCALE ||
        (allowed != UINT64_MAX && staleness <= allowed) || BUG(stale_at_full_rate))
        return 1;
    return 1 + (double)staleness;
}

/* `event`: as measured with the gradient. */
static void set_advance(struct state *state, const struct plan *plan, const struct spec *spec,
                        const struct event *event, const struct wire_gradient *gradient,
                        double hyper[HYPERS_MAX], struct advance *out)
{
    double clip = spec->gradient.clip_value;

    event_overrides(spec, event, hyper);
    if (isnan(event->lr))
        hyper[HYPER_LR] = schedule_rate(&spec->schedule, spec->hyper[HYPER_LR], event->step);
    hyper[HYPER_LR] /= stale_divisor(spec, event);
    *out =
        (struct advance){.plan = plan,
                         .hyper = hyper,
                         .update = state->updates + 1,
                         .seed = spec->seed,
                         .gradient = *gradient,
                         .rescale = event->delta ? -spec->gradient.rescale : spec->gradient.rescale,
                         .clip_value = isnan(clip) ? HUGE_VAL : clip,
                         .clip_scale = event->clip_scale,
                         .param = state->current->weights->data,
                         .base = base_of(state, event),
                         .scalar = state->scalar};
    if (state->workspace != NULL)
        out->workspace = state->workspace->data;
    for (size_t k = 0; k < SLOTS_MAX; k++)
        out->slot[k] = state->slot[k] == NULL ? NULL : state->slot[k]->data;
}

/* Whether an event closes a round of its own, without `others`. A vote is one even of one. */
static bool stands_alone(const struct spec *spec, const struct event *event, size_t others)
{
    return others == 0 && (!spec->aggregation.vote || event->kind == EVENT_SKIP);
}

bool event_gathering(struct state *state, const struct plan *plan, const struct spec *spec,
                     const struct event *event, size_t more, struct gathering **out)
{
    size_t others = state->round.count + more;

    *out = NULL;
    if (!event_closes(event->kind) || stands_alone(spec, event, others))
        return true;
    if (state->mean == NULL &&
        (state->mean = buffer_new(plan->layout->count * dtype_size(spec->dtype))) == NULL)
        return false;
    return (*out = gathering_new(others + 1)) != NULL;
}

/* What the rule sees of an event that closes a round: its gradient, or the mean of them all; *as:
 * the event as if that had come alone. The form is FORM_NONE when nothing is to be applied. */
static struct wire_gradient estimate_of(struct state *state, const struct plan *plan,
                                        const struct spec *spec, const struct event *event,
                                        struct gathering *gathering, struct buffer *body,
                                        size_t body_offset, struct tensor_note *notes,
                                        struct event *as)
{
    *as = *event;
    if (gathering == NULL)
        return event_gradient(plan->layout, event, body, body_offset);
    struct estimate estimate = gathering_take(gathering, &state->round, plan->layout, spec, event,
                                              body, body_offset, state->mean);
    as->delta = estimate.delta;
    as->loss = estimate.loss;
    as->examples = estimate.examples;
    as->base_step = estimate.base_step;
    as->grad_norm = (double)NAN;
    as->clip_scale = 1;
    if (estimate.gradient.form == FORM_NONE)
        return estimate.gradient;
    /* What was finite may add up to what is not: such a round is counted, not applied. */
    if (event_measure(spec, plan, &estimate.gradient, as, notes).bad_count > 0)
        estimate.gradient.form = FORM_NONE;
    return estimate.gradient;
}

void event_propose(struct state *state, const struct plan *plan, const struct spec *spec,
                   const struct event *event, struct gathering *gathering, struct buffer *body,
                   struct tensor_note *notes)
{
    double hyper[HYPERS_MAX];
    struct advance advance;
    struct event as;
    struct wire_gradient gradient =
        estimate_of(state, plan, spec, event, gathering, body, 0, notes, &as);

    if (gradient.form == FORM_NONE)
        return;
    set_advance(state, plan, spec, &as, &gradient, hyper, &advance);
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
                           const struct event *as, const struct wire_gradient *gradient,
                           const void *proposal, struct tensor_note *notes, struct revision *next,
                           struct receipt *receipt)
{
    double hyper[HYPERS_MAX];
    struct advance advance;

    set_advance(state, plan, spec, as, gradient, hyper, &advance);
    advance.proposal = proposal;
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
                                         .loss = event->loss,
                                         .received = 1,
                                         .expected = 1},
                             .created_us = event->created_us,
                             .seq = event->seq,
                             .bytes = bytes,
                             .stages = {unknown, unknown, unknown, unknown, unknown}};

    memcpy(line.worker, event->worker, sizeof line.worker);
    return line;
}

/* A step that moves nothing: the weights are those of before. */
static void apply_nothing(const struct state *state, const struct plan *plan,
                          struct tensor_note *notes, struct revision *next, struct receipt *receipt)
{
    buffer_release(next->weights);
    buffer_release(next->average);
    next->weights = buffer_retain(state->current->weights);
    next->average = retain_average(state);
    receipt->kind = RECEIPT_SKIPPED;
    clear_notes(notes, plan->layout->tensor_count);
}

/* The line tells of the round. */
static void tell_round(const struct gathering *gathering, const struct spec *spec,
                       const struct event *as, struct step_line *line)
{
    struct receipt *receipt = &line->receipt;

    receipt->grad_norm = as->grad_norm;
    receipt->clip_scale = as->clip_scale;
    receipt->loss = as->loss;
    receipt->base_step = as->base_step;
    receipt->staleness = as->step - 1 - as->base_step;
    receipt->received = gathering->count;
    receipt->expected = spec_round_size(spec);
    line->bytes = gathering->bytes;
    line->member_count = gathering->count;
    line->members = gathering->lines;
}

/* Of a round, or of one contribution alone. */
static void close_round(struct state *state, const struct plan *plan, const struct spec *spec,
                        const struct event *event, struct gathering *gathering, struct buffer *body,
                        size_t body_offset, struct tensor_note *notes, struct revision *next,
                        struct step_line *line)
{
    const void *proposal = NULL;
    struct event as;
    struct wire_gradient gradient =
        estimate_of(state, plan, spec, event, gathering, body, body_offset, notes, &as);

    POINT(in_round);
    if (gathering != NULL)
        tell_round(gathering, spec, &as, line);
    if (plan->proposal_count > 0 && event->kind == EVENT_GRADIENT)
        proposal = body->data + body_offset + event_proposal_offset(plan->layout->count, event);
    if (gradient.form == FORM_NONE)
        apply_nothing(state, plan, notes, next, &line->receipt);
    else
        apply_gradient(state, plan, spec, &as, &gradient, proposal, notes, next, &line->receipt);
}

void event_apply(struct state *state, const struct plan *plan, const struct spec *spec,
                 const struct event *event, struct gathering *gathering, struct buffer *body,
                 size_t body_offset, struct tensor_note *notes, struct revision *next,
                 struct step_line *line)
{
    struct receipt *receipt = &line->receipt;

    if (stands_alone(spec, event, state->round.count))
        gathering = NULL; /* room was made for members that an earlier close has taken */
    *line = line_of(state, event, event_body_size(plan, plan->layout->count, event));
    receipt->snapshot = event->snapshot;
    receipt->counts_due = spec->svrg.on && spec->svrg.update_freq > 0;
    receipt->due = snapshot_due(&state->snapshot, spec, event->step);
    next->step = event->step;
    next->lineage = state->current->lineage;
    switch (event->kind) {
    case EVENT_GRADIENT:
    case EVENT_SKIP:
        if (event->kind == EVENT_GRADIENT || gathering != NULL)
            close_round(state, plan, spec, event, gathering, body, body_offset, notes, next, line);
        else
            apply_nothing(state, plan, notes, next, receipt);
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
