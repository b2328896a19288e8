/* A snapshot at rest: its record in a checkpoint's head, and one that comes from outside. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "service/session/advance.h"
#include "service/session/session.h"
#include "service/session/snapshot.h"

static void pack_digest(struct packer *packer, const struct digest *digest)
{
    pack_fixed(packer, digest->bytes, sizeof digest->bytes);
}

void snapshot_pack(struct packer *packer, const struct snapshot *snapshot)
{
    pack_u64(packer, snapshot->last);
    pack_u64(packer, snapshot->number);
    if (snapshot->number == 0)
        return;
    pack_u64(packer, snapshot->weights->step);
    pack_u64(packer, snapshot->weights->lineage);
    pack_u64(packer, snapshot->created_us);
    pack_u32(packer, snapshot->ready);
    pack_u64(packer, snapshot->workers_expected);
    pack_f64(packer, snapshot->examples_expected);
    pack_u64(packer, snapshot->workers);
    pack_f64(packer, snapshot->examples);
    pack_u64(packer, snapshot->arrivals);
    pack_u64(packer, snapshot->part_count);
    for (size_t i = 0; i < snapshot->part_count; i++) {
        pack_digest(packer, &snapshot->parts[i].name);
        pack_digest(packer, &snapshot->parts[i].worker);
        pack_digest(packer, &snapshot->parts[i].payload);
    }
}

static bool is_sound(const struct snapshot *s, uint64_t parts)
{
    return s->number <= s->last && parts <= SNAPSHOT_PARTS_MAX && s->workers <= parts &&
           (parts > 0 ? s->workers > 0 && s->examples > 0 && isfinite(s->examples)
                      : s->examples == 0 && !s->ready) &&
           (isnan(s->examples_expected) ||
            (s->examples_expected > 0 && isfinite(s->examples_expected)));
}

bool snapshot_unpack(struct unpacker *unpacker, struct snapshot *out)
{
    struct snapshot snapshot = {.last = 0};
    struct digest *to;

    *out = snapshot;
    if (unpacker->format < 4)
        return true;
    snapshot.last = unpack_u64(unpacker);
    snapshot.number = unpack_u64(unpacker);
    if (snapshot.number == 0 || unpacker->failed) {
        *out = snapshot;
        return !unpacker->failed;
    }
    uint64_t step = unpack_u64(unpacker), lineage = unpack_u64(unpacker);
    snapshot.created_us = unpack_u64(unpacker);
    snapshot.ready = unpack_u32(unpacker) != 0;
    snapshot.workers_expected = unpack_u64(unpacker);
    snapshot.examples_expected = unpack_f64(unpacker);
    snapshot.workers = unpack_u64(unpacker);
    snapshot.examples = unpack_f64(unpacker);
    snapshot.arrivals = unpack_u64(unpacker);
    uint64_t parts = unpack_u64(unpacker);
    unpacker->failed |= !is_sound(&snapshot, parts);
    if (unpacker->failed || (parts > 0 && !snapshot_reserve(&snapshot, parts)))
        return false;
    for (; snapshot.part_count < parts; snapshot.part_count++)
        for (int i = 0; i < 3; i++) {
            struct snapshot_part *part = &snapshot.parts[snapshot.part_count];
            to = i == 0 ? &part->name : i == 1 ? &part->worker : &part->payload;
            unpack_fixed(unpacker, to->bytes, sizeof to->bytes);
        }
    snapshot.weights = revision_new(0, false);
    if (unpacker->failed || snapshot.weights == NULL) {
        snapshot_drop(&snapshot);
        return false;
    }
    snapshot.weights->step = step;
    snapshot.weights->lineage = lineage;
    snapshot.weights->average_divisor = 1;
    *out = snapshot;
    return true;
}

enum status snapshot_make_room(struct snapshot *snapshot, enum dtype dtype, size_t count,
                               struct fault *fault)
{
    size_t size = count * dtype_size(dtype);

    if (snapshot->number == 0)
        return STATUS_OK;
    snapshot->weights->weights = buffer_new(size);
    if (!snapshot->ready)
        snapshot->sum = buffer_new(count * sizeof(double));
    if (!snapshot->ready && snapshot_shares_room(dtype) && snapshot->sum != NULL)
        snapshot->mean = buffer_retain(snapshot->sum);
    else
        snapshot->mean = buffer_new(size);
    if (snapshot->weights->weights != NULL && snapshot->mean != NULL &&
        (snapshot->ready || snapshot->sum != NULL))
        return STATUS_OK;
    return fault_set(fault, STATUS_INTERNAL, "", "out of memory for a snapshot");
}

/* --- numbers that stay finite --- */

/* So that SNAPSHOT_PARTS_MAX of them have a sum. */
#define SUM_MAX 1e300

bool snapshot_allows(enum dtype dtype, double norm, double examples, bool summed)
{
    double largest = dtype == DTYPE_F64 ? SUM_MAX : (double)FLT_MAX;

    return (summed ? norm : norm * examples) <= SUM_MAX && (!summed || norm / examples <= largest);
}

static enum status check_vector(const struct layout *layout, const char *member, enum dtype dtype,
                                const struct buffer *vector, double *norm, struct fault *fault)
{
    struct wire_gradient numbers = dense_gradient(vector->data, dtype, layout->count);
    struct measure measure = {.rescale = 1, .clip_value = HUGE_VAL};

    advances(dtype)->measure(&numbers, &measure);
    *norm = measure.norm;
    return check_finite(layout, member, measure.bad_count, measure.bad_index, STATUS_INVALID_FIELD,
                        fault);
}

enum status snapshot_check(const struct snapshot *snapshot, const struct layout *layout,
                           enum dtype dtype, struct fault *fault)
{
    double norm;
    enum status status;

    if (snapshot->number == 0)
        return STATUS_OK;
    status = check_vector(layout, "snapshot", dtype, snapshot->weights->weights, &norm, fault);
    if (status != STATUS_OK)
        return status;
    if (snapshot->ready)
        return check_vector(layout, "snapshot_gradient", dtype, snapshot->mean, &norm, fault);
    status = check_vector(layout, "snapshot_sum", DTYPE_F64, snapshot->sum, &norm, fault);
    if (status == STATUS_OK && norm > 0 && !snapshot_allows(dtype, norm, snapshot->examples, true))
        status = fault_set(fault, STATUS_INVALID_FIELD, "/snapshot_sum",
                           "the sum of the snapshot's shards is too large for its examples");
    return status;
}
