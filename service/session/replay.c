/* Bringing a state back: a checkpoint, then every event after it, through the same event_apply as
 * live steps. */
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/event.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"
#include "storage/store.h"

static enum status replay_spec(struct replay *replay, const struct buffer *body,
                               struct fault *fault)
{
    struct session *session = replay->session;
    struct state *state = replay->loaded.state;
    struct spec *spec = &replay->loaded.spec;
    struct unpacker unpacker = {.data = body->data, .size = body->size};
    struct addition added = {.workspace = NULL};
    enum status status = spec_unpack(&unpacker, spec, fault);

    if (status == STATUS_OK && !session_fits(session, spec))
        status = replay_misfit(fault);
    if (status == STATUS_OK)
        status = state_lacks(state, session->plan, spec, &added, fault);
    if (status == STATUS_OK) {
        state_fit(state, session->plan, spec, &added);
        snapshot_fit(&state->snapshot, spec);
    }
    return status;
}

static enum status mismatch(const struct replay *replay, uint64_t step, struct fault *fault)
{
    return fault_set(fault, STATUS_HISTORY_MISMATCH, "",
                     "session %s: the journal does not lead to the state_hash that was told at "
                     "step %llu; descent verify says more, restore the folder from a backup",
                     replay->session->id, (unsigned long long)step);
}

/* What an event says of its gradient and of the steps before it. */
static enum status check_event(const struct replay *replay, const struct event *event,
                               const struct event *measured, struct fault *fault)
{
    const struct state *state = replay->loaded.state;
    const struct told *told = &state->told[event->told_step % TOLD_MAX];
    unsigned long long step = event->step;

    if (!event_norm_holds(event, measured->grad_norm))
        return fault_set(
            fault, STATUS_HISTORY_MISMATCH, "",
            "session %s: a gradient of the journal, at step %llu, is not the one that was "
            "accepted: its norm is another; restore the folder from a backup",
            replay->session->id, step);
    if (event->told_step > 0 && told->step == event->told_step &&
        memcmp(&told->hash, &event->told, sizeof event->told) != 0)
        return mismatch(replay, event->told_step, fault);
    return STATUS_OK;
}

static enum status no_memory(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
}

/* Measures the gradient of an event again, and holds it against what the event says. */
static enum status check_gradient(struct replay *replay, const struct event *event,
                                  struct buffer *body, struct fault *fault)
{
    struct session *session = replay->session;
    struct event measured = *event;
    enum status status = event_check_body(session->plan, event, body, fault);

    if (status != STATUS_OK)
        return status;
    if (event->kind != EVENT_WEIGHTS && event->form != FORM_NONE) {
        struct wire_gradient gradient = event_gradient(session->layout, event, body, 0);
        event_measure(&replay->loaded.spec, session->plan, &gradient, &measured, replay->notes);
    }
    return check_event(replay, event, &measured, fault);
}

static enum status copy_cursor(const struct event *event, char **out, struct fault *fault)
{
    *out = event->cursor == NULL ? NULL : strndup(event->cursor, event->cursor_size);
    return event->cursor == NULL || *out != NULL ? STATUS_OK : no_memory(fault);
}

static enum status misplaced(const struct replay *replay, const struct event *event,
                             struct fault *fault)
{
    return fault_set(fault, STATUS_STORAGE_FAILED, "",
                     "the journal does not fit the state: step %llu follows step %llu",
                     (unsigned long long)event->step,
                     (unsigned long long)replay->loaded.state->current->step);
}

/* A member of the round that was open at the checkpoint, which knows all else of it. */
static enum status replay_member(struct replay *replay, const struct event *event,
                                 struct buffer *body, struct fault *fault)
{
    struct session *session = replay->session;
    struct contribution *contribution;
    enum status status = event_check_body(session->plan, event, body, fault);

    if (status != STATUS_OK || BUG(forget_contribution))
        return status;
    if ((contribution = contribution_new(session->layout, event, body, 0)) == NULL)
        return no_memory(fault);
    round_add(&replay->loaded.state->round, contribution, event->created_us);
    return STATUS_OK;
}

static enum status replay_contribution(struct replay *replay, const struct event *event,
                                       struct buffer *body, struct fault *fault)
{
    struct session *session = replay->session;
    struct state *state = replay->loaded.state;
    struct contribution *contribution = NULL;
    struct receipt receipt;
    char *cursor = NULL;
    enum status status;

