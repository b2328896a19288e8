/* The engine over a store that fails: nothing half done, nobody else harmed, nothing acknowledged
 * lost. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { LANES = 1031, THREADS = 4, STEPS = 60 };

static struct faulty_store *store;
static struct engine *engine;
static uint64_t numbers;

static void set_up(void)
{
    log_set_level(LOG_OFF); /* faults are what is wanted */
    store = faulty_store_new();
    engine = engines_open_store(faulty_store_open(store), NULL);
    numbers = testing_seed() ^ 0xFA;
}

static void tear_down(void)
{
    engine_close(engine);
    faulty_store_free(store);
}

/* What another process would find. */
static void reopen(void)
{
    engine_close(engine);
    engine = engines_open_store(faulty_store_open(store), NULL);
}

static void fail_writes(unsigned verbs, unsigned skip, unsigned count, enum status status)
{
    faulty_store_plan(store, (struct faulty_plan){
                                 .verbs = verbs, .skip = skip, .count = count, .status = status});
}

static void heal(void)
{
    faulty_store_plan(store, (struct faulty_plan){0});
}

static enum status try_step(struct session *session, struct fault *fault)
{
    struct buffer *gradient = engines_gradient(DTYPE_F32, LANES, &numbers);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    enum status status = engines_submit(session, &submission, NULL, NULL, fault);

    buffer_release(gradient);
    return status;
}

/* After an I/O error writes work again once the store was checked, which takes a second. */
static bool steps_again(void *context)
{
    return try_step(context, NULL) == STATUS_OK;
}

static const struct failure {
    enum faulty_verb verb;
    enum status status;
} failures[] = {
    {FAULTY_BEGIN, STATUS_STORAGE_FULL},        {FAULTY_BEGIN, STATUS_STORAGE_FAILED},
    {FAULTY_EVENT_APPEND, STATUS_STORAGE_FULL}, {FAULTY_EVENT_APPEND, STATUS_STORAGE_FAILED},
    {FAULTY_COMMIT, STATUS_STORAGE_FULL},       {FAULTY_COMMIT, STATUS_STORAGE_FAILED},
};

START_TEST(a_failed_commit_changes_nothing)
{
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct session *session = engines_create(engine, "one", &spec, LANES);
    struct fault fault;

    engines_steps(session, 3, &numbers);
    struct digest before = engines_digest(session, true);
    fail_writes((unsigned)failures[_i].verb, 0, 1000, failures[_i].status);
    ck_assert_int_eq(try_step(session, &fault), failures[_i].status);
    ck_assert_int_ne(engine_ready(engine, &fault), STATUS_OK);
    ck_assert_int_ne(engines_try_patch(session, "lr", 0.5, &fault), STATUS_OK);
    ck_assert_digest_eq(engines_digest(session, true), before);
    ck_assert_uint_eq(engines_view(session).step, 3);
    ck_assert_uint_eq(engines_view(session).durable_step, 3);
    heal();
    ck_assert(engines_await(steps_again, session, 5));
    ck_assert_int_eq(engine_ready(engine, &fault), STATUS_OK);
    ck_assert_uint_eq(engines_view(session).step, 4);
    struct digest after = engines_digest(session, true);
    session_release(session);
    reopen();
    session = engines_find(engine, "one");
    ck_assert_digest_eq(engines_digest(session, true), after);
    session_release(session);
}
END_TEST

START_TEST(one_failure_in_a_group_is_nobody_elses)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, LANES);

    fail_writes(FAULTY_COMMIT, 0, 1,
                STATUS_STORAGE_FULL); /* the group; then each alone goes well */
    ck_assert_int_eq(try_step(session, NULL), STATUS_OK);
    ck_assert_uint_eq(faulty_store_failures(store), 1);
    session_release(session);
}
END_TEST

/* --- many clients --- */

struct client {
    struct session *session;
    size_t number;
    struct receipt receipts[STEPS];
    size_t failed;
    enum status unexpected;
};

static struct buffer *gradient_of(size_t client, size_t step)
{
    uint64_t random = testing_seed() ^ (1000 * client + step);

    return engines_gradient(DTYPE_F32, LANES, &random);
}

/* Repeats each step until it is acknowledged. */
static void *train(void *context)
{
    struct client *client = context;
    char name[32];

    snprintf(name, sizeof name, "w%zu", client->number);
    for (size_t i = 0; i < STEPS && client->unexpected == STATUS_OK;) {
        struct buffer *gradient = gradient_of(client->number, i);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        submission.worker = name;
        submission.seq = i + 1;
        enum status status =
            engines_submit(client->session, &submission, &client->receipts[i], NULL, NULL);
        buffer_release(gradient);
        if (status == STATUS_OK) {
            i++;
        } else if (status == STATUS_STORAGE_FULL || status == STATUS_STORAGE_FAILED) {
            client->failed++;
            if (status == STATUS_STORAGE_FAILED)
                usleep(10000);
        } else {
            client->unexpected = status;
        }
    }
    return NULL;
}

