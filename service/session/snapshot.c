/* SVRG's snapshot: what events make of it. */
#include "service/session/snapshot.h"
#include "service/session/event.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"
#include "service/session/advance.h"
#include "service/session/estimate.h"
#include "service/session/session.h"

/* Examples may be fractions, whose sum is rounded. */
#define EXAMPLES_ENOUGH (1 - 1e-9)

void snapshot_drop(struct snapshot *snapshot)
{
    uint64_t last = snapshot->last;

    free(snapshot->parts);
    revision_release(snapshot->weights);
    buffer_release(snapshot->sum);
    buffer_release(snapshot->mean);
    *snapshot = (struct snapshot){.last = last};
}

void snapshot_fit(struct snapshot *snapshot, const struct spec *spec)
{
    if (!spec->svrg.on)
        snapshot_drop(snapshot);
}

uint64_t snapshot_bytes(const struct spec *spec, size_t count)
{
    uint64_t element = dtype_size(spec->dtype),
             mean = snapshot_shares_room(spec->dtype) ? 0 : element;

    return spec->svrg.on ? count * (element + sizeof(double) + mean) : 0;
}

struct snapshot_view snapshot_view(const struct snapshot *snapshot)
{
    struct snapshot_view view = {.examples_expected = (double)NAN};

    if (snapshot->number == 0)
        return view;
    return (struct snapshot_view){.number = snapshot->number,
                                  .step = snapshot->weights->step,
                                  .lineage = snapshot->weights->lineage,
                                  .created_us = snapshot->created_us,
                                  .ready = snapshot->ready,
                                  .workers_expected = snapshot->workers_expected,
                                  .examples_expected = snapshot->examples_expected,
                                  .workers = snapshot->workers,
                                  .parts = snapshot->part_count,
                                  .examples = snapshot->examples};
}

enum status snapshot_collecting(const struct snapshot *snapshot, struct fault *fault)
{
    char waits[96] = "it is closed";

    if (snapshot->workers_expected > 0)
        snprintf(waits, sizeof waits, "%llu workers have sent theirs; %llu have",
                 (unsigned long long)snapshot->workers_expected,
                 (unsigned long long)snapshot->workers);
    else if (!isnan(snapshot->examples_expected))
        snprintf(waits, sizeof waits, "%g examples are in; %g are", snapshot->examples_expected,
                 snapshot->examples);
    fault_set(fault, STATUS_SNAPSHOT_COLLECTING, "",
              "the full gradient of snapshot %llu is not complete until %s. Steps without a pair "
              "are taken meanwhile",
              (unsigned long long)snapshot->number, waits);
    return fault_extra(fault, "current_snapshot", snapshot->number);
}

struct digest snapshot_name(const char *worker, const char *part, uint64_t arrival)
{
    struct {
        char worker[WORKER_BYTES + 8], part[WORKER_BYTES + 8];
        uint64_t arrival;
    } name;

    memset(&name, 0, sizeof name);
    memcpy(name.worker, worker, strlen(worker));
    memcpy(name.part, part, strlen(part));
    name.arrival = worker[0] == '\0' && part[0] == '\0' ? arrival : 0;
    return hash_bytes(&name, sizeof name);
}

