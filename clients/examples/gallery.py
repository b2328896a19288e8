#!/usr/bin/env python3
"""Trains the same small network with every rule of the server and draws all the loss curves.

    gallery.py [--url http://127.0.0.1:8080] [--picture build/gallery/gallery.png] [--only adam lion]
    gallery.py --tune [--only adam]      which learning rate of a grid ends lowest, for each rule

The network has one hidden layer of 32 tanh units and learns the 1,797 handwritten digits of
scikit-learn; every rule starts from the same weights and sees the same batches. Which rules there
are, the server says (GET /v1/optimizers): one that is not named here is run with its defaults.
"""

import argparse
import os
import pathlib
import sys
import time

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import descent  # noqa: E402

import digits  # noqa: E402

STEPS, BATCH, HIDDEN, SEED, SPAN = 300, 64, 32, 3, 15
GRID = [10 ** (k / 2) for k in range(-8, 3)]
EXAMPLES = 1437

# What differs from the defaults: mostly the rate, found with --tune.
SETTINGS = {
    "sgd": {"lr": 1},
    "momentum": {"lr": 0.3},
    "nag": {"lr": 0.3},
    "adagrad": {"lr": 0.1},
    "rmsprop": {"lr": 0.01},
    "adadelta": {"lr": 10},
    "adam": {"lr": 0.03},
    "adamax": {"lr": 0.1},
    "nadam": {"lr": 0.03},
    "signum": {"lr": 0.003},
    "lbsgd": {"lr": 0.1, "momentum": 0.9, "batch_scale": 2, "warmup_epochs": 2},
    "lars": {"lr": 1},
    "dcasgd": {"lr": 1},
    "ftrl": {"lr": 1},
    "ftml": {"lr": 0.1},
    "sgld": {"lr": 0.001},
    "adamw": {"lr": 0.03},
    "lamb": {"lr": 0.01},
    "lans": {"lr": 0.01},
    "adabelief": {"lr": 0.03},
    "radam": {"lr": 0.1},
    "yogi": {"lr": 0.03},
    "lion": {"lr": 0.003},
    "adafactor": {"lr": 1},
    "group_adagrad": {"lr": 0.1},
    "muon": {"lr": 0.03},
}
# SGLD samples from the posterior: the gradient of all examples, and a prior, as weight_decay.
GRADIENT = {"sgld": {"rescale": EXAMPLES}}


def start():
    draw = numpy.random.default_rng(SEED)

    def layer(rows, columns):
        return (draw.normal(size=(rows, columns)) / numpy.sqrt(rows)).astype(numpy.float32)

    return {
        "hidden.weight": layer(64, HIDDEN),
        "hidden.bias": numpy.zeros(HIDDEN, numpy.float32),
        "out.weight": layer(HIDDEN, 10),
        "out.bias": numpy.zeros(10, numpy.float32),
    }


def forward(weights, images):
    hidden = numpy.tanh(images @ weights["hidden.weight"] + weights["hidden.bias"])
    scores = hidden @ weights["out.weight"] + weights["out.bias"]
    scores -= scores.max(axis=1, keepdims=True)
    return hidden, scores


def gradient(weights, images, labels):
    """(mean cross-entropy, its gradient)."""
    hidden, scores = forward(weights, images)
    odds = numpy.exp(scores)
    total = odds.sum(axis=1, keepdims=True)
    rows = numpy.arange(len(labels))
    loss = -float(numpy.mean(scores[rows, labels] - numpy.log(total[:, 0])))
    error = odds / total
    error[rows, labels] -= 1
    error /= numpy.float32(len(labels))
    below = (error @ weights["out.weight"].T) * (1 - hidden * hidden)
    return loss, {
        "hidden.weight": images.T @ below,
        "hidden.bias": below.sum(axis=0),
        "out.weight": hidden.T @ error,
        "out.bias": error.sum(axis=0),
    }


def accuracy(weights, images, labels):
    return float(numpy.mean(forward(weights, images)[1].argmax(axis=1) == labels))


def train(client, rule, settings, train_set, test_set):
    """(the losses of the batches, test accuracy at the end)."""
    images, labels = train_set
    draw = numpy.random.default_rng(SEED + 1)
    weights = start()
    options = {"gradient": GRADIENT[rule]} if rule in GRADIENT else {}
    # No layer-wise rate for biases: what LARS and LAMB are used with.
    groups = [{"tensors": ["*.bias"], "adapt": False}]
    optimizer = {"name": rule, **settings}
    session = client.create(weights, optimizer, groups=groups, seed=SEED, **options)
    losses = []
    try:
        for _ in range(STEPS):
            batch = draw.integers(len(labels), size=BATCH)
            loss, gradients = gradient(weights, images[batch], labels[batch])
            told = loss if numpy.isfinite(loss) else None
            weights = session.step(gradients, loss=told, return_parameters=True).parameters
            losses.append(loss)
    finally:
        session.delete()
    return losses, accuracy(weights, *test_set)


