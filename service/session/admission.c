/* Admission of a step: what depends on the session's position, with its mutex held. */
#include <string.h>

#include "service/core/point.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "service/session/step.h"

static enum status check_payload(const struct step *step, const struct digest *payload,
                                 const struct receipt *receipt, struct fault *fault)
{
    if (memcmp(payload, &step->submission->payload, sizeof *payload) == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_IDEMPOTENCY_MISMATCH, "",
                     "this %s came with another payload at step %llu; use a new one for a new "
                     "gradient",
                     step->flight.keyed ? "Idempotency-Key" : "worker and seq",
                     (unsigned long long)receipt->step);
}

enum status step_check_repeat(struct step *step, bool *seen, struct outcome *out,
                              struct fault *fault)
{
    struct session *session = step->session;
    const struct flight *mine = &step->flight;
    const struct ledger_key *key =
        mine->keyed ? ledger_find_key(&session->state->ledger, &mine->key, session->step) : NULL;
    const struct ledger_worker *worker =
        mine->worker == NULL ? NULL : ledger_find_worker(&session->state->ledger, mine->worker);
    uint64_t last = worker == NULL ? 0 : worker->seq;
    const struct receipt *receipt = NULL;
    const struct digest *payload = NULL;

    if (key != NULL) {
        receipt = &key->receipt;
        payload = &key->payload;
    } else if (worker != NULL && mine->seq == last && worker->receipt.kind != RECEIPT_NONE) {
        receipt = &worker->receipt;
        payload = &worker->payload;
    }
    if (receipt != NULL) {
        enum status status = check_payload(step, payload, receipt, fault);
        if (status != STATUS_OK)
            return status;
        *seen = true;
        *out = (struct outcome){.receipt = *receipt,
                                .replayed = true,
                                .revision = revision_retain(session->state->current)};
        step_start_waiting(step, receipt);
        return STATUS_OK;
    }
    for (const struct flight *other = session->flights; other != NULL && !BUG(repeat_in_flight);
         other = other->next) {
        bool same_worker = mine->worker != NULL && other->worker != NULL &&
                           strcmp(mine->worker, other->worker) == 0;
        if ((mine->keyed && other->keyed &&
             memcmp(&mine->key, &other->key, sizeof mine->key) == 0) ||
            (same_worker && mine->seq == other->seq))
            return fault_set(
                fault, STATUS_IDEMPOTENCY_IN_FLIGHT, "",
                "this step is being taken by another request; repeat it a little later "
                "for its receipt");
        if (same_worker && other->seq > last)
            last = other->seq;
    }
    if (mine->worker == NULL)
        return STATUS_OK;
    if (mine->seq <= last) {
        fault_set(fault, STATUS_STALE_SEQUENCE, "/seq",
                  "worker %s is at seq %llu already; the next is %llu", mine->worker,
                  (unsigned long long)last, (unsigned long long)last + 1);
        return fault_extra(fault, "expected", last + 1);
    }
    if (mine->seq > last + 1) {
        fault_set(fault, STATUS_SEQUENCE_GAP, "/seq", "worker %s is at seq %llu; the next is %llu",
                  mine->worker, (unsigned long long)last, (unsigned long long)last + 1);
        return fault_extra(fault, "expected", last + 1);
    }
    return STATUS_OK;
}

static bool matches(const struct precondition *match, uint64_t lineage, uint64_t step)
{
    for (size_t i = 0; i < match->count; i++)
        if (match->tags[i].lineage == lineage && match->tags[i].step == step)
            return true;
    return !match->given;
}

/* A rule that asks for the weights the gradient was computed at finds them among those kept. */
static enum status check_base(const struct step *step, uint64_t current, struct fault *fault)
{
    const struct state *state = step->session->state;
    const struct submission *s = step->submission;
    /* When its turn comes, those in flight are kept too. */
    uint64_t kept = state->base_count + (current - state->current->step);

    if (kept > state->bases_max)
        kept = state->bases_max;
    if (!s->has_base_step || current - s->base_step <= kept)
        return STATUS_OK;
    fault_set(fault, STATUS_STALE_GRADIENT, "/base_step",
              "the gradient was computed at step %llu; this session keeps the weights back to step "
              "%llu (revisions): fetch the parameters and compute it again",
              (unsigned long long)s->base_step, (unsigned long long)(current - kept));
    return fault_extra(fault, "current_step", current);
}

static enum status check_position(const struct step *step, struct fault *fault)
{
    const struct session *session = step->session;
    const struct submission *s = step->submission;
    uint64_t current = session->admitted_step;

