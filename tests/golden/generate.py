"""Writes tests/golden/{rules,presets}/*.golden: traces of the update rules, computed apart from the program.

Rules: a plain transcription of the formulas (transcription.py), in longdouble. Where PyTorch has the rule, 200 steps of
both are compared first (against_torch.py: 1e-12) and nothing is written when they differ. Presets: PyTorch itself and
transcriptions of the frameworks' own code (presets.py, which says what those files hold).
Run from the project's root with the Python that has NumPy and PyTorch: `make golden`.

A trace of a rule is taken twice over the same inputs:
  - "step t" blocks: after every step the state is rounded to float32. Each block is what one exact step makes of the
    rounded block before it. A program in f32 is compared step by step without its own past errors; one in f64 too.
  - "free t" blocks: nothing is rounded. For programs in f64, over the whole run.
Gradients have at most 8 significant bits and the exponents of a half, so all four wire formats carry them exactly.
A number that is the small difference of large terms would measure the inputs, not the program: the traces are computed
in longdouble, and beside it in float64 and, step by step, in float32. Where such a plain program comes near the limits
of the tests, that one gradient is drawn again (Trace.judge).

    # comment
    shape 7 | shape 9 3 | shape 1                    the tensors, in order: N parameters
    weights N numbers                                w(0), exact in f32
    gradient T N numbers                             for every step
    trace RULE LABEL                                 begins a trace
    only f64                                         numbers depend on the dtype's epsilon: for programs in f64
    set NAME VALUE                                   hyperparameters and the pipeline's settings that differ; null
    slot NAME linear|square COUNT                    state vectors, in order; square: holds squares of gradients.
                                                     COUNT numbers over all tensors: tensor_rules.py, extent
    scalar NAME                                      state that is one double, never rounded
    base T K                                         the gradient of step T was computed at the weights of step K
                                                     (0: w(0); in "step" blocks the rounded ones)
    step T lr NORM SCALE UPDATE PARAM                norm of rescale*g, clip scale, norms of w(t)-w(t-1) and w(t)
    w N numbers, NAME COUNT numbers                  after the step
    scalars NUMBERS                                  where there are scalars
    free T                                           then w, slots and scalars
"""
import math
import sys
from pathlib import Path

import numpy as np

import against_torch
import presets
from pipeline import norm, pipeline
from traces import ONLY_F64, TRACES
from transcription import PER_TENSOR, PIPELINE, RULES, SCALARS, extent, settings, slots_of, start

FOLDER = Path(__file__).parent / "rules"
SHAPES = [(7,), (9, 3), (1,)]
MORE_SHAPES = SHAPES + [(4, 6), (2, 3, 5)]  # wide, and of rank 3: for rules that look at tensors
STEPS = 20
SEED = 19
FREE = (7, 14, STEPS)
LR_FACTORS = [1, 1, 0.5, 2, 1.25, 0.1]  # the rate changes at every step but the second
LAGS = [0, 1, 3, 2, 0, 3, 1]  # of a contribution: how many steps before the current one its weights were pulled
EXACT = np.longdouble
assert np.finfo(EXACT).nmant >= 63, "the traces are computed in the 80 bits of x86"
NEAR_64 = 3e-13  # relative; the tests allow 1e-12
NEAR_32 = 0.75  # of what the tests allow in units of f32 (test_golden.c)
# Where plain f32 cannot be that near, whatever the gradients: ftml's w is a quotient of sums that grow when the rate
# jumps (18 units). Judged with float64 from q on, as a program has to take it.
WIDE_32 = {("ftml", "w")}


def draw(random, shape):
    """Zero, or larger than the decay of traces.py makes of any weight."""
    k = random.integers(128, 256, shape) * random.choice([-1, 1], shape)
    g = k * 2.0 ** random.integers(-11, -6, shape)
    return np.where(random.random(shape) < 0.03, 0.0, g)


class Inputs:
    def __init__(self, shapes):
        self.shapes, self.random = shapes, np.random.default_rng(SEED)
        count = sum(math.prod(shape) for shape in shapes)
        magnitude = np.round(self.random.uniform(0.25, 2, count) * 2**20) / 2**20
        self.w = magnitude * self.random.choice([-1, 1], count)
        self.gradients = draw(self.random, (STEPS, count))
        self.single = sum(math.prod(shape) for shape in shapes[: shapes.index((1,))])
        self.gradients[4, self.single] = 0.0  # a tensor whose gradient is zero
        assert np.array_equal(self.w, self.w.astype(np.float32))
        assert np.array_equal(self.gradients, self.gradients.astype(np.float16))

    def replace(self, bad):
        """Draws again what is in `bad`, a set of (t, element)."""
        for t, i in sorted(bad - {(5, self.single)}):
            self.gradients[t - 1, i] = draw(self.random, 1)[0]


