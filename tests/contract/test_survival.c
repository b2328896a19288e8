/* The state of every rule of optimizers.def, in many of its forms, survives: sessions that are
 * killed (SIGKILL), stopped, or sent out of memory in the middle of a run end with the same bits as
 * sessions that never were. Each session keeps an average, has a group and a schedule, skips a step
 * that is not finite and takes gradients that come late. */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/engines.h"
#include "tests/lib/rules.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { FORMS = 5, BEFORE = 5, AFTER = 6, SKIPPED = 3, RUNS_MAX = 1024 };

/* One session of the table. */
struct run {
    char id[64];
    struct spec spec;
};

static struct run *runs;
static size_t run_count;
static struct layout *layout;

static void add_run(const struct optimizer *rule, size_t form, size_t number)
{
    struct run *run = &runs[run_count++];
    struct fault fault;

    ck_assert_uint_lt(run_count, RUNS_MAX);
    snprintf(run->id, sizeof run->id, "%s-%s-%zu", rule->name, dtype_name(rule->dtype), form);
    spec_init(&run->spec);
    run->spec.dtype = rule->dtype;
    spec_set_rule(&run->spec, rule);
    rule_form(rule, form, run->spec.hyper);
    run->spec.seed = 7 + number;
    run->spec.gradient.nonfinite = NONFINITE_SKIP;
    run->spec.gradient.clip_norm = 9;
    run->spec.ema.on = true;
    run->spec.ema.decay = 0.9;
    schedule_set(&run->spec.schedule, schedule_find("constant"));
    run->spec.schedule.value[SCHEDULE_WARMUP_STEPS] = 6;
    /* Every mode must bring the state back; without a journal only a stop does. */
    run->spec.durability.mode = number % 4 == 3 ? DURABILITY_INTERVAL : DURABILITY_STEP;
    struct group group = {.lr_mult = 0.5, .weight_decay_mult = 2, .adapt = false};
    ck_assert_int_eq(spec_add_group(&run->spec, &group, &fault), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&run->spec, "b*", &fault), STATUS_OK);
}

static void setup(void)
{
    const struct optimizer *rule;

    layout = tensors_layout("w[5,7] b[7] tall[9,3] none[0] s[]");
    ck_assert_ptr_nonnull(runs = calloc(RUNS_MAX, sizeof *runs));
    for (int dtype = 0; dtype < 2; dtype++)
        for (size_t i = 0; (rule = optimizer_at(i, dtype == 0 ? DTYPE_F32 : DTYPE_F64)) != NULL;
             i++) {
            size_t forms = rule_forms(rule), step = forms / FORMS + 1;
            for (size_t form = 0; form < forms; form += step)
                add_run(rule, form, run_count);
        }
}

static void teardown(void)
{
    free(runs);
    layout_release(layout);
}

static void create_all(struct engine *engine)
{
    for (size_t i = 0; i < run_count; i++) {
        struct session *session;
        struct fault fault;
        bool created;
        if (engines_try_create_of(engine, runs[i].id, &runs[i].spec, layout, &session, &created,
                                  &fault) != STATUS_OK)
            ck_abort_msg("%s: %s", runs[i].id, fault.detail);
        ck_assert(created);
        session_release(session);
    }
}

/* Step `step` of every session: the same gradient whenever it is taken. */
static void step_all(struct engine *engine, uint64_t step)
{
    for (size_t i = 0; i < run_count; i++) {
        struct session *session = engines_find(engine, runs[i].id);
        uint64_t random = 1000 * i + step;
        struct buffer *gradient =
            engines_gradient(i % 3 == 0 ? DTYPE_F64 : DTYPE_F32, layout->count, &random);
        struct submission submission =
            engines_submission(gradient, i % 3 == 0 ? DTYPE_F64 : DTYPE_F32);
        struct fault fault;
        if (step == SKIPPED)
            memset(gradient->data, 0xFF, 8); /* NaN */
        submission.has_base_step = true;
        submission.base_step = step - 1 - (step - 1 < step % 3 ? 0 : step % 3);
        submission.lr = step == BEFORE + 1 ? 0.05 : (double)NAN;
        if (engines_submit(session, &submission, NULL, NULL, &fault) != STATUS_OK)
            ck_abort_msg("%s step %zu: %s", runs[i].id, (size_t)step, fault.detail);
        buffer_release(gradient);
        session_release(session);
    }
}

