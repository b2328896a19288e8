"""Those who use history: what was seen once never changes, whoever goes back or dies meanwhile."""
import hashlib
import json
import time

import numpy as np

from .clients import JSON, Actor, receipt_of
from .rounds import RoundSession, hold_members
from .server import Down, check

OCTETS = "application/octet-stream"
SAFETENSORS = "application/vnd.safetensors"
QUARANTINE_MAX = 16


def digest_of(data):
    return hashlib.blake2b(data, digest_size=16).digest()


class Past(Actor):
    """Somebody who asks for moments."""

    def post(self, path, fields, unsure=None):
        status, data, _ = self.wire.until_answered("POST", path, json.dumps(fields).encode(),
                                                   {"Content-Type": JSON}, unsure)
        return status, json.loads(data)

    def some_moment(self, session, known, back=100):
        """One of the last that are known, or None. The older ones too, now and then."""
        with session.mutex:
            moments = list(known())
        if self.random.random() < 0.9:
            moments = moments[-back:]
        return self.random.choice(moments) if moments else None

    def gone(self, session, moment, status, code, promised):
        """Whether the answer says that the moment is not kept, which it may say now."""
        if status == 410:
            with session.mutex:
                check(not promised or not session.promised(moment) or not self.world.promised,
                      f"{session.name}: {moment} is gone, which was promised to be kept")
            return True
        if status == 404:  # it was never there: only where steps may be lost
            check(not session.sure and code == "not_found",
                  f"{session.name}: {moment} was there, and now {status} {code}")
            return True
        return False

    def promised(self, session, moment):
        with session.mutex:
            return session.promised(moment)

    def hold(self, session, known, moment, what, words):
        """Against what was seen before; the answer is of the life that this connection has."""
        with session.mutex:
            if session.standing(self.wire.life) and not session.lost_since(0, moment):
                before = known().setdefault(moment, what)
                check(before == what, f"{session.name}: {words} of {moment} changed")


class Historian(Past):
    """Reads the past of all sessions, and their ledger; has their state saved."""

    def __init__(self, world, sessions, number, pace_s=0.01):
        super().__init__(world, None, number)
        self.sessions, self.pace_s, self.count = sessions, pace_s, 0

    def act(self):
        session = self.random.choice(self.sessions)
        what = self.random.random()
        if what < 0.4:
            self.read_weights(session)
        elif what < 0.65:
            self.read_hash(session)
        elif what < 0.85:
            self.read_ledger(session)
        else:
            status, data, _ = self.wire.until_answered("POST", session.path("/checkpoints"))
            check(status == 201, f"{session.name}: POST checkpoints gave {status} {data[:300]}")
        self.sleep(self.pace_s)

    def ask(self, session, path, moment):
        """(document or bytes) of a moment, or None when it is gone as it may be."""
        promised = self.promised(session, moment)
        lineage, step = moment
        try:
            status, data, _ = self.wire.once(
                "GET", session.path(f"/{path}?step={step}&lineage={lineage}"),
                headers={"Accept": f"{OCTETS}, {JSON};q=0.5" if path == "parameters" else JSON})
        except Down:
            return None
        if self.gone(session, moment, status, status != 200 and json.loads(data)["code"],
                     promised):
            return None
        check(status == 200, f"{session.name}: {path} of {moment} gave {status} {data[:300]}")
        self.count += 1
        return data

    def read_weights(self, session):
        moment = self.some_moment(session, lambda: session.reads)
        data = moment and self.ask(session, "parameters", moment)
        if data is not None:
            self.hold(session, lambda: session.reads, moment, digest_of(data), "the weights")

    def read_hash(self, session):
        known = (lambda: session.hashes) if session.hashes and self.random.random() < 0.7 else (
            lambda: session.reads)
        moment = self.some_moment(session, known)
        data = moment and self.ask(session, "hash", moment)
        if data is not None:
            self.hold(session, lambda: session.hashes, moment, json.loads(data)["state_hash"],
                      "the hash")

    def read_ledger(self, session):
        with session.mutex:
            lineage = session.lineage
            tops = [k for k in session.history if k[0] == lineage]
            top = max(tops, default=session.rewinds.get(lineage, (0, 0)))
            line = session.line(top)
            life = session.cuts[-1][0] if session.cuts else 0
        first = max(1, top[1] - self.random.choice((30, 200, 900)))
        start = first
        try:
            for _ in range(3):  # what goes while it is asked for may take another turn
                status, data, _ = self.wire.once("GET", session.path(
                    f"/steps?from={start}&page_size=1000&tensors=false&lineage={lineage}"))
                if status != 410:
                    break
                start = json.loads(data)["oldest_step"]
                check(start > first, f"{session.name}: steps from {first} gave {data[:300]}")
        except Down:
            return
        if status == 410:
            return
        check(status == 200, f"{session.name}: steps gave {status} {data[:300]}")
        self.count += 1
        page = json.loads(data)
        with session.mutex:
            if session.standing(self.wire.life) and (session.sure or life == self.wire.life):
                hold_ledger(session, page, first, line, self.world.promised)


