"""Sessions whose steps are rounds of several contributions, and those who contribute.

A contribution that was acknowledged (202 names its round, 200 is the receipt of its step) is in
that round and in no other, whoever dies meanwhile."""
import json
import threading
import time

import numpy as np

from .clients import Client, receipt_of
from .server import check
from .sessions import Session, Told


class RoundSession(Session):
    """`size`: contributions of a round, of workers who each have a name."""

    def __init__(self, name, optimizer, dtype, shapes, size, aggregation, **more):
        super().__init__(name, optimizer, dtype, shapes, aggregation=aggregation, **more)
        self.size = size
        self.members = {}  # moment -> {(worker, seq): Told}
        self.rounds = {}  # (worker, seq) -> moment
        self.dismissed = set()  # names
        self.closing = threading.Lock()

    def note_member(self, told, moment):
        with self.mutex:
            member = told.worker
            before = self.rounds.setdefault(member, moment)
            check(before == moment, f"{self.name}: {member} is in {before} and in {moment}")
            self.members.setdefault(moment, {})[member] = told
            check(len(self.members[moment]) <= self.size,
                  f"{self.name}: {moment} has members {sorted(self.members[moment])}")

    def note_closed(self, told):
        """Of the same round everyone is told the same."""
        moment = (told.receipt["lineage"], told.receipt["step"])
        with self.closing:
            there = self.history.get(moment)
            if there is None:
                self.note_told(told)
                return
        for name, value in told.receipt.items():
            check(name == "durable_step" or there.receipt.get(name) == value,
                  f"{self.name}: {moment} was told as {there.receipt} and as {told.receipt}")

    def note_round(self, view):
        """What is found when a life begins: every member of the open round that was told is there."""
        with self.mutex:
            open_ = self.members.get((view["lineage"], view["step"] + 1), {})
            check(view["round"]["received"] >= len(open_),
                  f"{self.name}: {sorted(open_)} were told, the open round of step {view['step']} "
                  f"has {view['round']['received']}")

    # --- for the reference ---

    def parts(self, moment):
        """In the order of the mean."""
        members = self.members[moment]
        return [members[key] for key in sorted(members)]

    def estimate(self, moment):
        total, weight = np.zeros(self.count), 0.0
        for told in self.parts(moment):
            examples = float(told.fields["examples"])
            total += examples * told.client.gradient(told.index).astype(np.float64)
            weight += examples
        return (total / weight).astype(self.dtype)

    def hold_rounds(self, wire, line):
        """At the end: every round is whole, the open one has who was told so, the ledger agrees."""
        for moment in line:
            check(len(self.members.get(moment, ())) == self.size,
                  f"{self.name}: {moment} has only {sorted(self.members.get(moment, ()))}")
        _, data, _ = wire.until_answered("GET", self.path())
        view = json.loads(data)
        lineage, step = view["lineage"], view["step"]
        open_ = self.members.get((lineage, step + 1), {})
        check(view["round"]["received"] == len(open_),
              f"{self.name}: {sorted(open_)} were told, the open round has "
              f"{view['round']['received']}")
        beyond = [moment for moment in self.members if moment > (lineage, step + 1)]
        check(not beyond, f"{self.name} stands at step {step}; members of {beyond}")
        first, status = max(1, step - 20), 410
        while status == 410:  # what is gone says what is left
            status, data, _ = wire.until_answered(
                "GET", self.path(f"/steps?from={first}&page_size=1000&tensors=false"))
            first = json.loads(data)["oldest_step"]
        for entry in json.loads(data)["steps"]:
            hold_members(self, (lineage, entry["step"]), entry, whole=True)
        _, data, _ = wire.until_answered("GET", self.path("/workers"))
        for worker in json.loads(data)["workers"]:
            check(worker["name"] not in self.dismissed, f"{self.name}: {worker} was dismissed")
            last = max(seq for name, seq in self.rounds if name == worker["name"])
            check(worker["seq"] == last, f"{self.name}: {worker} is at seq {last}")


def hold_members(session, moment, entry, whole=False):
    """What is told of a round's members is in its line of the ledger."""
    listed = [(member["worker"], member["seq"]) for member in entry.get("members", ())]
    told = sorted(session.members.get(moment, ()))
    where = f"the ledger of {session.name}, {moment}"
    check(listed == sorted(set(listed)), f"{where}: members {listed}")
    check(set(told) <= set(listed), f"{where}: members {listed}, told were {told}")
    check(not whole or told == listed, f"{where}: members {listed}, told were {told}")


class Member(Client):
    """Contributes to round after round. Where a round needs everyone it waits for its end; else it
    goes on when its contribution is on disk, and now and then it is sent away and comes back under
    another name."""

    def __init__(self, world, session, number, media, waits, **more):
        super().__init__(world, session, number, media, "seq", **more)
        self.waits, self.name, self.names_had = waits, f"w{number}", 1

    def act(self):
        self.index += 1
        self.seq += 1
        member = (self.name, self.seq)
        fields = {"loss": self.index / 8, "examples": self.random.choice((1, 3, 32)),
                  "worker": self.name, "seq": self.seq}
        path, body, headers = self.body(self.index, fields)
        while True:
            wait = self.random.random() < (0.5 if self.waits else 0.05)
            prefer = {"Prefer": "wait=1"} if wait else {}
            status, data, answer = self.wire.until_answered("POST", path, body,
                                                            {**headers, **prefer})
            document = json.loads(data)
            check(status in (200, 202), f"{self.session.name}, {member}: {status} {data[:300]}")
            self.replayed += answer["Idempotency-Replayed"] == "true"
            step = document["step"] if status == 200 else document["round"]
            moment = (document["lineage"], step)
            self.session.note_member(Told(self, self.index, fields, document, self.wire.life,
                                          worker=member), moment)
            if status == 200:
                self.note(receipt_of(document))
            if status == 200 or not self.waits or self.world.stop.is_set():
                break
            self.parked = self.world.quiet.is_set()
            while self.world.quiet.is_set() and not self.world.stop.is_set():
                time.sleep(0.02)
            self.parked = False
            self.sleep(0.02)
        if not self.waits and self.random.random() < 0.1:
            self.leave()
        self.sleep(self.pace_s)

    def leave(self):
        unsure = []
        status, data, _ = self.wire.until_answered(
            "DELETE", self.session.path(f"/workers/{self.name}"), unsure=lambda: unsure.append(1))
        check(status == 204 or status == 404 and unsure,
              f"{self.session.name}: dismissing {self.name} gave {status} {data[:300]}")
        self.session.dismissed.add(self.name)
        self.names_had += 1
        self.name, self.seq = f"w{self.number}.{self.names_had}", 0

    def note(self, receipt):
        check(receipt["status"] == "applied", f"{self.session.name}: {receipt}")
        check(receipt["durable_step"] >= receipt["step"],
              f"{self.session.name}: not a receipt of a durable step: {receipt}")
        self.session.note_closed(Told(self, self.index, {"loss": receipt["loss"]}, receipt,
                                      self.wire.life))
