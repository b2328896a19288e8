"""Writes tests/golden/schedules.golden: rates of the learning-rate schedules, computed apart from the program.

Every rate is the schedule's formula to 60 decimal digits (Decimal; cosine by its series), rounded once. Before anything
is written they are held against the frameworks' own classes, step by step over the first run: PyTorch's OneCycleLR,
CosineAnnealingWarmRestarts and ExponentialLR, and, where their files are given, MXNet's and objax's schedulers:

    schedules.py [MXNET/python/mxnet/lr_scheduler.py OBJAX/objax/optimizer/scheduler.py]

Run from the project's root. The format:

    # comment
    case NAME LABEL
    set FIELD VALUE          a list of steps is 10,20,30
    lr NUMBER
    rate N NUMBER            for some steps N
"""
import sys
import types
from decimal import Decimal, Underflow, getcontext
from pathlib import Path

import numpy

FILE = Path(__file__).parent / "schedules.golden"
TO_LAST = 2**63
RUN = 3000  # steps taken with a framework's own class
CLOSE = RUN * 2.0**-53  # of the largest rate: one rounding a step, as where a framework multiplies the rate each time

getcontext().prec = 60
getcontext().Emin = -(10**17)
getcontext().traps[Underflow] = False


# --- the formulas, n = 1 for the first step ---------------------------------------------------------------------------


def arctan_of_inverse(x):
    term, total, k = Decimal(1) / x, Decimal(0), 0
    while abs(term) > Decimal(10) ** -70:
        total += term / (2 * k + 1) * (-1) ** k
        term /= x * x
        k += 1
    return total


PI = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))


def cos_pi(x):
    square, term, total, k = (PI * x) ** 2, Decimal(1), Decimal(0), 0
    while abs(term) > Decimal(10) ** -70:
        total += term
        k += 2
        term *= -square / (k * (k - 1))
    return total


def half_cosine(begin, end, share):
    if share == 1:  # where the series leaves 10^-60
        return end
    return end + (begin - end) * (1 + cos_pi(share)) / 2


def to_power(base, exponent):
    """base^exponent; 0 where it is below every double (its logarithm below that of 10^-400)."""
    if exponent == 0 or base == 1:
        return Decimal(1)
    logarithm = base.ln() * exponent
    return Decimal(0) if logarithm < -921 else logarithm.exp()


def constant(s, lr, n):
    return lr


