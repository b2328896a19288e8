/* muon's matrices, against the same iteration in plain long double; what a proposal may touch; and
 * that a step with a given proposal has the same bits on every number of threads. Where it is
 * adamw, it is the rule adam to the bit. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/crew.h"
#include "tests/lib/plain_muon.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

static const enum dtype dtypes[] = {DTYPE_F64, DTYPE_F32};
enum { DTYPES = 2 };

/* --- proposals --- */

static const char *const shapes[] = {"w[1,1]", "w[1,7]",   "w[7,1]",  "w[5,3]",
                                     "w[3,5]", "w[64,33]", "w[33,64]"};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void rule_open(struct trial *trial, const char *rule, enum dtype dtype, const char *model)
{
    struct layout *layout = tensors_layout(model);
    struct spec spec;

    spec_init(&spec);
    spec.dtype = dtype;
    spec_set_rule(&spec, optimizer_find(rule, dtype));
    trial_open(trial, &spec, layout, 0);
    layout_release(layout);
}

/* In all that both have, but one vector (TRIAL_VECTORS: none); a workspace is nobody's. */
static void same_vectors(const struct trial *one, const struct trial *other, size_t but)
{
    for (size_t i = 0; i < TRIAL_VECTORS; i++)
        if (i != but && i != TRIAL_WORKSPACE && one->vector[i].data != NULL &&
            other->vector[i].data != NULL)
            ck_assert_mem_eq(one->vector[i].data, other->vector[i].data, one->vector[i].size);
}

static void matrix_init(struct trial *trial, enum dtype dtype, const char *layout)
{
    rule_open(trial, "muon", dtype, layout);
    trial_fill_normal(trial, TRIAL_GRADIENT, 1, 0.01);
    trial_fill_normal(trial, TRIAL_PARAM, 2, 1);
    trial_fill_normal(trial, TRIAL_SLOT, 3, 0.002);
}

/* What comes out may be off by: the polynomial's slope is at most 3.9 in size where singular values
 * can be ([0, 1.21]), so that an error grows to 3.9^steps of itself at most, and a step adds a few
 * roundings of numbers about 1. (Errors are rarely in the worst direction. In 40 runs the largest
 * was an eighth of it after one step, a 240th after five.) */
static double bound_of(enum dtype dtype, int steps)
{
    return 4 * pow(3.9, steps) * plain_rounding(dtype);
}

START_TEST(a_proposal_is_the_plain_iteration)
{
    static long double expected[PLAIN_MAX];
    static const int counts[] = {1, 2, 5};

    for (size_t i = 0; i < SHAPES * 2 * 3; i++) {
        struct trial trial;
        matrix_init(&trial, dtypes[_i], shapes[i % SHAPES]);
        *trial_hyper(&trial, "nesterov") = (double)(i / SHAPES % 2);
        *trial_hyper(&trial, "ns_steps") = counts[i / SHAPES / 2];
        plain_proposal(&trial, expected);
        trial_propose(&trial);
        double bound = bound_of(dtypes[_i], counts[i / SHAPES / 2]);
        double off = plain_distance(&trial, TRIAL_PROPOSAL, expected);
        ck_assert_msg(off <= bound, "%s nesterov %zu: off by %g, bound %g", shapes[i % SHAPES],
                      i / SHAPES % 2, off, bound);
        trial_close(&trial);
    }
}
END_TEST

static const char *const large_shapes[] = {"w[770,1000]", "w[1000,770]", "w[385,385]", "w[384,385]",
                                           "w[2000,3]",   "w[3,2000]",   "w[513,40]"};
enum { LARGE_SHAPES = sizeof large_shapes / sizeof *large_shapes };

/* One iteration of matrices of several tiles, seen through a random vector: what stands at a wrong
 * place would show as an error of the size of X's elements, 1 / sqrt(longer side) or more.
 * Roundings of a row (of at most 2000 terms, whose squares are about 1 in sum) are of both signs;
 * in 40 runs they added up to 4.3. */
