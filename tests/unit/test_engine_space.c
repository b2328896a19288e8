/* The file gets short again after much of it was deleted. */
#include <check.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { SMALL = 12 << 20, LARGE = 48 << 20, VALUES = 1 << 20, STEPS = 12 };

static char folder[256], url[300];

static off_t file_size(void)
{
    char path[300];
    struct stat info;

    snprintf(path, sizeof path, "%s/descent.db", folder);
    ck_assert_int_eq(stat(path, &info), 0);
    return info.st_size;
}

static bool is_small(void *context)
{
    (void)context;
    return file_size() < SMALL;
}

static void delete_session(struct engine *engine, struct session *session)
{
    struct fault fault;

    ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
    session_release(session);
}

/* An engine with two sessions, a large one and "small". */
static struct engine *open_filled(struct session **large, uint64_t *random)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");

    snprintf(folder, sizeof folder, "%s", testing_folder());
    snprintf(url, sizeof url, "sqlite:%s", folder);
    struct engine *engine = engines_open(url, NULL);
    session_release(engines_create(engine, "small", &spec, 7));
    *large = engines_create(engine, "large", &spec, VALUES);
    engines_steps(*large, STEPS, random);
    ck_assert_int_gt(file_size(), LARGE);
    return engine;
}

START_TEST(deleted_session_gives_its_space_back)
{
    uint64_t random = testing_seed() ^ 90;
    struct session *large;
    struct engine *engine = open_filled(&large, &random);

    delete_session(engine, large);
    ck_assert(engines_await(is_small, NULL, 20));
    engine_close(engine);
}
END_TEST

START_TEST(space_is_given_back_while_others_step)
{
    uint64_t random = testing_seed() ^ 91;
    struct session *large;
    struct engine *engine = open_filled(&large, &random);
    struct session *small = engines_find(engine, "small");
    uint64_t until = clock_monotonic_us() + 20000000;

    delete_session(engine, large);
    while (!is_small(NULL)) { /* never idle for as long as a slice takes */
        ck_assert_msg(clock_monotonic_us() < until, "still %lld bytes", (long long)file_size());
        engines_step(small, &random);
        usleep(1000); /* else its own journal fills what is free */
    }
    session_release(small);
    engine_close(engine);
}
END_TEST

START_TEST(space_is_given_back_after_opening)
{
    uint64_t random = testing_seed() ^ 92;
    struct session *large;
    struct engine *engine = open_filled(&large, &random);

    delete_session(engine, large);
    engine_close(engine);
    ck_assert_int_gt(file_size(), LARGE); /* there was no time */
    engine = engines_open(url, NULL);
    ck_assert(engines_await(is_small, NULL, 20));
    engine_close(engine);
}
END_TEST

Suite *suite_engine_space(void);
Suite *suite_engine_space(void)
{
    Suite *suite = suite_create("engine_space");
    TCase *tcase = tcase_create("sqlite");

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, deleted_session_gives_its_space_back);
    tcase_add_test(tcase, space_is_given_back_while_others_step);
    tcase_add_test(tcase, space_is_given_back_after_opening);
    suite_add_tcase(suite, tcase);
    return suite;
}
