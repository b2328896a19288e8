/* What comes back: after a close, after a crash, after idling, after trimming. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

static uint64_t seeded(uint64_t constant)
{
    return testing_seed() ^ constant;
}

/* --- a long history of everything ---
 *
 * A process takes it and dies without a word; this one replays it. */

struct history {
    enum dtype dtype;
    const char *rule;
    size_t count;
    int steps;
};

static const struct history histories[] = {
    {DTYPE_F32, "sgd", 1, 600},      {DTYPE_F32, "sgd", 1031, 600},
    {DTYPE_F64, "sgd", 7, 600},      {DTYPE_F32, "adam", 1031, 600},
    {DTYPE_F64, "adam", 1031, 600},  {DTYPE_F64, "momentum", 7, 600},
    {DTYPE_F32, "adam", 300007, 40}, {DTYPE_F64, "sgd", 140009, 40}, /* events of several chunks */
};

static enum status change_anything(void *context, struct spec *spec, struct fault *fault)
{
    uint64_t *random = context;
    static const double clips[] = {0.5, 2, (double)NAN};
    static const double momenta[] = {0, 0.9, 0.5};
    size_t momentum = optimizer_hyper(spec->rule, "momentum");

    (void)fault;
    spec->hyper[HYPER_LR] = testing_uniform(random);
    spec->hyper[HYPER_WEIGHT_DECAY] = testing_random(random) % 2 == 0 ? 0.01 : 0;
    spec->hyper[HYPER_WEIGHT_DECAY_MODE] = (double)(testing_random(random) % 3);
    spec->gradient.nonfinite = testing_random(random) % 2 == 0 ? NONFINITE_SKIP : NONFINITE_ZERO;
    spec->gradient.clip_norm = clips[testing_random(random) % 3];
    spec->gradient.clip_value = clips[testing_random(random) % 3];
    spec->gradient.rescale = 0.5 + testing_uniform(random);
    if (momentum < spec->rule->hyper_count)
        spec->hyper[momentum] = momenta[testing_random(random) % 3];
    return STATUS_OK;
}

static void take_gradient(struct session *session, uint64_t *random, int number)
{
    size_t count = session_layout(session)->count;
    enum dtype wire = (enum dtype)(testing_random(random) % DTYPE_COUNT);
    struct buffer *gradient = engines_gradient(wire, count, random);
    struct submission submission = engines_submission(gradient, wire);
    struct session_view view = engines_view(session);
    const struct optimizer *rule = view.spec.rule;
    size_t momentum = optimizer_hyper(rule, "momentum");
    char key[32], cursor[32];
    struct fault fault;

    snprintf(key, sizeof key, "key %llx", (unsigned long long)testing_random(random));
    snprintf(cursor, sizeof cursor, "cursor %d", number);
    if (testing_random(random) % 3 == 0)
        submission.key = key;
    if (testing_random(random) % 3 == 0)
        submission.cursor = cursor;
    if (testing_random(random) % 4 == 0)
        submission.lr = testing_uniform(random);
    if (testing_random(random) % 4 == 0 && optimizer_hyper(rule, "beta1") < rule->hyper_count)
        submission.beta1 = 0.8;
    if (testing_random(random) % 4 == 0 && momentum < rule->hyper_count &&
        view.spec.hyper[momentum] != 0)
        submission.momentum = 0.25;
    if (testing_random(random) % 8 == 0) /* all bits: NaN in every one of the four */
        memset(gradient->data + testing_random(random) % count * dtype_size(wire), 0xFF,
               dtype_size(wire));
    if (engines_submit(session, &submission, NULL, NULL, &fault) != STATUS_OK)
        ck_abort_msg("step %d: %s", number, fault.detail);
    buffer_release(gradient);
}

static void take_history(struct session *session, int steps, uint64_t *random)
{
    size_t count = session_layout(session)->count;
    struct outcome outcome;
    struct fault fault;

    for (int i = 0; i < steps; i++) {
        uint64_t what = testing_random(random) % 16;
        if (what == 0) {
            ck_assert_int_eq(session_patch(session, change_anything, random, &fault), STATUS_OK);
        } else if (what == 1) {
            struct buffer *weights = engines_gradient(session_dtype(session), count, random);
            ck_assert_int_eq(
                session_replace(session, weights, &(struct precondition){0}, &outcome, &fault),
                STATUS_OK);
            revision_release(outcome.revision);
            buffer_release(weights);
        } else {
            take_gradient(session, random, i);
        }
    }
}

