/* Where an open round meets what else happens to a session: another configuration, replaced
 * weights, rewinds, forks, rules that propose, gradients that are not finite. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"
#include "tests/lib/testing.h"

static void set_up(void)
{
    log_set_level(LOG_OFF); /* faults are what is wanted */
    fixture_open(0xED6E);
}

/* A whole one. */
static void take_round(const struct twin *twin, struct session *session, uint64_t seq,
                       size_t workers)
{
    for (size_t i = 0; i < workers; i++)
        fixture_join(session, i, seq);
    fixture_hold(twin, session);
}

/* The same weights for both. */
static void replace(struct session *one, struct session *other)
{
    struct buffer *weights =
        engines_gradient(session_dtype(one), fixture.layout->count, &fixture.numbers);
    struct session *sessions[] = {one, other};
    struct outcome outcome;
    struct fault fault;

    for (int i = 0; i < 2; i++) {
        if (session_replace(sessions[i], weights, &(struct precondition){.given = false}, &outcome,
                            &fault) != STATUS_OK)
            ck_abort_msg("session_replace: %s", fault.detail);
        revision_release(outcome.revision);
    }
    buffer_release(weights);
}

/* --- configurations --- */

static void set_rescale(struct spec *spec, uint64_t value)
{
    spec->gradient.rescale = 1 / (double)value;
}

/* Norms that were measured by the configuration of then hold. */
START_TEST(a_change_amid_a_round_does_not_spoil_its_members)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);

    take_round(&twin, session, 1, WORKERS);
    fixture_join(session, 0, 2);
    fixture_join(session, 1, 2);
    rounds_patch(session, set_rescale, 3);
    rounds_patch(twin.session, set_rescale, 3);
    session = fixture_restart(session, (enum restart)(_i % 3));
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    fixture_join(session, 2, 2);
    session = fixture_restart(session, (enum restart)(_i / 3));
    fixture_join(session, 3, 2);
    fixture_hold(&twin, session);
    session = fixture_restart(session, RESTART_BARE);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* Revisions that are kept for late gradients: a change that keeps fewer, and is taken back, has
 * dropped them once. */
START_TEST(kept_revisions_come_back_as_they_were)
{
    struct spec spec = engines_spec(DTYPE_F64, "dcasgd");
    struct engine *other = engines_open("memory:", NULL);

    engines_hyper(&spec, "revisions", 4);
    spec.aggregation.accumulate = 2;
    struct session *session = fixture_create(&spec),
                   *steady = rounds_create(other, "one", &spec, fixture.layout);
    struct session *sessions[] = {session, steady};
    for (int k = 0; k < 2; k++) {
        fixture.numbers = testing_seed();
        for (size_t i = 0; i < 7; i++)
            fixture_join(sessions[k], i % 2, i / 2 + 1);
        engines_patch(sessions[k], "revisions", 1);
        engines_patch(sessions[k], "revisions", 4);
        ck_assert_uint_eq(engines_view(sessions[k]).round_received, 1);
    }
    replace(session, steady);
    replace(session, steady);
    session = fixture_restart(session, (enum restart)_i);
    ck_assert_digest_eq(engines_digest(session, true), engines_digest(steady, true));
    struct offer last = fixture_draw(1, 4);
    offer_make(session, &last);
    offer_make(steady, &last);
    ck_assert_uint_eq(engines_view(session).step, 6);
    ck_assert_digest_eq(engines_digest(session, false), engines_digest(steady, false));
    session_release(session);
    session_release(steady);
    engine_close(other);
}
END_TEST

static enum status keep_no_journal(void *context, struct spec *spec, struct fault *fault)
{
    struct spec plain;

    (void)context;
    (void)fault;
    spec_init(&plain);
    spec->aggregation = plain.aggregation;
    spec->durability.mode = DURABILITY_CHECKPOINT;
    spec->durability.steps = 1;
    return STATUS_OK;
}

static void keep_journal(struct spec *spec, uint64_t value)
{
    (void)value;
    spec->durability.mode = DURABILITY_STEP;
}