def hold_ledger(session, page, first, line, promised):
    """A line a step, and those of the steps that were told as they were told; `line` was told of
    before the page was asked for. Mutex held."""
    entries = page["steps"]
    where = f"the ledger of {session.name}"
    steps = [entry["step"] for entry in entries]
    check(steps == list(range(steps[0], steps[0] + len(steps))) if steps else True,
          f"{where} has not one line a step: {steps}")
    oldest = max(first, page["oldest_step"])
    check(not steps or steps[0] == oldest, f"{where} begins at {steps[:1]}, not at {oldest}")
    for moment in line[oldest - 1:]:
        at = moment[1] - oldest
        if moment not in session.history:  # nobody was told
            continue
        check(at < len(entries) or page["next_page_token"] is not None,
              f"{where} has no line of {moment}, which was told; it ends at {steps[-1:]}, "
              f"oldest {page['oldest_step']}")
        if at < len(entries):
            hold_entry(session.history[moment], entries[at], f"{where}, {moment}")
            if isinstance(session, RoundSession):
                hold_members(session, moment, entries[at])
    if promised:
        for moment in line[first - 1:oldest - 1]:
            check(moment not in session.history or not session.promised(moment),
                  f"{where} begins at {oldest}: without {moment}, which was promised")


def hold_entry(told, entry, where):
    check(entry["loss"] == told.fields["loss"],
          f"{where}: loss {entry['loss']}, sent was {told.fields['loss']}")
    if told.worker[0]:
        check((entry["worker"], entry["seq"]) == told.worker,
              f"{where}: {entry['worker']} {entry['seq']}, sent was {told.worker}")
    for name, value in told.receipt.items():
        check(name == "durable_step" or entry[name] == value,
              f"{where}: {name} {entry[name]}, told was {value}")


class Rewinder(Past):
    """Goes back, alone in that on its session; what happened to a rewind that was not answered, the
    session's lineage tells."""

    LEAST = 16  # steps: below there is no average of the gradients' norms to refuse by

    def __init__(self, world, session, number, pace_s):
        super().__init__(world, session, number)
        self.pace_s = pace_s

    def act(self):
        self.sleep(2 * self.pace_s)
        session, before = self.session, self.session.lineage
        if session.durability["mode"] == "checkpoint":
            status, data, _ = self.wire.until_answered("GET", session.path("/checkpoints"))
            kept = [(c["lineage"], c["step"]) for c in json.loads(data)["checkpoints"]]
            moment = self.some_moment(session, lambda: [k for k in kept if k[0] <= before])
        else:
            moment = self.some_moment(session, lambda: [
                k for k in session.reads if k[1] >= self.LEAST or not session.sure], 40)
        if moment is None:
            return
        promised = self.promised(session, moment)
        fields = {"step": moment[1], "lineage": moment[0]}
        give_up = time.monotonic() + self.wire.PATIENCE_S
        while True:
            check(time.monotonic() < give_up, f"{session.name}: no answer to a rewind")
            try:
                status, data, _ = self.wire.once("POST", session.path("/rewind"),
                                                 json.dumps(fields).encode(),
                                                 {"Content-Type": JSON})
            except Down:
                status, data, _ = self.wire.until_answered("GET", session.path())
                check(status == 200, f"{session.name} is gone: {status} {data[:300]}")
                if json.loads(data)["lineage"] == before:
                    continue
            break
        document = json.loads(data)
        if self.gone(session, moment, status, status != 200 and document["code"], promised):
            return
        check(status == 200, f"{session.name}: a rewind to {moment} gave {status} {data[:300]}")
        check(document["lineage"] == before + 1 and document["step"] >= moment[1],
              f"{session.name}: a rewind of lineage {before} to {moment} led to "
              f"{document['lineage']}, {document['step']}")
        session.note_rewind(before + 1, moment[1], moment[0])


