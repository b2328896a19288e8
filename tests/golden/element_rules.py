"""The rules of grain element, as plain formulas; see transcription.py."""
import math

import numpy as np


def ema(beta, average, x):
    return beta * average + (1 - beta) * x


def sgd(h, t, lr, w, q, state):
    if h["momentum"] == 0:
        return w - lr * q, {}
    v = h["momentum"] * state["v"] - lr * q
    return w + v, {"v": v}


def momentum(h, t, lr, w, q, state):
    v = q if t == 1 else h["momentum"] * state["v"] + (1 - h["dampening"]) * q
    return w - lr * (q + h["momentum"] * v if h["nesterov"] else v), {"v": v}


def nag(h, t, lr, w, q, state):
    v = h["momentum"] * state["v"] - lr * q
    return w + h["momentum"] * v - lr * q, {"v": v}


def adagrad(h, t, lr, w, q, state):
    total = state["h"] + q * q
    root = np.sqrt(total + h["eps"]) if h["eps_mode"] == "inside" else np.sqrt(total) + h["eps"]
    return w - lr / (1 + (t - 1) * h["lr_decay"]) * q / root, {"h": total}


def rmsprop(h, t, lr, w, q, state):
    new = {"n": ema(h["rho"], state["n"], q * q)}
    spread = new["n"]
    if h["centered"]:
        new["m"] = ema(h["rho"], state["m"], q)
        spread = np.maximum(new["n"] - new["m"] ** 2, 0)
    d = np.sqrt(spread + h["eps"]) if h["eps_mode"] == "inside" else np.sqrt(spread) + h["eps"]
    if h["momentum"] == 0:
        w = w - lr * q / d
    elif h["lr_in_momentum"]:
        new["v"] = h["momentum"] * state["v"] + lr * q / d
        w = w - new["v"]
    else:
        new["v"] = h["momentum"] * state["v"] + q / d
        w = w - lr * new["v"]
    bound = h["clip_weights"]
    return w if bound is None else np.clip(w, -bound, bound), new


def adadelta(h, t, lr, w, q, state):
    a = ema(h["rho"], state["a"], q * q)
    u = np.sqrt(state["d"] + h["eps"]) / np.sqrt(a + h["eps"]) * q
    return w - lr * u, {"a": a, "d": ema(h["rho"], state["d"], u * u)}


def adam(h, t, lr, w, q, state):
    b1, b2, eps = h["beta1"], h["beta2"], h["eps"]
    m = ema(b1, state["m"], q)
    v = ema(b2, state["v"], q * q)
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


def adamw(h, t, lr, w, q, state):
    return adam({**h, "eps_mode": "outside"}, t, lr, w, q, state)


def adamax(h, t, lr, w, q, state):
    m = ema(h["beta1"], state["m"], q)
    if h["eps_mode"] == "inside":
        u = np.maximum(h["beta2"] * state["u"], np.abs(q) + h["eps"])
        ratio = np.divide(m, u, out=np.zeros_like(m), where=(m != 0) | (u != 0))  # 0/0 = 0
    else:
        u = np.maximum(h["beta2"] * state["u"], np.abs(q))
        ratio = m / (u + h["eps"])
    return w - lr / (1 - h["beta1"] ** t) * ratio, {"m": m, "u": u}


def nadam(h, t, lr, w, q, state):
    mu, mu_next = (h["beta1"] * (1 - 0.5 * 0.96 ** (k * h["schedule_decay"])) for k in (t, t + 1))
    product = state["P"] * mu
    m = ema(h["beta1"], state["m"], q)
    v = ema(h["beta2"], state["v"], q * q)
    mb = (1 - mu) * q / (1 - product) + mu_next * m / (1 - product * mu_next)
    w = w - lr * mb / (np.sqrt(v / (1 - h["beta2"] ** t)) + h["eps"])
    return w, {"m": m, "v": v, "P": product}


def signum(h, t, lr, w, q, state):
    """Without momentum q is c alone: the rule decays by itself."""
    if h["momentum"] == 0:
        return (1 - lr * (h["own_decay"] + h["wd_lh"])) * w - lr * np.sign(q), {}
    m = ema(h["momentum"], state["m"], q + h["own_decay"] * w)
    return (1 - lr * h["wd_lh"]) * w - lr * np.sign(m), {"m": m}


def dcasgd(h, t, lr, w, q, state):
    new = {}
    base = h["base"]
    if h["compensate"] == "previous":
        base = w if t == 1 else state["p"]
        new["p"] = w
    step = -lr * (q + h["lambda"] * q * q * (w - base))
    if h["momentum"] != 0:
        new["v"] = step = h["momentum"] * state["v"] + step
    return w + step, new


def ftrl(h, t, lr, w, q, state):
    n = state["n"] + q * q
    roots = np.sqrt(n) + np.sqrt(state["n"])
    s = np.divide(q * q, roots, out=np.zeros_like(q), where=q != 0) / lr  # (sqrt(n + q^2) - sqrt(n))/lr
    z = state["z"] + q - s * w
    moved = (np.sign(z) * h["lambda1"] - z) / ((h["beta"] + np.sqrt(n)) / lr + h["own_decay"])
    return np.where(np.abs(z) <= h["lambda1"], 0, moved), {"z": z, "n": n}


def ftml(h, t, lr, w, q, state):
    b1, b2 = h["beta1"], h["beta2"]
    v = ema(b2, state["v"], q * q)
    d = (1 - b1**t) / lr * (np.sqrt(v / (1 - b2**t)) + h["eps"])
    z = ema(b1, state["z"], q) - (d - b1 * state["d"]) * w
    return -z / d, {"d": d, "v": v, "z": z}


def adabelief(h, t, lr, w, q, state):
    b1, b2 = h["beta1"], h["beta2"]
    m = ema(b1, state["m"], q)
    s = ema(b2, state["s"], (q - m) ** 2) + h["eps"]
    return w - lr * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + h["eps"]), {"m": m, "s": s}


def radam(h, t, lr, w, q, state):
    b1, b2 = h["beta1"], h["beta2"]
    m = ema(b1, state["m"], q)
    v = ema(b2, state["v"], q * q)
    mh = m / (1 - b1**t)
    end = 2 / (1 - b2) - 1
    r = end - 2 * t * b2**t / (1 - b2**t)
    if r <= 5:
        return w - lr * mh, {"m": m, "v": v}
    rectified = math.sqrt((r - 4) * (r - 2) * end / ((end - 4) * (end - 2) * r))
    return w - lr * mh * rectified * math.sqrt(1 - b2**t) / (np.sqrt(v) + h["eps"]), {"m": m, "v": v}


def yogi(h, t, lr, w, q, state):
    b1, b2 = h["beta1"], h["beta2"]
    m = ema(b1, state["m"], q)
    v = state["v"] - (1 - b2) * np.sign(state["v"] - q * q) * (q * q)
    return w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + h["eps"]), {"m": m, "v": v}


def lion(h, t, lr, w, q, state):
    sign = np.sign(ema(h["beta1"], state["m"], q))
    return w - lr * sign, {"m": ema(h["beta2"], state["m"], q)}
