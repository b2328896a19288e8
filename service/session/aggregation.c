/* What the mode of aggregation says of a contribution: how old it may be, how far ahead its worker,
 * and whether it closes the round. Decided at admission, under the session's mutex, from what is
 * applied and what is in flight; what is decided stands in the event, so that a replay asks nothing
 * of it. */
#include <math.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/point.h"
#include "service/session/session.h"
#include "service/session/step.h"

enum status step_check_mode(const struct step *step, struct fault *fault)
{
    static const char *const modes[] = {"async", "sync", "ssp"};
    int mode = step->spec.aggregation.mode;

    if (mode == AGGREGATION_ASYNC || step->submission->worker != NULL)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "/worker",
                     "aggregation mode \"%s\" goes by workers: say which one this is of",
                     modes[mode]);
}

/* Members of the round that is open as far as is admitted, and whether the worker is one. */
static size_t open_members(const struct session *session, const char *worker, bool *is_member)
{
    const struct round *round = &session->state->round;
    bool taken = session->closings != session->closed; /* a close is in flight: it takes those */
    size_t count = taken ? 0 : round->count;

    *is_member = worker != NULL && !taken && round_has(round, worker);
    for (const struct flight *flight = session->flights; flight != NULL; flight = flight->next) {
        if (!flight->waits || flight->round != session->closings)
            continue;
        count++;
        *is_member |= worker != NULL && flight->name != NULL && strcmp(worker, flight->name) == 0;
    }
    return count;
}

/* Contributions that close a round that was opened at that time. */
static uint64_t members_needed(const struct spec *spec, uint64_t started_us)
{
    uint64_t size = spec_round_size(spec), quorum = spec->aggregation.quorum;
    double timeout_s = spec->aggregation.timeout_s;

    if (spec->aggregation.mode != AGGREGATION_SYNC || isnan(timeout_s) || quorum == 0)
        return size;
    double waited_s = ((double)clock_unix_us() - (double)started_us) / 1e6;
    return waited_s >= timeout_s ? quorum : size;
}

bool step_may_close(const struct session *session)
{
    const struct round *round = &session->state->round;
    bool is_member;
    size_t count = open_members(session, NULL, &is_member);

    /* Those in flight close it themselves if need be. */
    return count > 0 && count == round->count && session->closings == session->closed &&
           count >= members_needed(&session->spec, round->started_us);
}

void session_watch_round(struct session *session, uint64_t least_us)
{
    const struct round *round = &session->state->round;
    const struct spec *spec = &session->spec;
    double timeout_s = spec->aggregation.timeout_s;
    double left_s = 0;

    if (round->count == 0)
        return;
    if (round->count < members_needed(spec, round->started_us)) {
        if (spec->aggregation.mode != AGGREGATION_SYNC || isnan(timeout_s))
            return;
        left_s = timeout_s - ((double)clock_unix_us() - (double)round->started_us) / 1e6;
        if (left_s < 0)
            return;             /* the quorum is not in: who makes it closes the round */
        if (left_s > timeout_s) /* the clock was set back */
            left_s = timeout_s;
    }
    uint64_t left_us = (uint64_t)(left_s * 1e6);
    session_close_at(session, clock_monotonic_us() + (left_us > least_us ? left_us : least_us));
}

static enum status stale(const struct step *step, uint64_t base_step, uint64_t current,
                         struct fault *fault)
{
    fault_set(fault, STATUS_STALE_GRADIENT, "/base_step",
              "the gradient was computed at step %llu; the session is at step %llu%s: fetch the "
              "parameters and compute it again",
              (unsigned long long)base_step, (unsigned long long)current,
              step->spec.aggregation.mode == AGGREGATION_SYNC
                  ? ", whose round takes gradients of its own weights only"
                  : " and takes none that is older than aggregation.max_staleness");
    return fault_extra(fault, "current_step", current);
}

static enum status check_staleness(const struct step *step, struct fault *fault)
{
    const struct session *session = step->session;
    const struct spec *spec = &session->spec;
    uint64_t current = session->admitted_step, base_step = step->event.base_step;
    uint64_t staleness = current - base_step;

