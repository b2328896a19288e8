/* Who may go on: accumulation, staleness, SSP, workers that are silent, leave, or are sent away. */
#include <check.h>
#include <string.h>

#include "service/core/clock.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"
#include "tests/lib/testing.h"

static void set_up(void)
{
    fixture_open(0x30DE);
}

/* --- accumulation --- */

START_TEST(every_kth_contribution_makes_a_step)
{
    struct spec spec = engines_spec(_i % 2 == 0 ? DTYPE_F32 : DTYPE_F64, "adam");

    spec.aggregation.mode = _i < 2 ? AGGREGATION_ASYNC : AGGREGATION_SSP;
    spec.aggregation.accumulate = 3;
    spec.aggregation.staleness = 100;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    for (uint64_t round = 1; round <= 4; round++) {
        /* In SSP everyone has a name; the same worker may come more than once. */
        const char *unnamed = _i < 2 ? "" : "u";
        struct offer members[3] = {offer_draw("w", 2 * round - 1, &fixture.numbers),
                                   offer_draw(unnamed, 0, &fixture.numbers),
                                   offer_draw("w", 2 * round, &fixture.numbers)};
        if (round % 2 == 0) {
            members[0] = offer_draw(unnamed, 0, &fixture.numbers);
            members[2] = offer_draw(unnamed, 0, &fixture.numbers);
        }
        if (round == 3) {
            members[0].seq = 3;
            members[2].seq = 4;
        }
        for (uint64_t i = 0; i < 3; i++) {
            struct receipt receipt = offer_make(session, &members[i]);
            ck_assert_uint_eq(receipt.received, i + 1);
            ck_assert_uint_eq(receipt.expected, 3);
            ck_assert_uint_eq(receipt.step, round);
            ck_assert_uint_eq(receipt.kind, i < 2 ? RECEIPT_WAITING : RECEIPT_APPLIED);
            if (members[i].seq > 0)
                offer_repeated(session, &members[i]);
        }
        twin_step(&twin, members, 3, PLAIN_MEAN);
        twin_hold(&twin, session);
        rounds_hold_members(session, round, members, 3);
    }
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- staleness --- */

START_TEST(stale_gradients_are_refused)
{
    struct spec spec = engines_spec(DTYPE_F32, _i == 0 ? "sgd" : "dcasgd");
    uint64_t random = fixture.numbers;

    spec.aggregation.max_staleness = 2;
    if (_i == 1)
        engines_hyper(&spec, "revisions", 8);
    struct session *session = fixture_create(&spec);
    engines_steps(session, 5, &random);
    for (uint64_t base = 0; base <= 5; base++) {
        uint64_t current = engines_view(session).step;
        struct offer mine = offer_draw("w", 0, &fixture.numbers);
        mine.based = true;
        mine.base_step = base;
        if (current - base > 2) {
            offer_refused(session, &mine, STATUS_STALE_GRADIENT);
            continue;
        }
        struct receipt receipt = offer_make(session, &mine);
        ck_assert_uint_eq(receipt.staleness, current - base);
        ck_assert(receipt.lr == spec.hyper[HYPER_LR]);
    }
    struct offer unsaid = offer_draw("w", 0, &fixture.numbers);
    offer_make(session, &unsaid); /* is of now */
    session_release(session);
}
END_TEST

START_TEST(stale_gradients_count_for_less)
{
    struct spec spec = engines_spec(DTYPE_F64, _i % 2 == 0 ? "sgd" : "dcasgd");
    uint64_t limit = _i < 2 ? UINT64_MAX : 2;

    spec.aggregation.stale = STALE_SCALE;
    spec.aggregation.max_staleness = limit;
    if (_i % 2 == 1)
        engines_hyper(&spec, "revisions", 8);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    for (uint64_t step = 0; step < 12; step++) {
        struct offer mine = offer_draw("w", 0, &fixture.numbers);
        uint64_t staleness = testing_random(&fixture.numbers) % (step < 6 ? step + 1 : 6);
        mine.delta = false;
        mine.based = true;
        mine.base_step = step - staleness;
        bool scaled = staleness > 0 && (limit == UINT64_MAX || staleness > limit);
        struct receipt receipt = offer_make(session, &mine), plain;
        struct submission submission = offer_submission(&mine, fixture.layout->count);
        if (scaled)
            submission.lr = spec.hyper[HYPER_LR] / (double)(1 + staleness);
        ck_assert_int_eq(engines_submit(twin.session, &submission, &plain, NULL, NULL), STATUS_OK);
        buffer_release(submission.buffer);
        ck_assert_uint_eq(receipt.staleness, staleness);
        twin_hold_receipt(&plain, &receipt);
        twin_hold(&twin, session);
    }
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- SSP --- */

static const char *const runners[] = {"a", "b", "c"};

/* With 0 all go in step. */
START_TEST(who_is_more_than_s_ahead_waits)
{
    uint64_t bound = (uint64_t)_i, clock[3] = {0}, seq[3] = {0}, refused = 0, taken = 0;
    struct spec spec = engines_spec(DTYPE_F32, "sgd");

    spec.aggregation.mode = AGGREGATION_SSP;
    spec.aggregation.staleness = bound;
    spec.aggregation.lease_s = 1000;
    struct session *session = fixture_create(&spec);
    for (size_t k = 0; k < 3; k++, taken++) { /* all are there */
        struct offer mine = offer_draw(runners[k], 1, &fixture.numbers);
        offer_make(session, &mine);
        seq[k] = 1;
        clock[k] = rounds_worker(session, runners[k]).contributions;
    }
    for (int i = 0; i < 120; i++) {
        /* One of them is slow. */
        size_t k =
            testing_random(&fixture.numbers) % 8 == 0 ? 2 : testing_random(&fixture.numbers) % 2;
        uint64_t slowest = clock[0];
        for (size_t other = 1; other < 3; other++)
            slowest = clock[other] < slowest ? clock[other] : slowest;
        struct offer mine = offer_draw(runners[k], seq[k] + 1, &fixture.numbers);
        if (clock[k] > slowest + bound) {
            offer_refused(session, &mine, STATUS_TOO_FAR_AHEAD);
            refused++;
            continue;
        }
        ck_assert_uint_eq(offer_make(session, &mine).step, ++taken);
        seq[k]++;
        ck_assert_uint_eq(rounds_worker(session, runners[k]).contributions, ++clock[k]);
        ck_assert_uint_eq(rounds_worker(session, runners[k]).seq, seq[k]);
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_gt(taken, 10);
    session_release(session);
}
END_TEST

/* Until it is refused; how often it was taken. */
static uint64_t run_ahead(struct session *session, const char *name, uint64_t at_most)
{
    struct fault fault;

    for (uint64_t taken = 0; taken < at_most; taken++) {
        struct offer mine = offer_draw(name, 0, &fixture.numbers);
        enum status status = offer_try(session, &mine, NULL, NULL, &fault);
        if (status == STATUS_TOO_FAR_AHEAD)
            return taken;
        if (status != STATUS_OK)
            ck_abort_msg("%s: %s", name, fault.detail);
    }
    return at_most;
}

START_TEST(who_is_silent_holds_up_nobody)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");

    spec.aggregation.mode = AGGREGATION_SSP;
    spec.aggregation.staleness = 2;
    spec.aggregation.lease_s = 0.4;
    struct session *session = fixture_create(&spec);
    ck_assert_uint_eq(run_ahead(session, "a", 1), 1);
    ck_assert_uint_eq(run_ahead(session, "b", 1), 1);
    uint64_t start = rounds_worker(session, "b").contributions;
    uint64_t ahead = run_ahead(session, "a", 50);
    if (ahead < 50) /* a machine that dozed for a lease says nothing */
        ck_assert_uint_eq(rounds_worker(session, "a").contributions, start + 3);
    testing_pause(0.6);
    ck_assert(!rounds_worker(session, "b").live);
    ck_assert_uint_eq(run_ahead(session, "a", 50), 50);
    /* Back again, it stands where the slowest does and holds up who runs from there. */
    ck_assert_uint_eq(run_ahead(session, "b", 1), 1);
    uint64_t a = rounds_worker(session, "a").contributions;
    uint64_t b = rounds_worker(session, "b").contributions;
    ck_assert(b == a || b == a + 1);
    ck_assert(rounds_worker(session, "b").live);
    session_release(session);
}
END_TEST

START_TEST(who_is_dismissed_holds_up_nobody)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct fault fault;

    spec.aggregation.mode = AGGREGATION_SSP;
    spec.aggregation.staleness = 1;
    spec.aggregation.lease_s = 1000;
    struct session *session = fixture_create(&spec);
    struct offer slow = offer_draw("slow", 1, &fixture.numbers);
    offer_make(session, &slow);
    run_ahead(session, "quick", 1);
    uint64_t ahead = run_ahead(session, "quick", 50);
    ck_assert_uint_lt(ahead, 3);
    struct digest before = engines_hash(session);
    ck_assert_int_eq(session_dismiss(session, "nobody", &fault), STATUS_NOT_FOUND);
    ck_assert_int_eq(session_dismiss(session, "slow", &fault), STATUS_OK);
    ck_assert_int_eq(session_dismiss(session, "slow", &fault), STATUS_NOT_FOUND);
    ck_assert_digest_eq(engines_hash(session), before);
    ck_assert_str_eq(rounds_worker(session, "slow").name, "");
    ck_assert_uint_eq(run_ahead(session, "quick", 50), 50);
    offer_make(session, &slow); /* its seq starts at 1 again */
    uint64_t quick = rounds_worker(session, "quick").contributions;
    ck_assert_uint_ge(rounds_worker(session, "slow").contributions, quick);
    session_release(session);
}
END_TEST

START_TEST(what_the_dismissed_has_contributed_stays)
{
    struct spec spec = rounds_spec(DTYPE_F64, "sgd", 2);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer members[2] = {offer_draw("a", 1, &fixture.numbers),
                               offer_draw("b", 1, &fixture.numbers)};
    struct fault fault;

    offer_make(session, &members[0]);
    ck_assert_int_eq(session_dismiss(session, "a", &fault), STATUS_OK);
    ck_assert_uint_eq(engines_view(session).round_received, 1);
    ck_assert_uint_eq(offer_make(session, &members[1]).kind, RECEIPT_APPLIED);
    twin_step(&twin, members, 2, PLAIN_MEAN);
    twin_hold(&twin, session);
    rounds_hold_members(session, 1, members, 2);
    twin_close(&twin);
    session_release(session);
}
END_TEST

START_TEST(workers_are_listed)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = fixture_create(&spec);
    uint64_t before = clock_unix_us(), random = fixture.numbers;
    struct offer mine = offer_draw("w", 1, &fixture.numbers);

    engines_steps(session, 3, &random);
    ck_assert_str_eq(rounds_worker(session, "w").name, "");
    mine.based = true;
    mine.base_step = 2;
    offer_make(session, &mine);
    engines_steps(session, 2, &random);
    struct worker_view view = rounds_worker(session, "w");
    ck_assert_str_eq(view.name, "w");
    ck_assert_uint_eq(view.seq, 1);
    ck_assert_uint_eq(view.contributions, 1);
    ck_assert_uint_eq(view.base_step, 2);
    ck_assert_uint_eq(view.lag, 4); /* it stands at 6 */
    ck_assert(view.seen_us >= before && view.seen_us <= clock_unix_us());
    ck_assert(view.live);
    ck_assert(!view.waiting);
    mine = offer_draw("v", 0, &fixture.numbers);
    offer_make(session, &mine);
    ck_assert_uint_eq(rounds_worker(session, "v").seq, 0);
    session_release(session);
}
END_TEST

Suite *suite_round_modes(void);
Suite *suite_round_modes(void)
{
    Suite *suite = suite_create("round_modes");
    TCase *modes = tcase_create("modes");

    tcase_add_checked_fixture(modes, set_up, fixture_close);
    tcase_set_timeout(modes, 60);
    tcase_add_loop_test(modes, every_kth_contribution_makes_a_step, 0, 4);
    tcase_add_loop_test(modes, stale_gradients_are_refused, 0, 2);
    tcase_add_loop_test(modes, stale_gradients_count_for_less, 0, 4);
    tcase_add_loop_test(modes, who_is_more_than_s_ahead_waits, 0, 3);
    tcase_add_test(modes, who_is_silent_holds_up_nobody);
    tcase_add_test(modes, who_is_dismissed_holds_up_nobody);
    tcase_add_test(modes, what_the_dismissed_has_contributed_stays);
    tcase_add_test(modes, workers_are_listed);
    suite_add_tcase(suite, modes);
    return suite;
}
