/* A fork with replay: the steps that its parent took after the revision are taken again, under the
 * fork's own configuration. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/point.h"
#include "service/session/event.h"
#include "service/session/fork.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"

#define REPLAY_LINES_MAX ((size_t)64 << 20) /* bytes of ledger that a replay keeps in memory */

/* Those from `from` on are of a round that the fork does not close. */
static void drop_contributions(struct fork *fork, size_t from)
{
    size_t count = from;

    for (size_t i = from; i < fork->event_count; i++)
        if (fork->events[i].kind != EVENT_CONTRIBUTION)
            fork->events[count++] = fork->events[i];
    fork->event_count = count;
}

enum status fork_list_events(struct fork *fork, uint64_t lineage, uint64_t step,
                             struct fault *fault)
{
    struct session *parent = fork->parent;
    struct rewinds rewinds = {.places = NULL};
    enum status status;

    if (parent->spec.durability.mode == DURABILITY_CHECKPOINT)
        return fault_set(fault, STATUS_INVALID_FIELD, "/replay",
                         "this session journals no gradients (durability \"checkpoint\"): there "
                         "is nothing to replay");
    fork->events = malloc((parent->event_count + 1) * sizeof *fork->events);
    if (fork->events == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if ((status = rewinds_list(parent, &rewinds, fault)) != STATUS_OK)
        return status;
    size_t kept = 0; /* what follows it is of a round that is not closed yet */
    for (const struct event_place *place = parent->events; place != NULL; place = place->next) {
        bool joins = place->kind == EVENT_CONTRIBUTION;
        bool on_line = event_steps(place->kind) && place->step > step &&
                       rewinds_line(&rewinds, lineage, place->step) == place->lineage;
        if (joins || on_line)
            fork->events[fork->event_count++] = *place;
        if (on_line && !event_closes(place->kind)) /* the open round goes on past it */
            continue;
        if (!on_line && (event_closes(place->kind) || place->kind == EVENT_REWIND))
            drop_contributions(fork, kept);
        if (on_line || event_closes(place->kind) || place->kind == EVENT_REWIND)
            kept = fork->event_count;
    }
    fork->norms_hold = true;
    for (const struct event_place *place = parent->events; place != NULL; place = place->next)
        fork->norms_hold &= place->kind != EVENT_SPEC || place->step < step;
    free(rewinds.places);
    return STATUS_OK;
}

/* Overrides that the fork's rule would not have taken are left out. */
static void fit_overrides(const struct spec *spec, struct event *event)
{
    double *const overrides[] = {&event->lr, &event->momentum, &event->beta1, &event->beta2};
    const char *const names[] = {"lr", "momentum", "beta1", "beta2"};
    const struct optimizer *rule = spec->rule;
    char why[160];

    for (size_t i = 0; i < 4; i++) {
        size_t index = optimizer_hyper(rule, names[i]);
        if (index == rule->hyper_count ||
            (!isnan(*overrides[i]) &&
             !hyper_allows(&rule->hypers[index], *overrides[i], why, sizeof why)))
            *overrides[i] = (double)NAN;
    }
    if (!event_overrides_fit(spec, event))
        event->momentum = event->beta1 = event->beta2 = (double)NAN;
}

/* A gradient as the fork would have taken it: under its own clipping, without what made the step
 * the parent's (key, seq) and overrides that its rule does not know. */
static void adopt_event(struct fork *fork, struct buffer *body, struct event *event)
{
    const struct spec *spec = &fork->spec;
    struct wire_gradient gradient = event_gradient(fork->parent->layout, event, body, 0);

    event->base_step = fork->state->current->step;
    event->step = event->base_step + event_steps(event->kind);
    event->lineage = 0;
    event->keyed = false;
    event->seq = 0;
    event->clock = 0;
    fit_overrides(spec, event);
    if (event->kind != EVENT_WEIGHTS && event->form != FORM_NONE)
        event_measure(spec, fork->plan, &gradient, event, fork->notes);
    notes_of_nonfinite(&event->nonfinite, fork->parent->layout, fork->notes);
}

/* The body with room for what the fork's rule proposes, or the body itself. */
static struct buffer *body_of(struct fork *fork, struct buffer *body, const struct event *event,
                              struct gathering *gathering)
{
    size_t count = fork->parent->layout->count;
    size_t size = event_body_size(fork->plan, count, event);

