#!/usr/bin/env python3
"""No space left, pinned to the two moments it can come: while a step is journaled (nothing fits),
and while a checkpoint is written (a step still fits, the state does not). On a small tmpfs, which
only root can mount. tests/scenario/disk_full.py has the longer story of the first.

- Journaling: every mode's answer, the state unchanged, the same step taken once when space is back.
- Checkpoints of a session without a journal: the steps stand, durable_step does not move; a kill
  loses what is above it and nothing else; with space the next checkpoint catches up.
- Checkpoints on the way out of memory: the session stays, goes on, and leaves when it can.
- An orderly stop on a full disk, and a kill: every acknowledged step is in the journal."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
from disk_full import Failed, Server, check, fill  # noqa: E402
from kill_loop import Model  # noqa: E402

COUNT = 120_007  # f64 and adam: a checkpoint is 2.9 MB, a step's event (bf16) 0.24 MB
DISK_MB, ROOM = 40, 1_100_000
ADAM = {"name": "adam", "lr": 0.002}


def gradient(name, number):
    draw = np.random.default_rng([len(name), number]).standard_normal(COUNT, dtype=np.float32)
    return (draw.view(np.uint32) >> 16).astype(np.uint16)


class Session:
    """One session, and what its weights must be after each step."""

    def __init__(self, server, name, durability):
        self.name, self.models = name, []
        body = {"optimizer": ADAM, "durability": durability, "dtype": "f64",
                "parameters": {"w": {"shape": [COUNT], "init": {"normal": {"mean": 0, "std": 1}}}}}
        status, data = server.ask("PUT", f"/v1/sessions/{name}", json.dumps(body),
                                  {"Content-Type": "application/json"})
        check(status == 201, f"create gave {status} {data}")
        self.models = [Model("adam", self.weights(server))]

    def weights(self, server):
        status, data = server.ask("GET", f"/v1/sessions/{self.name}/parameters",
                                  headers={"Accept": "application/octet-stream"})
        check(status == 200, f"{self.name}: parameters gave {status}")
        return np.frombuffer(data, np.float64)

    def expect(self, step):
        while len(self.models) <= step:
            model = Model("adam", self.models[0].w)
            model.__dict__.update(self.models[-1].__dict__)
            raw = gradient(self.name, len(self.models)).astype(np.uint32) << 16
            model.step(raw.view(np.float32), ADAM["lr"])
            self.models.append(model)
        return self.models[step].w

    def step(self, server, number):
        status, data = server.ask("POST", f"/v1/sessions/{self.name}/gradients?dtype=bf16",
                                  gradient(self.name, number).tobytes(),
                                  {"Content-Type": "application/octet-stream",
                                   "Idempotency-Key": f"{self.name}-{number}"})
        return status, json.loads(data)

    def taken(self, server, number):
        status, answer = self.step(server, number)
        check(status == 200 and answer["step"] == number, f"{self.name}, step {number}: {answer}")
        return answer

    def refused(self, server, number):
        status, answer = self.step(server, number)
        check(status == 507 and answer["code"] == "storage_full",
              f"{self.name}, step {number} on a full disk: {status} {answer}")

    def stands(self, server, step, durable=None):
        view = server.session(self.name)
        wanted = step if durable is None else durable
        check(view["step"] == step and view["durable_step"] == wanted,
              f"{self.name}: step {view['step']}, durable {view['durable_step']}, wanted {step}, "
              f"{wanted}")
        check(self.weights(server).tobytes() == self.expect(step).tobytes(),
              f"{self.name}: other bits at step {step}")


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
    check(server.await_ready(5), "there is space, but readyz does not become 200")
    sure.taken(server, 4)
    sure.taken(server, 4)  # the stored receipt
    sure.stands(server, 4)
    until = time.monotonic() + 5
    while server.session(later.name)["durable_step"] < taken and time.monotonic() < until:
        time.sleep(0.05)
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


def out_of_memory(server, log, rest, sure):
    fill(rest)
    number = step_until_refused(server, sure, 5)
    os.truncate(rest, os.path.getsize(rest) - ROOM)
    check(server.await_ready(5), "there is room for a step, but readyz does not become 200")
    sure.taken(server, number)
    seen, begun = os.path.getsize(log), time.monotonic()
    while True:
        with open(log, "rb") as file:
            file.seek(seen)
            stays = [line for line in file.read().decode(errors="replace").splitlines()
                     if f"session {sure.name} stays in memory" in line]
        if stays:
            break
        check(time.monotonic() < begun + 10, "the session's state was not to be saved")
        time.sleep(0.2)
    check("no space left" in stays[0], f"why does it stay: {stays[0]}")
    sure.stands(server, number)
    sure.taken(server, number + 1)
    sure.stands(server, number + 1)
    print("  checkpoint on the way out of memory: it stays, a step still fits")
    return number + 1


def run(binary, folder, base, servers):
    rest, data, log = (os.path.join(folder, "rest"), os.path.join(folder, "data"),
                       os.path.join(base, "log"))
    os.environ["DESCENT_IDLE_S"] = "1"

    def start():
        servers.append(Server(binary, data))
        return servers[-1]

    def restart(number, *paths):
        servers[-1].process.send_signal(number)
        code = servers[-1].process.wait(30)
        check(code == (0 if number == signal.SIGTERM else -number), f"it exited with {code}")
        for path in paths:
            os.unlink(path)
        begun = time.monotonic()
        server = start()
        server.session("sure")
        print(f"  back after {1e3 * (time.monotonic() - begun):.0f} ms")
        return server

    os.mkdir(data)
    server = start()
    sure = Session(server, "sure", {"mode": "step"})
    later = Session(server, "later", {"mode": "interval", "seconds": 0.02})
    every = Session(server, "every", {"mode": "checkpoint", "steps": 2})
    journaling(server, rest, sure, later)
    server = without_journal(server, restart, rest, every)
    number = out_of_memory(server, log, rest, sure)
    fill(os.path.join(folder, "rest2"))
    # An orderly stop cannot save the states; the journal has the steps.
    server = restart(signal.SIGTERM, rest, os.path.join(folder, "rest2"))
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


def main():
    binary = os.path.abspath(os.environ.get("DESCENT_BINARY", "build/descent"))
    base = tempfile.mkdtemp(prefix="descent-space-")
    folder = os.path.join(base, "disk")
    os.mkdir(folder)
    servers, failure, mounted, begun = [], None, False, time.monotonic()
    try:
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder],
                               capture_output=True, text=True)
        mounted = mount.returncode == 0
        if mounted:
            run(binary, folder, base, servers)
        else:
            print(f"*** NOT TESTED: no space: cannot mount a tmpfs: {mount.stderr.strip()} ***")
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
        if failure and os.path.exists(os.path.join(base, "log")):
            with open(os.path.join(base, "log"), errors="replace") as log:
                print("  the server's last words:", *log.read().splitlines()[-12:], sep="\n    ")
        if mounted:
            subprocess.run(["umount", folder], check=False)
        shutil.rmtree(base, ignore_errors=True)
    print(f"no_space: {'FAILED: ' + failure if failure else 'passed' if mounted else 'skipped'} "
          f"in {time.monotonic() - begun:.0f} s")
    return 1 if failure else 0 if mounted else 77


if __name__ == "__main__":
    sys.exit(main())
