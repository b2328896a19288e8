/* Following a session: whoever was told all up to any moment, and is told what session_follow says,
 * knows the ledger as it is. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/clock.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { COUNT = 5, STEPS_MAX = 64, MOMENTS_MAX = 256, EVENTS = 150 };

static struct engine *engine;
static uint64_t seed;

static void start(void)
{
    engine = engines_open("memory:", NULL);
    seed = testing_seed();
}

static void stop(void)
{
    engine_close(engine);
}

/* The line that leads to a moment: the lineage of each of its steps. */
struct line {
    struct moment at;
    uint64_t lineages[STEPS_MAX + 1]; /* [step], from 1 */
};

static enum status append(void *context, const struct step_line *told)
{
    struct line *line = context;
    uint64_t step = told->receipt.step;

    ck_assert_uint_eq(step, line->at.step + 1);
    line->lineages[step] = told->receipt.lineage;
    line->at = (struct moment){told->receipt.lineage, step};
    return STATUS_OK;
}

/* Does what session_follow says until there is nothing more. */
static void follow(struct session *session, struct line *line)
{
    struct following following;
    struct fault fault;

    for (int turns = 0;; turns++) {
        ck_assert_int_lt(turns, MOMENTS_MAX);
        ck_assert_int_eq(session_follow(session, &line->at, 0, &following, &fault), STATUS_OK);
        if (following.kind == FOLLOW_NOTHING)
            return;
        if (following.kind == FOLLOW_BACK) {
            ck_assert_uint_le(following.to.step, line->at.step);
            line->at = following.to;
            continue;
        }
        ck_assert_int_eq(following.kind, FOLLOW_STEPS);
        struct moment_query query = {.has_lineage = true, .lineage = following.to.lineage};
        ck_assert_int_eq(session_steps(session, &query, line->at.step + 1, following.to.step,
                                       append, line, NULL, &fault),
                         STATUS_OK);
        ck_assert_uint_eq(line->at.step, following.to.step);
    }
}

static void check_same(const struct line *found, const struct line *expected)
{
    ck_assert_uint_eq(found->at.step, expected->at.step);
    for (uint64_t step = 1; step <= expected->at.step; step++)
        ck_assert_uint_eq(found->lineages[step], expected->lineages[step]);
}

/* Steps and rewinds to any moment there has been, in any order; then, from every such moment, the
 * way to the present one. Checkpoints in between bring lines to the journal. */
START_TEST(from_every_moment_there_is_a_way_to_the_ledger)
{
    static struct line lines[MOMENTS_MAX];
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    size_t count = 1;
    struct fault fault;

    memset(lines, 0, sizeof lines);
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t random = seed ^ (uint64_t)_i;
    struct line now = lines[0];
    uint64_t lineage = 0;
    for (int event = 0; event < EVENTS; event++) {
        double chance = testing_uniform(&random);
        if (chance < 0.08) {
            const struct line *target = &lines[testing_random(&random) % count];
            struct moment_query query = {true, target->at.lineage, target->at.step};
            ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
            now = *target;
            now.at.lineage = ++lineage;
        } else if (chance < 0.12) {
            struct moment saved;
            ck_assert_int_eq(session_checkpoint_now(session, &saved, &fault), STATUS_OK);
            continue;
        } else if (now.at.step < STEPS_MAX) {
            engines_step(session, &random);
            now.lineages[++now.at.step] = now.at.lineage;
        }
        lines[count++] = now;
    }
    for (size_t i = 0; i < count; i++) {
        struct line line = lines[i];
        follow(session, &line);
        check_same(&line, &now);
    }
    session_release(session);
}
END_TEST

static enum status count_line(void *context, const struct step_line *line)
{
    uint64_t *last = context;

    ck_assert_uint_eq(line->receipt.step, *last + 1);
    *last = line->receipt.step;
    return STATUS_OK;
}

/* The short way to the newest lines gives what the long one gives. */
START_TEST(the_newest_lines_are_found_from_any_step)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = seed;
    struct moment saved;
    struct fault fault;

    struct session *session = engines_create(engine, "s", &spec, COUNT);
    engines_steps(session, 40, &random);
    ck_assert_int_eq(session_checkpoint_now(session, &saved, &fault), STATUS_OK);
    engines_steps(session, RECEIPTS_MARKED + 40, &random);
    for (uint64_t from = 1; from <= RECEIPTS_MARKED + 80; from++) {
        uint64_t last = from - 1;
        ck_assert_int_eq(
            session_steps(session, NULL, from, UINT64_MAX, count_line, &last, NULL, &fault),
            STATUS_OK);
        ck_assert_uint_eq(last, RECEIPTS_MARKED + 80);
    }
    session_release(session);
}
END_TEST

/* --- waiting --- */

struct watch {
    struct session *session;
    struct moment at;
    struct following found;
    enum status status;
    double took_s;
};

static void *watch(void *context)
{
    struct watch *work = context;
    struct fault fault;
    uint64_t begin = clock_monotonic_us();

    work->status = session_follow(work->session, &work->at, 60, &work->found, &fault);
    work->took_s = (double)(clock_monotonic_us() - begin) / 1e6;
    return NULL;
}

static bool is_followed(void *context)
{
    struct session *session = context;

    pthread_mutex_lock(&session->mutex);
    bool followed = session->followers > 0;
    pthread_mutex_unlock(&session->mutex);
    return followed;
}

