#!/usr/bin/env python3
"""SVRG against SGD: four worker processes train one logistic regression through a descent server.

    svrg.py [--url http://127.0.0.1:8080] [--picture build/svrg/svrg.png] [--quick]

The problem (logistic.py): is a handwritten digit even or odd? A quarter of 1,796 digits of
scikit-learn is with each worker. Every step is a round of one mini-batch of each worker
(aggregation `sync`); the workers know the server and nothing of each other. SGD runs with a grid of
constant rates and of schedules, SVRG with one constant rate. What is drawn is F(w) - F*, the
distance to the optimum, against the number of gradients of single examples that the workers
computed. A step of SVRG counts twice (its batch at the weights and at the snapshot's), and a
snapshot counts all examples.

The program fails unless SVRG's distance falls below 1e-10 along a straight line (in log scale)
while every SGD, however tuned, stays orders of magnitude above, judged by its best moment.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the workers share the processors already

import argparse  # noqa: E402
import math  # noqa: E402
import multiprocessing  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import numpy  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import descent  # noqa: E402

import picture  # noqa: E402
from logistic import SEED, gradient, problem  # noqa: E402

WORKERS, BATCH = 4, 8
PASSES = 41  # gradients that a run may compute, over the number of examples
SVRG_RATE, FREQ = 8, 112  # FREQ: steps from one snapshot to the next
EVERY = 14  # steps from one point of a curve to the next


# --- a worker: a process that knows its examples, the server, and nothing of the others ---


class Batches:
    """Mini-batches of a shard: all of it, but a rest, in a new order every pass; the same ones for
    each run."""

    def __init__(self, shard, worker):
        self.shard, self.draw = shard, numpy.random.default_rng([SEED, worker])
        self.order = numpy.empty(0, int)

    def next(self):
        if len(self.order) < BATCH:
            self.order = self.draw.permutation(len(self.shard))
        batch, self.order = self.shard[self.order[:BATCH]], self.order[BATCH:]
        return batch


def snapshot_here(session, step, shard, w, number):
    """The snapshot of this step, to which the shard's full gradient has been added. One of the
    workers has it taken, the others see it come."""
    if number == 0:
        snapshot = session.take_snapshot(workers=WORKERS)
    else:
        while (snapshot := session.snapshot()) is None or snapshot.step != step:
            time.sleep(0.002)
    return snapshot.add({"w": gradient(w, shard)}, examples=len(shard))


def run(session, number, shard, steps, with_snapshots):
    """Takes part in so many rounds; yields (gradients that all workers computed, w) after each."""
    batches, evaluations, due = Batches(shard, number), 0, with_snapshots
    w, anchor, snapshot = session.parameters()["w"], None, None
    for step in range(steps):
        if due:
            anchor = w
            snapshot = snapshot_here(session, step, shard, w, number)
            evaluations += WORKERS * len(shard)
        rows = batches.next()
        pair = {}
        if snapshot is not None:
            pair = {"snapshot": snapshot, "snapshot_gradients": {"w": gradient(anchor, rows)}}
        receipt = session.step(
            {"w": gradient(w, rows)}, examples=BATCH, wait=60, return_parameters=True, **pair
        )
        evaluations += WORKERS * BATCH * (1 if snapshot is None else 2)
        w, due = receipt.parameters["w"], with_snapshots and receipt.snapshot_due
        yield evaluations, w


def work(number, url, shard, pipe):
    """The main function of a worker's process: runs what the pipe names, until it names nothing."""
    with descent.Client(url) as client:
        while True:
            job = pipe.recv()
            if job is None:
                return
            name, steps, with_snapshots, every = job
            try:
                session = client.session(name, worker="worker-%d" % number)
                path = []
                for step, point in enumerate(run(session, number, shard, steps, with_snapshots), 1):
                    if number == 0 and step % every == 0:
                        path.append(point)
                pipe.send(path)
            except Exception as error:
                pipe.send("worker %d: %s: %s" % (number, type(error).__name__, error))


class Workers:
    """WORKERS processes, each with its share of the rows."""

    def __init__(self, url, rows):
        self.pipes, self.processes = [], []
        for number in range(WORKERS):
            here, there = multiprocessing.Pipe()
            process = multiprocessing.Process(
                target=work, args=(number, url, rows[number::WORKERS], there), daemon=True
            )
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, name, steps, with_snapshots, every):
        """Has them train that session together: the path of (gradients computed, w)."""
        for pipe in self.pipes:
            pipe.send((name, steps, with_snapshots, every))
        path = None
        for pipe in self.pipes:
            while not pipe.poll(1):
                if not all(process.is_alive() for process in self.processes):
                    raise RuntimeError("a worker has died")
            answer = pipe.recv()
            if isinstance(answer, str):
                raise RuntimeError(answer)
            path = path or answer
        return path

    def stop(self):
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(5)
            process.terminate()  # one that waits for others that have failed


