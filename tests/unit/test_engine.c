/* The engine, from create to delete: exactly once, preconditions, changes among running steps. Each
 * test runs over every kind of storage. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/tensor/layout.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { THREADS = 8, STEPS = 40, LANES = 1031 };

static struct engine *open_kind(int kind)
{
    char url[300] = "memory:";

    if (kind > 0)
        snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    return engines_open(url, NULL);
}

static uint64_t seeded(uint64_t constant)
{
    return testing_seed() ^ constant;
}

/* --- the registry --- */

START_TEST(sessions_are_listed_in_pages)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *page[3];
    struct fault fault;
    char id[32], after[SESSION_ID_BYTES + 1] = "";
    size_t seen = 0, pages = 0;
    bool more = true;

    for (int i = 6; i >= 0; i--) {
        snprintf(id, sizeof id, "s%d", i);
        session_release(engines_create(engine, id, &spec, 7));
    }
    for (; more; pages++) {
        size_t count = engine_list(engine, "", after, page, 3, &more);
        for (size_t i = 0; i < count; i++) {
            struct session_view view = engines_view(page[i]);
            snprintf(id, sizeof id, "s%zu", seen++);
            ck_assert_str_eq(view.id, id);
            strcpy(after, view.id);
            session_release(page[i]);
        }
    }
    ck_assert_uint_eq(seen, 7);
    ck_assert_uint_eq(pages, 3);
    struct session *none;
    ck_assert_int_eq(engine_find(engine, "", "s7", &none, &fault), STATUS_SESSION_NOT_FOUND);
    engine_close(engine);
}
END_TEST

START_TEST(the_same_request_again_is_the_same_session)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    struct session *first = engines_create(engine, "one", &spec, 7), *again = NULL;
    uint64_t random = seeded(1);
    struct fault fault;
    bool created = true;

    engines_step(first, &random); /* what it has become does not matter */
    ck_assert_int_eq(engines_try_create(engine, "one", &spec, 7, &again, &created, &fault),
                     STATUS_OK);
    ck_assert(!created);
    ck_assert_ptr_eq(again, first);
    session_release(again);
    engines_hyper(&spec, "lr", 0.5);
    ck_assert_int_eq(engines_try_create(engine, "one", &spec, 7, &again, &created, &fault),
                     STATUS_SESSION_EXISTS);
    session_release(first);
    engine_close(engine);
}
END_TEST

START_TEST(the_server_picks_an_id)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct layout *layout = layout_new();
    struct buffer *weights = engines_constant(1, 0);
    struct session_request request = {.spec = &spec, .layout = layout, .weights = weights};
    struct session *one, *two;
    struct fault fault;
    bool created;

    ck_assert_int_eq(layout_add(layout, "w", 1, 0, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(engine_create(engine, &request, &one, &created, &fault), STATUS_OK);
    ck_assert_int_eq(engine_create(engine, &request, &two, &created, &fault), STATUS_OK);
    struct session_view left = engines_view(one), right = engines_view(two);
    ck_assert_str_ne(left.id, right.id);
    ck_assert_mem_eq(left.id, "ses_", 4);
    ck_assert_uint_eq(strlen(left.id), 24);
    ck_assert(session_id_valid(left.id));
    session_release(one);
    session_release(two);
    layout_release(layout);
    buffer_release(weights);
    engine_close(engine);
}
END_TEST

/* --- exactly once --- */

static enum status submit_keyed(struct session *session, struct buffer *gradient, const char *key,
                                struct receipt *receipt, bool *replayed)
{
    struct submission submission = engines_submission(gradient, DTYPE_F32);

    submission.key = key;
    return engines_submit(session, &submission, receipt, replayed, NULL);
}

static enum status submit_seq(struct session *session, struct buffer *gradient, const char *worker,
                              uint64_t seq, struct receipt *receipt, bool *replayed,
                              struct fault *fault)
{
    struct submission submission = engines_submission(gradient, DTYPE_F32);

    submission.worker = worker;
    submission.seq = seq;
    return engines_submit(session, &submission, receipt, replayed, fault);
}

static bool same_receipt(const struct receipt *a, const struct receipt *b)
{
    return a->kind == b->kind && a->step == b->step && a->lineage == b->lineage &&
           a->durable_step == b->durable_step && a->base_step == b->base_step &&
           a->staleness == b->staleness && memcmp(&a->lr, &b->lr, 6 * sizeof(double)) == 0;
}

START_TEST(a_key_applies_once)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, LANES);
    uint64_t random = seeded(2);
    struct buffer *gradient = engines_gradient(DTYPE_F32, LANES, &random);
    struct buffer *other = engines_gradient(DTYPE_F32, LANES, &random);
    struct receipt first, again;
    bool replayed;

    ck_assert_int_eq(submit_keyed(session, gradient, "k", &first, &replayed), STATUS_OK);
    ck_assert(!replayed);
    engines_steps(session, 3, &random);
    struct digest before = engines_digest(session, true);
    ck_assert_int_eq(submit_keyed(session, gradient, "k", &again, &replayed), STATUS_OK);
    ck_assert(replayed);
    ck_assert(same_receipt(&first, &again));
    ck_assert_int_eq(submit_keyed(session, other, "k", &again, &replayed),
                     STATUS_IDEMPOTENCY_MISMATCH);
    ck_assert_digest_eq(engines_digest(session, true), before);
    buffer_release(gradient);
    buffer_release(other);
    session_release(session);
    engine_close(engine);
}
END_TEST