/* Runs `work` in a process that ends without closing anything; false when it did not come to its
 * end. */
static bool run_and_crash(void (*work)(const char *url, void *out), const char *url, void *out,
                          size_t size)
{
    int ends[2], status;

    ck_assert_int_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        work(url, out);
        _exit(write(ends[1], out, size) == (ssize_t)size ? 0 : 1);
    }
    close(ends[1]);
    bool told = read(ends[0], out, size) == (ssize_t)size;
    close(ends[0]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return told && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static const char *sqlite_url(void)
{
    static char url[300];

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    return url;
}

struct memo {
    int which;
    uint64_t random;
    struct digest digest;
};

static void live_history(const char *url, void *out)
{
    struct memo *memo = out;
    const struct history *history = &histories[memo->which];
    struct spec spec = engines_spec(history->dtype, history->rule);

    spec.gradient.nonfinite = NONFINITE_SKIP;
    struct session *session = engines_create(engines_open(url, NULL), "one", &spec, history->count);
    take_history(session, history->steps, &memo->random);
    memo->digest = engines_digest(session, true);
}

START_TEST(replay_gives_the_bits_of_the_live_run)
{
    struct memo memo = {.which = _i, .random = seeded(10 + (uint64_t)_i)};
    const char *url = sqlite_url();

    ck_assert(run_and_crash(live_history, url, &memo, sizeof memo));
    for (int again = 0; again < 2; again++) { /* the second time from the checkpoint of the close */
        struct engine *engine = engines_open(url, NULL);
        struct session *session = engines_find(engine, "one");
        ck_assert_digest_eq(engines_digest(session, true), memo.digest);
        session_release(session);
        engine_close(engine);
    }
}
END_TEST

START_TEST(a_session_goes_on_where_it_was_closed)
{
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    const char *url = sqlite_url();
    uint64_t random = seeded(20), straight = random;
    struct digest digest;

    for (int opened = 0; opened < 4; opened++) {
        struct engine *engine = engines_open(url, NULL);
        struct session *session =
            opened == 0 ? engines_create(engine, "one", &spec, 1031) : engines_find(engine, "one");
        ck_assert_uint_eq(engines_view(session).step, 5 * (uint64_t)opened);
        ck_assert_uint_eq(engines_view(session).durable_step, 5 * (uint64_t)opened);
        engines_steps(session, 5, &random);
        digest = engines_digest(session, true);
        session_release(session);
        engine_close(engine);
    }
    struct engine *engine = engines_open("memory:", NULL);
    struct session *session = engines_create(engine, "one", &spec, 1031);
    engines_steps(session, 20, &straight);
    ck_assert_digest_eq(engines_digest(session, true), digest);
    session_release(session);
    engine_close(engine);
}
END_TEST

/* The log may have lost its last events (a deleted session's), but never goes back behind what a
 * checkpoint has seen. */
START_TEST(the_journal_goes_on_after_its_end_was_dropped)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    const char *url = sqlite_url();
    uint64_t random = seeded(21);
    struct engine *engine = engines_open(url, NULL);
    struct session *stays = engines_create(engine, "stays", &spec, 7);
    struct session *goes = engines_create(engine, "goes", &spec, 7);
    struct fault fault;

    engines_steps(stays, 5, &random);
    engines_steps(goes, 20, &random);
    ck_assert_int_eq(session_delete(engine, goes, &fault), STATUS_OK);
    session_release(goes);
    session_release(stays);
    engine_close(engine); /* "stays" is saved behind the events that are gone */
    for (uint64_t opened = 1; opened <= 2; opened++) {
        engine = engines_open(url, NULL);
        stays = engines_find(engine, "stays");
        ck_assert_uint_eq(engines_view(stays).step, 5 * opened);
        engines_steps(stays, 5, &random);
        session_release(stays);
        engine_close(engine);
    }
}
END_TEST

/* --- modes that may lose steps --- */

static bool is_durable(void *context)
{
    struct session_view view = engines_view(context);

    return view.durable_step == view.step;
}