START_TEST(the_journal_is_kept_until_the_round_closes)
{
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    spec.aggregation.accumulate = WORKERS;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct fault fault;

    fixture_join(session, 0, 1);
    fixture_join(session, 1, 1);
    struct digest before = engines_digest(session, true);
    ck_assert_int_eq(session_patch(session, keep_no_journal, NULL, &fault), STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "/durability/mode");
    ck_assert_digest_eq(engines_digest(session, true), before);
    session = fixture_restart(session, RESTART_BARE);
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    fixture_join(session, 2, 1);
    fixture_join(session, 3, 1);
    fixture_hold(&twin, session);
    ck_assert_int_eq(session_patch(session, keep_no_journal, NULL, &fault), STATUS_OK);
    ck_assert_uint_eq(fixture_join(session, 0, 2).step, 2); /* alone */
    twin_step(&twin, fixture.open_round.members, 1, PLAIN_MEAN);
    session = fixture_restart(session, RESTART_IN_ORDER);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* The configuration comes back with a revision, but for its durability. */
START_TEST(no_rewind_to_rounds_without_a_journal)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", 2);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct moment_query query = {.step = 1};
    struct fault fault;

    take_round(&twin, session, 1, 2);
    take_round(&twin, session, 2, 2);
    ck_assert_int_eq(session_patch(session, keep_no_journal, NULL, &fault), STATUS_OK);
    struct digest before = engines_digest(session, true);
    ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_INVALID_FIELD);
    ck_assert_digest_eq(engines_digest(session, true), before);
    ck_assert_uint_eq(engines_view(session).lineage, engines_view(twin.session).lineage);
    rounds_patch(session, keep_journal, 0);
    ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
    ck_assert_int_eq(session_rewind(twin.session, &query, &fault), STATUS_OK);
    ck_assert_int_eq(engines_view(session).spec.aggregation.mode, AGGREGATION_SYNC);
    take_round(&twin, session, 3, 2);
    session = fixture_restart(session, RESTART_BARE);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- weights --- */

START_TEST(replaced_weights_leave_the_members)
{
    struct spec spec = rounds_spec(DTYPE_F32, "adam", WORKERS);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);

    take_round(&twin, session, 1, WORKERS);
    fixture_join(session, 0, 2);
    fixture_join(session, 1, 2);
    session = fixture_restart(session, (enum restart)(_i / 3));
    replace(session, twin.session);
    session = fixture_restart(session, (enum restart)(_i % 3));
    ck_assert_uint_eq(engines_view(session).step, 2);
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    struct offer second = fixture_draw(0, 3);
    offer_refused(session, &second, STATUS_ALREADY_CONTRIBUTED);
    offer_repeated(session, &fixture.open_round.members[1]);
    ck_assert_uint_eq(fixture_join(session, 2, 2).received, 3);
    fixture_join(session, 3, 2);
    fixture_hold(&twin, session);
    session = fixture_restart(session, RESTART_BARE);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* From before them or after (step 3), with or without a round that a rewind had dropped. */
START_TEST(a_fork_replays_rounds_over_replaced_weights)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct session *session = fixture_create(&spec), *fork;
    struct twin twin = fixture_twin(&spec);
    struct moment_query from = {.step = (uint64_t)_i % 4}, here = {.step = 2};
    struct fork_outcome outcome;
    struct fault fault;

    take_round(&twin, session, 1, WORKERS);
    take_round(&twin, session, 2, WORKERS);
    fixture_join(session, 0, 3);
    fixture_join(session, 2, 3);
    if (_i >= 4) {
        ck_assert_int_eq(session_rewind(session, &here, &fault), STATUS_OK);
        fixture.open_round.count = 0;
        fixture_join(session, 3, 3);
        fixture_join(session, 2, 3);
    }
    replace(session, twin.session);
    fixture_join(session, 1, 3);
    fixture_join(session, _i >= 4 ? 0 : 3, 3);
    fixture_hold(&twin, session);
    fixture_join(session, 1, 4);
    struct fork_request request = {.id = "two", .query = &from, .replay = true};
    if (session_fork(session, &request, &fork, &outcome, &fault) != STATUS_OK)
        ck_abort_msg("fork: %s", fault.detail);
    ck_assert_uint_eq(engines_view(fork).round_received, 0);
    ck_assert_uint_eq(engines_view(session).round_received, 1);
    twin_hold(&twin, fork);
    session_release(fork);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* So many events without one; then weights are put, after which it is time to look. */