    if (spec->aggregation.mode == AGGREGATION_SYNC)
        return staleness == 0 ? STATUS_OK : stale(step, base_step, current, fault);
    if (spec->aggregation.mode == AGGREGATION_ASYNC && spec->aggregation.stale == STALE_REJECT &&
        staleness > spec->aggregation.max_staleness)
        return stale(step, base_step, current, fault);
    return STATUS_OK;
}

/* Contributions of a worker that are admitted and not applied yet. */
static uint64_t in_flight(const struct session *session, const char *name)
{
    uint64_t count = 0;

    for (const struct flight *flight = session->flights; flight != NULL; flight = flight->next)
        count += flight->name != NULL && strcmp(flight->name, name) == 0;
    return count;
}

static bool is_live(const struct session *session, const struct ledger_worker *worker)
{
    double silent_us = (double)clock_unix_us() - (double)worker->seen_us;

    return silent_us <= session->spec.aggregation.lease_s * 1e6;
}

/* The slowest live worker but for one; UINT64_MAX: there is no other. */
static uint64_t slowest_other(const struct session *session, const char *name)
{
    const struct ledger *ledger = &session->state->ledger;
    uint64_t slowest = UINT64_MAX;

    for (size_t i = 0; i < ledger->worker_count; i++) {
        const struct ledger_worker *worker = &ledger->workers[i];
        if (worker->clock == 0 || strcmp(worker->name, name) == 0)
            continue;
        uint64_t going = in_flight(session, worker->name);
        if ((going > 0 || is_live(session, worker)) && worker->clock + going < slowest)
            slowest = worker->clock + going;
    }
    return slowest;
}

/* The worker's clock with this contribution, which puts who comes, or comes back, where the slowest
 * is. */
static enum status advance_clock(struct step *step, struct fault *fault)
{
    const struct session *session = step->session;
    const struct spec *spec = &session->spec;
    const char *name = step->flight.name;
    const struct ledger_worker *worker = ledger_find_worker(&session->state->ledger, name);
    uint64_t going = in_flight(session, name);
    uint64_t clock = worker == NULL ? going : worker->clock + going;

    step->event.clock = clock + 1;
    if (spec->aggregation.mode != AGGREGATION_SSP)
        return STATUS_OK;
    uint64_t slowest = slowest_other(session, name);
    bool returns = worker == NULL || (going == 0 && !is_live(session, worker));
    if (slowest == UINT64_MAX)
        return STATUS_OK;
    if (returns && clock + 1 < slowest)
        clock = slowest - 1;
    step->event.clock = clock + 1;
    /* As far ahead as that it may still contribute: with 0 all go in step. */
    if (clock <= slowest + spec->aggregation.staleness)
        return STATUS_OK;
    fault_set(fault, STATUS_TOO_FAR_AHEAD, "/worker",
              "worker %s has done %llu rounds and the slowest %llu; aggregation.staleness allows "
              "%llu more: send it again when the others have caught up",
              name, (unsigned long long)clock, (unsigned long long)slowest,
              (unsigned long long)spec->aggregation.staleness);
    return fault_extra(fault, "slowest", slowest);
}

enum status step_check_round(struct step *step, struct fault *fault)
{
    const struct session *session = step->session;
    const struct spec *spec = &session->spec;
    const struct round *round = &session->state->round;
    bool is_member, applies = step->event.kind == EVENT_GRADIENT;
    size_t received = open_members(session, step->flight.name, &is_member);
    enum status status;

    if (is_member && spec->aggregation.mode == AGGREGATION_SYNC && !BUG(join_twice)) {
        fault_set(fault, STATUS_ALREADY_CONTRIBUTED, "/worker",
                  "worker %s has contributed to round %llu; wait for it to close",
                  step->flight.name, (unsigned long long)session->admitted_step + 1);
        return fault_extra(fault, "round", session->admitted_step + 1);
    }
    if ((status = check_staleness(step, fault)) != STATUS_OK ||
        (step->flight.name != NULL && (status = advance_clock(step, fault)) != STATUS_OK))
        return status;
    bool open = round->count > 0 && session->closings == session->closed;
    uint64_t started_us = open ? round->started_us : clock_unix_us();
    bool closes = received + 1 >= members_needed(spec, started_us);
    step->event.kind = !closes ? EVENT_CONTRIBUTION : applies ? EVENT_GRADIENT : EVENT_SKIP;
    if (!closes)
        step->event.step = session->admitted_step;
    return STATUS_OK;
}