START_TEST(large_matrices_are_right_in_every_tile)
{
    static long double v[PLAIN_SIDE_MAX], expected[PLAIN_SIDE_MAX], got[PLAIN_SIDE_MAX];
    struct trial trial;
    uint64_t state = testing_seed() ^ 7;

    matrix_init(&trial, dtypes[_i % DTYPES], large_shapes[_i / DTYPES]);
    memset(trial.vector[TRIAL_SLOT].data, 0, trial.vector[TRIAL_SLOT].size);
    *trial_hyper(&trial, "ns_steps") = 1;
    size_t rows = trial.layout->tensors[0].shape[0], cols = trial.layout->tensors[0].shape[1];
    for (size_t i = 0; i < cols; i++)
        v[i] = (long double)testing_normal(&state);
    trial_propose(&trial);
    double *u = trial_numbers(&trial, TRIAL_GRADIENT, 0, rows * cols);
    double *x = trial_numbers(&trial, TRIAL_PROPOSAL, 0, rows * cols);
    plain_probe(u, rows, cols, v, expected);
    plain_apply(x, rows, cols, false, v, got);
    for (size_t i = 0; i < rows; i++)
        ck_assert_msg(
            fabsl(got[i] - expected[i]) <= 32 * (long double)plain_rounding(trial.rule->dtype),
            "%s row %zu: %Lg, not %Lg", large_shapes[_i / DTYPES], i, got[i], expected[i]);
    free(u);
    free(x);
    trial_close(&trial);
}
END_TEST

/* The polynomial has its extremes at 0.5546 (1.2025) and 1.0501 (0.6825), and maps [0.68, 1.21]
 * into itself: whatever has risen above 0.68 stays there. From 0.01, which is far below the
 * smallest singular value of a normal matrix of this shape, that takes five steps or fewer. */
START_TEST(singular_values_come_into_their_band)
{
    static double gram[33 * 33];
    struct trial trial;

    for (size_t i = 0; i < 2; i++) {
        matrix_init(&trial, dtypes[_i], i == 0 ? "w[64,33]" : "w[33,64]");
        size_t row = i == 0 ? 1 : 64, along = i == 0 ? 33 : 1;
        trial_propose(&trial);
        double *x = trial_numbers(&trial, TRIAL_PROPOSAL, 0, PLAIN_MAX);
        for (size_t p = 0; p < 33; p++)
            for (size_t q = 0; q < 33; q++) {
                gram[p * 33 + q] = 0;
                for (size_t k = 0; k < 64; k++)
                    gram[p * 33 + q] += x[p * row + k * along] * x[q * row + k * along];
            }
        plain_eigenvalues(gram, 33);
        for (size_t p = 0; p < 33; p++) {
            double singular = sqrt(gram[p * 33 + p]);
            ck_assert_msg(singular >= 0.68 && singular <= 1.21, "singular value %g", singular);
        }
        free(x);
        trial_close(&trial);
    }
}
END_TEST

START_TEST(f32_is_close_to_f64)
{
    static long double fine[PLAIN_MAX];

    for (size_t i = 0; i < SHAPES; i++) {
        struct trial one, other;
        matrix_init(&one, DTYPE_F64, shapes[i]);
        matrix_init(&other, DTYPE_F32, shapes[i]);
        static const size_t filled[] = {TRIAL_GRADIENT, TRIAL_PARAM, TRIAL_SLOT};
        for (size_t k = 0; k < 3; k++) /* start from what f32 can hold */
            dtype_convert(DTYPE_F64, one.vector[filled[k]].data, DTYPE_F32,
                          other.vector[filled[k]].data, one.layout->count);
        for (int step = 0; step < 10; step++) {
            trial_step(&one);
            trial_step(&other);
        }
        double *weights = trial_numbers(&one, TRIAL_PARAM, 0, one.layout->count);
        for (size_t k = 0; k < one.layout->count; k++)
            fine[k] = (long double)weights[k];
        /* Ten steps of lr * sqrt(rows / cols) times a proposal that is off as above, and ten
         * roundings of weights below 8. (In 40 runs: a 60th of it.) */
        double ratio =
            (double)one.layout->tensors[0].shape[0] / (double)one.layout->tensors[0].shape[1];
        double bound =
            10 * (0.02 * sqrt(fmax(1, ratio)) * bound_of(DTYPE_F32, 5) + 8 * (double)FLT_EPSILON);
        ck_assert_double_le(plain_distance(&other, TRIAL_PARAM, fine), bound);
        free(weights);
        trial_close(&one);
        trial_close(&other);
    }
}
END_TEST

