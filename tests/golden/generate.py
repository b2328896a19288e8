"""Writes tests/golden/rules/*.golden: traces of the update rules, computed apart from the program.

A plain transcription of the formulas in float64, one element after the other in meaning, NumPy in form; it shares no
code with the C rules. Where PyTorch has the rule, 200 steps of both are compared first (float64, 1e-12) and nothing is
written when they differ. Run from the project's root with the Python that has NumPy and PyTorch: `make golden`.

A trace is taken twice over the same inputs:
  - "step t" blocks: after every step the state is rounded to float32. Each block is what one exact step makes of the
    rounded block before it. A program in f32 is compared step by step without its own past errors; one in f64 too.
  - "free t" blocks: nothing is rounded. For programs in f64, over the whole run.
Gradients have at most 8 significant bits and the exponents of a half, so all four wire formats carry them exactly.

    # comment
    shape 7 | shape 9 3 | shape 1                    the tensors, in order
    weights 35 numbers                               w(0), exact in f32
    gradient T 35 numbers                            for every step
    trace RULE LABEL                                 begins a trace
    set NAME VALUE                                   hyperparameters and the pipeline's settings that differ
    slot NAME linear|square                          state vectors, in order; square: holds squares of gradients
    step T lr NORM SCALE UPDATE PARAM                norm of rescale*g, clip scale, norms of w(t)-w(t-1) and w(t)
    w 35 numbers, NAME 35 numbers                    after the step
    free T                                           then w and slots
"""
import math
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "rules"
SHAPES = [(7,), (9, 3), (1,)]
COUNT = sum(math.prod(shape) for shape in SHAPES)
STEPS = 24
LR_FACTORS = [1, 1, 0.5, 2, 1.25, 0.1]  # the rate changes at every step but the second


# --- what happens before every rule -------------------------------------------------------------------------------


def pipeline(setting, w, g, lr):
    """q and the weights the rule starts from, with the norm of rescale*g and the clip scale."""
    wd, mode, bound, limit = (setting[k] for k in ("weight_decay", "weight_decay_mode", "clip_value", "clip_norm"))

    def clip_value(x):
        return x if bound is None else np.minimum(np.maximum(x, -bound), bound)

    def scale_of(x):  # the norm is over all tensors: the flat vector
        norm = math.sqrt(math.fsum(x * x))
        return 1.0 if limit is None or norm <= limit else limit / norm

    c = setting["rescale"] * g
    norm = math.sqrt(math.fsum(c * c))
    if mode == "l2_clipped":  # clip_value comes after the decay; clip_norm still bounds the gradient itself
        scale = scale_of(c)
        return clip_value(scale * c + wd * w), w, norm, scale
    c = clip_value(c)
    scale = scale_of(c)
    c = scale * c
    if mode == "l2":
        return c + wd * w, w, norm, scale
    assert mode == "decoupled"
    return c, w - lr * wd * w, norm, scale


# --- the rules: state in, state out --------------------------------------------------------------------------------


def sgd(h, t, lr, w, q, state):
    if h["momentum"] == 0:
        return w - lr * q, {}
    v = h["momentum"] * state["v"] - lr * q
    return w + v, {"v": v}


def momentum(h, t, lr, w, q, state):
    v = q if t == 1 else h["momentum"] * state["v"] + (1 - h["dampening"]) * q
    return w - lr * (q + h["momentum"] * v if h["nesterov"] else v), {"v": v}


def adam(h, t, lr, w, q, state):
    b1, b2, eps = h["beta1"], h["beta2"], h["eps"]
    m = b1 * state["m"] + (1 - b1) * q
    v = b2 * state["v"] + (1 - b2) * q * q
    new = {"m": m, "v": v}
    second = v
    if h["amsgrad"]:
        new["x"] = second = np.maximum(state["x"], v)
    rate = lr * math.sqrt(1 - b2**t) / (1 - b1**t)
    if h["eps_mode"] == "outside":
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
    elif h["eps_mode"] == "hat":
        w = w - rate * m / (np.sqrt(second) + eps)
    else:
        w = w - rate * m / np.sqrt(second + eps)
    return w, new


