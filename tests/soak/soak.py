#!/usr/bin/env python3
"""Mixed load for SOAK_SECONDS (600): 64 busy and 200 idle connections, sessions that come and go, and a server that is
killed and stopped in between; then half of the time without an end of it, in which nothing may grow. Prints a table
of what the process holds; the exit status is not 0 when something grows beyond its bound, an answer is unexpected, or
a step that was acknowledged is lost.

With --secure (SOAK_SECURE=1) all of it goes through TLS with a token, and every request into the log, which is moved
away and opened anew all the time.

The bounds, for the half without a restart:
  threads, files   one of each for a connection that we hold (64 + 200, and some whose end the server has yet to see),
                   beyond what the server has alone
  memory           the largest of the last third of the samples against the largest of the first third: the pool of
                   buffers keeps the largest body of each kind, the rest comes and goes
  disk             the same: pages that are free are used again"""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time

import numpy as np

from roles import (Aborter, Listener, Maker, Member, Poller, Reader, Snapshotter, Trainer, Traveller)
from server import Client, Plain, Secure, Server, Stopped, Tally, Unexpected
from running import run

IDLE, BUSY = 200, 64
HISTORY = 32 << 20
OPTIONS = ["--history-bytes-max", str(HISTORY), "--header-timeout-s", "3", "--body-timeout-s", "5", "--idle-s", "20",
           "--heartbeat-s", "1"]
MEMORY_SLACK = 24 << 20  # beside 10 %: one buffer of a body that is given up is 4 MB, and six of them may meet
DISK_SLACK = 2 * HISTORY  # beside 10 %: the journal grows to HISTORY before old steps go


def make_roles():
    trainers = ([Trainer(n, "json", 33) for n in range(12)] + [Trainer(n, "tensors", 1031) for n in range(8)] +
                [Trainer(n, "raw", 16384) for n in range(8)])
    names = [trainer.name for trainer in trainers]
    roles = trainers + [Member(n, "shared", {"mode": "async"}) for n in range(4)]
    roles += [Member(n, "rounds", {"mode": "sync", "workers": 4}) for n in range(4)]
    roles += [Reader(n, names) for n in range(8)] + [Poller(n, names) for n in range(6)]
    roles += [Maker(n) for n in range(4)] + [Traveller(n) for n in range(3)] + [Snapshotter(n) for n in range(3)]
    roles += [Aborter(n, names) for n in range(2)] + [Listener(n, names) for n in range(2)]
    assert len(roles) == BUSY, len(roles)
    return roles


def work(role, client, seed, tally):
    random = np.random.default_rng(seed)
    try:
        role.run(client, random)
    except Stopped:
        pass
    except Unexpected as error:
        tally.complain(str(error))
    except Exception as error:  # a fault of ours is a failure as well
        tally.complain(f"{type(role).__name__}: {error!r}")
    finally:
        client.close()


class Idle:
    """Connections that say something now and then."""

    def __init__(self, server, tally):
        self.clients = [Client(server, tally) for _ in range(IDLE)]
        self.next = 0

    def touch(self, count):
        for _ in range(count):
            self.clients[self.next].call("GET", "/livez")
            self.next = (self.next + 1) % IDLE

    def close(self):
        for client in self.clients:
            client.close()


def megabytes(size):
    return f"{size / 1e6:.1f}"


class Table:
    def __init__(self, tally):
        self.tally, self.begin = tally, time.monotonic()
        self.requests, self.at = 0, self.begin
        print("     s  server  requests      /s     steps  rss MB  threads  files  disk MB  worst ms  complaints",
              flush=True)

    def row(self, server, use):
        now, tally = time.monotonic(), self.tally
        with tally.lock:
            rate, worst = (tally.requests - self.requests) / max(now - self.at, 1e-3), tally.worst
            self.requests, self.at, tally.worst = tally.requests, now, 0.0
            print(f"{now - self.begin:6.0f}  {server.generation:6}  {tally.requests:8}  {rate:6.0f}  {tally.steps:8}"
                  f"  {megabytes(use['rss']):>6}  {use['threads']:7}  {use['files']:5}  {megabytes(use['disk']):>7}"
                  f"  {worst * 1000:8.0f}  {len(tally.complaints)}", flush=True)


