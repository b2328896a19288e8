#!/usr/bin/env python3
"""Federated learning: ten clients keep their data, train by themselves, and send what changed.

    federated.py [--url http://127.0.0.1:8080] [--picture build/federated/federated.png] [--quick]

The handwritten digits of scikit-learn are dealt to ten clients unevenly, as in life: of each digit
every client gets a share drawn from a Dirichlet distribution (0.3), so that one has hundreds of
some digits and none of others. In a round five of them, drawn anew, fetch the weights, train on
their own for an epoch, and send the difference (`kind: delta`) with the number of their examples.
The server takes the mean of a round (aggregation `sync`), weighted by examples, as if it were a
gradient times -1. So any rule is an optimizer for the server: `sgd` with lr 1 is FedAvg (McMahan et
al. 2017), `adam` is FedAdam, `yogi` is FedYogi (Reddi et al. 2021).

The network and its gradient are those of gallery.py. The same split, the same draws and the same
first weights for all three.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import numpy  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import descent  # noqa: E402

import digits  # noqa: E402
import gallery  # noqa: E402
import picture  # noqa: E402

CLIENTS, SAMPLE, ROUNDS, CONCENTRATION, SEED = 10, 5, 40, 0.3, 4
EPOCHS, BATCH, RATE = 1, 16, 0.1  # of a client's own training
SERVERS = {
    "FedAvg": {"name": "sgd", "lr": 1},
    "FedAdam": {"name": "adam", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 0.01},
    "FedYogi": {"name": "yogi", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 0.01},
}


def deal(labels):
    """Which examples each client has: a list of index arrays, none of them empty."""
    draw = numpy.random.default_rng(SEED)
    shares = [[] for _ in range(CLIENTS)]
    for digit in range(10):
        having = draw.permutation(numpy.flatnonzero(labels == digit))
        cuts = numpy.cumsum(draw.dirichlet([CONCENTRATION] * CLIENTS))[:-1]
        for share, part in zip(shares, numpy.split(having, (cuts * len(having)).astype(int))):
            share.extend(part)
    return [numpy.array(share) for share in shares]


def train(weights, images, labels, draw, epochs):
    """A client's own training: plain SGD; the weights it comes to."""
    weights = {name: value.copy() for name, value in weights.items()}
    for _ in range(epochs):
        order = draw.permutation(len(labels))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            _, slopes = gallery.gradient(weights, images[batch], labels[batch])
            for name, slope in slopes.items():
                weights[name] -= numpy.float32(RATE) * slope
    return weights


def federate(client, optimizer, shares, train_set, test_set, rounds):
    """The test accuracy after each round."""
    images, labels = train_set
    session = client.create(
        gallery.start(),
        optimizer,
        aggregation={"mode": "sync", "workers": SAMPLE},
        labels={"run": "federated"},
    )
    reached = []
    try:
        for number in range(rounds):
            chosen = numpy.random.default_rng([SEED, number]).permutation(CLIENTS)[:SAMPLE]
            for k in chosen:
                one = client.session(session.id, worker="client-%d" % k)
                fetched = one.parameters()
                draw = numpy.random.default_rng([SEED, number, k])
                mine = images[shares[k]], labels[shares[k]]
                trained = train(fetched, *mine, draw, EPOCHS)
                delta = {name: trained[name] - fetched[name] for name in fetched}
                receipt = one.step(
                    delta, kind="delta", examples=len(shares[k]), base_step=fetched.step
                )
            if receipt.step != number + 1:  # the last one closes the round
                raise RuntimeError("round %d did not close: %s" % (number + 1, receipt))
            reached.append(gallery.accuracy(session.parameters(), *test_set))
    finally:
        session.delete()
    return reached


def alone(shares, train_set, test_set, epochs):
    """The test accuracy of each client that trains on what it has and asks nobody."""
    images, labels = train_set
    reached = []
    for k, share in enumerate(shares):
        draw = numpy.random.default_rng([SEED, k])
        trained = train(gallery.start(), images[share], labels[share], draw, epochs)
        reached.append(gallery.accuracy(trained, *test_set))
    return reached


def show_deal(shares, labels, by_themselves):
    """A line a client: how many examples it has of each digit."""
    print("\n  client   examples   of 0    1    2    3    4    5    6    7    8    9    alone")
    for k, (share, right) in enumerate(zip(shares, by_themselves)):
        counts = "".join("%5d" % n for n in numpy.bincount(labels[share], minlength=10))
        print("  %6d %10d %s   %4.0f %%" % (k, len(share), "  " + counts, 100 * right))


