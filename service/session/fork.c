/* A fork: a session of its own that starts at a revision of another, with another configuration or
 * even another rule.
 *
 * State is carried over slot by slot: where the new rule declares a slot of the same name and
 * meaning, it is the same quantity and stays. Where one that the rule cannot do without would be
 * missing, nothing stays and all start fresh, and the rule's count of steps with them, for its bias
 * corrections are of the state. */
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/checkpoint.h"
#include "service/session/fork.h"
#include "service/session/past.h"
#include "service/session/replay.h"
#include "service/session/session.h"

enum { SCALAR_STEPS = 1 << 20 };

static void note_fate(struct fork_outcome *outcome, const char *name, enum fork_slot fate)
{
    outcome->slots[outcome->slot_count].name = name;
    outcome->slots[outcome->slot_count++].fate = fate;
}

/* The slot of the old rule that is the same quantity, or SLOTS_MAX. */
static size_t same_slot(const struct optimizer *old, const struct slot *slot)
{
    for (size_t k = 0; k < old->slot_count; k++)
        if (strcmp(old->slots[k].name, slot->name) == 0 &&
            strcmp(old->slots[k].meaning, slot->meaning) == 0 &&
            old->slots[k].extent == slot->extent)
            return k;
    return SLOTS_MAX;
}

/* Where slot k of the new rule comes from: a slot of the old one, or SLOTS_MAX. */
static size_t source_of(const struct fork *fork, const struct state *from, const struct plan *old,
                        size_t k)
{
    size_t same = same_slot(old->rule, &fork->spec.rule->slots[k]);

    return same < SLOTS_MAX && from->slot[same] != NULL &&
                   old->slot_count[same] == fork->plan->slot_count[k]
               ? same
               : SLOTS_MAX;
}

static bool has_slot(const struct fork *fork, size_t k)
{
    return fork->plan->slot_count[k] > 0 &&
           slot_needed(&fork->spec.rule->slots[k], fork->spec.hyper);
}

/* Whether the old state can go on: one moment that starts at nothing beside another that is
 * warm, or under a count of steps that is not its own, would make steps many times too long.
 * What is there only under some hyperparameters, or starts as the weights, may start at any
 * step. */
static bool goes_on(const struct fork *fork, const struct state *from, const struct plan *old)
{
    const struct optimizer *rule = fork->spec.rule;
    bool any = false, some = false;

    for (size_t k = 0; k < rule->slot_count; k++) {
        bool kept = source_of(fork, from, old, k) < SLOTS_MAX;
        if (!has_slot(fork, k))
            continue;
        if (!kept && rule->slots[k].needed == NULL && !rule->slots[k].starts_as_weights)
            return false;
        any = true;
        some |= kept;
    }
    return some || !any;
}

/* A scalar that the old rule does not have is as if the new one had been there from the
 * start: `begin` makes it, of steps so far back that none matters before them. */
static void carry_scalars(const struct fork *fork, const struct state *from,
                          const struct optimizer *old, struct state *to)
{
    const struct optimizer *rule = fork->spec.rule;
    uint64_t step = from->updates > SCALAR_STEPS ? from->updates - SCALAR_STEPS : 0;

    while (rule->begin != NULL && rule != old && step < from->updates)
        rule->begin(fork->spec.hyper, ++step, to->scalar);
    for (size_t k = 0; k < rule->scalar_count; k++)
        for (size_t i = 0; i < old->scalar_count; i++)
            if (strcmp(old->scalars[i].name, rule->scalars[k].name) == 0 &&
                strcmp(old->scalars[i].meaning, rule->scalars[k].meaning) == 0)
                to->scalar[k] = from->scalar[i];
}

