/* What the engine adds to a rule: the weights a late gradient was computed at, schedules, the
 * moving average, scalars and starts of state. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { COUNT = 7 };

static struct engine *engine;
static char url[300];

static void setup(void)
{
    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    engine = engines_open(url, NULL);
}

static void teardown(void)
{
    engine_close(engine);
}

static void reopen(void)
{
    engine_close(engine);
    engine = engines_open(url, NULL);
}

static void weights_of(struct session *session, double out[COUNT])
{
    struct revision *revision;
    struct fault fault;

    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    memcpy(out, revision->weights->data, COUNT * sizeof *out);
    revision_release(revision);
}

static void average_of(struct session *session, double out[COUNT], double *divisor)
{
    struct revision *revision;
    struct fault fault;

    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    ck_assert_ptr_nonnull(revision->average);
    memcpy(out, revision->average->data, COUNT * sizeof *out);
    *divisor = revision->average_divisor;
    revision_release(revision);
}

static void check_divisor(double divisor, const struct spec *spec, uint64_t updates)
{
    double expected = 1 - (1 - spec->ema.eps) * pow(spec->ema.decay, (double)updates);

    ck_assert_double_eq_tol(divisor, expected, 1e-15);
}

/* A gradient of one number, at a base (negative: not said). */
static enum status step_at(struct session *session, double value, int64_t base,
                           struct receipt *receipt, struct fault *fault)
{
    double values[COUNT];
    struct buffer *buffer = buffer_new(sizeof values);

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = value + (double)i / 8;
    memcpy(buffer->data, values, sizeof values);
    struct submission submission = engines_submission(buffer, DTYPE_F64);
    submission.has_base_step = base >= 0;
    submission.base_step = base >= 0 ? (uint64_t)base : 0;
    enum status status = engines_submit(session, &submission, receipt, NULL, fault);
    buffer_release(buffer);
    return status;
}

static struct session *delayed(const char *id, double revisions)
{
    struct spec spec = engines_spec(DTYPE_F64, "dcasgd");

    engines_hyper(&spec, "lr", 0.125);
    engines_hyper(&spec, "lambda", 0.5);
    engines_hyper(&spec, "revisions", revisions);
    return engines_create(engine, id, &spec, COUNT);
}

/* w - lr (g + lambda g^2 (w - base)) */
static void compensated(const double w[COUNT], const double base[COUNT], double value,
                        double out[COUNT])
{
    for (size_t i = 0; i < COUNT; i++) {
        double g = value + (double)i / 8;
        out[i] = w[i] - 0.125 * (g + 0.5 * g * g * (w[i] - base[i]));
    }
}

static void ck_near(const double got[COUNT], const double expected[COUNT])
{
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_double_eq_tol(got[i], expected[i], 1e-14 * (1 + fabs(expected[i])));
}

START_TEST(a_late_gradient_meets_the_weights_it_was_computed_at)
{
    struct session *session = delayed("late", 4);
    double w[6][COUNT], expected[COUNT], got[COUNT];
    struct fault fault;

    weights_of(session, w[0]);
    for (int step = 1; step <= 5; step++) {
        ck_assert_int_eq(step_at(session, 0.5 * step, -1, NULL, &fault), STATUS_OK);
        weights_of(session, w[step]);
    }
    ck_assert_int_eq(step_at(session, 1.5, 2, NULL, &fault), STATUS_OK);
    compensated(w[5], w[2], 1.5, expected);
    weights_of(session, got);
    ck_near(got, expected);
    /* The same across a restart: the revisions are part of the state. */
    session_release(session);
    reopen();
    session = engines_find(engine, "late");
    ck_assert_int_eq(step_at(session, -0.75, 3, NULL, &fault), STATUS_OK);
    compensated(got, w[3], -0.75, expected);
    weights_of(session, got);
    ck_near(got, expected);
    session_release(session);
}
END_TEST