static size_t checkpoints_after(struct session *session, struct session *twin, uint64_t dirty)
{
    struct checkpoint_view views[1];

    pthread_mutex_lock(&session->mutex);
    session->dirty = dirty;
    pthread_mutex_unlock(&session->mutex);
    replace(session, twin);
    return session_checkpoints(session, views, 1);
}

START_TEST(a_checkpoint_waits_for_the_round_but_not_for_ever)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", (uint64_t)_i + 1);
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);
    struct checkpoint_view views[1];
    size_t before = session_checkpoints(session, views, 1);

    if (_i > 0)
        fixture_join(session, 0, 1);
    ck_assert_uint_eq(checkpoints_after(session, twin.session, 5000), before + (_i == 0));
    ck_assert_uint_eq(checkpoints_after(session, twin.session, 100000), before + 1 + (_i == 0));
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- what is not applied --- */

static struct receipt send_nan(struct session *session, const char *worker)
{
    struct buffer *numbers_of = buffer_new_zeroed(fixture.layout->count * sizeof(double));
    struct submission submission = engines_submission(numbers_of, DTYPE_F64);
    struct receipt receipt;
    struct fault fault;

    memcpy(numbers_of->data, &(double){(double)NAN}, sizeof(double));
    submission.worker = worker;
    submission.seq = worker == NULL ? 0 : 1;
    if (engines_submit(session, &submission, &receipt, NULL, &fault) != STATUS_OK)
        ck_abort_msg("a gradient that is not finite: %s", fault.detail);
    buffer_release(numbers_of);
    return receipt;
}

/* The one that closes, or one before it: a rule that proposes has nothing to propose. */
START_TEST(a_member_that_is_not_finite_skips_the_round)
{
    struct spec spec = rounds_spec(DTYPE_F64, _i < 2 ? "adam" : "muon", 2);
    spec.gradient.nonfinite = NONFINITE_SKIP;
    struct session *session = fixture_create(&spec);
    struct twin twin = fixture_twin(&spec);

    if (_i % 2 == 0)
        fixture_join(session, 0, 1);
    struct receipt receipt = send_nan(session, round_names[1]);
    if (_i % 2 == 1)
        receipt = fixture_join(session, 0, 1);
    fixture.open_round.count = 0;
    ck_assert_uint_eq(receipt.kind, RECEIPT_SKIPPED);
    ck_assert_uint_eq(receipt.step, 1);
    ck_assert_uint_eq(send_nan(twin.session, NULL).kind, RECEIPT_SKIPPED);
    twin_hold(&twin, session);
    take_round(&twin, session, 2, 2);
    session = fixture_restart(session, RESTART_BARE);
    twin_hold(&twin, session);
    take_round(&twin, session, 3, 2);
    twin_close(&twin);
    session_release(session);
}
END_TEST

Suite *suite_round_edges(void);
Suite *suite_round_edges(void)
{
    Suite *suite = suite_create("round_edges");
    TCase *edges = tcase_create("an open round and");

    tcase_add_checked_fixture(edges, set_up, fixture_close);
    tcase_set_timeout(edges, 60);
    tcase_add_loop_test(edges, a_change_amid_a_round_does_not_spoil_its_members, 0, 9);
    tcase_add_loop_test(edges, kept_revisions_come_back_as_they_were, 0, 3);
    tcase_add_test(edges, the_journal_is_kept_until_the_round_closes);
    tcase_add_test(edges, no_rewind_to_rounds_without_a_journal);
    tcase_add_loop_test(edges, replaced_weights_leave_the_members, 0, 9);
    tcase_add_loop_test(edges, a_fork_replays_rounds_over_replaced_weights, 0, 8);
    tcase_add_loop_test(edges, a_checkpoint_waits_for_the_round_but_not_for_ever, 0, 2);
    tcase_add_loop_test(edges, a_member_that_is_not_finite_skips_the_round, 0, 4);
    suite_add_tcase(suite, edges);
    return suite;
}
