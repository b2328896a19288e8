/* SVRG's snapshots at the engine, against plain loops: sums and means, steps with pairs, what is
 * refused. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/log.h"
#include "service/session/estimate.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/packings.h"
#include "tests/lib/snapshots.h"
#include "tests/lib/testing.h"

enum { COUNT = SNAPSHOTS_COUNT, PARTS = 5 };
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F64};
static const enum dtype wires[] = {DTYPE_F64, DTYPE_F32, DTYPE_F16, DTYPE_BF16};

static struct engine *engine;

static void set_up(void)
{
    log_set_level(LOG_OFF);
    engine = engines_open("memory:", NULL);
    snapshots_random = testing_seed() ^ 0x5A;
}

static void tear_down(void)
{
    engine_close(engine);
}

/* --- verbs in a line each --- */

static struct revision *weights_now(struct session *session)
{
    struct revision *revision;
    struct fault fault;

    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    return revision;
}

/* --- numbers, by loops of their own --- */

START_TEST(the_mean_is_that_of_plain_loops)
{
    enum dtype own = dtypes[_i % 2], wire = wires[_i / 2 % 4];
    static const size_t counts[] = {1, 8191, 8193, 3 * 65536 + 17};
    size_t count = counts[_i / 8];
    struct spec spec = snapshots_spec(own, "sgd");
    struct session *session = engines_create(engine, "s", &spec, count);
    double *sum = calloc(count, sizeof *sum), total = 0;
    uint64_t number = snapshots_make(session, PARTS, (double)NAN).number;
    char worker[] = "w0";

    for (size_t k = 0; k < PARTS; k++, worker[1]++) {
        struct buffer *gradient = engines_gradient(wire, count, &snapshots_random);
        struct shard shard = snapshots_shard(
            gradient, wire, 1 + 99 * testing_uniform(&snapshots_random), worker, NULL);
        shard.summed = k % 2 == 1;
        total += shard.examples;
        for (size_t i = 0; i < count; i++) {
            double g = snapshots_element(gradient, wire, own, i);
            sum[i] += shard.summed ? g : shard.examples * g;
        }
        ck_assert(!snapshots_look(session).ready);
        ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_OK);
        buffer_release(gradient);
    }
    struct snapshot_view view = snapshots_look(session);
    ck_assert(view.ready && view.parts == PARTS && view.workers == PARTS && view.examples == total);
    struct buffer *mean = snapshots_mean(session);
    for (size_t i = 0; i < count; i++)
        if (snapshots_element(mean, own, own, i) != snapshots_rounded(sum[i] / total, own))
            ck_abort_msg("element %zu is %.17g, not %.17g", i, snapshots_element(mean, own, own, i),
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
    double coefficient = _i % 3 == 0 ? 1 : testing_uniform(&snapshots_random);
    struct buffer *gradient = engines_gradient(wire, count, &snapshots_random);
    struct buffer *pair = engines_gradient(wire, count, &snapshots_random);
    struct buffer *mean = engines_gradient(own, count, &snapshots_random);
    struct buffer *out = buffer_new(count * dtype_size(own));
    struct wire_gradient g = dense_gradient(gradient->data, wire, count);
    struct wire_gradient p = dense_gradient(pair->data, wire, count);

    estimates(own)->correct(&g, &p, mean->data, coefficient, out->data);
    for (size_t i = 0; i < count; i++) {
        double away = snapshots_element(pair, wire, own, i) - snapshots_element(mean, own, own, i);
        double d = snapshots_element(gradient, wire, own, i) - coefficient * away;
        if (snapshots_element(out, own, own, i) != snapshots_rounded(d, own))
            ck_abort_msg("element %zu is %.17g, not %.17g", i, snapshots_element(out, own, own, i),
                         d);
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
    struct spec spec = snapshots_spec(own, rules[_i / 2]);
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
        uint64_t number = snapshots_make_ready(session, 2);
        struct buffer *mean = snapshots_mean(session);
        for (int step = 0; step < 4; step++) {
            struct receipt one, other;
            enum dtype wire = wires[step];
            struct buffer *gradient = engines_gradient(wire, COUNT, &snapshots_random);
            struct buffer *pair = engines_gradient(wire, COUNT, &snapshots_random);
            struct buffer *estimate = buffer_new(COUNT * dtype_size(own));
            for (size_t i = 0; i < COUNT; i++) {
                double d = snapshots_element(gradient, wire, own, i) -
                           0.75 * (snapshots_element(pair, wire, own, i) -
                                   snapshots_element(mean, own, own, i));
                dtype_convert(own, estimate->data + i * dtype_size(own), DTYPE_F64, &d, 1);
            }
            struct submission submission = snapshots_pair(gradient, pair, wire, number);
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

/* --- when it is ready, what it takes --- */

START_TEST(a_part_counts_once)
{
    struct spec spec = snapshots_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make(session, 0, 10).number;
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    struct buffer *another = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    struct shard shard = snapshots_shard(gradient, DTYPE_F32, 2, "w", "a");
    struct shard other = snapshots_shard(another, DTYPE_F32, 2, "w", "a");
    bool replayed;

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(snapshots_try_add(session, number, &shard, &replayed), STATUS_OK);
        ck_assert_int_eq(replayed, i > 0);
        ck_assert_int_eq(snapshots_try_add(session, number, &other, NULL),
                         STATUS_IDEMPOTENCY_MISMATCH);
        ck_assert_uint_eq(snapshots_look(session).parts, 1);
    }
    other.part = "b"; /* another part, and another worker of the same part */
    ck_assert_int_eq(snapshots_try_add(session, number, &other, &replayed), STATUS_OK);
    other.part = "a";
    other.worker = "v";
    ck_assert_int_eq(snapshots_try_add(session, number, &other, &replayed), STATUS_OK);
    other.worker = NULL;
    other.part = "w";
    ck_assert_int_eq(snapshots_try_add(session, number, &other, &replayed), STATUS_OK);
    ck_assert(!replayed);
    ck_assert(!snapshots_look(session).ready);
    ck_assert_uint_eq(snapshots_look(session).workers, 3);
    other.part = NULL; /* without a name each is new; the fifth makes it ready */
    ck_assert_int_eq(snapshots_try_add(session, number, &other, &replayed), STATUS_OK);
    ck_assert(!replayed);
    struct snapshot_view view = snapshots_look(session);
    ck_assert(view.ready && view.parts == 5 && view.examples == 10);
    ck_assert_int_eq(snapshots_try_add(session, number, &other, NULL), STATUS_SNAPSHOT_CLOSED);
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, &replayed), STATUS_OK);
    ck_assert(replayed);
    buffer_release(gradient);
    buffer_release(another);
    session_release(session);
}
END_TEST

