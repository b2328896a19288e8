/* A step: check, journal, apply, publish, answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/event.h"
#include "service/session/session.h"
#include "service/session/step.h"

/* Milliseconds since *mark_us, which becomes now. */
static float lap_ms(uint64_t *mark_us)
{
    uint64_t began = *mark_us;

    *mark_us = clock_monotonic_us();
    return (float)(*mark_us - began) / 1000;
}

static void observe(size_t stage, float ms)
{
    if (!isnan(ms))
        metric_observe(HISTOGRAM_STEP_STAGE, stage, (uint64_t)(ms * 1000 + 0.5f));
}

/* A step was taken, or a contribution has joined its round (kind RECEIPT_WAITING). Mutex not held.
 */
static void count_step(const struct step *step, uint32_t kind)
{
    const struct stages *stages = &step->stages;
    bool gathers = kind == RECEIPT_WAITING || step->gathering != NULL;

    if (kind != RECEIPT_WAITING)
        metric_count(COUNTER_STEPS, kind - RECEIPT_APPLIED, 1);
    metric_count(COUNTER_CONTRIBUTIONS, 0, gathers && !step->closing);
    metric_count(COUNTER_ROUNDS, 0, step->gathering != NULL);
    observe(METRIC_STAGE_RECEIVE, stages->receive_ms);
    observe(METRIC_STAGE_DECODE, stages->decode_ms);
    observe(METRIC_STAGE_WAIT, stages->admit_ms + step->turn_ms);
    if (step->entry != NULL)
        observe(METRIC_STAGE_COMMIT, stages->commit_ms);
    if (kind != RECEIPT_WAITING)
        observe(METRIC_STAGE_APPLY, step->apply_ms);
}

/* In this thread's turn: the round has one member more. Mutex held. */
static void join(struct step *step, struct outcome *out)
{
    struct session *session = step->session;

    state_contribute(session->state, &session->spec, &step->event, step->contribution, step->cursor,
                     &out->receipt);
    step->contribution = NULL;
    step->cursor = NULL;
    out->receipt.durable_step = session->durable_step;
    out->revision = revision_retain(session->state->current);
    out->replayed = false;
    session->dirty++;
    session->journal_since += step->size;
    POINT(after_join);
    step_start_waiting(step, &out->receipt);
    session_watch_round(session, 0);
}

/* In this thread's turn, which began at mark_us: applies and publishes. Mutex held on entry and
 * exit. */
static void apply(struct step *step, uint64_t mark_us, struct outcome *out)
{
    struct session *session = step->session;
    struct step_line line;
    struct receipt receipt;

    pthread_mutex_unlock(&session->mutex);
    event_apply(session->state, session->plan, &session->spec, &step->event, step->gathering,
                step->body, step->offset, step->notes, step->next, &line);
    POINT(in_apply);
    line.stages = step->stages;
    line.stages.apply_ms = step->apply_ms = lap_ms(&mark_us);
    pthread_mutex_lock(&session->mutex);
    if (session->durable_step < line.receipt.step && !BUG(apply_before_commit))
        line.receipt.durable_step = session->durable_step;
    receipt = line.receipt;
    session->step = receipt.step;
    session->dirty++;
    session->journal_since += step->size;
    out->revision = revision_retain(step->next);
    out->replayed = false;
    bool closes = event_closes(step->event.kind);
    session->closed += closes;
    state_publish(session->state, &step->event, step->next, &line, step->cursor);
    step->next = NULL;
    step->cursor = NULL;
    out->receipt = receipt;
    session_tell(session, closes, &receipt);
}

static void close_step(struct step *step)
{
    step_uncorrect(step);
    journal_entry_free(step->entry);
    buffer_release(step->joined);
    revision_release(step->next);
    gathering_free(step->gathering);
    contribution_free(step->contribution);
    free(step->cursor);
    step->gathering = NULL;
    step->contribution = NULL;
    step->joined = NULL;
    step->entry = NULL;
    step->next = NULL;
    step->cursor = NULL;
}

static bool dry_run(const struct step *step)
{
    return step->submission != NULL && step->submission->dry_run;
}

/* Admits, journals, applies. *again: the configuration changed since the step was prepared, or it
 * turned out to need its turn alone. */
static enum status take(struct step *step, bool *again, struct outcome *out, struct fault *fault)
{
    struct session *session = step->session;
    enum status status;
    bool going, seen = false;
    uint64_t mark = step->started_us;

    POINT(before_admission);
    /* One of several contributions to a rule that proposes is not known yet to be the last. */
    step->exclusive = dry_run(step) || step->proposes ||
                      (step->event.kind == EVENT_GRADIENT && session->plan->proposal_count > 0 &&
                       !spec_gathers(&step->spec));
    pthread_mutex_lock(&session->mutex);
    status = step_admit(step, &going, again, &seen, out, fault);
    pthread_mutex_unlock(&session->mutex);
    if (!going)
        return status;
    step->stages.admit_ms = lap_ms(&mark);
    POINT(after_enqueue);
    if (step->entry != NULL && !BUG(apply_before_commit))
        status = commit_wait(&step->entry->item, fault);
    POINT(after_wake);
    if (step->entry != NULL)
        step->stages.commit_ms = lap_ms(&mark);
    pthread_mutex_lock(&session->mutex);
    session_await_turn(session, step->ticket);
    step->turn_ms = lap_ms(&mark);
    if (status == STATUS_OK && step->event.kind == EVENT_CONTRIBUTION)
        join(step, out);
    else if (status == STATUS_OK)
        apply(step, mark, out);
    POINT(after_publish);
    step_land(step);
    session_end_turn(session, step->exclusive, status != STATUS_OK);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK)
        count_step(step, out->receipt.kind);
    if (step->entry != NULL && BUG(apply_before_commit))
        status = commit_wait(&step->entry->item, fault);
    return status;
}