START_TEST(keys_live_for_a_thousand_steps_and_workers_for_ever)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, 7);
    uint64_t random = seeded(3);
    struct buffer *gradient = engines_gradient(DTYPE_F32, 7, &random);
    struct receipt first, worker, again;
    char key[32];
    bool replayed;

    ck_assert_int_eq(submit_keyed(session, gradient, "first", &first, &replayed), STATUS_OK);
    ck_assert_int_eq(submit_seq(session, gradient, "w", 1, &worker, &replayed, NULL), STATUS_OK);
    for (uint64_t step = 3; step <= 1000; step++) {
        snprintf(key, sizeof key, "%llu", (unsigned long long)step);
        ck_assert_int_eq(submit_keyed(session, gradient, key, &again, &replayed), STATUS_OK);
        ck_assert(!replayed && again.step == step);
    }
    ck_assert_int_eq(submit_keyed(session, gradient, "first", &again, &replayed), STATUS_OK);
    ck_assert(replayed && same_receipt(&first, &again));
    engines_step(session, &random); /* 1001: the key of step 1 is forgotten */
    ck_assert_int_eq(submit_keyed(session, gradient, "first", &again, &replayed), STATUS_OK);
    ck_assert(!replayed && again.step == 1002);
    ck_assert_int_eq(submit_keyed(session, gradient, "3", &again, &replayed), STATUS_OK);
    ck_assert(replayed ? again.step == 3 : again.step == 1003);
    ck_assert_msg(replayed, "step 3 is one of the last thousand of 1002");
    ck_assert_int_eq(submit_seq(session, gradient, "w", 1, &again, &replayed, NULL), STATUS_OK);
    ck_assert(replayed && same_receipt(&worker, &again));
    buffer_release(gradient);
    session_release(session);
    engine_close(engine);
}
END_TEST

START_TEST(workers_count_one_by_one)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, 1);
    uint64_t random = seeded(4);
    struct buffer *gradient = engines_gradient(DTYPE_F32, 1, &random);
    struct buffer *other = engines_gradient(DTYPE_F32, 1, &random);
    struct receipt second, again;
    struct fault fault;
    bool replayed;

    ck_assert_int_eq(submit_seq(session, gradient, "a", 2, &again, &replayed, &fault),
                     STATUS_SEQUENCE_GAP);
    ck_assert_uint_eq(fault.extra, 1);
    ck_assert_int_eq(submit_seq(session, gradient, "a", 1, &again, &replayed, &fault), STATUS_OK);
    ck_assert_int_eq(submit_seq(session, gradient, "a", 2, &second, &replayed, &fault), STATUS_OK);
    ck_assert_int_eq(submit_seq(session, other, "b", 1, &again, &replayed, &fault), STATUS_OK);
    ck_assert_int_eq(submit_seq(session, gradient, "a", 2, &again, &replayed, &fault), STATUS_OK);
    ck_assert(replayed && same_receipt(&second, &again));
    ck_assert_int_eq(submit_seq(session, other, "a", 2, &again, &replayed, &fault),
                     STATUS_IDEMPOTENCY_MISMATCH);
    ck_assert_int_eq(submit_seq(session, gradient, "a", 1, &again, &replayed, &fault),
                     STATUS_STALE_SEQUENCE);
    ck_assert_str_eq(fault.extra_name, "expected");
    ck_assert_uint_eq(fault.extra, 3);
    ck_assert_int_eq(submit_seq(session, gradient, "a", 4, &again, &replayed, &fault),
                     STATUS_SEQUENCE_GAP);
    ck_assert_uint_eq(fault.extra, 3);
    ck_assert_uint_eq(engines_view(session).step, 3);
    buffer_release(gradient);
    buffer_release(other);
    session_release(session);
    engine_close(engine);
}
END_TEST

