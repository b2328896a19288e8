/* Synchronous rounds held against plain loops: the mean, the sum and the vote of what the workers
 * sent, put through a rule by a twin that knows nothing of rounds, have the same bits, whatever the
 * order of arrival. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "service/optim/optimizer.h"
#include "tests/lib/engines.h"
#include "tests/lib/rounds.h"
#include "tests/lib/testing.h"

static struct engine *engine;
static uint64_t numbers;

static void set_up(void)
{
    engine = engines_open("memory:", NULL);
    numbers = testing_seed() ^ 0x20D5;
}

static void tear_down(void)
{
    engine_close(engine);
}

static const char *const names[] = {"w1", "w10", "w2", "W3", "a", "~", "w", "b-0"};
enum { NAMES = sizeof names / sizeof *names };

static void shuffle(size_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t k = testing_random(&numbers) % i, swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
}

/* One round of these, in a random order, and what the receipts must say on the way. */
static struct receipt play_round(struct session *session, struct offer *members,
                                 size_t member_count)
{
    uint64_t step = engines_view(session).step;
    size_t order[OFFERS_MAX];
    struct receipt receipt = {0};

    shuffle(order, member_count);
    for (size_t i = 0; i < member_count; i++) {
        struct digest before = engines_hash(session);
        ck_assert_uint_eq(engines_view(session).round_received, i);
        receipt = offer_make(session, &members[order[i]]);
        ck_assert_uint_eq(receipt.received, i + 1);
        ck_assert_uint_eq(receipt.expected, member_count);
        ck_assert_uint_eq(receipt.step, step + 1);
        if (i + 1 == member_count)
            break;
        ck_assert_uint_eq(receipt.kind, RECEIPT_WAITING);
        ck_assert_uint_eq(receipt.base_step, step);
        ck_assert_uint_eq(receipt.durable_step, step);
        ck_assert(receipt.grad_norm > 0);
        ck_assert_uint_eq(engines_view(session).step, step);
        ck_assert_digest_eq(engines_hash(session), before);
        ck_assert(rounds_worker(session, members[order[i]].worker).waiting);
    }
    ck_assert_uint_eq(receipt.kind, RECEIPT_APPLIED);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    ck_assert_uint_eq(engines_view(session).step, step + 1);
    for (size_t i = 0; i < member_count; i++)
        ck_assert(!rounds_worker(session, members[i].worker).waiting);
    return receipt;
}

static void draw_round(struct offer *members, size_t member_count, uint64_t round,
                       const struct session_view *view)
{
    for (size_t i = 0; i < member_count; i++) {
        members[i] = offer_draw(names[i], i % 3 == 2 ? 0 : round, &numbers);
        members[i].based = testing_random(&numbers) % 2 == 0;
        members[i].base_step = view->step;
    }
}

static const struct subject {
    const char *rule;
    enum dtype dtype;
    size_t workers, count;
    enum plain plain;
    bool pipeline; /* clipping, rescaling, decay, an average */
} subjects[] = {
    {"sgd", DTYPE_F32, 4, 7, PLAIN_MEAN, false},     {"sgd", DTYPE_F64, 4, 7, PLAIN_MEAN, false},
    {"adam", DTYPE_F32, 8, 1031, PLAIN_MEAN, true},  {"adam", DTYPE_F64, 8, 1031, PLAIN_MEAN, true},
    {"adam", DTYPE_F32, 2, 1, PLAIN_SUM, false},     {"adam", DTYPE_F64, 5, 4099, PLAIN_SUM, true},
    {"sgd", DTYPE_F32, 3, 1031, PLAIN_VOTE, false},  {"sgd", DTYPE_F64, 4, 8191, PLAIN_VOTE, true},
    {"adam", DTYPE_F32, 3, 40009, PLAIN_MEAN, true}, {"sgd", DTYPE_F64, 3, 20011, PLAIN_MEAN, true},
};

static struct spec subject_spec(const struct subject *subject)
{
    struct spec spec = rounds_spec(subject->dtype, subject->rule, subject->workers);

    if (subject->plain == PLAIN_SUM)
        spec.aggregation.reduction = REDUCTION_SUM;
    spec.aggregation.vote = subject->plain == PLAIN_VOTE;
    if (subject->pipeline) {
        spec.gradient.rescale = 0.75;
        spec.gradient.clip_norm = 0.5;
        spec.gradient.clip_value = 0.9;
        spec.hyper[HYPER_WEIGHT_DECAY] = 0.01;
        spec.ema.on = true;
    }
    return spec;
}

