"""The independent reference: a fresh server in memory that nobody kills and that breaks no promise,
fed with the acknowledged gradients one after the other; for sgd and adam also numpy."""
import hashlib
import json

import numpy as np

from .models import Model
from .rounds import RoundSession
from .server import Server, Wire, check
from .sessions import complete

# What another order of arrival, or a kill, may change in a receipt.
MAY_DIFFER = ("durable_step", "staleness", "lineage")


def feed(session, wire, line):
    """Steps the reference's session through the line; compares receipts and what was read."""
    session.create(wire, durability={"mode": "step"})
    for k, moment in enumerate(line, 1):
        told = session.history[moment]
        for part in session.parts(moment):
            fields = dict(part.fields)
            if session.patched and "lr" in told.receipt:
                fields["lr"] = told.receipt["lr"]
            path, body, headers = part.client.body(part.index, fields)
            status, data, _ = wire.until_answered("POST", path, body, headers)
        check(status == 200, f"the reference refuses step {k} of {session.name}: {status} {data}")
        receipt = json.loads(data)
        for name, value in told.receipt.items():
            if name not in MAY_DIFFER and name in receipt and not (
                    name == "base_step" and "base_step" not in told.fields):
                check(receipt[name] == value, f"{session.name}, step {k}: its receipt said {name} "
                      f"{value}, the reference {receipt[name]}")
        if moment in session.reads and (k % 4 == 0 or k == len(line)):
            weights, _ = session.weights(wire)
            check(hashlib.blake2b(weights, digest_size=16).digest() == session.reads[moment],
                  f"{session.name}: what was read at {moment} is not step {k}")


def numpy_bits(session, line):
    model = Model(session.model, session.start)
    for moment in line:
        told = session.history[moment]
        model.step(session.estimate(moment), told.receipt["lr"])
    return model.w.tobytes()


def verify(sessions, wire, binary, folder):
    """Every acknowledged step once, and the bits that follow from them. `wire` asks the server that
    was killed. Returns how many steps those are."""
    server = Server(binary, folder)
    try:
        server.start(data="memory:", bug="")
        reference = Wire(server, direct=True)
        return sum(verify_one(session, wire, reference) for session in sessions)
    finally:
        server.leave_nothing()


def verify_one(session, wire, reference):
    weights, moment = session.weights(wire)
    line = complete(session, moment)
    step = len(line)
    if isinstance(session, RoundSession):
        session.hold_rounds(wire, line)
    feed(session, reference, line)
    expected, _ = session.weights(reference)
    differ = np.flatnonzero(np.frombuffer(weights, session.dtype) !=
                            np.frombuffer(expected, session.dtype))
    check(weights == expected, f"{session.name}: {len(differ)} of {session.count} weights differ "
          f"after {step} steps")
    if "ema" in session.more:
        check(session.weights(wire, "?average=ema")[0] ==
              session.weights(reference, "?average=ema")[0],
              f"{session.name}: the moving averages differ after {step} steps")
    if session.model is not None:
        check(weights == numpy_bits(session, line), f"{session.name}: numpy gets other bits")
    views = [json.loads(w.until_answered("GET", session.path())[1]) for w in (wire, reference)]
    check(views[0]["cursor"] == views[1]["cursor"],
          f"{session.name}: cursor {views[0]['cursor']}, not {views[1]['cursor']}")
    print(f"  {session.name}: {step} steps, every one once, the same bits"
          + (f"; went back {len(session.rewinds)} times" if session.rewound else "")
          + (f"; {session.lost} lost that were not told durable" if session.lost else ""),
          flush=True)
    return step
