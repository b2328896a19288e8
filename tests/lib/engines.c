/* Engines and sessions for tests. */
#include "tests/lib/engines.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/core/clock.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/testing.h"

struct engine_options engines_options(void)
{
    return (struct engine_options){.sessions_max = 10000,
                                   .parameters_max = (uint64_t)1 << 30,
                                   .memory_bytes_max = (uint64_t)1 << 34,
                                   .idle_s = 3600,
                                   .history_bytes_max = (uint64_t)1 << 30};
}

struct engine *engines_open_store(struct store *store, const struct engine_options *options)
{
    struct engine_options all = options != NULL ? *options : engines_options();
    struct engine *engine;
    struct fault fault;

    all.take_store = store;
    if (engine_open(&all, &engine, &fault) != STATUS_OK)
        ck_abort_msg("engine_open: %s", fault.detail);
    return engine;
}

struct engine *engines_open(const char *url, const struct engine_options *options)
{
    struct store *store;
    struct fault fault;

    if (store_open(url, true, &store, &fault) != STATUS_OK)
        ck_abort_msg("store_open: %s", fault.detail);
    return engines_open_store(store, options);
}

struct spec engines_spec(enum dtype dtype, const char *rule)
{
    struct spec spec;

    spec_init(&spec);
    spec.dtype = dtype;
    const struct optimizer *found = optimizer_find(rule, dtype);
    ck_assert_ptr_nonnull(found);
    spec_set_rule(&spec, found);
    return spec;
}

void engines_hyper(struct spec *spec, const char *name, double value)
{
    size_t index = optimizer_hyper(spec->rule, name);

    ck_assert_uint_lt(index, spec->rule->hyper_count);
    spec->hyper[index] = value;
}

struct buffer *engines_gradient(enum dtype wire, size_t count, uint64_t *random)
{
    struct buffer *buffer = buffer_new(count * dtype_size(wire));

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < count; i++) {
        double value = testing_normal(random);
        dtype_convert(wire, buffer->data + i * dtype_size(wire), DTYPE_F64, &value, 1);
    }
    return buffer;
}

struct buffer *engines_constant(size_t count, float value)
{
    struct buffer *buffer = buffer_new(count * sizeof value);

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < count; i++)
        memcpy(buffer->data + i * sizeof value, &value, sizeof value);
    return buffer;
}

enum status engines_try_create(struct engine *engine, const char *id, const struct spec *spec,
                               size_t count, struct session **out, bool *created,
                               struct fault *fault)
{
    struct layout *layout = layout_new();

    ck_assert_ptr_nonnull(layout);
    ck_assert_int_eq(layout_add(layout, "w", 1, 1, &count, fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, fault), STATUS_OK);
    enum status status = engines_try_create_of(engine, id, spec, layout, out, created, fault);
    layout_release(layout);
    return status;
}

enum status engines_try_create_of(struct engine *engine, const char *id, const struct spec *spec,
                                  struct layout *layout, struct session **out, bool *created,
                                  struct fault *fault)
{
    uint64_t random = hash_u64(id, strlen(id)) + layout->count;
    struct buffer *weights = engines_gradient(spec->dtype, layout->count, &random);
    struct session_request request = {.id = id, .spec = spec, .layout = layout, .weights = weights};
    enum status status = engine_create(engine, &request, out, created, fault);

    buffer_release(weights);
    return status;
}

struct session *engines_create(struct engine *engine, const char *id, const struct spec *spec,
                               size_t count)
{
    struct session *session;
    struct fault fault;
    bool created;

    if (engines_try_create(engine, id, spec, count, &session, &created, &fault) != STATUS_OK)
        ck_abort_msg("engine_create: %s", fault.detail);
    ck_assert(created);
    return session;
}

struct session *engines_find(struct engine *engine, const char *id)
{
    struct session *session;
    struct fault fault;

    if (engine_find(engine, "", id, &session, &fault) != STATUS_OK)
        ck_abort_msg("engine_find: %s", fault.detail);
    return session;
}

struct submission engines_submission(struct buffer *gradient, enum dtype wire)
{
    double nothing = (double)NAN;

    return (struct submission){.buffer = gradient,
                               .dtype = wire,
                               .loss = nothing,
                               .examples = 1,
                               .lr = nothing,
                               .momentum = nothing,
                               .beta1 = nothing,
                               .beta2 = nothing,
                               .payload = hash_bytes(gradient->data, gradient->size)};
}

enum status engines_submit(struct session *session, const struct submission *submission,
                           struct receipt *receipt, bool *replayed, struct fault *fault)
{
    struct outcome outcome;
    struct fault own;
    enum status status = session_submit(session, submission, &outcome, fault ? fault : &own);

