/* Readers see whole revisions and keep nobody waiting. With plain sgd, equal weights and equal
 * gradients stay equal: a vector with two values in it is torn. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "service/session/past.h"
#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { READERS = 3, WRITERS = 2 };

struct scene {
    struct session *session;
    size_t count;
    atomic_bool stop;
    atomic_uint reads, torn, backward, revisions;
};

static void *read_on(void *context)
{
    struct scene *scene = context;
    struct revision *revision;
    uint64_t last = 0;
    struct fault fault;

    while (!scene->stop) {
        if (session_revision(scene->session, &revision, &fault) != STATUS_OK)
            break;
        const float *w = (const float *)(const void *)revision->weights->data;
        size_t i = 1;
        while (i < scene->count && w[i] == w[0])
            i++;
        scene->torn += i < scene->count || w[0] != (float)revision->step * -0.5f;
        scene->backward += revision->step < last;
        scene->revisions += revision->step > last;
        last = revision->step;
        scene->reads++;
        revision_release(revision);
    }
    return NULL;
}

struct writer {
    struct scene *scene;
    size_t steps;
    enum status status;
};

static void *write_on(void *context)
{
    struct writer *writer = context;
    struct buffer *ones = engines_constant(writer->scene->count, 1);
    struct submission submission = engines_submission(ones, DTYPE_F32);

    for (size_t i = 0; i < writer->steps && writer->status == STATUS_OK; i++)
        writer->status = engines_submit(writer->scene->session, &submission, NULL, NULL, NULL);
    buffer_release(ones);
    return NULL;
}

static struct session *equal_session(struct engine *engine, size_t count)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct layout *layout = layout_new();
    struct buffer *zeros = engines_constant(count, 0);
    struct session_request request = {
        .id = "one", .spec = &spec, .layout = layout, .weights = zeros};
    struct session *session;
    struct fault fault;
    bool created;

    engines_hyper(&spec, "lr", 0.5); /* halves: exact at every step */
    ck_assert_int_eq(layout_add(layout, "w", 1, 1, &count, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(engine_create(engine, &request, &session, &created, &fault), STATUS_OK);
    layout_release(layout);
    buffer_release(zeros);
    return session;
}

static const struct {
    size_t count, steps;
} sizes[] = {{1031, 3000}, {1000003, 60}};

START_TEST(readers_see_whole_revisions_in_order)
{
    struct engine_options options = engines_options();
    options.history_bytes_max = 64 << 20; /* the journal is trimmed meanwhile */
    struct engine *engine = engines_open("memory:", &options);
    struct scene scene = {.count = sizes[_i].count};
    struct writer writers[WRITERS];
    pthread_t readers[READERS], threads[WRITERS];

    scene.session = equal_session(engine, scene.count);
    for (size_t i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_create(&readers[i], NULL, read_on, &scene), 0);
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.scene = &scene, .steps = sizes[_i].steps};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(writers[i].status, STATUS_OK);
    }
    scene.stop = true;
    for (size_t i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    ck_assert_uint_eq(scene.torn, 0);
    ck_assert_uint_eq(scene.backward, 0);
    ck_assert_uint_gt(scene.revisions, 10); /* they did read while it moved */
    ck_assert_uint_eq(engines_view(scene.session).step, WRITERS * sizes[_i].steps);
    session_release(scene.session);
    engine_close(engine);
}
END_TEST

/* A step that stands in its commit keeps no reader waiting, and a reader that holds on to a
 * revision keeps no step waiting nor sees it change. */
START_TEST(readers_and_steps_do_not_wait_for_each_other)
{
    struct faulty_store *store = faulty_store_new();
    struct engine *engine = engines_open_store(faulty_store_open(store), NULL);
    struct scene scene = {.count = 1031};
    struct writer writer = {.scene = &scene, .steps = 1};
    struct revision *held, *seen;
    struct fault fault;
    pthread_t thread;

    scene.session = equal_session(engine, scene.count);
    ck_assert_int_eq(session_revision(scene.session, &held, &fault), STATUS_OK);
    faulty_store_hold(store);
    ck_assert_int_eq(pthread_create(&thread, NULL, write_on, &writer), 0);
    faulty_store_await_held(store);
    for (int i = 0; i < 100; i++) { /* would hang if a reader waited for the commit */
        ck_assert_int_eq(session_revision(scene.session, &seen, &fault), STATUS_OK);
        ck_assert_uint_eq(seen->step, 0);
        revision_release(seen);
        ck_assert_uint_eq(engines_view(scene.session).step, 0);
    }
    faulty_store_let_go(store);
    pthread_join(thread, NULL);
    ck_assert_int_eq(writer.status, STATUS_OK);
    write_on(&writer);
    const float *w = (const float *)(const void *)held->weights->data;
    for (size_t i = 0; i < scene.count; i++)
        ck_assert(w[i] == 0);
    ck_assert_uint_eq(held->step, 0);
    revision_release(held);
    session_release(scene.session);
    engine_close(engine);
    faulty_store_free(store);
}
END_TEST

