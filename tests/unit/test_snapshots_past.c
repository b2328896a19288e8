/* What becomes of SVRG's snapshots: after a restart at every event, a rewind, a fork, an export, a
 * failed commit, and amid a crowd. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "service/core/log.h"
#include "service/session/replay.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/snapshots.h"
#include "tests/lib/testing.h"

enum { COUNT = SNAPSHOTS_COUNT };
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F64};

static const char *url;
static struct engine *engine;

static void set_up(void)
{
    log_set_level(LOG_OFF);
    engine = engines_open("memory:", NULL);
    snapshots_random = testing_seed() ^ 0x5C;
}

static void set_up_folder(void)
{
    log_set_level(LOG_OFF);
    url = testing_folder();
    engine = engines_open(url, NULL);
    snapshots_random = testing_seed() ^ 0x5B;
}

static void tear_down(void)
{
    engine_close(engine);
}

/* Events that the newest checkpoint has already change nothing when they are seen again. */
static void check_twice(struct session *session)
{
    struct replay replay;
    struct fault fault;
    struct event_place *place;

    ck_assert_int_eq(session_replay_start(session, session->checkpoints, &replay, &fault),
                     STATUS_OK);
    for (place = session->events; place != NULL; place = place->next)
        if ((snapshot_is_event(place->kind) || place->kind == EVENT_SPEC) &&
            place->lsn <= session->checkpoints->lsn && place->lineage == session->lineage)
            ck_assert_int_eq(session_replay_event(&replay, place, &fault), STATUS_OK);
    ck_assert_digest_eq(snapshots_digest_of(replay.loaded.state, session->layout, session->dtype),
                        snapshots_digest(session));
    session_replay_end(&replay);
}

static enum status set_svrg(void *context, struct spec *spec, struct fault *fault)
{
    (void)fault;
    spec->svrg.on = *(const bool *)context;
    return STATUS_OK;
}

/* Event k of a story of snapshots. */
static void tell(struct session *session, int k)
{
    struct fault fault;
    struct receipt receipt;
    uint64_t number = k == 0 ? 0 : snapshots_look(session).number;
    static const bool off = false, on = true;

    switch (k) {
    case 0:
        snapshots_make(session, 2, (double)NAN);
        break;
    case 1:
        ck_assert_int_eq(snapshots_add_random(session, number, 3, "a", NULL), STATUS_OK);
        break;
    case 2:
        engines_steps(session, 1, &snapshots_random);
        break;
    case 3:
        ck_assert_int_eq(snapshots_add_random(session, number, 4, "b", "x"), STATUS_OK);
        break;
    case 4:
        ck_assert_int_eq(snapshots_try_pair(session, number, &receipt, &fault), STATUS_OK);
        break;
    case 5:
        snapshots_make(session, 0, (double)NAN);
        break;
    case 6:
    case 7: /* without names */
        ck_assert_int_eq(snapshots_add_random(session, number, 1, NULL, NULL), STATUS_OK);
        break;
    case 8:
        ck_assert_int_eq(snapshots_close(session, number), STATUS_OK);
        break;
    case 9:
        ck_assert_int_eq(snapshots_try_pair(session, number, &receipt, &fault), STATUS_OK);
        break;
    case 10:
        ck_assert_int_eq(session_patch(session, set_svrg, (void *)(uintptr_t)&off, &fault),
                         STATUS_OK);
        ck_assert_int_eq(session_patch(session, set_svrg, (void *)(uintptr_t)&on, &fault),
                         STATUS_OK);
        ck_assert_uint_eq(snapshots_make(session, 0, 5).number,
                          number + 1); /* never a number again */
        break;
    default:
        ck_assert_int_eq(snapshots_add_random(session, number, 2, "c", NULL), STATUS_OK);
        break;
    }
}
enum { STORY = 12 };

