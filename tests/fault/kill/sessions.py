"""A session as its clients know it: what they were told, when, and by which life of the server.

A moment is (lineage, step). Moments rise in the order in which they were made: a rewind begins the
next lineage."""
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
    request: tuple = ()  # path, body, headers
    worker: tuple = (None, None)  # name and seq
    at: float = field(default_factory=time.monotonic)


class Session:
    def __init__(self, name, optimizer, dtype, shapes, durability=STEP, model=None, **more):
        self.name, self.optimizer, self.dtype = name, optimizer, np.dtype(dtype)
        self.shapes, self.durability, self.model, self.more = shapes, durability, model, more
        self.sizes = {k: int(np.prod(shape)) for k, shape in shapes.items()}
        self.count = sum(self.sizes.values())
        self.sure = durability["mode"] == "step"
        self.patched = False
        self.keep = more.get("history", {}).get("keep_steps", 0)
        rng = np.random.default_rng([len(name), self.count])
        self.start = rng.standard_normal(self.count).astype(self.dtype)
        self.mutex = threading.Lock()
        self.history = {}  # moment -> Told
        self.reads = {}  # moment -> digest of what was served
        self.hashes = {}  # moment -> state_hash
        self.rewinds = {}  # lineage -> the moment that it goes on from
        self.lineage = 0  # the newest in `rewinds`
        self.rewound = False  # whether somebody goes back
        self.cuts = []  # (life, moment): where the session stood when that life began
        self.durable = self.acknowledged = self.seen = (0, 0)
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
        """Bytes and moment. Down when there is no answer."""
        status, data, headers = wire.once("GET", self.path("/parameters" + query),
                                          headers={"Accept": "application/octet-stream"})
        check(status == 200, f"{self.name}: parameters gave {status} {data[:300]}")
        lineage, step = headers["ETag"].strip('"').split("-")[:2]
        return data, (int(lineage), int(step))

    # --- what is known; each takes the mutex unless it says that it is held ---

    def line(self, moment):
        """The moments that lead to this one; None: not known yet. Mutex held."""
        lineage, top = moment
        out = []
        while True:
            origin = self.rewinds.get(lineage)
            if lineage > 0 and origin is None:
                return None
            low = origin[1] if origin else 0
            out[:0] = [(lineage, k) for k in range(low + 1, top + 1)]
            if origin is None:
                return out
            lineage, top = origin[0], min(top, origin[1])

    def lost_since(self, life, moment):
        """Whether what was told by that life was gone when a later one began. Mutex held."""
        return any(later > life and moment > stood for later, stood in self.cuts)

    def standing(self, life):
        """Whether that is the present life. Mutex held."""
        return bool(self.cuts) and self.cuts[-1][0] == life

    def promised(self, moment):
        """Whether history.keep_steps promises that moment. Steps nobody was told of, for a rewind
        came first, count too: the margin. Mutex held."""
        if self.durability["mode"] == "checkpoint" or self.keep == 0:
            return False
        later = 0
        for other in reversed(self.history):  # they are told nearly in order
            later += other > moment
            if later > self.keep - 25 or other < moment and other[1] < moment[1] - 50:
                break
        return later <= self.keep - 25

    def note_told(self, told):
        with self.mutex:
            moment = (told.receipt["lineage"], told.receipt["step"])
            durable = (moment[0], told.receipt.get("durable_step", moment[1]))
            self.durable = max(self.durable, durable)
            for life, stood in self.cuts:
                check(life <= told.life or durable <= stood, f"{self.name}: moment {durable} was "
                      f"told durable; life {life} began at {stood}")
            if self.lost_since(told.life, moment):
                check(not self.sure, f"{self.name}: {moment} was told and is lost")
                return
            there = self.history.get(moment)
            check(there is None, f"{self.name}: {moment} told twice, as "
                  f"{there and (there.client.number, there.index)} and "
                  f"{(told.client.number, told.index)}")
            self.history[moment] = told
            self.acknowledged = max(self.acknowledged, moment)
            if "state_hash" in told.receipt:
                self.hold(self.hashes, moment, told.receipt["state_hash"])

    def note_rewind(self, lineage, step, origin_lineage):
        """The lineage goes on from this step of what was the line of another."""
        with self.mutex:
            line = self.line((origin_lineage, step))
            origin = line[-1] if line else (0, 0)
            self.rewinds[lineage], self.lineage = origin, lineage
            self.acknowledged = max(self.acknowledged, (lineage, step))
            self.durable = max(self.durable, (lineage, step))
            for known in (self.reads, self.hashes):  # the same bits under another name
                if origin in known:
                    self.hold(known, (lineage, step), known[origin])

    def hold(self, known, moment, what):
        """Mutex held."""
        before = known.setdefault(moment, what)
        check(before == what, f"{self.name}: {moment} had other bits before: {before}, now {what}")

    def note_begin(self, life, moment, died_at, slack_s, orderly):
        """The session stands there when a life begins: what was beyond is lost, if the end was not
        orderly and it was told within an interval and what this machine takes for a write."""
        with self.mutex:
            check(moment >= self.durable,
                  f"{self.name} stands at {moment} after {self.durable} was told durable")
            check(not self.sure or moment >= self.seen,
                  f"{self.name} stands at {moment} after {self.seen} was read")
            gone = [k for k in self.history if k > moment]
            for k in gone:
                told = self.history.pop(k)
                age = died_at - told.at
                self.lost_s = max(self.lost_s, age)
                check(self.durability["mode"] != "interval" or age < INTERVAL_S + slack_s,
                      f"{self.name}: lost {k}, told {age:.3f} s before the end")
            check(not gone or not orderly, f"{self.name}: an orderly end lost {gone}")
            self.lost += len(gone)
            self.reads = {k: v for k, v in self.reads.items() if k <= moment}
            self.hashes = {k: v for k, v in self.hashes.items() if k <= moment}
            self.cuts.append((life, moment))
            self.durable = moment  # it was read from the disk
            if not self.sure:
                self.seen = self.acknowledged = moment

    # --- for the reference ---

    def parts(self, moment):
        """What was sent for the step."""
        return [self.history[moment]]

    def estimate(self, moment):
        """The gradient that it came to."""
        told = self.history[moment]
        return told.client.gradient(told.index)

    def floor(self):
        """What a read that begins now must show at least, and the life for which that holds."""
        with self.mutex:
            return max(self.acknowledged, self.seen), (self.cuts[-1][0] if self.cuts else 0)

    def note_read(self, floor, floor_life, life, moment, digest):
        with self.mutex:
            if self.sure or life == floor_life:
                check(moment >= floor, f"{self.name}: a read showed {moment} after {floor}")
            if self.lost_since(life, moment):
                check(not self.sure, f"{self.name}: {moment} was read and is lost")
                return
            self.hold(self.reads, moment, digest)
            if self.standing(life):
                self.seen = max(self.seen, moment)


def complete(session, moment):
    """Every step on the line to where it stands was acknowledged, once. Returns the line."""
    line = session.line(moment)
    check(line is not None, f"{session.name} stands at {moment}; nobody went back there")
    missing = [k for k in line if k not in session.history]
    beyond = sorted(k for k in session.history if k > moment)
    check(not missing and not beyond,
          f"{session.name} stands at {moment}; not acknowledged: {missing[:5]}, "
          f"acknowledged and not there: {beyond[:5]}")
    return line