static bool same(const struct digest *a, const struct digest *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

const struct snapshot_part *snapshot_find(const struct snapshot *snapshot,
                                          const struct digest *name)
{
    for (size_t i = 0; i < snapshot->part_count; i++)
        if (same(&snapshot->parts[i].name, name))
            return &snapshot->parts[i];
    return NULL;
}

/* --- events --- */

bool snapshot_is_event(uint32_t kind)
{
    return kind >= EVENT_SNAPSHOT && kind <= EVENT_SNAPSHOT_CLOSE;
}

void snapshot_room_release(struct snapshot_room *room)
{
    revision_release(room->weights);
    buffer_release(room->sum);
    buffer_release(room->mean);
    *room = (struct snapshot_room){.weights = NULL};
}

enum status snapshot_room(enum dtype dtype, size_t count, struct snapshot_room *out,
                          struct fault *fault)
{
    *out = (struct snapshot_room){.weights = revision_new(0, false),
                                  .sum = buffer_new_zeroed(count * sizeof(double))};
    if (out->sum != NULL)
        out->mean = snapshot_shares_room(dtype) ? buffer_retain(out->sum)
                                                : buffer_new(count * dtype_size(dtype));
    if (out->weights != NULL && out->mean != NULL)
        return STATUS_OK;
    snapshot_room_release(out);
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a snapshot");
}

void snapshot_begin(struct snapshot *snapshot, const struct revision *current,
                    const struct event *event, struct snapshot_room *take_room)
{
    struct snapshot_room *room = take_room;

    snapshot_drop(snapshot);
    room->weights->step = current->step;
    room->weights->lineage = current->lineage;
    room->weights->average_divisor = 1;
    room->weights->weights = buffer_retain(current->weights);
    *snapshot = (struct snapshot){.last = event->snapshot,
                                  .number = event->snapshot,
                                  .created_us = event->created_us,
                                  .workers_expected = event->snapshot_workers,
                                  .examples_expected = event->snapshot_examples,
                                  .weights = room->weights,
                                  .sum = room->sum,
                                  .mean = room->mean};
    *room = (struct snapshot_room){.weights = NULL};
}

bool snapshot_reserve(struct snapshot *snapshot, size_t more)
{
    size_t capacity = snapshot->part_capacity == 0 ? 8 : snapshot->part_capacity;

    while (capacity < snapshot->part_count + more)
        capacity *= 2;
    if (capacity == snapshot->part_capacity)
        return true;
    struct snapshot_part *parts = realloc(snapshot->parts, capacity * sizeof *parts);
    if (parts == NULL)
        return false;
    snapshot->parts = parts;
    snapshot->part_capacity = capacity;
    return true;
}

static struct snapshot_part part_of(const struct event *event)
{
    struct snapshot_part part = {.name = snapshot_name(event->worker, event->part, event->seq),
                                 .payload = event->payload};

    part.worker = event->worker[0] == '\0' ? part.name : snapshot_name(event->worker, "", 0);
    return part;
}

static bool is_new_worker(const struct snapshot *snapshot, const struct snapshot_part *part)
{
    for (size_t i = 0; i < snapshot->part_count; i++)
        if (same(&snapshot->parts[i].worker, &part->worker))
            return false;
    return true;
}

enum snapshot_effect snapshot_effect(const struct snapshot *snapshot, const struct event *event)
{
    if (snapshot->number == 0 || event->snapshot != snapshot->number || snapshot->ready)
        return SNAPSHOT_STAYS;
    if (event->kind == EVENT_SNAPSHOT_CLOSE)
        return snapshot->part_count > 0 ? SNAPSHOT_CLOSES : SNAPSHOT_STAYS;
    struct snapshot_part part = part_of(event);
    if ((snapshot_find(snapshot, &part.name) != NULL && !BUG(shard_twice)) ||
        snapshot->part_count >= SNAPSHOT_PARTS_MAX)
        return SNAPSHOT_STAYS;
    bool all = snapshot->workers_expected > 0 &&
               snapshot->workers + is_new_worker(snapshot, &part) >= snapshot->workers_expected;
    if (!isnan(snapshot->examples_expected))
        all = snapshot->examples + event->examples >= EXAMPLES_ENOUGH * snapshot->examples_expected;
    return all ? SNAPSHOT_ADDS_LAST : SNAPSHOT_ADDS;
}

static bool adds(enum snapshot_effect effect)
{
    return effect == SNAPSHOT_ADDS || effect == SNAPSHOT_ADDS_LAST;
}

void snapshot_compute(struct snapshot *snapshot, enum snapshot_effect effect,
                      const struct event *event, enum dtype dtype,
                      const struct wire_gradient *gradient)
{
    const struct estimate_functions *work = estimates(dtype);
    double *sum = snapshot->sum == NULL ? NULL : (double *)(void *)snapshot->sum->data;
    double examples = snapshot->examples + (adds(effect) ? event->examples : 0);
    size_t count =
        snapshot->weights == NULL ? 0 : snapshot->weights->weights->size / dtype_size(dtype);

    if (effect == SNAPSHOT_STAYS)
        return;
    if (adds(effect))
        work->add(gradient, event->summed ? 1 : event->examples, sum);
    if (effect != SNAPSHOT_ADDS)
        work->mean(sum, BUG(mean_of_shards) ? 1 : examples, snapshot->mean->data, count);
}

void snapshot_publish(struct snapshot *snapshot, enum snapshot_effect effect,
                      const struct event *event)
{
    if (event->seq > snapshot->arrivals && event->snapshot == snapshot->number)
        snapshot->arrivals = event->seq;
    if (effect == SNAPSHOT_STAYS)
        return;
    if (adds(effect)) {
        struct snapshot_part part = part_of(event);
        PRE(snapshot->part_count < snapshot->part_capacity);
        snapshot->workers += is_new_worker(snapshot, &part);
        snapshot->examples += event->examples;
        snapshot->parts[snapshot->part_count++] = part;
    }
    if (effect == SNAPSHOT_ADDS)
        return;
    snapshot->ready = true;
    buffer_release(snapshot->sum);
    snapshot->sum = NULL;
}

/* The shard in a body, if that is what was accepted. */
static enum status read_shard(const struct plan *plan, const struct event *event,
                              struct buffer *body, struct wire_gradient *out, struct fault *fault)
{
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};
    enum status status = event_check_body(plan, event, body, fault);

    if (status != STATUS_OK)
        return status;
    *out = event_gradient(plan->layout, event, body, 0);
    if (!isfinite(event->examples) || event->examples <= 0)
        return fault_set(fault, STATUS_STORAGE_FAILED, "",
                         "the journal has a shard of snapshot %llu that is damaged",
                         (unsigned long long)event->snapshot);
    advances(plan->rule->dtype)->measure(out, &measure);
    if (measure.bad_count == 0 && event_norm_holds(event, measure.norm))
        return STATUS_OK;
    return fault_set(
        fault, STATUS_HISTORY_MISMATCH, "",
        "a shard of snapshot %llu in the journal is not the one that was accepted: its "
        "norm is another; restore the folder from a backup",
        (unsigned long long)event->snapshot);
}