struct sender {
    struct session *session;
    struct submission submission;
    enum status status;
    struct receipt receipt;
    bool replayed;
};

static void *send_one(void *context)
{
    struct sender *sender = context;

    sender->status = engines_submit(sender->session, &sender->submission, &sender->receipt,
                                    &sender->replayed, NULL);
    return NULL;
}

START_TEST(a_step_in_flight_is_told)
{
    struct faulty_store *store = faulty_store_new();
    struct engine *engine = engines_open_store(faulty_store_open(store), NULL);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, 7);
    uint64_t random = seeded(5);
    struct buffer *gradient = engines_gradient(DTYPE_F32, 7, &random);
    struct sender sender = {.session = session,
                            .submission = engines_submission(gradient, DTYPE_F32)};
    struct receipt again;
    pthread_t thread;
    bool replayed;

    sender.submission.key = "k";
    sender.submission.worker = "w";
    sender.submission.seq = 1;
    faulty_store_hold(store);
    ck_assert_int_eq(pthread_create(&thread, NULL, send_one, &sender), 0);
    faulty_store_await_held(store);
    ck_assert_int_eq(submit_keyed(session, gradient, "k", &again, &replayed),
                     STATUS_IDEMPOTENCY_IN_FLIGHT);
    ck_assert_int_eq(submit_seq(session, gradient, "w", 1, &again, &replayed, NULL),
                     STATUS_IDEMPOTENCY_IN_FLIGHT);
    ck_assert_int_eq(submit_seq(session, gradient, "w", 3, &again, &replayed, NULL),
                     STATUS_SEQUENCE_GAP);
    ck_assert_uint_eq(engines_view(session).step, 0); /* readers do not wait */
    faulty_store_let_go(store);
    pthread_join(thread, NULL);
    ck_assert_int_eq(sender.status, STATUS_OK);
    ck_assert_int_eq(submit_keyed(session, gradient, "k", &again, &replayed), STATUS_OK);
    ck_assert(replayed && same_receipt(&again, &sender.receipt));
    session_release(session);
    buffer_release(gradient);
    engine_close(engine);
    faulty_store_free(store);
}
END_TEST

/* --- position --- */

START_TEST(a_precondition_names_the_current_revision)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "one", &spec, 7);
    uint64_t random = seeded(6);
    struct buffer *gradient = engines_gradient(DTYPE_F32, 7, &random);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct receipt receipt;
    struct fault fault;

    engines_steps(session, 2, &random);
    submission.match = (struct precondition){.given = true, .count = 1, .tags = {{0, 1}}};
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_STEP_CONFLICT);
    submission.match = (struct precondition){.given = true, .count = 1, .tags = {{1, 2}}};
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_STEP_CONFLICT);
    submission.match = (struct precondition){.given = true, .count = 2, .tags = {{0, 9}, {0, 2}}};
    submission.has_base_step = true;
    submission.base_step = 3;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_INVALID_FIELD);
    submission.base_step = 1;
    submission.cursor = "page 3";
    ck_assert_int_eq(engines_submit(session, &submission, &receipt, NULL, &fault), STATUS_OK);
    ck_assert_uint_eq(receipt.step, 3);
    ck_assert_uint_eq(receipt.staleness, 1);
    engines_step(session, &random); /* names no cursor: the last one stays */
    struct session_view view = engines_view(session);
    ck_assert(view.has_cursor);
    ck_assert_str_eq(view.cursor, "page 3");
    buffer_release(gradient);
    session_release(session);
    engine_close(engine);
}
END_TEST

