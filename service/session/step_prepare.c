/* A step before it is admitted: what can be wrong with it wherever the session stands. */
#include <math.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/session/advance.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "service/session/step.h"

static enum status check_overrides(const struct step *step, struct fault *fault)
{
    bool alone = spec_round_size(&step->spec) == 1;
    const struct submission *s = step->submission;
    const struct {
        const char *name;
        double value;
    } overrides[] = {
        {"lr", s->lr}, {"momentum", s->momentum}, {"beta1", s->beta1}, {"beta2", s->beta2}};
    const struct optimizer *rule = step->spec.rule;
    double hyper[HYPERS_MAX];
    char where[32] = "/", why[160];

    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        if (isnan(overrides[i].value))
            continue;
        strcpy(where + 1, overrides[i].name);
        if (!alone)
            return fault_set(fault, STATUS_INVALID_FIELD, where,
                             "a step of several contributions takes no %s of one of them; PATCH "
                             "the optimizer instead",
                             overrides[i].name);
        size_t index = optimizer_hyper(rule, overrides[i].name);
        if (index == rule->hyper_count)
            return fault_set(fault, STATUS_INVALID_FIELD, where,
                             "%s has no %s to override; leave it out", rule->name,
                             overrides[i].name);
        if (!hyper_allows(&rule->hypers[index], overrides[i].value, why, sizeof why))
            return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", why);
    }
    event_overrides(&step->spec, &step->event, hyper);
    for (size_t k = 0; k < rule->slot_count; k++)
        if (slot_needed(&rule->slots[k], hyper) && !slot_needed(&rule->slots[k], step->spec.hyper))
            return fault_set(fault, STATUS_INVALID_FIELD, "/momentum",
                             "this session keeps no state \"%s\" (%s); PATCH the optimizer instead "
                             "of overriding one step",
                             rule->slots[k].name, rule->slots[k].meaning);
    return STATUS_OK;
}

/* Measures the gradient and settles what kind of event it is. */
static enum status measure_gradient(struct step *step, struct fault *fault)
{
    const struct submission *s = step->submission;
    const struct spec *spec = &step->spec;
    struct wire_gradient gradient =
        event_gradient(step->session->layout, &step->event, s->buffer, s->offset);
    struct measure measure =
        event_measure(spec, step->session->plan, &gradient, &step->event, step->notes);

    step->event.kind = EVENT_GRADIENT;
    if (measure.bad_count > 0) {
        step->bad_count = measure.bad_count;
        step->bad_index = measure.bad_index;
    }
    if (step->bad_count == 0)
        return STATUS_OK;
    /* Now or at an attempt before this one, which has replaced them. */
    if (spec->gradient.nonfinite == NONFINITE_REJECT)
        return check_finite(step->session->layout, step_member_at_fault(step), step->bad_count,
                            step->bad_index, STATUS_NONFINITE_GRADIENT, fault);
    nonfinite_of_notes(step->notes, step->session->layout, &step->event.nonfinite);
    if (spec->gradient.nonfinite == NONFINITE_SKIP) {
        step->event.kind = EVENT_SKIP;
        step->event.grad_norm = (double)NAN;
        step->event.clip_scale = 1;
    } else if (measure.bad_count > 0) {
        advances(spec->dtype)->zero_nonfinite(&gradient);
        event_measure(spec, step->session->plan, &gradient, &step->event, step->notes);
    }
    return STATUS_OK;
}

enum status step_prepare_gradient(struct step *step, struct fault *fault)
{
    const struct submission *s = step->submission;
    struct session *session = step->session;
    enum status status;

    step->event = (struct event){
        .created_us = clock_unix_us(),
        .wire = s->dtype,
        .form = s->form,
        .size = s->form == FORM_DENSE ? session->layout->count * dtype_size(s->dtype) : s->size,
        .delta = s->delta,
        .loss = s->loss,
        .examples = s->examples,
        .keyed = step->flight.keyed,
        .key = step->flight.key,
        .payload = s->payload,
        .lr = s->lr,
        .momentum = s->momentum,
        .beta1 = s->beta1,
        .beta2 = s->beta2,
        .seq = s->seq,
        .cursor = s->cursor,
        .cursor_size = s->cursor == NULL ? 0 : strlen(s->cursor),
        .snapshot = s->snapshot};
    if (s->worker != NULL)
        strcpy(step->event.worker, s->worker);
    if ((status = check_overrides(step, fault)) != STATUS_OK ||
        (status = step_check_mode(step, fault)) != STATUS_OK ||
        (status = measure_gradient(step, fault)) != STATUS_OK)
        return status;
    bool applies = step->event.kind == EVENT_GRADIENT;
    if (!applies) {
        step->event.form = FORM_NONE;
        step->event.size = 0;
    }
    step->body = applies ? s->buffer : NULL;
    step->offset = s->offset;
    step->size = step->event.size;
    if (s->cursor != NULL && (step->cursor = strdup(s->cursor)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for the cursor");
    return STATUS_OK;
}

enum status step_prepare_weights(struct step *step, struct fault *fault)
{
    enum status status =
        check_weights(step->session->layout, step->session->dtype, step->body, fault);

    if (status != STATUS_OK)
        return status;
    step->event = event_make(EVENT_WEIGHTS, 0);
    step->event.wire = step->session->dtype;
    return STATUS_OK;
}

enum status step_prepare_close(struct step *step, struct fault *fault)
{
    const struct session *session = step->session;

    (void)fault;
    step->event = event_make(EVENT_GRADIENT, 0);
    step->event.wire = session->dtype;
    step->event.form = FORM_NONE;
    return STATUS_OK;
}
