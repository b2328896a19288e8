#!/usr/bin/env python3
"""No space left, pinned to the two moments it can come: while a step is journaled (nothing fits),
and while a checkpoint is written (a step still fits, the state does not). On a small tmpfs, which
only root can mount. tests/scenario/disk_full.py has the longer story of the first.

- Journaling: every mode's answer, the state unchanged, the same step taken once when space is back.
- Checkpoints of a session without a journal: the steps stand, durable_step does not move; a kill
  loses what is above it and nothing else; with space the next checkpoint catches up.
- Checkpoints on the way out of memory: the session stays, goes on, and leaves when it can.
- An orderly stop on a full disk, and a kill: every acknowledged step is in the journal."""
import os
import signal
import sys
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from kill.models import Model  # noqa: E402
from running import check, main, within  # noqa: E402
from small_disk import Server, fill, small_disk  # noqa: E402

COUNT = 120_007  # f64 and adam: a checkpoint is 2.9 MB, a step's event (bf16) 0.24 MB
DISK_MB, ROOM = 40, 1_100_000
ADAM = {"name": "adam", "lr": 0.002}
OPTIONS = ["--idle-s", "1"]
counted = {"steps taken": 0, "steps refused with 507": 0, "states held to the bit": 0}


def gradient(name, number):
    draw = np.random.default_rng([len(name), number]).standard_normal(COUNT, dtype=np.float32)
    return (draw.view(np.uint32) >> 16).astype(np.uint16)


class Session:
    """One session, and what its weights must be after each step."""

    def __init__(self, server, name, durability):
        self.name = name
        server.create(name, COUNT, optimizer=ADAM, durability=durability, dtype="f64")
        self.models = [Model("adam", server.weights(name, np.float64))]

    def expect(self, step):
        while len(self.models) <= step:
            model = Model("adam", self.models[0].w)
            model.__dict__.update(self.models[-1].__dict__)
            raw = gradient(self.name, len(self.models)).astype(np.uint32) << 16
            model.step(raw.view(np.float32), ADAM["lr"])
            self.models.append(model)
        return self.models[step].w

    def step(self, server, number):
        return server.step(self.name, number, gradient(self.name, number), "?dtype=bf16")

    def taken(self, server, number):
        status, answer = self.step(server, number)
        check(status == 200 and answer["step"] == number, f"{self.name}, step {number}: {answer}")
        counted["steps taken"] += 1
        return answer

    def refused(self, server, number):
        status, answer = self.step(server, number)
        check(status == 507 and answer["code"] == "storage_full",
              f"{self.name}, step {number} on a full disk: {status} {answer}")
        counted["steps refused with 507"] += 1

    def stands(self, server, step, durable=None):
        view = server.session(self.name)
        wanted = step if durable is None else durable
        check(view["step"] == step and view["durable_step"] == wanted,
              f"{self.name}: step {view['step']}, durable {view['durable_step']}, wanted {step}, "
              f"{wanted}")
        check(server.weights(self.name, np.float64).tobytes() == self.expect(step).tobytes(),
              f"{self.name}: other bits at step {step}")
        counted["states held to the bit"] += 1


def fill_but(path, room):
    """Takes the space of the disk but for so many bytes."""
    free = os.statvfs(os.path.dirname(path))
    size = free.f_bavail * free.f_frsize - room
    check(size > 0, "there is no room left to fill")
    with open(path, "wb", buffering=0) as file:
        while size > 0:
            size -= file.write(bytes(min(size, 1 << 20)))


def journaling(server, rest, sure, later):
    for number in range(1, 4):
        sure.taken(server, number)
        later.taken(server, number)
    time.sleep(0.2)
    later.stands(server, 3)
    fill(rest)
    sure.refused(server, 4)
    sure.refused(server, 4)
    sure.stands(server, 3)
    status, answer = later.step(server, 4)  # told, not yet written; or told that it cannot be
    check(status in (200, 507), f"interval: {status} {answer}")
    taken = 4 if status == 200 else 3
    time.sleep(0.3)
    later.refused(server, taken + 1)
    later.stands(server, taken, 3)
    os.unlink(rest)
    server.await_ready("there is space")
    sure.taken(server, 4)
    sure.taken(server, 4)  # the stored receipt
    sure.stands(server, 4)
    within(5, lambda: server.session(later.name)["durable_step"] >= taken, "taken, but not written")
    later.stands(server, taken)
    if taken < 4:
        later.taken(server, 4)
    print("  journaling: refused with 507, taken once when there was space")