def sleep_until(moment, tally):
    while time.monotonic() < moment and not tally.complaints:
        time.sleep(min(0.1, max(0.0, moment - time.monotonic())))


def restart(server, how, tally):
    status = server.end(how)
    wanted = 0 if how == signal.SIGTERM else -signal.SIGKILL
    if status != wanted:
        tally.complain(f"exit status {status} after {how.name}")
    server.start()


def judge(samples, alone, tally):
    third = max(1, len(samples) // 3)

    def largest(part, what):
        return max(use[what] for use in part)

    connections = BUSY + IDLE + 40  # connections of ours whose end the server has not seen yet
    for what in ("threads", "files"):
        bound = alone[what] + connections
        most = largest(samples, what)
        print(f"{what}: at most {most}, bound {bound}")
        if most > bound:
            tally.complain(f"{what}: {most}, more than {bound}")
    for what, slack in (("rss", MEMORY_SLACK), ("disk", DISK_SLACK)):
        first, last = largest(samples[:third], what), largest(samples[-third:], what)
        bound = first * 1.1 + slack
        print(f"{what}: {megabytes(first)} MB, then {megabytes(last)} MB, bound {megabytes(bound)} MB")
        if last > bound:
            tally.complain(f"{what}: {first} bytes have become {last}")


def soak(seconds, folder, guard, tally, seed):
    server = Server(folder, OPTIONS, guard)
    idle = Idle(server, tally)
    try:
        alone = server.use()
        roles = make_roles()
        threads = [threading.Thread(target=work, args=(role, Client(server, tally), [seed, n], tally), daemon=True)
                   for n, role in enumerate(roles)]
        for thread in threads:
            thread.start()
        table, samples, begin = Table(tally), [], time.monotonic()
        restarts = [(seconds * part / 10, how) for part, how in
                    ((1, signal.SIGKILL), (2, signal.SIGTERM), (3, signal.SIGKILL), (4, signal.SIGKILL))]
        calm, interval = seconds * 0.5, min(30, seconds / 20)
        moment = 0.0
        while moment < seconds and not tally.complaints:
            moment = min(moment + interval, seconds)
            while restarts and restarts[0][0] <= moment and not tally.complaints:
                at, how = restarts.pop(0)
                sleep_until(begin + at, tally)
                restart(server, how, tally)
            sleep_until(begin + moment, tally)
            idle.touch(IDLE)
            server.rotate()
            use = server.use()
            table.row(server, use)
            if moment > calm:
                samples.append(use)
        tally.stopping.set()
        for thread in threads:
            thread.join(100)
            if thread.is_alive():
                tally.complain("a client hangs")
                break
        idle.close()
        finish(server, roles, samples, alone, tally)
    finally:
        tally.stopping.set()
        server.kill()
        for path in (server.lines + ".old", server.lines):
            server.look_for_errors(path)
        for line in server.errors[:20]:
            tally.complain(f"the server's log: {line.strip()}")


def finish(server, roles, samples, alone, tally):
    if server.end(signal.SIGKILL) != -signal.SIGKILL:
        tally.complain("the server had ended before the end")
    code, out, errors = run("verify", "--data", os.path.join(server.folder, "data"), timeout=None)
    if code != 0:
        tally.complain(f"descent verify: {(out + errors)[-2000:]}")
    server.start()
    tally.stopping = threading.Event()
    client = Client(server, tally)
    for role in roles:
        if hasattr(role, "check"):
            try:
                role.check(client)
            except Unexpected as error:
                tally.complain(str(error))
    client.close()
    if server.end(signal.SIGTERM) != 0:
        tally.complain("SIGTERM does not end in status 0")
    if samples:
        judge(samples, alone, tally)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_SECONDS", "600")))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--secure", action="store_true", default=os.environ.get("SOAK_SECURE") == "1",
                        help="with TLS, a token, and a log of every request")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    root, tally = tempfile.mkdtemp(prefix="descent-soak-"), Tally()
    try:
        os.mkdir(os.path.join(root, "data"))
        soak(arguments.seconds, root, Secure(root) if arguments.secure else Plain, tally, arguments.seed)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("answers:", ", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items())))
    for words in tally.complaints[:20]:
        print("COMPLAINT", words)
    print("failed" if tally.complaints else "nothing grew, nothing was lost, no answer was unexpected")
    return 1 if tally.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