# --- a trace ------------------------------------------------------------------------------------------------------


class Step:
    """One step of a rule from a given state, in the precision of that state."""

    def __init__(self, rule, h, t, w, gradient, state, base):
        self.lr = h["lr"] * LR_FACTORS[(t - 1) % len(LR_FACTORS)]
        h, q, begin, self.norm, self.scale = pipeline(rule, h, w, gradient.astype(w.dtype), self.lr)
        self.w, self.state = RULES[rule][0]({**h, "base": base}, t, self.lr, begin, q, state)
        if w.dtype == np.float32 and (rule, "w") in WIDE_32:
            wide = begin.astype(np.float64), q.astype(np.float64), cast(state, np.float64)
            self.w = RULES[rule][0]({**h, "base": base}, t, self.lr, *wide)[0]
        self.update_norm, self.param_norm = norm(self.w - w), norm(self.w)

    def numbers(self, slots):
        return [self.w, *(self.state[name] for name in slots)]


def cast(state, dtype):
    return {name: x.astype(dtype) if isinstance(x, np.ndarray) else x for name, x in state.items()}


def apart(x, exact):
    """The differences, relative to the numbers themselves."""
    difference = np.abs(x - exact)
    unlike = np.where(difference == 0, EXACT(0), EXACT(np.inf))
    return np.divide(difference, np.abs(exact), out=unlike, where=exact != 0).astype(np.float64)


def written(x):
    """The double a trace holds: 45 bits, within 2e-14, so that a number is 18 characters and not 21."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.rint(np.ldexp(fraction, 45)), exponent - 45).astype(np.float64)


def units_of_f32(kind, got, exact, before):
    """As the tests count them: the f32 spacing at the larger of the number before and after the step."""
    got, exact, before = np.float64(np.float32(got)), np.float64(exact), np.float64(before)
    if kind == "square":
        got, exact, before = np.sqrt(got), np.sqrt(exact), np.sqrt(before)
    size = np.maximum(np.maximum(np.abs(exact), np.abs(before)), np.finfo(np.float32).tiny)
    return np.abs(got - exact) / np.ldexp(1.0, np.frexp(size)[1] - 24)


def bases(rule, h):
    if rule != "dcasgd" or h["compensate"] != "pulled":
        return {}
    return {t: max(0, t - 1 - LAGS[t % len(LAGS)]) for t in range(1, STEPS + 1)}


def as_f32(x):
    """What a step starts from: the numbers of the block before it, rounded. A scalar is not."""
    return written(x).astype(np.float32).astype(EXACT) if isinstance(x, np.ndarray) else x


class Trace:
    """A rule with its settings over the inputs."""

    def __init__(self, rule, label, changes, inputs):
        self.rule, self.label, self.changes, self.inputs = rule, label, changes, inputs
        self.h = settings(rule, inputs.shapes, changes)
        self.slots, self.pulled = slots_of(rule, self.h), bases(rule, self.h)
        self.names = ("w", *self.slots)
        self.worst_64, self.worst_32 = 0.0, dict.fromkeys(self.names, 0.0)

    def step(self, kind, t, w, state, history):
        """Step t in precision `kind`; history: the weights before every step."""
        base = history[self.pulled[t]].astype(kind) if self.pulled else None
        gradient = self.inputs.gradients[t - 1]
        return Step(self.rule, self.h, t, w.astype(kind), gradient, cast(state, kind), base)

    def steps(self, rounded):
        """t, the state before, the exact step, and the same in float64."""
        w, state = self.inputs.w.astype(EXACT), start(self.rule, self.h, EXACT)
        plain_w, plain_state = self.inputs.w, start(self.rule, self.h, np.float64)
        history, plain_history = [w], [plain_w]
        for t in range(1, STEPS + 1):
            exact = self.step(EXACT, t, w, state, history)
            plain = self.step(np.float64, t, plain_w, plain_state, plain_history)
            yield t, (w, state, history), exact, plain
            w, state, plain_w, plain_state = exact.w, exact.state, plain.w, plain.state
            if rounded:
                w, state = as_f32(w), {name: as_f32(x) for name, x in state.items()}
                plain_w, plain_state = w.astype(np.float64), cast(state, np.float64)
            history.append(w)
            plain_history.append(plain_w)

    def limit(self, name):
        if (self.rule, self.label) in ONLY_F64:
            return np.inf
        conditioned = any(self.h[k] != PIPELINE[k] for k in PIPELINE if k != "weight_decay_mode")
        return NEAR_32 * (4 if conditioned and name != "w" else 2)

    def judge(self):
        """Where plain programs are too far from the exact numbers: a set of (t, element)."""
        bad = set()
        for rounded in (True, False):
            for t, before, exact, plain in self.steps(rounded):
                coarse = self.step(np.float32, t, *before) if rounded else exact
                old = [before[0], *(before[1][name] for name in self.slots)]
                kinds = ("linear", *self.slots.values())
                numbers = (step.numbers(self.slots) for step in (exact, plain, coarse))
                for name, kind, was, should, in_64, in_32 in zip(self.names, kinds, old, *numbers):
                    errors, units = apart(in_64, should), units_of_f32(kind, in_32, should, was)
                    self.worst_64 = max(self.worst_64, *errors, 0)
                    self.worst_32[name] = max(self.worst_32[name], *units, 0)
                    bad.update((t, i) for i in np.flatnonzero((errors > NEAR_64) | (units > self.limit(name))))
        return bad

    def write(self, out):
        rule, changes = self.rule, self.changes
        out.write(f"trace {rule} {self.label.replace(', ', '/').replace(' ', '-')}\n")
        if (rule, self.label) in ONLY_F64:
            out.write("only f64\n")
        for name, value in changes.items():
            if value is not None or name not in PIPELINE:
                out.write(f"set {name} {value_text(value)}\n")
        for name, kind in self.slots.items():
            out.write(f"slot {name} {kind} {sum(extent(rule, name, shape) for shape in self.h['shapes'])}\n")
        scalars = list(SCALARS.get(rule, {}))
        for name in scalars:
            out.write(f"scalar {name}\n")
        for t, k in self.pulled.items():
            out.write(f"base {t} {k}\n")
        for rounded in (True, False):
            for t, _, exact, _ in self.steps(rounded):
                if not rounded and t not in FREE:
                    continue
                heads = [exact.lr, exact.norm, exact.scale, exact.update_norm, exact.param_norm]
                out.write(line(f"step {t}", heads) if rounded else f"free {t}\n")
                for name, x in zip(self.names, exact.numbers(self.slots)):
                    out.write(line(name, written(x)))
                if scalars:
                    out.write(line("scalars", [exact.state[name] for name in scalars]))
        check_meaning(rule, self.label, self.h, np.array([exact.w for _, _, exact, _ in self.steps(False)]))


def check_meaning(rule, label, h, w):
    """A trace of a setting that has no effect would test nothing. w: all weights after all steps."""
    if rule == "ftrl" and h["lambda1"] >= 1:
        assert 0 < np.count_nonzero(w == 0) < w.size, f"{rule} {label}: no exact zeros, or nothing else"
    if rule == "rmsprop" and h["clip_weights"] is not None:
        assert np.any(np.abs(w) == h["clip_weights"]), f"{rule} {label}: no weight is clipped"


# --- writing ----------------------------------------------------------------------------------------------------


def number(x):
    """C's %a without the zeros at the end."""
    head, tail = float(x).hex().split("p")
    return (head.rstrip("0").rstrip(".") if "." in head else head) + "p" + tail


