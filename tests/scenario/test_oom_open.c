/* Memory that runs out while a server starts on a stored folder, while it stops, and while a
 * session leaves memory: the i-th allocation fails, for i = 0, 1, 2 ... until nothing fails any
 * more; then again, with all that follow the i-th failing too. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/config.h"
#include "api/server.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/oom.h"
#include "tests/lib/testing.h"

enum { LANES = 7, ATTEMPTS_MAX = 5000 };

static const char *const names[] = {"sure", "soon", "late"};
enum { SESSIONS = sizeof names / sizeof *names };

static char url[300];
static uint64_t numbers;
static uint64_t place; /* of the allocation that fails */
static bool forever;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s, when allocation %llu%s failed, called by\n", what,
            (unsigned long long)place, forever ? " and all after it" : "");
    oom_show_failure(stderr);
    ck_abort_msg("%s", what);
}

/* A folder as a crash leaves it: sessions of every durability, a checkpoint and events after it. */
static void make_folder(void)
{
    int status;

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    numbers = testing_seed();
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct engine *engine = engines_open(url, NULL);
        for (size_t i = 0; i < SESSIONS; i++) {
            struct spec spec = engines_spec(DTYPE_F32, "adam");
            spec.durability.mode = i == 0   ? DURABILITY_STEP
                                   : i == 1 ? DURABILITY_INTERVAL
                                            : DURABILITY_CHECKPOINT;
            spec.durability.seconds = 0.001;
            spec.durability.steps = 2;
            struct session *session = engines_create(engine, names[i], &spec, LANES);
            engines_steps(session, 5, &numbers);
            engines_patch(session, "lr", 0.5);
            engines_steps(session, 2, &numbers);
            session_release(session);
        }
        usleep(50000); /* what is due in a millisecond is written */
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    oom_share();
}

static struct digest digest_of(struct engine *engine, const char *name)
{
    struct session *session = engines_find(engine, name);
    struct digest digest = engines_digest(session, false);

    session_release(session);
    return digest;
}

static bool equal(struct digest a, struct digest b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void check_sessions(struct engine *engine, const struct digest digests[SESSIONS],
                           const char *what)
{
    for (size_t i = 0; i < SESSIONS; i++)
        check(equal(digest_of(engine, names[i]), digests[i]), what);
}

/* One index after the other, or only every stride-th unless DESCENT_OOM_ALL is set, until two
 * attempts in a row had no failure: other threads allocate when they like. */
static unsigned sweep(bool (*attempt)(void *context), void *context, unsigned stride)
{
    unsigned attempts = 0;

    for (int pass = 0; pass < 2; pass++) {
        forever = pass == 1;
        unsigned calm = 0;
        if (getenv("DESCENT_OOM_ALL") != NULL)
            stride = 1;
        for (place = testing_seed() % stride; calm < 2; place += calm == 0 ? stride : 0) {
            ck_assert_uint_lt(attempts++, ATTEMPTS_MAX);
            calm = attempt(context) ? 0 : calm + 1;
        }
    }
    return attempts;
}

static void arm(void)
{
    oom_enlist();
    oom_arm(place, forever);
}

/* --- opening --- */

struct opened {
    struct config config;
    struct engine *engine;
    struct server *server;
};

static enum status open_all(struct opened *opened, struct fault *fault)
{
    struct engine_options options = engines_options();
    enum status status;

    opened->engine = NULL;
    opened->server = NULL;
    if ((status = store_open(url, true, &options.take_store, fault)) == STATUS_OK &&
        (status = engine_open(&options, &opened->engine, fault)) == STATUS_OK)
        status = server_start(&opened->config, opened->engine, -1, &opened->server, fault);
    return status;
}

static void close_all(struct opened *opened)
{
    if (opened->server != NULL)
        ck_assert(server_stop(opened->server));
    if (opened->engine != NULL)
        engine_close(opened->engine);
}

struct opening {
    struct opened opened;
    struct digest digests[SESSIONS];
    unsigned refused;
};

static bool open_without_memory(void *context)
{
    struct opening *opening = context;
    struct fault fault = {.detail = ""};

    arm();
    enum status status = open_all(&opening->opened, &fault);
    uint64_t failed = oom_disarm();
    if (status != STATUS_OK) {
        opening->refused++;
        if (status != STATUS_INTERNAL ||
            (strcasestr(fault.detail, "memory") == NULL && strstr(fault.detail, "thread") == NULL &&
             strstr(fault.detail, strerror(EAGAIN)) == NULL)) {
            fprintf(stderr, "%s: %s\n", status_code(status), fault.detail);
            check(false, "a fault that does not name memory");
        }
    } else if (failed > 0) {
        check_sessions(opening->opened.engine, opening->digests, "opened, but not whole");
    }
    close_all(&opening->opened);
    check(oom_leaks(stderr) == 0, "not freed");
    return failed > 0;
}

START_TEST(a_folder_is_opened_whole_or_not_at_all)
{
    static const char *const arguments[] = {"--listen", "127.0.0.1:0", NULL};
    struct opening opening = {.refused = 0};
    struct fault fault;

    make_folder();
    log_set_level(LOG_OFF);
    ck_assert_int_eq(
        config_read((char *const *)(const void *)arguments, &opening.opened.config, &fault),
        STATUS_OK);
    /* Twice: what libraries make for good. */
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(open_all(&opening.opened, &fault), STATUS_OK);
        for (size_t k = 0; k < SESSIONS; k++)
            opening.digests[k] = digest_of(opening.opened.engine, names[k]);
        close_all(&opening.opened);
    }
    unsigned attempts = sweep(open_without_memory, &opening, 23);
    printf("open: %u attempts, %u refused\n", attempts, opening.refused);
    ck_assert_uint_gt(opening.refused, 50);
    ck_assert_int_eq(open_all(&opening.opened, &fault), STATUS_OK);
    check_sessions(opening.opened.engine, opening.digests, "the folder was harmed");
    close_all(&opening.opened);
    config_close(&opening.opened.config);
}
END_TEST