START_TEST(gradients_that_are_not_finite)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    const float bad[3] = {1, HUGE_VALF, 2}, mended[3] = {1, 0, 2};
    struct buffer *weights = engines_constant(3, 0);
    struct receipt receipt, reference;
    struct fault fault;

    for (int mode = NONFINITE_REJECT; mode <= NONFINITE_ZERO; mode++) {
        struct buffer *gradient = engines_constant(3, 0), *clean = engines_constant(3, 0);
        memcpy(gradient->data, bad, sizeof bad);
        memcpy(clean->data, mended, sizeof mended);
        spec.gradient.nonfinite = mode;
        char id[8] = {"rsz"[mode]}, twin_id[8] = {"rsz"[mode], '2'};
        struct session *session = engines_create(engine, id, &spec, 3);
        struct session *twin = engines_create(engine, twin_id, &spec, 3);
        struct outcome out;
        ck_assert_int_eq(session_replace(session, weights, &(struct precondition){0}, &out, &fault),
                         STATUS_OK);
        revision_release(out.revision);
        ck_assert_int_eq(session_replace(twin, weights, &(struct precondition){0}, &out, &fault),
                         STATUS_OK);
        revision_release(out.revision);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        enum status status = engines_submit(session, &submission, &receipt, NULL, &fault);
        if (mode == NONFINITE_REJECT) {
            ck_assert_int_eq(status, STATUS_NONFINITE_GRADIENT);
            ck_assert_uint_eq(engines_view(session).step, 1);
        } else {
            ck_assert_int_eq(status, STATUS_OK);
            ck_assert_uint_eq(receipt.step, 2);
        }
        if (mode == NONFINITE_SKIP)
            ck_assert_uint_eq(receipt.kind, RECEIPT_SKIPPED);
        if (mode == NONFINITE_ZERO) {
            submission = engines_submission(clean, DTYPE_F32);
            ck_assert_int_eq(engines_submit(twin, &submission, &reference, NULL, &fault),
                             STATUS_OK);
            ck_assert_digest_eq(engines_digest(session, false), engines_digest(twin, false));
        }
        session_release(session);
        session_release(twin);
        buffer_release(gradient);
        buffer_release(clean);
    }
    buffer_release(weights);
    engine_close(engine);
}
END_TEST

START_TEST(replaced_weights_are_a_step_and_state_stays)
{
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    engines_hyper(&spec, "momentum", 0.5);
    engines_hyper(&spec, "lr", 1);
    struct session *session = engines_create(engine, "one", &spec, 7);
    struct buffer *weights = engines_constant(7, 10), *ones = engines_constant(7, 1);
    struct submission submission = engines_submission(ones, DTYPE_F32);
    struct revision *revision;
    struct outcome out;
    struct fault fault;
    float w;

    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(
        session_replace(session, weights, &(struct precondition){.given = true}, &out, &fault),
        STATUS_STEP_CONFLICT);
    ck_assert_int_eq(
        session_replace(session, weights,
                        &(struct precondition){.given = true, .count = 1, .tags = {{0, 1}}}, &out,
                        &fault),
        STATUS_OK);
    ck_assert_uint_eq(out.receipt.kind, RECEIPT_REPLACED);
    ck_assert_uint_eq(out.receipt.step, 2);
    revision_release(out.revision);
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    memcpy(&w, revision->weights->data, sizeof w);
    ck_assert(w == 10 - 0.5f - 1); /* the velocity of step 1 counts */
    revision_release(revision);
    buffer_release(weights);
    buffer_release(ones);
    session_release(session);
    engine_close(engine);
}
END_TEST

/* --- many at once --- */

struct stepper {
    struct session *session;
    size_t number;
    struct receipt receipts[STEPS];
    enum status status;
};

static struct buffer *gradient_of(size_t stepper, size_t step)
{
    uint64_t random = seeded(1000 * stepper + step);

    return engines_gradient(DTYPE_F32, LANES, &random);
}

static void *step_on(void *context)
{
    struct stepper *stepper = context;

    stepper->status = STATUS_OK;
    for (size_t i = 0; i < STEPS && stepper->status == STATUS_OK; i++) {
        struct buffer *gradient = gradient_of(stepper->number, i);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        stepper->status =
            engines_submit(stepper->session, &submission, &stepper->receipts[i], NULL, NULL);
        buffer_release(gradient);
    }
    return NULL;
}

/* The last stepper changes lr before each of its steps: it is the only one who does. */
static void *patch_on(void *context)
{
    struct stepper *stepper = context;

    for (size_t i = 0; i < STEPS; i++) {
        double lr = i % 2 == 0 ? 0.03125 : 0.07;
        engines_patch(stepper->session, "lr", lr);
        struct buffer *gradient = gradient_of(stepper->number, i);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        stepper->status =
            engines_submit(stepper->session, &submission, &stepper->receipts[i], NULL, NULL);
        ck_assert_int_eq(stepper->status, STATUS_OK);
        ck_assert(stepper->receipts[i].lr == lr);
        buffer_release(gradient);
    }
    return NULL;
}