    if (!matches(step->match, session->lineage, current)) {
        fault_set(
            fault, STATUS_STEP_CONFLICT, "",
            "the session stands at revision \"%llu-%llu\", which If-Match does not name; fetch "
            "the parameters and compute the gradient again",
            (unsigned long long)session->lineage, (unsigned long long)current);
        return fault_extra(fault, "current_step", current);
    }
    if (s != NULL && s->has_base_step && s->base_step > current) {
        fault_set(fault, STATUS_INVALID_FIELD, "/base_step",
                  "base_step is %llu, but the session is only at step %llu",
                  (unsigned long long)s->base_step, (unsigned long long)current);
        return fault_extra(fault, "current_step", current);
    }
    enum status status = step_check_snapshot(step, fault);
    if (status != STATUS_OK || step->event.kind != EVENT_GRADIENT || step->closing)
        return status;
    if (session->state->bases_max > 0 && (status = check_base(step, current, fault)) != STATUS_OK)
        return status;
    return step_check_norm(step, fault);
}

/* What its kind needs when it is applied. */
static enum status make_room(struct step *step, struct fault *fault)
{
    struct session *session = step->session;
    size_t bytes = session->layout->count * dtype_size(session->dtype);
    size_t in_flight = 0;
    bool room = true;

    if (step->event.kind == EVENT_CONTRIBUTION) {
        step->contribution =
            contribution_new(session->layout, &step->event, step->body, step->offset);
        room = step->contribution != NULL;
    } else {
        for (const struct flight *flight = session->flights; flight != NULL; flight = flight->next)
            in_flight += flight->waits;
        step->next =
            revision_new(step->event.kind == EVENT_GRADIENT ? bytes : 0, step->spec.ema.on);
        room = step->next != NULL && event_gathering(session->state, session->plan, &session->spec,
                                                     &step->event, in_flight, &step->gathering);
    }
    return room ? STATUS_OK : fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* What can refuse the step where the session stands, and what must not fail later. */
static enum status check(struct step *step, bool *seen, struct outcome *out, struct fault *fault)
{
    struct session *session = step->session;
    const struct submission *s = step->submission;
    size_t in_flight = session->tickets - session->turns;
    enum status status;

    if ((status = step_check_repeat(step, seen, out, fault)) != STATUS_OK || *seen)
        return status;
    if ((status = check_position(step, fault)) != STATUS_OK)
        return status;
    /* Each member of a line was in the round or is in flight. */
    if (!state_reserve(session->state, in_flight + 1, session->state->round.count + in_flight + 1))
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    step->event.step = session->admitted_step + 1;
    step->event.lineage = session->lineage;
    step->event.told_step = session->state->told_step;
    step->event.told = session->state->told[session->state->told_step % TOLD_MAX].hash;
    step->event.base_step = s != NULL && s->has_base_step ? s->base_step : session->admitted_step;
    if (step->closing && !step_may_close(session)) {
        *seen = true; /* there is nothing to do */
        *out = (struct outcome){.replayed = true};
        return STATUS_OK;
    }
    if (s != NULL && (status = step_check_round(step, fault)) != STATUS_OK)
        return status;
    return make_room(step, fault);
}

/* The body of a gradient that the rule proposes something for: computed now, with the turn held
 * exclusively, so that the state is the one the step will be applied to. Mutex held on entry and
 * exit. */
static enum status propose(struct step *step, struct fault *fault)
{
    struct session *session = step->session;
    size_t count = session->layout->count;
    size_t gradient = step->size;
    size_t size = event_body_size(session->plan, count, &step->event);

    pthread_mutex_unlock(&session->mutex);
    if ((step->joined = buffer_new(size)) != NULL) {
        if (gradient > 0)
            memcpy(step->joined->data, step->body->data + step->offset, gradient);
        /* Of a round that is skipped there is nothing to propose. */
        memset(step->joined->data + gradient, 0, size - gradient);
        step->body = step->joined;
        step->offset = 0;
        step->size = size;
        event_propose(session->state, session->plan, &session->spec, &step->event, step->gathering,
                      step->body, step->notes);
    }
    pthread_mutex_lock(&session->mutex);
    return step->joined != NULL ? STATUS_OK
                                : fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* What the step would do, on a copy of the slots; nothing changes. The turn is held exclusively.
 * Mutex held on entry and exit. */
static enum status rehearse(struct step *step, struct outcome *out, struct fault *fault)
{
    struct session *session = step->session;
    struct state copy = *session->state;
    struct step_line line;
    enum status status = STATUS_OK;