static void steps_all(struct engine *engine, uint64_t first, uint64_t last)
{
    for (uint64_t step = first; step <= last; step++)
        step_all(engine, step);
}

/* Compares every session with one that was never interrupted. */
static void compare_all(struct engine *engine)
{
    struct engine *whole = engines_open("memory:", NULL);
    size_t differ = 0;

    create_all(whole);
    steps_all(whole, 1, BEFORE + AFTER);
    for (size_t i = 0; i < run_count; i++) {
        struct session *one = engines_find(engine, runs[i].id);
        struct session *other = engines_find(whole, runs[i].id);
        struct digest left = engines_digest(one, false), right = engines_digest(other, false);
        if (memcmp(left.bytes, right.bytes, sizeof left.bytes) != 0) {
            printf("%s: other bits than without the interruption\n", runs[i].id);
            differ++;
        }
        session_release(one);
        session_release(other);
    }
    engine_close(whole);
    ck_assert_uint_eq(differ, 0);
    ck_assert_uint_ge(run_count, 2 * FORMS);
}

static const char *folder_url(void)
{
    static char url[300];

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    return url;
}

static bool all_durable(void *context)
{
    struct engine *engine = context;

    for (size_t i = 0; i < run_count; i++) {
        struct session *session = engines_find(engine, runs[i].id);
        struct session_view view = engines_view(session);
        session_release(session);
        if (view.durable_step != view.step)
            return false;
    }
    return true;
}

START_TEST(every_rule_survives_sigkill)
{
    const char *url = folder_url();
    pid_t child = fork();
    int wait_status;

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct engine *engine = engines_open(url, NULL);
        create_all(engine);
        steps_all(engine, 1, BEFORE);
        if (!engines_await(all_durable, engine, 20))
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    ck_assert_int_eq(waitpid(child, &wait_status, 0), child);
    ck_assert(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL);
    struct engine *engine = engines_open(url, NULL);
    steps_all(engine, BEFORE + 1, BEFORE + AFTER);
    compare_all(engine);
    engine_close(engine);
}
END_TEST

START_TEST(every_rule_survives_a_restart)
{
    const char *url = folder_url();
    struct engine *engine = engines_open(url, NULL);

    create_all(engine);
    steps_all(engine, 1, BEFORE);
    engine_close(engine);
    engine = engines_open(url, NULL);
    steps_all(engine, BEFORE + 1, BEFORE + 2);
    engine_close(engine); /* a checkpoint, and what follows it */
    engine = engines_open(url, NULL);
    steps_all(engine, BEFORE + 3, BEFORE + AFTER);
    compare_all(engine);
    engine_close(engine);
}
END_TEST

static bool nobody_resident(void *context)
{
    struct engine_usage usage;

    engine_usage(context, &usage);
    return usage.resident == 0;
}

START_TEST(every_rule_survives_eviction)
{
    struct engine_options options = engines_options();
    struct engine *engine;

    options.idle_s = 1;
    engine = engines_open(folder_url(), &options);
    create_all(engine);
    steps_all(engine, 1, BEFORE);
    ck_assert(engines_await(nobody_resident, engine, 60));
    steps_all(engine, BEFORE + 1, BEFORE + AFTER);
    compare_all(engine);
    engine_close(engine);
}
END_TEST

Suite *suite_survival(void);
Suite *suite_survival(void)
{
    Suite *suite = suite_create("survival");
    TCase *cases = tcase_create("interruptions");

    tcase_set_timeout(cases, 300);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, every_rule_survives_sigkill);
    tcase_add_test(cases, every_rule_survives_a_restart);
    tcase_add_test(cases, every_rule_survives_eviction);
    suite_add_tcase(suite, cases);
    return suite;
}
