"""The problem of svrg.py: L2-regularised logistic regression, and how far from its optimum a w is.

Is a handwritten digit even or odd? In f64, over n = 1,796 digits of scikit-learn,

    F(w) = 1/n sum_i log(1 + exp(-a_i w)) + lambda/2 |w|^2       a_i = label * features, |a_i| = 1

The optimum comes from Newton's method in 80-bit floats. F(w) - F* is not taken as a difference, of
which nothing would be left below 1e-16: where the gradient is zero it equals

    1/n sum_i int_0^1 (1 - t) s'(z_i + t d_i) d_i^2 dt + lambda/2 |w - w*|^2

with z = A w*, d = A (w - w*), s the logistic function and s' = s (1 - s): a sum of positive terms,
to 14 digits by quadrature.
"""

import math

import numpy

LAMBDA, SEED = 2e-3, 0


def load(workers):
    """A [n, 65], rows label * (centred pixels and a constant): as many for each worker."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = numpy.random.default_rng(SEED).permutation(len(digits.target))
    pixels = digits.data[order] / 16
    features = numpy.hstack([pixels - pixels.mean(axis=0), numpy.ones((len(order), 1))])
    features /= numpy.linalg.norm(features, axis=1, keepdims=True)
    labels = numpy.where(digits.target[order] % 2 == 0, 1.0, -1.0)
    return (features * labels[:, None])[: len(order) // workers * workers]


def gradient(w, rows):
    """Of the mean over the rows, with the regularisation."""
    odds = 1 / (1 + numpy.exp(rows @ w))
    return -(rows.T @ odds) / len(rows) + LAMBDA * w


class Optimum:
    """w*, by Newton's method, and how far from F* a w is."""

    def __init__(self, rows):
        n, count = rows.shape
        wide = rows.astype(numpy.longdouble)
        w = numpy.zeros(count, numpy.longdouble)
        best = math.inf
        while True:
            slope = gradient(w, wide)
            norm = float(numpy.sqrt((slope * slope).sum()))
            if norm >= best:
                break
            best, self.w = norm, w
            s = 1 / (1 + numpy.exp(-(rows @ w.astype(float))))
            hessian = (rows.T * (s * (1 - s))) @ rows / n + LAMBDA * numpy.eye(count)
            w = w - numpy.linalg.solve(hessian, slope.astype(float))
        self.rows, self.gradient_norm = rows, best
        self.margins = (wide @ self.w).astype(float)
        nodes, weights = numpy.polynomial.legendre.leggauss(24)
        self.nodes, self.weights = (nodes + 1) / 2, weights / 2 * (1 - (nodes + 1) / 2)

    def value(self, w):
        terms = numpy.logaddexp(0, -(self.rows @ w))
        return math.fsum(terms) / len(terms) + LAMBDA / 2 * math.fsum(w * w)

    def distance(self, w):
        """F(w) - F*, to a relative precision of about 1e-14 (the head of this file says how)."""
        apart = (w - self.w).astype(float)
        d = self.rows @ apart
        s = 1 / (1 + numpy.exp(-(self.margins[:, None] + d[:, None] * self.nodes)))
        curvature = (s * (1 - s)) @ self.weights
        return float(numpy.mean(curvature * d * d) + LAMBDA / 2 * (apart @ apart))


def problem(workers):
    """(rows, Optimum), after it is said, and checked, how well the optimum is known."""
    rows = load(workers)
    optimum = Optimum(rows)
    lowest = optimum.value(optimum.w.astype(float))
    start = numpy.zeros(rows.shape[1])
    print(
        "Even or odd? Logistic regression on %d digits, %d weights, lambda %g"
        % (*rows.shape, LAMBDA)
    )
    print(
        "F* = %.16f by Newton's method; a gradient of norm %.0e there puts it within %.0e"
        % (lowest, optimum.gradient_norm, optimum.gradient_norm**2 / (2 * LAMBDA))
    )
    difference = optimum.value(start) - lowest  # far from the optimum it can be taken so, too
    if optimum.gradient_norm > 1e-15 or abs(optimum.distance(start) / difference - 1) > 1e-12:
        raise ArithmeticError("the optimum is not known well enough")
    return rows, optimum
