"""Which traces there are: every form of every rule in at least one, every mode of weight decay, all settings at once.

The tests demand (every_form_has_a_trace): each value of a choice and flag, and each number whose default is 0 also as
another. Numbers are chosen so that the setting matters: eps that is seen in f32, a clip that clips, zeros from ftrl.
"""

ALL = {"rescale": 0.7, "clip_value": 1.0, "clip_norm": 2.5, "weight_decay": 0.01}
L2 = {**ALL, "weight_decay_mode": "l2"}
CLIPPED = {**ALL, "weight_decay_mode": "l2_clipped"}
VALUE_CLIPPED = {**CLIPPED, "clip_norm": None}
DECOUPLED = {**ALL, "weight_decay_mode": "decoupled"}
BETAS = {"beta1": 0.8, "beta2": 0.95}
MOMENTUM = {"momentum": 0.9}


def modes(rule, **changes):
    """The rule with everything on, once for each mode of weight decay; with other betas in the last."""
    yield rule, "all", {**L2, **changes}
    yield rule, "decoupled", DECOUPLED
    yield rule, "decay clipped", {**VALUE_CLIPPED, **BETAS}


TRACES = [
    ("sgd", "plain", {}),
    ("sgd", "no momentum", ALL),
    ("sgd", "momentum", {**ALL, **MOMENTUM}),
    ("sgd", "momentum, decoupled", {**DECOUPLED, **MOMENTUM}),
    ("sgd", "no momentum, decoupled", DECOUPLED),
    ("sgd", "momentum, decay clipped", {**CLIPPED, **MOMENTUM}),
    ("momentum", "plain", {}),
    ("momentum", "heavy ball", ALL),
    ("momentum", "dampening", {**ALL, "dampening": 0.3}),
    ("momentum", "nesterov and dampening", {**ALL, "nesterov": True, "dampening": 0.3}),
    ("momentum", "zero", {**ALL, "momentum": 0.0}),
    ("momentum", "decoupled", {**DECOUPLED, "nesterov": True}),
    ("momentum", "decay clipped", VALUE_CLIPPED),
    ("nag", "plain", {}),
    ("nag", "all", L2),
    ("nag", "zero", {**ALL, "momentum": 0.0}),
    ("nag", "decoupled", {**DECOUPLED, "momentum": 0.5}),
    ("nag", "decay clipped", VALUE_CLIPPED),
    ("adagrad", "plain", {}),
    ("adagrad", "inside", {**ALL, "eps": 1e-3, "initial_accumulator": 0.125, "lr_decay": 0.05}),
    ("adagrad", "outside", {**ALL, "eps": 1e-3, "eps_mode": "outside"}),
    ("adagrad", "outside, decoupled", {**DECOUPLED, "eps_mode": "outside", "lr_decay": 0.2}),
    ("adagrad", "inside, decay clipped", {**VALUE_CLIPPED, "eps": 1e-4, "lr_decay": 1.0}),
    ("rmsprop", "plain", {}),
    ("rmsprop", "momentum", {**ALL, **MOMENTUM, "eps": 1e-4}),
    ("rmsprop", "momentum, lr outside", {**ALL, **MOMENTUM, "eps": 1e-4, "eps_mode": "outside", "lr_in_momentum": False}),
    ("rmsprop", "centered", {**ALL, "eps": 1e-4, "centered": True, "lr": 0.01}),
    (
        "rmsprop",
        "centered, outside, momentum, decoupled",
        {**DECOUPLED, **MOMENTUM, "eps": 1e-3, "eps_mode": "outside", "centered": True, "rho": 0.8},
    ),
    (
        "rmsprop",
        "all forms, decay clipped",
        {**VALUE_CLIPPED, "momentum": 0.5, "eps": 1e-3, "centered": True, "lr_in_momentum": False, "clip_weights": 1.25},
    ),
    ("rmsprop", "outside, weights clipped", {**ALL, "eps_mode": "outside", "clip_weights": 0.75, "lr": 0.01}),
    ("adadelta", "plain", {}),
    ("adadelta", "all", {**L2, "eps": 1e-4}),
    ("adadelta", "decoupled", {**DECOUPLED, "rho": 0.7, "lr": 0.5}),
    ("adadelta", "decay clipped", {**VALUE_CLIPPED, "eps": 1e-5}),
    ("adam", "plain", {}),
    ("adam", "outside, amsgrad", {**ALL, "eps": 1e-4, "amsgrad": True}),
    ("adam", "hat", {**ALL, "eps": 1e-4, "eps_mode": "hat"}),
    ("adam", "hat, amsgrad", {**ALL, "eps": 1e-4, "eps_mode": "hat", "amsgrad": True}),
    ("adam", "inside", {**ALL, "eps": 1e-4, "eps_mode": "inside"}),
    ("adam", "outside, decoupled", DECOUPLED),
    ("adam", "hat, decay clipped", {**VALUE_CLIPPED, "eps_mode": "hat", "beta1": 0.8, "beta2": 0.95}),
    ("adam", "inside, decoupled, amsgrad", {**DECOUPLED, "eps_mode": "inside", "amsgrad": True, "beta2": 0.9}),
    ("adamax", "plain", {}),
    ("adamax", "inside, eps 0", {"rescale": 0.7, "eps_mode": "inside", "eps": 0.0}),
    ("adamax", "all", {**L2, "eps": 1e-3, "beta2": 0.8}),
    ("adamax", "inside, decoupled", {**DECOUPLED, "eps_mode": "inside", "eps": 0.5}),
    ("adamax", "inside, decay clipped", {**VALUE_CLIPPED, **BETAS, "eps_mode": "inside"}),
    ("nadam", "plain", {}),
    *modes("nadam", eps=1e-4, schedule_decay=0.5),
    ("signum", "plain", {}),
    ("signum", "all", {**L2, "wd_lh": 0.02}),
    ("signum", "decoupled", {**DECOUPLED, "wd_lh": 0.02, "momentum": 0.5}),
    ("signum", "decay clipped", {**VALUE_CLIPPED, "weight_decay": 0.25}),
    ("signum", "no momentum", {**ALL, "momentum": 0.0, "wd_lh": 0.02}),
    ("signum", "no momentum, decay clipped", {**VALUE_CLIPPED, "momentum": 0.0, "weight_decay": 0.25}),
    ("dcasgd", "plain", {}),
    ("dcasgd", "all", {**L2, **MOMENTUM, "lambda": 0.5, "revisions": 4}),
    ("dcasgd", "decoupled", {**DECOUPLED, "lambda": 2.0, "lr": 0.1}),
    ("dcasgd", "decay clipped", {**VALUE_CLIPPED, **MOMENTUM, "lambda": 0.5}),
    ("dcasgd", "previous", {**ALL, **MOMENTUM, "compensate": "previous", "lambda": 2.0}),
    ("dcasgd", "previous, no momentum", {**ALL, "compensate": "previous", "lambda": 4.0, "lr": 0.1}),
    ("ftrl", "plain", {}),
    ("ftrl", "all", {**L2, "lambda1": 5.0, "initial_accumulator": 0.125}),
    ("ftrl", "decoupled", {**DECOUPLED, "beta": 0.25, "lambda1": 1.0}),
    ("ftrl", "decay clipped", {**VALUE_CLIPPED, "lr": 0.5, "lambda1": 1.0}),
    ("ftml", "plain", {}),
    ("ftml", "all", {**L2, "eps": 1e-3}),
    ("ftml", "decoupled", {**DECOUPLED, "beta1": 0.2}),  # 0.6 would make 5 units of the one that shrinking rounds
    ("ftml", "decay clipped", {**VALUE_CLIPPED, **BETAS}),
    ("adamw", "plain", {}),
    ("adamw", "all", {**DECOUPLED, "eps": 1e-4}),
    ("adamw", "all, amsgrad", {**DECOUPLED, "amsgrad": True, "lr": 0.05, "beta2": 0.9}),
    ("adamw", "l2", {**L2, "weight_decay": 0.02}),
    ("adamw", "decay clipped, amsgrad", {**VALUE_CLIPPED, **BETAS, "amsgrad": True}),
    ("adamw", "no decay", {"weight_decay": 0.0}),
    ("adabelief", "plain", {}),
    *modes("adabelief", eps=1e-4),
    ("radam", "plain", {}),
    *modes("radam", eps=1e-2, beta2=0.9),
    ("yogi", "plain", {}),
    *modes("yogi", eps=1e-4, beta2=0.6),
    ("lion", "plain", {}),
    ("lion", "all", {**DECOUPLED, "lr": 0.01}),
    ("lion", "l2", {**L2, "lr": 0.01}),
    ("lion", "decay clipped", {**VALUE_CLIPPED, **BETAS, "lr": 0.01, "weight_decay": 0.25}),
    ("lbsgd", "plain", {}),
    (
        "lbsgd",
        "linear, l2",
        {**L2, **MOMENTUM, "batch_scale": 3, "updates_per_epoch": 4, "warmup_epochs": 3},
    ),
    (
        "lbsgd",
        "power2, decoupled",
        {**DECOUPLED, "warmup_strategy": "power2", "batch_scale": 2, "updates_per_epoch": 16, "warmup_epochs": 1},
    ),
    (
        "lbsgd",
        "sqrt, decay clipped",
        {
            **CLIPPED, **MOMENTUM, "warmup_strategy": "sqrt", "batch_scale": 4, "updates_per_epoch": 6,
            "begin_epoch": 1, "warmup_epochs": 3,
        },
    ),
    ("lbsgd", "lars, l2", {**L2, "momentum": 0.5, "warmup_strategy": "lars", "batch_scale": 2, "lr": 0.002}),
    ("lars", "no decay", {"weight_decay": 0.0}),
    ("lars", "all", {**L2, "trust_coefficient": 0.02, "eps": 0.01}),
    ("lars", "decoupled", {**DECOUPLED, "momentum": 0.0, "trust_coefficient": 0.02}),
    ("lars", "decay clipped", {**VALUE_CLIPPED, "weight_decay": 1e-4, "trust_coefficient": 0.02, "eps": 0.0}),
    ("lamb", "plain", {}),
    ("lamb", "all", {**L2, "eps": 1e-3, "lower_bound": 2.0, "upper_bound": 4.0, "lr": 0.01}),
    ("lamb", "no correction, decoupled", {**DECOUPLED, "bias_correction": False, "upper_bound": 3.0}),
    ("lamb", "decay clipped", {**VALUE_CLIPPED, **BETAS, "lower_bound": 3.0}),
    ("lans", "plain", {}),
    ("lans", "all", {**L2, "eps": 1e-3, "lower_bound": 2.0, "upper_bound": 4.0, "lr": 0.01}),
    ("lans", "no correction, decoupled", {**DECOUPLED, "bias_correction": False, "upper_bound": 3.0}),
    ("lans", "decay clipped", {**VALUE_CLIPPED, **BETAS, "lower_bound": 3.0}),
    ("adafactor", "plain", {"eps1": 1e-6}),
    ("adafactor", "all", {**L2, "eps1": 0.02, "eps2": 1.5, "d": 1.5}),
    ("adafactor", "decoupled", {**DECOUPLED, "eps1": 1e-6, "beta2_decay": -0.5}),
    ("adafactor", "decay clipped", {**VALUE_CLIPPED, "eps1": 1e-6, "d": 1.1}),
    ("adafactor", "eps1 of f64", {"eps1": None, "lr": 0.3}),  # a rate that 1/sqrt(t) bounds
    ("group_adagrad", "plain", {}),
    ("group_adagrad", "all", {**L2, "eps": 1e-3}),
    ("group_adagrad", "decoupled", DECOUPLED),
    ("group_adagrad", "decay clipped", {**VALUE_CLIPPED, "eps": 0.1}),
    ("muon", "no decay", {"weight_decay": 0.0}),
    ("muon", "all", {**DECOUPLED, "weight_decay": 0.1, "lr": 0.005, "nesterov": False, "ns_steps": 3, "eps": 1e-4}),
    ("muon", "l2", {**L2, "momentum": 0.8, "beta1": 0.8}),
    ("muon", "decay clipped", {**VALUE_CLIPPED, "beta2": 0.95, "lr": 0.01}),
]  # fmt: skip
ONLY_F64 = {("adafactor", "eps1 of f64")}  # depends on the session's dtype
