"""MXNet 1.9.1 and objax 1.8, transcribed from their own code: one step for one tensor.

Each function maps (o, t, w, g, state) to the new weights and keeps `state` up to date; o has the options under the
framework's names, o["learning_rate"] being this step's. Elements are computed as the framework's kernels do, in float64
where these have float32. There is one optimizer object a tensor, so that what MXNet shares among tensors by mistake
(Nadam's product of momentums) is not shared.
"""
import math

import numpy as np

MXNET = {"wd": 0.0, "rescale_grad": 1.0, "clip_gradient": None, "learning_rate": 0.01}


def clip(o, x):
    bound = o["clip_gradient"]
    return x if bound is None else np.clip(x, -bound, bound)


def clipped(o, g):
    return clip(o, o["rescale_grad"] * g)


def kept(state, w, *names):
    """The state vectors; zeros at first."""
    return [state.setdefault(name, np.zeros_like(w)) for name in names]


def mxnet_sgd(o, t, w, g, state):  # MultiSGDKernel
    lr = o["learning_rate"]
    (mom,) = kept(state, w, "mom")
    state["mom"] = o["momentum"] * mom - lr * o["wd"] * w - lr * clipped(o, g)
    return w + state["mom"]


def mxnet_nag(o, t, w, g, state):  # NAGMomKernel, SGDKernel
    lr, momentum = o["learning_rate"], o["momentum"]
    if momentum == 0:
        return (1 - lr * o["wd"]) * w - lr * clipped(o, g)
    (mom,) = kept(state, w, "mom")
    mom = momentum * mom
    step = lr * (clipped(o, g) + o["wd"] * w)
    state["mom"] = mom - step
    return w - mom + (momentum + 1) * (mom - step)


def mxnet_adagrad(o, t, w, g, state):
    (history,) = kept(state, w, "history")
    g = clipped(o, g)
    state["history"] = history + g * g
    div = g / np.sqrt(state["history"] + o["eps"])
    return w + (div + w * o["wd"]) * -o["learning_rate"]


def mxnet_rmsprop(o, t, w, g, state):  # RMSPropUpdateKernel, RMSPropAlexUpdateKernel
    n, mean, delta = kept(state, w, "n", "g", "delta")
    g = clip(o, o["rescale_grad"] * g + o["wd"] * w)
    state["n"] = n = (1 - o["gamma1"]) * (g * g) + o["gamma1"] * n
    if o["centered"]:
        state["g"] = mean = (1 - o["gamma1"]) * g + o["gamma1"] * mean
        root = np.sqrt(n - mean * mean + o["epsilon"])
        state["delta"] = o["gamma2"] * delta - o["learning_rate"] * g / root
        w = w + state["delta"]
    else:
        w = w - o["learning_rate"] * (g / np.sqrt(n + o["epsilon"]))
    return np.clip(w, -o["clip_weights"], o["clip_weights"]) if o["clip_weights"] else w


def mxnet_adadelta(o, t, w, g, state):  # the learning rate is not used
    acc_g, acc_delta = kept(state, w, "acc_g", "acc_delta")
    g = clipped(o, g)
    acc_g = acc_g * o["rho"] + (1 - o["rho"]) * g * g
    current = np.sqrt(acc_delta + o["epsilon"]) / np.sqrt(acc_g + o["epsilon"]) * g
    acc_delta = acc_delta * o["rho"] + (1 - o["rho"]) * current * current
    state.update(acc_g=acc_g, acc_delta=acc_delta)
    return w - (current + o["wd"] * w)


def mxnet_adam(o, t, w, g, state):  # AdamUpdateKernel
    mean, var = kept(state, w, "mean", "var")
    b1, b2 = o["beta1"], o["beta2"]
    lr = o["learning_rate"] * math.sqrt(1 - b2**t) / (1 - b1**t)
    g = clip(o, g * o["rescale_grad"] + w * o["wd"])
    state["mean"] = b1 * mean + (1 - b1) * g
    state["var"] = b2 * var + (1 - b2) * g * g
    return w - lr * state["mean"] / (np.sqrt(state["var"]) + o["epsilon"])


def mxnet_adamax(o, t, w, g, state):
    m, u = kept(state, w, "m", "u")
    lr = o["learning_rate"] / (1 - o["beta1"] ** t)
    g = clip(o, g * o["rescale_grad"] + o["wd"] * w)
    state["m"] = o["beta1"] * m + (1 - o["beta1"]) * g
    state["u"] = np.maximum(o["beta2"] * u, np.abs(g))
    assert np.all(state["u"] != 0)  # 0/0: there a NaN, here 0; no such gradient in these traces
    return w - lr * state["m"] / state["u"]