class Forker(Past):
    """Makes sessions of moments, by forking and by export and import, and steps them as the parent
    was."""

    def __init__(self, world, session, number, pace_s=0.15):
        super().__init__(world, session, number)
        self.pace_s, self.index = pace_s, 0

    def act(self):
        self.sleep(2 * self.pace_s)
        self.index += 1
        session = self.session
        moment = self.some_moment(session, lambda: session.reads, 50)
        if moment is None:
            return
        kind = self.random.choice(("keep", "reset", "rule", "replay", "import", "import"))
        name = f"{kind}-{self.number}-{self.index}"
        made = (self.imported if kind == "import" else self.forked)(name, kind, moment)
        if not made:
            return
        if kind in ("keep", "import"):
            self.same(name, moment)
            self.step(name, moment)
        elif kind in ("reset", "rule"):
            self.same_weights(name, moment)
        if self.random.random() < 0.9:  # a few stay, for verify
            status, _, _ = self.wire.until_answered("DELETE", f"/v1/sessions/{name}")
            check(status in (204, 404), f"{name}: DELETE gave {status}")

    def forked(self, name, kind, moment):
        session, unsure = self.session, []
        fields = {"step": moment[1], "lineage": moment[0], "id": name,
                  "history": {"keep_steps": 10}}
        if kind == "reset":
            fields["state"] = "reset"
        elif kind == "rule":
            fields["optimizer"] = {"name": "adam", "lr": 0.01}
        elif kind == "replay":
            fields["replay"] = True
        promised = self.promised(session, moment)
        status, document = self.post(session.path("/forks"), fields,
                                     lambda: unsure.append(True))
        if self.gone(session, moment, status, document.get("code"), promised):
            return False
        taken = status == 409 and document["code"] == "session_exists" and unsure
        check(status == 201 or taken, f"{session.name}: a fork of {moment}: {status} {document}")
        status, again = self.post(session.path("/forks"), fields)
        check(status in (409, 410), f"{name}: a fork under the same id gave {status}")
        status, data, _ = self.wire.until_answered("GET", f"/v1/sessions/{name}")
        view = json.loads(data)
        check(status == 200 and view["parent"]["id"] == session.name and
              view["parent"]["step"] == moment[1], f"{name}: {status} {data[:300]}")
        if kind == "replay":
            check(view["step"] == moment[1] + document["fork"]["replayed"] if not taken else True,
                  f"{name}: {document} stands at {view['step']}")
            self.same_as_line(name, moment, view["step"])
        else:
            check(view["step"] == moment[1], f"{name} stands at {view['step']}, not {moment}")
        return True

    def imported(self, name, _, moment):
        session = self.session
        promised = self.promised(session, moment)
        status, data, _ = self.wire.until_answered(
            "GET", session.path(f"/state?step={moment[1]}&lineage={moment[0]}"),
            headers={"Accept": SAFETENSORS})
        if self.gone(session, moment, status, status != 200 and json.loads(data)["code"],
                     promised):
            return False
        check(status == 200, f"{session.name}: state of {moment} gave {status} {data[:300]}")
        status, answer, _ = self.wire.until_answered("PUT", f"/v1/sessions/{name}", data,
                                                     {"Content-Type": SAFETENSORS})
        check(status in (200, 201), f"{name}: an import gave {status} {answer[:300]}")
        told = self.told(moment)
        if told is not None and "Idempotency-Key" in told.request[2]:
            _, body, headers = told.request
            query = told.request[0].partition("?")[1:]
            status, data, answer = self.wire.until_answered(
                "POST", f"/v1/sessions/{name}/gradients{''.join(query)}", body, headers)
            check(status == 200 and answer["Idempotency-Replayed"] == "true" and
                  receipt_of(json.loads(data)) == told.receipt,
                  f"{name} does not know the key of its last step: {status} {data[:300]}")
        return True

    def told(self, moment):
        with self.session.mutex:
            return self.session.history.get(moment)

    def hash_of(self, name):
        status, data, _ = self.wire.until_answered("GET", f"/v1/sessions/{name}/hash")
        check(status == 200, f"{name}: hash gave {status} {data[:300]}")
        return json.loads(data)["state_hash"]

    def same(self, name, moment):
        self.same_weights(name, moment)
        self.hold(self.session, lambda: self.session.hashes, moment, self.hash_of(name),
                  f"{name}: the hash")

    def same_weights(self, name, moment):
        status, data, _ = self.wire.until_answered("GET", f"/v1/sessions/{name}/parameters",
                                                   headers={"Accept": OCTETS})
        check(status == 200, f"{name}: parameters gave {status} {data[:300]}")
        self.hold(self.session, lambda: self.session.reads, moment, digest_of(data),
                  f"{name}: the weights")

    def same_as_line(self, name, moment, step):
        """A fork that ran the parent's gradients stands where the parent did, but for rules that
        ask for the weights a gradient was computed at."""
        session, found = self.session, self.hash_of(name)
        if session.optimizer["name"] == "dcasgd":
            return
        with session.mutex:
            line = session.line((moment[0], max(moment[1], step)))
            known = line and session.hashes.get(line[-1])
        check(not known or known == found, f"{name}: replayed from {moment} to another state")

    def step(self, name, moment):
        """The parent's next step makes of it what it made of the parent."""
        told = self.told((moment[0], moment[1] + 1))
        if told is None or self.session.patched or "lr" not in told.receipt:
            return
        fields = dict(told.fields, worker="forker", seq=1)
        path, body, headers = told.client.body(told.index, fields)
        path = path.replace(self.session.path(), f"/v1/sessions/{name}")
        status, data, _ = self.wire.until_answered("POST", path, body, headers)
        receipt = json.loads(data)
        check(status == 200, f"{name}: the parent's next step gave {status} {data[:300]}")
        for member in ("step", "grad_norm", "update_norm", "param_norm", "lr", "state_hash"):
            check(receipt.get(member) == told.receipt.get(member),
                  f"{name}: the parent's step after {moment} has {member} "
                  f"{receipt.get(member)}, the parent {told.receipt.get(member)}")


