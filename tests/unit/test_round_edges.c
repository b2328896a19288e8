/* Where an open round meets what else happens to a session: another configuration, replaced
 * weights, rewinds, forks, rules that propose, gradients that are not finite. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/core/log.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/rounds.h"
#include "tests/lib/testing.h"

enum { COUNT = 61, WORKERS = 4 };

static const char *const names[WORKERS] = {"w1", "w0", "w3", "w2"};
static struct faulty_store *store;
static struct engine *engine;
static struct layout *layout;
static uint64_t numbers;
static struct roll open_round;

static void set_up(void)
{
    log_set_level(LOG_OFF); /* faults are what is wanted */
    store = faulty_store_new();
    engine = engines_open_store(faulty_store_open(store), NULL);
    layout = rounds_layout(COUNT);
    numbers = testing_seed() ^ 0xED6E;
    open_round.count = 0;
}

static void tear_down(void)
{
    engine_close(engine);
    faulty_store_free(store);
    layout_release(layout);
}

/* In order, with a checkpoint of what has changed; or without one, as after a crash. */
enum restart { NONE, IN_ORDER, BARE };

static struct session *restart(struct session *session, enum restart how)
{
    static const struct faulty_plan none,
        bare = {.verbs = FAULTY_CHECKPOINT_PUT, .count = 1000, .status = STATUS_STORAGE_FULL};

    if (how == NONE)
        return session;
    session_release(session);
    faulty_store_plan(store, how == BARE ? bare : none);
    engine_close(engine);
    faulty_store_plan(store, none);
    engine = engines_open_store(faulty_store_open(store), NULL);
    return engines_find(engine, "one");
}

static struct session *create(const struct spec *spec)
{
    return rounds_create(engine, "one", spec, layout);
}

static struct receipt join(struct session *session, size_t worker, uint64_t seq)
{
    return roll_join(&open_round, session, names[worker], seq, &numbers);
}

/* A whole one. */
static void take_round(const struct twin *twin, struct session *session, uint64_t seq,
                       size_t workers)
{
    for (size_t i = 0; i < workers; i++)
        join(session, i, seq);
    roll_hold(&open_round, twin, session);
}

/* The same weights for both. */
static void replace(struct session *one, struct session *other)
{
    struct buffer *weights = engines_gradient(session_dtype(one), layout->count, &numbers);
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
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);

    take_round(&twin, session, 1, WORKERS);
    join(session, 0, 2);
    join(session, 1, 2);
    rounds_patch(session, set_rescale, 3);
    rounds_patch(twin.session, set_rescale, 3);
    session = restart(session, (enum restart)(_i % 3));
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    join(session, 2, 2);
    session = restart(session, (enum restart)(_i / 3));
    join(session, 3, 2);
    roll_hold(&open_round, &twin, session);
    session = restart(session, BARE);
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
    struct session *session = create(&spec), *steady = rounds_create(other, "one", &spec, layout);
    struct session *sessions[] = {session, steady};
    for (int k = 0; k < 2; k++) {
        numbers = testing_seed();
        for (size_t i = 0; i < 7; i++)
            join(sessions[k], i % 2, i / 2 + 1);
        engines_patch(sessions[k], "revisions", 1);
        engines_patch(sessions[k], "revisions", 4);
        ck_assert_uint_eq(engines_view(sessions[k]).round_received, 1);
    }
    replace(session, steady);
    replace(session, steady);
    session = restart(session, (enum restart)_i);
    ck_assert_digest_eq(engines_digest(session, true), engines_digest(steady, true));
    struct offer last = offer_draw(names[1], 4, &numbers);
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
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);
    struct fault fault;

    join(session, 0, 1);
    join(session, 1, 1);
    struct digest before = engines_digest(session, true);
    ck_assert_int_eq(session_patch(session, keep_no_journal, NULL, &fault), STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "/durability/mode");
    ck_assert_digest_eq(engines_digest(session, true), before);
    session = restart(session, BARE);
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    join(session, 2, 1);
    join(session, 3, 1);
    roll_hold(&open_round, &twin, session);
    ck_assert_int_eq(session_patch(session, keep_no_journal, NULL, &fault), STATUS_OK);
    ck_assert_uint_eq(join(session, 0, 2).step, 2); /* alone */
    twin_step(&twin, open_round.members, 1, PLAIN_MEAN);
    session = restart(session, IN_ORDER);
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
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);
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
    session = restart(session, BARE);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- weights --- */