START_TEST(an_interval_is_kept_next_to_a_longer_one)
{
    struct engine *engine = engines_open(sqlite_url(), NULL);
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = seeded(30);

    spec.durability.mode = DURABILITY_INTERVAL;
    spec.durability.seconds = 600;
    struct session *slow = engines_create(engine, "slow", &spec, 7);
    spec.durability.seconds = 0.2;
    struct session *quick = engines_create(engine, "quick", &spec, 7);
    struct receipt receipt = engines_step(slow, &random);
    ck_assert_uint_eq(receipt.step, 1);
    ck_assert_uint_eq(receipt.durable_step, 0);
    usleep(50000); /* now the writer sleeps for the slow one */
    receipt = engines_step(quick, &random);
    ck_assert_uint_eq(receipt.durable_step, 0);
    ck_assert(engines_await(is_durable, quick, 2));
    session_release(slow);
    session_release(quick);
    engine_close(engine);
}
END_TEST

struct told {
    int mode;
    uint64_t random, step, durable;
    struct digest digests[64];
};

static void bold_steps(const char *url, void *out)
{
    struct told *told = out;
    struct spec spec = engines_spec(DTYPE_F32, "adam");

    spec.durability.mode = told->mode;
    spec.durability.seconds = 0.05;
    spec.durability.steps = 7;
    struct session *session = engines_create(engines_open(url, NULL), "one", &spec, 1031);
    told->digests[0] = engines_digest(session, false);
    for (int i = 1; i < 60; i++) {
        struct receipt receipt = engines_step(session, &told->random);
        if (i == 30) {
            engines_patch(session, "lr", 0.5); /* before step 31: whole with what came before */
            usleep(100000);
        }
        told->step = receipt.step;
        told->durable = receipt.durable_step;
        told->digests[i] = engines_digest(session, false);
    }
}

START_TEST(a_crash_leaves_a_whole_step_not_before_the_durable_one)
{
    static struct told told;
    const char *url = sqlite_url();

    told = (struct told){.mode = _i, .random = seeded(31)};
    ck_assert(run_and_crash(bold_steps, url, &told, sizeof told));
    ck_assert_uint_eq(told.step, 59);
    ck_assert_uint_ge(told.durable, _i == DURABILITY_STEP         ? 59
                                    : _i == DURABILITY_CHECKPOINT ? 51
                                                                  : 30);
    struct engine *engine = engines_open(url, NULL);
    struct session *session = engines_find(engine, "one");
    struct session_view view = engines_view(session);
    ck_assert_uint_ge(view.step, told.durable);
    ck_assert_uint_le(view.step, told.step);
    ck_assert_uint_eq(view.durable_step, view.step);
    ck_assert_digest_eq(engines_digest(session, false), told.digests[view.step]);
    session_release(session);
    engine_close(engine);
}
END_TEST

/* --- memory and disk --- */

static bool nobody_is_in_memory(void *context)
{
    struct engine_usage usage;

    engine_usage(context, &usage);
    return usage.resident == 0;
}

START_TEST(idle_sessions_leave_and_come_back)
{
    struct engine_options options = engines_options();
    uint64_t random = seeded(40);
    struct session *sessions[3];
    struct digest digests[3];

    options.idle_s = 1;
    struct engine *engine = engines_open(sqlite_url(), &options);
    for (int i = 0; i < 3; i++) {
        struct spec spec = engines_spec(DTYPE_F64, i == 0 ? "sgd" : "adam");
        char id[2] = {(char)('a' + i)};
        spec.durability.mode = i; /* step, interval, checkpoint: none may lose a step by leaving */
        spec.durability.seconds = 300;
        spec.gradient.nonfinite = NONFINITE_SKIP;
        sessions[i] = engines_create(engine, id, &spec, 1031);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            take_history(sessions[i], 30, &random);
            digests[i] = engines_digest(sessions[i], i == 0);
        }
        ck_assert(engines_await(nobody_is_in_memory, engine, 10));
        for (int i = 0; i < 3; i++)
            ck_assert_digest_eq(engines_digest(sessions[i], i == 0), digests[i]);
    }
    for (int i = 0; i < 3; i++)
        session_release(sessions[i]);
    engine_close(engine);
}
END_TEST

static bool fits_in_memory(void *context)
{
    struct engine_usage usage;

    engine_usage(context, &usage);
    return usage.resident_bytes <= 1 << 20;
}

