/* Half-collected rounds and the past: a rewind, a fork, an export and what is read of earlier steps
 * know nothing of the round that is open. */
#include <check.h>
#include <string.h>

#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/round_fixture.h"

static void set_up(void)
{
    fixture_open(0x4FA1);
}

struct past {
    struct session *session;
    struct twin twin;
    uint64_t seq;
};

/* So many whole rounds and `open` members of the next. */
static struct past open_past(uint64_t rounds, size_t open)
{
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct past past = {.session = fixture_create(&spec), .twin = fixture_twin(&spec)};

    while (past.seq < rounds) {
        struct offer members[WORKERS];
        past.seq++;
        for (size_t i = 0; i < WORKERS; i++) {
            members[i] = fixture_draw(i, past.seq);
            offer_make(past.session, &members[i]);
        }
        twin_step(&past.twin, members, WORKERS, PLAIN_MEAN);
    }
    for (size_t i = 0; i < open; i++) {
        struct offer mine = fixture_draw(i, past.seq + 1);
        offer_make(past.session, &mine);
    }
    ck_assert_uint_eq(engines_view(past.session).round_received, open);
    return past;
}

static void close_past(struct past *past)
{
    twin_close(&past->twin);
    session_release(past->session);
}

/* A round of a session that stands where the twin does; everyone counts on from where it is. */
static void go_on(struct past *past, struct session *session)
{
    struct offer members[WORKERS];
    uint64_t step = engines_view(session).step;

    ck_assert_uint_eq(engines_view(session).round_received, 0);
    for (size_t i = 0; i < WORKERS; i++) {
        ck_assert(!rounds_worker(session, round_names[i]).waiting);
        members[i] = fixture_draw(i, rounds_worker(session, round_names[i]).seq + 1);
        ck_assert_uint_eq(offer_make(session, &members[i]).received, i + 1);
    }
    ck_assert_uint_eq(engines_view(session).step, step + 1);
    twin_step(&past->twin, members, WORKERS, PLAIN_MEAN);
    twin_hold(&past->twin, session);
}

START_TEST(a_rewind_drops_the_open_round)
{
    uint64_t to = _i % 2 == 0 ? 1 : 3; /* 3: where it stands */
    struct past past = open_past(3, 2);
    struct moment_query query = {.step = to};
    struct fault fault;

    ck_assert_int_eq(session_rewind(past.session, &query, &fault), STATUS_OK);
    ck_assert_int_eq(session_rewind(past.twin.session, &query, &fault), STATUS_OK);
    ck_assert_uint_eq(engines_view(past.session).round_received, 0);
    uint64_t lineage = engines_view(past.twin.session).lineage;
    ck_assert_uint_eq(engines_view(past.session).lineage, lineage);
    twin_hold(&past.twin, past.session);
    if (_i >= 2)
        past.session = fixture_restart(past.session, RESTART_IN_ORDER);
    ck_assert_uint_eq(engines_view(past.session).round_received, 0);
    go_on(&past, past.session);
    go_on(&past, past.session);
    past.session = fixture_restart(past.session, RESTART_IN_ORDER);
    twin_hold(&past.twin, past.session);
    close_past(&past);
}
END_TEST

/* A checkpoint that was made amid a round is no checkpoint of the step before it: what changed
 * since is not of that step. */
START_TEST(a_checkpoint_amid_a_round_is_not_of_the_step_before)
{
    struct past past = open_past(1, 0);
    struct moment_query query = {.step = 1};
    struct session *sessions[2] = {past.session, past.twin.session};
    struct offer first = fixture_draw(0, 2);
    struct fault fault;

    if (_i == 0)
        offer_make(past.session, &first);
    for (int i = 0; i < 2; i++)
        rounds_patch(sessions[i], rounds_rate, 4);
    if (_i == 1)
        offer_make(past.session, &first);
    rounds_save(past.session);
    for (size_t i = 1; i < WORKERS; i++) {
        struct offer mine = fixture_draw(i, 2);
        offer_make(past.session, &mine);
    }
    ck_assert_uint_eq(engines_view(past.session).step, 2);
    ck_assert_int_eq(session_rewind(past.session, &query, &fault), STATUS_OK);
    double rate = engines_view(past.twin.session).spec.hyper[HYPER_LR];
    ck_assert(rate == 0.25);
    uint64_t random = 1;
    engines_step(past.twin.session, &random);
    ck_assert_int_eq(session_rewind(past.twin.session, &query, &fault), STATUS_OK);
    rate = engines_view(past.twin.session).spec.hyper[HYPER_LR];
    ck_assert(rate != 0.25);
    ck_assert(engines_view(past.session).spec.hyper[HYPER_LR] == rate);
    go_on(&past, past.session);
    close_past(&past);
}
END_TEST

