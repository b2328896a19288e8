/* What runs beside the deletion of its session ends in words. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { THREADS = 6, ROUNDS = 2000 };

static void *save_on(void *context)
{
    struct session *session = context;
    struct moment moment;
    struct fault fault;

    while (session_checkpoint_now(session, &moment, &fault) == STATUS_OK)
        ck_assert_uint_eq(moment.step, 0);
    ck_assert_int_eq(fault.status, STATUS_SESSION_NOT_FOUND);
    return NULL;
}

START_TEST(a_checkpoint_beside_the_deletion_of_its_session)
{
    struct engine *engine = engines_open("memory:", NULL);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    pthread_t threads[THREADS];
    struct fault fault;

    for (int i = 0; i < ROUNDS; i++) {
        struct session *session = engines_create(engine, "s", &spec, 3);
        for (size_t t = 0; t < THREADS; t++)
            pthread_create(&threads[t], NULL, save_on, session);
        ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
        for (size_t t = 0; t < THREADS; t++)
            pthread_join(threads[t], NULL);
        session_release(session);
    }
    engine_close(engine);
}
END_TEST

Suite *suite_beside_deletion(void);
Suite *suite_beside_deletion(void)
{
    Suite *suite = suite_create("beside_deletion");
    TCase *cases = tcase_create("beside_deletion");

    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, a_checkpoint_beside_the_deletion_of_its_session);
    suite_add_tcase(suite, cases);
    return suite;
}