/* Moves what stays from the old state into the new one. */
static void carry(struct fork *fork, struct state *from, const struct plan *old)
{
    const struct optimizer *rule = fork->spec.rule;
    bool keeps = fork->request->state == FORK_KEEP && goes_on(fork, from, old);
    struct fork_outcome *outcome = fork->outcome;
    struct state *to = fork->state;

    for (size_t k = 0; k < rule->slot_count; k++) {
        size_t source = keeps ? source_of(fork, from, old, k) : SLOTS_MAX;
        if (!has_slot(fork, k))
            continue;
        if (BUG(fork_shares_slots) && source < SLOTS_MAX && fork->parent->state != NULL) {
            buffer_release(from->slot[source]);
            from->slot[source] = buffer_retain(fork->parent->state->slot[source]);
        }
        if (source < SLOTS_MAX) {
            to->slot[k] = from->slot[source];
            from->slot[source] = NULL;
        }
        note_fate(outcome, rule->slots[k].name,
                  to->slot[k] != NULL ? FORK_SLOT_KEPT : FORK_SLOT_FRESH);
    }
    for (size_t k = 0; k < old->rule->slot_count; k++)
        if (from->slot[k] != NULL)
            note_fate(outcome, old->rule->slots[k].name, FORK_SLOT_DROPPED);
    if (!keeps)
        return;
    to->updates = from->updates;
    carry_scalars(fork, from, old->rule, to);
    if (BUG(drop_bases))
        return;
    memcpy(to->base, from->base, sizeof to->base);
    to->base_count = from->base_count; /* state_fit drops those that are too many */
    from->base_count = 0;
}

/* The average goes on where its count of updates does, or where it does not matter. */
static enum status carry_average(struct fork *fork, const struct state *from, struct fault *fault)
{
    struct revision *current = fork->state->current;
    const struct buffer *old = from->current->average;
    size_t size = fork->parent->layout->count * dtype_size(fork->spec.dtype);