START_TEST(a_round_is_worth_what_plain_loops_say)
{
    const struct subject *subject = &subjects[_i];
    struct spec spec = subject_spec(subject);
    struct layout *layout = rounds_layout(subject->count);
    struct session *session = rounds_create(engine, "one", &spec, layout);
    struct twin twin = twin_open("one", &spec, layout);
    struct offer members[NAMES], rounds[3][NAMES];

    for (uint64_t round = 1; round <= 3; round++) {
        struct session_view view = engines_view(session);
        draw_round(members, subject->workers, round, &view);
        memcpy(rounds[round - 1], members, sizeof members);
        struct receipt receipt = play_round(session, members, subject->workers);
        struct receipt plain = twin_step(&twin, members, subject->workers, subject->plain);
        twin_hold_receipt(&plain, &receipt);
        twin_hold(&twin, session);
    }
    for (uint64_t round = 1; round <= 3; round++)
        rounds_hold_members(session, round, rounds[round - 1], subject->workers);
    twin_close(&twin);
    session_release(session);
    layout_release(layout);
}
END_TEST

/* Every rule, those that propose (muon), keep weights (dcasgd) or draw numbers (sgld) too. */
START_TEST(every_rule_takes_rounds)
{
    struct layout *layout = rounds_layout(133);
    enum dtype dtype = _i == 0 ? DTYPE_F32 : DTYPE_F64;

    for (size_t k = 0; optimizer_at(k, dtype) != NULL; k++) {
        const char *rule = optimizer_at(k, dtype)->name;
        struct spec spec = rounds_spec(dtype, rule, 3);
        spec.gradient.clip_norm = 3; /* the norm of the mean decides bits */
        struct session *session = rounds_create(engine, rule, &spec, layout);
        struct twin twin = twin_open(rule, &spec, layout);
        struct offer members[3];
        for (uint64_t round = 1; round <= 2; round++) {
            struct session_view view = engines_view(session);
            draw_round(members, 3, round, &view);
            struct receipt receipt = play_round(session, members, 3);
            struct receipt plain = twin_step(&twin, members, 3, PLAIN_MEAN);
            twin_hold_receipt(&plain, &receipt);
            twin_hold(&twin, session);
        }
        twin_close(&twin);
        session_release(session);
    }
    layout_release(layout);
}
END_TEST

/* The order-th permutation of 0..3. */
static void permute(size_t order, size_t out[4])
{
    size_t rest[4] = {0, 1, 2, 3};

    for (size_t i = 0; i < 4; i++) {
        size_t left = 4 - i, k = order % left;
        order /= left;
        out[i] = rest[k];
        memmove(&rest[k], &rest[k + 1], (left - k - 1) * sizeof *rest);
    }
}

START_TEST(all_permutations_of_four_workers_give_the_same_bits)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F64, DTYPE_F64};
    struct spec spec = rounds_spec(dtypes[_i], "adam", 4);
    struct layout *layout = rounds_layout(257);
    struct offer members[4], swapped[4];
    struct digest digest = {0};

    spec.aggregation.reduction = _i == 2 ? REDUCTION_SUM : REDUCTION_MEAN;
    for (size_t i = 0; i < 4; i++)
        members[i] = offer_draw(names[i], 1, &numbers);
    for (size_t i = 0; i < 4; i++)
        members[i].wire = i % 2 == 0 ? DTYPE_F64 : DTYPE_F32;
    for (size_t number = 0; number < 24; number++) {
        struct engine *own = engines_open("memory:", NULL); /* the id decides the weights */
        struct session *session = rounds_create(own, "one", &spec, layout);
        size_t order[4];
        permute(number, order);
        for (size_t i = 0; i < 4; i++)
            offer_make(session, &members[order[i]]);
        ck_assert_uint_eq(engines_view(session).step, 1);
        if (number == 0)
            digest = engines_hash(session);
        else
            ck_assert_digest_eq(engines_hash(session), digest);
        session_release(session);
        engine_close(own);
    }
    /* That the order matters to the bits: under other names the sum is another. */
    memcpy(swapped, members, sizeof members);
    for (size_t i = 0; i < 4; i++)
        strcpy(swapped[i].worker, names[3 - i]);
    struct buffer *one = offers_plain(members, 4, PLAIN_SUM, DTYPE_F64, layout->count),
                  *two = offers_plain(swapped, 4, PLAIN_SUM, DTYPE_F64, layout->count);
    ck_assert_mem_ne(one->data, two->data, one->size);
    buffer_release(one);
    buffer_release(two);
    layout_release(layout);
}
END_TEST

