"""A session as its clients know it: what they were told, when, and by which life of the server."""
import base64
import json
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from .server import check

INTERVAL_S = 0.1
SLACK_S = 1.0  # the machine may be busy
STEP, INTERVAL = {"mode": "step"}, {"mode": "interval", "seconds": INTERVAL_S}


@dataclass
class Told:
    """An acknowledged step."""
    client: object
    index: int
    fields: dict
    receipt: dict
    life: int
    at: float = field(default_factory=time.monotonic)


class Session:
    def __init__(self, name, optimizer, dtype, shapes, durability=STEP, model=None, **more):
        self.name, self.optimizer, self.dtype = name, optimizer, np.dtype(dtype)
        self.shapes, self.durability, self.model, self.more = shapes, durability, model, more
        self.sizes = {k: int(np.prod(shape)) for k, shape in shapes.items()}
        self.count = sum(self.sizes.values())
        self.sure = durability["mode"] == "step"
        self.patched = False
        rng = np.random.default_rng([len(name), self.count])
        self.start = rng.standard_normal(self.count).astype(self.dtype)
        self.mutex = threading.Lock()
        self.history = {}  # step -> Told
        self.reads = {}  # step -> digest of what was served
        self.cuts = []  # (life, step): where the session stood when that life began
        self.durable = self.acknowledged = self.seen = 0
        self.lost, self.lost_s = 0, 0.0

    def path(self, rest=""):
        return f"/v1/sessions/{self.name}{rest}"

    def tensors(self, flat):
        """The flat vector as the tensors of the layout."""
        out, at = {}, 0
        for name, shape in self.shapes.items():
            out[name] = flat[at:at + self.sizes[name]].reshape(shape)
            at += self.sizes[name]
        return out

    def create(self, wire, **more):
        parameters = {
            name: {"shape": list(part.shape),
                   "data_b64": base64.b64encode(np.ascontiguousarray(part).tobytes()).decode()}
            for name, part in self.tensors(self.start).items()}
        body = {"optimizer": self.optimizer, "parameters": parameters,
                "dtype": "f32" if self.dtype == np.float32 else "f64",
                "durability": self.durability, **self.more, **more}
        status, data, _ = wire.until_answered("PUT", self.path(), json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})
        check(status in (200, 201), f"{self.name}: create gave {status} {data[:300]}")

    def weights(self, wire, query=""):
        """Bytes and step. Down when there is no answer."""
        status, data, headers = wire.once("GET", self.path("/parameters" + query),
                                          headers={"Accept": "application/octet-stream"})
        check(status == 200, f"{self.name}: parameters gave {status} {data[:300]}")
        return data, int(headers["ETag"].strip('"').split("-")[1])

    # --- what is known; each takes the mutex ---

    def lost_since(self, life, step):
        """Whether a step told by that life was gone when a later one began. Mutex held."""
        return any(later > life and step > stood for later, stood in self.cuts)

    def note_told(self, step, told):
        durable = told.receipt["durable_step"] if told.receipt else step
        with self.mutex:
            self.durable = max(self.durable, durable)
            for life, stood in self.cuts:
                check(life <= told.life or durable <= stood,
                      f"{self.name}: step {durable} was told durable; life {life} began at {stood}")
            if self.lost_since(told.life, step):
                check(not self.sure, f"{self.name}: step {step} was told and is lost")
                return
            there = self.history.get(step)
            check(there is None, f"{self.name}: step {step} told twice, as "
                  f"{there and (there.client.number, there.index)} and "
                  f"{(told.client.number, told.index)}")
            self.history[step] = told
            self.acknowledged = max(self.acknowledged, step)

    def note_begin(self, life, step, died_at, slack_s, orderly):
        """The session stands at `step` when a life begins: what was beyond is lost, if the end was
        not orderly and it was told within an interval and what this machine takes for a write."""
        with self.mutex:
            check(step >= self.durable,
                  f"{self.name} stands at {step} after step {self.durable} was told durable")
            check(not self.sure or step >= self.seen,
                  f"{self.name} stands at {step} after step {self.seen} was read")
            gone = [k for k in self.history if k > step]
            for k in gone:
                told = self.history.pop(k)
                age = died_at - told.at
                self.lost_s = max(self.lost_s, age)
                check(self.durability["mode"] != "interval" or age < INTERVAL_S + slack_s,
                      f"{self.name}: lost step {k}, told {age:.3f} s before the end")
            check(not gone or not orderly, f"{self.name}: an orderly end lost {gone}")
            self.lost += len(gone)
            self.reads = {k: v for k, v in self.reads.items() if k <= step}
            self.cuts.append((life, step))
            self.durable = step  # it was read from the disk
            if not self.sure:
                self.seen = self.acknowledged = step

    def floor(self):
        """What a read that begins now must show at least, and the life for which that holds."""
        with self.mutex:
            return max(self.acknowledged, self.seen), (self.cuts[-1][0] if self.cuts else 0)

    def note_read(self, floor, floor_life, life, step, digest):
        with self.mutex:
            if self.sure or life == floor_life:
                check(step >= floor, f"{self.name}: a read showed step {step} after {floor}")
            if self.lost_since(life, step):
                check(not self.sure, f"{self.name}: step {step} was read and is lost")
                return
            before = self.reads.setdefault(step, digest)
            check(before == digest, f"{self.name}: step {step} was served with other bits before")
            if self.cuts and self.cuts[-1][0] == life:
                self.seen = max(self.seen, step)


def complete(session, step):
    """Every step up to the one it stands at was acknowledged, once."""
    missing = sorted(set(range(1, step + 1)) - set(session.history))
    beyond = sorted(k for k in session.history if k > step)
    check(not missing and not beyond,
          f"{session.name} stands at {step}; not acknowledged: {missing[:5]}, "
          f"acknowledged and not there: {beyond[:5]}")