def factor(s, lr, n):
    periods = -(-n // s["step"])
    return max(lr * to_power(s["factor"], periods - 1), min(s["stop_factor_lr"], lr))


def multi_factor(s, lr, n):
    return lr * to_power(s["factor"], sum(1 for step in s["steps"] if n > step))


def poly(s, lr, n):
    if n > s["max_steps"]:
        return s["final_lr"]
    share = Decimal(n - s["warmup_steps"]) / (s["max_steps"] - s["warmup_steps"])
    left = 1 - share
    return s["final_lr"] + (lr - s["final_lr"]) * (to_power(left, s["power"]) if left > 0 else 0)


def cosine(s, lr, n):
    if n > s["max_steps"]:
        return s["final_lr"]
    return half_cosine(lr, s["final_lr"], Decimal(n - s["warmup_steps"]) / (s["max_steps"] - s["warmup_steps"]))


def linear_annealing(s, lr, n):
    step = n % s["max_steps"] if s["cycle"] else min(n, s["max_steps"])
    return lr - (lr - s["min_lr"]) * step / s["max_steps"]


def step_decay(s, lr, n):
    if s["step_size"] is not None:
        return lr * to_power(s["gamma"], n // s["step_size"])
    return lr * to_power(s["gamma"], sum(1 for step in s["steps"] if n >= step))


def exponential(s, lr, n):
    return lr * to_power(s["gamma"], n - 1)


def one_cycle(s, lr, n):
    highest = lr if s["max_lr"] is None else s["max_lr"]
    initial = highest / s["div_factor"]
    final = initial / s["final_div_factor"]
    at, last = n - 1, s["max_steps"] - 1
    peak = Decimal(float(s["pct_start"]) * s["max_steps"] - 1)  # in double, as PyTorch has it
    if at > last:
        return final
    if at <= peak:
        begin, end, share = initial, highest, at / peak if peak > 0 else Decimal(1)
    else:
        begin, end, share = highest, final, (at - peak) / (last - peak)
    return half_cosine(begin, end, share) if s["anneal"] == "cosine" else begin + (end - begin) * share


def cosine_restarts(s, lr, n):
    since, length = n - 1, s["first"]
    if s["mult"] == 1:
        since %= length
    while since >= length:
        since, length = since - length, length * s["mult"]
    return half_cosine(lr, s["final_lr"], Decimal(since) / length)


DEFAULTS = {
    constant: {},
    factor: {"step": None, "factor": 1.0, "stop_factor_lr": 1e-8},
    multi_factor: {"steps": None, "factor": 1.0},
    poly: {"max_steps": None, "power": 2.0, "final_lr": 0.0},
    cosine: {"max_steps": None, "final_lr": 0.0},
    linear_annealing: {"max_steps": None, "min_lr": 0.0, "cycle": False},
    step_decay: {"step_size": None, "steps": None, "gamma": 0.1},
    exponential: {"gamma": None},
    one_cycle: {"max_steps": None, "max_lr": None, "pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4,
                "anneal": "cosine"},
    cosine_restarts: {"first": None, "mult": 1, "final_lr": 0.0},
}
WARMUPS = {
    "plain": {},
    "linear": {"warmup_steps": 7, "warmup_begin_lr": 0.004},
    "from_0": {"warmup_steps": 7},
    "held": {"warmup_steps": 9, "warmup_begin_lr": 0.003, "warmup_mode": "constant"},
}
WARMUP_DEFAULTS = {"warmup_steps": 0, "warmup_begin_lr": 0.0, "warmup_mode": "linear"}


def settings(schedule, given):
    """All settings as the formulas want them: fractions of doubles are exact in Decimal, whole numbers stay int."""
    whole = {**WARMUP_DEFAULTS, **DEFAULTS[schedule], **given}
    assert len(whole) == len(WARMUP_DEFAULTS) + len(DEFAULTS[schedule])
    return {name: Decimal(value) if isinstance(value, float) else value for name, value in whole.items()}


def rate(schedule, given, lr, n):
    s, lr = settings(schedule, given), Decimal(lr)
    if n >= s["warmup_steps"]:
        return schedule(s, lr, n)
    if s["warmup_mode"] == "constant":
        return s["warmup_begin_lr"]
    return s["warmup_begin_lr"] + (lr - s["warmup_begin_lr"]) * n / s["warmup_steps"]


# --- the cases --------------------------------------------------------------------------------------------------------

OWN = {  # (label, lr, fields)
    constant: [("lr", 0.1, {})],
    factor: [
        ("default", 0.1, {"step": 10}),
        ("half", 0.1, {"step": 10, "factor": 0.5}),
        ("every_step", 0.1, {"step": 1, "factor": 0.9, "stop_factor_lr": 0.001}),
        ("slow", 0.3, {"step": 3, "factor": 0.999, "stop_factor_lr": 0.0}),
    ],
    multi_factor: [
        ("one", 0.1, {"steps": [12]}),
        ("three", 0.1, {"steps": [1, 20, 21], "factor": 0.1}),
        ("many", 0.2, {"steps": list(range(2, 130, 2)), "factor": 0.7}),
    ],
    poly: [
        ("square", 0.1, {"max_steps": 50}),
        ("line", 0.1, {"max_steps": 50, "power": 1.0, "final_lr": 0.001}),
        ("root", 0.1, {"max_steps": 61, "power": 0.5, "final_lr": 0.02}),
        ("odd", 0.1, {"max_steps": 1000, "power": 0.9}),
        ("steep", 0.1, {"max_steps": 1000, "power": 17.25}),
        ("rising", 0.001, {"max_steps": 40, "power": 3.0, "final_lr": 0.5}),
        ("long", 0.1, {"max_steps": 10**15, "power": 4.0}),
    ],
    cosine: [
        ("to_0", 0.1, {"max_steps": 50}),
        ("to_some", 0.1, {"max_steps": 61, "final_lr": 0.003}),
        ("rising", 0.001, {"max_steps": 40, "final_lr": 0.5}),
        ("long", 0.1, {"max_steps": 10**15}),
    ],
    linear_annealing: [
        ("to_0", 0.1, {"max_steps": 50}),
        ("to_some", 0.1, {"max_steps": 61, "min_lr": 0.003}),
        ("cycle", 0.1, {"max_steps": 23, "min_lr": 0.003, "cycle": True}),
        ("long", 0.1, {"max_steps": 10**15, "min_lr": 1e-9}),
    ],
    step_decay: [
        ("size", 0.1, {"step_size": 10}),
        ("size_1", 0.1, {"step_size": 1, "gamma": 0.99}),
        ("list", 0.1, {"steps": [1, 20, 21, 55], "gamma": 0.5}),
        ("far", 0.1, {"steps": [30, 10**15]}),
    ],
    exponential: [
        ("fast", 0.1, {"gamma": 0.5}),
        ("slow", 0.1, {"gamma": 0.9995}),
        ("slower", 0.1, {"gamma": 1 - 2.0**-50}),
        ("none", 0.1, {"gamma": 1.0}),
    ],
    one_cycle: [
        ("default", 0.1, {"max_steps": 50}),
        ("between", 0.1, {"max_steps": 53, "pct_start": 0.27}),
        ("line", 0.1, {"max_steps": 50, "max_lr": 0.7, "anneal": "linear"}),
        ("factors", 0.1, {"max_steps": 40, "max_lr": 0.02, "div_factor": 4.0, "final_div_factor": 100.0}),
        ("down", 0.1, {"max_steps": 40, "pct_start": 0.0}),
        ("up", 0.1, {"max_steps": 40, "pct_start": 1.0}),
        ("nearly_down", 0.1, {"max_steps": 40, "pct_start": 0.0125}),
        ("peak_first", 0.1, {"max_steps": 40, "pct_start": 0.025}),
        ("long", 0.1, {"max_steps": 10**15}),
        ("short", 0.1, {"max_steps": 10, "anneal": "linear"}),
    ],
    cosine_restarts: [
        ("again", 0.1, {"first": 10}),
        ("longer", 0.1, {"first": 5, "mult": 2, "final_lr": 0.001}),
        ("much_longer", 0.1, {"first": 3, "mult": 3}),
        ("each", 0.1, {"first": 1}),
        ("million", 0.1, {"first": 7, "mult": 10**6}),
    ],
}


def steps_of(given):
    """The first steps, both sides of every number in the settings and of its parts, and far out."""
    chosen = set(range(1, 27)) | {100, 101, 1000, 12345, 2**53 + 1, TO_LAST - 1, TO_LAST}
    for value in given.values():
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int:
                parts = [number // 4, number // 3, number // 2, number - number // 4, number, 2 * number, 3 * number]
                chosen |= {part + off for part in parts for off in range(-2, 4)}
    return sorted(n for n in chosen if 1 <= n <= TO_LAST)


def cases():
    """Each case without a warm-up, the first ones with each; max_steps must outlast it."""
    for schedule, own in OWN.items():
        for label, lr, given in own:
            yield schedule, f"{label}/plain", lr, given
        for name, warmup in list(WARMUPS.items())[1:]:
            for label, lr, given in own[:3]:
                if given.get("max_steps", 100) > warmup["warmup_steps"]:
                    yield schedule, f"{label}/{name}", lr, {**warmup, **given}


# --- against the frameworks -------------------------------------------------------------------------------------------


def near(ours, theirs, largest, what):
    assert abs(float(ours) - theirs) <= CLOSE * largest, f"{what}: {float(ours)!r} here, {theirs!r} there"


def compare_torch(schedule, label, lr, given):
    import torch

    def make(optimizer):
        classes = torch.optim.lr_scheduler
        if schedule is exponential:
            return classes.ExponentialLR(optimizer, gamma=given["gamma"])
        if schedule is cosine_restarts:
            return classes.CosineAnnealingWarmRestarts(optimizer, T_0=given["first"], T_mult=given.get("mult", 1),
                                                       eta_min=given.get("final_lr", 0))
        return classes.OneCycleLR(
            optimizer, max_lr=given.get("max_lr", lr), total_steps=given["max_steps"], cycle_momentum=False,
            pct_start=given.get("pct_start", 0.3), div_factor=given.get("div_factor", 25.0),
            final_div_factor=given.get("final_div_factor", 1e4),
            anneal_strategy={"cosine": "cos", "linear": "linear"}[given.get("anneal", "cosine")])

    if schedule not in (exponential, cosine_restarts, one_cycle) or label.split("/")[1] != "plain":
        return 0
    if label == "peak_first/plain":  # OneCycleLR divides by 0
        return 0
    optimizer = torch.optim.SGD([torch.zeros(1, dtype=torch.float64)], lr=lr)
    scheduler = make(optimizer)
    last = min(RUN, given.get("max_steps", RUN))
    for n in range(1, last + 1):
        near(rate(schedule, given, lr, n), optimizer.param_groups[0]["lr"], given.get("max_lr", lr), (label, n))
        if n < last:
            optimizer.step()
            scheduler.step()
    return 1


def load(path, stubs=()):
    module = types.ModuleType("scheduler")
    sys.modules.update(stubs)
    exec(compile(Path(path).read_text(), path, "exec"), module.__dict__)
    return module


def compare_mxnet(module, schedule, label, lr, given):
    classes = {factor: "FactorScheduler", multi_factor: "MultiFactorScheduler", poly: "PolyScheduler",
               cosine: "CosineScheduler"}
    names = {"steps": "step", "max_steps": "max_update", "power": "pwr"}
    if schedule not in classes or given.get("warmup_begin_lr", 0) > lr:  # which MXNet refuses
        return 0
    scheduler = getattr(module, classes[schedule])(base_lr=lr, **{names.get(k, k): v for k, v in given.items()})
    largest = max(lr, given.get("final_lr", 0))
    for n in range(1, RUN + 1):
        # PolyScheduler and CosineScheduler stop changing after max_update, where they are at final_lr.
        near(rate(schedule, given, lr, n), scheduler(n), largest, (label, n))
    return 1


def compare_objax(module, schedule, label, lr, given):
    if schedule not in (linear_annealing, step_decay) or label.split("/")[1] != "plain":
        return 0
    if schedule is linear_annealing:
        scheduler = module.LinearAnnealing(given["max_steps"], base_lr=lr, is_cycle=given.get("cycle", False),
                                           min_lr=given.get("min_lr", 0))
    else:
        scheduler = module.StepDecay(given.get("step_size", given.get("steps")), base_lr=lr,
                                     gamma=given.get("gamma", 0.1))
    for n in range(1, RUN + 1):
        near(rate(schedule, given, lr, n), scheduler(n), lr, (label, n))
    return 1


def main():
    compared = sum(compare_torch(*case) for case in cases())
    print(f"{compared} cases agree with PyTorch")
    if len(sys.argv) > 1:
        mxnet = load(sys.argv[1])
        jax = types.ModuleType("jax")
        jax.numpy = numpy  # the only part of jax that the file uses, and only what NumPy has too
        objax = load(sys.argv[2], {"jax": jax, "jax.numpy": numpy}.items())
        print(f"{sum(compare_mxnet(mxnet, *case) for case in cases())} cases agree with MXNet")
        print(f"{sum(compare_objax(objax, *case) for case in cases())} cases agree with objax")

    def text(value):
        if isinstance(value, list):
            return ",".join(str(step) for step in value)
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)

    lines = ["# Rates of learning-rate schedules, written by tests/golden/schedules.py, which describes the format."]
    for schedule, label, lr, given in cases():
        lines.append(f"case {schedule.__name__} {label}")
        lines += [f"set {name} {text(value)}" for name, value in given.items()]
        lines.append(f"lr {lr.hex()}")
        lines += [f"rate {n} {float(rate(schedule, given, lr, n)).hex()}" for n in steps_of(given)]
    FILE.write_text("\n".join(lines) + "\n")


main()