/* Saves the state if it is time. A failure costs nothing but a longer journal: the step stands. */
static void save_if_due(struct session *session, struct receipt *receipt)
{
    struct fault fault;

    if (session_save(session, false, &fault) != STATUS_OK)
        log_warning("session %s: no checkpoint after step %llu: %s", session->stored_id,
                    (unsigned long long)receipt->step, fault.detail);
    pthread_mutex_lock(&session->mutex);
    receipt->durable_step = session->durable_step < receipt->step && !BUG(reply_wrong_durable_step)
                                ? session->durable_step
                                : receipt->step;
    pthread_mutex_unlock(&session->mutex);
}

/* Prepares and takes a step, again if the configuration changes meanwhile. */
static enum status run(struct step *step, enum status (*prepare)(struct step *, struct fault *),
                       struct outcome *out, struct fault *fault)
{
    struct session *session = step->session;
    enum status status = session_enter(session, fault);
    bool again = true, seen = false;

    if (status != STATUS_OK)
        return status;
    *out = (struct outcome){.replayed = false};
    step->started_us = clock_monotonic_us();
    while (status == STATUS_OK && again) {
        /* A round whose time was up before this step came is closed without it. */
        if (!step->closing && (status = session_close_due(session, fault)) != STATUS_OK)
            break;
        pthread_mutex_lock(&session->mutex);
        step->spec = session->spec;
        step->spec_version = session->spec_version;
        /* A repeat gets its receipt whatever has changed since that would refuse it now. */
        status = step_check_repeat(step, &seen, out, fault);
        pthread_mutex_unlock(&session->mutex);
        if (status != STATUS_OK || seen)
            break;
        if (step->spec.durability.mode == DURABILITY_INTERVAL) {
            if ((status = commit_health(session->engine->committer, fault)) != STATUS_OK)
                break;
            commit_await_space(session->engine->committer);
        }
        if ((status = step_correct(step, fault)) == STATUS_OK &&
            (status = prepare(step, fault)) == STATUS_OK)
            status = take(step, &again, out, fault);
        close_step(step);
    }
    bool waiting = out->receipt.kind == RECEIPT_WAITING;
    if (status == STATUS_OK && !out->replayed && !waiting && !step->closing && !dry_run(step) &&
        out->revision != NULL)
        save_if_due(session, &out->receipt);
    if (status == STATUS_OK && waiting && !dry_run(step))
        status = step_wait(step, out, fault);
    session_leave(session);
    return status;
}

enum status session_submit(struct session *session, const struct submission *submission,
                           struct outcome *out, struct fault *fault)
{
    struct step step = {.session = session, .submission = submission, .match = &submission->match};

    PRE(submission->offset + (submission->form == FORM_DENSE
                                  ? session->layout->count * dtype_size(submission->dtype)
                                  : submission->size) <=
        submission->buffer->size);
    PRE(submission->seq == 0 || submission->worker != NULL);
    PRE(submission->worker == NULL || strlen(submission->worker) <= WORKER_BYTES);
    step.flight.worker = submission->seq > 0 ? submission->worker : NULL;
    step.flight.seq = submission->seq;
    step.flight.name = submission->worker;
    step.stages.receive_ms = (float)submission->receive_ms;
    step.stages.decode_ms = (float)submission->decode_ms;
    if (submission->key != NULL) {
        step.flight.keyed = true;
        step.flight.key = hash_bytes(submission->key, strlen(submission->key));
    }
    if (!notes_new(session->layout, &step.notes))
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = run(&step, step_prepare_gradient, out, fault);
    metric_count(COUNTER_REPLAYS, 0, status == STATUS_OK && out->replayed);
    free(step.notes);
    return status;
}

enum status session_close_round(struct session *session, struct fault *fault)
{
    static const struct precondition none;
    struct step step = {.session = session,
                        .match = &none,
                        .closing = true,
                        .stages = {.receive_ms = (float)NAN, .decode_ms = (float)NAN}};
    struct outcome outcome;

    if (!notes_new(session->layout, &step.notes))
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum status status = run(&step, step_prepare_close, &outcome, fault);
    if (status == STATUS_OK)
        revision_release(outcome.revision);
    free(step.notes);
    return status;
}

enum status session_close_due(struct session *session, struct fault *fault)
{
    pthread_mutex_lock(&session->mutex);
    bool due = step_may_close(session);
    pthread_mutex_unlock(&session->mutex);
    return due ? session_close_round(session, fault) : STATUS_OK;
}

enum status session_replace(struct session *session, struct buffer *weights,
                            const struct precondition *match, struct outcome *out,
                            struct fault *fault)
{
    struct step step = {.session = session,
                        .match = match,
                        .body = weights,
                        .stages = {.receive_ms = (float)NAN, .decode_ms = (float)NAN}};

    step.size = session->layout->count * dtype_size(session->dtype);
    PRE(weights->size >= step.size);
    return run(&step, step_prepare_weights, out, fault);
}
