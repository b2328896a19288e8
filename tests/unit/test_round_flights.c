/* Open rounds while something is under way: deadlines that come amid commits, commits that fail,
 * processes that end, everybody at once; and what must not stay in memory. */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/log.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"
#include "tests/lib/testing.h"

enum { FAR_S = 1000000 };

static void set_up(void)
{
    log_set_level(LOG_OFF); /* faults are what is wanted */
    fixture_open(0xF119);
}

/* --- deadlines --- */

/* Of a quorum of two, far away: tests bring it near. */
static struct spec timed_spec(uint64_t workers)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", workers);

    spec.aggregation.quorum = 2;
    spec.aggregation.timeout_s = FAR_S;
    return spec;
}

/* The open round began so long ago. */
static void age_round(struct session *session, double seconds)
{
    pthread_mutex_lock(&session->mutex);
    ck_assert_uint_gt(session->state->round.count, 0);
    session->state->round.started_us = (uint64_t)((double)clock_unix_us() - seconds * 1e6);
    pthread_mutex_unlock(&session->mutex);
}

struct goal {
    struct session *session;
    uint64_t step;
};

static bool stands_there(void *context)
{
    const struct goal *goal = context;

    return engines_view(goal->session).step == goal->step;
}

static bool await_step(struct session *session, uint64_t step)
{
    return engines_await(stands_there, &(struct goal){session, step}, 5);
}

/* The timekeeper has come to look after session_close_at(session, 0). */
static bool was_called(void *context)
{
    const struct session *session = context;

    pthread_mutex_lock(&session->engine->time_mutex);
    bool out = !session->timed || session->due_us > 0;
    pthread_mutex_unlock(&session->engine->time_mutex);
    return out;
}

START_TEST(the_deadline_of_a_closed_round_does_not_hide_that_of_the_next)
{
    struct spec spec = timed_spec(3);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);

    for (size_t i = 0; i < 3; i++)
        fixture_join(session, i, 1);
    fixture_hold(&twin, session);
    fixture_join(session, 0, 2);
    fixture_join(session, 1, 2);
    age_round(session, FAR_S - 0.1); /* a tenth of a second is left of this one */
    session_close_at(session, 0);    /* and nothing of the first */
    ck_assert(await_step(session, 2));
    fixture_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

static void set_timeout_ms(struct spec *spec, uint64_t value)
{
    spec->aggregation.timeout_s = (double)value / 1000;
}

START_TEST(a_clock_that_is_set_back_does_not_keep_a_round_open)
{
    struct spec spec = timed_spec(3);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);

    fixture_join(session, 0, 1);
    fixture_join(session, 1, 1);
    age_round(session, -0.2); /* it has yet to begin */
    rounds_patch(session, set_timeout_ms, 50);
    ck_assert(await_step(session, 1));
    fixture_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

struct caller {
    struct session *session;
    struct offer offer;
    struct receipt receipt;
    enum status status;
    pthread_t thread;
};

static void *call(void *context)
{
    struct caller *caller = context;
    struct fault fault;

    caller->status = offer_try(caller->session, &caller->offer, &caller->receipt, NULL, &fault);
    return NULL;
}

static void start_call(struct caller *caller, struct session *session, size_t worker, uint64_t seq)
{
    *caller = (struct caller){.session = session, .offer = fixture_draw(worker, seq)};
    ck_assert_int_eq(pthread_create(&caller->thread, NULL, call, caller), 0);
}

