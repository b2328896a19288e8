/* When a round closes and with what: quorum and time, who waits for it, gradients that are not
 * finite, configurations that change while it is open. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "service/core/clock.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"
#include "tests/lib/testing.h"

static void set_up(void)
{
    fixture_open(0xC105);
}

static double now_s(void)
{
    return (double)clock_monotonic_us() / 1e6;
}

static bool at_step(void *context)
{
    return engines_view(context).step >= 1;
}

/* --- quorum and time --- */

START_TEST(a_round_closes_at_its_quorum_when_time_is_up)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", 4);

    spec.aggregation.quorum = 2;
    spec.aggregation.timeout_s = 0.25;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer members[3] = {offer_draw("b", 1, &fixture.numbers),
                               offer_draw("a", 1, &fixture.numbers),
                               offer_draw("c", 1, &fixture.numbers)};
    double began = now_s();
    struct receipt receipt = offer_make(session, &members[0]);
    ck_assert_uint_eq(receipt.expected, 4);
    if (_i == 1) { /* nobody else comes in time: it waits for the quorum */
        testing_pause(0.6);
        ck_assert_uint_eq(engines_view(session).step, 0);
        ck_assert_uint_eq(engines_view(session).round_received, 1);
        offer_make(session, &members[1]); /* and closes with it */
        ck_assert(engines_await(at_step, session, 5));
        ck_assert_uint_eq(engines_view(session).step, 1);
    } else {
        offer_make(session, &members[1]);
        ck_assert(engines_await(at_step, session, 5));
        ck_assert(now_s() - began >= 0.25); /* not before */
    }
    twin_step(&twin, members, 2, PLAIN_MEAN);
    twin_hold(&twin, session);
    rounds_hold_members(session, 1, members, 2);
    members[2].based = true;
    offer_refused(session, &members[2], STATUS_STALE_GRADIENT);
    members[2].base_step = 1;
    ck_assert_uint_eq(offer_make(session, &members[2]).step, 2);
    twin_close(&twin);
    session_release(session);
}
END_TEST

START_TEST(a_full_round_does_not_wait_for_its_time)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 3);

    spec.aggregation.quorum = 2;
    spec.aggregation.timeout_s = 100;
    struct session *session = fixture_create(&spec);
    struct offer mine;
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(engines_view(session).step, 0);
        mine = offer_draw((const char *[]){"a", "b", "c"}[i], 1, &fixture.numbers);
        offer_make(session, &mine);
    }
    ck_assert_uint_eq(engines_view(session).step, 1);
    session_release(session);
}
END_TEST

START_TEST(without_time_the_quorum_closes_at_once)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 8);

    spec.aggregation.quorum = 3;
    spec.aggregation.timeout_s = 0;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    for (uint64_t round = 1; round <= 2; round++) {
        struct offer members[3] = {offer_draw("z", 0, &fixture.numbers),
                                   offer_draw("y", round, &fixture.numbers),
                                   offer_draw("x", round, &fixture.numbers)};
        for (int i = 0; i < 3; i++)
            offer_make(session, &members[i]);
        ck_assert_uint_eq(engines_view(session).step, round);
        twin_step(&twin, members, 3, PLAIN_MEAN);
        twin_hold(&twin, session);
    }
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- waiting --- */

struct waiter {
    struct session *session;
    struct offer offer;
    double wait_s, took_s;
    enum status status;
    struct outcome outcome;
    pthread_t thread;
};

static void *wait_for_round(void *context)
{
    struct waiter *waiter = context;
    struct submission submission = offer_submission(&waiter->offer, fixture.layout->count);
    double began = now_s();
    struct fault fault;

    submission.wait_s = waiter->wait_s;
    waiter->status = session_submit(waiter->session, &submission, &waiter->outcome, &fault);
    waiter->took_s = now_s() - began;
    buffer_release(submission.buffer);
    return NULL;
}

static void start_waiter(struct waiter *waiter, struct session *session, const char *name,
                         double wait_s)
{
    *waiter = (struct waiter){
        .session = session, .offer = offer_draw(name, 1, &fixture.numbers), .wait_s = wait_s};
    ck_assert_int_eq(pthread_create(&waiter->thread, NULL, wait_for_round, waiter), 0);
}

static void end_waiter(struct waiter *waiter)
{
    pthread_join(waiter->thread, NULL);
    ck_assert_int_eq(waiter->status, STATUS_OK);
    revision_release(waiter->outcome.revision);
}

static bool two_in(void *context)
{
    return engines_view(context).round_received == 2;
}

