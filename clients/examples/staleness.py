#!/usr/bin/env python3
"""What late gradients do, and what helps: eight workers, one of them slow, on one descent server.

    staleness.py [--url http://127.0.0.1:8080] [--picture build/staleness/staleness.png] [--quick]

The problem: is a handwritten digit even or odd? Logistic regression on the 1,797 digits of
scikit-learn. A worker fetches the weights, computes the gradient of 32 digits, is busy for a while
(it sleeps: 50 ms, one of them 250 ms, 10 % more or less, drawn from a seed), and sends it with the
step that its weights were of (`base_step`). Meanwhile the others have moved the weights: the
gradient is late by about as many steps as there are other workers. All ways have the same rate,
which is fine for gradients in time and too large for late ones:

    one worker       that takes as many steps as the eight together, not bound by the clock: nothing
                     is late. For comparison, left only
    async            each gradient is applied as it comes
    async, scaled    its rate is divided by 1 + the steps it is late
    async, rejected  those over 10 steps late are refused: the slow worker's
    DCASGD           each is corrected for what has happened since, by lambda g^2 (w - w_base)
    sync             a step takes the mean of all eight, and waits for the slow one
    sync, 7 of 8     the first seven are enough; who comes late begins anew
    SSP              nobody gets over 3 rounds ahead of the slowest

DCASGD estimates the Hessian by the squares of the gradient, so by a diagonal matrix. The pixels are
therefore turned onto their principal axes, where it nearly is one. It also wants bounded gradients,
or its correction runs away: all ways clip them to +-0.3 (`gradient.clip_value`).

The program fails unless plain async ends worse than one worker would, and the ways that promise to
help do; and unless the server's ledger has gradients as late as there are workers.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse  # noqa: E402
import collections  # noqa: E402
import math  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import numpy  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import descent  # noqa: E402

import picture  # noqa: E402

WORKERS, BATCH, SEED = 8, 32, 1
FAST_S, SLOW_S, SPAN = 0.05, 0.25, 100  # how long a gradient takes; a run lasts SPAN fast ones
LR, CLIP, LAMBDA = 1.0, 0.3, 8.0
STEPS_SHOWN = 100  # in the picture, on the left

ASYNC, SGD = {"mode": "async"}, {"name": "sgd", "lr": LR}
WAYS = {
    "one worker": (SGD, ASYNC),
    "async": (SGD, ASYNC),
    "async, scaled": (SGD, {"mode": "async", "stale": "scale"}),
    "async, rejected": (SGD, {"mode": "async", "stale": "reject", "max_staleness": 10}),
    "DCASGD": ({"name": "dcasgd", "lr": LR, "lambda": LAMBDA, "revisions": 64}, ASYNC),
    "sync": (SGD, {"mode": "sync", "workers": WORKERS}),
    "sync, 7 of 8": (
        SGD,
        {"mode": "sync", "workers": WORKERS, "quorum": WORKERS - 1, "timeout_s": 0},
    ),
    "SSP": (SGD, {"mode": "ssp", "staleness": 3}),
}


# --- the problem ---


def load():
    """Rows [n, 64] of label * pixels, the pixels turned onto their principal axes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    left, sizes, _ = numpy.linalg.svd(digits.data / 16, full_matrices=False)
    labels = numpy.where(digits.target % 2 == 0, 1.0, -1.0)
    return left * sizes * labels[:, None]


def gradient(w, rows):
    return -(rows.T @ (1 / (1 + numpy.exp(numpy.clip(rows @ w, -500, 500))))) / len(rows)


def loss(w, rows):
    return float(numpy.mean(numpy.logaddexp(0, -(rows @ w))))


# --- a run ---


