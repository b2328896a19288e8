#!/usr/bin/env python3
"""Trains a softmax regression on handwritten digits through a descent server, and without it.

    digits.py [--url http://127.0.0.1:8080] [--picture build/demo/loss.png]

The program computes gradients; the server keeps the weights and applies Adam. Then Adam is run
here, in numpy and in the same float32 arithmetic, to see whether both arrive at the same weights,
bit for bit.

    p = softmax(x w + b)          loss = -mean(log p[label])
    dloss/dw = x' (p - onehot)/n  dloss/db = mean(p - onehot)
"""

import argparse
import math
import os
import pathlib
import sys
import time

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import descent  # noqa: E402

import curve  # noqa: E402

EPOCHS, BATCH, SEED = 30, 48, 0
ADAM = {"name": "adam", "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def load():
    """(images [n, 64] in 0..1, labels [n]) to train on, and to test on; float32, split by SEED."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = numpy.random.default_rng(SEED).permutation(len(digits.target))
    images, labels = (digits.data[order] / 16).astype(numpy.float32), digits.target[order]
    return (images[:-360], labels[:-360]), (images[-360:], labels[-360:])


def gradient(weights, images, labels):
    """(loss, {"w": [64, 10], "b": [10]}), all in float32."""
    scores = images @ weights["w"] + weights["b"]
    scores -= scores.max(axis=1, keepdims=True)
    odds = numpy.exp(scores)
    p = odds / odds.sum(axis=1, keepdims=True)
    rows = numpy.arange(len(labels))
    loss = -float(numpy.mean(scores[rows, labels] - numpy.log(odds.sum(axis=1))))
    p[rows, labels] -= 1
    p /= numpy.float32(len(labels))
    return loss, {"w": images.T @ p, "b": p.sum(axis=0)}


def accuracy(weights, images, labels):
    return float(numpy.mean((images @ weights["w"] + weights["b"]).argmax(axis=1) == labels))


def train(weights, step, train_set, test_set, watch):
    """EPOCHS over the training set: (the last weights, the loss of every batch).

    step(gradients, loss) gives the new weights; watch(n, steps, loss, accuracy) looks on.
    """
    images, labels = train_set
    draw = numpy.random.default_rng(SEED + 1)
    steps = EPOCHS * (len(labels) // BATCH)
    losses, right = [], accuracy(weights, *test_set)
    while len(losses) < steps:
        order = draw.permutation(len(labels))
        for start in range(0, len(labels) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            loss, gradients = gradient(weights, images[batch], labels[batch])
            weights = step(gradients, loss)
            losses.append(loss)
            if len(losses) % 10 == 0 or len(losses) == steps:
                right = accuracy(weights, *test_set)
                watch(len(losses), steps, loss, right)
    return weights, losses


def local_adam(weights):
    """descent's rule `adam` in numpy: float32, its scalars computed in double and rounded once."""
    f32, t = numpy.float32, 0
    m, v = ({name: numpy.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    beta1, beta2, lr, eps = (ADAM[name] for name in ("beta1", "beta2", "lr", "eps"))

    def step(gradients, _):
        nonlocal weights, t
        t += 1
        rate, root = f32(lr / (1 - beta1**t)), f32(1 / math.sqrt(1 - beta2**t))
        moved = {}
        for name, q in gradients.items():
            m[name] = f32(beta1) * m[name] + f32(1 - beta1) * q
            v[name] = f32(beta2) * v[name] + f32(1 - beta2) * (q * q)
            moved[name] = weights[name] - rate * m[name] / (numpy.sqrt(v[name]) * root + f32(eps))
        weights = moved
        return weights

    return step


class Progress:
    """One line: rewritten in place on a terminal, else written out every tenth of the way."""

    def __init__(self, stream=sys.stdout):
        self.stream, self.terminal = stream, stream.isatty()
        self.start, self.tenth = time.monotonic(), 0

    def __call__(self, done, steps, loss, right):
        rate = done / max(time.monotonic() - self.start, 1e-9)
        bar = ("█" * (24 * done // steps)).ljust(24, "·")
        line = "  step %4d/%d  %s  loss %.4f" % (done, steps, bar, loss)
        line += "  test accuracy %5.1f %%  %5.0f steps/s" % (100 * right, rate)
        if self.terminal:
            self.stream.write("\r" + line + ("\n" if done == steps else ""))
        elif 10 * done // steps > self.tenth or done == steps:
            self.tenth = 10 * done // steps
            self.stream.write(line + "\n")
        self.stream.flush()


def compare(ours, theirs):
    """A sentence on how far apart two sets of weights are, and whether that is no more than
    rounding."""
    if all(ours[name].tobytes() == theirs[name].tobytes() for name in ours):
        return "equal, bit for bit", True
    apart = max(float(numpy.abs(ours[name] - theirs[name]).max()) for name in ours)
    size = max(float(numpy.abs(theirs[name]).max()) for name in ours)
    return "at most %.2g apart (largest weight %.3g)" % (apart, size), apart <= 1e-4 * size


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default=os.environ.get("DESCENT_URL", "http://127.0.0.1:8080"))
    options.add_argument(
        "--picture", type=pathlib.Path, default=pathlib.Path("build/demo/loss.png")
    )
    options = options.parse_args()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the bar, where the locale has no such letters

    train_set, test_set = load()
    start = {"w": numpy.zeros((64, 10), numpy.float32), "b": numpy.zeros(10, numpy.float32)}
    print(
        "Handwritten digits: %d to learn from, %d to test on; softmax regression, %d weights, Adam"
        % (len(train_set[1]), len(test_set[1]), sum(value.size for value in start.values()))
    )

    with descent.Client(options.url) as client:
        session = client.create(start, ADAM, labels={"run": "digits"})
        try:
            print("\nThrough the server: %s/v1/sessions/%s" % (options.url.rstrip("/"), session.id))
            begin = time.monotonic()
            _, losses = train(
                start,
                lambda gradients, loss: session.step(
                    gradients, loss=loss, return_parameters=True
                ).parameters,
                train_set,
                test_set,
                Progress(),
            )
            seconds = time.monotonic() - begin
            fetched = session.parameters()
        finally:
            session.delete()

    begin = time.monotonic()
    local, local_losses = train(start, local_adam(start), train_set, test_set, lambda *_: None)
    local_seconds = time.monotonic() - begin

    print(
        "\nThe same in numpy, without a server, in float32:\n\n%-12s %12s %15s %10s"
        % ("", "loss", "test accuracy", "steps/s")
    )
    for name, weights, count, took in (
        ("descent", fetched, len(losses), seconds),
        ("numpy", local, len(local_losses), local_seconds),
    ):
        print(
            "%-12s %12.6f %13.2f %% %10.0f"
            % (
                name,
                gradient(weights, *train_set)[0],
                100 * accuracy(weights, *test_set),
                count / took,
            )
        )
    sentence, good = compare(fetched, local)
    print("\nAfter %d steps the weights of both are %s." % (len(losses), sentence))
    drawn = curve.draw(options.picture, losses, local_losses, fetched["w"])
    print("Loss curve: %s" % drawn)

    learned = accuracy(fetched, *test_set) >= 0.9 and losses[-1] < losses[0] / 2
    if not good or not learned:
        print(
            "FAILED: "
            + ("the model did not learn" if good else "the server computes something else"),
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
