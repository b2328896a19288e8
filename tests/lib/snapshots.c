/* Snapshots for tests. */
#include "tests/lib/snapshots.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/replay.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

uint64_t snapshots_random;

struct spec snapshots_spec(enum dtype dtype, const char *rule)
{
    struct spec spec = engines_spec(dtype, rule);

    spec.svrg.on = true;
    spec.svrg.coefficient = 1;
    return spec;
}

struct snapshot_view snapshots_make(struct session *session, uint64_t workers, double examples)
{
    struct snapshot_view view;
    struct fault fault;

    if (session_snapshot(session, workers, examples, &view, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot: %s", fault.detail);
    return view;
}

struct snapshot_view snapshots_look(struct session *session)
{
    struct snapshot_view view;
    struct fault fault;

    if (session_snapshot_view(session, 0, &view, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot_view: %s", fault.detail);
    return view;
}

struct shard snapshots_shard(struct buffer *gradient, enum dtype wire, double examples,
                             const char *worker, const char *part)
{
    return (struct shard){.buffer = gradient,
                          .dtype = wire,
                          .examples = examples,
                          .worker = worker,
                          .part = part,
                          .payload = hash_bytes(gradient->data, gradient->size)};
}

enum status snapshots_try_add(struct session *session, uint64_t number, const struct shard *shard,
                              bool *replayed)
{
    struct snapshot_view view;
    struct fault fault;
    bool again;
    enum status status =
        session_snapshot_add(session, number, shard, &view, replayed ? replayed : &again, &fault);

    if (status != STATUS_OK)
        ck_assert_uint_gt(strlen(fault.detail), 10);
    return status;
}

/* A random shard in f32. */
enum status snapshots_add_random(struct session *session, uint64_t number, double examples,
                                 const char *worker, const char *part)
{
    struct buffer *gradient =
        engines_gradient(DTYPE_F32, session_layout(session)->count, &snapshots_random);
    struct shard shard = snapshots_shard(gradient, DTYPE_F32, examples, worker, part);
    enum status status = snapshots_try_add(session, number, &shard, NULL);

    buffer_release(gradient);
    return status;
}

enum status snapshots_close(struct session *session, uint64_t number)
{
    struct snapshot_view view;
    struct fault fault;

    return session_snapshot_close(session, number, &view, &fault);
}

/* A snapshot that is ready, of so many random shards. */
uint64_t snapshots_make_ready(struct session *session, size_t parts)
{
    uint64_t number = snapshots_make(session, 0, (double)NAN).number;

    for (size_t i = 0; i < parts; i++)
        ck_assert_int_eq(snapshots_add_random(session, number, (double)(i + 1), NULL, NULL),
                         STATUS_OK);
    ck_assert_int_eq(snapshots_close(session, number), STATUS_OK);
    return number;
}

struct buffer *snapshots_mean(struct session *session)
{
    struct buffer *mean;
    struct fault fault;

    if (session_snapshot_gradient(session, 0, &mean, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot_gradient: %s", fault.detail);
    return mean;
}

struct submission snapshots_pair(struct buffer *gradient, struct buffer *pair, enum dtype wire,
                                 uint64_t number)
{
    struct submission submission = engines_submission(gradient, wire);

    submission.snapshot = number;
    submission.pair = pair;
    return submission;
}

enum status snapshots_try_pair(struct session *session, uint64_t number, struct receipt *receipt,
                               struct fault *fault)
{
    struct buffer *gradient = engines_gradient(DTYPE_F32, SNAPSHOTS_COUNT, &snapshots_random);
    struct buffer *pair = engines_gradient(DTYPE_F32, SNAPSHOTS_COUNT, &snapshots_random);
    struct submission submission = snapshots_pair(gradient, pair, DTYPE_F32, number);
    enum status status = engines_submit(session, &submission, receipt, NULL, fault);

    buffer_release(gradient);
    buffer_release(pair);
    return status;
}

/* Element i of a vector on the wire, as the session sees it. */
double snapshots_element(const struct buffer *vector, enum dtype wire, enum dtype own, size_t i)
{
    double value, seen;
    float narrow;

    dtype_convert(DTYPE_F64, &value, wire, vector->data + i * dtype_size(wire), 1);
    narrow = (float)value;
    seen = own == DTYPE_F32 ? (double)narrow : value;
    return seen;
}

double snapshots_rounded(double value, enum dtype own)
{
    volatile float narrow = (float)value;

    return own == DTYPE_F32 ? (double)narrow : value;
}

/* All of a state's snapshot. */
struct digest snapshots_digest_of(const struct state *state, const struct layout *layout,
                                  enum dtype dtype)
{
    const struct snapshot *snapshot = &state->snapshot;
    size_t size = layout->count * dtype_size(dtype);
    struct hash *hash = hash_new();
    struct packer packer = {0};
    struct snapshot fields = *snapshot;

    fields.arrivals = 0; /* counts also what was refused */
    snapshot_pack(&packer, &fields);
    hash_add(hash, packer.data, packer.used);
    packer_close(&packer);
    hash_add(hash, state->current->weights->data, size);
    if (snapshot->number > 0) {
        ck_assert_uint_eq(snapshot->weights->weights->size, size);
        hash_add(hash, snapshot->weights->weights->data, size);
    }
    if (snapshot->number > 0 && snapshot->ready)
        hash_add(hash, snapshot->mean->data, size);
    else if (snapshot->number > 0)
        hash_add(hash, snapshot->sum->data, layout->count * sizeof(double));
    return hash_end(hash);
}

struct digest snapshots_digest(struct session *session)
{
    struct fault fault;

    ck_assert_int_eq(session_enter(session, &fault), STATUS_OK);
    pthread_mutex_lock(&session->mutex);
    struct digest digest = snapshots_digest_of(session->state, session->layout, session->dtype);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return digest;
}

/* What a process that is started after a crash of now would have. */
void snapshots_check_replay(struct session *session)
{
    struct loaded loaded;
    struct fault fault;

    if (session_load(session, UINT64_MAX, &loaded, &fault) != STATUS_OK)
        ck_abort_msg("session_load: %s", fault.detail);
    ck_assert_digest_eq(snapshots_digest_of(loaded.state, session->layout, session->dtype),
                        snapshots_digest(session));
    state_free(loaded.state);
}
