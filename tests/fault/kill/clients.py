"""Whoever uses the server: each repeats what was not answered, and notes what it is told."""
import hashlib
import json
import random
import threading
import time
import traceback

import numpy as np

from .server import Broken, Down, Wire, check, failures
from .sessions import Session, Told

JSON = "application/json"


def receipt_of(document):
    """Without the weights of the moment that were asked for with it."""
    return {k: v for k, v in document.items() if not k.startswith("parameters")}


class Actor(threading.Thread):
    """Acts until told to stop, and holds still when the world does."""

    def __init__(self, world, session, number):
        super().__init__(daemon=True)
        self.world, self.session, self.number = world, session, number
        self.wire = Wire(world.server)
        self.random = random.Random(f"{world.seed} {number}")
        self.errors = world.errors
        self.parked = False  # it holds still

    def run(self):
        try:
            while not self.world.stop.is_set() and not failures:
                self.parked = self.world.quiet.is_set()
                if self.parked:
                    time.sleep(0.02)
                    continue
                self.act()
        except Broken:
            pass
        except Exception:  # a mistake of this script is not a find
            self.errors.append(traceback.format_exc())

    def sleep(self, longest_s):
        time.sleep(self.random.uniform(0, longest_s))


class Client(Actor):
    """Sends gradients; draws number i from (seed, client, i).

    names: "key", "seq" (worker and seq), "match" (If-Match; alone on its session) or "key+match".
    """

    def __init__(self, world, session, number, media, names, wire_dtype=None, cursor=False,
                 bases=False, pace_s=0.02, prefer=False):
        super().__init__(world, session, number)
        self.media, self.names, self.cursor, self.bases = media, names, cursor, bases
        self.wire_dtype = wire_dtype or ("f32" if session.dtype == np.float32 else "f64")
        self.pace_s, self.prefer = pace_s, prefer
        self.index = self.seq = self.at = 0  # at: the step this client believes the session is at
        self.second, self.ask_twice = Wire(world.server), False
        self.sent = []  # (arguments of the request, receipt, life), the last few
        self.replayed = 0

    def gradient(self, index):
        rng = np.random.default_rng([self.world.seed, self.number, index])
        g = rng.standard_normal(self.session.count, np.float32).astype(self.session.dtype)
        if self.wire_dtype == "bf16":
            g = (g.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return g

    def body(self, index, fields, query=""):
        """Path, body and headers of a step."""
        g = self.gradient(index)
        if self.media == "json":
            body = {"gradients": {k: v.astype(float).tolist()
                                  for k, v in self.session.tensors(g).items()}, **fields}
            return (self.session.path("/gradients" + query), json.dumps(body).encode(),
                    {"Content-Type": JSON})
        data = g.tobytes()
        if self.wire_dtype == "bf16":
            data = (g.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        pairs = "&".join(f"{k}={v}" for k, v in {"dtype": self.wire_dtype, **fields}.items())
        return (self.session.path("/gradients?" + pairs), data,
                {"Content-Type": "application/octet-stream"})

    def draw_fields(self):
        """What the step says besides its gradient, for the reference too."""
        fields = {"loss": self.index / 8}
        if self.cursor:
            fields["cursor"] = f"{self.number}:{self.index}"
        if "momentum" in self.session.optimizer and self.random.random() < 0.2:
            fields["lr"] = 0.0625
        return fields

    def act(self):
        self.index += 1
        fields = self.draw_fields()
        status, receipt, life, arguments = self.deliver(fields)
        rewound = self.session.rewound  # keys and seqs go back too
        worker = (f"w{self.number}", self.seq) if self.names == "seq" else (None, None)
        self.session.note_told(Told(self, self.index, fields, receipt, life, arguments, worker))
        self.at = receipt["step"]
        if status:
            self.sent.append((arguments, receipt, life))
            del self.sent[:-20]
            if self.names != "match" and not rewound and self.random.random() < 0.1:
                self.ask_again()
            self.ask_twice = not rewound and self.random.random() < 0.1
        self.sleep(self.pace_s)

    def request(self, fields):
        more, headers = {}, {}
        if "key" in self.names:
            headers["Idempotency-Key"] = f'"{self.number}-{self.index}"'
        if self.names == "seq":
            more = {"worker": f"w{self.number}", "seq": self.seq + 1}
        if self.bases:
            more["base_step"] = fields["base_step"] = max(0, self.at - self.random.randrange(4))
        if "match" in self.names:
            headers["If-Match"] = f'"0-{self.at}"'
        if self.prefer and self.random.random() < 0.3:
            headers["Prefer"] = "return=representation"
            headers["Accept"] = JSON
        path, body, media = self.body(self.index, {**fields, **more})
        return path, body, {**headers, **media}

    def deliver(self, fields):
        """(HTTP status, receipt, life, request). Status 0: taken, by the step the session is at."""
        unsure, sure = [], self.session.sure and not self.session.rewound
        arguments = self.request(fields)
        if self.ask_twice and self.session.sure and self.names != "match":
            double = threading.Thread(target=self.send_second, args=arguments, daemon=True)
            double.start()
        while True:
            begun, lives = time.monotonic(), self.world.lives
            status, data, answer = self.wire.until_answered(
                "POST", *arguments, unsure=lambda: unsure.append(True))
            if lives == self.world.lives:
                self.world.slowest_s = max(self.world.slowest_s, time.monotonic() - begun)
            document = json.loads(data)
            if status == 412:
                now = document["current_step"]
                if self.names == "match":
                    taken = bool(unsure) and now == self.at + 1
                    check(taken or unsure or not self.session.sure,
                          f"{self.session.name}: {document} with nobody else at work")
                    check(now in (self.at, self.at + 1) or not self.session.sure,
                          f"{self.session.name}: If-Match {self.at}, but it stands at {now}")
                    before, self.at = self.at, now
                    if taken:
                        return (0, {"lineage": 0, "step": before + 1}, self.wire.life,
                                arguments)
                self.at = now
                arguments = self.request(fields)
            elif status == 409 and document["code"] == "stale_gradient":
                self.at = document["current_step"]
                arguments = self.request(fields)
            elif status == 409 and document["code"] in ("sequence_gap", "stale_sequence"):
                # Only where acknowledged steps may be lost, or are left behind.
                check(not sure, f"{self.session.name}: {document}")
                self.seq = document["expected"] - 1
                arguments = self.request(fields)
            elif status == 422 and self.bases and not sure and "current_step" in document:
                self.at = document["current_step"]
                arguments = self.request(fields)
            elif status == 422 and document["code"] == "idempotency_mismatch" and (
                    self.session.rewound and self.names == "seq"):
                self.seq += 1  # of a step that was left behind and came back
                arguments = self.request(fields)
            else:
                break
        check(status == 200, f"{self.session.name}, client {self.number}, gradient {self.index}: "
              f"{status} {data[:300]}")
        self.seq += 1
        receipt = receipt_of(document)
        check(receipt["status"] == "applied", f"{self.session.name}: {receipt}")
        check(receipt["durable_step"] == receipt["step"] or not self.session.sure,
              f"{self.session.name}: not a receipt of a durable step: {receipt}")
        check("lr" not in fields or receipt["lr"] == fields["lr"], "an override was not used")
        self.replayed += answer["Idempotency-Replayed"] == "true"
        return status, receipt, self.wire.life, arguments

    def send_second(self, *arguments):
        """The same request on another connection at the same time; whoever comes first takes the
        step. What it is told, nobody notes: a step of its own is found at the end."""
        try:
            self.second.once("POST", *arguments)
        except (Down, Broken):
            pass

    def ask_again(self):
        """The receipt of an acknowledged step is the same for ever, if the step is."""
        arguments, receipt, life = (self.sent[-1] if self.names == "seq"
                                    else self.random.choice(self.sent))
        if not self.session.sure:
            return
        status, data, _ = self.wire.until_answered("POST", *arguments)
        again = receipt_of(json.loads(data))
        check(status == 200 and again == receipt,
              f"{self.session.name}: {receipt} came back as {status} {again}")


class Patcher(Actor):
    """Changes a session's learning rate while others step it: the receipts say which they had."""

    def act(self):
        body = json.dumps({"optimizer": {"lr": self.random.choice([0.03125, 0.05])}}).encode()
        status, data, _ = self.wire.until_answered("PATCH", self.session.path(), body,
                                                   {"Content-Type": JSON})
        check(status == 200, f"{self.session.name}: PATCH gave {status} {data}")
        self.sleep(0.1)


class Churner(Actor):
    """Creates, steps and deletes sessions of its own."""

    deleted = ()

    def act(self):
        self.index = getattr(self, "index", 0) + 1
        own = Session(f"churn-{self.number}-{self.index}", {"name": "sgd", "lr": 0.5}, "f4",
                      {"w": (9,)})
        own.create(self.wire)
        path = own.path("/gradients?dtype=f32&worker=w&seq=1")
        for _ in range(2):
            status, data, _ = self.wire.until_answered(
                "POST", path, np.ones(9, "f4").tobytes(),
                {"Content-Type": "application/octet-stream"})
            check(status == 200 and json.loads(data)["step"] == 1,
                  f"{own.name}: a new session gave {status} {data}")
        try:
            data, step = own.weights(self.wire)
            check(step == (0, 1) and data == (own.start - np.float32(0.5)).tobytes(),
                  f"{own.name}: wrong bits")
        except Down:
            pass
        status, _, _ = self.wire.until_answered("DELETE", own.path())
        check(status in (204, 404), f"{own.name}: DELETE gave {status}")
        self.deleted = (own,) + self.deleted[:9]
        self.look(self.wire)
        self.sleep(0.03)

    def look(self, wire):
        for own in self.deleted:
            status, _, _ = wire.until_answered("GET", own.path())
            check(status == 404, f"{own.name}: there after it was deleted ({status})")


class Reader(Actor):
    """Reads the weights of all sessions over and over: no step goes back, no revision changes."""

    def __init__(self, world, sessions, number, pace_s):
        super().__init__(world, None, number)
        self.sessions, self.pace_s, self.count = sessions, pace_s, 0

    def act(self):
        for session in self.sessions:
            floor, life = session.floor()
            try:
                data, step = session.weights(self.wire)
            except Down:
                continue
            digest = hashlib.blake2b(data, digest_size=16).digest()
            session.note_read(floor, life, self.wire.life, step, digest)
            self.count += 1
        self.sleep(self.pace_s)