static pthread_t start_watch(struct watch *work)
{
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, watch, work), 0);
    ck_assert(engines_await(is_followed, work->session, 10));
    return thread;
}

START_TEST(nothing_is_told_before_it_is_on_disk)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct watch work = {.session = NULL};
    struct following following;
    uint64_t random = seed;
    struct moment saved;
    struct fault fault;

    spec.durability.mode = _i == 0 ? DURABILITY_CHECKPOINT : DURABILITY_INTERVAL;
    spec.durability.steps = 1000;
    spec.durability.seconds = _i == 0 ? 0 : 1;
    work.session = engines_create(engine, "s", &spec, COUNT);
    uint64_t begin = clock_monotonic_us();
    engines_step(work.session, &random);
    ck_assert_int_eq(session_follow(work.session, &work.at, 0, &following, &fault), STATUS_OK);
    if (clock_monotonic_us() - begin < 900000) /* else the second may be over */
        ck_assert_int_eq(following.kind, FOLLOW_NOTHING);
    pthread_t thread = start_watch(&work);
    if (_i == 0)
        ck_assert_int_eq(session_checkpoint_now(work.session, &saved, &fault), STATUS_OK);
    pthread_join(thread, NULL);
    ck_assert_int_eq(work.status, STATUS_OK);
    ck_assert_int_eq(work.found.kind, FOLLOW_STEPS);
    ck_assert_uint_eq(work.found.to.step, 1);
    ck_assert(work.took_s < 30);
    session_release(work.session);
}
END_TEST

static bool is_empty(void *context)
{
    struct engine_usage usage;

    (void)context;
    engine_usage(engine, &usage);
    return usage.resident == 0;
}

START_TEST(a_follower_keeps_no_state_in_memory_and_hears_of_its_return)
{
    struct engine_options options = engines_options();
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct watch work = {.session = NULL};
    uint64_t random = seed;

    engine_close(engine);
    options.idle_s = 1;
    engine = engines_open("memory:", &options);
    work.session = engines_create(engine, "s", &spec, COUNT);
    pthread_t thread = start_watch(&work);
    ck_assert(engines_await(is_empty, NULL, 30));
    ck_assert(is_followed(work.session));
    engines_step(work.session, &random);
    pthread_join(thread, NULL);
    ck_assert_int_eq(work.found.kind, FOLLOW_STEPS);
    session_release(work.session);
}
END_TEST

START_TEST(a_removal_and_a_drain_end_the_wait)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct watch work = {.session = engines_create(engine, "s", &spec, COUNT)};
    struct fault fault;

    pthread_t thread = start_watch(&work);
    ck_assert_int_eq(session_delete(engine, work.session, &fault), STATUS_OK);
    pthread_join(thread, NULL);
    ck_assert_int_eq(work.status, STATUS_SESSION_NOT_FOUND);
    session_release(work.session);
    work = (struct watch){.session = engines_create(engine, "t", &spec, COUNT)};
    thread = start_watch(&work);
    engine_drain(engine);
    pthread_join(thread, NULL);
    ck_assert_int_eq(work.status, STATUS_OK);
    ck_assert_int_eq(work.found.kind, FOLLOW_NOTHING);
    ck_assert(work.took_s < 30);
    session_release(work.session);
}
END_TEST

static bool is_lost(void *context)
{
    const struct moment first = {0, 1};
    struct following following;
    struct fault fault;

    ck_assert_int_eq(session_follow(context, &first, 0, &following, &fault), STATUS_OK);
    return following.kind == FOLLOW_LOST;
}

START_TEST(who_comes_back_too_late_is_told_so)
{
    const struct moment beyond = {7, 3}, ahead = {1, 1000};
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct moment_query query = {true, 0, 2};
    uint64_t random = seed;
    struct following following;
    struct moment saved;
    struct fault fault;

    spec.keep_steps = 2;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    engines_steps(session, 3, &random);
    ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
    ck_assert_int_eq(session_follow(session, &beyond, 0, &following, &fault), STATUS_OK);
    ck_assert_int_eq(following.kind, FOLLOW_LOST);
    ck_assert_int_eq(session_follow(session, &ahead, 0, &following, &fault), STATUS_OK);
    ck_assert_int_eq(following.kind, FOLLOW_BACK);
    ck_assert_uint_eq(following.to.lineage, 1);
    ck_assert_uint_eq(following.to.step, 2);
    ck_assert(!is_lost(session));
    for (int i = 0; i < 4; i++) {
        engines_steps(session, 10, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &saved, &fault), STATUS_OK);
    }
    ck_assert(engines_await(is_lost, session, 30));
    session_release(session);
}
END_TEST

Suite *suite_follow(void);
Suite *suite_follow(void)
{
    Suite *suite = suite_create("follow");
    TCase *tests = tcase_create("follow");

    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_loop_test(tests, from_every_moment_there_is_a_way_to_the_ledger, 0, 8);
    tcase_add_test(tests, the_newest_lines_are_found_from_any_step);
    tcase_add_loop_test(tests, nothing_is_told_before_it_is_on_disk, 0, 2);
    tcase_add_test(tests, a_follower_keeps_no_state_in_memory_and_hears_of_its_return);
    tcase_add_test(tests, a_removal_and_a_drain_end_the_wait);
    tcase_add_test(tests, who_comes_back_too_late_is_told_so);
    suite_add_tcase(suite, tests);
    return suite;
}
