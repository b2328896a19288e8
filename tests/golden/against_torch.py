"""The transcription beside PyTorch: 200 steps of both in float64, every number within 1e-12."""
import numpy as np
import torch

from pipeline import pipeline
from transcription import RULES, settings, start

COUNT = 35
LR_FACTORS = [1, 1, 0.5, 2, 1.25, 0.1]
LIMIT = 1e-12


def betas(h):
    return {"betas": (h["beta1"], h["beta2"]), "eps": h["eps"]}


def amsgrad(h):
    return {**betas(h), "amsgrad": h["amsgrad"]}


def sgd(h):
    return {"momentum": h["momentum"], "dampening": h.get("dampening", 0.0), "nesterov": h.get("nesterov", False)}


def adagrad(h):
    return {"lr_decay": h["lr_decay"], "initial_accumulator_value": h["initial_accumulator"], "eps": h["eps"]}


def rmsprop(h):
    return {"alpha": h["rho"], "eps": h["eps"], "momentum": h["momentum"], "centered": h["centered"]}


def compare(rule, kind, options, update=None, constant_lr=False, **changes):
    update = update or RULES[rule][0]
    h = settings(rule, [(COUNT,)], changes)
    random = np.random.default_rng(20)
    w = random.standard_normal(COUNT)
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=torch.float64))
    other = kind([parameter], lr=h["lr"], weight_decay=h["weight_decay"], **options(h))
    state = start(rule, h, np.float64)
    for t in range(1, 201):
        lr = h["lr"] * (1 if constant_lr else LR_FACTORS[(t - 1) % len(LR_FACTORS)])
        g = random.standard_normal(COUNT) * 10.0 ** random.integers(-4, 2, COUNT)
        ready, q, begin, _, _ = pipeline(rule, h, w, g, lr)
        w, state = update(ready, t, lr, begin, q, state)
        other.param_groups[0]["lr"] = lr
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        other.step()
        theirs = parameter.detach().numpy()
        error = np.max(np.abs(w - theirs) / np.maximum(np.abs(theirs), 1e-2))
        assert error <= LIMIT, f"{rule} {changes}: step {t} differs from PyTorch by {error:g}"


def nadam_of_1_13(h, t, lr, w, q, state):
    """PyTorch before 2.0 multiplies P' by mu_t, which P has already: one factor too many, put in here for comparison.
    The rest of it is compared so; without the factor the formula is that of the rule."""
    mu, mu_next = (h["beta1"] * (1 - 0.5 * 0.96 ** (k * h["schedule_decay"])) for k in (t, t + 1))
    moved, new = RULES["nadam"][0](h, t, lr, w, q, state)
    root = np.sqrt(new["v"] / (1 - h["beta2"] ** t)) + h["eps"]
    ahead = 1 / (1 - new["P"] * mu * mu_next) - 1 / (1 - new["P"] * mu_next)
    return moved - lr * mu_next * new["m"] * ahead / root, new


def check():
    optim = torch.optim
    torch.set_default_dtype(torch.float64)  # of NAdam's product of mu, which would be float32
    fixed_nadam = int(torch.__version__.split(".")[0]) >= 2
    for wd in (0.0, 0.03):
        base = {"weight_decay": wd}
        compare("sgd", optim.SGD, sgd, **base)
        compare("sgd", optim.SGD, sgd, constant_lr=True, momentum=0.8, **base)
        for more in ({}, {"nesterov": True}, {"dampening": 0.25}, {"momentum": 0.0}):
            compare("momentum", optim.SGD, sgd, **{**base, **more})
        for more in ({"eps": 1e-10}, {"eps": 1e-3, "lr_decay": 0.1, "initial_accumulator": 0.3}):
            compare("adagrad", optim.Adagrad, adagrad, eps_mode="outside", **base, **more)
        for more in (
            {},
            {"momentum": 0.9},
            {"centered": True, "eps": 1e-3},
            {"centered": True, "momentum": 0.5, "eps": 1e-3},
        ):
            compare(
                "rmsprop", optim.RMSprop, rmsprop, eps_mode="outside", lr_in_momentum=False, rho=0.99, **base, **more
            )
        for more in ({}, {"rho": 0.8, "eps": 1e-3}):
            compare("adadelta", optim.Adadelta, lambda h: {"rho": h["rho"], "eps": h["eps"]}, **base, **more)
        for more in ({}, {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}):
            compare("adamax", optim.Adamax, betas, eps_mode="inside", **base, **more)
            compare("radam", optim.RAdam, betas, **base, **more)
            for decay in (0.004, 0.5):
                compare(
                    "nadam", optim.NAdam, lambda h: {**betas(h), "momentum_decay": h["schedule_decay"]},
                    update=None if fixed_nadam else nadam_of_1_13, schedule_decay=decay, **base, **more,
                )  # fmt: skip
            for flag in (False, True):
                adam = {**base, **more, "amsgrad": flag, "lr": 0.01}
                compare("adam", optim.Adam, amsgrad, **adam)
                compare("adam", optim.AdamW, amsgrad, weight_decay_mode="decoupled", **adam)
                compare("adamw", optim.AdamW, amsgrad, **adam)