START_TEST(changes_among_steps_have_one_order)
{
    static struct stepper steppers[THREADS];
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    engines_hyper(&spec, "lr", 0.07);
    engines_hyper(&spec, "momentum", 0.9);
    struct session *session = engines_create(engine, "one", &spec, LANES);
    float *w = malloc(LANES * sizeof *w), *v = calloc(LANES, sizeof *v);
    struct revision *revision;
    struct fault fault;
    pthread_t threads[THREADS];

    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    memcpy(w, revision->weights->data, LANES * sizeof *w);
    revision_release(revision);
    for (size_t i = 0; i < THREADS; i++) {
        steppers[i] = (struct stepper){.session = session, .number = i};
        ck_assert_int_eq(
            pthread_create(&threads[i], NULL, i + 1 < THREADS ? step_on : patch_on, &steppers[i]),
            0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(steppers[i].status, STATUS_OK);
    }
    /* The receipts say the order and each step's lr: the formula must give the same bits. */
    for (uint64_t step = 1; step <= THREADS * STEPS; step++) {
        size_t found = 0;
        for (size_t k = 0; k < THREADS * STEPS; k++) {
            const struct receipt *receipt = &steppers[k / STEPS].receipts[k % STEPS];
            if (receipt->step != step)
                continue;
            ck_assert(receipt->lr == 0.07 || receipt->lr == 0.03125);
            struct buffer *gradient = gradient_of(k / STEPS, k % STEPS);
            const float *g = (const float *)(const void *)gradient->data;
            for (size_t i = 0; i < LANES; i++) {
                v[i] = 0.9f * v[i] - (float)receipt->lr * g[i];
                w[i] = w[i] + v[i];
            }
            buffer_release(gradient);
            found++;
        }
        ck_assert_uint_eq(found, 1);
    }
    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    ck_assert_uint_eq(revision->step, THREADS * STEPS);
    ck_assert_mem_eq(revision->weights->data, w, LANES * sizeof *w);
    revision_release(revision);
    free(w);
    free(v);
    session_release(session);
    engine_close(engine);
}
END_TEST

START_TEST(a_session_can_be_deleted_while_steps_run)
{
    static struct stepper steppers[THREADS];
    struct engine *engine = open_kind(_i);
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct session *session = engines_create(engine, "one", &spec, LANES), *none;
    uint64_t random = seeded(7);
    pthread_t threads[THREADS];
    struct engine_usage usage;
    struct fault fault;

    for (size_t i = 0; i < THREADS; i++) {
        steppers[i] = (struct stepper){.session = session, .number = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, step_on, &steppers[i]), 0);
    }
    while (engines_view(session).step < 20)
        ;
    ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert(steppers[i].status == STATUS_OK ||
                  steppers[i].status == STATUS_SESSION_NOT_FOUND);
    }
    ck_assert_int_eq(engine_find(engine, "", "one", &none, &fault), STATUS_SESSION_NOT_FOUND);
    ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_SESSION_NOT_FOUND);
    ck_assert_int_eq(engines_try_patch(session, "lr", 1, &fault), STATUS_SESSION_NOT_FOUND);
    session_release(session);
    session = engines_create(engine, "one", &spec, 7); /* the id is free */
    engines_step(session, &random);
    ck_assert_uint_eq(engines_view(session).step, 1);
    engine_usage(engine, &usage);
    ck_assert_uint_eq(usage.sessions, 1);
    session_release(session);
    engine_close(engine);
}
END_TEST

Suite *suite_engine(void);
Suite *suite_engine(void)
{
    Suite *suite = suite_create("engine");
    TCase *each = tcase_create("over memory and sqlite");
    TCase *own = tcase_create("over a store that can wait");

    tcase_set_timeout(each, 60);
    tcase_add_loop_test(each, sessions_are_listed_in_pages, 0, 2);
    tcase_add_loop_test(each, the_same_request_again_is_the_same_session, 0, 2);
    tcase_add_loop_test(each, the_server_picks_an_id, 0, 2);
    tcase_add_loop_test(each, a_key_applies_once, 0, 2);
    tcase_add_loop_test(each, keys_live_for_a_thousand_steps_and_workers_for_ever, 0, 2);
    tcase_add_loop_test(each, workers_count_one_by_one, 0, 2);
    tcase_add_loop_test(each, a_precondition_names_the_current_revision, 0, 2);
    tcase_add_loop_test(each, gradients_that_are_not_finite, 0, 2);
    tcase_add_loop_test(each, replaced_weights_are_a_step_and_state_stays, 0, 2);
    tcase_add_loop_test(each, changes_among_steps_have_one_order, 0, 2);
    tcase_add_loop_test(each, a_session_can_be_deleted_while_steps_run, 0, 2);
    tcase_set_timeout(own, 60);
    tcase_add_test(own, a_step_in_flight_is_told);
    suite_add_tcase(suite, each);
    suite_add_tcase(suite, own);
    return suite;
}