    if (!fork->spec.ema.on)
        return STATUS_OK;
    if (old != NULL && (fork->state->updates == from->updates || !fork->spec.ema.debias))
        current->average = buffer_retain(from->current->average);
    else if ((current->average = buffer_new_zeroed(size)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for the average");
    current->average_divisor = spec_average_divisor(&fork->spec, fork->state->updates);
    return STATUS_OK;
}

static enum status build_state(struct fork *fork, struct loaded *loaded, struct fault *fault)
{
    struct session *parent = fork->parent;
    struct state *from = loaded->state;
    struct addition added = {.workspace = NULL};
    enum status status;

    if ((fork->state = state_new(parent->layout)) == NULL ||
        (fork->state->current = revision_new(0, false)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a fork");
    struct state *to = fork->state;
    to->current->step = from->current->step;
    to->current->weights = buffer_retain(from->current->weights);
    to->current->average_divisor = 1;
    state_start(to, fork->spec.rule);
    carry(fork, from, parent->plan);
    if (fork->request->state == FORK_KEEP) {
        to->norm_average = from->norm_average;
        to->norm_count = from->norm_count;
        to->snapshot = from->snapshot;
        from->snapshot = (struct snapshot){.number = 0};
        if (to->snapshot.number > 0)
            to->snapshot.weights->lineage = 0;
        snapshot_fit(&to->snapshot, &fork->spec);
    }
    if (from->cursor != NULL && (to->cursor = strdup(from->cursor)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a fork");
    if ((status = carry_average(fork, from, fault)) != STATUS_OK ||
        (status = state_lacks(to, fork->plan, &fork->spec, &added, fault)) != STATUS_OK)
        return status;
    state_fit(to, fork->plan, &fork->spec, &added);
    bool nothing = fork->spec.rule != loaded->spec.rule;
    for (size_t i = 0; i < fork->outcome->slot_count; i++)
        nothing &= fork->outcome->slots[i].fate != FORK_SLOT_KEPT;
    if (fork->request->state == FORK_RESET || nothing)
        fork->outcome->state = FORK_FRESH;
    else
        fork->outcome->state = fork->spec.rule == loaded->spec.rule ? FORK_KEPT : FORK_CONVERTED;
    return STATUS_OK;
}

/* --- the verb --- */

/* What was acknowledged may wait to be journaled: a replay wants it there. */
static enum status settle_parent(struct session *parent, struct fault *fault)
{
    enum status status = session_enter(parent, fault);

    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&parent->mutex);
    bool waits =
        parent->spec.durability.mode == DURABILITY_INTERVAL && parent->durable_step < parent->step;
    pthread_mutex_unlock(&parent->mutex);
    if (waits)
        status = session_save(parent, true, fault);
    session_leave(parent);
    return status;
}

static enum status configure(struct fork *fork, const struct loaded *loaded, struct fault *fault)
{
    const struct fork_request *request = fork->request;
    enum status status;

    fork->spec = loaded->spec;
    if (request->change != NULL &&
        (status = request->change(request->context, &fork->spec, fault)) != STATUS_OK)
        return status;
    PRE(fork->spec.dtype == loaded->spec.dtype);
    fork->norms_hold &= fork->spec.gradient.rescale == loaded->spec.gradient.rescale;
    return engine_plan(fork->parent->engine, &fork->spec, fork->parent->layout, &fork->plan, fault);
}

static enum status enrol(struct fork *fork, struct session **out, struct fault *fault)
{
    const struct session *parent = fork->parent;
    const struct owner unlimited = {.tenant = parent->tenant->name};
    const struct owner *owner = fork->request->owner;
    struct session_record record = {.created_us = clock_unix_us(),
                                    .spec = fork->spec,
                                    .layout = parent->layout,
                                    .parent_moment = fork->outcome->parent};
    struct packer packer = {0};
    bool created = false;

    PRE(owner == NULL || strcmp(owner->tenant, parent->tenant->name) == 0);
    memcpy(record.parent, parent->id, strlen(parent->id) + 1); /* of the same tenant */
    /* No request is the same again: not even this one, for the parent may have moved on. */
    pack_u64(&packer, record.created_us);
    pack_u64(&packer, (uint64_t)parent->key);
    pack_fixed(&packer, fork->outcome, sizeof *fork->outcome);
    bool packed = !packer.failed;
    if (packed)
        record.request = hash_bytes(packer.data, packer.used);
    packer_close(&packer);
    if (!packed)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    struct state *state = fork->state;
    fork->state = NULL;
    POINT(before_fork);
    return engine_adopt(fork->parent->engine, owner != NULL ? owner : &unlimited, fork->request->id,
                        &record, state, out, &created, fault);
}

static enum status run(struct fork *fork, struct loaded *loaded, struct session **out,
                       struct fault *fault)
{
    const struct revision *current = loaded->state->current;
    enum status status;

    fork->outcome->parent = (struct moment){current->lineage, current->step};
    if ((status = configure(fork, loaded, fault)) != STATUS_OK ||
        (status = build_state(fork, loaded, fault)) != STATUS_OK)
        return status;
    if (fork->request->replay && (status = fork_replay(fork, fault)) != STATUS_OK)
        return status;
    return enrol(fork, out, fault);
}

enum status session_fork(struct session *session, const struct fork_request *request,
                         struct session **out, struct fork_outcome *outcome, struct fault *fault)
{
    struct fork fork = {.parent = session, .request = request, .outcome = outcome};
    const struct moment_query *query = request->query;
    bool replays = request->replay && query != NULL;
    struct moment_query named;
    struct loaded loaded;
    enum status status = STATUS_OK;

    *outcome = (struct fork_outcome){.slot_count = 0};
    if (replays && (status = settle_parent(session, fault)) != STATUS_OK)
        return status;
    pthread_mutex_lock(&session->mutex);
    /* The events stay until they are replayed. */
    if ((status = session_start_reading(session, fault)) != STATUS_OK) {
        pthread_mutex_unlock(&session->mutex);
        return status;
    }
    if (replays) {
        /* A rewind may come before the revision is read: both are of the line as it is now. */
        named = (struct moment_query){true, query->has_lineage ? query->lineage : session->lineage,
                                      query->step};
        query = &named;
        status = fork_list_events(&fork, named.lineage, named.step, fault);
    }
    pthread_mutex_unlock(&session->mutex);
    if (status == STATUS_OK &&
        (status = session_enter_past(session, query, &loaded, fault)) == STATUS_OK) {
        status = run(&fork, &loaded, out, fault);
        session_leave_past(session, &loaded);
    }
    pthread_mutex_lock(&session->mutex);
    session_end_reading(session);
    pthread_mutex_unlock(&session->mutex);
    state_free(fork.state);
    plan_free(fork.plan);
    free(fork.events);
    free(fork.notes);
    return status;
}
