/* SVRG's snapshots at the engine, against plain loops: sums and means, steps with pairs, what is
 * refused, and what comes back after a restart at every event, a rewind, a fork, an export. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/log.h"
#include "service/session/estimate.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/packings.h"
#include "tests/lib/testing.h"

enum { COUNT = 1031, PARTS = 5 };
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F64};
static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static const char *url;
static struct engine *engine;
static uint64_t numbers;

static void set_up(void)
{
    log_set_level(LOG_OFF);
    engine = engines_open("memory:", NULL);
    numbers = testing_seed() ^ 0x5A;
}

static void set_up_folder(void)
{
    log_set_level(LOG_OFF);
    url = testing_folder();
    engine = engines_open(url, NULL);
    numbers = testing_seed() ^ 0x5B;
}

static void tear_down(void)
{
    engine_close(engine);
}

static struct spec svrg_spec(enum dtype dtype, const char *rule)
{
    struct spec spec = engines_spec(dtype, rule);

    spec.svrg.on = true;
    spec.svrg.coefficient = 1;
    return spec;
}

/* --- verbs in a line each --- */

static struct snapshot_view make(struct session *session, uint64_t workers, double examples)
{
    struct snapshot_view view;
    struct fault fault;

    if (session_snapshot(session, workers, examples, &view, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot: %s", fault.detail);
    return view;
}

static struct snapshot_view look(struct session *session)
{
    struct snapshot_view view;
    struct fault fault;

    if (session_snapshot_view(session, 0, &view, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot_view: %s", fault.detail);
    return view;
}

static struct shard shard_of(struct buffer *gradient, enum dtype wire, double examples,
                             const char *worker, const char *part)
{
    return (struct shard){.buffer = gradient,
                          .dtype = wire,
                          .examples = examples,
                          .worker = worker,
                          .part = part,
                          .payload = hash_bytes(gradient->data, gradient->size)};
}

static enum status try_add(struct session *session, uint64_t number, const struct shard *shard,
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
static enum status add_random(struct session *session, uint64_t number, double examples,
                              const char *worker, const char *part)
{
    struct buffer *gradient = engines_gradient(DTYPE_F32, session_layout(session)->count, &numbers);
    struct shard shard = shard_of(gradient, DTYPE_F32, examples, worker, part);
    enum status status = try_add(session, number, &shard, NULL);

    buffer_release(gradient);
    return status;
}

static enum status close_it(struct session *session, uint64_t number)
{
    struct snapshot_view view;
    struct fault fault;

    return session_snapshot_close(session, number, &view, &fault);
}

/* A snapshot that is ready, of so many random shards. */
static uint64_t make_ready(struct session *session, size_t parts)
{
    uint64_t number = make(session, 0, (double)NAN).number;

    for (size_t i = 0; i < parts; i++)
        ck_assert_int_eq(add_random(session, number, (double)(i + 1), NULL, NULL), STATUS_OK);
    ck_assert_int_eq(close_it(session, number), STATUS_OK);
    return number;
}

static struct buffer *mean_of(struct session *session)
{
    struct buffer *mean;
    struct fault fault;

    if (session_snapshot_gradient(session, 0, &mean, &fault) != STATUS_OK)
        ck_abort_msg("session_snapshot_gradient: %s", fault.detail);
    return mean;
}

static struct revision *weights_now(struct session *session)
{
    struct revision *revision;
    struct fault fault;

    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    return revision;
}

static struct submission pair_of(struct buffer *gradient, struct buffer *pair, enum dtype wire,
                                 uint64_t number)
{
    struct submission submission = engines_submission(gradient, wire);

    submission.snapshot = number;
    submission.pair = pair;
    return submission;
}

static enum status try_pair(struct session *session, uint64_t number, struct receipt *receipt,
                            struct fault *fault)
{
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct buffer *pair = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct submission submission = pair_of(gradient, pair, DTYPE_F32, number);
    enum status status = engines_submit(session, &submission, receipt, NULL, fault);

    buffer_release(gradient);
    buffer_release(pair);
    return status;
}

/* --- numbers, by loops of their own --- */

/* Element i of a vector on the wire, as the session sees it. */
static double element(const struct buffer *vector, enum dtype wire, enum dtype own, size_t i)
{
    double value, seen;
    float narrow;

    dtype_convert(DTYPE_F64, &value, wire, vector->data + i * dtype_size(wire), 1);
    narrow = (float)value;
    seen = own == DTYPE_F32 ? (double)narrow : value;
    return seen;
}

static double rounded(double value, enum dtype own)
{
    volatile float narrow = (float)value;

    return own == DTYPE_F32 ? (double)narrow : value;
}

START_TEST(the_mean_is_that_of_plain_loops)
{
    enum dtype own = dtypes[_i % 2], wire = wires[_i / 2 % 4];
    static const size_t counts[] = {1, 8191, 8193, 3 * 65536 + 17};
    size_t count = counts[_i / 8];
    struct spec spec = svrg_spec(own, "sgd");
    struct session *session = engines_create(engine, "s", &spec, count);
    double *sum = calloc(count, sizeof *sum), total = 0;
    uint64_t number = make(session, PARTS, (double)NAN).number;
    char worker[] = "w0";

    for (size_t k = 0; k < PARTS; k++, worker[1]++) {
        struct buffer *gradient = engines_gradient(wire, count, &numbers);
        struct shard shard =
            shard_of(gradient, wire, 1 + 99 * testing_uniform(&numbers), worker, NULL);
        shard.summed = k % 2 == 1;
        total += shard.examples;
        for (size_t i = 0; i < count; i++) {
            double g = element(gradient, wire, own, i);
            sum[i] += shard.summed ? g : shard.examples * g;
        }
        ck_assert(!look(session).ready);
        ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_OK);
        buffer_release(gradient);
    }
    struct snapshot_view view = look(session);
    ck_assert(view.ready && view.parts == PARTS && view.workers == PARTS && view.examples == total);
    struct buffer *mean = mean_of(session);
    for (size_t i = 0; i < count; i++)
        if (element(mean, own, own, i) != rounded(sum[i] / total, own))
            ck_abort_msg("element %zu is %.17g, not %.17g", i, element(mean, own, own, i),
                         sum[i] / total);
    buffer_release(mean);
    session_release(session);
    free(sum);
}
END_TEST

START_TEST(an_estimate_is_that_of_plain_loops)
{
    enum dtype own = dtypes[_i % 2], wire = wires[_i / 2 % 4];
    size_t count = _i / 8 == 0 ? 3 * 65536 + 17 : 1;
    double coefficient = _i % 3 == 0 ? 1 : testing_uniform(&numbers);
    struct buffer *gradient = engines_gradient(wire, count, &numbers);
    struct buffer *pair = engines_gradient(wire, count, &numbers);
    struct buffer *mean = engines_gradient(own, count, &numbers);
    struct buffer *out = buffer_new(count * dtype_size(own));
    struct wire_gradient g = dense_gradient(gradient->data, wire, count);
    struct wire_gradient p = dense_gradient(pair->data, wire, count);

    estimates(own)->correct(&g, &p, mean->data, coefficient, out->data);
    for (size_t i = 0; i < count; i++) {
        double away = element(pair, wire, own, i) - element(mean, own, own, i);
        double d = element(gradient, wire, own, i) - coefficient * away;
        if (element(out, own, own, i) != rounded(d, own))
            ck_abort_msg("element %zu is %.17g, not %.17g", i, element(out, own, own, i), d);
    }
    buffer_release(gradient);
    buffer_release(pair);
    buffer_release(mean);
    buffer_release(out);
}
END_TEST

/* Over any rule: a session that is sent pairs is one that is sent the estimates. */
START_TEST(a_pair_is_a_step_with_its_estimate)
{
    static const char *const rules[] = {"sgd", "momentum", "adam", "lamb", "muon", "ftrl"};
    enum dtype own = dtypes[_i % 2];
    struct spec spec = svrg_spec(own, rules[_i / 2]);
    spec.svrg.coefficient = 0.75;
    spec.gradient.clip_norm = 20;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct session *twin = engines_create(engine, "t", &spec, COUNT);
    struct revision *start = weights_now(session);
    struct fault fault;
    struct outcome outcome;

    /* The same weights for both. */
    ck_assert_int_eq(
        session_replace(session, start->weights, &(struct precondition){0}, &outcome, &fault),
        STATUS_OK);
    revision_release(outcome.revision);
    ck_assert_int_eq(
        session_replace(twin, start->weights, &(struct precondition){0}, &outcome, &fault),
        STATUS_OK);
    revision_release(outcome.revision);
    revision_release(start);
    for (int round = 0; round < 3; round++) {
        uint64_t number = make_ready(session, 2);
        struct buffer *mean = mean_of(session);
        for (int step = 0; step < 4; step++) {
            struct receipt one, other;
            enum dtype wire = wires[step];
            struct buffer *gradient = engines_gradient(wire, COUNT, &numbers);
            struct buffer *pair = engines_gradient(wire, COUNT, &numbers);
            struct buffer *estimate = buffer_new(COUNT * dtype_size(own));
            for (size_t i = 0; i < COUNT; i++) {
                double d = element(gradient, wire, own, i) -
                           0.75 * (element(pair, wire, own, i) - element(mean, own, own, i));
                dtype_convert(own, estimate->data + i * dtype_size(own), DTYPE_F64, &d, 1);
            }
            struct submission submission = pair_of(gradient, pair, wire, number);
            submission.dry_run = true;
            ck_assert_int_eq(engines_submit(session, &submission, &other, NULL, &fault), STATUS_OK);
            submission.dry_run = false;
            ck_assert_int_eq(engines_submit(session, &submission, &one, NULL, &fault), STATUS_OK);
            ck_assert(other.grad_norm == one.grad_norm && other.param_norm == one.param_norm);
            ck_assert_uint_eq(one.snapshot, number);
            submission = engines_submission(estimate, own);
            ck_assert_int_eq(engines_submit(twin, &submission, &other, NULL, &fault), STATUS_OK);
            ck_assert_uint_eq(other.snapshot, 0);
            ck_assert(one.grad_norm == other.grad_norm && one.param_norm == other.param_norm);
            buffer_release(gradient);
            buffer_release(pair);
            buffer_release(estimate);
        }
        buffer_release(mean);
    }
    ck_assert_digest_eq(engines_digest(session, false), engines_digest(twin, false));
    session_release(session);
    session_release(twin);
}
END_TEST

static void check_replay(struct session *session);

/* --- when it is ready, what it takes --- */

START_TEST(a_part_counts_once)
{
    struct spec spec = svrg_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make(session, 0, 10).number;
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct buffer *another = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct shard shard = shard_of(gradient, DTYPE_F32, 2, "w", "a");
    struct shard other = shard_of(another, DTYPE_F32, 2, "w", "a");
    bool replayed;

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(try_add(session, number, &shard, &replayed), STATUS_OK);
        ck_assert_int_eq(replayed, i > 0);
        ck_assert_int_eq(try_add(session, number, &other, NULL), STATUS_IDEMPOTENCY_MISMATCH);
        ck_assert_uint_eq(look(session).parts, 1);
    }
    other.part = "b"; /* another part, and another worker of the same part */
    ck_assert_int_eq(try_add(session, number, &other, &replayed), STATUS_OK);
    other.part = "a";
    other.worker = "v";
    ck_assert_int_eq(try_add(session, number, &other, &replayed), STATUS_OK);
    other.worker = NULL;
    other.part = "w";
    ck_assert_int_eq(try_add(session, number, &other, &replayed), STATUS_OK);
    ck_assert(!replayed);
    ck_assert(!look(session).ready);
    ck_assert_uint_eq(look(session).workers, 3);
    other.part = NULL; /* without a name each is new; the fifth makes it ready */
    ck_assert_int_eq(try_add(session, number, &other, &replayed), STATUS_OK);
    ck_assert(!replayed);
    struct snapshot_view view = look(session);
    ck_assert(view.ready && view.parts == 5 && view.examples == 10);
    ck_assert_int_eq(try_add(session, number, &other, NULL), STATUS_SNAPSHOT_CLOSED);
    ck_assert_int_eq(try_add(session, number, &shard, &replayed), STATUS_OK);
    ck_assert(replayed);
    buffer_release(gradient);
    buffer_release(another);
    session_release(session);
}
END_TEST

START_TEST(announced_workers_make_it_ready)
{
    struct spec spec = svrg_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make(session, 3, (double)NAN).number;

    ck_assert_int_eq(add_random(session, number, 1, "a", "1"), STATUS_OK);
    ck_assert_int_eq(add_random(session, number, 1, "a", "2"), STATUS_OK);
    ck_assert_int_eq(add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert(!look(session).ready);
    ck_assert_int_eq(add_random(session, number, 1, NULL, NULL), STATUS_OK);
    ck_assert(look(session).ready);
    ck_assert_uint_eq(look(session).workers, 3);
    session_release(session);
}
END_TEST

START_TEST(what_came_may_be_all)
{
    struct spec spec = svrg_spec(DTYPE_F64, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make(session, 3, (double)NAN).number;

    ck_assert_int_eq(close_it(session, number), STATUS_INVALID_REQUEST);
    ck_assert_int_eq(add_random(session, number, 0.125, NULL, "x"), STATUS_OK);
    ck_assert_int_eq(close_it(session, number + 1), STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_int_eq(close_it(session, number), STATUS_OK);
    ck_assert(look(session).ready);
    ck_assert_int_eq(close_it(session, number), STATUS_OK);
    ck_assert_int_eq(add_random(session, number, 1, NULL, "y"), STATUS_SNAPSHOT_CLOSED);
    session_release(session);
}
END_TEST

START_TEST(a_new_snapshot_replaces_the_old)
{
    struct spec spec = svrg_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t first = make_ready(session, 2), second;
    struct revision *frozen, *now;
    struct fault fault;
    struct snapshot_view view;
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &numbers), *mean;
    struct shard shard = shard_of(gradient, DTYPE_F32, 7, "w", "a");

    engines_steps(session, 2, &numbers);
    second = make(session, 1, (double)NAN).number;
    ck_assert_uint_eq(second, first + 1);
    engines_steps(session, 3, &numbers);
    view = look(session);
    ck_assert(view.step == 2 && !view.ready && view.parts == 0);
    ck_assert_int_eq(session_snapshot_view(session, first, &view, &fault),
                     STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(fault.detail, "taken its place"));
    ck_assert_int_eq(try_add(session, first, &shard, NULL), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(close_it(session, first), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(session_snapshot_gradient(session, second, &mean, &fault),
                     STATUS_SNAPSHOT_COLLECTING);
    ck_assert_int_eq(session_snapshot_weights(session, second, &frozen, &fault), STATUS_OK);
    now = weights_now(session);
    ck_assert_uint_eq(frozen->step, 2);
    ck_assert_mem_ne(frozen->weights->data, now->weights->data, COUNT * sizeof(float));
    /* Of one shard the mean is the shard, whatever was collected before. */
    ck_assert_int_eq(try_add(session, second, &shard, NULL), STATUS_OK);
    mean = mean_of(session);
    ck_assert_mem_eq(mean->data, gradient->data, COUNT * sizeof(float));
    buffer_release(mean);
    buffer_release(gradient);
    revision_release(frozen);
    revision_release(now);
    session_release(session);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *plain = engines_create(engine, "plain", &spec, COUNT);
    spec = svrg_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct snapshot_view view;
    struct receipt receipt;
    struct fault fault;

    ck_assert_int_eq(session_snapshot(plain, 0, (double)NAN, &view, &fault), STATUS_INVALID_FIELD);
    ck_assert_int_eq(session_snapshot_view(plain, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_int_eq(try_pair(plain, 1, &receipt, &fault), STATUS_INVALID_FIELD);
    ck_assert_int_eq(try_pair(session, 1, &receipt, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    uint64_t number = make(session, 1, (double)NAN).number;
    ck_assert_int_eq(try_pair(session, number, &receipt, &fault), STATUS_SNAPSHOT_COLLECTING);
    engines_steps(session, 1, &numbers); /* those without a pair are taken */
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct shard shard = shard_of(gradient, DTYPE_F32, 1, "w", NULL);
    float bad = _i % 2 == 0 ? NAN : INFINITY, good;
    memcpy(&good, gradient->data + 40, sizeof good);
    memcpy(gradient->data + 40, &bad, sizeof bad);
    ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_NONFINITE_GRADIENT);
    memcpy(gradient->data + 40, &good, sizeof good);
    shard.summed = true; /* whose mean is beyond a float */
    shard.examples = 1e-300;
    ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_NONFINITE_GRADIENT);
    ck_assert_uint_eq(look(session).parts, 0);
    shard.summed = false;
    ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_OK);
    ck_assert_int_eq(try_pair(session, number + 1, &receipt, &fault), STATUS_SNAPSHOT_STALE);
    ck_assert_str_eq(fault.extra_name, "current_snapshot");
    ck_assert_int_eq(try_pair(session, number, &receipt, &fault), STATUS_OK);
    struct submission submission = pair_of(gradient, gradient, DTYPE_F32, number);
    submission.delta = true;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_INVALID_FIELD);
    submission.delta = false;
    submission.form = FORM_TOPK;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_INVALID_FIELD);
    buffer_release(gradient);
    session_release(plain);
    session_release(session);
}
END_TEST

START_TEST(what_is_not_finite_of_a_pair_is_named)
{
    struct spec spec = svrg_spec(dtypes[_i % 2], "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make_ready(session, 1);
    struct buffer *good = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct buffer *bad = engines_gradient(DTYPE_F32, COUNT, &numbers);
    float infinite = INFINITY;
    struct fault fault;

    memcpy(bad->data + 17 * sizeof infinite, &infinite, sizeof infinite);
    struct submission submission = pair_of(bad, good, DTYPE_F32, number);
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_NONFINITE_GRADIENT);
    ck_assert_str_eq(fault.where, "/gradients/w");
    submission = pair_of(good, bad, DTYPE_F32, number);
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_NONFINITE_GRADIENT);
    ck_assert_str_eq(fault.where, "/snapshot_gradients/w");
    ck_assert_ptr_nonnull(strstr(fault.detail, "index 17"));
    buffer_release(good);
    buffer_release(bad);
    session_release(session);
}
END_TEST

/* Shards may come compressed: they count as the numbers that they stand for. */
START_TEST(a_compressed_shard_is_the_numbers_it_stands_for)
{
    enum gradient_form form = (enum gradient_form)(FORM_INT8 + _i);
    enum dtype own = dtypes[_i % 2];
    struct spec spec = svrg_spec(own, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct packing packing =
        packing_random(session_layout(session), form, DTYPE_F32, 0.5, testing_random(&numbers));
    struct buffer *packed = buffer_new(packing.gradient.size);
    struct buffer *dense = engines_gradient(DTYPE_F32, COUNT, &numbers);
    uint64_t number = make(session, 2, (double)NAN).number;

    memcpy(packed->data, packing.gradient.data, packing.gradient.size);
    struct shard shard = shard_of(packed, DTYPE_F32, 3, "a", NULL);
    shard.form = form;
    shard.size = packing.gradient.size;
    ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_OK);
    check_replay(session);
    shard = shard_of(dense, DTYPE_F32, 5, "b", NULL);
    ck_assert_int_eq(try_add(session, number, &shard, NULL), STATUS_OK);
    check_replay(session);
    struct buffer *mean = mean_of(session);
    for (size_t i = 0; i < COUNT; i++) {
        double sum = 3 * rounded(packing.values[i], own) + 5 * element(dense, DTYPE_F32, own, i);
        if (element(mean, own, own, i) != rounded(sum / 8, own))
            ck_abort_msg("form %d: element %zu", (int)form, i);
    }
    buffer_release(mean);
    buffer_release(dense);
    buffer_release(packed);
    packing_free(&packing);
    session_release(session);
}
END_TEST

START_TEST(a_repeated_pair_gets_its_receipt_under_a_newer_snapshot)
{
    struct spec spec = svrg_spec(DTYPE_F32, "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make_ready(session, 1);
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &numbers);
    struct submission submission = pair_of(gradient, gradient, DTYPE_F32, number);
    struct receipt first, again;
    struct fault fault;
    bool replayed;

    submission.key = "once";
    ck_assert_int_eq(engines_submit(session, &submission, &first, &replayed, &fault), STATUS_OK);
    make_ready(session, 1);
    ck_assert_int_eq(engines_submit(session, &submission, &again, &replayed, &fault), STATUS_OK);
    ck_assert(replayed && again.step == first.step && again.snapshot == number);
    submission.key = "twice";
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_SNAPSHOT_STALE);
    buffer_release(gradient);
    session_release(session);
}
END_TEST

START_TEST(a_snapshot_is_due_every_so_many_steps)
{
    struct spec spec = svrg_spec(DTYPE_F32, "sgd");
    spec.svrg.update_freq = 3;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t from = 0;

    for (uint64_t step = 1; step <= 20; step++) {
        struct receipt receipt = engines_step(session, &numbers);
        ck_assert(receipt.counts_due);
        ck_assert_int_eq(receipt.due, (step - from) % 3 == 0);
        if (step == 7) {
            make_ready(session, 1);
            from = step;
        }
    }
    session_release(session);
}
END_TEST

/* --- what comes back --- */

/* All of a state's snapshot. */
static struct digest digest_of(const struct state *state, const struct layout *layout,
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

static struct digest digest_now(struct session *session)
{
    struct fault fault;

    ck_assert_int_eq(session_enter(session, &fault), STATUS_OK);
    pthread_mutex_lock(&session->mutex);
    struct digest digest = digest_of(session->state, session->layout, session->dtype);
    pthread_mutex_unlock(&session->mutex);
    session_leave(session);
    return digest;
}

/* What a process that is started after a crash of now would have. */
static void check_replay(struct session *session)
{
    struct loaded loaded;
    struct fault fault;

    if (session_load(session, UINT64_MAX, &loaded, &fault) != STATUS_OK)
        ck_abort_msg("session_load: %s", fault.detail);
    ck_assert_digest_eq(digest_of(loaded.state, session->layout, session->dtype),
                        digest_now(session));
    state_free(loaded.state);
}

/* Events that the newest checkpoint has already change nothing when they are seen again. */
static void check_twice(struct session *session)
{
    struct replay replay;
    struct fault fault;
    struct event_place *place;

    ck_assert_int_eq(session_replay_start(session, session->checkpoints, &replay, &fault),
                     STATUS_OK);
    for (place = session->events; place != NULL; place = place->next)
        if ((snapshot_is_event(place->kind) || place->kind == EVENT_SPEC) &&
            place->lsn <= session->checkpoints->lsn && place->lineage == session->lineage)
            ck_assert_int_eq(session_replay_event(&replay, place, &fault), STATUS_OK);
    ck_assert_digest_eq(digest_of(replay.loaded.state, session->layout, session->dtype),
                        digest_now(session));
    session_replay_end(&replay);
}

static enum status set_svrg(void *context, struct spec *spec, struct fault *fault)
{
    (void)fault;
    spec->svrg.on = *(const bool *)context;
    return STATUS_OK;
}

/* Event k of a story of snapshots. */
static void tell(struct session *session, int k)
{
    struct fault fault;
    struct receipt receipt;
    uint64_t number = k == 0 ? 0 : look(session).number;
    static const bool off = false, on = true;

    switch (k) {
    case 0:
        make(session, 2, (double)NAN);
        break;
    case 1:
        ck_assert_int_eq(add_random(session, number, 3, "a", NULL), STATUS_OK);
        break;
    case 2:
        engines_steps(session, 1, &numbers);
        break;
    case 3:
        ck_assert_int_eq(add_random(session, number, 4, "b", "x"), STATUS_OK);
        break;
    case 4:
        ck_assert_int_eq(try_pair(session, number, &receipt, &fault), STATUS_OK);
        break;
    case 5:
        make(session, 0, (double)NAN);
        break;
    case 6:
    case 7: /* without names */
        ck_assert_int_eq(add_random(session, number, 1, NULL, NULL), STATUS_OK);
        break;
    case 8:
        ck_assert_int_eq(close_it(session, number), STATUS_OK);
        break;
    case 9:
        ck_assert_int_eq(try_pair(session, number, &receipt, &fault), STATUS_OK);
        break;
    case 10:
        ck_assert_int_eq(session_patch(session, set_svrg, (void *)(uintptr_t)&off, &fault),
                         STATUS_OK);
        ck_assert_int_eq(session_patch(session, set_svrg, (void *)(uintptr_t)&on, &fault),
                         STATUS_OK);
        ck_assert_uint_eq(make(session, 0, 5).number, number + 1); /* never a number again */
        break;
    default:
        ck_assert_int_eq(add_random(session, number, 2, "c", NULL), STATUS_OK);
        break;
    }
}
enum { STORY = 12 };

START_TEST(every_event_comes_back)
{
    struct spec spec = svrg_spec(dtypes[_i % 2], _i < 2 ? "sgd" : "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);

    for (int k = 0; k < STORY; k++) {
        tell(session, k);
        check_replay(session);
        if (_i < 2)
            continue;
        struct digest before = digest_now(session);
        session_release(session); /* with a checkpoint of each moment */
        engine_close(engine);
        engine = engines_open(url, NULL);
        session = engines_find(engine, "s");
        ck_assert_digest_eq(digest_now(session), before);
        check_twice(session);
    }
    session_release(session);
    /* The whole journal against the checkpoints. */
    struct verify_report report;
    struct store *store;
    struct fault fault;
    engine_close(engine);
    ck_assert_int_eq(store_inspect(url, &store, &fault), STATUS_OK);
    ck_assert_int_eq(engine_verify(store, NULL, &report, &fault), STATUS_OK);
    store_close(store);
    ck_assert_uint_eq(report.findings, 0);
    engine = engines_open(url, NULL);
}
END_TEST

START_TEST(a_rewind_brings_the_snapshot_of_then_back)
{
    struct spec spec = svrg_spec(dtypes[_i], "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make(session, 2, (double)NAN).number;
    struct moment_query query = {.step = 1};
    struct fault fault;

    ck_assert_int_eq(add_random(session, number, 3, "a", NULL), STATUS_OK);
    engines_steps(session, 1, &numbers); /* step 1: collecting */
    struct digest then = digest_now(session);
    ck_assert_int_eq(add_random(session, number, 3, "b", NULL), STATUS_OK);
    engines_steps(session, 1, &numbers);
    uint64_t last = make_ready(session, 2);
    engines_steps(session, 1, &numbers);
    ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
    struct snapshot_view view = look(session);
    ck_assert(view.number == number && !view.ready && view.parts == 1 && view.step == 0);
    pthread_mutex_lock(&session->mutex);
    ck_assert_uint_eq(session->state->snapshot.last, last);
    session->state->snapshot.last = number; /* but for the numbers, it is that of then */
    pthread_mutex_unlock(&session->mutex);
    ck_assert_digest_eq(digest_now(session), then);
    pthread_mutex_lock(&session->mutex);
    session->state->snapshot.last = last;
    pthread_mutex_unlock(&session->mutex);
    check_replay(session);
    ck_assert_int_eq(add_random(session, last, 3, "b", NULL), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(add_random(session, number, 3, "b", NULL), STATUS_OK);
    ck_assert(look(session).ready);
    check_replay(session);
    session_release(session);
    engine_close(engine);
    engine = engines_open(url, NULL);
    session = engines_find(engine, "s");
    ck_assert_uint_eq(make(session, 0, (double)NAN).number, last + 1);
    check_replay(session);
    session_release(session);
}
END_TEST

START_TEST(a_fork_keeps_it)
{
    struct spec spec = svrg_spec(dtypes[_i % 2], "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT), *child;
    struct fork_request request = {.id = "f", .state = FORK_KEEP};
    struct fork_outcome outcome;
    struct fault fault;
    struct receipt receipt;

    engines_steps(session, 2, &numbers);
    uint64_t number = make(session, 2, (double)NAN).number;
    ck_assert_int_eq(add_random(session, number, 3, "a", NULL), STATUS_OK);
    if (_i >= 2)
        ck_assert_int_eq(add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert_int_eq(session_fork(session, &request, &child, &outcome, &fault), STATUS_OK);
    ck_assert_digest_eq(digest_now(child), digest_now(session));
    check_replay(child);
    if (_i < 2)
        ck_assert_int_eq(add_random(child, number, 1, "b", NULL), STATUS_OK);
    ck_assert_int_eq(try_pair(child, number, &receipt, &fault), STATUS_OK);
    ck_assert_int_eq(look(session).ready, _i >= 2);
    session_release(child);
    request = (struct fork_request){.id = "r", .state = FORK_RESET};
    ck_assert_int_eq(session_fork(session, &request, &child, &outcome, &fault), STATUS_OK);
    struct snapshot_view view;
    ck_assert_int_eq(session_snapshot_view(child, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    session_release(child);
    session_release(session);
}
END_TEST

/* Out of the session into an image, and by its bytes into another session. */
START_TEST(an_export_carries_it)
{
    struct spec spec = svrg_spec(dtypes[_i % 2], "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT), *copy;
    struct image *image, *other;
    struct fault fault;
    bool created;

    engines_steps(session, 2, &numbers);
    uint64_t number = make(session, 2, (double)NAN).number;
    ck_assert_int_eq(add_random(session, number, 3, "a", NULL), STATUS_OK);
    if (_i >= 2)
        ck_assert_int_eq(add_random(session, number, 1, "b", NULL), STATUS_OK);
    engines_steps(session, 1, &numbers);
    ck_assert_int_eq(session_export(session, NULL, &image, &fault), STATUS_OK);
    ck_assert_int_eq(engine_image(engine, image->record, image->head, &other, &fault), STATUS_OK);
    ck_assert_uint_eq(other->vector_count, image->vector_count);
    for (size_t i = 0; i < image->vector_count; i++) {
        const struct image_vector *from = &image->vectors[i], *to = &other->vectors[i];
        ck_assert_str_eq(from->prefix, to->prefix);
        ck_assert_int_eq(from->dtype, to->dtype);
        memcpy(to->data->data, from->data->data, COUNT * dtype_size(from->dtype));
    }
    image_free(image);
    ck_assert_int_eq(engine_import(engine, "copy", other, &copy, &created, &fault), STATUS_OK);
    ck_assert_digest_eq(digest_now(copy), digest_now(session));
    check_replay(copy);
    if (_i < 2) {
        ck_assert_int_eq(add_random(copy, number, 1, "b", NULL), STATUS_OK);
        ck_assert(look(copy).ready);
    }
    session_release(copy);
    session_release(session);
}
END_TEST

/* --- failures and company --- */

START_TEST(a_failed_commit_adds_nothing)
{
    struct faulty_store *store = faulty_store_new();
    struct engine *own = engines_open_store(faulty_store_open(store), NULL);
    struct spec spec = svrg_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(own, "s", &spec, COUNT);
    struct faulty_plan full = {
        .verbs = FAULTY_EVENT_APPEND, .count = 1000, .status = STATUS_STORAGE_FULL};
    struct snapshot_view view;
    struct fault fault;

    faulty_store_plan(store, full);
    ck_assert_int_eq(session_snapshot(session, 2, (double)NAN, &view, &fault), STATUS_STORAGE_FULL);
    ck_assert_int_eq(session_snapshot_view(session, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    faulty_store_plan(store, (struct faulty_plan){0});
    uint64_t number = make(session, 2, (double)NAN).number;
    ck_assert_uint_eq(number, 1);
    ck_assert_int_eq(add_random(session, number, 1, "a", NULL), STATUS_OK);
    struct digest before = digest_now(session);
    faulty_store_plan(store, full);
    ck_assert_int_eq(add_random(session, number, 1, "b", NULL), STATUS_STORAGE_FULL);
    ck_assert_digest_eq(digest_now(session), before);
    faulty_store_plan(store, full);
    ck_assert_int_eq(close_it(session, number), STATUS_STORAGE_FULL);
    ck_assert_digest_eq(digest_now(session), before);
    faulty_store_plan(store, (struct faulty_plan){0});
    check_replay(session);
    ck_assert_int_eq(add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert(look(session).ready);
    check_replay(session);
    session_release(session);
    engine_close(own);
    faulty_store_free(store);
}
END_TEST

enum { CROWD = 6, EACH = 8 };
struct helper {
    struct session *session;
    uint64_t number, random;
    pthread_t thread;
    unsigned taken, closed, replayed;
};

/* Every worker sends its parts, each twice; steps go on beside. */
static void *help(void *context)
{
    struct helper *self = context;
    char worker[24], part[24];

    snprintf(worker, sizeof worker, "w%llu", (unsigned long long)(self->random % CROWD));
    for (int i = 0; i < 2 * EACH; i++) {
        struct buffer *gradient = engines_constant(COUNT, (float)(i / 2 + 1));
        struct shard shard = shard_of(gradient, DTYPE_F32, 1, worker, part);
        struct snapshot_view view;
        struct fault fault;
        bool replayed;
        snprintf(part, sizeof part, "%d", i / 2);
        enum status status =
            session_snapshot_add(self->session, self->number, &shard, &view, &replayed, &fault);
        self->closed += status == STATUS_SNAPSHOT_CLOSED;
        self->replayed += status == STATUS_OK && replayed;
        self->taken += status == STATUS_OK && !replayed;
        buffer_release(gradient);
    }
    return NULL;
}

START_TEST(a_crowd_is_counted_right)
{
    struct spec spec = svrg_spec(DTYPE_F64, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = make(session, 0, CROWD * EACH).number;
    struct helper helpers[2 * CROWD];
    unsigned taken = 0, replayed = 0, closed = 0;

    for (uint64_t i = 0; i < 2 * CROWD; i++) { /* two threads are the same worker */
        helpers[i] = (struct helper){.session = session, .number = number, .random = i};
        ck_assert_int_eq(pthread_create(&helpers[i].thread, NULL, help, &helpers[i]), 0);
    }
    engines_steps(session, 10, &numbers);
    for (size_t i = 0; i < 2 * CROWD; i++) {
        pthread_join(helpers[i].thread, NULL);
        taken += helpers[i].taken;
        replayed += helpers[i].replayed;
        closed += helpers[i].closed;
    }
    ck_assert_uint_eq(taken, CROWD * EACH);
    ck_assert_uint_eq(replayed, 3 * CROWD * EACH);
    ck_assert_uint_eq(closed, 0);
    struct snapshot_view view = look(session);
    ck_assert(view.ready && view.workers == CROWD && view.examples == CROWD * EACH);
    struct buffer *mean = mean_of(session);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_double_eq(element(mean, DTYPE_F64, DTYPE_F64, i), (EACH + 1) / 2.0);
    buffer_release(mean);
    check_replay(session);
    session_release(session);
}
END_TEST

Suite *suite_snapshots(void);

Suite *suite_snapshots(void)
{
    Suite *suite = suite_create("snapshots");
    TCase *sums = tcase_create("numbers"), *rest = tcase_create("verbs");
    TCase *past = tcase_create("past");

    tcase_add_checked_fixture(sums, set_up, tear_down);
    tcase_add_loop_test(sums, the_mean_is_that_of_plain_loops, 0, 32);
    tcase_add_loop_test(sums, an_estimate_is_that_of_plain_loops, 0, 16);
    tcase_add_loop_test(sums, a_pair_is_a_step_with_its_estimate, 0, 12);
    suite_add_tcase(suite, sums);
    tcase_add_checked_fixture(rest, set_up, tear_down);
    tcase_add_test(rest, a_part_counts_once);
    tcase_add_test(rest, announced_workers_make_it_ready);
    tcase_add_test(rest, what_came_may_be_all);
    tcase_add_test(rest, a_new_snapshot_replaces_the_old);
    tcase_add_loop_test(rest, what_cannot_be_is_refused, 0, 2);
    tcase_add_loop_test(rest, what_is_not_finite_of_a_pair_is_named, 0, 2);
    tcase_add_loop_test(rest, a_compressed_shard_is_the_numbers_it_stands_for, 0,
                        FORM_ROWS - FORM_INT8 + 1);
    tcase_add_test(rest, a_repeated_pair_gets_its_receipt_under_a_newer_snapshot);
    tcase_add_test(rest, a_snapshot_is_due_every_so_many_steps);
    tcase_add_loop_test(rest, a_fork_keeps_it, 0, 4);
    tcase_add_loop_test(rest, an_export_carries_it, 0, 4);
    tcase_add_test(rest, a_failed_commit_adds_nothing);
    tcase_add_test(rest, a_crowd_is_counted_right);
    suite_add_tcase(suite, rest);
    tcase_add_checked_fixture(past, set_up_folder, tear_down);
    tcase_add_loop_test(past, every_event_comes_back, 0, 4);
    tcase_add_loop_test(past, a_rewind_brings_the_snapshot_of_then_back, 0, 2);
    suite_add_tcase(suite, past);
    return suite;
}
