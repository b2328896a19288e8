/* Creating a session: a hidden entry reserves the id; the first checkpoint and the record go in one
 * transaction. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "service/core/clock.h"
#include "service/core/metric.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "storage/store.h"

enum { CHUNKS_MAX = 1000000 }; /* of a checkpoint: a store numbers them with twenty bits */

/* ses_ and twenty base32 characters: a hundred random bits. */
static bool draw_id(char id[SESSION_ID_BYTES + 1])
{
    unsigned char random[20];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    memcpy(id, "ses_", 4);
    for (size_t i = 0; i < sizeof random; i++)
        id[4 + i] = "abcdefghijklmnopqrstuvwxyz234567"[random[i] & 31];
    id[4 + sizeof random] = '\0';
    return true;
}

static enum status digest_request(const struct session_request *request, struct digest *out,
                                  struct fault *fault)
{
    struct packer packer = {0};
    struct hash *hash = hash_new();

    spec_pack(&packer, request->spec);
    if (hash == NULL || packer.failed) {
        if (hash != NULL)
            (void)hash_end(hash);
        packer_close(&packer);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    hash_add(hash, packer.data, packer.used);
    hash_add(hash, request->layout->digest.bytes, sizeof request->layout->digest.bytes);
    hash_add(hash, request->weights->data,
             request->layout->count * dtype_size(request->spec->dtype));
    *out = hash_end(hash);
    packer_close(&packer);
    return STATUS_OK;
}

/* The state at step 0. */
static enum status first_state(const struct session_request *request, const struct plan *plan,
                               struct state **out, struct fault *fault)
{
    struct state *state = state_new(request->layout);
    struct addition added = {.workspace = NULL};
    const struct spec *spec = request->spec;
    enum status status;

    if (state == NULL || (state->current = revision_new(0, false)) == NULL) {
        state_free(state);
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    }
    state->current->weights = buffer_retain(request->weights);
    state->current->average_divisor = spec_average_divisor(spec, 0);
    state_start(state, spec->rule);
    if (spec->ema.on && (state->current->average = buffer_new_zeroed(
                             request->layout->count * dtype_size(spec->dtype))) == NULL)
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory for the average");
    else
        status = state_lacks(state, plan, spec, &added, fault);
    if (status != STATUS_OK) {
        state_free(state);
        return status;
    }
    state_fit(state, plan, spec, &added);
    *out = state;
    return STATUS_OK;
}

/* An id that exists: fine when it came from the same request. Waits for a creation that is under
 * way; *gone tells that it failed. Takes the reference. */
static enum status compare_existing(struct session *take_session, const struct digest *request,
                                    struct session **out, bool *gone, struct fault *fault)
{
    struct session *session = take_session;

    pthread_mutex_lock(&session->mutex);
    while (session->creating)
        pthread_cond_wait(&session->turn, &session->mutex);
    *gone = session->deleted;
    pthread_mutex_unlock(&session->mutex);
    if (!*gone && memcmp(&session->request, request, sizeof *request) == 0) {
        *out = session;
        return STATUS_OK;
    }
    enum status status =
        fault_set(fault, STATUS_SESSION_EXISTS, "",
                  "session %s exists and was created differently; choose another id, or delete it "
                  "first",
                  session->id);
    session_release(session);
    return status;
}

/* Ends a creation: those who wait for it see the session, or that there is none. */
static void end_creation(struct engine *engine, struct session *session, bool made)
{
    pthread_rwlock_wrlock(&engine->lock);
    session->hidden = false;
    pthread_rwlock_unlock(&engine->lock);
    pthread_mutex_lock(&session->mutex);
    session->creating = false;
    session->deleted = !made;
    pthread_cond_broadcast(&session->turn);
    pthread_mutex_unlock(&session->mutex);
}

/* Whether the limits allow one session more. Lock held. */
static enum status check_quota(const struct engine *engine, const struct owner *owner,
                               const struct tenant *tenant, const struct layout *layout,
                               struct fault *fault)
{
    if (engine->count < engine->options.sessions_max)
        return tenant_check(tenant, owner, layout->count, fault);
    fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
              "this server holds its limit of %llu sessions; delete some",
              (unsigned long long)engine->options.sessions_max);
    return fault_extra(fault, "retry_after_s", QUOTA_RETRY_S);
}

/* Reserves the id with a hidden session. */
static enum status reserve(struct engine *engine, const struct owner *owner, const char *wanted,
                           const struct session_record *record, struct plan **plan, bool *exists,
                           struct session **out, struct fault *fault)
{
    char id[SESSION_ID_BYTES + 1] = "";
    enum status status;

    pthread_rwlock_wrlock(&engine->lock);
    size_t place = wanted != NULL ? registry_place(engine, owner->tenant, wanted, exists) : 0;
    struct tenant *tenant = engine_tenant(engine, owner->tenant);
    if (*exists) {
        *out = session_retain(engine->sessions[place]);
        status = STATUS_OK;
    } else if (tenant == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    } else if ((status = check_quota(engine, owner, tenant, record->layout, fault)) != STATUS_OK) {
        ;
    } else if (wanted == NULL && !draw_id(id)) {
        status = fault_set(fault, STATUS_INTERNAL, "", "no random numbers: %s", strerror(errno));
    } else {
        struct session *session = session_new(engine, engine->next_key++, tenant,
                                              wanted != NULL ? wanted : id, record, *plan);
        if (session == NULL) {
            status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        } else {
            *plan = NULL; /* the session's now */
            session->hidden = session->creating = true;
            if ((status = registry_enrol(engine, session, fault)) == STATUS_OK)
                *out = session_retain(session);
            else
                session_release(session);
        }
    }
    pthread_rwlock_unlock(&engine->lock);
    return status;
}

