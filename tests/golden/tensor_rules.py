"""The rules that look at one tensor at a time, as plain formulas; see transcription.py.

Rules marked @per_tensor see a tensor in its shape; their slots are vectors of as many numbers as `extent` says.
"""
import functools
import math

import numpy as np

from element_rules import adamw, ema
from pipeline import decayed, norm, square_sum


def extent(rule, slot, shape):
    """How many numbers a slot has for a tensor."""
    count = math.prod(shape)
    if rule == "adafactor":
        if len(shape) < 2:
            return count if slot == "v" else 0
        return {"row": count // shape[-1], "col": count // shape[-2], "v": 0}[slot]
    if rule == "group_adagrad":
        return shape[0] if shape else 1
    if rule == "muon" and slot == "v":
        return count if len(shape) != 2 else 0
    return count


def per_tensor(rule):
    @functools.wraps(rule)
    def over_all(h, t, lr, w, q, state):
        new_w, new_state = np.empty_like(w), {name: np.empty_like(x) for name, x in state.items()}
        at, slot_at = 0, dict.fromkeys(state, 0)
        for shape in h["shapes"]:
            part = slice(at, at + math.prod(shape))
            parts = {}
            for name in state:
                parts[name] = slice(slot_at[name], slot_at[name] + extent(rule.__name__, name, shape))
                slot_at[name] = parts[name].stop
            moved, made = rule(
                h, t, lr, w[part].reshape(shape), q[part].reshape(shape), {k: state[k][parts[k]] for k in state}
            )
            new_w[part] = moved.ravel()
            for name, x in made.items():
                new_state[name][parts[name]] = x.ravel()
            at = part.stop
        return new_w, new_state

    return over_all


@per_tensor
def lbsgd(h, t, lr, w, g, state):
    """g: what came, times the clip scale of its step. Decay and clip_value wait for the step that moves."""
    k = h["begin_epoch"] * h["updates_per_epoch"] + t
    n = h["warmup_epochs"] * h["updates_per_epoch"]
    scale, strategy = h["batch_scale"], h["warmup_strategy"]
    total = state["G"].reshape(w.shape) + g
    if k % scale != 0:
        return w, {**state, "G": total}
    mean = total / scale
    if strategy == "lars":
        own = square_sum(w)
        assert h["weight_decay_mode"] == "l2"  # in the other modes it is open which decay stands here
        mult = math.sqrt(own / (square_sum(mean) + h["weight_decay"] * own + 1e-18))
        mult = min(max(mult, 0.01), 100)
    elif k >= n:
        mult = scale
    else:
        done = {"linear": k / n, "power2": k * k / (n * n), "sqrt": math.sqrt(k / n)}[strategy]
        mult = 1 + (scale - 1) * done
    lr = lr * mult  # an sgd step with that rate: decoupled decay has it too
    q, w = decayed(h, h["rescale"] * mean, w, lr)
    new = {"G": np.zeros_like(total)}
    if h["momentum"] == 0:
        return w - lr * q, new
    new["v"] = h["momentum"] * state["v"].reshape(w.shape) - lr * q
    return w + new["v"], new


@per_tensor
def lars(h, t, lr, w, q, state):
    size, slope = norm(w), norm(q)
    r = 1.0
    if size != 0 and slope != 0:
        r = h["trust_coefficient"] * size / (slope + h["own_decay"] * size + h["eps"])
    v = h["momentum"] * state["v"].reshape(w.shape) + lr * r * (q + h["own_decay"] * w)
    return w - v, {"v": v}


def trust(h, w, u):
    size, length = norm(w), norm(u)
    if h["lower_bound"] is not None:
        size = max(size, h["lower_bound"])
    if h["upper_bound"] is not None:
        size = min(size, h["upper_bound"])
    return 1.0 if size == 0 or length == 0 else size / length


def moments(h, t, q, state):
    """m, v, and what bias correction makes of them."""
    m = ema(h["beta1"], state["m"].reshape(q.shape), q)
    v = ema(h["beta2"], state["v"].reshape(q.shape), q * q)
    if not h["bias_correction"]:
        return m, v, m, v
    return m, v, m / (1 - h["beta1"] ** t), v / (1 - h["beta2"] ** t)


@per_tensor
def lamb(h, t, lr, w, q, state):
    m, v, mh, vh = moments(h, t, q, state)
    u = mh / (np.sqrt(vh) + h["eps"]) + h["own_decay"] * w
    return w - lr * trust(h, w, u) * u, {"m": m, "v": v}


@per_tensor
def lans(h, t, lr, w, q, state):
    length = norm(q)
    g = q / length if length != 0 else q
    m, v, mh, vh = moments(h, t, g, state)
    um = mh / (np.sqrt(vh) + h["eps"]) + h["own_decay"] * w
    ug = g / (np.sqrt(vh) + h["eps"]) + h["own_decay"] * w
    step = h["beta1"] * trust(h, w, um) * um + (1 - h["beta1"]) * trust(h, w, ug) * ug
    return w - lr * step, {"m": m, "v": v}


@per_tensor
def adafactor(h, t, lr, w, q, state):
    b = 1 - t ** h["beta2_decay"]
    eps1 = 2.0**-52 if h["eps1"] is None else h["eps1"]
    new = dict(state)
    if w.ndim < 2:
        new["v"] = second = ema(b, state["v"].reshape(w.shape), q * q)
    else:  # the last two dimensions are a matrix, those before them count matrices
        row = ema(b, state["row"].reshape(w.shape[:-1] + (1,)), np.mean(q * q, axis=-1, keepdims=True))
        col = ema(b, state["col"].reshape(w.shape[:-2] + (1,) + w.shape[-1:]), np.mean(q * q, axis=-2, keepdims=True))
        mean = np.mean(row, axis=-2, keepdims=True)
        assert np.all(mean >= eps1)  # below, PyTorch divides by eps1 instead: no trace is there
        second = row * col / mean
        new["row"], new["col"] = row, col
    u = q / np.sqrt(np.maximum(second, eps1**2))
    u = u / max(1.0, norm(u) / math.sqrt(u.size) / h["d"])
    size = max(h["eps2"], norm(w) / math.sqrt(w.size))
    return w - size * min(lr, 1 / math.sqrt(t)) * u, new


@per_tensor
def group_adagrad(h, t, lr, w, q, state):
    rows = q.reshape(w.shape[0] if w.ndim else 1, -1)
    total = state["h"] + np.mean(rows * rows, axis=1)
    step = lr * rows / (np.sqrt(total)[:, None] + h["eps"])
    return w - step.reshape(w.shape), {"h": total}


@per_tensor
def muon(h, t, lr, w, q, state):
    if w.ndim != 2:  # as adamw, with its first moment in B
        inner = {**h, "amsgrad": False}
        w, new = adamw(inner, t, lr, w.ravel(), q.ravel(), {"m": state["B"], "v": state["v"]})
        return w, {"B": new["m"], "v": new["v"]}
    mu = h["momentum"]
    average = ema(mu, state["B"].reshape(w.shape), q)
    u = ema(mu, average, q) if h["nesterov"] else average
    rows, cols = w.shape
    x = u.T if rows > cols else u
    if norm(x) != 0:
        x = x / norm(x)
    for _ in range(h["ns_steps"]):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    x = x.T if rows > cols else x
    return w - lr * math.sqrt(max(1, rows / cols)) * x, {"B": average, "v": state["v"]}
