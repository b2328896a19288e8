"""Variance-reduced steps through kills: snapshots, their shards and the steps that use them, held
against numpy at every turn."""
import json

import numpy as np

from .clients import JSON, Actor
from .models import Model
from .server import check
from .sessions import Session

OCTETS = "application/octet-stream"
LR, COEFFICIENT, COUNT, SHARDS, STEPS = 0.05, 0.75, 257, 3, 5


class SvrgWorker(Actor):
    """Alone on its session, so every bit is known: freezes the weights, sends the shards of the full
    gradient, each until it is answered, and takes steps with both gradients."""

    def __init__(self, world, session, number):
        super().__init__(world, session, number)
        self.own, self.model = None, None
        self.seq = self.snapshot = self.turn = self.replayed = 0

    def act(self):
        if self.own is None:
            self.own = Session("svrg64", {"name": "sgd", "lr": LR, "momentum": 0.9}, "f8",
                               {"w": (COUNT - 3,), "b": (3,)}, svrg={"coefficient": COEFFICIENT})
            self.own.create(self.wire)
            self.model = Model("sgd", self.own.start)
        self.turn += 1
        mu = self.freeze()
        for number in range(STEPS):
            self.step(number, mu)
            self.sleep(0.02)
        self.hold("/parameters", self.model.w, "the weights")

    def numbers(self, *what):
        rng = np.random.default_rng([self.world.seed, self.number, self.turn, *what])
        return rng.standard_normal(COUNT)

    def post(self, path, body, media=OCTETS):
        status, data, answer = self.wire.until_answered("POST", self.own.path(path), body,
                                                        {"Content-Type": media})
        check(status in (200, 201, 202), f"{self.own.name}: {path} gave {status} {data[:300]}")
        self.replayed += answer["Idempotency-Replayed"] == "true"
        return json.loads(data)

    def hold(self, path, expected, words):
        status, data, _ = self.wire.until_answered("GET", self.own.path(path),
                                                   headers={"Accept": OCTETS})
        check(status == 200 and data == expected.tobytes(),
              f"{self.own.name}, snapshot {self.snapshot}: {words}: {status}, other bits")

    def freeze(self):
        """A snapshot and its full gradient. What was not answered may have made one too; the newest
        is the one that counts."""
        view = self.post("/snapshots", json.dumps({"workers": SHARDS}).encode(), JSON)
        check(view["snapshot"] > self.snapshot and view["step"] == self.model.t,
              f"{self.own.name}: snapshot {view} after {self.snapshot} at step {self.model.t}")
        self.snapshot, frozen = view["snapshot"], self.model.w.copy()
        total, weight = np.zeros(COUNT), 0.0
        for shard in range(SHARDS):
            examples, g = float(self.random.choice((1, 7, 60))), self.numbers(1, shard)
            view = self.post(f"/snapshots/{self.snapshot}/gradients?dtype=f64&worker=s{shard}"
                             f"&part=all&examples={examples}", g.tobytes())
            total, weight = total + examples * g, weight + examples
            self.hold(f"/snapshots/{self.snapshot}/parameters", frozen, "the frozen weights")
            if self.random.random() < 0.3:  # once more: it counts once
                view = self.post(f"/snapshots/{self.snapshot}/gradients?dtype=f64&worker=s{shard}"
                                 f"&part=all&examples={examples}", g.tobytes())
        check(view["status"] == "ready", f"{self.own.name}: all shards are in: {view}")
        mu = total / weight
        self.hold(f"/snapshots/{self.snapshot}/gradient", mu, "the full gradient")
        return mu

    def step(self, number, mu):
        self.seq += 1
        g, old = self.numbers(2, number), self.numbers(3, number)
        receipt = self.post(f"/gradients?dtype=f64&snapshot={self.snapshot}&worker=w&seq={self.seq}",
                            g.tobytes() + old.tobytes())
        self.model.step(g - COEFFICIENT * (old - mu), LR)
        check(receipt["step"] == self.model.t and receipt["snapshot"] == self.snapshot,
              f"{self.own.name}: step {self.model.t} got {receipt}")

    def summary(self):
        return (f"svrg64: {self.turn} snapshots, the newest number {self.snapshot}, "
                f"{self.seq} steps, numpy's bits at every turn")