class Run:
    """One way: what became of it.

    path      (seconds, step, loss), by step
    late      {(steps late, whether of the slow worker): gradients}, of those the server took
    refused   gradients that it did not take
    """

    def __init__(self, session, rows, delays, seconds, steps):
        """For so many seconds, or as many steps as that."""
        self.session, self.rows, self.seconds, self.steps = session, rows, seconds, steps
        self.seen, self.late, self.refused, self.errors = {}, collections.Counter(), 0, []
        threads = [
            threading.Thread(target=self.work, args=(number, delay), daemon=True)
            for number, delay in enumerate(delays)
        ]
        self.start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        self.read_ledger()
        seen = sorted(self.seen.items())
        # Answers to two threads may cross: no step was there later than the one after it.
        times = numpy.minimum.accumulate([second for _, (second, _) in seen][::-1])[::-1]
        self.path = [
            (float(second), step, loss(w, rows)) for second, (step, (_, w)) in zip(times, seen)
        ]

    def left(self):
        return self.start + self.seconds - time.monotonic()

    def patience(self):
        return min(max(self.left(), 0), 60)

    def work(self, number, delay):
        try:
            session = self.session.client.session(self.session.id, worker="worker-%d" % number)
            draw = numpy.random.default_rng([SEED, number])
            weights = session.parameters()
            while weights is not None:
                rows = self.rows[draw.integers(len(self.rows), size=BATCH)]
                slope = gradient(weights["w"], rows)
                time.sleep(delay * draw.uniform(0.9, 1.1))
                if self.left() <= 0:
                    return
                weights = self.step(session, slope, weights.step)
        except Exception as error:
            self.errors.append(error)

    def step(self, session, slope, base_step):
        """Sends a gradient; the weights to go on from, or None when the time is over."""
        try:
            receipt = session.step(
                {"w": slope}, base_step=base_step, wait=self.patience(), return_parameters=True
            )
        except descent.Error as error:
            if error.code == "too_far_ahead":
                return None
            if error.code != "stale_gradient":
                raise
            self.refused += 1
            return session.parameters()
        if receipt.waiting:
            return None
        self.seen[receipt.step] = (time.monotonic() - self.start, receipt.parameters["w"])
        receipt.parameters.step = receipt.step
        return receipt.parameters if receipt.step < self.steps else None

    def read_ledger(self):
        """How late the gradients were that the server took, as its ledger of steps tells."""
        for line in self.session.steps(tensors=False):
            for entry in line.get("members") or [line]:
                self.late[(entry["staleness"], entry["worker"] == "worker-0")] += 1

    def mean_loss(self, begin, end):
        """Over a part of the time: the loss of the weights that were current, a mean."""
        whole = min(self.seconds, self.path[-1][0])
        points = [value for second, _, value in self.path if begin <= second / whole <= end]
        return float(numpy.mean(points))

    def mean_loss_of_steps(self, first, last):
        return float(numpy.mean([value for _, step, value in self.path if first <= step <= last]))

    @property
    def gradients(self):
        return sum(self.late.values())

    @property
    def highest(self):
        return max(value for _, _, value in self.path)

    @property
    def mean_late(self):
        return sum(late * count for (late, _), count in self.late.items()) / self.gradients

    @property
    def most_late(self):
        return max(late for late, _ in self.late)


def train(client, name, rows, seconds):
    optimizer, aggregation = WAYS[name]
    delays = [SLOW_S] + [FAST_S] * (WORKERS - 1)
    steps = math.inf
    if name == "one worker":
        steps = round(seconds * sum(1 / delay for delay in delays))
        delays, seconds = [0], math.inf
    session = client.create(
        {"w": numpy.zeros(rows.shape[1])},
        optimizer,
        dtype="f64",
        aggregation=aggregation,
        gradient={"clip_value": CLIP},
        durability={"mode": "interval", "seconds": 5},
        history={"keep_steps": 10000},
        labels={"run": "staleness"},
    )
    try:
        return Run(session, rows, delays, seconds, steps)
    finally:
        session.delete()


# --- what came out ---


def table(runs):
    print(
        "\n  %-16s %6s %10s %8s %18s %26s"
        % ("", "steps", "gradients", "refused", "late: mean, most", "loss: highest, mean, last")
    )
    for name, run in runs.items():
        print(
            "  %-16s %6d %10d %8d %12.1f %5d %12.2f %6.3f %6.3f"
            % (
                name,
                run.path[-1][1],
                run.gradients,
                run.refused,
                run.mean_late,
                run.most_late,
                run.highest,
                run.mean_loss(0.2, 1),
                run.mean_loss(0.8, 1),
            )
        )
    print("  (mean: of the last four fifths of the time, last: of the last fifth)")


def verdict(runs):
    """What is not as it should be: a list of sentences."""
    compared = ("one worker", "async", "async, scaled", "DCASGD")
    last = min(runs[name].path[-1][1] for name in compared)
    mean = {name: runs[name].mean_loss_of_steps(10, last) for name in compared}
    suffers = mean["async"] / mean["one worker"]
    cured = (mean["async"] - mean["DCASGD"]) / (mean["async"] - mean["one worker"])
    print(
        "\nStep by step, lateness raises the loss of plain async to %.2f times that of one worker;"
        " DCASGD undoes %.0f %% of it." % (suffers, 100 * cured)
    )
    wrong = []
    if suffers < 1.2:
        wrong.append("plain async does not suffer")
    if not cured > 0.5:
        wrong.append("DCASGD undoes only %.0f %% of the damage" % (100 * cured))
    if not mean["async, scaled"] < mean["async"]:
        wrong.append("scaling the rate does not help")
    for name in ("DCASGD", "async, scaled", "sync"):
        if runs[name].highest > 0.9 * runs["async"].highest:
            wrong.append("%s climbs as high as plain async" % name)
    late = runs["async"]
    if not WORKERS / 2 < late.mean_late < 2 * WORKERS or late.most_late <= WORKERS:
        wrong.append("gradients of async are not as late as there are workers")
    if runs["sync"].most_late or runs["sync, 7 of 8"].most_late:
        wrong.append("a round took a late gradient")
    if runs["async, rejected"].most_late > WAYS["async, rejected"][1]["max_staleness"]:
        wrong.append("max_staleness was not kept to")
    if runs["sync, 7 of 8"].path[-1][1] <= runs["sync"].path[-1][1]:
        wrong.append("seven of eight are no faster than all")
    return wrong