def line(word, values):
    return " ".join([word, *map(number, values)]) + "\n"


def value_text(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int)) else number(value)


def write_rule(rule):
    inputs = Inputs(MORE_SHAPES if rule in PER_TENSOR else SHAPES)
    for _ in range(100):
        traces = [Trace(name, label, changes, inputs) for name, label, changes in TRACES if name == rule]
        bad = set().union(*(trace.judge() for trace in traces))
        if not bad:
            break
        inputs.replace(bad)
    else:
        raise AssertionError(f"{rule}: no gradients are good at {sorted(bad)}")
    with open(FOLDER / f"{rule}.golden", "w", encoding="ascii") as out:
        out.write("# Written by tests/golden/generate.py, which says what this is.\n")
        for shape in inputs.shapes:
            out.write(" ".join(["shape", *map(str, shape)]) + "\n")
        out.write(line("weights", inputs.w))
        for t in range(1, STEPS + 1):
            out.write(line(f"gradient {t}", inputs.gradients[t - 1]))
        for trace in traces:
            trace.write(out)
            if "--verbose" in sys.argv:
                units = " ".join(f"{name} {value:.2f}" for name, value in trace.worst_32.items())
                print(
                    f"{rule} {trace.label}: float64 within {trace.worst_64:.1e}, plain f32 steps within {units} units"
                )


def main():
    against_torch.check()
    FOLDER.mkdir(exist_ok=True)
    for rule in RULES:
        write_rule(rule)
    presets.write(sys.modules[__name__], "--verbose" in sys.argv)


if __name__ == "__main__":
    main()