START_TEST(weights_are_those_of_the_examples)
{
    struct spec spec = rounds_spec(DTYPE_F64, "sgd", 2);
    struct session *session = engines_create(engine, "one", &spec, 1);
    struct revision *before, *after;
    struct fault fault;
    double g[2] = {1, 4}, examples[2] = {3, 1}, old, now;

    engines_hyper(&spec, "lr", 0.01);
    ck_assert_int_eq(session_revision(session, &before, &fault), STATUS_OK);
    for (size_t i = 0; i < 2; i++) {
        struct buffer *buffer = buffer_new(sizeof g[i]);
        memcpy(buffer->data, &g[i], sizeof g[i]);
        struct submission submission = engines_submission(buffer, DTYPE_F64);
        submission.worker = names[i];
        submission.examples = examples[i];
        submission.loss = (double)i;
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
        buffer_release(buffer);
    }
    ck_assert_int_eq(session_revision(session, &after, &fault), STATUS_OK);
    memcpy(&old, before->weights->data, sizeof old);
    memcpy(&now, after->weights->data, sizeof now);
    double lr = engines_view(session).last.lr;
    ck_assert(fabs(old - now - lr * 1.75) < 1e-12); /* (3 * 1 + 1 * 4) / 4 */
    revision_release(before);
    revision_release(after);
    session_release(session);
}
END_TEST

START_TEST(who_may_not_join_a_round)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 3);
    struct session *session = engines_create(engine, "one", &spec, 5);
    struct offer first = offer_draw("a", 1, &numbers), other;
    struct receipt receipt, again;

    receipt = offer_make(session, &first);
    other = offer_draw("", 0, &numbers);
    offer_refused(session, &other, STATUS_INVALID_FIELD); /* nobody */
    other = offer_draw("a", 2, &numbers);
    offer_refused(session, &other, STATUS_ALREADY_CONTRIBUTED);
    other = offer_draw("a", 0, &numbers);
    offer_refused(session, &other, STATUS_ALREADY_CONTRIBUTED);
    other = offer_draw("a", 1, &numbers);
    offer_refused(session, &other, STATUS_IDEMPOTENCY_MISMATCH);
    other = offer_draw("b", 2, &numbers);
    offer_refused(session, &other, STATUS_SEQUENCE_GAP);
    other = offer_draw("b", 1, &numbers);
    other.based = true;
    other.base_step = 1;
    offer_refused(session, &other, STATUS_INVALID_FIELD); /* the future */
    again = offer_repeated(session, &first);
    ck_assert_uint_eq(again.kind, RECEIPT_WAITING);
    ck_assert_uint_eq(again.step, receipt.step);
    ck_assert_uint_eq(again.received, 1);
    other.base_step = 0;
    offer_make(session, &other);
    first = offer_draw("c", 1, &numbers);
    ck_assert_uint_eq(offer_make(session, &first).kind, RECEIPT_APPLIED);
    /* A duplicate of a member does not count in the next round. */
    again = offer_repeated(session, &other);
    ck_assert_uint_eq(again.step, 1);
    again = offer_repeated(session, &first);
    ck_assert_uint_eq(again.step, 1);
    other = offer_draw("a", 2, &numbers);
    other.based = true;
    offer_refused(session, &other, STATUS_STALE_GRADIENT); /* late */
    other.base_step = 1;
    offer_make(session, &other);
    ck_assert_uint_eq(engines_view(session).round_received, 1);
    session_release(session);
}
END_TEST