def mxnet_nadam(o, t, w, g, state):
    m, v = kept(state, w, "m", "v")
    g = clip(o, g * o["rescale_grad"] + o["wd"] * w)
    momentum_t = o["beta1"] * (1 - 0.5 * pow(0.96, t * o["schedule_decay"]))
    momentum_t_1 = o["beta1"] * (1 - 0.5 * pow(0.96, (t + 1) * o["schedule_decay"]))
    schedule = state["schedule"] = state.get("schedule", 1.0) * momentum_t
    schedule_next = schedule * momentum_t_1
    state["m"] = m = o["beta1"] * m + (1 - o["beta1"]) * g
    state["v"] = v = o["beta2"] * v + (1 - o["beta2"]) * g * g
    m_bar = (1 - momentum_t) * (g / (1 - schedule)) + momentum_t_1 * (m / (1 - schedule_next))
    return w - o["learning_rate"] * m_bar / (np.sqrt(v / (1 - pow(o["beta2"], t))) + o["epsilon"])


def mxnet_signum(o, t, w, g, state):  # SignumKernel, SignSGDKernel (which clips nothing)
    lr = o["learning_rate"]
    if o["momentum"] == 0:
        return (1 - lr * o["wd"]) * w - lr * ((g > 0) * 1.0 - (g < 0))
    (mom,) = kept(state, w, "mom")
    mu = o["momentum"]
    state["mom"] = mom = mu * mom - (1 - mu) * o["wd"] * w - (1 - mu) * clipped(o, g)
    return (1 - lr * o["wd_lh"]) * w + lr * ((mom > 0) * 1.0 - (mom < 0))


def mxnet_lbsgd(o, t, w, g, state):
    scale, strategy = float(o["batch_scale"]), o["warmup_strategy"]
    state["cum"] = state.get("cum", 0) + g
    count = state["count"] = state.get("count", o["begin_epoch"] * o["updates_per_epoch"]) + 1
    if count % o["batch_scale"] != 0:
        return w
    g = state["cum"] / o["batch_scale"]
    warm = o["warmup_epochs"] * o["updates_per_epoch"]
    if strategy == "lars":
        weight2, grad2 = (w * w).sum(), (g * g).sum()
        mult = min(max(math.sqrt(weight2 / (grad2 + o["wd"] * weight2 + 1e-18)), 0.01), 100)
    elif count >= warm:
        mult = scale
    elif warm <= 1:
        mult = 1.0
    elif strategy == "linear":
        mult = 1 + (scale - 1) * count / warm
    elif strategy == "power2":
        mult = 1 + (scale - 1) * (count * count) / (warm * warm)
    else:
        mult = 1 + (scale - 1) * math.sqrt(count / warm)
    state["cum"] = 0
    return mxnet_sgd({**o, "learning_rate": o["learning_rate"] * mult}, t, w, g, state)


def mxnet_dcasgd(o, t, w, g, state):
    """`if mom:` there raises for more than one element; meant is `if there is a momentum`."""
    (mom,) = kept(state, w, "mom")
    previous = state.get("previous", w)
    g = clipped(o, g)
    step = -o["learning_rate"] * (g + o["wd"] * w + o["lamda"] * g * g * (w - previous))
    state["mom"], state["previous"] = o["momentum"] * mom + step, w
    return w + state["mom"]


def mxnet_ftrl(o, t, w, g, state):  # FtrlUpdateKernel
    z, n = kept(state, w, "z", "n")
    lr = o["learning_rate"]
    g = clipped(o, g)
    state["z"] = z = z + (g - (np.sqrt(n + g * g) - np.sqrt(n)) * w / lr)
    state["n"] = n = n + g * g
    return (np.sign(z) * o["lamda1"] - z) / ((o["beta"] + np.sqrt(n)) / lr + o["wd"]) * (np.abs(z) > o["lamda1"])


def mxnet_ftml(o, t, w, g, state):  # FTMLKernel
    d, v, z = kept(state, w, "d", "v", "z")
    b1, b2 = o["beta1"], o["beta2"]
    g = clip(o, o["rescale_grad"] * g + o["wd"] * w)
    state["v"] = v = b2 * v + (1 - b2) * (g * g)
    d_t = (1 - b1**t) / o["learning_rate"] * (np.sqrt(v / (1 - b2**t)) + o["epsilon"])
    state["z"] = z = b1 * z + (1 - b1) * g - (d_t - b1 * d) * w
    state["d"] = d_t
    return -z / d_t