START_TEST(the_longest_unused_leave_when_memory_is_short)
{
    struct engine_options options = engines_options();
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    uint64_t random = seeded(41);
    struct session *sessions[16];
    struct digest digests[16];
    struct engine_usage usage;
    char id[32];

    options.memory_bytes_max = 1 << 20;
    struct engine *engine = engines_open(sqlite_url(), &options);
    for (size_t i = 0; i < 16; i++) { /* 3 x 40 KB each: eight fit */
        snprintf(id, sizeof id, "s%zu", i);
        sessions[i] = engines_create(engine, id, &spec, 10007);
    }
    for (size_t i = 0; i < 16; i++) {
        engines_steps(sessions[i], 3, &random);
        digests[i] = engines_digest(sessions[i], true);
    }
    ck_assert(engines_await(fits_in_memory, engine, 10));
    engine_usage(engine, &usage);
    ck_assert_uint_ge(usage.resident, 4); /* not more leave than must */
    for (size_t i = 0; i < 16; i++) {
        ck_assert_digest_eq(engines_digest(sessions[i], true), digests[i]);
        session_release(sessions[i]);
    }
    engine_close(engine);
}
END_TEST

struct bound {
    struct engine *engine;
    uint64_t bytes;
};

static bool is_trimmed(void *context)
{
    struct bound *bound = context;
    struct engine_usage usage;

    engine_usage(bound->engine, &usage);
    return usage.journal_bytes <= bound->bytes;
}

START_TEST(the_journal_keeps_to_its_limit)
{
    struct engine_options options = engines_options();
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    const char *url = sqlite_url();
    uint64_t random = seeded(42);
    struct digest digest, quiet_digest;

    options.history_bytes_max = 1 << 20;
    for (int opened = 0; opened < 3; opened++) { /* also of a journal that was there before */
        struct engine *engine = engines_open(url, &options);
        struct session *busy = opened == 0 ? engines_create(engine, "busy", &spec, 4099)
                                           : engines_find(engine, "busy");
        struct session *quiet =
            opened == 0 ? engines_create(engine, "quiet", &spec, 7) : engines_find(engine, "quiet");
        if (opened > 0) {
            ck_assert_digest_eq(engines_digest(busy, true), digest);
            ck_assert_digest_eq(engines_digest(quiet, true), quiet_digest);
        }
        engines_step(quiet, &random); /* lags behind: its events must not be lost */
        engines_steps(busy, opened == 0 ? 1500 : 100, &random); /* 16 KB each */
        ck_assert(engines_await(is_trimmed, &(struct bound){engine, (1 << 20) + 64 * 17000}, 5));
        engines_steps(busy, 64, &random);
        digest = engines_digest(busy, true);
        quiet_digest = engines_digest(quiet, true);
        session_release(busy);
        session_release(quiet);
        engine_close(engine);
    }
}
END_TEST

struct trimmed {
    uint64_t random;
    struct digest digest;
};

static void steps_under_trimming(const char *url, void *out)
{
    struct engine_options options = engines_options();
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    struct trimmed *trimmed = out;

    options.history_bytes_max = 1 << 20;
    spec.keep_steps = 5;
    struct engine *engine = engines_open(url, &options);
    struct session *session = engines_create(engine, "one", &spec, 1031);
    struct session *other = engines_create(engine, "other", &spec, 2053);
    for (int i = 0; i < 40; i++) {
        engines_steps(other, 10, &trimmed->random);
        engines_steps(session, 5, &trimmed->random);
    }
    trimmed->digest = engines_digest(session, true);
}

START_TEST(recovery_is_right_after_trimming)
{
    struct trimmed trimmed = {.random = seeded(43)};
    const char *url = sqlite_url();

    ck_assert(run_and_crash(steps_under_trimming, url, &trimmed, sizeof trimmed));
    struct engine *engine = engines_open(url, NULL);
    struct session *session = engines_find(engine, "one");
    ck_assert_uint_eq(engines_view(session).step, 200);
    ck_assert_digest_eq(engines_digest(session, true), trimmed.digest);
    session_release(session);
    session = engines_find(engine, "other");
    ck_assert_uint_eq(engines_view(session).step, 400);
    session_release(session);
    engine_close(engine);
}
END_TEST

/* A reader brings the state back while the session is deleted. */
static void *read_revision(void *context)
{
    struct revision *revision;
    struct fault fault;
    enum status status = session_revision(context, &revision, &fault);

    if (status == STATUS_OK)
        revision_release(revision);
    return status == STATUS_OK || status == STATUS_SESSION_NOT_FOUND ? context : NULL;
}

enum { DELETED = 12, EVENTS = 40 };

static void many_sessions(const char *url, void *out)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct engine *engine = engines_open(url, NULL);
    uint64_t *random = out;
    char id[32];

    for (int i = 0; i < DELETED; i++) {
        snprintf(id, sizeof id, "s%d", i);
        engines_steps(engines_create(engine, id, &spec, 1031), EVENTS, random);
    }
}