class Outlier(Past):
    """Sends gradients that are refused for their norm and kept for a while."""

    def __init__(self, world, session, number, pace_s=0.1):
        super().__init__(world, session, number)
        self.pace_s, self.index, self.kept = pace_s, 0, []

    def act(self):
        self.sleep(2 * self.pace_s)
        session = self.session
        if session.acknowledged[1] < Rewinder.LEAST:
            return
        self.index += 1
        g = np.full(session.count, 1e4 + self.index, session.dtype)
        status, data, _ = self.wire.until_answered(
            "POST", session.path(f"/gradients?dtype=f{8 * session.dtype.itemsize}&worker=out&"
                                 f"loss={self.index}"), g.tobytes(),
            {"Content-Type": OCTETS, "Idempotency-Key": f'"out-{self.index}"'})
        document = json.loads(data)
        check(status == 422 and document["code"] == "abnormal_gradient",
              f"{session.name}: an outlier gave {status} {data[:300]}")
        if "quarantine" not in document:
            check(self.world.server.disk_fails, f"{session.name}: an outlier is not kept: {data}")
            return
        self.kept = self.kept[-QUARANTINE_MAX:] + [(document["quarantine"], g.tobytes())]
        self.look()

    def look(self):
        session = self.session
        status, data, _ = self.wire.until_answered("GET", session.path("/quarantine"))
        check(status == 200, f"{session.name}: quarantine gave {status} {data[:300]}")
        numbers = [entry["number"] for entry in json.loads(data)["quarantine"]]
        check(numbers == sorted(set(numbers), reverse=True), f"quarantine: {numbers}")
        number, g = self.random.choice(self.kept)
        if number not in numbers:
            check(not self.world.promised or len(numbers) == QUARANTINE_MAX and
                  number < numbers[-1], f"{session.name}: {number} left quarantine: {numbers}")
            return
        status, data, _ = self.wire.until_answered(
            "GET", session.path(f"/quarantine/{number}"), headers={"Accept": OCTETS})
        check(status == 404 or status == 200 and data == g,
              f"{session.name}: quarantine {number} gave {status}, {len(data)} other bytes")
