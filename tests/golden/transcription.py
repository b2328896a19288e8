"""The update rules once more, as plain formulas: what the golden traces are made of.

A transcription that shares no code with the C rules. NumPy in form, one element after the other in meaning. It runs in
whatever precision the vectors have (generate.py writes longdouble; float64, float32 beside it); scalars
of a step are Python floats.

A rule maps (h, t, lr, w, q, state) to the new weights and state: h hyperparameters, t the update (first: 1), w the
weights after decoupled decay, q the conditioned gradient. h["own_decay"] is the weight decay that is left to the rule's
own formula.
"""
import numpy as np

from element_rules import (
    adabelief, adadelta, adagrad, adam, adamax, adamw, dcasgd, ftml, ftrl, lion, momentum, nadam, nag, radam, rmsprop,
    sgd, signum, yogi,
)  # fmt: skip
from tensor_rules import adafactor, extent, group_adagrad, lamb, lans, lars, lbsgd, muon

BETAS = {"beta1": 0.9, "beta2": 0.999}
LAMB = {"lr": 0.001, **BETAS, "eps": 1e-6, "bias_correction": True, "lower_bound": None, "upper_bound": None}
PIPELINE = {"rescale": 1.0, "clip_value": None, "clip_norm": None, "weight_decay": 0.0, "weight_decay_mode": "l2"}
RULES = {
    "sgd": (sgd, {"lr": 0.01, "momentum": 0.0}),
    "momentum": (momentum, {"lr": 0.01, "momentum": 0.9, "nesterov": False, "dampening": 0.0}),
    "nag": (nag, {"lr": 0.01, "momentum": 0.9}),
    "adagrad": (
        adagrad,
        {"lr": 0.01, "eps": 1e-7, "eps_mode": "inside", "initial_accumulator": 0.0, "lr_decay": 0.0},
    ),
    "rmsprop": (
        rmsprop,
        {
            "lr": 0.001, "rho": 0.9, "eps": 1e-8, "eps_mode": "inside", "momentum": 0.0, "centered": False,
            "lr_in_momentum": True, "clip_weights": None,
        },
    ),
    "adadelta": (adadelta, {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
    "adam": (adam, {"lr": 0.001, **BETAS, "eps": 1e-8, "eps_mode": "outside", "amsgrad": False}),
    "adamax": (adamax, {"lr": 0.002, **BETAS, "eps": 1e-8, "eps_mode": "outside"}),
    "nadam": (nadam, {"lr": 0.001, **BETAS, "eps": 1e-8, "schedule_decay": 0.004}),
    "signum": (signum, {"lr": 0.01, "momentum": 0.9, "wd_lh": 0.0}),
    "lbsgd": (
        lbsgd,
        {
            "lr": 0.01, "momentum": 0.0, "warmup_strategy": "linear", "warmup_epochs": 5, "batch_scale": 1,
            "updates_per_epoch": 32, "begin_epoch": 0,
        },
    ),
    "lars": (lars, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.001, "eps": 1e-5}),
    "dcasgd": (dcasgd, {"lr": 0.01, "momentum": 0.0, "lambda": 0.04, "compensate": "pulled", "revisions": 16}),
    "ftrl": (ftrl, {"lr": 0.1, "lambda1": 0.01, "beta": 1.0, "initial_accumulator": 0.0}),
    "ftml": (ftml, {"lr": 0.0025, "beta1": 0.6, "beta2": 0.999, "eps": 1e-8}),
    "adamw": (
        adamw,
        {"lr": 0.001, **BETAS, "eps": 1e-8, "amsgrad": False, "weight_decay": 0.01, "weight_decay_mode": "decoupled"},
    ),
    "lamb": (lamb, LAMB),
    "lans": (lans, LAMB),
    "adabelief": (adabelief, {"lr": 0.001, **BETAS, "eps": 1e-16}),
    "radam": (radam, {"lr": 0.001, **BETAS, "eps": 1e-8}),
    "yogi": (yogi, {"lr": 0.01, **BETAS, "eps": 1e-3}),
    "lion": (lion, {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay_mode": "decoupled"}),
    "adafactor": (adafactor, {"lr": 0.01, "beta2_decay": -0.8, "eps1": None, "eps2": 1e-3, "d": 1.0}),
    "group_adagrad": (group_adagrad, {"lr": 0.01, "eps": 1e-6}),
    "muon": (
        muon,
        {
            "lr": 0.02, "momentum": 0.95, "nesterov": True, "ns_steps": 5, "weight_decay": 0.1,
            "weight_decay_mode": "decoupled", **BETAS, "eps": 1e-8,
        },
    ),
}  # fmt: skip
PER_TENSOR = {"lbsgd", "lars", "lamb", "lans", "adafactor", "group_adagrad", "muon"}

TWO_MOMENTS = {"m": "linear", "v": "square"}
SLOTS = {  # in order; square: holds squares of gradients. A name alone, or with what makes it needed
    "sgd": lambda h: {"v": "linear"} if h["momentum"] != 0 else {},
    "momentum": lambda h: {"v": "linear"},
    "nag": lambda h: {"v": "linear"},
    "adagrad": lambda h: {"h": "square"},
    "rmsprop": lambda h: {
        "n": "square",
        **({"m": "linear"} if h["centered"] else {}),
        **({"v": "linear"} if h["momentum"] != 0 else {}),
    },
    "adadelta": lambda h: {"a": "square", "d": "square"},
    "adam": lambda h: {**TWO_MOMENTS, **({"x": "square"} if h["amsgrad"] else {})},
    "adamw": lambda h: {**TWO_MOMENTS, **({"x": "square"} if h["amsgrad"] else {})},
    "adamax": lambda h: {"m": "linear", "u": "linear"},
    "signum": lambda h: {"m": "linear"} if h["momentum"] != 0 else {},
    "lbsgd": lambda h: {"G": "linear", **({"v": "linear"} if h["momentum"] != 0 else {})},
    "lars": lambda h: {"v": "linear"},
    "dcasgd": lambda h: {
        **({"v": "linear"} if h["momentum"] != 0 else {}),
        **({"p": "linear"} if h["compensate"] == "previous" else {}),
    },
    "ftrl": lambda h: {"z": "linear", "n": "square"},
    "ftml": lambda h: {"d": "linear", "v": "square", "z": "linear"},
    "adabelief": lambda h: {"m": "linear", "s": "square"},
    "lion": lambda h: {"m": "linear"},
    "adafactor": lambda h: {"row": "square", "col": "square", "v": "square"},
    "group_adagrad": lambda h: {"h": "square"},
    "muon": lambda h: {"B": "linear", "v": "square"},
}
SCALARS = {"nadam": {"P": 1.0}}
INITIAL = {("adagrad", "h"): "initial_accumulator", ("ftrl", "n"): "initial_accumulator"}


def slots_of(rule, h):
    return SLOTS.get(rule, lambda h: TWO_MOMENTS)(h)


def settings(rule, shapes, changes):
    return {**PIPELINE, **RULES[rule][1], **changes, "shapes": shapes}


def start(rule, h, dtype):
    """The state before the first step."""
    state = {}
    for name in slots_of(rule, h):
        count = sum(extent(rule, name, shape) for shape in h["shapes"])
        value = h[INITIAL[rule, name]] if (rule, name) in INITIAL else 0.0
        state[name] = np.full(count, value, dtype)
    return {**state, **SCALARS.get(rule, {})}