def without_journal(server, restart, rest, every):
    answer = every.taken(server, 1)
    check(answer["durable_step"] == 0, f"{answer}")
    check(every.taken(server, 2)["durable_step"] == 2, "no checkpoint with space")
    fill_but(rest, ROOM)
    for number in (3, 4, 5):
        check(every.taken(server, number)["durable_step"] == 2, "durable on a full disk")
    every.stands(server, 5, 2)
    server = restart(signal.SIGKILL)
    every.stands(server, 2)  # what was above durable_step is gone, and can be sent again
    for number in (3, 4, 5):
        check(every.taken(server, number)["durable_step"] == 2, "durable on a full disk")
    os.unlink(rest)
    check(every.taken(server, 6)["durable_step"] == 6, "no checkpoint although space is back")
    every.stands(server, 6)
    print("  checkpoints without a journal: the steps stood, durable_step told the truth")
    return server


def step_until_refused(server, session, number):
    """Fills what is free within the database too; the number that was refused."""
    while True:
        status, answer = session.step(server, number)
        if status != 200:
            check(status == 507, f"{session.name}, step {number}: {status} {answer}")
            return number
        number += 1
        check(number < 100, "the disk never got full")


def out_of_memory(server, rest, sure):
    fill(rest)
    number = step_until_refused(server, sure, 5)
    os.truncate(rest, os.path.getsize(rest) - ROOM)
    server.await_ready("there is room for a step")
    sure.taken(server, number)
    seen = len(server.said())
    stays = within(10, lambda: [line for line in server.said()[seen:].splitlines()
                                if f"session {sure.name} stays in memory" in line],
                   "the session's state was not to be saved")
    check("no space left" in stays[0], f"why does it stay: {stays[0]}")
    sure.stands(server, number)
    sure.taken(server, number + 1)
    sure.stands(server, number + 1)
    print("  checkpoint on the way out of memory: it stays, a step still fits")
    return number + 1


def run(folder, disk):
    rest, more = os.path.join(disk, "rest"), os.path.join(disk, "rest2")
    server = Server(folder, *OPTIONS)

    def restart(number, *paths):
        nonlocal server
        code = server.stop(number)
        check(code == (0 if number == signal.SIGTERM else -number), f"it exited with {code}")
        for path in paths:
            os.unlink(path)
        begun = time.monotonic()
        server = Server(folder, *OPTIONS)
        server.session("sure")
        print(f"  back after {1e3 * (time.monotonic() - begun):.0f} ms")
        return server

    sure = Session(server, "sure", {"mode": "step"})
    later = Session(server, "later", {"mode": "interval", "seconds": 0.02})
    every = Session(server, "every", {"mode": "checkpoint", "steps": 2})
    journaling(server, rest, sure, later)
    server = without_journal(server, restart, rest, every)
    number = out_of_memory(server, rest, sure)
    fill(more)
    # An orderly stop cannot save the states; the journal has the steps.
    server = restart(signal.SIGTERM, rest, more)
    sure.stands(server, number)
    later.stands(server, 4)
    every.stands(server, 6)
    fill(rest)
    number = step_until_refused(server, sure, number + 1)
    server = restart(signal.SIGKILL, rest)
    sure.stands(server, number - 1)
    sure.taken(server, number)
    later.taken(server, 5)
    every.taken(server, 7)
    print("  stopped and killed on a full disk: nothing acknowledged was lost")


def no_space(folder):
    with small_disk(folder, DISK_MB) as disk:
        run(folder, disk)
    check(all(counted.values()), f"this proves nothing: {counted}")
    print("no_space: counted", ", ".join(f"{number} {what}" for what, number in counted.items()))


main(no_space)