    if (event->step != state->current->step)
        return misplaced(replay, event, fault);
    if ((status = check_gradient(replay, event, body, fault)) != STATUS_OK ||
        (status = copy_cursor(event, &cursor, fault)) != STATUS_OK)
        return status;
    if (BUG(forget_contribution)) {
        free(cursor);
        return STATUS_OK;
    }
    contribution = contribution_new(session->layout, event, body, 0);
    if (contribution == NULL || !state_reserve(state, 1, state->round.count + 1)) {
        contribution_free(contribution);
        free(cursor);
        return no_memory(fault);
    }
    state_contribute(state, &replay->loaded.spec, event, contribution, cursor, &receipt);
    return STATUS_OK;
}

static enum status replay_step(struct replay *replay, const struct event *event,
                               struct buffer *body, struct fault *fault)
{
    struct session *session = replay->session;
    struct state *state = replay->loaded.state;
    const struct spec *spec = &replay->loaded.spec;
    size_t count = session->layout->count;
    bool applies = event->kind == EVENT_GRADIENT;
    struct gathering *gathering = NULL;
    struct revision *next = NULL;
    struct step_line line;
    char *cursor = NULL;
    enum status status;

    if (event->step != state->current->step + 1 || !event_base_kept(state, event))
        return misplaced(replay, event, fault);
    if (!event_overrides_fit(spec, event))
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "the journal is damaged: step %llu overrides what %s does not have",
                         (unsigned long long)event->step, spec->rule->name);
    if ((status = check_gradient(replay, event, body, fault)) != STATUS_OK ||
        (status = copy_cursor(event, &cursor, fault)) != STATUS_OK)
        return status;
    next = revision_new(applies ? count * dtype_size(session->dtype) : 0, spec->ema.on);
    if (next == NULL || !state_reserve(state, 1, state->round.count + 1) ||
        !event_gathering(state, session->plan, spec, event, 0, &gathering)) {
        revision_release(next);
        free(cursor);
        return no_memory(fault);
    }
    notes_of_nonfinite(&event->nonfinite, session->layout, replay->notes);
    for (int times = BUG(replay_twice) ? 2 : 1; times > 0; times--)
        event_apply(state, session->plan, spec, event, gathering, body, 0, replay->notes, next,
                    &line);
    if (BUG(wrong_hash) && next->weights != NULL)
        next->weights->data[0] ^= 1;
    state_publish(state, event, next, &line, cursor);
    gathering_free(gathering);
    return STATUS_OK;
}

/* The hashes that were told against those of the replay, which has made its own lines of the same
 * steps. */
static enum status check_hashes(struct replay *replay, const struct buffer *body,
                                struct fault *fault)
{
    struct receipts *own = &replay->loaded.state->receipts;
    struct receipts_reader *readers = calloc(2, sizeof *readers);
    struct step_line told, mine = {.receipt = {.step = 0}};
    enum status status = STATUS_OK;

    if (readers == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    readers[0].unpacker = (struct unpacker){.data = body->data, .size = body->size};
    readers[1].unpacker = (struct unpacker){.data = own->lines.data, .size = own->lines.used};
    while (status == STATUS_OK && receipts_next(&readers[0], &told)) {
        if (!told.receipt.hashed)
            continue;
        while (mine.receipt.step < told.receipt.step && receipts_next(&readers[1], &mine))
            ;
        if (mine.receipt.step != told.receipt.step)
            continue;
        const char *member = receipts_differ(&told, &mine);
        if (member != NULL && strcmp(member, "state_hash") == 0)
            status = mismatch(replay, told.receipt.step, fault);
    }
    free(readers);
    return status;
}

enum status session_replay_event(struct replay *replay, const struct event_place *place,
                                 struct fault *fault)
{
    unsigned char head[STORE_HEAD_BYTES];
    struct event event;
    struct buffer *body = NULL;
    enum status status;

