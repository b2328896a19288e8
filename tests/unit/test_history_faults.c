/* Storage fails in the middle of a rewind, a fork or an import: nothing has happened. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { COUNT = 37 };

static enum status count_line(void *context, const struct step_line *line)
{
    uint64_t *last = context;

    ck_assert_uint_eq(line->receipt.step, *last + 1);
    *last = line->receipt.step;
    return STATUS_OK;
}

static uint64_t last_line(struct session *session)
{
    uint64_t last = 0, oldest;
    struct fault fault;

    ck_assert_int_eq(
        session_steps(session, NULL, 1, UINT64_MAX, count_line, &last, &oldest, &fault), STATUS_OK);
    return last;
}

/* After a failure what is deferred is tried again a second later; until then nothing more is. */
static bool is_healthy(void *engine)
{
    struct fault fault;

    return commit_health(((struct engine *)engine)->committer, &fault) == STATUS_OK;
}

static const size_t sizes[] = {COUNT, 132000}; /* one chunk, several */
static const int modes[] = {DURABILITY_STEP, DURABILITY_INTERVAL, DURABILITY_CHECKPOINT};

START_TEST(a_rewind_that_fails_has_not_happened)
{
    for (unsigned skip = 0; skip < 30; skip++) {
        struct faulty_store *store = faulty_store_new();
        struct engine *engine = engines_open_store(faulty_store_open(store), NULL);
        struct spec spec = engines_spec(DTYPE_F32, "adam");
        uint64_t random = 5 + skip;
        struct fault fault;

        spec.durability.mode = modes[_i % 3];
        spec.durability.seconds = 3000;
        spec.durability.steps = 4;
        struct session *session = engines_create(engine, "s", &spec, sizes[_i / 3]);
        for (int i = 0; i < 8; i++)
            engines_step(session, &random);
        struct moment_query query = {false, 0, modes[_i % 3] == DURABILITY_CHECKPOINT ? 8 : 5};
        struct digest before = engines_digest(session, true);
        faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_ALL,
                                                      .skip = skip,
                                                      .count = 3,
                                                      .status = STATUS_STORAGE_FULL});
        enum status status = session_rewind(session, &query, &fault);
        unsigned failures = faulty_store_failures(store);
        faulty_store_plan(store, (struct faulty_plan){.verbs = 0});
        ck_assert(engines_await(is_healthy, engine, 10));
        struct session_view view = engines_view(session);
        if (status == STATUS_OK) {
            ck_assert_uint_eq(view.lineage, 1);
            ck_assert_uint_eq(view.step, query.step);
        } else {
            ck_assert_uint_eq(view.lineage, 0);
            ck_assert_uint_eq(view.step, 8);
            ck_assert_digest_eq(engines_digest(session, true), before);
        }
        engines_steps(session, 3, &random);
        ck_assert_uint_eq(last_line(session), view.step + 3);
        ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
        engines_steps(session, 2, &random);
        struct digest hash = engines_hash(session);
        uint64_t last = last_line(session);
        ck_assert_uint_eq(last, query.step + 2);
        session_release(session);
        engine_close(engine);
        engine = engines_open_store(faulty_store_open(store), NULL);
        session = engines_find(engine, "s");
        ck_assert_digest_eq(engines_hash(session), hash);
        ck_assert_uint_eq(last_line(session), last);
        session_release(session);
        engine_close(engine);
        faulty_store_free(store);
        if (failures == 0)
            break;
    }
}
END_TEST

START_TEST(a_fork_that_fails_has_not_happened)
{
    for (unsigned skip = 0; skip < 30; skip++) {
        struct faulty_store *store = faulty_store_new();
        struct engine *engine = engines_open_store(faulty_store_open(store), NULL);
        struct spec spec = engines_spec(DTYPE_F32, "adam");
        uint64_t random = 5 + skip;
        struct fault fault;
        struct session *fork;

        spec.durability.mode = modes[_i % 2];
        spec.durability.seconds = 3000;
        struct session *session = engines_create(engine, "s", &spec, sizes[_i / 3]);
        engines_steps(session, 8, &random);
        struct moment_query query = {false, 0, 5};
        struct fork_request request = {.id = "f", .query = &query, .replay = _i % 3 == 2};
        struct fork_outcome outcome;
        faulty_store_plan(store, (struct faulty_plan){.verbs = FAULTY_ALL,
                                                      .skip = skip,
                                                      .count = 3,
                                                      .status = STATUS_STORAGE_FULL});
        enum status status = session_fork(session, &request, &fork, &outcome, &fault);
        unsigned failures = faulty_store_failures(store);
        faulty_store_plan(store, (struct faulty_plan){.verbs = 0});
        ck_assert(engines_await(is_healthy, engine, 10));
        if (status != STATUS_OK)
            ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
        engines_steps(fork, 3, &random);
        engines_steps(session, 3, &random);
        struct digest one = engines_hash(session), other = engines_hash(fork);
        session_release(fork);
        session_release(session);
        engine_close(engine);
        engine = engines_open_store(faulty_store_open(store), NULL);
        session = engines_find(engine, "s");
        fork = engines_find(engine, "f");
        ck_assert_digest_eq(engines_hash(session), one);
        ck_assert_digest_eq(engines_hash(fork), other);
        session_release(fork);
        session_release(session);
        engine_close(engine);
        faulty_store_free(store);
        if (failures == 0)
            break;
    }
}
END_TEST

Suite *suite_history_faults(void);
Suite *suite_history_faults(void)
{
    Suite *suite = suite_create("history_faults");
    TCase *cases = tcase_create("history_faults");

    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, a_rewind_that_fails_has_not_happened, 0, 6);
    tcase_add_loop_test(cases, a_fork_that_fails_has_not_happened, 0, 6);
    suite_add_tcase(suite, cases);
    return suite;
}