RULES = {
    "sgd": (sgd, {"lr": 0.01, "momentum": 0.0}),
    "momentum": (momentum, {"lr": 0.01, "momentum": 0.9, "nesterov": False, "dampening": 0.0}),
    "adam": (
        adam,
        {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "eps_mode": "outside", "amsgrad": False},
    ),
}
PIPELINE = {"rescale": 1.0, "clip_value": None, "clip_norm": None, "weight_decay": 0.0, "weight_decay_mode": "l2"}


def slots_of(rule, h):
    if rule == "sgd":
        return {"v": "linear"} if h["momentum"] != 0 else {}
    if rule == "momentum":
        return {"v": "linear"}
    return {"m": "linear", "v": "square", **({"x": "square"} if h["amsgrad"] else {})}


def lr_at(h, t):
    return h["lr"] * LR_FACTORS[(t - 1) % len(LR_FACTORS)]


# --- against PyTorch ---------------------------------------------------------------------------------------------


def same_as_torch(rule, make, constant_lr=False, **changes):
    """200 steps of both; the optimizer `make` builds must walk the same way."""
    import torch

    update, defaults = RULES[rule]
    h = {**PIPELINE, **defaults, **changes}
    random = np.random.default_rng(20)
    w = random.standard_normal(COUNT)
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=torch.float64))
    other = make([parameter], h)
    state = {name: np.zeros(COUNT) for name in slots_of(rule, h)}
    for t in range(1, 201):
        lr = h["lr"] if constant_lr else lr_at(h, t)
        g = random.standard_normal(COUNT) * 10.0 ** random.integers(-4, 2, COUNT)
        q, start, _, _ = pipeline(h, w, g, lr)
        w, state = update(h, t, lr, start, q, state)
        other.param_groups[0]["lr"] = lr
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        other.step()
        theirs = parameter.detach().numpy()
        error = np.max(np.abs(w - theirs) / np.maximum(np.abs(theirs), 1e-2))
        assert error <= 1e-12, f"{rule} {changes}: step {t} differs from PyTorch by {error:g}"


def check_against_torch():
    import torch

    def torch_sgd(parameters, h):
        return torch.optim.SGD(
            parameters, lr=h["lr"], momentum=h["momentum"], dampening=h.get("dampening", 0.0),
            weight_decay=h["weight_decay"], nesterov=h.get("nesterov", False),
        )  # fmt: skip

    def torch_adam(kind):
        return lambda parameters, h: kind(
            parameters, lr=h["lr"], betas=(h["beta1"], h["beta2"]), eps=h["eps"],
            weight_decay=h["weight_decay"], amsgrad=h["amsgrad"],
        )  # fmt: skip

    for wd in (0.0, 0.03):
        same_as_torch("sgd", torch_sgd, weight_decay=wd)
        same_as_torch("sgd", torch_sgd, constant_lr=True, momentum=0.8, weight_decay=wd)
        for more in ({}, {"nesterov": True}, {"dampening": 0.25}, {"momentum": 0.0}):
            same_as_torch("momentum", torch_sgd, **{"weight_decay": wd, **more})
        for amsgrad in (False, True):
            more = {"weight_decay": wd, "amsgrad": amsgrad, "lr": 0.01}
            same_as_torch("adam", torch_adam(torch.optim.Adam), **more)
            same_as_torch("adam", torch_adam(torch.optim.Adam), **more, beta1=0.8, beta2=0.95, eps=1e-3)
            same_as_torch("adam", torch_adam(torch.optim.AdamW), weight_decay_mode="decoupled", **more)


# --- inputs -----------------------------------------------------------------------------------------------------


def inputs():
    """Gradients are 0 or larger than the decay below makes of any weight: a q that is the small difference of large
    terms would measure the inputs, not the program."""
    random = np.random.default_rng(19)
    w = np.round(random.uniform(0.25, 2, COUNT) * 2**20) / 2**20 * random.choice([-1, 1], COUNT)
    k = random.integers(128, 256, (STEPS, COUNT)) * random.choice([-1, 1], (STEPS, COUNT))
    g = k * 2.0 ** random.integers(-11, -6, (STEPS, COUNT))
    g[random.random((STEPS, COUNT)) < 0.03] = 0.0
    assert np.array_equal(w, w.astype(np.float32)) and np.array_equal(g, g.astype(np.float16))
    return w, g


