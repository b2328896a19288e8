"""Writes tests/golden/presets/*.golden: optimizers of other frameworks over 200 steps, in float64.

PyTorch's by torch.optim itself (NAdam: see torch_nadam), MXNet's and objax's by transcriptions of their code
(frameworks.py). Every trace is also held against transcription.py: so two descriptions of each optimizer agree.

    # comment
    preset NAME
    shape 7 | ...                          the tensors, in order; N elements
    variant LABEL                          begins a variant
    field NAME VALUE                       the preset's fields that differ from the framework's defaults, in our names
    gradient NAME VALUE                    rescale, clip_value
    rates constant                         the rate stays lr; without this line it is lr * FACTORS[(t - 1) % 6]
    weights T N numbers                    after step T, for every T of TIMES

Inputs are formulas (inputs): i counts elements over all tensors from 0, t steps from 1.
"""
import math
from pathlib import Path

import numpy as np
import torch

import frameworks
from pipeline import pipeline
from transcription import RULES, settings, start

FOLDER = Path(__file__).parent / "presets"
SHAPES = [(7,), (9, 3), (1,), (4, 6), (2, 3, 5)]
# objax takes the larger of 1 and tc/wd where the gradient's norm is 0, our lars 1: without the tensor of one number,
# whose gradient is 0 in some step.
OTHER_SHAPES = {"objax.LARS": [shape for shape in SHAPES if shape != (1,)]}
STEPS = 200
TIMES = (1, 2, 3, 10, 50, 100, 150, 200)
FACTORS = [1, 1, 0.5, 2, 1.25, 0.1]
LIMIT = 1e-12  # between two programs, relative to a weight or, for small ones, to 2^-6

# preset: rule, what MXNet, objax or PyTorch makes of it: transcription.py's names
FORMS = {
    "torch.optim.SGD": ("momentum", {"lr": 0.001, "momentum": 0.0}),
    "torch.optim.Adam": ("adam", {}),
    "torch.optim.AdamW": ("adamw", {}),
    "torch.optim.Adagrad": ("adagrad", {"eps": 1e-10, "eps_mode": "outside"}),
    "torch.optim.RMSprop": ("rmsprop", {"lr": 0.01, "rho": 0.99, "eps_mode": "outside", "lr_in_momentum": False}),
    "torch.optim.Adadelta": ("adadelta", {}),
    "torch.optim.Adamax": ("adamax", {"eps_mode": "inside"}),
    "torch.optim.NAdam": ("nadam", {"lr": 0.002}),
    "torch.optim.RAdam": ("radam", {}),
    "mxnet.SGD": ("sgd", {}),
    "mxnet.NAG": ("nag", {"momentum": 0.0}),
    "mxnet.AdaGrad": ("adagrad", {"weight_decay_mode": "decoupled"}),
    "mxnet.RMSProp": ("rmsprop", {"weight_decay_mode": "l2_clipped"}),
    "mxnet.AdaDelta": ("adadelta", {"eps": 1e-5, "weight_decay_mode": "decoupled"}),
    "mxnet.Adam": ("adam", {"eps_mode": "hat", "weight_decay_mode": "l2_clipped"}),
    "mxnet.Adamax": ("adamax", {"eps": 0.0, "eps_mode": "inside", "weight_decay_mode": "l2_clipped"}),
    "mxnet.Nadam": ("nadam", {"weight_decay_mode": "l2_clipped"}),
    "mxnet.Signum": ("signum", {}),
    "mxnet.LBSGD": ("lbsgd", {}),
    "mxnet.DCASGD": ("dcasgd", {"compensate": "previous"}),
    "mxnet.Ftrl": ("ftrl", {}),
    "mxnet.FTML": ("ftml", {"lr": 0.01, "weight_decay_mode": "l2_clipped"}),
    "mxnet.LARS": ("lars", {"lr": 0.01, "momentum": 0.0, "eps": 0.0, "weight_decay": 0.0}),
    "mxnet.LAMB": ("lamb", {}),
    "objax.SGD": ("sgd", {}),
    "objax.Momentum": ("momentum", {}),
    "objax.Adam": ("adam", {"eps_mode": "inside"}),
    "objax.LARS": ("lars", {}),
}

