"""The formulas of sgd and adam in numpy, written from the description.

Every scalar is a double, rounded once, so the bits are the server's."""
import numpy as np


def power(base, exponent):
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


class Model:
    """Weights and state of a rule."""

    def __init__(self, rule, weights):
        self.rule, self.real = rule, weights.dtype.type
        self.w, self.t = weights.copy(), 0
        self.m, self.v = np.zeros_like(weights), np.zeros_like(weights)

    def step(self, g, lr):
        real = self.real
        g = g.astype(self.w.dtype)
        self.t += 1
        if self.rule == "sgd":
            self.v = real(0.9) * self.v - real(lr) * g
            self.w = self.w + self.v
            return
        b1, b2 = 0.9, 0.999
        self.m = real(b1) * self.m + real(1 - b1) * g
        self.v = real(b2) * self.v + real(1 - b2) * (g * g)
        rate = real(lr / (1 - power(b1, self.t)))
        root = real(1 / np.sqrt(1 - power(b2, self.t)))
        self.w = self.w - rate * self.m / (np.sqrt(self.v) * root + real(1e-8))
