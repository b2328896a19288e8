/* History where it is thin: numbers at the end of their range, tensors without elements, hostile
 * images, lines of the ledger in odd places, readers beside a deletion. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { COUNT = 37 };

static const char *url;
static struct engine *engine;
static struct engine_options options;

static void start(void)
{
    url = testing_folder();
    options = engines_options();
    engine = engines_open(url, &options);
}

static void stop(void)
{
    engine_close(engine);
}

static struct session *reopen(struct session *session, const char *id)
{
    session_release(session);
    engine_close(engine);
    engine = engines_open(url, &options);
    return engines_find(engine, id);
}

/* --- numbers --- */

/* A norm beyond the largest double is infinite; the session goes on, and comes back. */
START_TEST(an_infinite_norm_does_not_spoil_the_session)
{
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct buffer *gradient = buffer_new(COUNT * sizeof(double));
    struct submission submission;
    struct moment moment;
    struct fault fault;

    for (size_t i = 0; i < COUNT; i++)
        ((double *)(void *)gradient->data)[i] = 1.7e308;
    submission = engines_submission(gradient, DTYPE_F64);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    session = reopen(session, "s");
    engines_hash(session);
    ck_assert_uint_eq(engines_view(session).step, 3);
    buffer_release(gradient);
    session_release(session);
}
END_TEST

static const char *const shaped_rules[] = {"adafactor", "group_adagrad", "muon", "adam"};

/* Tensors without elements have no state, whatever their rows. */
START_TEST(an_image_of_an_empty_tensor)
{
    struct spec spec = engines_spec(DTYPE_F32, shaped_rules[_i]);
    struct layout *layout = layout_new();
    struct session *session;
    struct image *image, *made;
    uint64_t random = 3;
    struct fault fault;
    bool created;

    ck_assert_int_eq(layout_add(layout, "a", 1, 2, (size_t[]){5, 0}, &fault), STATUS_OK);
    ck_assert_int_eq(layout_add(layout, "b", 1, 2, (size_t[]){3, 4}, &fault), STATUS_OK);
    ck_assert_int_eq(layout_add(layout, "c", 1, 3, (size_t[]){0, 2, 2}, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(engines_try_create_of(engine, "s", &spec, layout, &session, &created, &fault),
                     STATUS_OK);
    engines_steps(session, 2, &random);
    ck_assert_int_eq(session_export(session, NULL, &image, &fault), STATUS_OK);
    ck_assert_int_eq(engine_image(engine, image->record, image->head, &made, &fault), STATUS_OK);
    image_free(made);
    image_free(image);
    layout_release(layout);
    session_release(session);
}
END_TEST

/* Byte 28 of a head is the kind of the last receipt. */
START_TEST(an_image_that_nobody_exported_is_refused)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t random = 5;
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &random);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct image *image, *made;
    struct fault fault;

    submission.cursor = "epoch";
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_export(session, NULL, &image, &fault), STATUS_OK);
    ck_assert_int_eq(engine_image(engine, image->record, image->head, &made, &fault), STATUS_OK);
    image_free(made);
    unsigned char *head = malloc(image->head.size);
    memcpy(head, image->head.data, image->head.size);
    head[28] = RECEIPT_WAITING + 1;
    struct span bytes = span_of(head, image->head.size);
    ck_assert_int_eq(engine_image(engine, image->record, bytes, &made, &fault),
                     STATUS_INVALID_FIELD);
    memcpy(head, image->head.data, image->head.size);
    *(unsigned char *)memmem(head, image->head.size, "epoch", 5) = 0xff;
    ck_assert_int_eq(engine_image(engine, image->record, bytes, &made, &fault),
                     STATUS_INVALID_FIELD);
    free(head);
    image_free(image);
    buffer_release(gradient);
    session_release(session);
}
END_TEST

/* --- the ledger of steps --- */

struct lines {
    size_t count;
    uint64_t first, last;
};

static enum status collect(void *context, const struct step_line *line)
{
    struct lines *lines = context;

    if (lines->count++ == 0)
        lines->first = line->receipt.step;
    else
        ck_assert_uint_eq(line->receipt.step, lines->last + 1);
    lines->last = line->receipt.step;
    return STATUS_OK;
}

static struct lines lines_of(struct session *session, const struct moment_query *query,
                             uint64_t *oldest)
{
    struct lines lines = {.count = 0};
    struct fault fault;

    ck_assert_int_eq(session_steps(session, query, 1, UINT64_MAX, collect, &lines, oldest, &fault),
                     STATUS_OK);
    return lines;
}

START_TEST(the_oldest_line_may_be_in_any_block)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct moment_query first = {true, 0, 0};
    uint64_t random = 5, oldest;
    struct moment moment;
    struct fault fault;

    engines_steps(session, 9, &random);
    engines_rewind(session, 0);
    for (int i = 0; i < 3; i++) {
        engines_steps(session, 2, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    }
    struct lines lines = lines_of(session, NULL, &oldest);
    ck_assert_uint_eq(lines.count, 6);
    ck_assert_uint_eq(oldest, 1);
    lines = lines_of(session, &first, &oldest);
    ck_assert_uint_eq(lines.count, 9);
    ck_assert_uint_eq(oldest, 1);
    session_release(session);
}
END_TEST

static bool done;

static void *save_often(void *context)
{
    struct session *session = context;
    uint64_t random = 11;
    struct moment moment;
    struct fault fault;

    for (int i = 0; i < 300; i++) {
        engines_step(session, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    }
    __atomic_store_n(&done, true, __ATOMIC_RELEASE);
    return NULL;
}

START_TEST(a_line_is_there_once_while_it_is_saved)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session;
    pthread_t saver;
    uint64_t oldest;

    engine_close(engine);
    engine = engines_open("memory:", &options);
    session = engines_create(engine, "s", &spec, COUNT);
    done = false;
    pthread_create(&saver, NULL, save_often, session);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
        lines_of(session, NULL, &oldest);
    pthread_join(saver, NULL);
    ck_assert_uint_eq(lines_of(session, NULL, &oldest).count, 300);
    session_release(session);
}
END_TEST

