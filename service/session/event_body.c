/* The body of an event and what is said of it: sizes, measures, checks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/advance.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "service/tensor/packed.h"

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

/* False: the rule has none of that name. */
static bool override(const struct spec *spec, const struct event *event, double hyper[HYPERS_MAX])
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
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        if (isnan(overrides[i].value))
            continue;
        size_t index = optimizer_hyper(spec->rule, overrides[i].name);
        if (index == spec->rule->hyper_count)
            return false;
        hyper[index] = overrides[i].value;
    }
    return true;
}

void event_overrides(const struct spec *spec, const struct event *event, double hyper[HYPERS_MAX])
{
    bool known = override(spec, event, hyper);

    PRE(known);
}

bool event_overrides_fit(const struct spec *spec, const struct event *event)
{
    double hyper[HYPERS_MAX];
    bool fit = override(spec, event, hyper);

    for (size_t k = 0; k < spec->rule->slot_count && fit; k++)
        fit = !slot_needed(&spec->rule->slots[k], hyper) ||
              slot_needed(&spec->rule->slots[k], spec->hyper);
    return fit;
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

/* Bytes of the gradient in an event's body. */
static size_t gradient_size(size_t count, const struct event *event)
{
    switch (event->form) {
    case FORM_DENSE:
        return count * dtype_size(event->wire);
    case FORM_NONE:
        return 0;
    default:
        return event->size;
    }
}

size_t event_proposal_offset(size_t count, const struct event *event)
{
    return (gradient_size(count, event) + 63) / 64 * 64;
}

size_t event_body_size(const struct plan *plan, size_t count, const struct event *event)
{
    switch (event->kind) {
    case EVENT_GRADIENT:
        if (plan->proposal_count > 0)
            return event_proposal_offset(count, event) +
                   plan->proposal_count * dtype_size(plan->rule->dtype);
        return gradient_size(count, event);
    case EVENT_CONTRIBUTION:
    case EVENT_QUARANTINE:
    case EVENT_SHARD:
        return gradient_size(count, event);
    case EVENT_WEIGHTS:
        return count * dtype_size(plan->rule->dtype);
    default:
        return 0;
    }
}

enum status event_check_body(const struct plan *plan, const struct event *event,
                             const struct buffer *body, struct fault *fault)
{
    bool packed = event->form != FORM_DENSE && event->form != FORM_NONE;
    bool lacks =
        event->form == FORM_NONE && (event->kind == EVENT_SHARD || event->kind == EVENT_QUARANTINE);
    struct fault why;

    if (lacks || (packed && body->size < event->size) ||
        body->size < event_body_size(plan, plan->layout->count, event))
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "the journal is damaged: the body of an event at step %llu is cut short",
                         (unsigned long long)event->step);
    if (!packed || packed_check(plan->layout, event->form, event->wire,
                                span_of(body->data, event->size), &why) == STATUS_OK)
        return STATUS_OK;
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "the journal is damaged: a compressed gradient at step %llu: %s",
                     (unsigned long long)event->step, why.detail);
}