    if (status != STATUS_OK)
        return status;
    revision_release(outcome.revision);
    if (receipt != NULL)
        *receipt = outcome.receipt;
    if (replayed != NULL)
        *replayed = outcome.replayed;
    return status;
}

struct receipt engines_step(struct session *session, uint64_t *random)
{
    struct buffer *gradient = engines_gradient(DTYPE_F32, session_layout(session)->count, random);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct receipt receipt = {0};
    struct fault fault;

    if (engines_submit(session, &submission, &receipt, NULL, &fault) != STATUS_OK)
        ck_abort_msg("session_submit: %s", fault.detail);
    buffer_release(gradient);
    return receipt;
}

void engines_steps(struct session *session, size_t count, uint64_t *random)
{
    for (size_t i = 0; i < count; i++)
        engines_step(session, random);
}

struct hyper_change {
    const char *name;
    double value;
};

static enum status change_hyper(void *context, struct spec *spec, struct fault *fault)
{
    const struct hyper_change *change = context;
    size_t index = optimizer_hyper(spec->rule, change->name);

    if (index == spec->rule->hyper_count)
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s has no %s", spec->rule->name,
                         change->name);
    spec->hyper[index] = change->value;
    return STATUS_OK;
}

enum status engines_try_patch(struct session *session, const char *name, double value,
                              struct fault *fault)
{
    return session_patch(session, change_hyper, &(struct hyper_change){name, value}, fault);
}

void engines_patch(struct session *session, const char *name, double value)
{
    struct fault fault;

    if (engines_try_patch(session, name, value, &fault) != STATUS_OK)
        ck_abort_msg("session_patch: %s", fault.detail);
}

struct session_view engines_view(struct session *session)
{
    struct session_view view;
    struct fault fault;

    if (session_view(session, false, &view, &fault) != STATUS_OK)
        ck_abort_msg("session_view: %s", fault.detail);
    return view;
}

struct digest engines_digest(struct session *session, bool ledger)
{
    size_t element = dtype_size(session->dtype), vector = session->layout->count * element;
    struct hash *hash = hash_new();
    struct packer packer = {0};
    struct fault fault;

    if (session_enter(session, &fault) != STATUS_OK)
        ck_abort_msg("session_enter: %s", fault.detail);
    pthread_mutex_lock(&session->mutex);
    const struct state *state = session->state;
    pack_u64(&packer, state->current->step);
    pack_u64(&packer, state->current->lineage);
    pack_u64(&packer, state->updates);
    for (size_t k = 0; k < SCALARS_MAX; k++)
        pack_f64(&packer, state->scalar[k]);
    pack_u64(&packer, state->base_count);
    pack_text(&packer, state->cursor);
    spec_pack(&packer, &session->spec);
    if (ledger) {
        receipt_pack(&packer, &state->last);
        struct ledger timeless = state->ledger;
        timeless.workers = malloc((timeless.worker_count + 1) * sizeof *timeless.workers);
        ck_assert_ptr_nonnull(timeless.workers);
        for (size_t i = 0; i < timeless.worker_count; i++) {
            timeless.workers[i] = state->ledger.workers[i];
            timeless.workers[i].seen_us = 0;
        }
        ledger_pack(&packer, &timeless);
        free(timeless.workers);
    }
    ck_assert(!packer.failed);
    hash_add(hash, packer.data, packer.used);
    hash_add(hash, state->current->weights->data, vector);
    if (state->current->average != NULL)
        hash_add(hash, state->current->average->data, vector);
    for (size_t i = 0; i < state->base_count; i++)
        hash_add(hash, state->base[i]->weights->data, vector);
    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (state->slot[k] != NULL)
            hash_add(hash, state->slot[k]->data, session->plan->slot_count[k] * element);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    packer_close(&packer);
    return hash_end(hash);
}

struct digest engines_hash(struct session *session)
{
    struct digest digest;
    struct moment moment;
    struct fault fault;

    if (session_hash(session, NULL, &moment, &digest, &fault) != STATUS_OK)
        ck_abort_msg("session_hash: %s", fault.detail);
    return digest;
}

void engines_rewind(struct session *session, uint64_t step)
{
    struct fault fault;

    if (session_rewind(session, &(struct moment_query){.step = step}, &fault) != STATUS_OK)
        ck_abort_msg("session_rewind: %s", fault.detail);
}

bool engines_await(bool (*done)(void *context), void *context, double seconds)
{
    uint64_t until = clock_monotonic_us() + (uint64_t)(seconds * 1e6);

    while (!done(context)) {
        if (clock_monotonic_us() > until)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return true;
}