START_TEST(a_gradient_older_than_what_is_kept_is_refused)
{
    struct session *session = delayed("old", 2);
    double before[COUNT], after[COUNT];
    struct fault fault;

    for (int step = 0; step < 6; step++)
        ck_assert_int_eq(step_at(session, 1, -1, NULL, &fault), STATUS_OK);
    weights_of(session, before);
    ck_assert_int_eq(step_at(session, 1, 3, NULL, &fault), STATUS_STALE_GRADIENT);
    ck_assert_str_eq(fault.where, "/base_step");
    weights_of(session, after);
    ck_assert_mem_eq(before, after, sizeof before);
    ck_assert_int_eq(step_at(session, 1, 4, NULL, &fault), STATUS_OK);
    /* Fewer revisions from now on, then more: those that are gone stay gone. */
    engines_patch(session, "revisions", 1);
    ck_assert_int_eq(step_at(session, 1, 5, NULL, &fault), STATUS_STALE_GRADIENT);
    engines_patch(session, "revisions", 8);
    ck_assert_int_eq(step_at(session, 1, 5, NULL, &fault), STATUS_STALE_GRADIENT);
    ck_assert_int_eq(step_at(session, 1, 6, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(step_at(session, 1, 6, NULL, &fault), STATUS_OK);
    session_release(session);
    reopen();
    session = engines_find(engine, "old");
    ck_assert_int_eq(step_at(session, 1, 5, NULL, &fault), STATUS_STALE_GRADIENT);
    ck_assert_int_eq(step_at(session, 1, 6, NULL, &fault), STATUS_OK);
    session_release(session);
}
END_TEST

static enum status set_schedule(void *context, struct spec *spec, struct fault *fault)
{
    (void)fault;
    spec->schedule = *(const struct schedule_setting *)context;
    return STATUS_OK;
}

START_TEST(the_receipt_says_the_scheduled_rate_whatever_happened_before)
{
    struct spec spec = engines_spec(DTYPE_F64, "sgd");
    struct receipt receipt;
    struct fault fault;

    engines_hyper(&spec, "lr", 0.5);
    spec.schedule.value[SCHEDULE_WARMUP_STEPS] = 8;
    struct session *session = engines_create(engine, "rate", &spec, COUNT);
    for (int step = 1; step <= 3; step++) {
        ck_assert_int_eq(step_at(session, 1, -1, &receipt, &fault), STATUS_OK);
        ck_assert_double_eq(receipt.lr, 0.5 * step / 8);
    }
    session_release(session);
    reopen();
    session = engines_find(engine, "rate");
    ck_assert_int_eq(step_at(session, 1, -1, &receipt, &fault), STATUS_OK);
    ck_assert_double_eq(receipt.lr, 0.25);
    struct schedule_setting setting;
    schedule_set(&setting, schedule_find("constant"));
    ck_assert_int_eq(session_patch(session, set_schedule, &setting, &fault), STATUS_OK);
    ck_assert_int_eq(step_at(session, 1, -1, &receipt, &fault), STATUS_OK);
    ck_assert_double_eq(receipt.lr, 0.5);
    session_release(session);
}
END_TEST

START_TEST(the_average_follows_every_applied_step_and_no_other)
{
    struct spec spec = engines_spec(DTYPE_F64, "sgd");
    double expected[COUNT] = {0}, got[COUNT], w[COUNT];
    struct fault fault;
    double divisor;

    spec.ema.on = true;
    spec.ema.decay = 0.75;
    spec.ema.debias = true;
    spec.gradient.nonfinite = NONFINITE_SKIP;
    struct session *session = engines_create(engine, "average", &spec, COUNT);
    for (int step = 1; step <= 6; step++) {
        double value = step == 4 ? (double)NAN : step;
        ck_assert_int_eq(step_at(session, value, -1, NULL, &fault), STATUS_OK);
        weights_of(session, w);
        for (size_t i = 0; i < COUNT && step != 4; i++)
            expected[i] += (1 - 0.75) * (w[i] - expected[i]);
        average_of(session, got, &divisor);
        ck_assert_mem_eq(got, expected, sizeof got);
        check_divisor(divisor, &spec, (uint64_t)(step < 4 ? step : step - 1));
        if (step == 2) {
            session_release(session);
            reopen();
            session = engines_find(engine, "average");
        }
    }
    /* New weights are not a step of the optimizer. */
    struct buffer *weights = buffer_new_zeroed(sizeof w);
    struct precondition any = {.given = false};
    struct outcome outcome;
    ck_assert_ptr_nonnull(weights);
    ck_assert_int_eq(session_replace(session, weights, &any, &outcome, &fault), STATUS_OK);
    revision_release(outcome.revision);
    buffer_release(weights);
    average_of(session, got, &divisor);
    ck_assert_mem_eq(got, expected, sizeof got);
    check_divisor(divisor, &spec, 5);
    session_release(session);
}
END_TEST

/* State that starts at a hyperparameter's value starts there whenever it comes into being, and
 * stays what it is when the hyperparameter changes later. */
START_TEST(state_starts_where_it_was_told_to)
{
    struct spec spec = engines_spec(DTYPE_F64, "adagrad");
    struct fault fault;

    engines_hyper(&spec, "initial_accumulator", 0.25);
    struct session *session = engines_create(engine, "start", &spec, COUNT);
    engines_patch(session, "initial_accumulator", 4);
    session_release(session);
    reopen(); /* from a checkpoint before the first step */
    session = engines_find(engine, "start");
    ck_assert_int_eq(session_enter(session, &fault), STATUS_OK);
    double h[COUNT];
    memcpy(h, session->state->slot[0]->data, sizeof h);
    session_leave(session);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_double_eq(h[i], 0.25);
    session_release(session);
}
END_TEST

START_TEST(factored_state_is_smaller_than_the_model)
{
    const size_t shape[] = {300, 200};
    struct spec spec = engines_spec(DTYPE_F32, "adafactor");
    struct layout *layout = layout_new();
    struct session *session;
    struct fault fault;
    bool created;

    ck_assert_int_eq(layout_add(layout, "w", 1, 2, shape, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(
        engines_try_create_of(engine, "small", &spec, layout, &session, &created, &fault),
        STATUS_OK);
    uint64_t random = testing_seed();
    engines_steps(session, 3, &random);
    size_t numbers = 0;
    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (session->state->slot[k] != NULL)
            numbers += session->state->slot[k]->size / sizeof(float);
    ck_assert_uint_eq(numbers, 300 + 200);
    struct digest before = engines_digest(session, true);
    session_release(session);
    reopen();
    session = engines_find(engine, "small");
    ck_assert_digest_eq(engines_digest(session, true), before);
    /* What was saved: head, weights, rows and columns. */
    ck_assert_uint_lt(session->checkpoints->bytes, sizeof(float) * (300 * 200 + 500) + 16384);
    session_release(session);
    layout_release(layout);
}
END_TEST

START_TEST(a_pattern_that_matches_nothing_lists_the_tensors)
{
    struct spec spec = engines_spec(DTYPE_F64, "sgd");
    struct group group = {.lr_mult = 0, .weight_decay_mult = 1, .adapt = true};
    struct session *session;
    struct fault fault;
    bool created;

    ck_assert_int_eq(spec_add_group(&spec, &group, &fault), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&spec, "w*", &fault), STATUS_OK);
    ck_assert_int_eq(spec_add_group(&spec, &group, &fault), STATUS_OK);
    ck_assert_int_eq(spec_add_pattern(&spec, "w", &fault), STATUS_OK); /* taken already: fine */
    ck_assert_int_eq(spec_add_pattern(&spec, "*.bias", &fault), STATUS_OK);
    ck_assert_int_eq(engines_try_create(engine, "none", &spec, COUNT, &session, &created, &fault),
                     STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "/groups/1/tensors/1");
    ck_assert_ptr_nonnull(strstr(fault.detail, "there are: w"));
    ck_assert_int_eq(engine_find(engine, "", "none", &session, &fault), STATUS_SESSION_NOT_FOUND);
}
END_TEST

static void replace(struct session *session, double value)
{
    double values[COUNT];
    struct buffer *weights = buffer_new(sizeof values);
    struct precondition any = {.given = false};
    struct outcome outcome;
    struct fault fault;

    ck_assert_ptr_nonnull(weights);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = value;
    memcpy(weights->data, values, sizeof values);
    ck_assert_int_eq(session_replace(session, weights, &any, &outcome, &fault), STATUS_OK);
    revision_release(outcome.revision);
    buffer_release(weights);
}

START_TEST(replaced_weights_are_not_an_update_to_compensate)
{
    struct spec spec = engines_spec(DTYPE_F64, "dcasgd");
    double w[COUNT], expected[COUNT], got[COUNT];
    struct fault fault;

    engines_hyper(&spec, "lr", 0.125);
    engines_hyper(&spec, "lambda", 0.5);
    engines_hyper(&spec, "compensate", 1);
    struct session *session = engines_create(engine, "replaced", &spec, COUNT);
    for (int round = 0; round < 2; round++) { /* before the first update, and after it */
        replace(session, 10 + round);
        session_release(session);
        reopen();
        session = engines_find(engine, "replaced");
        weights_of(session, w);
        ck_assert_int_eq(step_at(session, 2, -1, NULL, &fault), STATUS_OK);
        compensated(w, w, 2, expected);
        weights_of(session, got);
        ck_near(got, expected);
    }
    session_release(session);
}
END_TEST

START_TEST(one_step_without_momentum_keeps_the_velocity_what_it_is)
{
    struct spec spec = engines_spec(DTYPE_F64, "rmsprop");
    struct buffer *gradient = engines_constant(COUNT, 1);
    double w[COUNT], got[COUNT], n = 0, v = 0;
    struct fault fault;

    engines_hyper(&spec, "rho", 0.5);
    engines_hyper(&spec, "eps", 0);
    engines_hyper(&spec, "momentum", 0.875);
    engines_hyper(&spec, "lr_in_momentum", 0);
    struct session *session = engines_create(engine, "velocity", &spec, COUNT);
    weights_of(session, w);
    for (int step = 1; step <= 3; step++) {
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        submission.momentum = step == 2 ? 0 : (double)NAN;
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
        n = 0.5 * n + 0.5;
        v = (step == 2 ? 0 : 0.875) * v + 1 / sqrt(n);
        for (size_t i = 0; i < COUNT; i++)
            w[i] -= 0.001 * v;
        weights_of(session, got);
        ck_near(got, w);
    }
    buffer_release(gradient);
    session_release(session);
}
END_TEST

/* SignSGD for one step: its own formula of decay, and a mean that the next step finds. */
START_TEST(one_step_without_momentum_is_sign_sgd_and_leaves_the_mean)
{
    const double lr = 0.125, decay = 0.25, wd_lh = 0.5;
    struct spec spec = engines_spec(DTYPE_F64, "signum");
    double w[COUNT], m[COUNT] = {0}, got[COUNT];
    struct fault fault;

    engines_hyper(&spec, "lr", lr);
    engines_hyper(&spec, "weight_decay", decay);
    engines_hyper(&spec, "wd_lh", wd_lh);
    engines_hyper(&spec, "momentum", 0.5);
    struct session *session = engines_create(engine, "signs", &spec, COUNT);
    replace(session, 12); /* decay outweighs a gradient of -2: the sign of one is not the other's */
    weights_of(session, w);
    for (int step = 1; step <= 4; step++) {
        double momentum = step % 2 == 0 ? 0 : 0.5, value = step == 4 ? 100 : -2;
        struct buffer *gradient = engines_constant(COUNT, (float)value);
        struct submission submission = engines_submission(gradient, DTYPE_F32);
        submission.momentum = step % 2 == 0 ? 0 : (double)NAN;
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
        buffer_release(gradient);
        for (size_t i = 0; i < COUNT; i++) {
            m[i] = momentum * m[i] + (1 - momentum) * (value + decay * w[i]);
            w[i] = momentum == 0 ? (1 - lr * (decay + wd_lh)) * w[i] - lr * copysign(1, value)
                                 : (1 - lr * wd_lh) * w[i] - lr * copysign(1, m[i]);
        }
        weights_of(session, got);
        ck_near(got, w);
    }
    session_release(session);
}
END_TEST

/* Both squares of a centered variance are infinite in f32: so is the variance, and the step 0. The
 * loop: without and with momentum, eps inside and outside. */
START_TEST(a_variance_whose_squares_overflow_moves_nothing)
{
    struct spec spec = engines_spec(DTYPE_F32, "rmsprop");
    struct buffer *huge = engines_constant(COUNT, 1e30F);
    struct fault fault;

    engines_hyper(&spec, "centered", 1);
    engines_hyper(&spec, "momentum", _i % 2 == 0 ? 0 : 0.5);
    engines_hyper(&spec, "eps_mode", _i / 2);
    struct session *session = engines_create(engine, "overflow", &spec, COUNT);
    for (int step = 1; step <= 3; step++) {
        struct submission submission = engines_submission(huge, DTYPE_F32);
        struct receipt receipt;
        ck_assert_int_eq(engines_submit(session, &submission, &receipt, NULL, &fault), STATUS_OK);
        ck_assert_double_eq(receipt.update_norm, 0);
    }
    buffer_release(huge);
    session_release(session);
}
END_TEST

START_TEST(a_patch_cannot_make_a_session_larger_than_the_limit)
{
    struct engine_options options = engines_options();
    struct fault fault;

    /* Weights, six before them and slots; and a sample of the gradient. */
    options.memory_bytes_max = 8 * COUNT * sizeof(double) + COUNT * sizeof(float);
    engine_close(engine);
    engine = engines_open(url, &options);
    struct session *session = delayed("limit", 4);
    ck_assert_int_eq(engines_try_patch(session, "revisions", 40, &fault), STATUS_TOO_LARGE);
    engines_patch(session, "revisions", 6);
    session_release(session);
}
END_TEST

static void *keep_stepping(void *context)
{
    struct session *session = engines_find(engine, "matrix");
    uint64_t random = 5;

    while (!__atomic_load_n((const bool *)context, __ATOMIC_RELAXED))
        engines_step(session, &random);
    session_release(session);
    return NULL;
}

/* A rule that proposes takes its steps one by one; what else happens to the session gets its turn
 * among them. The case's timeout is the bound. */
START_TEST(steps_that_propose_let_others_pass)
{
    enum { WORKERS = 6, ROUNDS = 20 };
    const size_t shape[] = {1, COUNT};
    struct spec spec = engines_spec(DTYPE_F64, "muon");
    struct layout *layout = layout_new();
    struct session *session;
    struct fault fault;
    pthread_t threads[WORKERS];
    bool created, stop = false;

    ck_assert_int_eq(layout_add(layout, "w", 1, 2, shape, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    ck_assert_int_eq(
        engines_try_create_of(engine, "matrix", &spec, layout, &session, &created, &fault),
        STATUS_OK);
    for (int i = 0; i < WORKERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_stepping, &stop), 0);
    for (int round = 0; round < ROUNDS; round++)
        replace(session, round);
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < WORKERS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_uint_gt(engines_view(session).step, ROUNDS);
    session_release(session);
    layout_release(layout);
}
END_TEST

Suite *suite_engine_rules(void);
Suite *suite_engine_rules(void)
{
    Suite *suite = suite_create("engine_rules");
    TCase *cases = tcase_create("rules");

    tcase_set_timeout(cases, 60);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, a_late_gradient_meets_the_weights_it_was_computed_at);
    tcase_add_test(cases, a_gradient_older_than_what_is_kept_is_refused);
    tcase_add_test(cases, the_receipt_says_the_scheduled_rate_whatever_happened_before);
    tcase_add_test(cases, the_average_follows_every_applied_step_and_no_other);
    tcase_add_test(cases, state_starts_where_it_was_told_to);
    tcase_add_test(cases, factored_state_is_smaller_than_the_model);
    tcase_add_test(cases, a_pattern_that_matches_nothing_lists_the_tensors);
    tcase_add_test(cases, replaced_weights_are_not_an_update_to_compensate);
    tcase_add_test(cases, one_step_without_momentum_keeps_the_velocity_what_it_is);
    tcase_add_test(cases, one_step_without_momentum_is_sign_sgd_and_leaves_the_mean);
    tcase_add_loop_test(cases, a_variance_whose_squares_overflow_moves_nothing, 0, 4);
    tcase_add_test(cases, a_patch_cannot_make_a_session_larger_than_the_limit);
    tcase_add_test(cases, steps_that_propose_let_others_pass);
    suite_add_tcase(suite, cases);
    return suite;
}