START_TEST(a_session_can_be_deleted_while_it_is_loaded)
{
    const char *url = sqlite_url();
    uint64_t random = seeded(44);
    struct fault fault;
    char id[32];

    ck_assert(run_and_crash(many_sessions, url, &random, sizeof random));
    struct engine *engine = engines_open(url, NULL);
    for (int i = 0; i < DELETED; i++) {
        pthread_t threads[3];
        void *fine;
        snprintf(id, sizeof id, "s%d", i);
        struct session *session = engines_find(engine, id);
        for (int k = 0; k < 3; k++)
            ck_assert_int_eq(pthread_create(&threads[k], NULL, read_revision, session), 0);
        if (i % 2 == 0)
            usleep((useconds_t)(testing_random(&random) % 1000));
        ck_assert_int_eq(session_delete(engine, session, &fault), STATUS_OK);
        for (int k = 0; k < 3; k++) {
            pthread_join(threads[k], &fine);
            ck_assert_ptr_nonnull(fine);
        }
        session_release(session);
    }
    engine_close(engine);
}
END_TEST

static enum status count_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    (void)checkpoint;
    ++*(size_t *)context;
    return STATUS_OK;
}

static enum status pass_session(void *context, const struct store_session *session)
{
    (void)context;
    (void)session;
    return STATUS_OK;
}

static enum status pass_event(void *context, const struct store_event *event)
{
    (void)context;
    (void)event;
    return STATUS_OK;
}

START_TEST(without_a_journal_only_the_newest_checkpoint_is_kept)
{
    const char *url = sqlite_url();
    struct spec spec = engines_spec(DTYPE_F32, "adam");
    uint64_t random = seeded(77);
    struct store *store;
    struct fault fault;
    size_t count = 0;

    spec.durability.mode = DURABILITY_CHECKPOINT;
    spec.durability.steps = 2;
    struct engine *engine = engines_open(url, NULL);
    struct session *session = engines_create(engine, "one", &spec, 1031);
    engines_steps(session, 41, &random);
    struct digest digest = engines_digest(session, false);
    session_release(session);
    engine_close(engine);
    ck_assert_int_eq(store_open(url, false, &store, &fault), STATUS_OK);
    struct store_visitor visitor = {.context = &count,
                                    .session = pass_session,
                                    .checkpoint = count_checkpoint,
                                    .event = pass_event};
    ck_assert_int_eq(store->backend->scan(store, &visitor, &fault), STATUS_OK);
    ck_assert_uint_eq(count, 1);
    store_close(store);
    engine = engines_open(url, NULL);
    session = engines_find(engine, "one");
    ck_assert_digest_eq(engines_digest(session, false), digest);
    session_release(session);
    engine_close(engine);
}
END_TEST

Suite *suite_engine_durability(void);
Suite *suite_engine_durability(void)
{
    Suite *suite = suite_create("engine_durability");
    TCase *replay = tcase_create("replay");
    TCase *modes = tcase_create("modes");
    TCase *space = tcase_create("space");

    tcase_set_timeout(replay, 120);
    tcase_add_loop_test(replay, replay_gives_the_bits_of_the_live_run, 0,
                        (int)(sizeof histories / sizeof *histories));
    tcase_add_test(replay, a_session_goes_on_where_it_was_closed);
    tcase_add_test(replay, the_journal_goes_on_after_its_end_was_dropped);
    tcase_set_timeout(modes, 60);
    tcase_add_test(modes, an_interval_is_kept_next_to_a_longer_one);
    tcase_add_loop_test(modes, a_crash_leaves_a_whole_step_not_before_the_durable_one,
                        DURABILITY_STEP, DURABILITY_CHECKPOINT + 1);
    tcase_set_timeout(space, 120);
    tcase_add_test(space, idle_sessions_leave_and_come_back);
    tcase_add_test(space, the_longest_unused_leave_when_memory_is_short);
    tcase_add_test(space, the_journal_keeps_to_its_limit);
    tcase_add_test(space, recovery_is_right_after_trimming);
    tcase_add_test(space, without_a_journal_only_the_newest_checkpoint_is_kept);
    tcase_add_test(space, a_session_can_be_deleted_while_it_is_loaded);
    suite_add_tcase(suite, replay);
    suite_add_tcase(suite, modes);
    suite_add_tcase(suite, space);
    return suite;
}