    pthread_mutex_unlock(&session->mutex);
    copy.sample = NULL;
    for (size_t k = 0; k < SLOTS_MAX; k++) {
        const struct buffer *slot = copy.slot[k];
        if (slot == NULL)
            continue;
        if ((copy.slot[k] = buffer_new(slot->size)) == NULL)
            status = fault_set(fault, STATUS_INTERNAL, "", "out of memory for a dry run");
        else
            memcpy(copy.slot[k]->data, slot->data, slot->size);
    }
    if (status == STATUS_OK) {
        event_apply(&copy, session->plan, &session->spec, &step->event, step->gathering, step->body,
                    step->offset, step->notes, step->next, &line);
        *out = (struct outcome){.receipt = line.receipt, .revision = step->next};
        step->next = NULL;
    }
    for (size_t k = 0; k < SLOTS_MAX; k++)
        buffer_release(copy.slot[k]);
    pthread_mutex_lock(&session->mutex);
    out->receipt.durable_step = session->durable_step; /* deferred steps may land meanwhile */
    return status;
}

/* The same of a contribution that would wait. */
static void rehearse_waiting(const struct step *step, struct outcome *out)
{
    const struct session *session = step->session;
    const struct state *state = session->state;

    out->revision = revision_retain(state->current);
    out->receipt = state_waiting(state, &session->spec, &step->event, state->round.count + 1);
    out->receipt.durable_step = session->durable_step;
}

/* Queues the event of a step that was checked, in the order of admission. */
static enum status enqueue(struct step *step, struct fault *fault)
{
    struct session *session = step->session;
    struct committer *committer = session->engine->committer;
    int mode = session->spec.durability.mode;
    enum status status = STATUS_OK;

    if (mode != DURABILITY_CHECKPOINT)
        status = journal_entry_new(session, &step->event, step->body, step->offset, step->size,
                                   &step->entry, fault);
    if (status != STATUS_OK)
        return status;
    if (!step->exclusive)
        step->ticket = session_ticket(session, false);
    session->admitted_step += event_steps(step->event.kind);
    step->flight.round = session->closings;
    step->flight.waits = step->event.kind == EVENT_CONTRIBUTION;
    session->closings += event_closes(step->event.kind);
    step->flight.next = session->flights;
    session->flights = &step->flight;
    if (BUG(acknowledge_before_commit))
        session->durable_step = session->admitted_step;
    /* Who is told that a contribution waits is told that it is on disk, in any mode. */
    bool later = mode == DURABILITY_INTERVAL && step->event.kind != EVENT_CONTRIBUTION;
    if (later || (BUG(acknowledge_before_commit) && step->entry != NULL)) {
        step->entry->deferred = true;
        commit_later(committer, &step->entry->item,
                     (uint64_t)(session->spec.durability.seconds * 1e6));
        step->entry = NULL;
    } else if (step->entry != NULL) {
        commit_enqueue(committer, &step->entry->item);
    }
    return STATUS_OK;
}

enum status step_admit(struct step *step, bool *going, bool *again, bool *seen, struct outcome *out,
                       struct fault *fault)
{
    struct session *session = step->session;
    enum status status = session_await_admission(session, step->exclusive, fault);

    *going = false;
    if (status != STATUS_OK)
        return status;
    if (step->exclusive) /* the mutex is given up before the step is queued */
        step->ticket = session_ticket(session, true);
    *again = session->spec_version != step->spec_version;
    if (!*again && (status = check(step, seen, out, fault)) == STATUS_OK && !*seen) {
        bool dry_run = step->submission != NULL && step->submission->dry_run;
        bool proposes = step->event.kind == EVENT_GRADIENT && session->plan->proposal_count > 0;
        if (proposes && !step->exclusive) { /* once more, alone */
            step->proposes = *again = true;
            return STATUS_OK;
        }
        if (proposes)
            status = propose(step, fault);
        if (status == STATUS_OK && dry_run && step->event.kind == EVENT_CONTRIBUTION)
            rehearse_waiting(step, out);
        else if (status == STATUS_OK)
            status = dry_run ? rehearse(step, out, fault) : enqueue(step, fault);
        *going = status == STATUS_OK && !dry_run;
    }
    bool failed = status == STATUS_ABNORMAL_GRADIENT && !step->submission->dry_run &&
                  !step_quarantine(step, fault);
    if (step->exclusive && !*going)
        session_end_turn(session, true, failed);
    return status;
}

void step_land(struct step *step)
{
    struct flight **link = &step->session->flights;

    while (*link != &step->flight)
        link = &(*link)->next;
    *link = step->flight.next;
}