/* With durability "checkpoint" and long gaps the lines do not pile up in memory. */
START_TEST(lines_do_not_pile_up_between_checkpoints)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct layout *layout = layout_new();
    struct session *session;
    uint64_t random = 3;
    struct fault fault;
    bool created;
    char name[16];

    spec.durability.mode = DURABILITY_CHECKPOINT;
    spec.durability.steps = 1000000;
    for (int i = 0; i < 4000; i++) {
        snprintf(name, sizeof name, "t%d", i);
        ck_assert_int_eq(layout_add(layout, name, strlen(name), 0, NULL, &fault), STATUS_OK);
    }
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(engines_try_create_of(engine, "s", &spec, layout, &session, &created, &fault),
                     STATUS_OK);
    engines_steps(session, 1000, &random);
    ck_assert_uint_lt(session->state->receipts.lines.used, (size_t)80 << 20);
    layout_release(layout);
    session_release(session);
}
END_TEST

/* --- forks --- */

START_TEST(a_replay_has_what_is_not_on_disk_yet)
{
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    struct session *session, *fork;
    struct moment_query query = {false, 0, 4};
    struct fork_request request = {
        .id = "fork", .query = &query, .state = FORK_KEEP, .replay = true};
    struct fork_outcome outcome;
    uint64_t random = 9;
    struct fault fault;

    spec.durability.mode = DURABILITY_INTERVAL;
    spec.durability.seconds = 3600;
    session = engines_create(engine, "s", &spec, COUNT);
    engines_steps(session, 10, &random);
    ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
    ck_assert_uint_eq(outcome.replayed, 6);
    ck_assert_digest_eq(engines_hash(fork), engines_hash(session));
    session_release(fork);
    session_release(session);
}
END_TEST

static enum status become_signum(void *context, struct spec *spec, struct fault *fault)
{
    (void)context;
    (void)fault;
    spec_set_rule(spec, optimizer_find("signum", spec->dtype));
    engines_hyper(spec, "momentum", 0);
    return STATUS_OK;
}

/* A rule without momentum keeps no state for the one that a step was told to have. */
START_TEST(a_replay_leaves_out_what_its_rule_would_refuse)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct moment_query query = {false, 0, 0};
    struct fork_request request = {
        .id = "fork", .query = &query, .change = become_signum, .replay = true};
    struct buffer *gradient = engines_constant(COUNT, 1);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct session *session, *fork;
    struct fork_outcome outcome;
    struct fault fault;

    engines_hyper(&spec, "momentum", 0.9);
    session = engines_create(engine, "s", &spec, COUNT);
    submission.momentum = 0.5;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
    ck_assert_uint_eq(outcome.replayed, 1);
    session_release(fork);
    session_release(session);
    buffer_release(gradient);
}
END_TEST

/* Asking for a step that has not come writes nothing. */
START_TEST(asking_for_the_future_saves_nothing)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct checkpoint_view views[4];
    struct moment_query query = {false, 0, 100};
    struct revision *revision;
    uint64_t random = 5;
    struct fault fault;

    for (int i = 0; i < 3; i++) {
        engines_step(session, &random);
        ck_assert_int_eq(session_revision_at(session, &query, &revision, &fault), STATUS_NOT_FOUND);
    }
    ck_assert_uint_eq(session_checkpoints(session, views, 4), 1);
    session_release(session);
}
END_TEST

static void *read_until_gone(void *context)
{
    struct session *session = context;
    struct lines lines;
    uint64_t oldest;
    struct fault fault;
    enum status status;

    do {
        lines.count = 0;
        status = session_steps(session, NULL, 1, UINT64_MAX, collect, &lines, &oldest, &fault);
    } while (status == STATUS_OK);
    ck_assert_int_eq(status, STATUS_SESSION_NOT_FOUND);
    return NULL;
}

START_TEST(readers_do_not_put_a_deletion_off)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t random = 4;
    pthread_t readers[6];
    struct moment moment;
    struct fault fault;

    for (int i = 0; i < 20; i++) {
        engines_steps(session, 20, &random);
        ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    }
    for (size_t i = 0; i < 6; i++)
        pthread_create(&readers[i], NULL, read_until_gone, session);
    usleep(100000);
    ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
    for (size_t i = 0; i < 6; i++)
        pthread_join(readers[i], NULL);
    session_release(session);
}
END_TEST

Suite *suite_history_edges(void);
Suite *suite_history_edges(void)
{
    Suite *suite = suite_create("history_edges");
    TCase *cases = tcase_create("history_edges");

    tcase_set_timeout(cases, 300);
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_test(cases, an_infinite_norm_does_not_spoil_the_session);
    tcase_add_loop_test(cases, an_image_of_an_empty_tensor, 0, 4);
    tcase_add_test(cases, an_image_that_nobody_exported_is_refused);
    tcase_add_test(cases, the_oldest_line_may_be_in_any_block);
    tcase_add_test(cases, a_line_is_there_once_while_it_is_saved);
    tcase_add_test(cases, lines_do_not_pile_up_between_checkpoints);
    tcase_add_test(cases, a_replay_has_what_is_not_on_disk_yet);
    tcase_add_test(cases, a_replay_leaves_out_what_its_rule_would_refuse);
    tcase_add_test(cases, asking_for_the_future_saves_nothing);
    tcase_add_test(cases, readers_do_not_put_a_deletion_off);
    suite_add_tcase(suite, cases);
    return suite;
}
