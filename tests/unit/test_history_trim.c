/* What leaves the disk of a session with a past, and what must not. */
#include <check.h>

#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { COUNT = 37 };

static const char *url;
static struct engine *engine;
static struct engine_options options;

static void start(void)
{
    url = testing_folder();
    options = engines_options();
    engine = engines_open(url, &options);
}

static void stop(void)
{
    engine_close(engine);
}

static uint64_t journal_limit;
static bool journal_is_short(void *context)
{
    struct engine_usage usage;

    (void)context;
    engine_usage(engine, &usage);
    return usage.journal_bytes <= journal_limit;
}

START_TEST(gradients_in_quarantine_do_not_pile_up)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct buffer *plain = engines_constant(1000, 1), *large = engines_constant(1000, 50);
    struct submission submission = engines_submission(plain, DTYPE_F32);
    struct session *session;
    struct fault fault;

    spec.gradient.max_norm_ratio = 4;
    session = engines_create(engine, "s", &spec, 1000);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    submission.buffer = large;
    for (int i = 0; i < 200; i++)
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                         STATUS_ABNORMAL_GRADIENT);
    journal_limit = 40 * 4300;
    ck_assert(engines_await(journal_is_short, NULL, 10));
    buffer_release(plain);
    buffer_release(large);
    session_release(session);
}
END_TEST

/* The lists by kind are those of the whole, in its order. */
static void check_lists(struct session *session)
{
    pthread_mutex_lock(&session->mutex);
    const struct event_place *lines = session->receipts.first, *rewinds = session->rewinds.first;
    for (const struct event_place *place = session->events; place != NULL; place = place->next) {
        const struct event_place **next = place->kind == EVENT_RECEIPTS ? &lines
                                          : place->kind == EVENT_REWIND ? &rewinds
                                                                        : NULL;
        if (next == NULL)
            continue;
        ck_assert_ptr_eq(*next, place);
        *next = place->next_alike;
    }
    ck_assert_ptr_null(lines);
    ck_assert_ptr_null(rewinds);
    ck_assert_ptr_null(*session->receipts.end);
    ck_assert_ptr_null(*session->rewinds.end);
    pthread_mutex_unlock(&session->mutex);
}

/* What a trim could not drop does not keep the folder from opening after a later one could. */
START_TEST(a_trim_that_failed_once_does_not_break_the_lineages)
{
    struct faulty_store *store = faulty_store_new();
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session;
    uint64_t random = 5;
    struct moment moment;
    struct fault fault;

    engine_close(engine);
    engine = engines_open_store(faulty_store_open(store), &options);
    spec.keep_steps = 2;
    session = engines_create(engine, "s", &spec, COUNT);
    for (int round = 0; round < 6; round++) {
        engines_steps(session, 10, &random);
        engines_rewind(session, engines_view(session).step - 1);
        engines_steps(session, 5, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
        if (round == 1)
            faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_BEGIN,
                                                          .count = 1000,
                                                          .status = STATUS_STORAGE_FULL});
        engine_trim(engine);
        faulty_store_plan(store, (struct faulty_plan){.verbs = 0});
        check_lists(session);
    }
    struct digest hash = engines_hash(session);
    session_release(session);
    engine_close(engine);
    engine = engines_open_store(faulty_store_open(store), &options);
    session = engines_find(engine, "s");
    check_lists(session);
    ck_assert_digest_eq(engines_hash(session), hash);
    ck_assert_uint_eq(engines_view(session).lineage, 6);
    session_release(session);
    engine_close(engine);
    faulty_store_free(store);
    engine = engines_open(url, &options);
}
END_TEST

/* A gradient in quarantine stays when the steps around it have gone, and says nothing of how far
 * its lineage came. */
START_TEST(a_step_that_has_gone_was_there)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct buffer *plain = engines_constant(COUNT, 1), *large = engines_constant(COUNT, 50);
    struct submission submission = engines_submission(plain, DTYPE_F32);
    struct moment_query query = {.has_lineage = true};
    struct digest hash;
    struct moment moment;
    struct fault fault;

    spec.gradient.max_norm_ratio = 4;
    spec.keep_steps = 2;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    for (int i = 0; i < 60; i++) {
        submission.buffer = i == 12 ? large : plain;
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                         i == 12 ? STATUS_ABNORMAL_GRADIENT : STATUS_OK);
        if (i == 20)
            engines_rewind(session, 18);
    }
    ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    engine_trim(engine);
    for (query.step = 0; query.step <= 20; query.step++)
        ck_assert_msg(session_hash(session, &query, &moment, &hash, &fault) == STATUS_HISTORY_GONE,
                      "%llu: %s", (unsigned long long)query.step, fault.detail);
    buffer_release(plain);
    buffer_release(large);
    session_release(session);
}
END_TEST

enum { FAILURES = 6 };

/* What a failed trim has left goes before anything newer: else what is there would lead nowhere. */
START_TEST(what_could_not_be_dropped_leaves_no_hole)
{
    struct faulty_store *store = faulty_store_new();
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct verify_report report;
    uint64_t random = 5;
    struct moment moment;
    struct fault fault;

    engine_close(engine);
    engine = engines_open_store(faulty_store_open(store), &options);
    spec.keep_steps = 2;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    for (int round = 0; round < 4; round++) {
        engines_steps(session, 10, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
        if (round == 1 || round == 2)
            faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_COMMIT,
                                                          .skip = (unsigned)_i,
                                                          .count = 1000,
                                                          .status = STATUS_STORAGE_FULL});
        engine_trim(engine);
        faulty_store_plan(store, (struct faulty_plan){.verbs = 0});
    }
    struct digest hash = engines_hash(session);
    session_release(session);
    engine_close(engine);
    struct store *kept = faulty_store_open(store);
    ck_assert_msg(engine_verify(kept, NULL, &report, &fault) == STATUS_OK, "%s", fault.detail);
    ck_assert_uint_eq(report.findings, 0);
    store_close(kept);
    engine = engines_open_store(faulty_store_open(store), &options);
    session = engines_find(engine, "s");
    ck_assert_digest_eq(engines_hash(session), hash);
    session_release(session);
    engine_close(engine);
    faulty_store_free(store);
    engine = engines_open(url, &options);
}
END_TEST

Suite *suite_history_trim(void);
Suite *suite_history_trim(void)
{
    Suite *suite = suite_create("history_trim");
    TCase *cases = tcase_create("history_trim");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_test(cases, gradients_in_quarantine_do_not_pile_up);
    tcase_add_test(cases, a_trim_that_failed_once_does_not_break_the_lineages);
    tcase_add_test(cases, a_step_that_has_gone_was_there);
    tcase_add_loop_test(cases, what_could_not_be_dropped_leaves_no_hole, 0, FAILURES);
    suite_add_tcase(suite, cases);
    return suite;
}