ALL = {"rescale": 0.7, "clip_value": 1.0, "clip_norm": 2.5, "weight_decay": 0.01}
VALUE_CLIPPED = {**ALL, "clip_norm": None, "weight_decay_mode": "l2_clipped"}
DECOUPLED = {**ALL, "weight_decay_mode": "decoupled"}
TRACES = [
    ("sgd", "plain", {}),
    ("sgd", "no momentum", ALL),
    ("sgd", "momentum", {**ALL, "momentum": 0.9}),
    ("sgd", "momentum, decoupled", {**DECOUPLED, "momentum": 0.9}),
    ("sgd", "no momentum, decoupled", DECOUPLED),
    ("sgd", "momentum, decay clipped", {**VALUE_CLIPPED, "momentum": 0.9}),
    ("sgd", "decay clipped, both clips", {**ALL, "weight_decay_mode": "l2_clipped"}),
    ("momentum", "plain", {}),
    ("momentum", "heavy ball", ALL),
    ("momentum", "nesterov", {**ALL, "nesterov": True}),
    ("momentum", "dampening", {**ALL, "dampening": 0.3}),
    ("momentum", "nesterov and dampening", {**ALL, "nesterov": True, "dampening": 0.3}),
    ("momentum", "zero", {**ALL, "momentum": 0.0}),
    ("momentum", "decoupled", {**DECOUPLED, "nesterov": True}),
    ("momentum", "decay clipped", VALUE_CLIPPED),
    ("adam", "plain", {}),
    *(
        ("adam", mode + (", amsgrad" if amsgrad else ""), {**ALL, "eps": 1e-4, "eps_mode": mode, "amsgrad": amsgrad})
        for mode in ("outside", "hat", "inside")
        for amsgrad in (False, True)
    ),
    ("adam", "outside, decoupled", DECOUPLED),
    ("adam", "hat, decay clipped", {**VALUE_CLIPPED, "eps_mode": "hat", "beta1": 0.8, "beta2": 0.95}),
    ("adam", "inside, decoupled, amsgrad", {**DECOUPLED, "eps_mode": "inside", "amsgrad": True, "beta2": 0.9}),
]


# --- writing ----------------------------------------------------------------------------------------------------


def number(x):
    """C's %a without the zeros at the end."""
    head, tail = float(x).hex().split("p")
    return (head.rstrip("0").rstrip(".") if "." in head else head) + "p" + tail


def line(word, values):
    return " ".join([word, *map(number, values)]) + "\n"


def value_text(value):
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else number(value)


def norm_of(x):
    return math.sqrt(math.fsum(x * x))


def write_trace(out, rule, label, changes, w0, gradients):
    update, defaults = RULES[rule]
    h = {**PIPELINE, **defaults, **changes}
    slots = slots_of(rule, h)
    out.write(f"trace {rule} {label.replace(', ', '/').replace(' ', '-')}\n")
    for name, value in changes.items():
        if value is not None:
            out.write(f"set {name} {value_text(value)}\n")
    for name, kind in slots.items():
        out.write(f"slot {name} {kind}\n")
    for rounded in (True, False):
        w, state = w0, {name: np.zeros(COUNT) for name in slots}
        for t in range(1, STEPS + 1):
            lr, last = lr_at(h, t), w
            q, start, norm, scale = pipeline(h, w, gradients[t - 1], lr)
            w, state = update(h, t, lr, start, q, state)
            if rounded:
                out.write(line(f"step {t}", [lr, norm, scale, norm_of(w - last), norm_of(w)]))
            elif t % 8 == 0:
                out.write(f"free {t}\n")
            if rounded or t % 8 == 0:
                out.write(line("w", w))
                for name in slots:
                    out.write(line(name, state[name]))
            if rounded:
                w = w.astype(np.float32).astype(np.float64)
                state = {name: x.astype(np.float32).astype(np.float64) for name, x in state.items()}


def main():
    check_against_torch()
    FOLDER.mkdir(exist_ok=True)
    w, gradients = inputs()
    for rule in RULES:
        with open(FOLDER / f"{rule}.golden", "w", encoding="ascii") as out:
            out.write("# Written by tests/golden/generate.py, which says what this is.\n")
            for shape in SHAPES:
                out.write(" ".join(["shape", *map(str, shape)]) + "\n")
            out.write(line("weights", w))
            for t in range(1, STEPS + 1):
                out.write(line(f"gradient {t}", gradients[t - 1]))
            for name, label, changes in TRACES:
                if name == rule:
                    write_trace(out, rule, label, changes, w, gradients)


if __name__ == "__main__":
    main()