# The framework's own defaults, by its names: as its signature has them.
B = {"beta1": 0.9, "beta2": 0.999}
DEFAULTS = {
    "mxnet.SGD": {"momentum": 0.0},
    "mxnet.NAG": {"momentum": 0.0},
    "mxnet.AdaGrad": {"eps": 1e-7},
    "mxnet.RMSProp": {
        "learning_rate": 0.001, "gamma1": 0.9, "gamma2": 0.9, "epsilon": 1e-8, "centered": False, "clip_weights": None,
    },
    "mxnet.AdaDelta": {"rho": 0.9, "epsilon": 1e-5},
    "mxnet.Adam": {"learning_rate": 0.001, **B, "epsilon": 1e-8},
    "mxnet.Adamax": {"learning_rate": 0.002, **B},
    "mxnet.Nadam": {"learning_rate": 0.001, **B, "epsilon": 1e-8, "schedule_decay": 0.004},
    "mxnet.Signum": {"momentum": 0.9, "wd_lh": 0.0},
    "mxnet.LBSGD": {
        "momentum": 0.0, "warmup_strategy": "linear", "warmup_epochs": 5, "batch_scale": 1, "updates_per_epoch": 32,
        "begin_epoch": 0,
    },
    "mxnet.DCASGD": {"momentum": 0.0, "lamda": 0.04},
    "mxnet.Ftrl": {"lamda1": 0.01, "learning_rate": 0.1, "beta": 1},
    "mxnet.FTML": {"beta1": 0.6, "beta2": 0.999, "epsilon": 1e-8},
    "mxnet.LARS": {"momentum": 0.0, "eta": 0.001, "eps": 0, "momentum_correction": True},
    "mxnet.LAMB": {
        "learning_rate": 0.001, **B, "epsilon": 1e-6, "lower_bound": None, "upper_bound": None, "bias_correction": True,
    },
    "objax.SGD": {"lr": 0.01},  # objax has no default rate: our rule's
    "objax.Momentum": {"lr": 0.01, "momentum": 0.9, "nesterov": False},
    "objax.Adam": {"lr": 0.001, **B, "eps": 1e-8},
    "objax.LARS": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "tc": 1e-3, "eps": 1e-5},
    "torch.optim.NAdam": {
        "lr": 0.002, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "momentum_decay": 0.004,
    },
}  # fmt: skip

OURS = {
    "learning_rate": "lr", "wd": "weight_decay", "epsilon": "eps", "gamma1": "rho", "gamma2": "momentum", "eta":
    "trust_coefficient", "tc": "trust_coefficient", "lamda": "lambda", "lamda1": "lambda1", "alpha": "rho",
    "momentum_decay": "schedule_decay", "initial_accumulator_value": "initial_accumulator",
    "rescale_grad": "rescale", "clip_gradient": "clip_value",
}  # fmt: skip
GRADIENT = ("rescale", "clip_value")