START_TEST(no_gradient_proposes_nothing)
{
    for (size_t i = 0; i < SHAPES; i++) {
        struct trial trial;
        rule_open(&trial, "muon", dtypes[_i], shapes[i]);
        memset(trial.vector[TRIAL_GRADIENT].data, 0, trial.vector[TRIAL_GRADIENT].size);
        trial_fill_normal(&trial, TRIAL_PARAM, 2, 1);
        trial_propose(&trial);
        for (size_t k = 0; k < trial.vector[TRIAL_PROPOSAL].size; k++)
            ck_assert_uint_eq(trial.vector[TRIAL_PROPOSAL].data[k], 0);
        *trial_hyper(&trial, "weight_decay") = 0;
        trial_step(&trial);
        ck_assert_mem_eq(trial.vector[TRIAL_PARAM].data, trial.vector[TRIAL_NEXT].data,
                         trial.vector[TRIAL_PARAM].size);
        trial_close(&trial);
    }
}
END_TEST

/* Squares of these overflow or vanish; their direction is the same. */
START_TEST(huge_and_tiny_gradients_keep_their_direction)
{
    static const int exponents[] = {1015, 600, -600, -1000};
    static long double expected[PLAIN_MAX];

    for (size_t i = 0; i < SHAPES * 4; i++) {
        struct trial trial;
        matrix_init(&trial, DTYPE_F64, shapes[i % SHAPES]);
        memset(trial.vector[TRIAL_SLOT].data, 0, trial.vector[TRIAL_SLOT].size);
        plain_proposal(&trial, expected);
        double *g = (double *)(void *)trial.vector[TRIAL_GRADIENT].data;
        for (size_t k = 0; k < trial.layout->count; k++)
            g[k] = ldexp(g[k], exponents[i / SHAPES]);
        trial_propose(&trial);
        ck_assert_double_le(plain_distance(&trial, TRIAL_PROPOSAL, expected),
                            bound_of(DTYPE_F64, 5));
        trial_close(&trial);
    }
}
END_TEST

START_TEST(a_proposal_changes_nothing_else)
{
    struct trial trial, copy;

    matrix_init(&trial, dtypes[_i], "a[40,30] b[7] c[30,40] d[2,3,5]");
    matrix_init(&copy, dtypes[_i], "a[40,30] b[7] c[30,40] d[2,3,5]");
    trial_fill_normal(&trial, TRIAL_SLOT + 1, 4, 1);
    trial_fill_normal(&copy, TRIAL_SLOT + 1, 4, 1);
    trial_propose(&trial);
    same_vectors(&trial, &copy, TRIAL_PROPOSAL);
    ck_assert_uint_eq(trial_breaches(&trial), 0);
    ck_assert_uint_eq(trial.vector[TRIAL_PROPOSAL].size, 2400 * trial.element);
    ck_assert_mem_ne(trial.vector[TRIAL_PROPOSAL].data, copy.vector[TRIAL_PROPOSAL].data,
                     trial.vector[TRIAL_PROPOSAL].size);
    trial_close(&trial);
    trial_close(&copy);
}
END_TEST

/* --- the step --- */

static const char mixed[] = "a[40,30] b[9000] c[30,40] d[2,3,5] e[] f[300,257] g[1,1]";

/* Of a matrix that is several blocks and not the first tensor. */
START_TEST(a_step_is_the_formula)
{
    enum { START = 7, COUNT = 400 * 100 };
    struct trial trial;

    matrix_init(&trial, dtypes[_i], "a[7] w[400,100]");
    *trial_hyper(&trial, "weight_decay") = 0.25;
    trial_propose(&trial);
    double *w = trial_numbers(&trial, TRIAL_PARAM, START, COUNT),
           *x = trial_numbers(&trial, TRIAL_PROPOSAL, 0, COUNT);
    double *b = trial_numbers(&trial, TRIAL_SLOT, START, COUNT),
           *q = trial_numbers(&trial, TRIAL_GRADIENT, START, COUNT);
    trial_step(&trial);
    double *next = trial_numbers(&trial, TRIAL_PARAM, START, COUNT);
    double *next_b = trial_numbers(&trial, TRIAL_SLOT, START, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        /* sqrt(400 / 100) = 2; weights are below 8, B below 1. */
        double weight = (1 - 0.02 * 0.25) * w[i] - 0.02 * 2 * x[i];
        ck_assert_double_eq_tol(next[i], weight, 8 * plain_rounding(dtypes[_i]));
        ck_assert_double_eq_tol(next_b[i], 0.95 * b[i] + 0.05 * q[i], plain_rounding(dtypes[_i]));
    }
    free(w);
    free(x);
    free(b);
    free(q);
    free(next);
    free(next_b);
    trial_close(&trial);
}
END_TEST