def mxnet_lars(o, t, w, g, state):
    """The norm is that of the gradient before clip_gradient; no trace here clips. momentum_correction multiplies the
    momentum by the rate's change."""
    w_norm, g_norm = math.sqrt((w * w).sum()), math.sqrt(((o["rescale_grad"] * g) ** 2).sum())
    lr, momentum = o["learning_rate"], o["momentum"]
    last = state.get("lr", lr)
    if o["momentum_correction"] and last != 0:
        momentum *= lr / last
    state["lr"] = lr
    rate = o["eta"] * w_norm / (g_norm + o["wd"] * w_norm + o["eps"]) if w_norm > 0 and g_norm > 0 else 1.0
    return mxnet_sgd({**o, "learning_rate": rate * lr, "momentum": momentum}, t, w, g, state)


def mxnet_lamb(o, t, w, g, state):  # MultiLAMBKernelStep1, MultiLAMBKernelStep2
    mean, var = kept(state, w, "mean", "var")
    b1, b2 = o["beta1"], o["beta2"]
    g = clipped(o, g)
    state["mean"] = mean = b1 * mean + (1 - b1) * g
    state["var"] = var = b2 * var + (1 - b2) * g * g
    if o["bias_correction"]:
        mean, var = mean / (1 - b1**t), var / (1 - b2**t)
    step = mean / (np.sqrt(var) + o["epsilon"]) + o["wd"] * w
    r1, r2 = math.sqrt((w * w).sum()), math.sqrt((step * step).sum())
    r1 = max(r1, o["lower_bound"]) if o["lower_bound"] else r1
    r1 = min(r1, o["upper_bound"]) if o["upper_bound"] else r1
    return w - o["learning_rate"] * (1.0 if r1 == 0 or r2 == 0 else r1 / r2) * step


def torch_nadam(o, t, w, g, state):
    """PyTorch's since 2.0. Debian's 1.13 has mu_t twice in P'; against_torch.py compares all the rest with it."""
    m, v = kept(state, w, "m", "v")
    b1, b2 = o["betas"]
    g = g + o["weight_decay"] * w
    mu = b1 * (1 - 0.5 * 0.96 ** (t * o["momentum_decay"]))
    mu_next = b1 * (1 - 0.5 * 0.96 ** ((t + 1) * o["momentum_decay"]))
    product = state["product"] = state.get("product", 1.0) * mu
    state["m"] = m = b1 * m + (1 - b1) * g
    state["v"] = v = b2 * v + (1 - b2) * g * g
    root = np.sqrt(v / (1 - b2**t)) + o["eps"]
    w = w - o["lr"] * (1 - mu) / (1 - product) * g / root
    return w - o["lr"] * mu_next / (1 - product * mu_next) * m / root


def objax_sgd(o, t, w, g, state):
    return w - o["lr"] * g


def objax_momentum(o, t, w, g, state):
    (m,) = kept(state, w, "m")
    state["m"] = m = g + o["momentum"] * m
    return w - o["lr"] * (g + o["momentum"] * m if o["nesterov"] else m)


def objax_adam(o, t, w, g, state):
    m, v = kept(state, w, "m", "v")
    lr = o["lr"] * math.sqrt(1 - o["beta2"] ** t) / (1 - o["beta1"] ** t)
    state["m"] = m + (1 - o["beta1"]) * (g - m)
    state["v"] = v + (1 - o["beta2"]) * (g**2 - v)
    return w - lr * state["m"] * (1 / np.sqrt(state["v"] + o["eps"]))


def objax_lars(o, t, w, g, state):
    (m,) = kept(state, w, "m")
    p_norm, g_norm = math.sqrt((w * w).sum()), math.sqrt((g * g).sum())
    assert g_norm != 0  # there: the larger of 1 and tc/wd; here: 1. No such gradient in these traces
    ratio = o["tc"] * p_norm / (g_norm + o["weight_decay"] * p_norm + o["eps"])
    rate = o["lr"] * max(1.0 if p_norm == 0 else 0.0, ratio)
    state["m"] = o["momentum"] * m + rate * (g + o["weight_decay"] * w)
    return w - state["m"]
