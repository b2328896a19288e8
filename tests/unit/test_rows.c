/* Rules that keep a number a row or a column, on shapes that their passes cut in every way there
 * is: one step after the other against plain loops in long double, from the state before it. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "service/core/crew.h"
#include "tests/lib/rules.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { STEPS = 2 };

/* A block has 8192 elements: many matrices in one block and some in the last; one matrix in a
 * block, just and not quite; cut between rows, between columns, both; several that are cut; rows
 * that are narrower and wider than a block and than group_adagrad's tile of 65536. */
static const char *const models[] = {
    "w[1,1]",      "w[1,5]",        "w[5,1]",      "w[1000,3,3]", "w[2,3,4,5]",   "w[64,128]",
    "w[64,129]",   "w[90,91]",      "w[30001,3]",  "w[8193,1]",   "w[1,8193]",    "w[3,20001]",
    "w[200,9000]", "w[2,70,16385]", "w[2,150,90]", "w[2,70001]",  "w[3,2,40000]", "s[] v[7]",
};
enum { MODELS = sizeof models / sizeof *models };

/* A trial and what it had before and has after a step, as doubles. */
struct work {
    struct trial trial;
    double *before[TRIAL_VECTORS], *after[TRIAL_VECTORS];
};

static void take(const struct trial *trial, double **vectors)
{
    for (size_t i = 0; i < TRIAL_VECTORS; i++) {
        free(vectors[i]);
        vectors[i] = NULL;
        if (trial->vector[i].data == NULL || i == TRIAL_WORKSPACE)
            continue;
        vectors[i] = malloc((trial_count(trial, i) + 1) * sizeof(double));
        ck_assert_ptr_nonnull(vectors[i]);
        trial_get(trial, i, vectors[i]);
    }
}

static void open_work(struct work *work, const char *rule, enum dtype dtype, const char *model)
{
    struct layout *layout = tensors_layout(model);
    struct spec spec;

    *work = (struct work){0};
    spec_init(&spec);
    spec.dtype = dtype;
    spec_set_rule(&spec, optimizer_find(rule, dtype));
    trial_open(&work->trial, &spec, layout, 1);
    layout_release(layout);
    trial_fill(&work->trial, TRIAL_PARAM, testing_seed(), 1);
}

static void close_work(struct work *work)
{
    for (size_t i = 0; i < TRIAL_VECTORS; i++) {
        free(work->before[i]);
        free(work->after[i]);
    }
    trial_close(&work->trial);
}

static void step(struct work *work, uint64_t number)
{
    trial_fill(&work->trial, TRIAL_GRADIENT, testing_seed() + number, 0.1);
    take(&work->trial, work->before);
    trial_step(&work->trial);
    take(&work->trial, work->after);
    ck_assert_uint_eq(trial_breaches(&work->trial), 0);
}

/* Half an ulp: what one rounding may be off by, relative. */
static double rounding(const struct work *work)
{
    return work->trial.rule->dtype == DTYPE_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
}

/* `value` may be off by `roundings` of the session's dtype, and by what sums of 2^16 squares are
 * off by in double. */
static void near(const struct work *work, const char *what, size_t index, double value,
                 long double expected, long double size, double roundings)
{
    long double bound = size * (long double)(roundings * rounding(work) + 65536 * DBL_EPSILON / 2);
    long double off = fabsl((long double)value - expected);

    if (!(off <= bound)) /* an assertion each would take most of the time */
        ck_abort_msg("%s %s: %s[%zu] is %a, not %La (off by %Lg, bound %Lg)",
                     work->trial.rule->name, dtype_name(work->trial.rule->dtype), what, index,
                     value, expected, off, bound);
}

/* One step is up to 6 roundings off: of the rate, two slots under a root, two roots, their product,
 * quotient and product; the new weight is one more. */
static void near_weight(const struct work *work, size_t index, long double move)
{
    long double last = (long double)work->before[TRIAL_PARAM][index];
    double next = work->after[TRIAL_PARAM][index];

    near(work, "w", index, next, last - move, fabsl(move) * 7 + fabsl(last - move), 1);
}

/* --- adafactor --- */

static long double root_of_mean(const double *values, size_t count)
{
    long double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += (long double)values[i] * (long double)values[i];
    return sqrtl(sum / (long double)count);
}

static void check_means(const struct work *work, size_t slot, size_t index, long double sum,
                        size_t count, long double keep)
{
    long double last = (long double)work->before[slot][index];
    long double expected = keep * last + (1 - keep) * sum / (long double)count;

    near(work, "slot", index, work->after[slot][index], expected, expected, 1);
}

/* Averages of the rows and columns of one matrix, and q / sqrt(max(V, eps1^2)) by the slots as they
 * are now; eps1 is the dtype's epsilon, which a row of one small number comes below. */