/* adam with decoupled decay, whose numbers the golden traces hold. */
START_TEST(what_is_no_matrix_takes_adamw_to_the_bit)
{
    static const char *const tensors = "b[9000] d[2,3,5] e[] f[7]";
    struct trial muon, adam;

    rule_open(&muon, "muon", dtypes[_i], tensors);
    rule_open(&adam, "adam", dtypes[_i], tensors);
    *trial_hyper(&adam, "lr") = *trial_hyper(&muon, "lr");
    *trial_hyper(&adam, "weight_decay") = *trial_hyper(&muon, "weight_decay") = 0.25;
    *trial_hyper(&adam, "weight_decay_mode") = DECAY_DECOUPLED;
    *trial_hyper(&adam, "beta2") = *trial_hyper(&muon, "beta2") = 0.9;
    trial_fill_normal(&muon, TRIAL_PARAM, 1, 1);
    trial_fill_normal(&adam, TRIAL_PARAM, 1, 1);
    ck_assert_uint_eq(muon.vector[TRIAL_PROPOSAL].size, 0);
    for (uint64_t t = 1; t <= 5; t++) {
        trial_fill_normal(&muon, TRIAL_GRADIENT, 2 + t, 0.1);
        trial_fill_normal(&adam, TRIAL_GRADIENT, 2 + t, 0.1);
        trial_step(&muon);
        trial_step(&adam);
    }
    same_vectors(&muon, &adam, TRIAL_PROPOSAL);
    trial_close(&muon);
    trial_close(&adam);
}
END_TEST

static void run_steps(struct trial *trial)
{
    trial_fill_normal(trial, TRIAL_PARAM, 1, 1);
    for (uint64_t t = 1; t <= 3; t++) {
        trial_fill_normal(trial, TRIAL_GRADIENT, 1 + t, 0.1);
        trial_step(trial);
    }
}

/* The proposal too, on one machine. */
START_TEST(threads_change_no_bit)
{
    struct trial alone, crewed;

    rule_open(&alone, "muon", dtypes[_i], mixed);
    rule_open(&crewed, "muon", dtypes[_i], mixed);
    run_steps(&alone);
    crew_start();
    run_steps(&crewed);
    crew_stop();
    same_vectors(&alone, &crewed, TRIAL_VECTORS);
    trial_close(&alone);
    trial_close(&crewed);
}
END_TEST

static void *run_session(void *trial)
{
    run_steps(trial);
    return NULL;
}

START_TEST(sessions_at_once_change_no_bit)
{
    enum { SESSIONS = 8 };
    pthread_t threads[SESSIONS];
    struct trial trials[SESSIONS + 1];

    for (size_t i = 0; i <= SESSIONS; i++)
        rule_open(&trials[i], "muon", dtypes[_i], mixed);
    run_steps(&trials[SESSIONS]);
    crew_start();
    for (size_t i = 0; i < SESSIONS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_session, &trials[i]), 0);
    for (size_t i = 0; i < SESSIONS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    crew_stop();
    for (size_t i = 0; i < SESSIONS; i++)
        same_vectors(&trials[i], &trials[SESSIONS], TRIAL_VECTORS);
    for (size_t i = 0; i <= SESSIONS; i++)
        trial_close(&trials[i]);
}
END_TEST

Suite *suite_muon(void);
Suite *suite_muon(void)
{
    Suite *suite = suite_create("muon");
    TCase *cases = tcase_create("proposals and steps");

    tcase_set_timeout(cases, 120);
    tcase_add_loop_test(cases, a_proposal_is_the_plain_iteration, 0, DTYPES);
    tcase_add_loop_test(cases, large_matrices_are_right_in_every_tile, 0, LARGE_SHAPES * DTYPES);
    tcase_add_loop_test(cases, singular_values_come_into_their_band, 0, DTYPES);
    tcase_add_test(cases, f32_is_close_to_f64);
    tcase_add_loop_test(cases, no_gradient_proposes_nothing, 0, DTYPES);
    tcase_add_test(cases, huge_and_tiny_gradients_keep_their_direction);
    tcase_add_loop_test(cases, a_proposal_changes_nothing_else, 0, DTYPES);
    tcase_add_loop_test(cases, a_step_is_the_formula, 0, DTYPES);
    tcase_add_loop_test(cases, what_is_no_matrix_takes_adamw_to_the_bit, 0, DTYPES);
    tcase_add_loop_test(cases, threads_change_no_bit, 0, DTYPES);
    tcase_add_loop_test(cases, sessions_at_once_change_no_bit, 0, DTYPES);
    suite_add_tcase(suite, cases);
    return suite;
}