# --- the runs ---


class Run:
    """One training: how it is done, and where it went."""

    def __init__(self, family, rate, steps, schedule=None, svrg=None):
        self.family, self.rate, self.steps = family, rate, steps
        self.schedule, self.svrg = schedule, svrg
        self.passes, self.distances = [], []

    def go(self, client, workers, optimum):
        count = optimum.rows.shape[1]
        options = {"svrg": self.svrg} if self.svrg else {}
        if self.schedule:
            options["schedule"] = self.schedule
        session = client.create(
            {"w": numpy.zeros(count)},
            {"name": "sgd", "lr": self.rate},
            dtype="f64",
            aggregation={"mode": "sync", "workers": WORKERS},
            durability={"mode": "interval", "seconds": 5},
            labels={"run": "svrg"},
            **options,
        )
        try:
            path = workers.run(session.id, self.steps, bool(self.svrg), EVERY)
        finally:
            session.delete()
        rows = len(optimum.rows)
        self.passes = [0.0] + [evaluations / rows for evaluations, _ in path]
        self.distances = [optimum.distance(w) for w in [numpy.zeros(count)] + [w for _, w in path]]

    @property
    def last(self):
        return self.distances[-1]

    @property
    def lowest(self):
        return min(self.distances)


def planned(rows, quick):
    """The runs: SVRG, then SGD with every rate of its grids, of about equally many gradients."""
    passes, round_size = (20 if quick else PASSES), WORKERS * BATCH
    steps = passes * rows // round_size
    doubling = [steps >> k for k in range(6, 0, -1)]
    families = [
        ("constant", (0.25, 0.5, 1, 2, 4), None),
        ("poly, power 1", (1, 2, 4), {"name": "poly", "power": 1, "max_steps": steps}),
        ("poly, power 2", (2, 4, 8), {"name": "poly", "power": 2, "max_steps": steps}),
        ("halved 9 times", (4, 8, 16), {"name": "factor", "factor": 0.5, "step": -(-steps // 10)}),
        ("as 1/step", (8, 16, 32), {"name": "multi_factor", "factor": 0.5, "steps": doubling}),
    ]
    if quick:
        families = [(name, rates[-2:-1], schedule) for name, rates, schedule in families[:2]]
    svrg_steps = passes * rows // (rows + FREQ * 2 * round_size) * FREQ
    runs = [Run("SVRG", SVRG_RATE, svrg_steps, svrg={"update_freq": FREQ})]
    for family, rates, schedule in families:
        runs += [Run(family, rate, steps, schedule) for rate in rates]
    return runs


# --- what came out ---


def straight(run):
    """(factor by which the distance falls in a pass, R^2 of the line) after the first snapshot."""
    begin = next(k for k, passes in enumerate(run.passes) if passes >= run.passes[-1] / 8)
    x, y = numpy.array(run.passes[begin:]), numpy.log10(run.distances[begin:])
    slope, level = numpy.polyfit(x, y, 1)
    rest = y - (slope * x + level)
    return 10**-slope, 1 - float(rest @ rest) / float(numpy.sum((y - y.mean()) ** 2))


def best_of(runs):
    """Of each family the run that came closest, at whatever moment."""
    best = {}
    for run in runs:
        if run.family not in best or run.lowest < best[run.family].lowest:
            best[run.family] = run
    return best


def verdict(svrg, rivals, goal, goal_fit):
    """What is not as it should be: a list of sentences."""
    factor, fit = straight(svrg)
    best = min(rivals, key=lambda run: run.lowest)
    print("\nSVRG: %.3g times closer every pass, on a straight line: R^2 = %.4f." % (factor, fit))
    print(
        "The best SGD (%s, rate %g) came to %.1e: SVRG ends %.0e times closer."
        % (best.family, best.rate, best.lowest, best.lowest / svrg.last)
    )
    wrong = []
    if not svrg.last < goal:
        wrong.append("SVRG ends at %.1e, not below %.0e" % (svrg.last, goal))
    if not fit > goal_fit:
        wrong.append("SVRG's curve is no straight line: R^2 = %.3f" % fit)
    if not best.lowest > 100 * svrg.last:
        wrong.append("an SGD came to %.1e, not orders of magnitude above SVRG" % best.lowest)
    for run in rivals:
        half = numpy.array(run.distances[len(run.distances) // 2 :])
        early, late = (float(numpy.median(part)) for part in numpy.array_split(half, 2))
        if run.family == "constant" and run.rate >= 2 and late < early / 3:
            wrong.append("SGD at the constant rate %g does not stall" % run.rate)
    return wrong


def draw(path, runs, best):
    blue, orange, green = picture.BLUE, picture.ORANGE, picture.GREEN
    figure, axes = picture.pyplot().subplots(figsize=(9, 5.4), dpi=100)
    figure.subplots_adjust(left=0.075, right=0.78, top=0.85, bottom=0.1)
    svrg, constant = runs[0], best["constant"]
    scheduled = min((run for run in best.values() if run.schedule), key=lambda run: run.lowest)
    for run in runs:
        colour = blue if run is svrg else green if run.schedule else orange
        width = 2.8 if run is svrg else 2 if run in (constant, scheduled) else 0.5
        alpha = 0.4 if width < 1 else 1
        axes.plot(
            run.passes, run.distances, color=colour, linewidth=width, alpha=alpha, zorder=width
        )
    bottom = math.floor(math.log10(svrg.last))
    axes.set_yscale("log")
    axes.set_xlim(0, max(run.passes[-1] for run in runs))
    axes.set_ylim(10.0**bottom, 1)
    axes.set_yticks([10.0**k for k in range(0, bottom - 1, -2)])
    axes.set_xlabel("gradients of single examples, over the number of examples", color=picture.INK)
    picture.plain(axes)

    def label(run, text, colour, up):
        end = (runs[-1].passes[-1], run.last)
        axes.annotate(
            text, end, (8, up), textcoords="offset points", color=colour, va="center", fontsize=10
        )

    rates = sum(run.family == "constant" for run in runs)
    plans = sum(bool(run.schedule) for run in runs)
    label(svrg, "SVRG,\nconstant rate %g" % svrg.rate, blue, 8)
    label(constant, "SGD, best of %d\nconstant rates: %g" % (rates, constant.rate), orange, 8)
    label(scheduled, "SGD, best of %d\nschedules:\n%s" % (plans, scheduled.family), green, -14)
    title = "SVRG goes to the optimum, SGD stays in its noise"
    about = "F(w) - F* of logistic regression on 1,796 digits: four workers, one server of descent"
    figure.text(0.075, 0.94, title, fontsize=15, weight="bold", color=picture.INK)
    figure.text(0.075, 0.89, about, fontsize=10, color=picture.GREY)
    picture.save(figure, path)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default=os.environ.get("DESCENT_URL", "http://127.0.0.1:8080"))
    options.add_argument(
        "--picture", type=pathlib.Path, default=pathlib.Path("build/svrg/svrg.png")
    )
    options.add_argument("--quick", action="store_true", help="three short runs: a smoke test")
    options = options.parse_args()

    rows, optimum = problem(WORKERS)
    runs = planned(len(rows), options.quick)
    print(
        "\n%d workers of %d digits each, %d of each a step; %d trainings through the server:"
        % (WORKERS, len(rows) // WORKERS, BATCH, len(runs))
    )
    workers = Workers(options.url, rows)
    try:
        with descent.Client(options.url) as client:
            for number, run in enumerate(runs, 1):
                began = time.monotonic()
                run.go(client, workers, optimum)
                print(
                    "  %2d/%d  %-16s rate %-6.3g F(w) - F* = %.1e   %4.0f steps/s"
                    % (
                        number,
                        len(runs),
                        run.family,
                        run.rate,
                        run.last,
                        run.steps / (time.monotonic() - began),
                    )
                )
                sys.stdout.flush()
    finally:
        workers.stop()

    best = best_of(runs)
    print("\n  %-16s %8s %8s %10s %10s" % ("F(w) - F*", "rate", "passes", "at best", "at last"))
    for run in best.values():
        print(
            "  %-16s %8.3g %8.1f %10.1e %10.1e"
            % (run.family, run.rate, run.passes[-1], run.lowest, run.last)
        )
    goals = (1e-7, 0.95) if options.quick else (1e-10, 0.99)
    wrong = verdict(runs[0], runs[1:], *goals)
    draw(options.picture, runs, best)
    print("The curves: %s" % options.picture)
    for sentence in wrong:
        print("FAILED: " + sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