START_TEST(a_round_whose_time_was_up_amid_a_commit_that_failed_closes)
{
    struct spec spec = timed_spec(WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct caller late;

    fixture_join(session, 0, 1);
    fixture_join(session, 1, 1);
    faulty_store_hold(fixture.store);
    start_call(&late, session, 2, 1);
    faulty_store_await_held(fixture.store);
    age_round(session, FAR_S + 1);
    session_close_at(session, 0); /* it cannot: one is in flight */
    ck_assert(engines_await(was_called, session, 5));
    testing_pause(0.02);
    ck_assert_uint_eq(engines_view(session).step, 0);
    faulty_store_plan(fixture.store, (struct faulty_plan){.verbs = FAULTY_COMMIT,
                                                          .count = 2, /* its group, and it alone */
                                                          .status = STATUS_STORAGE_FULL});
    faulty_store_let_go(fixture.store);
    pthread_join(late.thread, NULL);
    ck_assert_int_eq(late.status, STATUS_STORAGE_FULL);
    ck_assert(await_step(session, 1));
    fixture_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

static bool nobody_else_holds(void *context)
{
    const struct session *session = context;

    return __atomic_load_n(&session->references, __ATOMIC_ACQUIRE) == 1;
}

START_TEST(a_deleted_session_leaves_the_list_of_deadlines)
{
    struct spec spec = timed_spec(3);
    struct session *session = fixture_create(&spec);
    struct fault fault;

    fixture_join(session, 0, 1);
    ck_assert(session->timed);
    ck_assert_int_eq(session_delete(fixture.engine, session, &fault), STATUS_OK);
    ck_assert(engines_await(nobody_else_holds, session, 1));
    ck_assert(!session->timed);
    session_release(session);
}
END_TEST

START_TEST(a_checkpoint_that_fails_amid_a_round_harms_nobody)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct moment moment;
    struct fault fault;

    for (size_t i = 0; i < WORKERS; i++) {
        fixture_join(session, i, 1);
        faulty_store_plan(fixture.store, (struct faulty_plan){.verbs = FAULTY_COMMIT,
                                                              .count = 1000,
                                                              .status = STATUS_STORAGE_FULL});
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_STORAGE_FULL);
        faulty_store_plan(fixture.store, (struct faulty_plan){.count = 0});
    }
    fixture_hold(&twin, session);
    ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- everybody at once --- */

static bool all_came(void *context)
{
    const struct goal *goal = context;
    struct session *session = goal->session;

    pthread_mutex_lock(&session->mutex);
    bool out = session->arrivals >= goal->step;
    pthread_mutex_unlock(&session->mutex);
    return out;
}

/* The last is admitted while the others are in flight; what it proposes is of them all. */
START_TEST(a_proposal_is_of_members_in_flight_too)
{
    struct spec spec = rounds_spec(_i == 0 ? DTYPE_F64 : DTYPE_F32, "muon", WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct caller callers[WORKERS];

    for (uint64_t seq = 1; seq <= 3; seq++) {
        size_t closing = 0;
        struct goal goal = {session, session->arrivals + WORKERS};
        faulty_store_hold(fixture.store);
        for (size_t i = 0; i < WORKERS; i++) {
            start_call(&callers[i], session, i, seq);
            fixture.open_round.members[fixture.open_round.count++] = callers[i].offer;
            if (i == 0)
                faulty_store_await_held(fixture.store);
        }
        ck_assert(engines_await(all_came, &goal, 5));
        faulty_store_let_go(fixture.store);
        for (size_t i = 0; i < WORKERS; i++) {
            pthread_join(callers[i].thread, NULL);
            ck_assert_int_eq(callers[i].status, STATUS_OK);
            closing += callers[i].receipt.kind == RECEIPT_APPLIED;
        }
        ck_assert_uint_eq(closing, 1);
        fixture_hold(&twin, session);
    }
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* A body has the names of a long list, or another gradient, beside a small one. */
START_TEST(what_came_beside_a_gradient_is_not_kept)
{
    enum { BESIDE = 1 << 20, SOME = 128 << 10 };
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    size_t before, after;
    struct fault fault;

    buffer_pool_usage(&before, NULL);
    for (size_t i = 0; i < WORKERS - 1; i++) {
        struct offer mine = fixture_draw(i, 1);
        struct submission submission = offer_submission(&mine, fixture.layout->count);
        struct buffer *body = buffer_new_zeroed(BESIDE + submission.buffer->size);
        submission.offset = i == 0 ? 0 : BESIDE;
        memcpy(body->data + submission.offset, submission.buffer->data, submission.buffer->size);
        buffer_release(submission.buffer);
        submission.buffer = body;
        if (engines_submit(session, &submission, NULL, NULL, &fault) != STATUS_OK)
            ck_abort_msg("submit: %s", fault.detail);
        buffer_release(body);
        fixture.open_round.members[fixture.open_round.count++] = mine;
    }
    buffer_pool_usage(&after, NULL);
    ck_assert_uint_le(after, before + SOME);
    fixture_join(session, WORKERS - 1, 1);
    fixture_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

static void live_shortly(const char *url)
{
    struct session *session = engines_find(engines_open(url, NULL), "one");

    for (size_t i = 0; i < WORKERS + 2; i++)
        fixture_join(session, i % WORKERS, i / WORKERS + 1);
    raise(SIGKILL);
}

/* Steps may be lost with durability `interval`, not a contribution that is told of. */
START_TEST(who_is_told_to_wait_is_on_disk)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    char url[300];
    int status;

    fixture.layout = rounds_layout(61);
    fixture.numbers = testing_seed();
    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    spec.durability.mode = DURABILITY_INTERVAL;
    spec.durability.seconds = 1000;
    struct engine *own = engines_open(url, NULL);
    session_release(rounds_create(own, "one", &spec, fixture.layout));
    engine_close(own); /* no thread is left when it forks */
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        live_shortly(url);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    own = engines_open(url, NULL);
    struct session *session = engines_find(own, "one");
    struct twin twin = fixture_twin(&spec);
    ck_assert_uint_eq(engines_view(session).step, 1);
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    for (size_t i = 0; i < WORKERS; i++)
        fixture.open_round.members[i] = fixture_draw(i, 1);
    twin_step(&twin, fixture.open_round.members, WORKERS, PLAIN_MEAN);
    twin_hold(&twin, session);
    rounds_hold_members(session, 1, fixture.open_round.members, WORKERS);
    for (size_t i = 0; i < 2; i++)
        fixture.open_round.members[fixture.open_round.count++] = fixture_draw(i, 2);
    fixture_join(session, 2, 2);
    fixture_join(session, 3, 2);
    fixture_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
    engine_close(own);
    layout_release(fixture.layout);
}
END_TEST

Suite *suite_round_flights(void);
Suite *suite_round_flights(void)
{
    Suite *suite = suite_create("round_flights");
    TCase *flights = tcase_create("something is under way");
    TCase *ends = tcase_create("a process ends");

    tcase_add_checked_fixture(flights, set_up, fixture_close);
    tcase_set_timeout(flights, 60);
    tcase_add_test(flights, the_deadline_of_a_closed_round_does_not_hide_that_of_the_next);
    tcase_add_test(flights, a_clock_that_is_set_back_does_not_keep_a_round_open);
    tcase_add_test(flights, a_round_whose_time_was_up_amid_a_commit_that_failed_closes);
    tcase_add_test(flights, a_deleted_session_leaves_the_list_of_deadlines);
    tcase_add_test(flights, a_checkpoint_that_fails_amid_a_round_harms_nobody);
    tcase_add_loop_test(flights, a_proposal_is_of_members_in_flight_too, 0, 2);
    tcase_add_test(flights, what_came_beside_a_gradient_is_not_kept);
    suite_add_tcase(suite, flights);
    tcase_set_timeout(ends, 60);
    tcase_add_test(ends, who_is_told_to_wait_is_on_disk);
    suite_add_tcase(suite, ends);
    return suite;
}