START_TEST(who_waits_gets_the_receipt_of_the_step)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 3);
    struct session *session = fixture_create(&spec);
    struct waiter waiters[2];
    struct offer last = offer_draw("c", 1, &fixture.numbers);

    start_waiter(&waiters[0], session, "a", 30);
    start_waiter(&waiters[1], session, "b", 30);
    ck_assert(engines_await(two_in, session, 5));
    struct receipt receipt = offer_make(session, &last);
    ck_assert_uint_eq(receipt.kind, RECEIPT_APPLIED);
    for (int i = 0; i < 2; i++) {
        end_waiter(&waiters[i]);
        ck_assert(waiters[i].took_s < 10);
        ck_assert(!waiters[i].outcome.replayed);
        twin_hold_receipt(&receipt, &waiters[i].outcome.receipt);
        ck_assert_uint_eq(waiters[i].outcome.receipt.durable_step, 1);
        ck_assert_uint_eq(waiters[i].outcome.receipt.received, 3);
    }
    session_release(session);
}
END_TEST

START_TEST(waiting_has_an_end)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 3);
    struct session *session = fixture_create(&spec);
    struct waiter waiters[2];

    start_waiter(&waiters[0], session, "a", 0.2);
    end_waiter(&waiters[0]);
    ck_assert(waiters[0].took_s >= 0.2);
    ck_assert_uint_eq(waiters[0].outcome.receipt.kind, RECEIPT_WAITING);
    ck_assert_uint_eq(waiters[0].outcome.receipt.received, 1);
    start_waiter(&waiters[1], session, "b", 60);
    ck_assert(engines_await(two_in, session, 5));
    engine_drain(fixture.engine);
    end_waiter(&waiters[1]);
    ck_assert(waiters[1].took_s < 10);
    ck_assert_uint_eq(waiters[1].outcome.receipt.kind, RECEIPT_WAITING);
    session_release(session);
}
END_TEST

/* A repeat that waits gets what the first would have got. */
START_TEST(a_repeat_may_wait)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 2);
    struct session *session = fixture_create(&spec);
    struct waiter first, again;
    struct offer last = offer_draw("b", 1, &fixture.numbers);

    start_waiter(&first, session, "a", 0);
    end_waiter(&first);
    again = (struct waiter){.session = session, .offer = first.offer, .wait_s = _i == 0 ? 30 : 0.1};
    ck_assert_int_eq(pthread_create(&again.thread, NULL, wait_for_round, &again), 0);
    testing_pause(_i == 0 ? 0.1 : 0.3);
    ck_assert_uint_eq(engines_view(session).round_received, 1);
    struct receipt receipt = offer_make(session, &last);
    end_waiter(&again);
    ck_assert(again.took_s < 10);
    ck_assert(again.outcome.replayed);
    if (_i == 0)
        twin_hold_receipt(&receipt, &again.outcome.receipt);
    else
        ck_assert_uint_eq(again.outcome.receipt.kind, RECEIPT_WAITING);
    session_release(session);
}
END_TEST

/* --- gradients that are not finite --- */