FIRM = {"wd": 0.02, "rescale_grad": 1.5, "clip_gradient": 0.25}
FIRM_MOMENTUM = {**FIRM, "momentum": 0.9}
VARIANTS = [
    ("torch.optim.SGD", "decay", {"weight_decay": 0.02}),
    ("torch.optim.SGD", "momentum", {"weight_decay": 0.02, "momentum": 0.9, "dampening": 0.25, "lr": 0.02}),
    ("torch.optim.SGD", "nesterov", {"weight_decay": 0.02, "momentum": 0.8, "nesterov": True, "lr": 0.02}),
    ("torch.optim.Adam", "decay", {"weight_decay": 0.02}),
    ("torch.optim.Adam", "amsgrad", {"weight_decay": 0.02, "amsgrad": True, "betas": (0.8, 0.95), "eps": 1e-4}),
    ("torch.optim.AdamW", "defaults", {}),
    ("torch.optim.AdamW", "amsgrad", {"weight_decay": 0.05, "amsgrad": True, "betas": (0.8, 0.95), "lr": 0.01}),
    ("torch.optim.Adagrad", "decay", {"weight_decay": 0.02}),
    (
        "torch.optim.Adagrad",
        "options",
        {"weight_decay": 0.02, "lr_decay": 0.05, "initial_accumulator_value": 0.125, "eps": 1e-3, "lr": 0.1},
    ),
    ("torch.optim.RMSprop", "decay", {"weight_decay": 0.02}),
    ("torch.optim.RMSprop", "momentum", {"weight_decay": 0.02, "momentum": 0.9, "lr": 0.001}),
    (
        "torch.optim.RMSprop",
        "centered",
        {"weight_decay": 0.02, "momentum": 0.5, "centered": True, "alpha": 0.9, "eps": 1e-4, "lr": 0.001},
    ),
    ("torch.optim.Adadelta", "decay", {"weight_decay": 0.02}),
    ("torch.optim.Adadelta", "options", {"weight_decay": 0.02, "rho": 0.8, "eps": 1e-4, "lr": 0.5}),
    ("torch.optim.Adamax", "decay", {"weight_decay": 0.02}),
    ("torch.optim.Adamax", "options", {"weight_decay": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "lr": 0.01}),
    ("torch.optim.NAdam", "decay", {"weight_decay": 0.02}),
    (
        "torch.optim.NAdam",
        "options",
        {"weight_decay": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "momentum_decay": 0.5},
    ),
    ("torch.optim.RAdam", "decay", {"weight_decay": 0.02}),
    ("torch.optim.RAdam", "options", {"weight_decay": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "lr": 0.01}),
    ("mxnet.SGD", "all", FIRM),
    ("mxnet.SGD", "momentum", FIRM_MOMENTUM),
    ("mxnet.NAG", "all", FIRM),
    ("mxnet.NAG", "momentum", FIRM_MOMENTUM),
    ("mxnet.AdaGrad", "all", FIRM),
    ("mxnet.AdaGrad", "options", {**FIRM, "eps": 1e-3, "learning_rate": 0.1}),
    ("mxnet.RMSProp", "all", FIRM),
    ("mxnet.RMSProp", "centered", {**FIRM, "centered": True, "epsilon": 1e-4, "gamma1": 0.95}),
    ("mxnet.RMSProp", "weights clipped", {**FIRM, "clip_weights": 0.75}),
    ("mxnet.AdaDelta", "all", FIRM),
    ("mxnet.AdaDelta", "options", {**FIRM, "rho": 0.8, "epsilon": 1e-4}),
    ("mxnet.Adam", "all", FIRM),
    ("mxnet.Adam", "options", {**FIRM, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "learning_rate": 0.01}),
    ("mxnet.Adamax", "all", FIRM),
    ("mxnet.Adamax", "options", {**FIRM, "beta1": 0.8, "beta2": 0.95, "learning_rate": 0.01}),
    ("mxnet.Nadam", "all", FIRM),
    ("mxnet.Nadam", "options", {**FIRM, "schedule_decay": 0.5, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}),
    ("mxnet.Signum", "all", FIRM),
    ("mxnet.Signum", "options", {**FIRM, "wd_lh": 0.03, "momentum": 0.5}),
    ("mxnet.Signum", "SignSGD", {"wd": 0.02, "momentum": 0.0}),
    ("mxnet.LBSGD", "all", FIRM),
    (
        "mxnet.LBSGD",
        "power2",
        {**FIRM_MOMENTUM, "warmup_strategy": "power2", "batch_scale": 2, "updates_per_epoch": 8, "begin_epoch": 1},
    ),
    ("mxnet.LBSGD", "lars", {**FIRM, "warmup_strategy": "lars", "batch_scale": 5, "learning_rate": 0.002}),
    ("mxnet.LBSGD", "sqrt", {**FIRM, "warmup_strategy": "sqrt", "batch_scale": 3}),
    ("mxnet.DCASGD", "no decay", {**FIRM, "wd": 0.0}),
    ("mxnet.DCASGD", "no decay, momentum", {**FIRM_MOMENTUM, "wd": 0.0, "lamda": 2.0}),
    ("mxnet.Ftrl", "all", FIRM),
    ("mxnet.Ftrl", "options", {**FIRM, "lamda1": 2.0, "beta": 0.5}),
    ("mxnet.FTML", "all", FIRM),
    ("mxnet.FTML", "options", {**FIRM, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "learning_rate": 0.002}),
    ("mxnet.LARS", "constant rate", {"wd": 0.02, "rescale_grad": 1.5, "momentum": 0.9, "learning_rate": 0.5}),
    (
        "mxnet.LARS",
        "no momentum correction",
        {"wd": 0.02, "rescale_grad": 1.5, "momentum": 0.9, "eta": 0.01, "eps": 1e-3, "momentum_correction": False},
    ),
    ("mxnet.LAMB", "all", FIRM),
    (
        "mxnet.LAMB",
        "options",
        {**FIRM, "bias_correction": False, "lower_bound": 2.0, "upper_bound": 3.0, "epsilon": 1e-3},
    ),
    ("objax.SGD", "plain", {}),
    ("objax.Momentum", "plain", {}),
    ("objax.Momentum", "nesterov", {"nesterov": True, "momentum": 0.5}),
    ("objax.Adam", "plain", {}),
    ("objax.Adam", "options", {**{"beta1": 0.8, "beta2": 0.95}, "eps": 1e-4, "lr": 0.01}),
    ("objax.LARS", "plain", {}),
    ("objax.LARS", "options", {"momentum": 0.5, "weight_decay": 0.02, "tc": 0.02, "eps": 1e-3}),
]
CONSTANT = {("mxnet.LARS", "constant rate"), ("mxnet.AdaDelta", "all"), ("mxnet.AdaDelta", "options")}


def inputs(name):
    i = np.arange(sum(math.prod(shape) for shape in shapes_of(name)))
    steps = range(1, STEPS + 1)
    gradients = [((i * 31 + t * 17 + (i * t) % 13) % 257 - 128) / 256 * 0.5 ** (i % 4) for t in steps]
    return ((i * 57 + 11) % 129 - 64) / 64, gradients