/* The revision that a rewind made is the one that it made, not what a later checkpoint of the same
 * step has: with rounds or without. */
START_TEST(a_later_checkpoint_of_a_step_is_not_that_step)
{
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    struct fault fault;
    double rate = spec.hyper[HYPER_LR];

    if (_i == 1)
        spec = rounds_spec(DTYPE_F64, "adam", 1);
    struct session *session = fixture_create(&spec);
    for (uint64_t i = 1; i <= 3; i++) {
        struct offer mine = fixture_draw(0, i);
        offer_make(session, &mine);
    }
    ck_assert_int_eq(session_rewind(session, &(struct moment_query){.step = 2}, &fault), STATUS_OK);
    rounds_patch(session, rounds_rate, 4);
    rounds_save(session);
    struct offer mine = fixture_draw(0, 4);
    offer_make(session, &mine);
    ck_assert_int_eq(session_rewind(session, &(struct moment_query){.step = 2}, &fault), STATUS_OK);
    ck_assert(engines_view(session).spec.hyper[HYPER_LR] == rate);
    session_release(session);
}
END_TEST

/* What a rewind dropped was not taken: its number and its key are free. What was applied stays
 * applied. */
START_TEST(what_a_rewind_dropped_may_come_again)
{
    struct past past = open_past(2, 0);
    struct offer mine = fixture_draw(0, 3), earlier = fixture_draw(0, 2),
                 unnumbered = fixture_draw(1, 0);
    struct submission submission = offer_submission(&unnumbered, fixture.layout->count);
    struct receipt receipt;
    struct fault fault;
    bool replayed;

    submission.key = "k";
    offer_make(past.session, &mine);
    ck_assert_int_eq(engines_submit(past.session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_rewind(past.session, &(struct moment_query){.step = 1}, &fault),
                     STATUS_OK);
    if (_i == 1)
        past.session = fixture_restart(past.session, RESTART_IN_ORDER);
    enum status status = offer_try(past.session, &earlier, &receipt, &replayed, &fault);
    ck_assert(status == STATUS_STALE_SEQUENCE || status == STATUS_IDEMPOTENCY_MISMATCH);
    receipt = offer_make(past.session, &mine);
    ck_assert_uint_eq(receipt.step, 2);
    ck_assert_uint_eq(receipt.received, 1);
    ck_assert_int_eq(engines_submit(past.session, &submission, &receipt, &replayed, &fault),
                     STATUS_OK);
    ck_assert(!replayed);
    ck_assert_uint_eq(receipt.received, 2);
    ck_assert_uint_eq(offer_repeated(past.session, &mine).step, 2);
    buffer_release(submission.buffer);
    close_past(&past);
}
END_TEST

START_TEST(a_fork_has_no_open_round)
{
    struct past past = open_past(3, 2);
    struct moment_query query = {.step = 3};
    struct fork_outcome outcome;
    struct session *fork;
    struct fault fault;

    if (session_fork(past.session,
                     &(struct fork_request){.id = "two", .query = _i == 0 ? NULL : &query}, &fork,
                     &outcome, &fault) != STATUS_OK)
        ck_abort_msg("fork: %s", fault.detail);
    ck_assert_uint_eq(engines_view(past.session).round_received, 2); /* its own stays */
    twin_hold(&past.twin, fork);
    for (size_t i = 0; i < WORKERS; i++) /* workers do not come with it, or with their numbers */
        ck_assert(rounds_worker(fork, round_names[i]).seq <= 3);
    go_on(&past, fork);
    session_release(fork);
    close_past(&past);
}
END_TEST

/* The gradients that a replay runs through a fork are the means. */
START_TEST(a_fork_replays_whole_rounds)
{
    struct past past = open_past(3, 1);
    struct moment_query query = {.step = 1};
    struct fork_outcome outcome;
    struct session *fork;
    struct fault fault;

    if (session_fork(past.session,
                     &(struct fork_request){.id = "two", .query = &query, .replay = true}, &fork,
                     &outcome, &fault) != STATUS_OK)
        ck_abort_msg("fork: %s", fault.detail);
    ck_assert_uint_eq(outcome.replayed, 2);
    ck_assert_uint_eq(engines_view(fork).step, 3);
    ck_assert_uint_eq(engines_view(fork).round_received, 0);
    twin_hold(&past.twin, fork);
    session_release(fork);
    close_past(&past);
}
END_TEST

START_TEST(an_image_has_no_open_round)
{
    struct past past = open_past(3, 2);
    struct engine *other = engines_open("memory:", NULL);
    struct session *copy;
    struct image *image, *made;
    struct fault fault;
    bool created;

    if (session_export(past.session, NULL, &image, &fault) != STATUS_OK ||
        engine_image(other, image->record, image->head, &made, &fault) != STATUS_OK)
        ck_abort_msg("image: %s", fault.detail);
    for (size_t i = 0; i < made->vector_count; i++) {
        size_t extent = 0;
        for (size_t k = 0; k < image->layout->tensor_count; k++)
            extent += image->vectors[i].extent[k];
        memcpy(made->vectors[i].data->data, image->vectors[i].data->data, extent * sizeof(double));
    }
    if (engine_import(other, NULL, "copy", made, &copy, &created, &fault) != STATUS_OK)
        ck_abort_msg("import: %s", fault.detail);
    image_free(image);
    ck_assert(created);
    twin_hold(&past.twin, copy);
    ck_assert_uint_eq(engines_view(past.session).round_received, 2);
    go_on(&past, copy);
    session_release(copy);
    engine_close(other);
    close_past(&past);
}
END_TEST

/* The past is read while a round is open. */
START_TEST(steps_of_the_past_are_those_of_the_twin)
{
    struct past past = open_past(5, 3);

    for (uint64_t step = 0; step <= 5; step++) {
        struct moment_query query = {.step = step};
        struct digest left, right;
        struct moment moment;
        struct fault fault;
        if (session_hash(past.session, &query, &moment, &left, &fault) != STATUS_OK ||
            session_hash(past.twin.session, &query, &moment, &right, &fault) != STATUS_OK)
            ck_abort_msg("session_hash: %s", fault.detail);
        ck_assert_digest_eq(left, right);
    }
    close_past(&past);
}
END_TEST

Suite *suite_round_past(void);
Suite *suite_round_past(void)
{
    Suite *suite = suite_create("round_past");
    TCase *past = tcase_create("the past while a round is open");

    tcase_add_checked_fixture(past, set_up, fixture_close);
    tcase_set_timeout(past, 60);
    tcase_add_loop_test(past, a_rewind_drops_the_open_round, 0, 4);
    tcase_add_loop_test(past, a_checkpoint_amid_a_round_is_not_of_the_step_before, 0, 2);
    tcase_add_loop_test(past, a_later_checkpoint_of_a_step_is_not_that_step, 0, 2);
    tcase_add_loop_test(past, what_a_rewind_dropped_may_come_again, 0, 2);
    tcase_add_loop_test(past, a_fork_has_no_open_round, 0, 2);
    tcase_add_test(past, a_fork_replays_whole_rounds);
    tcase_add_test(past, an_image_has_no_open_round);
    tcase_add_test(past, steps_of_the_past_are_those_of_the_twin);
    suite_add_tcase(suite, past);
    return suite;
}