enum status snapshot_replay(struct state *state, const struct plan *plan, const struct event *event,
                            struct buffer *body, struct fault *fault)
{
    struct snapshot *snapshot = &state->snapshot;
    struct wire_gradient gradient = {.data = NULL};
    enum dtype dtype = plan->rule->dtype;
    struct snapshot_room room;
    enum status status;

    if (event->kind == EVENT_SNAPSHOT) {
        if (event->snapshot <= snapshot->last || event->snapshot >= COUNT_MAX ||
            event->step != state->current->step)
            return fault_set(fault, STATUS_STORAGE_FAILED, "",
                             "the journal does not fit the state: snapshot %llu of step %llu at "
                             "step %llu, after snapshot %llu",
                             (unsigned long long)event->snapshot, (unsigned long long)event->step,
                             (unsigned long long)state->current->step,
                             (unsigned long long)snapshot->last);
        status = snapshot_room(dtype, plan->layout->count, &room, fault);
        if (status == STATUS_OK)
            snapshot_begin(snapshot, state->current, event, &room);
        return status;
    }
    if (event->kind == EVENT_SHARD &&
        (status = read_shard(plan, event, body, &gradient, fault)) != STATUS_OK)
        return status;
    if (!snapshot_reserve(snapshot, 1))
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    enum snapshot_effect effect = snapshot_effect(snapshot, event);
    snapshot_compute(snapshot, effect, event, dtype, &gradient);
    snapshot_publish(snapshot, effect, event);
    return STATUS_OK;
}

bool snapshot_due(const struct snapshot *snapshot, const struct spec *spec, uint64_t step)
{
    uint64_t from = snapshot->number == 0 ? 0 : snapshot->weights->step;

    return spec->svrg.on && spec->svrg.update_freq > 0 &&
           (step - from) % spec->svrg.update_freq == 0;
}