static void check_matrix(const struct work *work, size_t matrix, size_t rows, size_t columns,
                         long double keep, double *u)
{
    const double *q = work->before[TRIAL_GRADIENT] + matrix * rows * columns;
    const double *row = work->after[TRIAL_SLOT] + matrix * rows;
    const double *column = work->after[TRIAL_SLOT + 1] + matrix * columns;
    long double *sums = calloc(columns, sizeof *sums), mean = 0;
    long double eps1 = 2 * (long double)rounding(work);

    ck_assert_ptr_nonnull(sums);
    for (size_t i = 0; i < rows; i++) {
        long double sum = 0;
        for (size_t j = 0; j < columns; j++) {
            long double square = (long double)q[i * columns + j] * (long double)q[i * columns + j];
            sum += square;
            sums[j] += square;
        }
        check_means(work, TRIAL_SLOT, matrix * rows + i, sum, columns, keep);
        mean += (long double)row[i];
    }
    for (size_t j = 0; j < columns; j++)
        check_means(work, TRIAL_SLOT + 1, matrix * columns + j, sums[j], rows, keep);
    mean /= (long double)rows;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            u[i * columns + j] =
                (double)((long double)q[i * columns + j] /
                         fmaxl(eps1, sqrtl((long double)row[i] * (long double)column[j] / mean)));
    free(sums);
}

/* The step of adafactor's defaults: beta2_decay -0.8, eps2 0.001, d 1. The model has one tensor. */
static void check_adafactor(struct work *work, unsigned t)
{
    const struct tensor *tensor = &work->trial.layout->tensors[0];
    size_t columns = tensor->shape[tensor->rank - 1], rows = tensor->shape[tensor->rank - 2];
    double *u = malloc(work->trial.count * sizeof *u);
    long double keep = 1 - powl(t, -0.8L);

    ck_assert_ptr_nonnull(u);
    for (size_t i = 0; i < work->trial.count / rows / columns; i++)
        check_matrix(work, i, rows, columns, keep, u + i * rows * columns);
    long double size = fmaxl(0.001L, root_of_mean(work->before[TRIAL_PARAM], work->trial.count));
    long double rate = fminl(0.01L, 1 / sqrtl(t)) * size;
    rate /= fmaxl(1, root_of_mean(u, work->trial.count));
    for (size_t i = 0; i < work->trial.count; i++)
        near_weight(work, i, rate * (long double)u[i]);
    free(u);
}

START_TEST(adafactor_is_its_formula_however_it_is_cut)
{
    struct work work;

    for (size_t i = 0; i < MODELS - 1; i++) {
        open_work(&work, "adafactor", _i == 0 ? DTYPE_F64 : DTYPE_F32, models[i]);
        crew_start();
        for (unsigned t = 1; t <= STEPS; t++) {
            step(&work, t);
            check_adafactor(&work, t);
        }
        crew_stop();
        close_work(&work);
    }
}
END_TEST

/* --- group_adagrad --- */

/* lr 0.01, eps 1e-6. */
static void check_rows(const struct work *work, const struct tensor *tensor, size_t slot)
{
    size_t rows = tensor->rank == 0 ? 1 : tensor->shape[0], columns = tensor->count / rows;

    for (size_t i = 0; i < rows; i++) {
        const double *q = work->before[TRIAL_GRADIENT] + tensor->offset + i * columns;
        long double sum = 0;
        for (size_t j = 0; j < columns; j++)
            sum += (long double)q[j] * (long double)q[j];
        sum = (long double)work->before[TRIAL_SLOT][slot + i] + sum / (long double)columns;
        /* A row of one element is squared and added in the session's dtype. */
        near(work, "h", slot + i, work->after[TRIAL_SLOT][slot + i], sum, sum, 2);
        long double rate = 0.01L / (sqrtl((long double)work->after[TRIAL_SLOT][slot + i]) + 1e-6L);
        for (size_t j = 0; j < columns; j++)
            near_weight(work, tensor->offset + i * columns + j, rate * (long double)q[j]);
    }
}

START_TEST(group_adagrad_is_its_formula_however_it_is_cut)
{
    struct work work;

    for (size_t i = 0; i < MODELS; i++) {
        open_work(&work, "group_adagrad", _i == 0 ? DTYPE_F64 : DTYPE_F32, models[i]);
        crew_start();
        for (unsigned t = 1; t <= STEPS; t++) {
            const struct layout *layout = work.trial.layout;
            step(&work, t);
            for (size_t k = 0, slot = 0; k < layout->tensor_count; k++) {
                check_rows(&work, &layout->tensors[k], slot);
                slot += slot_extent(&work.trial.rule->slots[0], &layout->tensors[k]);
            }
        }
        crew_stop();
        close_work(&work);
    }
}
END_TEST

Suite *suite_rows(void);
Suite *suite_rows(void)
{
    Suite *suite = suite_create("rows");
    TCase *tests = tcase_create("formulas");

    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, adafactor_is_its_formula_however_it_is_cut, 0, 2);
    tcase_add_loop_test(tests, group_adagrad_is_its_formula_however_it_is_cut, 0, 2);
    suite_add_tcase(suite, tests);
    return suite;
}