def last(losses):
    return float(numpy.mean(losses[-SPAN:]))


def tune(client, rule, *sets):
    best = None
    for lr in GRID:
        try:
            losses, right = train(client, rule, {**SETTINGS.get(rule, {}), "lr": lr}, *sets)
        except descent.Error as error:
            if error.code != "nonfinite_gradient":
                raise
            continue  # it ran away
        if numpy.isfinite(last(losses)) and (best is None or last(losses) < best[0]):
            best = (last(losses), lr, right)
    if best is None:
        print("  %-14s ran away at every rate of the grid" % rule)
    else:
        print("  %-14s lr %-8.3g loss %.4f  test accuracy %.1f %%" % (rule, best[1], best[0], 100 * best[2]))


def draw(path, curves):
    """A small plot a rule, its curve over all the others'."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ink, grey = "#22272e", "#d0d7de"
    columns = 7
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(14, 0.9 + 2 * rows), dpi=110, sharex=True, sharey=True, squeeze=False
    )
    smooth = {
        name: numpy.convolve(losses, numpy.ones(SPAN) / SPAN, mode="valid")
        for name, (losses, _, _) in curves.items()
    }
    steps = numpy.arange(SPAN // 2, STEPS - SPAN // 2)
    palette = pyplot.get_cmap("turbo")
    for place, axis in enumerate(axes.flat):
        if place >= len(curves):
            axis.set_visible(False)
            continue
        name = list(curves)[place]
        _, right, settings = curves[name]
        for other in smooth.values():
            axis.plot(steps, other, color=grey, linewidth=0.5)
        axis.plot(steps, smooth[name], color=palette(0.05 + 0.9 * place / len(curves)), linewidth=2.2)
        axis.set_yscale("log")
        axis.set_ylim(0.01, 4)
        axis.set_title(name, loc="left", fontsize=11, weight="bold", color=ink, pad=4)
        note = "lr %.3g   %.1f %%" % (settings["lr"], 100 * right)
        axis.text(0.97, 0.9, note, transform=axis.transAxes, ha="right", fontsize=8.5, color=ink)
        axis.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"], fontsize=8)
        axis.minorticks_off()
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if place // columns == rows - 1 or place + columns >= len(curves):
            axis.set_xlabel("step", fontsize=9, color=ink)
            axis.tick_params(labelbottom=True)
    title = "One network, %d rules: cross-entropy of the batches (log scale), test accuracy at the end"
    figure.suptitle(title % len(curves), x=0.012, ha="left", fontsize=14, weight="bold", color=ink)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default=os.environ.get("DESCENT_URL", "http://127.0.0.1:8080"))
    options.add_argument("--picture", type=pathlib.Path, default=pathlib.Path("build/gallery/gallery.png"))
    options.add_argument("--only", nargs="+", metavar="RULE", help="these rules")
    options.add_argument("--tune", action="store_true", help="try a grid of rates instead")
    options = options.parse_args()
    sets = digits.load()
    failed = []

    with descent.Client(options.url) as client:
        rules = {rule["name"]: rule for rule in client.optimizers()}
        unknown = set(options.only or ()) - set(rules)
        if unknown:
            print("there is no rule %s; there are: %s" % (", ".join(unknown), ", ".join(rules)))
            return 2
        names = [name for name in rules if not options.only or name in options.only]
        if options.tune:
            for name in names:
                tune(client, name, *sets)
            return 0
        curves = {}
        print("One hidden layer of %d, %d steps of %d digits, with %d rules:" % (HIDDEN, STEPS, BATCH, len(names)))
        for name in names:
            defaults = {h["name"]: h["default"] for h in rules[name]["hyperparameters"]}
            settings = {"lr": defaults["lr"], **SETTINGS.get(name, {})}
            began = time.monotonic()
            losses, right = train(client, name, settings, *sets)
            curves[name] = (losses, right, settings)
            good = right > 0.8 and last(losses) < losses[0] / 2
            failed += [] if good else [name]
            print(
                "  %-14s lr %-8.3g loss %6.3f -> %6.3f  test accuracy %5.1f %%  %4.0f steps/s%s"
                % (name, settings["lr"], losses[0], last(losses), 100 * right,
                   STEPS / (time.monotonic() - began), "" if good else "   did not learn")
            )
            sys.stdout.flush()
    draw(options.picture, curves)
    print("All the curves: %s" % options.picture)
    if failed:
        print("FAILED: these did not learn: %s" % ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