enum status engine_check_size(const struct engine *engine, const struct layout *layout,
                              const struct plan *plan, const struct spec *spec, struct fault *fault)
{
    uint64_t bytes = state_bytes(layout, plan, spec);
    uint64_t vector = layout->count * sizeof(double); /* whatever comes */
    uint64_t round = spec_gathers(spec) ? vector * (spec_round_size(spec) + 1) : 0;

    if (bytes + round > engine->options.memory_bytes_max && round > 0)
        return fault_set(fault, STATUS_TOO_LARGE, "/aggregation",
                         "weights and state need %llu bytes and a round of %llu contributions %llu "
                         "more; this server keeps at most %llu in memory (--memory-bytes-max)",
                         (unsigned long long)bytes, (unsigned long long)spec_round_size(spec),
                         (unsigned long long)round,
                         (unsigned long long)engine->options.memory_bytes_max);
    if (bytes <= engine->options.memory_bytes_max && bytes / STORE_CHUNK_BYTES <= CHUNKS_MAX)
        return STATUS_OK;
    return fault_set(fault, STATUS_TOO_LARGE, "/parameters",
                     "weights and state need %llu bytes; this server keeps at most %llu in "
                     "memory (--memory-bytes-max)",
                     (unsigned long long)bytes,
                     (unsigned long long)engine->options.memory_bytes_max);
}

static enum status check_count(const struct engine *engine, const struct layout *layout,
                               struct fault *fault)
{
    if (layout->count <= engine->options.parameters_max)
        return STATUS_OK;
    return fault_set(fault, STATUS_TOO_LARGE, "/parameters",
                     "the model has %zu parameters; this server takes at most %llu "
                     "(--parameters-max)",
                     layout->count, (unsigned long long)engine->options.parameters_max);
}

enum status engine_plan(const struct engine *engine, const struct spec *spec,
                        const struct layout *layout, struct plan **out, struct fault *fault)
{
    struct plan *plan;
    enum status status = check_count(engine, layout, fault);

    if (status != STATUS_OK || (status = plan_new(spec, layout, &plan, fault)) != STATUS_OK)
        return status;
    status = engine_check_size(engine, layout, plan, spec, fault);
    if (status == STATUS_OK)
        *out = plan;
    else
        plan_free(plan);
    return status;
}

enum status engine_adopt(struct engine *engine, const struct owner *owner, const char *id,
                         const struct session_record *record, struct state *take_state,
                         struct session **out, bool *created, struct fault *fault)
{
    static const struct owner nobody = {.tenant = ""};
    struct state *state = take_state;
    struct session *session = NULL;
    struct plan *plan = NULL;
    bool exists = false, gone;
    enum status status = engine_plan(engine, &record->spec, record->layout, &plan, fault);

    if (status != STATUS_OK)
        goto done;
    do {
        gone = exists = false;
        status = reserve(engine, owner != NULL ? owner : &nobody, id, record, &plan, &exists,
                         &session, fault);
        if (status == STATUS_OK && exists)
            status = compare_existing(session, &record->request, out, &gone, fault);
    } while (gone);
    *created = !exists;
    if (exists || status != STATUS_OK)
        goto done;
    session->state = state;
    state = NULL;
    metric_move(GAUGE_SESSIONS_RESIDENT, 0, 1);
    session->step = session->admitted_step = session->state->current->step;
    POINT(before_create);
    status = session_checkpoint_own(session, true, fault);
    POINT(after_create);
    if (status != STATUS_OK)
        engine_forget(engine, session);
    end_creation(engine, session, status == STATUS_OK);
    if (status == STATUS_OK)
        *out = session;
    else
        session_release(session);
done:
    plan_free(plan); /* unless a session has it */
    state_free(state);
    return status;
}

enum status engine_create(struct engine *engine, const struct session_request *request,
                          struct session **out, bool *created, struct fault *fault)
{
    struct session_record record = {
        .created_us = clock_unix_us(), .spec = *request->spec, .layout = request->layout};
    struct state *state = NULL;
    struct plan *plan = NULL;
    enum status status;

    if ((status = check_count(engine, request->layout, fault)) != STATUS_OK ||
        (status = check_weights(request->layout, request->spec->dtype, request->weights, fault)) !=
            STATUS_OK ||
        (status = digest_request(request, &record.request, fault)) != STATUS_OK ||
        (status = engine_plan(engine, request->spec, request->layout, &plan, fault)) != STATUS_OK)
        return status;
    if ((status = first_state(request, plan, &state, fault)) == STATUS_OK)
        status =
            engine_adopt(engine, request->owner, request->id, &record, state, out, created, fault);
    plan_free(plan);
    return status;
}
