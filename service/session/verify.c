/* The proof: every session is replayed from its oldest checkpoint on, through every other one, and
 * held against the hashes of the checkpoints and the lines of the ledger that are stored. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"

struct proof {
    const struct store_watch *watch;
    struct verify_report *report;
    struct session *session;
    struct replay replay;
    uint64_t done, total; /* bytes of the journal */
};

static void found(struct proof *proof, const char *sentence)
{
    char text[640];

    proof->report->findings++;
    snprintf(text, sizeof text, "Session %s: %.500s", proof->session->stored_id, sentence);
    if (proof->watch != NULL && proof->watch->finding != NULL)
        proof->watch->finding(proof->watch->context, text);
}

static void found_fault(struct proof *proof, const struct fault *fault)
{
    found(proof, fault->detail);
}

/* Lines that were stored against those that the replay has made. */
static enum status compare_lines(void *context, const struct buffer *body, struct fault *fault)
{
    struct proof *proof = context;
    struct receipts *own = &proof->replay.loaded.state->receipts;
    struct receipts_reader *readers = calloc(2, sizeof *readers);
    struct step_line told, mine;
    char sentence[160];

    if (readers == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    readers[0].unpacker = (struct unpacker){.data = body->data, .size = body->size};
    readers[1].unpacker = (struct unpacker){.data = own->lines.data, .size = own->lines.used};
    while (receipts_next(&readers[1], &mine)) {
        const char *member =
            receipts_next(&readers[0], &told) ? receipts_differ(&told, &mine) : "line";
        proof->report->hashes += mine.receipt.hashed;
        if (member == NULL)
            continue;
        snprintf(sentence, sizeof sentence,
                 "step %llu: the ledger has another %s than the journal leads to",
                 (unsigned long long)mine.receipt.step, member);
        found(proof, sentence);
        break;
    }
    free(readers);
    receipts_close(own);
    return STATUS_OK;
}

/* Lines that the replay has made and the journal does not have. Mind versions that kept none. */
static void find_lost_lines(struct proof *proof, struct replay *before, const struct replay *after)
{
    if (after->hashed && before->loaded.state->receipts.count > 0)
        found(proof, "the ledger lacks lines of steps that were taken");
    receipts_close(&before->loaded.state->receipts);
}

/* What was replayed up to a checkpoint against the checkpoint. */
static void compare_checkpoint(struct proof *proof, struct replay *before,
                               const struct replay *after, const struct checkpoint_place *place)
{
    const struct session *session = proof->session;
    const struct revision *reached = before->loaded.state->current;
    char sentence[200];

    if (reached->lineage != place->lineage || !after->hashed)
        return; /* a rewind, or of a version without hashes */
    if (reached->step != place->step) {
        if (before->loaded.spec.durability.mode == DURABILITY_CHECKPOINT)
            return; /* nothing is journaled in between */
        snprintf(sentence, sizeof sentence,
                 "the journal leads to step %llu where a checkpoint has step %llu",
                 (unsigned long long)reached->step, (unsigned long long)place->step);
        found(proof, sentence);
        return;
    }
    struct digest hash = state_hash(before->loaded.state, reached, session->plan);
    proof->report->hashes++;
    if (memcmp(&hash, &after->state_hash, sizeof hash) == 0)
        return;
    snprintf(sentence, sizeof sentence,
             "the journal does not lead to the state_hash of the checkpoint of step %llu",
             (unsigned long long)place->step);
    found(proof, sentence);
}

/* The events from the checkpoint up to `until`. */
static enum status replay_until(struct proof *proof, const struct checkpoint_place *place,
                                uint64_t until, struct fault *fault)
{
    enum status status = STATUS_OK;

    for (const struct event_place *event = proof->session->events;
         event != NULL && event->lsn <= until && status == STATUS_OK; event = event->next) {
        if (event->lsn <= place->from)
            continue;
        status = session_replay_event(&proof->replay, event, fault);
        proof->report->steps += event_steps(event->kind);
        proof->done += event->bytes;
        if (proof->watch != NULL && proof->watch->progress != NULL)
            proof->watch->progress(proof->watch->context, "replaying", proof->done, proof->total);
    }
    return status;
}

/* The checkpoint before `place` in time. */
static const struct checkpoint_place *newer(const struct session *session,
                                            const struct checkpoint_place *place)
{
    const struct checkpoint_place *at = session->checkpoints;

    if (at == place)
        return NULL;
    while (at->next != place)
        at = at->next;
    return at;
}

static enum status verify_session(struct proof *proof, struct fault *fault)
{
    struct session *session = proof->session;
    const struct checkpoint_place *place = session->checkpoints, *next;
    struct replay before = {.session = session};
    bool sound = false; /* `before` was replayed up to this checkpoint */

    if (place == NULL)
        found(proof, "no checkpoint is stored");
    while (place != NULL && place->next != NULL)
        place = place->next;
    for (; place != NULL; place = next) {
        struct fault why;
        next = newer(session, place);
        enum status status = session_replay_start(session, place, &proof->replay, &why);
        proof->report->checkpoints++;
        proof->report->hashes += proof->replay.hashed;
        if (status == STATUS_OK && sound) {
            find_lost_lines(proof, &before, &proof->replay);
            compare_checkpoint(proof, &before, &proof->replay, place);
        }
        session_replay_end(&before);
        before = (struct replay){.session = session};
        proof->replay.receipts = compare_lines;
        proof->replay.context = proof;
        if (status == STATUS_OK)
            status = replay_until(proof, place, next == NULL ? UINT64_MAX : next->lsn, &why);
        sound = status == STATUS_OK;
        if (status == STATUS_INTERNAL) {
            session_replay_end(&proof->replay);
            *fault = why;
            return status;
        }
        if (!sound)
            found_fault(proof, &why);
        before = proof->replay;
    }
    session_replay_end(&before);
    return STATUS_OK;
}

enum status engine_verify(struct store *store, const struct store_watch *watch,
                          struct verify_report *out, struct fault *fault)
{
    struct engine engine = {.store = store,
                            .options = {.sessions_max = UINT64_MAX,
                                        .parameters_max = UINT64_MAX,
                                        .memory_bytes_max = UINT64_MAX,
                                        .history_bytes_max = UINT64_MAX}};
    struct orphans orphans = {.checkpoints = NULL};
    struct verify_report report = {.sessions = 0};
    struct proof proof = {.watch = watch, .report = &report};
    enum status status;

    pthread_rwlock_init(&engine.lock, NULL);
    crew_start();
    status = engine_read_store(&engine, &orphans, fault);
    proof.total = engine.journal_bytes;
    for (size_t i = 0; i < engine.count; i++) {
        proof.session = engine.sessions[i];
        if (status == STATUS_OK)
            status = verify_session(&proof, fault);
        report.sessions++;
        session_release(engine.sessions[i]);
    }
    free(engine.sessions);
    engine_free_tenants(&engine);
    orphans_close(&orphans);
    crew_stop();
    pthread_rwlock_destroy(&engine.lock);
    if (status == STATUS_OK)
        *out = report;
    return status;
}