/* --- deletion --- */

struct deletion {
    struct engine *engine;
    struct session *session;
    enum status status;
};

static void *delete_it(void *context)
{
    struct deletion *deletion = context;
    struct fault fault;

    deletion->status = session_delete(deletion->engine, deletion->session, &fault);
    return NULL;
}

static bool is_deleted(void *context)
{
    struct session *session = context;

    pthread_mutex_lock(&session->mutex);
    bool deleted = session->deleted;
    pthread_mutex_unlock(&session->mutex);
    return deleted;
}

/* Somebody may read the history of a deleted session for minutes: a fork that replays it. Its name
 * is free meanwhile, and nobody who wants it asks for it in a loop. */
START_TEST(a_name_is_free_while_the_last_reader_of_its_session_reads)
{
    struct engine *engine = engines_open("memory:", NULL);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct deletion deletion = {engine, engines_create(engine, "one", &spec, 7), STATUS_OK};
    struct session *another;
    struct fault fault;
    pthread_t thread;
    bool created = false;

    pthread_mutex_lock(&deletion.session->mutex);
    ck_assert_int_eq(session_start_reading(deletion.session, &fault), STATUS_OK);
    pthread_mutex_unlock(&deletion.session->mutex);
    ck_assert_int_eq(pthread_create(&thread, NULL, delete_it, &deletion), 0);
    ck_assert(engines_await(is_deleted, deletion.session, 10));
    ck_assert_int_eq(engines_try_create(engine, "one", &spec, 8, &another, &created, &fault),
                     STATUS_OK);
    ck_assert(created);
    ck_assert_ptr_nonnull(deletion.session->checkpoints); /* which the reader reads */
    pthread_mutex_lock(&deletion.session->mutex);
    session_end_reading(deletion.session);
    pthread_mutex_unlock(&deletion.session->mutex);
    pthread_join(thread, NULL);
    ck_assert_int_eq(deletion.status, STATUS_OK);
    ck_assert_ptr_null(deletion.session->checkpoints);
    ck_assert_uint_eq(engines_view(another).step, 0);
    session_release(deletion.session);
    session_release(another);
    engine_close(engine);
}
END_TEST

static bool is_awaited(void *context)
{
    struct session *session = context;

    pthread_mutex_lock(&session->mutex);
    bool awaited = session->arrivals > session->called;
    pthread_mutex_unlock(&session->mutex);
    return awaited;
}

/* Runs only when nobody else wants the processor. */
static void *save_idly(void *context)
{
    static const struct sched_param none;
    struct deletion *saving = context;
    struct moment moment;
    struct fault fault;

    ck_assert_int_eq(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    saving->status = session_checkpoint_now(saving->session, &moment, &fault);
    return NULL;
}

/* The session goes between the checkpoint and the answer that says which it was. */
START_TEST(a_checkpoint_may_be_the_last_thing_of_its_session)
{
    struct faulty_store *store = faulty_store_new();
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = testing_seed();
    pthread_t saver, deleter;
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    struct engine *engine = engines_open_store(faulty_store_open(store), NULL);
    for (int i = 0; i < 20; i++) {
        struct session *session = engines_create(engine, "one", &spec, 7);
        struct deletion saving = {engine, session, STATUS_OK}, deletion = saving;
        engines_step(session, &random);
        faulty_store_hold(store);
        ck_assert_int_eq(pthread_create(&saver, NULL, save_idly, &saving), 0);
        faulty_store_await_held(store);
        ck_assert_int_eq(pthread_create(&deleter, NULL, delete_it, &deletion), 0);
        ck_assert(engines_await(is_awaited, session, 10));
        faulty_store_let_go(store);
        pthread_join(saver, NULL);
        pthread_join(deleter, NULL);
        ck_assert(saving.status == STATUS_OK || saving.status == STATUS_SESSION_NOT_FOUND);
        ck_assert_int_eq(deletion.status, STATUS_OK);
        session_release(session);
    }
    engine_close(engine);
    faulty_store_free(store);
}
END_TEST

Suite *suite_readers(void);
Suite *suite_readers(void)
{
    Suite *suite = suite_create("readers");
    TCase *readers = tcase_create("readers");

    tcase_set_timeout(readers, 120);
    tcase_add_loop_test(readers, readers_see_whole_revisions_in_order, 0,
                        (int)(sizeof sizes / sizeof *sizes));
    tcase_add_test(readers, readers_and_steps_do_not_wait_for_each_other);
    tcase_add_test(readers, a_name_is_free_while_the_last_reader_of_its_session_reads);
    tcase_add_test(readers, a_checkpoint_may_be_the_last_thing_of_its_session);
    suite_add_tcase(suite, readers);
    return suite;
}
