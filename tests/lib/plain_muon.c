/* muon's matrices in plain loops. */
#include "tests/lib/plain_muon.h"

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* out[n, m] = in[m, n]' */
static void plain_transpose(long double *out, const long double *in, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < n; k++)
            out[k * m + i] = in[i * n + k];
}

/* out[m, n] = a[m, inner] b[inner, n] + factor addend[m, n] */
static void plain_multiply(long double *out, const long double *a, const long double *b, size_t m,
                           size_t inner, size_t n, double factor, const long double *addend)
{
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < n; k++) {
            long double sum = 0;
            for (size_t j = 0; j < inner; j++)
                sum += a[i * inner + j] * b[j * n + k];
            out[i * n + k] = sum + (long double)factor * addend[i * n + k];
        }
}

/* x[m, n], m <= n: `steps` times X <- 3.4445 X + (-4.7750 A + 2.0315 A A) X, A = X X'. */
static void plain_newton_schulz(long double *x, size_t m, size_t n, int steps)
{
    static long double a[PLAIN_MAX], p[PLAIN_MAX], y[PLAIN_MAX], zeros[PLAIN_MAX];

    for (; steps > 0; steps--) {
        plain_transpose(y, x, m, n);
        plain_multiply(a, x, y, m, n, m, 0, zeros);
        for (size_t i = 0; i < m * m; i++)
            y[i] = (long double)2.0315 * a[i];
        plain_multiply(p, y, a, m, m, m, -4.7750, a);
        plain_multiply(y, p, x, m, m, n, 3.4445, x);
        memcpy(x, y, m * n * sizeof *x);
    }
}

/* U from B and q. */
static void plain_direction(struct trial *trial, long double *u)
{
    size_t count = trial->layout->count;
    double *q = trial_numbers(trial, TRIAL_GRADIENT, 0, count);
    double *b = trial_numbers(trial, TRIAL_SLOT, 0, count);
    long double momentum = (long double)*trial_hyper(trial, "momentum");

    for (size_t i = 0; i < count; i++) {
        u[i] = momentum * (long double)b[i] + (1 - momentum) * (long double)q[i];
        if (*trial_hyper(trial, "nesterov") != 0)
            u[i] = momentum * u[i] + (1 - momentum) * (long double)q[i];
    }
    free(q);
    free(b);
}

void plain_proposal(struct trial *trial, long double *out)
{
    size_t rows = trial->layout->tensors[0].shape[0], cols = trial->layout->tensors[0].shape[1];
    int steps = (int)*trial_hyper(trial, "ns_steps");
    static long double turned[PLAIN_MAX];
    long double squares = 0;

    ck_assert_uint_le(rows * cols, PLAIN_MAX);
    plain_direction(trial, out);
    for (size_t i = 0; i < rows * cols; i++)
        squares += out[i] * out[i];
    for (size_t i = 0; i < rows * cols; i++)
        out[i] /= sqrtl(squares);
    if (rows <= cols) {
        plain_newton_schulz(out, rows, cols, steps);
    } else {
        plain_transpose(turned, out, rows, cols);
        plain_newton_schulz(turned, cols, rows, steps);
        plain_transpose(out, turned, cols, rows);
    }
}

double plain_distance(const struct trial *trial, size_t which, const long double *expected)
{
    size_t count = trial_count(trial, which);
    double *got = trial_numbers(trial, which, 0, count);
    long double largest = 0;

    for (size_t i = 0; i < count; i++)
        largest =
            fmaxl(largest, isnan(got[i]) ? HUGE_VALL : fabsl((long double)got[i] - expected[i]));
    free(got);
    return (double)largest;
}

double plain_rounding(enum dtype dtype)
{
    return dtype == DTYPE_F64 ? DBL_EPSILON : (double)FLT_EPSILON;
}

void plain_apply(const double *matrix, size_t rows, size_t cols, bool turned, const long double *x,
                 long double *y)
{
    for (size_t i = 0; i < (turned ? cols : rows); i++)
        y[i] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < cols; k++)
            y[turned ? k : i] += (long double)matrix[i * cols + k] * x[turned ? i : k];
}

void plain_probe(const double *u, size_t rows, size_t cols, const long double *v, long double *out)
{
    static long double across[PLAIN_SIDE_MAX], down[PLAIN_SIDE_MAX];
    static const double coefficients[] = {3.4445, -4.7750, 2.0315};
    long double squares = 0;

    for (size_t i = 0; i < rows * cols; i++)
        squares += (long double)u[i] * (long double)u[i];
    memcpy(across, v, cols * sizeof *v);
    memset(out, 0, rows * sizeof *out);
    for (int term = 0; term < 3; term++) {
        plain_apply(u, rows, cols, false, across, down);
        for (size_t i = 0; i < rows; i++) {
            down[i] /= sqrtl(squares);
            out[i] += (long double)coefficients[term] * down[i];
        }
        plain_apply(u, rows, cols, true, down, across);
        for (size_t i = 0; i < cols; i++)
            across[i] /= sqrtl(squares);
    }
}

/* Cyclic Jacobi. */
void plain_eigenvalues(double *a, size_t side)
{
    for (int sweep = 0; sweep < 30; sweep++)
        for (size_t p = 0; p < side; p++)
            for (size_t q = p + 1; q < side; q++) {
                if (a[p * side + q] == 0)
                    continue;
                double theta = (a[q * side + q] - a[p * side + p]) / (2 * a[p * side + q]);
                double t = copysign(1, theta) / (fabs(theta) + hypot(theta, 1));
                double c = 1 / hypot(t, 1), s = t * c;
                for (size_t k = 0; k < side; k++) {
                    double left = a[k * side + p], right = a[k * side + q];
                    a[k * side + p] = c * left - s * right;
                    a[k * side + q] = s * left + c * right;
                }
                for (size_t k = 0; k < side; k++) {
                    double upper = a[p * side + k], lower = a[q * side + k];
                    a[p * side + k] = c * upper - s * lower;
                    a[q * side + k] = s * upper + c * lower;
                }
            }
}