START_TEST(announced_workers_make_it_ready)
{
    struct spec spec = snapshots_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make(session, 3, (double)NAN).number;

    ck_assert_int_eq(snapshots_add_random(session, number, 1, "a", "1"), STATUS_OK);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, "a", "2"), STATUS_OK);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert(!snapshots_look(session).ready);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, NULL, NULL), STATUS_OK);
    ck_assert(snapshots_look(session).ready);
    ck_assert_uint_eq(snapshots_look(session).workers, 3);
    session_release(session);
}
END_TEST

START_TEST(what_came_may_be_all)
{
    struct spec spec = snapshots_spec(DTYPE_F64, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make(session, 3, (double)NAN).number;

    ck_assert_int_eq(snapshots_close(session, number), STATUS_INVALID_REQUEST);
    ck_assert_int_eq(snapshots_add_random(session, number, 0.125, NULL, "x"), STATUS_OK);
    ck_assert_int_eq(snapshots_close(session, number + 1), STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_int_eq(snapshots_close(session, number), STATUS_OK);
    ck_assert(snapshots_look(session).ready);
    ck_assert_int_eq(snapshots_close(session, number), STATUS_OK);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, NULL, "y"), STATUS_SNAPSHOT_CLOSED);
    session_release(session);
}
END_TEST