/* --- closing --- */

static bool close_without_memory(void *context)
{
    struct engine *engine = engines_open(url, NULL);
    struct digest before[SESSIONS], after[SESSIONS];
    unsigned *lost = context;

    for (size_t i = 0; i < SESSIONS; i++) {
        struct session *session = engines_find(engine, names[i]);
        before[i] = engines_digest(session, false);
        engines_step(session, &numbers);
        after[i] = engines_digest(session, false);
        session_release(session);
    }
    arm();
    engine_close(engine);
    uint64_t failed = oom_disarm();
    check(oom_leaks(stderr) == 0, "not freed");
    engine = engines_open(url, NULL);
    for (size_t i = 0; i < SESSIONS; i++) {
        struct digest digest = digest_of(engine, names[i]);
        bool kept = equal(digest, after[i]);
        /* A step that was acknowledged as durable is; others may be lost whole. */
        check(kept || (i > 0 && failed > 0 && equal(digest, before[i])), "neither kept nor lost");
        *lost += !kept;
    }
    engine_close(engine);
    return failed > 0;
}

START_TEST(a_stop_loses_nothing_that_was_durable)
{
    unsigned lost = 0;

    make_folder();
    log_set_level(LOG_OFF);
    engine_close(engines_open(url, NULL));
    unsigned attempts = sweep(close_without_memory, &lost, 1);
    printf("close: %u attempts, %u steps lost that were not durable\n", attempts, lost);
}
END_TEST

/* --- leaving memory --- */

static bool evict_without_memory(void *context)
{
    struct engine *engine = context;
    uint64_t failed = 0;
    struct fault fault = {.detail = ""};

    for (size_t i = 0; i < SESSIONS; i++) {
        struct session *session = engines_find(engine, names[i]);
        engines_step(session, &numbers);
        struct digest digest = engines_digest(session, false);
        ck_assert_int_eq(session_pin(session, &fault), STATUS_OK);
        arm();
        enum status status = session_save(session, true, &fault);
        session_unpin(session);
        session_evict(session);
        failed += oom_disarm();
        check(status == STATUS_OK || status == STATUS_INTERNAL, fault.detail);
        check(equal(engines_digest(session, false), digest), "another session came back");
        session_release(session);
    }
    return failed > 0;
}

START_TEST(a_session_leaves_memory_saved_or_stays)
{
    make_folder();
    log_set_level(LOG_OFF);
    struct engine *engine = engines_open(url, NULL);
    unsigned attempts = sweep(evict_without_memory, engine, 1);
    printf("evict: %u attempts\n", attempts);
    engine_close(engine);
    check(oom_leaks(stderr) == 0, "not freed");
}
END_TEST

Suite *suite_oom_open(void);
Suite *suite_oom_open(void)
{
    Suite *suite = suite_create("oom_open");
    TCase *life = tcase_create("life");

    tcase_set_timeout(life, 120);
    tcase_add_test(life, a_folder_is_opened_whole_or_not_at_all);
    tcase_add_test(life, a_stop_loses_nothing_that_was_durable);
    tcase_add_test(life, a_session_leaves_memory_saved_or_stays);
    suite_add_tcase(suite, life);
    return suite;
}
