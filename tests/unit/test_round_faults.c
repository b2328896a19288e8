/* Half-collected rounds over whatever happens: a commit that fails, a session that leaves memory, a
 * checkpoint. No member is lost or counted twice. */
#include <check.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"

static void set_up(void)
{
    log_set_level(LOG_OFF); /* faults are what is wanted */
    fixture_open(0x4FA1);
}

struct retry {
    struct session *session;
    struct offer offer;
    struct receipt receipt;
    bool replayed;
};

static bool taken_again(void *context)
{
    struct retry *retry = context;

    return offer_try(retry->session, &retry->offer, &retry->receipt, &retry->replayed, NULL) ==
           STATUS_OK;
}

/* --- a store that fails --- */

static const struct failure {
    enum faulty_verb verb;
    enum status status;
    const char *rule;
} failures[] = {
    {FAULTY_BEGIN, STATUS_STORAGE_FULL, "adam"},
    {FAULTY_EVENT_APPEND, STATUS_STORAGE_FULL, "adam"},
    {FAULTY_COMMIT, STATUS_STORAGE_FULL, "adam"},
    {FAULTY_COMMIT, STATUS_STORAGE_FAILED, "adam"},
    {FAULTY_COMMIT, STATUS_STORAGE_FULL, "muon"},
};

/* The write of every member fails once; so does that of the one that closes the round. */
START_TEST(a_failed_commit_leaves_the_round_as_it_was)
{
    const struct failure *failure = &failures[_i];
    struct spec spec = rounds_spec(DTYPE_F64, failure->rule, WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer members[WORKERS];
    bool slow = failure->status == STATUS_STORAGE_FAILED;

    for (uint64_t round = 1; round <= 2; round++) {
        for (size_t i = 0; i < WORKERS; i++) {
            members[i] = fixture_draw(i, round);
            if (slow && (round > 1 || i % 3 > 0)) { /* the store is checked for a second */
                offer_make(session, &members[i]);
                continue;
            }
            faulty_store_plan(fixture.store, (struct faulty_plan){.verbs = (unsigned)failure->verb,
                                                                  .count = 1000,
                                                                  .status = failure->status});
            offer_refused(session, &members[i], failure->status);
            ck_assert_uint_eq(engines_view(session).step, round - 1);
            ck_assert_uint_eq(rounds_worker(session, round_names[i]).seq, round - 1);
            ck_assert(!rounds_worker(session, round_names[i]).waiting);
            faulty_store_plan(fixture.store, (struct faulty_plan){0});
            struct retry retry = {.session = session, .offer = members[i]};
            ck_assert(engines_await(taken_again, &retry, 5));
            ck_assert(!retry.replayed);
            ck_assert_uint_eq(retry.receipt.received, i + 1);
        }
        twin_step(&twin, members, WORKERS, PLAIN_MEAN);
        twin_hold(&twin, session);
        rounds_hold_members(session, round, members, WORKERS);
    }
    session = fixture_restart(session, RESTART_IN_ORDER);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- a round is open while the session goes through something --- */

static void nothing(struct session **session)
{
    (void)session;
}

static void close_and_open(struct session **session)
{
    *session = fixture_restart(*session, RESTART_IN_ORDER);
}

static void save(struct session **session)
{
    rounds_save(*session);
}

static void save_and_evict(struct session **session)
{
    save(session);
    session_evict(*session);
    ck_assert_ptr_null((*session)->state);
}

static void evict(struct session **session) /* stays unless it is saved */
{
    session_evict(*session);
}

static void save_and_open(struct session **session)
{
    save(session);
    close_and_open(session);
    close_and_open(session);
}

static const struct interlude {
    void (*happen)(struct session **session);
    bool patches;
} interludes[] = {{nothing, false},        {close_and_open, false}, {save, false},
                  {save_and_evict, false}, {evict, false},          {save_and_open, false},
                  {save_and_evict, true}};

START_TEST(an_open_round_survives)
{
    const struct interlude *interlude = &interludes[_i];
    struct spec spec = rounds_spec(DTYPE_F32, "adam", WORKERS);
    spec.gradient.clip_norm = 2; /* what a replay measures decides bits */
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer members[WORKERS];

    for (uint64_t round = 1; round <= 3; round++) {
        for (size_t i = 0; i < WORKERS; i++) {
            interlude->happen(&session);
            ck_assert_uint_eq(engines_view(session).round_received, i);
            ck_assert_uint_eq(engines_view(session).step, round - 1);
            if (interlude->patches && i == 2) {
                rounds_patch(session, rounds_rate, round + 7);
                rounds_patch(twin.session, rounds_rate, round + 7);
            }
            if (i > 0) {
                offer_repeated(session, &members[i - 1]);
                ck_assert(rounds_worker(session, round_names[i - 1]).waiting);
                struct offer again = fixture_draw(i - 1, round + 1);
                offer_refused(session, &again, STATUS_ALREADY_CONTRIBUTED);
            }
            members[i] = fixture_draw(i, round);
            ck_assert_uint_eq(offer_make(session, &members[i]).received, i + 1);
        }
        twin_step(&twin, members, WORKERS, PLAIN_MEAN);
        twin_hold(&twin, session);
        interlude->happen(&session);
        twin_hold(&twin, session);
        rounds_hold_members(session, round, members, WORKERS);
    }
    twin_close(&twin);
    session_release(session);
}
END_TEST

Suite *suite_round_faults(void);
Suite *suite_round_faults(void)
{
    Suite *suite = suite_create("round_faults");
    TCase *faults = tcase_create("what happens meanwhile");

    tcase_add_checked_fixture(faults, set_up, fixture_close);
    tcase_set_timeout(faults, 60);
    tcase_add_loop_test(faults, a_failed_commit_leaves_the_round_as_it_was, 0,
                        (int)(sizeof failures / sizeof *failures));
    tcase_add_loop_test(faults, an_open_round_survives, 0,
                        (int)(sizeof interludes / sizeof *interludes));
    suite_add_tcase(suite, faults);
    return suite;
}
