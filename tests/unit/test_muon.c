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
#include "tests/lib/testing.h"

static const enum dtype dtypes[] = {DTYPE_F64, DTYPE_F32};
enum { DTYPES = 2 };

/* --- proposals --- */

static const char *const shapes[] = {"w[1,1]", "w[1,7]",   "w[7,1]",  "w[5,3]",
                                     "w[3,5]", "w[64,33]", "w[33,64]"};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void matrix_init(struct work *work, enum dtype dtype, const char *layout)
{
    work_init(work, "muon", dtype, layout);
    work_fill(work, WORK_GRADIENT, 1, 0.01);
    work_fill(work, WORK_PARAM, 2, 1);
    work_fill(work, WORK_SLOT, 3, 0.002);
}

/* What comes out may be off by: the polynomial's slope is at most 3.9 in size where singular values
 * can be ([0, 1.21]), so that an error grows to 3.9^steps of itself at most, and a step adds a few
 * roundings of numbers about 1. (Errors are rarely in the worst direction. In 40 runs the largest
 * was an eighth of it after one step, a 240th after five.) */
static double bound_of(enum dtype dtype, int steps)
{
    return 4 * pow(3.9, steps) * work_rounding(dtype);
}

START_TEST(a_proposal_is_the_plain_iteration)
{
    static long double expected[PLAIN_MAX];
    static const int counts[] = {1, 2, 5};

    for (size_t i = 0; i < SHAPES * 2 * 3; i++) {
        struct work work;
        matrix_init(&work, dtypes[_i], shapes[i % SHAPES]);
        *work_hyper(&work, "nesterov") = (double)(i / SHAPES % 2);
        *work_hyper(&work, "ns_steps") = counts[i / SHAPES / 2];
        plain_proposal(&work, expected);
        work_propose(&work, 1);
        double bound = bound_of(dtypes[_i], counts[i / SHAPES / 2]);
        double off = work_distance(&work, WORK_PROPOSAL, expected);
        ck_assert_msg(off <= bound, "%s nesterov %zu: off by %g, bound %g", shapes[i % SHAPES],
                      i / SHAPES % 2, off, bound);
        work_close(&work);
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
    struct work work;
    uint64_t state = testing_seed() ^ 7;

    matrix_init(&work, dtypes[_i % DTYPES], large_shapes[_i / DTYPES]);
    memset(work.vector[WORK_SLOT], 0, work.size[WORK_SLOT]);
    *work_hyper(&work, "ns_steps") = 1;
    size_t rows = work.layout->tensors[0].shape[0], cols = work.layout->tensors[0].shape[1];
    for (size_t i = 0; i < cols; i++)
        v[i] = (long double)testing_normal(&state);
    work_propose(&work, 1);
    double *u = work_numbers(&work, WORK_GRADIENT, 0, rows * cols);
    double *x = work_numbers(&work, WORK_PROPOSAL, 0, rows * cols);
    plain_probe(u, rows, cols, v, expected);
    plain_apply(x, rows, cols, false, v, got);
    for (size_t i = 0; i < rows; i++)
        ck_assert_msg(
            fabsl(got[i] - expected[i]) <= 32 * (long double)work_rounding(work.spec.dtype),
            "%s row %zu: %Lg, not %Lg", large_shapes[_i / DTYPES], i, got[i], expected[i]);
    free(u);
    free(x);
    work_close(&work);
}
END_TEST

/* The polynomial has its extremes at 0.5546 (1.2025) and 1.0501 (0.6825), and maps [0.68, 1.21]
 * into itself: whatever has risen above 0.68 stays there. From 0.01, which is far below the
 * smallest singular value of a normal matrix of this shape, that takes five steps or fewer. */
START_TEST(singular_values_come_into_their_band)
{
    static double gram[33 * 33];
    struct work work;

    for (size_t i = 0; i < 2; i++) {
        matrix_init(&work, dtypes[_i], i == 0 ? "w[64,33]" : "w[33,64]");
        size_t row = i == 0 ? 1 : 64, along = i == 0 ? 33 : 1;
        work_propose(&work, 1);
        double *x = work_numbers(&work, WORK_PROPOSAL, 0, PLAIN_MAX);
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
        work_close(&work);
    }
}
END_TEST

START_TEST(f32_is_close_to_f64)
{
    static long double fine[PLAIN_MAX];

    for (size_t i = 0; i < SHAPES; i++) {
        struct work one, other;
        matrix_init(&one, DTYPE_F64, shapes[i]);
        matrix_init(&other, DTYPE_F32, shapes[i]);
        for (int k = 0; k < WORK_SLOT + 1; k++) /* start from what f32 can hold */
            dtype_convert(DTYPE_F64, one.vector[k], DTYPE_F32, other.vector[k], one.layout->count);
        for (uint64_t t = 1; t <= 10; t++) {
            work_propose(&one, t);
            work_propose(&other, t);
            work_step(&one, t);
            work_step(&other, t);
        }
        double *weights = work_numbers(&one, WORK_PARAM, 0, one.layout->count);
        for (size_t k = 0; k < one.layout->count; k++)
            fine[k] = (long double)weights[k];
        /* Ten steps of lr * sqrt(rows / cols) times a proposal that is off as above, and ten
         * roundings of weights below 8. (In 40 runs: a 60th of it.) */
        double ratio =
            (double)one.layout->tensors[0].shape[0] / (double)one.layout->tensors[0].shape[1];
        double bound =
            10 * (0.02 * sqrt(fmax(1, ratio)) * bound_of(DTYPE_F32, 5) + 8 * (double)FLT_EPSILON);
        ck_assert_double_le(work_distance(&other, WORK_PARAM, fine), bound);
        free(weights);
        work_close(&one);
        work_close(&other);
    }
}
END_TEST

START_TEST(no_gradient_proposes_nothing)
{
    for (size_t i = 0; i < SHAPES; i++) {
        struct work work;
        work_init(&work, "muon", dtypes[_i], shapes[i]);
        memset(work.vector[WORK_GRADIENT], 0, work.size[WORK_GRADIENT]);
        work_fill(&work, WORK_PARAM, 2, 1);
        work_propose(&work, 1);
        for (size_t k = 0; k < work.size[WORK_PROPOSAL]; k++)
            ck_assert_uint_eq(work.vector[WORK_PROPOSAL][k], 0);
        *work_hyper(&work, "weight_decay") = 0;
        unsigned char *before = work_take(work.size[WORK_PARAM]);
        memcpy(before, work.vector[WORK_PARAM], work.size[WORK_PARAM]);
        work_step(&work, 1);
        ck_assert_mem_eq(work.vector[WORK_PARAM], before, work.size[WORK_PARAM]);
        free(before);
        work_close(&work);
    }
}
END_TEST

/* Squares of these overflow or vanish; their direction is the same. */
START_TEST(huge_and_tiny_gradients_keep_their_direction)
{
    static const int exponents[] = {1015, 600, -600, -1000};
    static long double expected[PLAIN_MAX];

    for (size_t i = 0; i < SHAPES * 4; i++) {
        struct work work;
        matrix_init(&work, DTYPE_F64, shapes[i % SHAPES]);
        memset(work.vector[WORK_SLOT], 0, work.size[WORK_SLOT]);
        plain_proposal(&work, expected);
        double *g = (double *)(void *)work.vector[WORK_GRADIENT];
        for (size_t k = 0; k < work.layout->count; k++)
            g[k] = ldexp(g[k], exponents[i / SHAPES]);
        work_propose(&work, 1);
        ck_assert_double_le(work_distance(&work, WORK_PROPOSAL, expected), bound_of(DTYPE_F64, 5));
        work_close(&work);
    }
}
END_TEST

START_TEST(a_proposal_changes_nothing_else)
{
    struct work work, copy;

    matrix_init(&work, dtypes[_i], "a[40,30] b[7] c[30,40] d[2,3,5]");
    matrix_init(&copy, dtypes[_i], "a[40,30] b[7] c[30,40] d[2,3,5]");
    work_fill(&work, WORK_SLOT + 1, 4, 1);
    work_fill(&copy, WORK_SLOT + 1, 4, 1);
    work_propose(&work, 1);
    for (int i = 0; i < WORK_VECTORS; i++)
        if (i != WORK_PROPOSAL)
            ck_assert_mem_eq(work.vector[i], copy.vector[i], work.size[i] + 1);
    ck_assert_uint_eq(work.size[WORK_PROPOSAL], 2400 * work.element);
    ck_assert_uint_eq(work.vector[WORK_PROPOSAL][work.size[WORK_PROPOSAL]], WORK_CANARY);
    ck_assert_mem_ne(work.vector[WORK_PROPOSAL], copy.vector[WORK_PROPOSAL],
                     work.size[WORK_PROPOSAL]);
    size_t spare = work.plan->workspace;
    ck_assert_uint_eq(((unsigned char *)work.workspace)[spare], WORK_CANARY);
    work_close(&work);
    work_close(&copy);
}
END_TEST

/* --- the step --- */

static const char mixed[] = "a[40,30] b[9000] c[30,40] d[2,3,5] e[] f[300,257] g[1,1]";

/* Of a matrix that is several blocks and not the first tensor. */
START_TEST(a_step_is_the_formula)
{
    enum { START = 7, COUNT = 400 * 100 };
    struct work work;

    matrix_init(&work, dtypes[_i], "a[7] w[400,100]");
    *work_hyper(&work, "weight_decay") = 0.25;
    work_propose(&work, 1);
    double *w = work_numbers(&work, WORK_PARAM, START, COUNT),
           *x = work_numbers(&work, WORK_PROPOSAL, 0, COUNT);
    double *b = work_numbers(&work, WORK_SLOT, START, COUNT),
           *q = work_numbers(&work, WORK_GRADIENT, START, COUNT);
    work_step(&work, 1);
    double *next = work_numbers(&work, WORK_PARAM, START, COUNT);
    double *next_b = work_numbers(&work, WORK_SLOT, START, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        /* sqrt(400 / 100) = 2; weights are below 8, B below 1. */
        double weight = (1 - 0.02 * 0.25) * w[i] - 0.02 * 2 * x[i];
        ck_assert_double_eq_tol(next[i], weight, 8 * work_rounding(dtypes[_i]));
        ck_assert_double_eq_tol(next_b[i], 0.95 * b[i] + 0.05 * q[i], work_rounding(dtypes[_i]));
    }
    free(w);
    free(x);
    free(b);
    free(q);
    free(next);
    free(next_b);
    work_close(&work);
}
END_TEST

/* adam with decoupled decay, whose numbers the golden traces hold. */
START_TEST(what_is_no_matrix_takes_adamw_to_the_bit)
{
    static const char *const tensors = "b[9000] d[2,3,5] e[] f[7]";
    struct work muon, adam;

    work_init(&muon, "muon", dtypes[_i], tensors);
    work_init(&adam, "adam", dtypes[_i], tensors);
    *work_hyper(&adam, "lr") = *work_hyper(&muon, "lr");
    *work_hyper(&adam, "weight_decay") = *work_hyper(&muon, "weight_decay") = 0.25;
    *work_hyper(&adam, "weight_decay_mode") = DECAY_DECOUPLED;
    *work_hyper(&adam, "beta2") = *work_hyper(&muon, "beta2") = 0.9;
    work_fill(&muon, WORK_PARAM, 1, 1);
    work_fill(&adam, WORK_PARAM, 1, 1);
    ck_assert_uint_eq(muon.size[WORK_PROPOSAL], 0);
    for (uint64_t t = 1; t <= 5; t++) {
        work_fill(&muon, WORK_GRADIENT, 2 + t, 0.1);
        work_fill(&adam, WORK_GRADIENT, 2 + t, 0.1);
        work_propose(&muon, t);
        work_step(&muon, t);
        work_step(&adam, t);
    }
    for (int i = 0; i < WORK_SLOT + 2; i++)
        if (i != WORK_PROPOSAL)
            ck_assert_mem_eq(muon.vector[i], adam.vector[i], adam.size[i]);
    work_close(&muon);
    work_close(&adam);
}
END_TEST

static void run_steps(struct work *work)
{
    work_fill(work, WORK_PARAM, 1, 1);
    for (uint64_t t = 1; t <= 3; t++) {
        work_fill(work, WORK_GRADIENT, 1 + t, 0.1);
        work_propose(work, t);
        work_step(work, t);
    }
}

/* The proposal too, on one machine. */
START_TEST(threads_change_no_bit)
{
    struct work alone, crewed;

    work_init(&alone, "muon", dtypes[_i], mixed);
    work_init(&crewed, "muon", dtypes[_i], mixed);
    run_steps(&alone);
    crew_start();
    run_steps(&crewed);
    crew_stop();
    for (int i = 0; i < WORK_VECTORS; i++)
        ck_assert_mem_eq(alone.vector[i], crewed.vector[i], alone.size[i]);
    work_close(&alone);
    work_close(&crewed);
}
END_TEST

static void *run_session(void *work)
{
    run_steps(work);
    return NULL;
}

START_TEST(sessions_at_once_change_no_bit)
{
    enum { SESSIONS = 8 };
    pthread_t threads[SESSIONS];
    struct work works[SESSIONS + 1];

    for (size_t i = 0; i <= SESSIONS; i++)
        work_init(&works[i], "muon", dtypes[_i], mixed);
    run_steps(&works[SESSIONS]);
    crew_start();
    for (size_t i = 0; i < SESSIONS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_session, &works[i]), 0);
    for (size_t i = 0; i < SESSIONS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    crew_stop();
    for (size_t i = 0; i < SESSIONS; i++)
        for (int k = 0; k < WORK_VECTORS; k++)
            ck_assert_mem_eq(works[i].vector[k], works[SESSIONS].vector[k], works[i].size[k]);
    for (size_t i = 0; i <= SESSIONS; i++)
        work_close(&works[i]);
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
