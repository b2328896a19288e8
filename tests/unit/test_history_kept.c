/* What is kept of the past while a session goes back and forth and its journal is shortened: what
 * was promised is there, what was there is gone and not unheard of, and the ledger has no gaps. */
#include <check.h>
#include <stdlib.h>

#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { COUNT = 5, STEPS = 2400, KEEP = 40 };

static struct engine *engine;
static struct engine_options options;

static void start(void)
{
    options = engines_options();
    engine = engines_open("memory:", &options);
}

static void stop(void)
{
    engine_close(engine);
}

static bool few_checkpoints(void *context)
{
    struct checkpoint_view views[1];

    return session_checkpoints(context, views, 1) <= 25;
}

struct lines {
    uint64_t first, count;
};

static enum status count_line(void *context, const struct step_line *line)
{
    struct lines *lines = context;

    if (lines->count == 0)
        lines->first = line->receipt.step;
    ck_assert_uint_eq(line->receipt.step, lines->first + lines->count);
    lines->count++;
    return STATUS_OK;
}

/* One line a step from the oldest on, and of what was promised all. */
static void check_ledger(struct session *session)
{
    struct session_view view = engines_view(session);
    struct lines lines = {.count = 0};
    struct fault fault;
    uint64_t oldest;

    ck_assert_int_eq(
        session_steps(session, NULL, 1, UINT64_MAX, count_line, &lines, &oldest, &fault),
        STATUS_OK);
    ck_assert_uint_eq(lines.first + lines.count, lines.count == 0 ? 0 : view.step + 1);
    ck_assert_uint_eq(oldest, lines.count == 0 ? view.step + 1 : lines.first);
}

/* The moments in the order in which they came to be: the newest so many steps were promised. */
static size_t check_moments(struct session *session, const struct moment *moments, size_t count)
{
    size_t gone = 0;

    for (size_t i = 0; i < count; i++) {
        struct moment_query query = {true, moments[i].lineage, moments[i].step};
        struct revision *revision;
        struct fault fault;
        enum status status = session_revision_at(session, &query, &revision, &fault);
        if (status == STATUS_OK)
            revision_release(revision);
        ck_assert_msg(status == STATUS_OK || (status == STATUS_HISTORY_GONE && i + KEEP < count),
                      "%zu of %zu, \"%llu-%llu\": %s", i, count,
                      (unsigned long long)moments[i].lineage, (unsigned long long)moments[i].step,
                      fault.detail);
        gone += status == STATUS_HISTORY_GONE;
    }
    return gone;
}

START_TEST(what_goes_leaves_no_gaps)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = testing_seed() ^ 0x6a95;
    struct moment *moments = calloc(STEPS, sizeof *moments);
    struct moment moment;
    struct fault fault;

    ck_assert_ptr_nonnull(moments);
    spec.keep_steps = KEEP;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    for (size_t i = 0; i < STEPS; i++) {
        engines_step(session, &random);
        struct session_view view = engines_view(session);
        moments[i] = (struct moment){view.lineage, view.step};
        if (testing_random(&random) % 4 == 0)
            ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
        if (testing_random(&random) % 25 == 0) {
            const struct moment *to = &moments[i - testing_random(&random) % (i < 36 ? i + 1 : 36)];
            struct moment_query query = {true, to->lineage, to->step};
            ck_assert_msg(session_rewind(session, &query, &fault) == STATUS_OK, "%s", fault.detail);
        }
        if (i % 20 == 19)
            check_ledger(session);
        if (i % 60 == 59) {
            ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
            engines_await(few_checkpoints, session, 2);
            check_ledger(session);
        }
    }
    ck_assert_uint_gt(check_moments(session, moments, STEPS), 0);
    session_release(session);
    free(moments);
}
END_TEST

Suite *suite_history_kept(void);
Suite *suite_history_kept(void)
{
    Suite *suite = suite_create("history_kept");
    TCase *cases = tcase_create("history_kept");

    tcase_set_timeout(cases, 120);
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_test(cases, what_goes_leaves_no_gaps);
    suite_add_tcase(suite, cases);
    return suite;
}