START_TEST(keys_repeat_members_too)
{
    struct spec spec = rounds_spec(DTYPE_F32, "sgd", 2);
    struct session *session = engines_create(engine, "one", &spec, 5);
    struct offer mine = offer_draw("a", 0, &numbers);
    struct submission submission = offer_submission(&mine, 5);
    struct digest digest = {0};
    struct receipt receipt;
    struct fault fault;
    bool replayed;

    submission.key = "k1";
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(engines_submit(session, &submission, &receipt, &replayed, &fault),
                         STATUS_OK);
        ck_assert_int_eq(replayed, i > 0);
        ck_assert_uint_eq(receipt.step, 1);
        ck_assert_uint_eq(engines_view(session).round_received, 1);
    }
    struct offer other = offer_draw("b", 0, &numbers);
    ck_assert_uint_eq(offer_make(session, &other).kind, RECEIPT_APPLIED);
    digest = engines_digest(session, true);
    ck_assert_int_eq(engines_submit(session, &submission, &receipt, &replayed, &fault), STATUS_OK);
    ck_assert(replayed);
    ck_assert_uint_eq(receipt.step, 1);
    ck_assert_digest_eq(engines_digest(session, true), digest);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    buffer_release(submission.buffer);
    session_release(session);
}
END_TEST

START_TEST(overrides_are_for_rounds_of_one)
{
    struct spec spec = rounds_spec(DTYPE_F32, "adam", 2);
    struct session *session = engines_create(engine, "one", &spec, 5);
    struct offer mine = offer_draw("a", 0, &numbers);
    struct submission submission = offer_submission(&mine, 5);
    struct fault fault;

    submission.lr = 0.5;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_INVALID_FIELD);
    submission.lr = (double)NAN;
    submission.beta1 = 0.5;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                     STATUS_INVALID_FIELD);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    spec.aggregation.workers = 1;
    struct session *alone = engines_create(engine, "alone", &spec, 5);
    ck_assert_int_eq(engines_submit(alone, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_uint_eq(engines_view(alone).step, 1);
    buffer_release(submission.buffer);
    session_release(session);
    session_release(alone);
}
END_TEST

START_TEST(a_dry_run_joins_nothing)
{
    struct spec spec = rounds_spec(DTYPE_F32, _i == 0 ? "adam" : "muon", 2);
    struct layout *layout = rounds_layout(31);
    struct session *session = rounds_create(engine, "one", &spec, layout);
    struct offer members[2] = {offer_draw("a", 1, &numbers), offer_draw("b", 1, &numbers)};
    struct receipt told[2];
    struct fault fault;

    for (size_t i = 0; i < 2; i++) {
        struct submission submission = offer_submission(&members[i], layout->count);
        struct digest before = engines_digest(session, true);
        submission.dry_run = true;
        for (int again = 0; again < 2; again++)
            if (engines_submit(session, &submission, &told[i], NULL, &fault) != STATUS_OK)
                ck_abort_msg("a dry run: %s", fault.detail);
        ck_assert_digest_eq(engines_digest(session, true), before);
        ck_assert_uint_eq(engines_view(session).round_received, i);
        ck_assert_str_eq(rounds_worker(session, members[i].worker).name, "");
        struct receipt made = offer_make(session, &members[i]);
        ck_assert_uint_eq(told[i].kind, made.kind);
        ck_assert_uint_eq(told[i].step, made.step);
        ck_assert_uint_eq(told[i].received, made.received);
        ck_assert_uint_eq(told[i].expected, made.expected);
        if (told[i].grad_norm != made.grad_norm)
            ck_abort_msg("member %zu: norm %.17g, not %.17g", i, told[i].grad_norm, made.grad_norm);
        if (i == 1)
            ck_assert(told[i].update_norm == made.update_norm);
        buffer_release(submission.buffer);
    }
    session_release(session);
    layout_release(layout);
}
END_TEST

Suite *suite_rounds(void);
Suite *suite_rounds(void)
{
    Suite *suite = suite_create("rounds");
    TCase *rounds = tcase_create("synchronous");

    tcase_add_checked_fixture(rounds, set_up, tear_down);
    tcase_set_timeout(rounds, 60);
    tcase_add_loop_test(rounds, a_round_is_worth_what_plain_loops_say, 0,
                        (int)(sizeof subjects / sizeof *subjects));
    tcase_add_loop_test(rounds, every_rule_takes_rounds, 0, 2);
    tcase_add_loop_test(rounds, all_permutations_of_four_workers_give_the_same_bits, 0, 3);
    tcase_add_test(rounds, weights_are_those_of_the_examples);
    tcase_add_test(rounds, who_may_not_join_a_round);
    tcase_add_test(rounds, keys_repeat_members_too);
    tcase_add_test(rounds, overrides_are_for_rounds_of_one);
    tcase_add_loop_test(rounds, a_dry_run_joins_nothing, 0, 2);
    suite_add_tcase(suite, rounds);
    return suite;
}
