/* muon's matrices in plain loops of long double: no BLAS, no blocks, nothing shared with the
 * rule. */
#ifndef DESCENT_TESTS_PLAIN_MUON_H
#define DESCENT_TESTS_PLAIN_MUON_H

#include <stdbool.h>

#include "tests/lib/rules.h"

enum { PLAIN_MAX = 64 * 33, PLAIN_SIDE_MAX = 2000 };

/* What is to be proposed for a layout of one matrix of at most PLAIN_MAX elements. */
void plain_proposal(struct trial *trial, long double *out);

/* The largest distance of a vector's numbers from what they should be; infinite for a NaN. */
double plain_distance(const struct trial *trial, size_t which, const long double *expected);

double plain_rounding(enum dtype dtype); /* DBL_EPSILON, FLT_EPSILON */

/* y = M x, or M' x. */
void plain_apply(const double *matrix, size_t rows, size_t cols, bool turned, const long double *x,
                 long double *y);

/* out[rows] = a X v + b X X' X v + c X X' X X' X v, X = U / norm(U): one iteration, seen through v,
 * by nothing but matrices times vectors. No side exceeds PLAIN_SIDE_MAX. */
void plain_probe(const double *u, size_t rows, size_t cols, const long double *v, long double *out);

/* Eigenvalues of a symmetric matrix, onto its diagonal. */
void plain_eigenvalues(double *a, size_t side);

#endif