def shapes_of(name):
    return OTHER_SHAPES.get(name, SHAPES)


def split(name, flat):
    shapes = shapes_of(name)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes)]


def rates(name, label, base):
    constant = (name, label) in CONSTANT
    return [base * (1 if constant else FACTORS[(t - 1) % len(FACTORS)]) for t in range(1, STEPS + 1)]


def run_torch(name, label, options):
    w, gradients = inputs(name)
    parameters = [torch.nn.Parameter(torch.tensor(part)) for part in split(name, w)]
    kind = getattr(torch.optim, name.split(".")[-1])
    if name == "torch.optim.SGD":
        options = {"lr": 0.001, **options}  # the default since 2.3; 1.13 wants one
    optimizer = kind(parameters, foreach=False, **options)
    for lr, g in zip(rates(name, label, optimizer.defaults["lr"]), gradients):
        optimizer.param_groups[0]["lr"] = lr
        for parameter, part in zip(parameters, split(name, g)):
            parameter.grad = torch.tensor(part)
        optimizer.step()
        yield np.concatenate([parameter.detach().numpy().ravel() for parameter in parameters])


def run_transcribed(name, label, options):
    w, gradients = inputs(name)
    step = getattr(frameworks, name.replace("torch.optim", "torch").replace(".", "_").lower())
    o = {**(frameworks.MXNET if name.startswith("mxnet") else {}), **DEFAULTS[name], **options}
    rate = "learning_rate" if name.startswith("mxnet") else "lr"
    parts = split(name, w)
    states = [{} for _ in parts]
    for t, (lr, g) in enumerate(zip(rates(name, label, o[rate]), gradients), 1):
        parts = [step({**o, rate: lr}, t, *now) for now in zip(parts, split(name, g), states)]
        yield np.concatenate([part.ravel() for part in parts])


def ours(name, options):
    """The options under our names."""
    fields = {OURS.get(key, key): value for key, value in options.items() if key != "momentum_correction"}
    if "betas" in fields:
        fields["beta1"], fields["beta2"] = fields.pop("betas")
    if name == "mxnet.RMSProp" and options.get("centered"):
        fields.setdefault("momentum", DEFAULTS[name]["gamma2"])  # which has no effect there otherwise
    return fields


def run_rule(name, label, options):
    rule, form = FORMS[name]
    h = settings(rule, shapes_of(name), {**form, **ours(name, options)})
    w, gradients = inputs(name)
    state = start(rule, h, np.float64)
    base = 1.0 if name == "mxnet.AdaDelta" else h["lr"]
    for t, (lr, g) in enumerate(zip(rates(name, label, base), gradients), 1):
        ready, q, begin, _, _ = pipeline(rule, h, w, g, lr)
        w, state = RULES[rule][0]({**ready, "base": None}, t, lr, begin, q, state)
        yield w


def write_variant(out, name, label, options, texts):
    itself = name.startswith("torch.") and name != "torch.optim.NAdam"
    out.write(f"variant {label.replace(', ', '/').replace(' ', '-')}\n")
    for field, value in ours(name, options).items():
        out.write(f"{'gradient' if field in GRADIENT else 'field'} {field} {texts.value_text(value)}\n")
    if (name, label) in CONSTANT:
        out.write("rates constant\n")
    worst = 0.0
    both = zip((run_torch if itself else run_transcribed)(name, label, options), run_rule(name, label, options))
    for t, (theirs, rule) in enumerate(both, 1):
        worst = max(worst, np.max(np.abs(theirs - rule) / np.maximum(np.abs(theirs), 2.0**-6)))
        assert np.all(np.isfinite(theirs)) and np.all(np.isfinite(rule)), f"{name} {label}: not finite at step {t}"
        assert worst <= LIMIT, f"{name} {label}: the rule is {worst:g} away at step {t}"
        if t in TIMES:
            out.write(texts.line(f"weights {t}", texts.written(theirs)))
    return worst


def write(texts, verbose):
    """texts: how numbers are written (generate.py)."""
    FOLDER.mkdir(exist_ok=True)
    for name in FORMS:
        with open(FOLDER / f"{name}.golden", "w", encoding="ascii") as out:
            out.write("# Written by tests/golden/presets.py, which says what this is.\n")
            out.write(f"preset {name}\n")
            for shape in shapes_of(name):
                out.write(" ".join(["shape", *map(str, shape)]) + "\n")
            for preset, label, options in VARIANTS:
                if preset == name:
                    worst = write_variant(out, name, label, options, texts)
                    if verbose:
                        print(f"{name} {label}: the rule is within {worst:.1e}")
