#!/usr/bin/env python3
"""A full disk: steps are refused with 507, nothing changes, reading goes on, and when space comes
back the same server goes on. The data folder is a small tmpfs, which only root can mount."""
import json
import os
import signal
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import Failed, check, main, within  # noqa: E402
from small_disk import Server, fill, small_disk  # noqa: E402

COUNT = 250_007  # a step's event is 1 MB
DISK_MB, BALLAST_MB = 96, 64


def gradient(number):
    return np.random.default_rng(number).standard_normal(COUNT, dtype=np.float32)


def step(server, name, number):
    return server.step(name, number, gradient(number))


def replay(start, first, last):
    w, half = start.copy(), np.float32(0.5)
    for number in range(first, last + 1):
        w = w - half * gradient(number)
    return w


def step_until_full(server, name, first):
    """Steps number by number; the number that was refused."""
    for number in range(first, first + 200):
        status, answer = step(server, name, number)
        if status != 200:
            check(status == 507 and answer["code"] == "storage_full",
                  f"{name}: a full disk gave {status} {answer}")
            return number
    raise Failed(f"{name}: the disk never got full")


def run(folder, disk):
    ballast, rest = os.path.join(disk, "ballast"), os.path.join(disk, "rest")
    with open(ballast, "wb") as file:
        file.write(bytes(BALLAST_MB << 20))
    server = Server(folder)
    starts = {}
    for name, durability in (("sure", {"mode": "step"}),
                             ("later", {"mode": "interval", "seconds": 0.02})):
        server.create(name, COUNT, optimizer={"name": "sgd", "lr": 0.5}, durability=durability)
        starts[name] = server.weights(name)

    # durable by the step
    refused = step_until_full(server, "sure", 1)
    fill(rest)
    print(f"  step mode: step {refused} was refused with 507")
    check(server.ask("GET", "/readyz")[0] == 503, "a full disk, but readyz says 200")
    check(server.ask("GET", "/livez")[0] == 200, "livez is not for the disk")
    for _ in range(3):
        check(step(server, "sure", refused)[0] == 507, "the same step again was not refused")
    view = server.session("sure")
    check(view["step"] == view["durable_step"] == refused - 1, f"a refused step counts: {view}")
    expected = replay(starts["sure"], 1, refused - 1)
    check(server.weights("sure").tobytes() == expected.tobytes(), "a refused step changed weights")
    # The whole state is saved before it is exported, and the contract says so.
    status, _ = server.ask("GET", "/v1/sessions/sure/state")
    paths = json.loads(server.ask("GET", "/openapi.json")[1])["paths"]
    check(status == 507 and "507" in paths["/v1/sessions/{id}/state"]["get"]["responses"],
          f"the state on a full disk: {status}, which openapi.json does not have")
    # A change is small and may still fit: whole or not at all.
    status, _ = server.ask("PATCH", "/v1/sessions/sure", json.dumps({"labels": {"disk": "full"}}),
                           Content_Type="application/json")
    labels = server.session("sure")["labels"]
    check((status, labels) in ((507, {}), (200, {"disk": "full"})),
          f"PATCH on a full disk: {status}, labels {labels}")
    status, answer = step(server, "sure", 1)
    check(status == 200 and answer["step"] == 1, "a stored receipt was not given")

    # durable later: what is not yet told is taken, then it is told; nothing taken is lost
    refused_later = step_until_full(server, "later", 1)
    taken = server.session("later")["step"]
    print(f"  interval mode: {taken} steps were taken before the disk was found full")
    check(taken == refused_later - 1, "a refused step counts")
    check(server.session("later")["durable_step"] < max(taken, 1), "durable on a full disk")
    time.sleep(1.5)  # it tries again meanwhile
    check(step(server, "later", refused_later)[0] == 507, "the disk is still full")

    # space comes back
    os.unlink(rest)
    os.unlink(ballast)
    server.await_ready("there is space")
    status, answer = step(server, "sure", refused)
    check(status == 200 and answer["step"] == refused, f"no recovery: {answer}")
    within(5, lambda: server.session("later")["durable_step"] >= taken, "taken, but not written")
    view = server.session("later")
    check(view["durable_step"] == view["step"] == taken, f"taken, but not written: {view}")
    status, answer = step(server, "later", refused_later)
    check(status == 200, f"no recovery of the interval session: {status} {answer}")
    print("  both go on without a restart")

    # what is on the disk
    check(server.stop() == 0, "it did not stop in order")
    server = Server(folder)
    for name, last in (("sure", refused), ("later", refused_later)):
        check(server.session(name)["step"] == last, f"{name} lost steps")
        check(server.weights(name).tobytes() == replay(starts[name], 1, last).tobytes(),
              f"{name} has other bits after the restart")

    # killed while the disk is full
    refused = step_until_full(server, "sure", refused + 1)
    fill(rest)
    server.stop(signal.SIGKILL)
    try:
        server = Server(folder)
        print("  it starts on a full disk")
    except Failed:
        print("  it does not start on a full disk, and says why")
        os.unlink(rest)
        server = Server(folder)
    check(server.session("sure")["step"] == refused - 1, "a kill on a full disk lost a step")
    check(server.weights("sure").tobytes() == replay(starts["sure"], 1, refused - 1).tobytes(),
          "other bits after a kill on a full disk")


def disk_full(folder):
    with small_disk(folder, DISK_MB) as disk:
        run(folder, disk)


main(disk_full)