    if (place->kind == EVENT_QUARANTINE || place->kind == EVENT_REWIND)
        return STATUS_OK; /* the first changes nothing; a checkpoint follows the second at once */
    bool known = place->lsn <= replay->sealed;
    if (known && place->kind != EVENT_CONTRIBUTION)
        return STATUS_OK;
    status = session_read_event(replay->session, place, head, replay->chunk, &event, &body, fault);
    if (status != STATUS_OK)
        goto done;
    replay->loaded.replayed += !known;
    replay->loaded.bytes += known ? 0 : place->bytes;
    if (event.kind == EVENT_SPEC)
        status = BUG(forget_spec) ? STATUS_OK : replay_spec(replay, body, fault);
    else if (event.kind == EVENT_CONTRIBUTION && known)
        status = replay_member(replay, &event, body, fault);
    else if (event.kind == EVENT_CONTRIBUTION)
        status = replay_contribution(replay, &event, body, fault);
    else if (event.kind == EVENT_DISMISS)
        ledger_remove_worker(&replay->loaded.state->ledger, event.worker);
    else if (snapshot_is_event(event.kind))
        status = snapshot_replay(replay->loaded.state, replay->session->plan, &event, body, fault);
    else if (event_steps(event.kind))
        status = replay_step(replay, &event, body, fault);
    else if (replay->receipts != NULL)
        status = replay->receipts(replay->context, body, fault);
    else
        status = check_hashes(replay, body, fault);
done:
    buffer_release(body);
    return status;
}

enum status session_replay_start(struct session *session, const struct checkpoint_place *place,
                                 struct replay *out, struct fault *fault)
{
    enum status status;

    *out = (struct replay){.session = session, .sealed = place->lsn};
    out->chunk = malloc(STORE_CHUNK_BYTES);
    if (out->chunk == NULL || !notes_new(session->layout, &out->notes))
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    else
        status = checkpoint_read(out, place, fault);
    POINT(after_checkpoint_read);
    if (status != STATUS_OK || !out->hashed)
        return status;
    struct state *state = out->loaded.state;
    struct digest hash = state_hash(state, state->current, session->plan);
    if (memcmp(&hash, &out->state_hash, sizeof hash) != 0)
        status = fault_set(fault, STATUS_HISTORY_MISMATCH, "",
                           "session %s: the checkpoint of step %llu does not have the state_hash "
                           "it was stored with; restore the folder from a backup",
                           session->id, (unsigned long long)place->step);
    return status;
}

void session_replay_end(struct replay *replay)
{
    state_free(replay->loaded.state);
    free(replay->chunk);
    free(replay->notes);
}

/* What a load reads: the checkpoint and the events after it, copied, for the list grows. */
struct reading {
    struct checkpoint_place checkpoint;
    struct event_place *events;
    size_t count;
};

static enum status list_reading(struct session *session, uint64_t until, struct reading *out,
                                struct fault *fault)
{
    const struct checkpoint_place *place = session->checkpoints;
    uint64_t lineage = 0;
    size_t capacity = 0;

    while (place != NULL && place->lsn > until)
        place = place->next;
    if (place == NULL)
        return fault_set(fault, STATUS_STORAGE_FAILED, "", "no checkpoint is stored");
    out->checkpoint = *place;
    for (const struct event_place *event = session->events; event != NULL; event = event->next)
        capacity += event->lsn > place->from;
    out->count = 0;
    if ((out->events = malloc((capacity + 1) * sizeof *out->events)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (const struct event_place *event = session->events; event != NULL; event = event->next) {
        if (event->lsn <= place->from)
            continue;
        if (event->lsn <= until) {
            lineage = event->lineage;
            out->events[out->count++] = *event;
        } else if (event->kind == EVENT_RECEIPTS) {
            /* The first lines that were written after it tell of it. */
            if (event->lineage == lineage)
                out->events[out->count++] = *event;
            break;
        }
    }
    return STATUS_OK;
}

enum status session_load(struct session *session, uint64_t until, struct loaded *out,
                         struct fault *fault)
{
    struct reading reading = {.events = NULL};
    struct replay replay = {.session = session};
    enum status status;

    pthread_mutex_lock(&session->mutex);
    status = list_reading(session, until, &reading, fault);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK)
        status = session_replay_start(session, &reading.checkpoint, &replay, fault);
    reading.count -= BUG(drop_event_on_recovery) && reading.count > 0;
    for (size_t i = 0; i < reading.count && status == STATUS_OK; i++) {
        status = session_replay_event(&replay, &reading.events[i], fault);
        POINT(after_replayed_event);
    }
    free(reading.events);
    if (status == STATUS_OK) {
        *out = replay.loaded;
        replay.loaded.state = NULL;
        log_debug("session %s loaded at step %llu, %llu events replayed", session->stored_id,
                  (unsigned long long)out->state->current->step, (unsigned long long)out->replayed);
    } else if (fault != NULL) {
        log_error("session %s cannot be loaded: %s", session->stored_id, fault->detail);
    }
    session_replay_end(&replay);
    return status;
}