START_TEST(replaced_weights_leave_the_members)
{
    struct spec spec = rounds_spec(DTYPE_F32, "adam", WORKERS);
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);

    take_round(&twin, session, 1, WORKERS);
    join(session, 0, 2);
    join(session, 1, 2);
    session = restart(session, (enum restart)(_i / 3));
    replace(session, twin.session);
    session = restart(session, (enum restart)(_i % 3));
    ck_assert_uint_eq(engines_view(session).step, 2);
    ck_assert_uint_eq(engines_view(session).round_received, 2);
    struct offer second = offer_draw(names[0], 3, &numbers);
    offer_refused(session, &second, STATUS_ALREADY_CONTRIBUTED);
    offer_repeated(session, &open_round.members[1]);
    ck_assert_uint_eq(join(session, 2, 2).received, 3);
    join(session, 3, 2);
    roll_hold(&open_round, &twin, session);
    session = restart(session, BARE);
    twin_hold(&twin, session);
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* From before them or after (step 3), with or without a round that a rewind had dropped. */
START_TEST(a_fork_replays_rounds_over_replaced_weights)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct session *session = create(&spec), *fork;
    struct twin twin = twin_open("one", &spec, layout);
    struct moment_query from = {.step = (uint64_t)_i % 4}, here = {.step = 2};
    struct fork_outcome outcome;
    struct fault fault;

    take_round(&twin, session, 1, WORKERS);
    take_round(&twin, session, 2, WORKERS);
    join(session, 0, 3);
    join(session, 2, 3);
    if (_i >= 4) {
        ck_assert_int_eq(session_rewind(session, &here, &fault), STATUS_OK);
        open_round.count = 0;
        join(session, 3, 3);
        join(session, 2, 3);
    }
    replace(session, twin.session);
    join(session, 1, 3);
    join(session, _i >= 4 ? 0 : 3, 3);
    roll_hold(&open_round, &twin, session);
    join(session, 1, 4);
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
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);
    struct checkpoint_view views[1];
    size_t before = session_checkpoints(session, views, 1);

    if (_i > 0)
        join(session, 0, 1);
    ck_assert_uint_eq(checkpoints_after(session, twin.session, 5000), before + (_i == 0));
    ck_assert_uint_eq(checkpoints_after(session, twin.session, 100000), before + 1 + (_i == 0));
    twin_close(&twin);
    session_release(session);
}
END_TEST

/* --- what is not applied --- */

static struct receipt send_nan(struct session *session, const char *worker)
{
    struct buffer *numbers_of = buffer_new_zeroed(layout->count * sizeof(double));
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
    struct session *session = create(&spec);
    struct twin twin = twin_open("one", &spec, layout);

    if (_i % 2 == 0)
        join(session, 0, 1);
    struct receipt receipt = send_nan(session, names[1]);
    if (_i % 2 == 1)
        receipt = join(session, 0, 1);
    open_round.count = 0;
    ck_assert_uint_eq(receipt.kind, RECEIPT_SKIPPED);
    ck_assert_uint_eq(receipt.step, 1);
    ck_assert_uint_eq(send_nan(twin.session, NULL).kind, RECEIPT_SKIPPED);
    twin_hold(&twin, session);
    take_round(&twin, session, 2, 2);
    session = restart(session, BARE);
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

    tcase_add_checked_fixture(edges, set_up, tear_down);
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