def draw(path, shares, labels, by_themselves, reached):
    """Who has what, and the accuracy of the model they train together."""
    colours = {"FedAvg": picture.ORANGE, "FedAdam": picture.BLUE, "FedYogi": picture.GREEN}
    figure, (left, right) = picture.pyplot().subplots(
        1, 2, figsize=(10, 4.6), dpi=110, gridspec_kw={"width_ratios": [1, 1.6], "wspace": 0.22}
    )
    figure.subplots_adjust(left=0.06, right=0.9, top=0.8, bottom=0.12)
    counts = numpy.array([numpy.bincount(labels[share], minlength=10) for share in shares])
    left.imshow(counts, cmap="Blues", vmin=0, vmax=counts.max())
    for (k, digit), count in numpy.ndenumerate(counts):
        if count:
            shade = "white" if count > counts.max() / 2 else picture.INK
            left.text(digit, k, count, ha="center", va="center", fontsize=7, color=shade)
    left.set_xticks(range(10))
    left.set_yticks(range(len(shares)))
    left.set_xlabel("digit", color=picture.INK)
    left.set_ylabel("client", color=picture.INK)
    left.tick_params(length=0, colors=picture.INK)
    left.spines[:].set_visible(False)
    left.set_title("what each has", loc="left", fontsize=10, color=picture.GREY)

    ends = []
    for name, values in reached.items():
        rounds = numpy.arange(1, len(values) + 1)
        dashes = (0, (3, 3)) if name == "FedYogi" else "solid"  # it lies upon FedAdam
        right.plot(
            rounds, 100 * numpy.array(values), color=colours[name], linewidth=2, linestyle=dashes
        )
        ends.append([values[-1], name])
    low, high = 100 * min(by_themselves), 100 * max(by_themselves)
    right.axhspan(low, high, color=picture.GRID, alpha=0.5, linewidth=0)
    right.text(
        len(values),
        low + 1,
        "clients that train alone",
        ha="right",
        va="bottom",
        fontsize=9,
        color=picture.GREY,
    )
    place = None
    for value, name in sorted(ends, reverse=True):  # labels that do not overlap
        place = 100 * value if place is None else min(100 * value, place - 5)
        right.text(len(values) + 0.6, place, name, color=colours[name], va="center", fontsize=10)
    right.set_xlim(1, len(values))
    right.set_ylim(0, 100)
    right.set_xlabel("round", color=picture.INK)
    right.set_title(
        "test accuracy of the common model, %", loc="left", fontsize=10, color=picture.GREY
    )
    picture.plain(right)
    title = "Ten clients that keep their digits train one model"
    figure.text(0.06, 0.91, title, fontsize=15, weight="bold", color=picture.INK)
    picture.save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default=os.environ.get("DESCENT_URL", "http://127.0.0.1:8080"))
    options.add_argument(
        "--picture", type=pathlib.Path, default=pathlib.Path("build/federated/federated.png")
    )
    options.add_argument("--quick", action="store_true", help="a third of the rounds: a smoke test")
    options = options.parse_args()
    rounds = ROUNDS // 3 if options.quick else ROUNDS

    train_set, test_set = digits.load()
    shares = deal(train_set[1])
    by_themselves = alone(shares, train_set, test_set, rounds)
    print(
        "%d handwritten digits, dealt unevenly to %d clients; %d to test on; a network of 64-%d-10"
        % (len(train_set[1]), CLIENTS, len(test_set[1]), gallery.HIDDEN)
    )
    show_deal(shares, train_set[1], by_themselves)
    print("\nA round: %d clients, an epoch each. Test accuracy:" % SAMPLE)

    reached = {}
    with descent.Client(options.url) as client:
        for name, optimizer in SERVERS.items():
            began = time.monotonic()
            reached[name] = federate(client, optimizer, shares, train_set, test_set, rounds)
            shown = range(4, rounds, 5)
            print(
                "  %-8s %s   %.1f s"
                % (
                    name,
                    "  ".join("%d: %.1f %%" % (n + 1, 100 * reached[name][n]) for n in shown),
                    time.monotonic() - began,
                )
            )
            sys.stdout.flush()
    print("\n  %-8s %12s %16s" % ("", "at the end", "over all rounds"))
    for name, values in reached.items():
        print("  %-8s %10.1f %% %14.1f %%" % (name, 100 * values[-1], 100 * numpy.mean(values)))
    draw(options.picture, shares, train_set[1], by_themselves, reached)
    print("\nA picture: %s" % options.picture)

    goal = max(by_themselves) + 0.05 if options.quick else 0.9
    failed = [name for name, values in reached.items() if values[-1] < goal]
    if failed:
        print("FAILED: less than %.0f %%: %s" % (100 * goal, ", ".join(failed)), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