START_TEST(one_that_is_not_finite)
{
    struct spec spec = rounds_spec(DTYPE_F32, "adam", 2);

    spec.gradient.nonfinite = _i;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer good = offer_draw("a", 1, &fixture.numbers),
                 bad = offer_draw("b", 1, &fixture.numbers);
    bad.wire = DTYPE_F32;
    struct submission submission = offer_submission(&bad, fixture.layout->count);
    float nan = NAN;
    struct receipt receipt;
    struct fault fault;

    memcpy(submission.buffer->data + 5 * sizeof nan, &nan, sizeof nan);
    if (_i == NONFINITE_REJECT) {
        offer_make(session, &good);
        struct digest before = engines_digest(session, true);
        ck_assert_int_eq(engines_submit(session, &submission, &receipt, NULL, &fault),
                         STATUS_NONFINITE_GRADIENT);
        ck_assert_digest_eq(engines_digest(session, true), before);
        ck_assert_uint_eq(engines_view(session).round_received, 1);
        offer_make(session, &bad); /* as it should have been; its seq was not used up */
        twin_step(&twin, (struct offer[]){good, bad}, 2, PLAIN_MEAN);
    } else {
        ck_assert_int_eq(engines_submit(session, &submission, &receipt, NULL, &fault), STATUS_OK);
        receipt = offer_make(session, &good);
        ck_assert_uint_eq(receipt.kind, _i == NONFINITE_SKIP ? RECEIPT_SKIPPED : RECEIPT_APPLIED);
    }
    if (_i == NONFINITE_SKIP) {
        struct buffer *whole = engines_constant(fixture.layout->count, nan);
        struct submission plain = engines_submission(whole, DTYPE_F32);
        ck_assert_int_eq(engines_submit(twin.session, &plain, NULL, NULL, &fault), STATUS_OK);
        buffer_release(whole);
    }
    if (_i == NONFINITE_ZERO) {
        struct submission other = offer_submission(&good, fixture.layout->count);
        struct buffer *mean = buffer_new(fixture.layout->count * sizeof(float));
        double sign = bad.delta ? -1 : 1, good_sign = good.delta ? -1 : 1;
        for (size_t i = 0; i < fixture.layout->count; i++) {
            float b;
            double g;
            memcpy(&b, submission.buffer->data + i * sizeof b, sizeof b);
            dtype_convert(DTYPE_F64, &g, good.wire, other.buffer->data + i * dtype_size(good.wire),
                          1);
            double sum = good.examples * good_sign * (double)(float)g +
                         (i == 5 ? 0 : bad.examples * sign * (double)b);
            float value = (float)(sum / (good.examples + bad.examples));
            memcpy(mean->data + i * sizeof value, &value, sizeof value);
        }
        struct submission plain = engines_submission(mean, DTYPE_F32);
        ck_assert_int_eq(engines_submit(twin.session, &plain, NULL, NULL, &fault), STATUS_OK);
        buffer_release(mean);
        buffer_release(other.buffer);
    }
    twin_hold(&twin, session);
    buffer_release(submission.buffer);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- the configuration changes while a round is open --- */

static void set_workers(struct spec *spec, uint64_t value)
{
    spec->aggregation.workers = value;
}

static void set_async(struct spec *spec, uint64_t value)
{
    struct spec plain;

    (void)value;
    spec_init(&plain);
    spec->aggregation = plain.aggregation;
}

static void set_sum(struct spec *spec, uint64_t value)
{
    (void)value;
    spec->aggregation.reduction = REDUCTION_SUM;
}

static void set_rate(struct spec *spec, uint64_t value)
{
    spec->hyper[HYPER_LR] = (double)value / 64;
}

START_TEST(a_patch_holds_for_the_open_round)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", 3);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct offer members[4] = {
        offer_draw("d", 1, &fixture.numbers), offer_draw("c", 1, &fixture.numbers),
        offer_draw("b", 1, &fixture.numbers), offer_draw("a", 1, &fixture.numbers)};
    size_t member_count = 3;
    enum plain plain = PLAIN_MEAN;

    offer_make(session, &members[0]);
    offer_make(session, &members[1]);
    switch (_i) {
    case 0: /* one more */
        rounds_patch(session, set_workers, 4);
        ck_assert_uint_eq(offer_make(session, &members[2]).expected, 4);
        offer_make(session, &members[3]);
        member_count = 4;
        break;
    case 1: /* enough are there already */
        rounds_patch(session, set_workers, 2);
        member_count = 2;
        break;
    case 2:
        rounds_patch(session, set_async, 0);
        member_count = 2;
        break;
    case 3:
        rounds_patch(session, set_sum, 0);
        offer_make(session, &members[2]);
        plain = PLAIN_SUM;
        break;
    default:
        rounds_patch(session, set_rate, 5);
        rounds_patch(twin.session, set_rate, 5);
        offer_make(session, &members[2]);
        break;
    }
    ck_assert(engines_await(at_step, session, 5));
    ck_assert_uint_eq(engines_view(session).step, 1);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    twin_step(&twin, members, member_count, plain);
    twin_hold(&twin, session);
    rounds_hold_members(session, 1, members, member_count);
    twin_close(&twin);
    session_release(session);
}
END_TEST

Suite *suite_round_closing(void);
Suite *suite_round_closing(void)
{
    Suite *suite = suite_create("round_closing");
    TCase *closing = tcase_create("closing");

    tcase_add_checked_fixture(closing, set_up, fixture_close);
    tcase_set_timeout(closing, 60);
    tcase_add_loop_test(closing, a_round_closes_at_its_quorum_when_time_is_up, 0, 2);
    tcase_add_test(closing, a_full_round_does_not_wait_for_its_time);
    tcase_add_test(closing, without_time_the_quorum_closes_at_once);
    tcase_add_test(closing, who_waits_gets_the_receipt_of_the_step);
    tcase_add_test(closing, waiting_has_an_end);
    tcase_add_loop_test(closing, a_repeat_may_wait, 0, 2);
    tcase_add_loop_test(closing, one_that_is_not_finite, NONFINITE_REJECT, NONFINITE_ZERO + 1);
    tcase_add_loop_test(closing, a_patch_holds_for_the_open_round, 0, 5);
    suite_add_tcase(suite, closing);
    return suite;
}