/* The acknowledged steps, once each, in the order of the receipts. */
static void assert_history(struct session *session, struct client *clients, size_t count)
{
    struct engine *twin = engines_open("memory:", NULL);
    struct session_view view = engines_view(session);
    struct session *copy = engines_create(twin, view.id, &view.spec, LANES);

    ck_assert_uint_eq(view.step, count * STEPS);
    for (uint64_t step = 1; step <= count * STEPS; step++) {
        size_t found = 0;
        for (size_t k = 0; k < count * STEPS; k++) {
            if (clients[k / STEPS].receipts[k % STEPS].step != step)
                continue;
            struct buffer *gradient = gradient_of(clients[k / STEPS].number, k % STEPS);
            struct submission submission = engines_submission(gradient, DTYPE_F32);
            ck_assert_int_eq(engines_submit(copy, &submission, NULL, NULL, NULL), STATUS_OK);
            buffer_release(gradient);
            found++;
        }
        ck_assert_uint_eq(found, 1);
    }
    struct digest digest = engines_digest(copy, false);
    ck_assert_digest_eq(engines_digest(session, false), digest);
    session_release(copy);
    engine_close(twin);
}

START_TEST(steps_behind_a_failed_one_fail_and_are_taken_once)
{
    static struct client clients[THREADS];
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct session *session = engines_create(engine, "one", &spec, LANES);
    pthread_t threads[THREADS];
    size_t failed = 0;

    faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_EVENT_APPEND | FAULTY_COMMIT,
                                                  .count = _i == 0 ? 200 : 4,
                                                  .one_in = _i == 0 ? 3 : 40,
                                                  .status = _i == 0 ? STATUS_STORAGE_FULL
                                                                    : STATUS_STORAGE_FAILED});
    for (size_t i = 0; i < THREADS; i++) {
        clients[i] = (struct client){.session = session, .number = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, train, &clients[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(clients[i].unexpected, STATUS_OK);
        failed += clients[i].failed;
    }
    ck_assert_uint_gt(failed, 0);
    heal();
    assert_history(session, clients, THREADS);
    session_release(session);
    reopen();
    session = engines_find(engine, "one");
    assert_history(session, clients, THREADS);
    session_release(session);
}
END_TEST

START_TEST(no_other_session_suffers)
{
    static struct client clients[2];
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *ill = engines_create(engine, "ill", &spec, LANES);
    struct session *well = engines_create(engine, "well", &spec, LANES);
    pthread_t threads[2];

    faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_EVENT_APPEND,
                                                  .session = ill->key,
                                                  .count = 100,
                                                  .one_in = 2,
                                                  .status = STATUS_STORAGE_FULL});
    for (size_t i = 0; i < 2; i++) {
        clients[i] = (struct client){.session = i == 0 ? ill : well, .number = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, train, &clients[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(clients[i].unexpected, STATUS_OK);
    }
    ck_assert_uint_gt(clients[0].failed, 0);
    ck_assert_uint_eq(clients[1].failed, 0);
    assert_history(ill, &clients[0], 1);
    assert_history(well, &clients[1], 1);
    session_release(ill);
    session_release(well);
}
END_TEST

/* --- durable later --- */

static bool is_durable(void *context)
{
    struct session_view view = engines_view(context);

    return view.durable_step == view.step;
}

static bool is_refused(void *context)
{
    return try_step(context, NULL) != STATUS_OK;
}

START_TEST(interval_steps_are_kept_until_they_can_be_written)
{
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct fault fault;

    spec.durability.mode = DURABILITY_INTERVAL;
    spec.durability.seconds = 0.02;
    struct session *session = engines_create(engine, "one", &spec, LANES);
    fail_writes(FAULTY_ALL, 0, UINT32_MAX, _i == 0 ? STATUS_STORAGE_FULL : STATUS_STORAGE_FAILED);
    ck_assert_int_eq(try_step(session, &fault), STATUS_OK); /* not told yet */
    ck_assert(engines_await(is_refused, session, 2));       /* told now */
    ck_assert_uint_eq(engines_view(session).durable_step, 0);
    uint64_t acknowledged = engines_view(session).step;
    ck_assert_uint_ge(acknowledged, 1);
    ck_assert_int_ne(engines_try_patch(session, "lr", 0.5, &fault), STATUS_OK);
    struct digest digest = engines_digest(session, false);
    usleep(1200000); /* it is tried again meanwhile */
    heal();
    ck_assert(engines_await(is_durable, session, 5));
    ck_assert_uint_eq(engines_view(session).step, acknowledged);
    ck_assert_digest_eq(engines_digest(session, false), digest);
    ck_assert(engines_await(steps_again, session, 5));
    ck_assert_int_eq(engines_try_patch(session, "lr", 0.5, &fault), STATUS_OK);
    engines_steps(session, 3, &numbers);
    digest = engines_digest(session, false);
    session_release(session);
    reopen();
    session = engines_find(engine, "one");
    ck_assert_digest_eq(engines_digest(session, false), digest);
    session_release(session);
}
END_TEST

START_TEST(a_failed_checkpoint_costs_no_step)
{
    struct spec spec = engines_spec(DTYPE_F32, "adam");

    spec.durability.mode = DURABILITY_CHECKPOINT;
    spec.durability.steps = 3;
    struct session *session = engines_create(engine, "one", &spec, LANES);
    fail_writes(_i == 0 ? FAULTY_CHECKPOINT_PUT : FAULTY_CHECKPOINT_SEAL, 0, UINT32_MAX,
                STATUS_STORAGE_FULL);
    engines_steps(session, 5, &numbers);
    ck_assert_uint_eq(engines_view(session).durable_step, 0);
    heal();
    struct receipt receipt = engines_step(session, &numbers);
    ck_assert_uint_eq(receipt.step, 6);
    ck_assert_uint_eq(receipt.durable_step, 6);
    struct digest digest = engines_digest(session, false);
    session_release(session);
    reopen();
    session = engines_find(engine, "one");
    ck_assert_uint_eq(engines_view(session).step, 6);
    ck_assert_digest_eq(engines_digest(session, false), digest);
    session_release(session);
}
END_TEST

/* --- the sweep: the n-th write fails, for every n --- */

static bool again(enum status status)
{
    if (status == STATUS_OK)
        return false;
    ck_assert_int_eq(status, STATUS_STORAGE_FULL);
    return true;
}

/* Each action until it works; how often one did not. */
static unsigned run_script(void)
{
    struct spec spec = engines_spec(DTYPE_F64, "sgd");
    struct session *one = NULL, *two = NULL;
    unsigned failed = 0;
    struct fault fault;
    bool created;

    spec.durability.mode = DURABILITY_STEP;
    while (again(engines_try_create(engine, "one", &spec, LANES, &one, &created, &fault)))
        failed++;
    while (again(engines_try_create(engine, "two", &spec, LANES, &two, &created, &fault)))
        failed++;
    for (size_t i = 0; i < 6; i++) {
        struct buffer *gradient = gradient_of(7, i);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        submission.worker = "w";
        submission.seq = i + 1;
        struct digest before = engines_digest(one, true);
        while (again(engines_submit(one, &submission, NULL, NULL, &fault))) {
            failed++;
            ck_assert_digest_eq(engines_digest(one, true), before);
        }
        while (again(engines_submit(two, &submission, NULL, NULL, &fault)))
            failed++;
        buffer_release(gradient);
        if (i == 2)
            while (again(engines_try_patch(one, "momentum", 0.9, &fault))) {
                failed++;
                ck_assert(engines_view(one).spec.hyper[HYPER_OWN] == 0);
            }
    }
    struct buffer *weights = engines_constant(2 * LANES, 1);
    struct outcome outcome;
    while (again(session_replace(one, weights, &(struct precondition){0}, &outcome, &fault)))
        failed++;
    revision_release(outcome.revision);
    buffer_release(weights);
    while (again(session_delete(engine, two, &fault))) {
        failed++;
        ck_assert_uint_eq(engines_view(two).step, 6);
    }
    session_release(one);
    session_release(two);
    return failed;
}

START_TEST(whichever_write_fails_the_end_is_the_same)
{
    struct digest reference = {0};
    unsigned told = 0;

    for (unsigned n = 0;; n++) {
        tear_down();
        set_up();
        /* Twice: the group, then the item alone. n = 0 is the run without a failure. */
        if (n > 0)
            fail_writes(FAULTY_ALL, n - 1, 2, STATUS_STORAGE_FULL);
        told += run_script();
        unsigned failed = faulty_store_failures(store);
        heal();
        struct session *session = engines_find(engine, "one"), *none;
        struct fault fault;
        struct digest digest = engines_digest(session, true);
        session_release(session);
        if (n == 0)
            reference = digest;
        ck_assert_digest_eq(digest, reference);
        reopen();
        session = engines_find(engine, "one");
        ck_assert_digest_eq(engines_digest(session, true), reference);
        session_release(session);
        ck_assert_int_eq(engine_find(engine, "", "two", &none, &fault), STATUS_SESSION_NOT_FOUND);
        if (n > 0 && failed == 0) {
            ck_assert_uint_gt(n, 40); /* so many writes has the script */
            break;
        }
    }
    ck_assert_uint_gt(told, 20);
}
END_TEST

Suite *suite_engine_faults(void);
Suite *suite_engine_faults(void)
{
    Suite *suite = suite_create("engine_faults");
    TCase *faults = tcase_create("a store that fails");

    tcase_add_checked_fixture(faults, set_up, tear_down);
    tcase_set_timeout(faults, 60);
    tcase_add_loop_test(faults, a_failed_commit_changes_nothing, 0,
                        (int)(sizeof failures / sizeof *failures));
    tcase_add_test(faults, one_failure_in_a_group_is_nobody_elses);
    tcase_add_loop_test(faults, steps_behind_a_failed_one_fail_and_are_taken_once, 0, 2);
    tcase_add_test(faults, no_other_session_suffers);
    tcase_add_loop_test(faults, interval_steps_are_kept_until_they_can_be_written, 0, 2);
    tcase_add_loop_test(faults, a_failed_checkpoint_costs_no_step, 0, 2);
    tcase_add_test(faults, whichever_write_fails_the_end_is_the_same);
    suite_add_tcase(suite, faults);
    return suite;
}