START_TEST(every_event_comes_back)
{
    struct spec spec = snapshots_spec(dtypes[_i % 2], _i < 2 ? "sgd" : "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);

    for (int k = 0; k < STORY; k++) {
        tell(session, k);
        snapshots_check_replay(session);
        if (_i < 2)
            continue;
        struct digest before = snapshots_digest(session);
        session_release(session); /* with a checkpoint of each moment */
        engine_close(engine);
        engine = engines_open(url, NULL);
        session = engines_find(engine, "s");
        ck_assert_digest_eq(snapshots_digest(session), before);
        check_twice(session);
    }
    session_release(session);
    /* The whole journal against the checkpoints. */
    struct verify_report report;
    struct store *store;
    struct fault fault;
    engine_close(engine);
    ck_assert_int_eq(store_inspect(url, &store, &fault), STATUS_OK);
    ck_assert_int_eq(engine_verify(store, NULL, &report, &fault), STATUS_OK);
    store_close(store);
    ck_assert_uint_eq(report.findings, 0);
    engine = engines_open(url, NULL);
}
END_TEST

START_TEST(a_rewind_brings_the_snapshot_of_then_back)
{
    struct spec spec = snapshots_spec(dtypes[_i], "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make(session, 2, (double)NAN).number;
    struct moment_query query = {.step = 1};
    struct fault fault;

    ck_assert_int_eq(snapshots_add_random(session, number, 3, "a", NULL), STATUS_OK);
    engines_steps(session, 1, &snapshots_random); /* step 1: collecting */
    struct digest then = snapshots_digest(session);
    ck_assert_int_eq(snapshots_add_random(session, number, 3, "b", NULL), STATUS_OK);
    engines_steps(session, 1, &snapshots_random);
    uint64_t last = snapshots_make_ready(session, 2);
    engines_steps(session, 1, &snapshots_random);
    ck_assert_int_eq(session_rewind(session, &query, &fault), STATUS_OK);
    struct snapshot_view view = snapshots_look(session);
    ck_assert(view.number == number && !view.ready && view.parts == 1 && view.step == 0);
    pthread_mutex_lock(&session->mutex);
    ck_assert_uint_eq(session->state->snapshot.last, last);
    session->state->snapshot.last = number; /* but for the numbers, it is that of then */
    pthread_mutex_unlock(&session->mutex);
    ck_assert_digest_eq(snapshots_digest(session), then);
    pthread_mutex_lock(&session->mutex);
    session->state->snapshot.last = last;
    pthread_mutex_unlock(&session->mutex);
    snapshots_check_replay(session);
    ck_assert_int_eq(snapshots_add_random(session, last, 3, "b", NULL), STATUS_SNAPSHOT_STALE);
    ck_assert_int_eq(snapshots_add_random(session, number, 3, "b", NULL), STATUS_OK);
    ck_assert(snapshots_look(session).ready);
    snapshots_check_replay(session);
    session_release(session);
    engine_close(engine);
    engine = engines_open(url, NULL);
    session = engines_find(engine, "s");
    ck_assert_uint_eq(snapshots_make(session, 0, (double)NAN).number, last + 1);
    snapshots_check_replay(session);
    session_release(session);
}
END_TEST

START_TEST(a_fork_keeps_it)
{
    struct spec spec = snapshots_spec(dtypes[_i % 2], "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT), *child;
    struct fork_request request = {.id = "f", .state = FORK_KEEP};
    struct fork_outcome outcome;
    struct fault fault;
    struct receipt receipt;

    engines_steps(session, 2, &snapshots_random);
    uint64_t number = snapshots_make(session, 2, (double)NAN).number;
    ck_assert_int_eq(snapshots_add_random(session, number, 3, "a", NULL), STATUS_OK);
    if (_i >= 2)
        ck_assert_int_eq(snapshots_add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert_int_eq(session_fork(session, &request, &child, &outcome, &fault), STATUS_OK);
    ck_assert_digest_eq(snapshots_digest(child), snapshots_digest(session));
    snapshots_check_replay(child);
    if (_i < 2)
        ck_assert_int_eq(snapshots_add_random(child, number, 1, "b", NULL), STATUS_OK);
    ck_assert_int_eq(snapshots_try_pair(child, number, &receipt, &fault), STATUS_OK);
    ck_assert_int_eq(snapshots_look(session).ready, _i >= 2);
    session_release(child);
    request = (struct fork_request){.id = "r", .state = FORK_RESET};
    ck_assert_int_eq(session_fork(session, &request, &child, &outcome, &fault), STATUS_OK);
    struct snapshot_view view;
    ck_assert_int_eq(session_snapshot_view(child, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    session_release(child);
    session_release(session);
}
END_TEST

/* Out of the session into an image, and by its bytes into another session. */
START_TEST(an_export_carries_it)
{
    struct spec spec = snapshots_spec(dtypes[_i % 2], "adam");
    struct session *session = engines_create(engine, "s", &spec, COUNT), *copy;
    struct image *image, *other;
    struct fault fault;
    bool created;

    engines_steps(session, 2, &snapshots_random);
    uint64_t number = snapshots_make(session, 2, (double)NAN).number;
    ck_assert_int_eq(snapshots_add_random(session, number, 3, "a", NULL), STATUS_OK);
    if (_i >= 2)
        ck_assert_int_eq(snapshots_add_random(session, number, 1, "b", NULL), STATUS_OK);
    engines_steps(session, 1, &snapshots_random);
    ck_assert_int_eq(session_export(session, NULL, &image, &fault), STATUS_OK);
    ck_assert_int_eq(engine_image(engine, image->record, image->head, &other, &fault), STATUS_OK);
    ck_assert_uint_eq(other->vector_count, image->vector_count);
    for (size_t i = 0; i < image->vector_count; i++) {
        const struct image_vector *from = &image->vectors[i], *to = &other->vectors[i];
        ck_assert_str_eq(from->prefix, to->prefix);
        ck_assert_int_eq(from->dtype, to->dtype);
        memcpy(to->data->data, from->data->data, COUNT * dtype_size(from->dtype));
    }
    image_free(image);
    ck_assert_int_eq(engine_import(engine, NULL, "copy", other, &copy, &created, &fault),
                     STATUS_OK);
    ck_assert_digest_eq(snapshots_digest(copy), snapshots_digest(session));
    snapshots_check_replay(copy);
    if (_i < 2) {
        ck_assert_int_eq(snapshots_add_random(copy, number, 1, "b", NULL), STATUS_OK);
        ck_assert(snapshots_look(copy).ready);
    }
    session_release(copy);
    session_release(session);
}
END_TEST

/* --- failures and company --- */

START_TEST(a_failed_commit_adds_nothing)
{
    struct faulty_store *store = faulty_store_new();
    struct engine *own = engines_open_store(faulty_store_open(store), NULL);
    struct spec spec = snapshots_spec(DTYPE_F32, "sgd");
    struct session *session = engines_create(own, "s", &spec, COUNT);
    struct faulty_plan full = {
        .verbs = FAULTY_EVENT_APPEND, .count = 1000, .status = STATUS_STORAGE_FULL};
    struct snapshot_view view;
    struct fault fault;

    faulty_store_plan(store, full);
    ck_assert_int_eq(session_snapshot(session, 2, (double)NAN, &view, &fault), STATUS_STORAGE_FULL);
    ck_assert_int_eq(session_snapshot_view(session, 0, &view, &fault), STATUS_SNAPSHOT_NOT_FOUND);
    faulty_store_plan(store, (struct faulty_plan){0});
    uint64_t number = snapshots_make(session, 2, (double)NAN).number;
    ck_assert_uint_eq(number, 1);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, "a", NULL), STATUS_OK);
    struct digest before = snapshots_digest(session);
    faulty_store_plan(store, full);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, "b", NULL), STATUS_STORAGE_FULL);
    ck_assert_digest_eq(snapshots_digest(session), before);
    faulty_store_plan(store, full);
    ck_assert_int_eq(snapshots_close(session, number), STATUS_STORAGE_FULL);
    ck_assert_digest_eq(snapshots_digest(session), before);
    faulty_store_plan(store, (struct faulty_plan){0});
    snapshots_check_replay(session);
    ck_assert_int_eq(snapshots_add_random(session, number, 1, "b", NULL), STATUS_OK);
    ck_assert(snapshots_look(session).ready);
    snapshots_check_replay(session);
    session_release(session);
    engine_close(own);
    faulty_store_free(store);
}
END_TEST

enum { CROWD = 6, EACH = 8 };
struct helper {
    struct session *session;
    uint64_t number, random;
    pthread_t thread;
    unsigned taken, closed, replayed;
};

/* Every worker sends its parts, each twice; steps go on beside. */
static void *help(void *context)
{
    struct helper *self = context;
    char worker[24], part[24];

    snprintf(worker, sizeof worker, "w%llu", (unsigned long long)(self->random % CROWD));
    for (int i = 0; i < 2 * EACH; i++) {
        struct buffer *gradient = engines_constant(COUNT, (float)(i / 2 + 1));
        struct shard shard = snapshots_shard(gradient, DTYPE_F32, 1, worker, part);
        struct snapshot_view view;
        struct fault fault;
        bool replayed;
        snprintf(part, sizeof part, "%d", i / 2);
        enum status status =
            session_snapshot_add(self->session, self->number, &shard, &view, &replayed, &fault);
        self->closed += status == STATUS_SNAPSHOT_CLOSED;
        self->replayed += status == STATUS_OK && replayed;
        self->taken += status == STATUS_OK && !replayed;
        buffer_release(gradient);
    }
    return NULL;
}

START_TEST(a_crowd_is_counted_right)
{
    struct spec spec = snapshots_spec(DTYPE_F64, "sgd");
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    uint64_t number = snapshots_make(session, 0, CROWD * EACH).number;
    struct helper helpers[2 * CROWD];
    unsigned taken = 0, replayed = 0, closed = 0;

    for (uint64_t i = 0; i < 2 * CROWD; i++) { /* two threads are the same worker */
        helpers[i] = (struct helper){.session = session, .number = number, .random = i};
        ck_assert_int_eq(pthread_create(&helpers[i].thread, NULL, help, &helpers[i]), 0);
    }
    engines_steps(session, 10, &snapshots_random);
    for (size_t i = 0; i < 2 * CROWD; i++) {
        pthread_join(helpers[i].thread, NULL);
        taken += helpers[i].taken;
        replayed += helpers[i].replayed;
        closed += helpers[i].closed;
    }
    ck_assert_uint_eq(taken, CROWD * EACH);
    ck_assert_uint_eq(replayed, 3 * CROWD * EACH);
    ck_assert_uint_eq(closed, 0);
    struct snapshot_view view = snapshots_look(session);
    ck_assert(view.ready && view.workers == CROWD && view.examples == CROWD * EACH);
    struct buffer *mean = snapshots_mean(session);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_double_eq(snapshots_element(mean, DTYPE_F64, DTYPE_F64, i), (EACH + 1) / 2.0);
    buffer_release(mean);
    snapshots_check_replay(session);
    session_release(session);
}
END_TEST

Suite *suite_snapshots_past(void);

Suite *suite_snapshots_past(void)
{
    Suite *suite = suite_create("snapshots_past");
    TCase *rest = tcase_create("sessions"), *past = tcase_create("restarts");

    tcase_add_checked_fixture(rest, set_up, tear_down);
    tcase_add_loop_test(rest, a_fork_keeps_it, 0, 4);
    tcase_add_loop_test(rest, an_export_carries_it, 0, 4);
    tcase_add_test(rest, a_failed_commit_adds_nothing);
    tcase_add_test(rest, a_crowd_is_counted_right);
    suite_add_tcase(suite, rest);
    tcase_add_checked_fixture(past, set_up_folder, tear_down);
    tcase_add_loop_test(past, every_event_comes_back, 0, 4);
    tcase_add_loop_test(past, a_rewind_brings_the_snapshot_of_then_back, 0, 2);
    suite_add_tcase(suite, past);
    return suite;
}