START_TEST(a_new_snapshot_replaces_the_old)
{
    struct spec spec = snapshots_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t first = snapshots_make_ready(session, 2), second;
    struct revision *frozen, *now;
    struct fault fault;
    struct snapshot_view view;
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &snapshots_random), *mean;
    struct shard shard = snapshots_shard(gradient, DTYPE_F32, 7, "w", "a");

    engines_steps(session, 2, &snapshots_random);
    second = snapshots_make(session, 1, (double)NAN).number;
    ck_assert_uint_eq(second, first + 1);
    engines_steps(session, 3, &snapshots_random);
    view = snapshots_look(session);
    ck_assert(view.step == 2 && !view.ready && view.parts == 0);
    ck_assert_int_eq(session_snapshot_view(session, first, &view, &fault),
                     STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(fault.detail, "taken its place"));
    ck_assert_int_eq(snapshots_try_add(session, first, &shard, NULL), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(snapshots_close(session, first), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(session_snapshot_gradient(session, second, &mean, &fault),
                     STATUS_SNAPSHOT_COLLECTING);
    ck_assert_int_eq(session_snapshot_weights(session, second, &frozen, &fault), STATUS_OK);
    now = weights_now(session);
    ck_assert_uint_eq(frozen->step, 2);
    ck_assert_mem_ne(frozen->weights->data, now->weights->data, COUNT * sizeof(float));
    /* Of one shard the mean is the shard, whatever was collected before. */
    ck_assert_int_eq(snapshots_try_add(session, second, &shard, NULL), STATUS_OK);
    mean = snapshots_mean(session);
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
    spec = snapshots_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct snapshot_view view;
    struct receipt receipt;
    struct fault fault;

    ck_assert_int_eq(session_snapshot(plain, 0, (double)NAN, &view, &fault), STATUS_INVALID_FIELD);
    ck_assert_int_eq(session_snapshot_view(plain, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    ck_assert_int_eq(snapshots_try_pair(plain, 1, &receipt, &fault), STATUS_INVALID_FIELD);
    ck_assert_int_eq(snapshots_try_pair(session, 1, &receipt, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    uint64_t number = snapshots_make(session, 1, (double)NAN).number;
    ck_assert_int_eq(snapshots_try_pair(session, number, &receipt, &fault),
                     STATUS_SNAPSHOT_COLLECTING);
    engines_steps(session, 1, &snapshots_random); /* those without a pair are taken */
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    struct shard shard = snapshots_shard(gradient, DTYPE_F32, 1, "w", NULL);
    float bad = _i % 2 == 0 ? NAN : INFINITY, good;
    memcpy(&good, gradient->data + 40, sizeof good);
    memcpy(gradient->data + 40, &bad, sizeof bad);
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_NONFINITE_GRADIENT);
    memcpy(gradient->data + 40, &good, sizeof good);
    shard.summed = true; /* whose mean is beyond a float */
    shard.examples = 1e-300;
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_NONFINITE_GRADIENT);
    ck_assert_uint_eq(snapshots_look(session).parts, 0);
    shard.summed = false;
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_OK);
    ck_assert_int_eq(snapshots_try_pair(session, number + 1, &receipt, &fault),
                     STATUS_SNAPSHOT_STALE);
    ck_assert_str_eq(fault.extra_name, "current_snapshot");
    ck_assert_int_eq(snapshots_try_pair(session, number, &receipt, &fault), STATUS_OK);
    struct submission submission = snapshots_pair(gradient, gradient, DTYPE_F32, number);
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
    struct spec spec = snapshots_spec(dtypes[_i % 2], "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make_ready(session, 1);
    struct buffer *good = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    struct buffer *bad = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    float infinite = INFINITY;
    struct fault fault;

    memcpy(bad->data + 17 * sizeof infinite, &infinite, sizeof infinite);
    struct submission submission = snapshots_pair(bad, good, DTYPE_F32, number);
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_NONFINITE_GRADIENT);
    ck_assert_str_eq(fault.where, "/gradients/w");
    submission = snapshots_pair(good, bad, DTYPE_F32, number);
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
    struct spec spec = snapshots_spec(own, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct packing packing = packing_random(session_layout(session), form, DTYPE_F32, 0.5,
                                            testing_random(&snapshots_random));
    struct buffer *packed = buffer_new(packing.gradient.size);
    struct buffer *dense = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    uint64_t number = snapshots_make(session, 2, (double)NAN).number;

    memcpy(packed->data, packing.gradient.data, packing.gradient.size);
    struct shard shard = snapshots_shard(packed, DTYPE_F32, 3, "a", NULL);
    shard.form = form;
    shard.size = packing.gradient.size;
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_OK);
    snapshots_check_replay(session);
    shard = snapshots_shard(dense, DTYPE_F32, 5, "b", NULL);
    ck_assert_int_eq(snapshots_try_add(session, number, &shard, NULL), STATUS_OK);
    snapshots_check_replay(session);
    struct buffer *mean = snapshots_mean(session);
    for (size_t i = 0; i < COUNT; i++) {
        double sum = 3 * snapshots_rounded(packing.values[i], own) +
                     5 * snapshots_element(dense, DTYPE_F32, own, i);
        if (snapshots_element(mean, own, own, i) != snapshots_rounded(sum / 8, own))
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
    struct spec spec = snapshots_spec(DTYPE_F32, "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make_ready(session, 1);
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &snapshots_random);
    struct submission submission = snapshots_pair(gradient, gradient, DTYPE_F32, number);
    struct receipt first, again;
    struct fault fault;
    bool replayed;

    submission.key = "once";
    ck_assert_int_eq(engines_submit(session, &submission, &first, &replayed, &fault), STATUS_OK);
    snapshots_make_ready(session, 1);
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
    struct spec spec = snapshots_spec(DTYPE_F32, "sgd");
    spec.svrg.update_freq = 3;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t from = 0;

    for (uint64_t step = 1; step <= 20; step++) {
        struct receipt receipt = engines_step(session, &snapshots_random);
        ck_assert(receipt.counts_due);
        ck_assert_int_eq(receipt.due, (step - from) % 3 == 0);
        if (step == 7) {
            snapshots_make_ready(session, 1);
            from = step;
        }
    }
    session_release(session);
}
END_TEST

Suite *suite_snapshots(void);

Suite *suite_snapshots(void)
{
    Suite *suite = suite_create("snapshots");
    TCase *sums = tcase_create("numbers"), *rest = tcase_create("verbs");

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
    suite_add_tcase(suite, rest);
    return suite;
}
