/* Changes that are not steps: configuration and deletion. Each takes an exclusive turn: nothing is
 * in flight meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "storage/store.h"

/* --- configuration --- */

/* Stores the new configuration: as an event, or, where the steps are not in the journal, with a
 * checkpoint that it follows. */
static enum status store_spec(struct session *session, const struct spec *spec, struct fault *fault)
{
    struct event event = event_make(EVENT_SPEC, session->step);
    struct committer *committer = session->engine->committer;
    struct journal_entry *entry = NULL;
    struct packer packed = {0};
    struct buffer *body = NULL;
    enum status status;

    spec_pack(&packed, spec);
    event.lineage = session->lineage;
    if (packed.failed || (body = buffer_new(packed.used)) == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        goto done;
    }
    memcpy(body->data, packed.data, packed.used);
    if (session->spec.durability.mode == DURABILITY_CHECKPOINT && session->dirty > 0 &&
        (status = session_checkpoint_own(session, false, fault)) != STATUS_OK)
        goto done;
    if ((status = journal_entry_new(session, &event, body, 0, packed.used, &entry, fault)) !=
        STATUS_OK)
        goto done;
    entry->spec = spec;
    POINT(before_spec);
    commit_enqueue(committer, &entry->item);
    status = commit_wait(&entry->item, fault);
    POINT(after_spec);
done:
    journal_entry_free(entry);
    buffer_release(body);
    packer_close(&packed);
    return status;
}

static enum status patch(struct session *session,
                         enum status (*change)(void *, struct spec *, struct fault *),
                         void *context, bool *failed, struct fault *fault)
{
    struct spec spec = session->spec;
    struct addition added = {.workspace = NULL};
    enum status status;

    if ((status = change(context, &spec, fault)) != STATUS_OK)
        return status;
    PRE(session_fits(session, &spec));
    if (spec.durability.mode == DURABILITY_CHECKPOINT && session->state->round.count > 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "/durability/mode",
                         "a round is open with %zu contributions, which only the journal keeps; "
                         "let it close first",
                         session->state->round.count);
    status = engine_check_size(session->engine, session->layout, session->plan, &spec, fault);
    if (status != STATUS_OK)
        return status;
    status = state_lacks(session->state, session->plan, &spec, &added, fault);
    if (status != STATUS_OK)
        return status;
    if ((status = store_spec(session, &spec, fault)) != STATUS_OK) {
        *failed = true;
        addition_release(&added);
        return status;
    }
    state_fit(session->state, session->plan, &spec, &added);
    pthread_mutex_lock(&session->mutex);
    session->spec = spec;
    session->spec_version++;
    session->dirty++;
    snapshot_fit(&session->state->snapshot, &spec);
    pthread_mutex_unlock(&session->mutex);
    return STATUS_OK;
}

enum status session_patch(struct session *session,
                          enum status (*change)(void *context, struct spec *spec,
                                                struct fault *fault),
                          void *context, struct fault *fault)
{
    enum status status = session_enter(session, fault);
    struct fault ignored;
    bool failed = false;
    uint64_t ticket;

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    status = session_admit_alone(session, &ticket, fault);
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK) {
        status = patch(session, change, context, &failed, fault);
        pthread_mutex_lock(&session->mutex);
        session_end_turn(session, true, failed);
        pthread_mutex_unlock(&session->mutex);
    }
    /* The open round may have all that it needs now, or another deadline. */
    if (status == STATUS_OK && session_close_due(session, &ignored) != STATUS_OK)
        log_warning("session %s: its round is not closed yet: %s", session->stored_id,
                    ignored.detail);
    pthread_mutex_lock(&session->mutex);
    if (status == STATUS_OK)
        session_watch_round(session, 0);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return status;
}

/* --- deletion --- */

static enum status write_deletion(struct commit_item *item, struct commit_turn *turn,
                                  struct fault *fault)
{
    struct journal_entry *deletion = (struct journal_entry *)(void *)item;

    if (BUG(forget_deletion))
        return STATUS_OK;
    return turn->store->backend->session_drop(turn->store, deletion->session->key, fault);
}

enum status session_delete(struct engine *engine, struct session *session, struct fault *fault)
{
    struct journal_entry deletion = {.item = {.write = write_deletion}, .session = session};
    enum status status;
    uint64_t ticket;

    pthread_mutex_lock(&session->mutex);
    if ((status = session_admit_alone(session, &ticket, fault)) != STATUS_OK)
        goto done;
    pthread_mutex_unlock(&session->mutex);
    POINT(before_delete);
    commit_enqueue(engine->committer, &deletion.item);
    status = commit_wait(&deletion.item, fault);
    pthread_mutex_lock(&session->mutex);
    session->deleted = status == STATUS_OK;
    session_tell(session, false, NULL);
    session_close_at(session, 0); /* the timekeeper lets go of it */
    session_end_turn(session, true, false);
done:
    pthread_mutex_unlock(&session->mutex);
    if (status != STATUS_OK)
        return status;
    POINT(after_delete);
    /* Before anything that lasts: who makes another of this name asks again until it is free. */
    engine_forget(engine, session);
    session_drop_contents(session);
    return STATUS_OK;
}