def draw(path, runs):
    colours = {
        "one worker": picture.GREY,
        "async": "#cf222e",
        "async, scaled": "#8250df",
        "DCASGD": picture.BLUE,
        "sync": "#bf8700",
        "sync, 7 of 8": picture.GREEN,
    }
    figure = picture.pyplot().figure(figsize=(11, 7), dpi=100)
    grid = figure.add_gridspec(
        2,
        2,
        left=0.05,
        right=0.89,
        top=0.845,
        bottom=0.075,
        hspace=0.42,
        wspace=0.07,
        height_ratios=[3, 1],
        width_ratios=[1, 1.5],
    )
    by_step = figure.add_subplot(grid[0, 0])
    by_time = figure.add_subplot(grid[0, 1], sharey=by_step)
    ends = []
    for name, colour in colours.items():
        seconds, steps, losses = (numpy.array(column) for column in zip(*runs[name].path))
        style = {"color": colour, "linewidth": 1.8, "solid_joinstyle": "round"}
        if name == "one worker":
            style.update(linestyle=(0, (1.2, 1)), zorder=5)
        early = steps <= STEPS_SHOWN
        by_step.plot(steps[early], losses[early], **style)
        if name != "one worker":
            style["linewidth"] = {"async": 0.8, "DCASGD": 1.1}.get(name, 1.8)
            by_time.plot(seconds, losses, zorder=1 if name == "async" else 3, **style)
            ends.append((runs[name].mean_loss(0.8, 1), name))
    by_step.set_yscale("log")
    by_step.set_xlim(0, STEPS_SHOWN)
    by_time.set_xlim(0, max(run.path[-1][0] for run in runs.values()))
    by_step.set_ylim(0.17, 1.1 * max(runs[name].highest for name in colours))
    by_step.set_yticks([0.2, 0.3, 0.5, 1, 2], ["0.2", "0.3", "0.5", "1", "2"])
    place = None
    for value, name in sorted(ends):  # labels that do not overlap
        place = value if place is None else max(value, place * 1.12)
        by_time.text(
            by_time.get_xlim()[1] * 1.015,
            place,
            name,
            color=colours[name],
            fontsize=10,
            va="center",
        )
    by_step.text(3, 0.182, "one worker: nothing is late", color=picture.GREY, fontsize=10)
    by_step.set_xlabel("step of the server", color=picture.INK)
    by_time.set_xlabel("seconds", color=picture.INK)
    by_step.set_title(
        "loss (log scale), the first steps", loc="left", fontsize=10, color=picture.GREY
    )
    by_time.set_title("by the clock", loc="left", fontsize=10, color=picture.GREY)
    by_time.tick_params(labelleft=False)

    late = figure.add_subplot(grid[1, :])
    most = max(runs["async"].most_late, 2 * WORKERS)
    for slow, colour in ((False, colours["async"]), (True, "#82071e")):
        counts = {k: n for (k, is_slow), n in runs["async"].late.items() if is_slow == slow}
        late.bar(counts.keys(), counts.values(), width=0.8, color=colour)
        if counts:
            middle = numpy.average(list(counts.keys()), weights=list(counts.values()))
            late.annotate(
                "the slow worker" if slow else "seven workers",
                (middle, max(counts.values())),
                (0 if slow else 60, 8 if slow else -12),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontsize=10,
            )
    late.set_yscale("symlog", linthresh=10)
    late.set_yticks([0, 5, 10, 100], ["0", "5", "10", "100"])
    late.set_xlim(-1, most + 1)
    late.set_xlabel("steps that it was late", color=picture.INK)
    title = "gradients of plain async, from the server's ledger"
    late.set_title(title, loc="left", fontsize=10, color=picture.GREY)
    picture.plain(by_step, by_time, late)
    title = "Late gradients, and what helps"
    about = "Eight workers, one of them five times as slow; logistic regression; one rate for all"
    figure.text(0.05, 0.945, title, fontsize=15, weight="bold", color=picture.INK)
    figure.text(0.05, 0.905, about, fontsize=10, color=picture.GREY)
    picture.save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default=os.environ.get("DESCENT_URL", "http://127.0.0.1:8080"))
    options.add_argument(
        "--picture", type=pathlib.Path, default=pathlib.Path("build/staleness/staleness.png")
    )
    options.add_argument("--quick", action="store_true", help="a sixth of the time: a smoke test")
    options = options.parse_args()

    rows = load()
    seconds = SPAN * FAST_S * (0.16 if options.quick else 1)
    print(
        "Eight workers, busy for %d ms a gradient, one of them %d ms; %g s each way:"
        % (1000 * FAST_S, 1000 * SLOW_S, seconds)
    )
    runs = {}
    with descent.Client(options.url) as client:
        for name in WAYS:
            runs[name] = train(client, name, rows, seconds)
            print("  %-16s %4d steps" % (name, runs[name].path[-1][1]))
            sys.stdout.flush()
    table(runs)
    wrong = verdict(runs)
    draw(options.picture, runs)
    print("The curves: %s" % options.picture)
    for sentence in wrong:
        print("FAILED: " + sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