    if (event->kind != EVENT_GRADIENT || fork->plan->proposal_count == 0)
        return buffer_retain(body);
    struct buffer *joined = buffer_new_zeroed(size);
    if (joined == NULL)
        return NULL;
    if (event->form != FORM_NONE)
        memcpy(joined->data, body->data, event_gradient(fork->parent->layout, event, body, 0).size);
    event_propose(fork->state, fork->plan, &fork->spec, event, gathering, joined, fork->notes);
    return joined;
}

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a replay");
}

/* A member of a round of the parent, into the fork's. Takes the cursor on success. */
static enum status adopt_contribution(struct fork *fork, const struct event *event,
                                      struct buffer *body, char **cursor, struct fault *fault)
{
    struct state *state = fork->state;
    struct contribution *contribution = contribution_new(fork->parent->layout, event, body, 0);
    struct receipt receipt;

    if (contribution == NULL || !state_reserve(state, 1, state->round.count + 1)) {
        contribution_free(contribution);
        return no_memory(fault);
    }
    state_contribute(state, &fork->spec, event, contribution, *cursor, &receipt);
    *cursor = NULL;
    return STATUS_OK;
}

static enum status adopt_step(struct fork *fork, const struct event *event, struct buffer *read,
                              char **cursor, struct fault *fault)
{
    struct state *state = fork->state;
    size_t bytes = fork->parent->layout->count * dtype_size(fork->spec.dtype);
    struct gathering *gathering = NULL;
    struct buffer *body = NULL;
    struct step_line line;
    enum status status = STATUS_OK;
    struct revision *next =
        revision_new(event->kind == EVENT_GRADIENT ? bytes : 0, fork->spec.ema.on);

    if (next == NULL || !state_reserve(state, 1, state->round.count + 1) ||
        !event_gathering(state, fork->plan, &fork->spec, event, 0, &gathering) ||
        (body = body_of(fork, read, event, gathering)) == NULL) {
        status = no_memory(fault);
        goto done;
    }
    event_apply(state, fork->plan, &fork->spec, event, gathering, body, 0, fork->notes, next,
                &line);
    state_publish(state, event, next, &line, *cursor);
    next = NULL;
    *cursor = NULL;
    fork->outcome->replayed++;
done:
    gathering_free(gathering);
    revision_release(next);
    buffer_release(body);
    return status;
}

static enum status replay_one(struct fork *fork, const struct event_place *place,
                              unsigned char *chunk, struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    struct state *state = fork->state;
    struct buffer *read = NULL;
    struct event event, accepted;
    char *cursor = NULL;
    enum status status = session_read_event(fork->parent, place, head, chunk, &event, &read, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = event_check_body(fork->parent->plan, &event, read, fault)) != STATUS_OK)
        goto done;
    accepted = event;
    adopt_event(fork, read, &event);
    if (fork->norms_hold && !event_norm_holds(&accepted, event.grad_norm)) {
        status = fault_set(fault, STATUS_HISTORY_MISMATCH, "",
                           "session %s: the gradient of step %llu in the journal is not the one "
                           "that was accepted: its norm is another",
                           fork->parent->id, (unsigned long long)accepted.step);
        goto done;
    }
    if (state->receipts.lines.used > REPLAY_LINES_MAX)
        receipts_close(&state->receipts);
    if (event.cursor != NULL && (cursor = strndup(event.cursor, event.cursor_size)) == NULL)
        status = no_memory(fault);
    else if (event.kind == EVENT_CONTRIBUTION)
        status = adopt_contribution(fork, &event, read, &cursor, fault);
    else
        status = adopt_step(fork, &event, read, &cursor, fault);
    POINT(in_fork);
done:
    free(cursor);
    buffer_release(read);
    return status;
}

enum status fork_replay(struct fork *fork, struct fault *fault)
{
    unsigned char *chunk = malloc(STORE_CHUNK_BYTES);
    enum status status = STATUS_OK;

    if (chunk == NULL || !notes_new(fork->parent->layout, &fork->notes))
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < fork->event_count && status == STATUS_OK; i++)
        if (event_steps(fork->events[i].kind) &&
            fork->events[i].step != fork->state->current->step + 1)
            status =
                fault_set(fault, STATUS_STORAGE_FAILED, "",
                          "session %s: the journal lacks step %llu; descent verify says more",
                          fork->parent->id, (unsigned long long)fork->state->current->step + 1);
        else
            status = replay_one(fork, &fork->events[i], chunk, fault);
    round_clear(&fork->state->round); /* that the parent has not closed */
    free(chunk);
    return status;
}
