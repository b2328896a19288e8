#!/usr/bin/env python3
"""Care of a data folder: descent backup beside a server under load, restore, compact under kill -9,
verify with damage injected, and every refusal.

Clients step sessions while the backup is made; each knows, from numpy, the weights after each of its
steps. A restored session must stand at a step that was acknowledged before the backup began, or at a
later one, with the weights of just that step.
"""
import argparse
import fcntl
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import BINARY, CLEAN, Failed, check, run  # noqa: E402

COUNTS = {"tiny": 7, "small": 1031, "middle": 70_003, "large": 250_007}
BULK = 400_009  # a session whose steps fill the file and which then goes
PAGE = 32768
READER_S = 11  # a commit that fails is tried once more: SQLite's usual 5 s would end twice in this
PAUSE_S = 0.01  # of a client between two steps: else the file grows too large for quick copies


class Server(running.Server):
    def __init__(self, world, folder):
        super().__init__(world.folder, "--log", "warning", data=folder)
        self.connection = self.connect(timeout=120)

    def ask(self, method, path, body=None, connection=None, **headers):
        connection = connection or self.connection
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        data = response.read()
        check(response.status < 300, f"{method} {path} gave {response.status} {data[:300]}")
        return data, response.headers

    def weights(self, name):
        data, headers = self.ask("GET", f"/v1/sessions/{name}/parameters",
                                 Accept="application/octet-stream")
        return np.frombuffer(data, np.float32), int(headers["ETag"].strip('"').split("-")[1])

    def create(self, name, count):
        body = {"optimizer": {"name": "sgd", "lr": 0.5},
                "parameters": {"w": {"shape": [count], "init": {"normal": {"mean": 0, "std": 1}}}}}
        self.ask("PUT", f"/v1/sessions/{name}", json.dumps(body), Content_Type="application/json")

    def step(self, name, gradient, connection=None):
        return json.loads(self.ask("POST", f"/v1/sessions/{name}/gradients", gradient.tobytes(),
                                   connection, Content_Type="application/octet-stream")[0])["step"]

    def end(self, number=signal.SIGTERM):
        code = self.stop(number, seconds=60)
        check(code == (0 if number == signal.SIGTERM else -number), f"the server exited with {code}")


def gradient(count, name, step):
    return np.random.default_rng([len(name), count, step]).standard_normal(count, dtype=np.float32)


class Client(threading.Thread):
    """Steps one session and keeps a digest of the weights after every step."""

    def __init__(self, server, name, count):
        super().__init__(daemon=True)
        self.server, self.name, self.count = server, name, count
        self.stopping, self.failure, self.longest_s = threading.Event(), None, 0.0
        self.weights = server.weights(name)[0].copy()
        self.digests = [digest(self.weights)]  # by step; grows before a gradient is sent
        self.acknowledged = 0

    def run(self):
        connection = self.server.connect(timeout=120)
        try:
            while not self.stopping.is_set():
                step = len(self.digests)
                g = gradient(self.count, self.name, step)
                self.weights = self.weights - np.float32(0.5) * g
                self.digests.append(digest(self.weights))
                begun = time.monotonic()
                check(self.server.step(self.name, g, connection) == step, f"{self.name}: not {step}")
                self.longest_s = max(self.longest_s, time.monotonic() - begun)
                self.acknowledged = step
                time.sleep(PAUSE_S)
        except (Failed, OSError, http.client.HTTPException) as error:
            self.failure = error


def digest(weights):
    return hashlib.sha256(weights.tobytes()).digest()


class World:
    def __init__(self, folder, seed):
        self.folder, self.random = folder, random.Random(seed)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def command(self, *words):
        """Exit status, stdout and stderr."""
        return run(*words, timeout=120)

    def good(self, *words):
        code, out, errors = self.command(*words)
        check(code == 0, f"{words} exited with {code}: {errors}")
        return out

    def refused(self, words, expected, code=1):
        """Exit status, and one line on stderr that says what is wrong."""
        exited, out, errors = self.command(*words)
        check(exited == code and expected in errors and errors.count("\n") == 1,
              f"{words} should be refused with {expected!r}: {exited}, {errors!r}")
        check(out == "", f"{words} was refused, but printed {out!r}")

    def report(self, folder):
        lines = self.good("verify", "--data", folder).splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}


def same_as_clients(server, clients, least):
    for client in clients:
        weights, step = server.weights(client.name)
        check(least[client.name] <= step < len(client.digests),
              f"{client.name} stands at {step}; {least[client.name]} were acknowledged, "
              f"{len(client.digests) - 1} sent")
        check(digest(weights) == client.digests[step],
              f"{client.name}: not the weights of step {step}")


# --- backup under load, restore -------------------------------------------------------------------


def backup_under_load(world):
    data, backup = world.path("data"), world.path("backup")
    server = Server(world, data)
    for name, count in COUNTS.items():
        server.create(name, count)
    clients = [Client(server, name, count) for name, count in COUNTS.items()]
    for client in clients:
        client.start()
    time.sleep(1)
    while any(c.acknowledged < 3 and c.failure is None for c in clients):
        time.sleep(0.01)
    quiet = max(client.longest_s for client in clients)
    for client in clients:
        client.longest_s = 0.0
    before = {client.name: client.acknowledged for client in clients}
    begun = time.monotonic()
    said = world.good("backup", "--data", data, "--to", backup)
    took = time.monotonic() - begun
    check(said.split()[1] == str(os.path.getsize(os.path.join(backup, "descent.db"))), said)
    world.refused(["backup", "--data", data, "--to", backup], "is there already")
    while any(c.acknowledged < before[c.name] + 2 and c.failure is None for c in clients):
        time.sleep(0.01)  # it goes on
    for client in clients:
        client.stopping.set()
    for client in clients:
        client.join(60)
        check(client.failure is None, f"{client.name}: {client.failure}")
    print(f"  {os.path.getsize(os.path.join(backup, 'descent.db')) / 1e6:.0f} MB backed up in "
          f"{took:.2f} s beside the server; its longest step then {max(c.longest_s for c in clients):.2f}"
          f" s, before {quiet:.2f} s")
    in_use(world, server, data, backup)
    server.end(signal.SIGKILL)

    clean = world.report(data)
    check(clean["sessions"] == len(COUNTS) and clean["findings"] == 0, f"verify says {clean}")
    server = Server(world, data)
    same_as_clients(server, clients, {c.name: c.acknowledged for c in clients})
    server.end()

    restored = world.path("restored")
    said = world.good("restore", "--data", restored, "--from", backup)
    check("findings 0" in said and sorted(os.listdir(restored)) == ["descent.db", "descent.lock"],
          f"restore left {os.listdir(restored)} and said {said}")
    check(world.report(restored) == world.report(backup), "the restored is not the backup")
    server = Server(world, restored)
    same_as_clients(server, clients, before)
    for client in clients:  # it can be trained on
        server.step(client.name, gradient(client.count, "again", 1))
    slow_reader(server, restored)
    server.end()
    check(world.report(restored)["findings"] == 0, "the restored one, trained on, has findings")


def slow_reader(server, data):
    """Another program reads the file for longer than SQLite's usual patience: a step waits, and is
    taken."""
    reader = sqlite3.connect(os.path.join(data, "descent.db"), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM session").fetchone()
    stepper = Client(server, "tiny", COUNTS["tiny"])
    stepper.digests = [None] * (server.weights("tiny")[1] + 1)
    stepper.start()
    time.sleep(READER_S)
    check(stepper.acknowledged == 0, "a step was taken while another program read the file")
    reader.execute("ROLLBACK")
    reader.close()
    until = time.monotonic() + 30
    while stepper.acknowledged == 0 and stepper.failure is None and time.monotonic() < until:
        time.sleep(0.01)
    stepper.stopping.set()
    stepper.join(60)
    check(stepper.failure is None and stepper.acknowledged > 0,
          f"a step that waited for a reader failed: {stepper.failure}")
    check("in use by another program" in server.said(), "the wait is not in the log")


def in_use(world, server, data, backup):
    """What does not work beside a server says which process that is."""
    said = f"in use by process {server.process.pid}."
    world.refused(["verify", "--data", data], said)
    world.refused(["compact", "--data", data], said)
    world.refused(["restore", "--data", data, "--from", backup], said)
    world.refused(["restore", "--data", world.path("never"), "--from", data], said)
    check(not os.path.exists(world.path("never")), "a refused restore made its folder")


# --- refusals -------------------------------------------------------------------------------------


def refusals(world):
    data, backup, absent = world.path("data"), world.path("backup"), world.path("absent")
    empty = world.path("empty")
    os.mkdir(empty)
    for words in (["verify"], ["compact"], ["backup", "--to", world.path("x")]):
        world.refused([*words, "--data", absent], f"There is no database in {absent}")
        world.refused([*words, "--data", empty], f"There is no database in {empty}")
        world.refused([words[0], "--dta", data] + words[1:], "there is no option --dta", 2)
    check(os.listdir(empty) == [] and not os.path.exists(absent), "a refusal left something")
    world.refused(["restore", "--data", world.path("x"), "--from", absent], "There is no database in")
    world.refused(["restore", "--data", data, "--from", backup], "is there already")
    check(not os.path.exists(world.path("x")), "a refusal made a folder")
    world.refused(["backup", "--data", data, "--to", world.path("a", "b")], "No such file")
    world.refused(["backup", "--data", data], "--to needs a folder", 2)
    world.refused(["backup", "--data", data, "--to"], "--to needs a folder", 2)
    world.refused(["restore", "--data", data, "--from="], "--from needs a folder", 2)
    for words in (["compact"], ["backup", "--to", empty], ["restore", "--from", backup]):
        world.refused([*words, "--data", "memory:"], "memory: keeps nothing")

    # A journal without its database would be rolled back into the next one.
    stale = world.path("stale")
    os.mkdir(stale)
    with open(os.path.join(stale, "descent.db-journal"), "wb") as file:
        file.write(b"x")
    world.refused(["restore", "--data", stale, "--from", backup], "descent.db-journal is there")
    world.refused(["backup", "--data", data, "--to", stale], "descent.db-journal is there")

    # Two at work on one place: the other one holds its folder.
    os.mkdir(os.path.join(empty, "descent.new"))
    held = os.open(os.path.join(empty, "descent.new"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    world.refused(["backup", "--data", data, "--to", empty], "is at work")
    os.close(held)
    world.good("backup", "--data", data, "--to", empty)
    check(os.listdir(empty) == ["descent.db"], f"the backup left {os.listdir(empty)}")
    shutil.rmtree(empty)


# --- damage ---------------------------------------------------------------------------------------


def another_owner(world):
    """What root restores into the folder of a service's user is that user's."""
    if os.geteuid() != 0:
        print("  not root: whose restored files are was not tested")
        return
    folder = world.path("another")
    os.mkdir(folder)
    os.chown(folder, 12345, 54321)
    world.good("restore", "--data", folder, "--from", world.path("backup"))
    for name in ("descent.db", "descent.lock"):
        about = os.stat(os.path.join(folder, name))
        check((about.st_uid, about.st_gid) == (12345, 54321), f"{name} is {about.st_uid}'s")
    # Nor may that user have root write elsewhere, or give it away.
    lock, elsewhere = os.path.join(folder, "descent.lock"), world.path("elsewhere")
    with open(elsewhere, "w") as file:
        file.write("root's")
    os.unlink(lock)
    os.symlink(elsewhere, lock)
    world.refused(["verify", "--data", folder], "symbolic links")
    with open(elsewhere) as file:
        check(file.read() == "root's" and os.stat(elsewhere).st_uid == 0, "root's file was touched")


def places_of(content, run):
    """The middle of every copy of a run of bytes: pages that are free now may hold old ones."""
    places, at = [], content.find(run)
    while at >= 0:
        places.append(at + len(run) // 2)
        at = content.find(run, at + len(run))
    check(len(run) >= 16 and places, "the bytes of a row are not in the file")
    return places


def damage(world):
    """A flipped byte of each kind is found, told in a sentence, and keeps a backup from being
    restored."""
    folder, source = world.path("damaged"), world.path("backup", "descent.db")
    with open(source, "rb") as file:
        content = file.read()
    database = sqlite3.connect(f"file:{source}?mode=ro", uri=True)

    def one(query):
        return database.execute(query).fetchone()

    lsn, body = one("SELECT lsn, substr(body, 1000, 64) FROM journal"
                    " WHERE length(body) > 2000 ORDER BY lsn DESC LIMIT 1")
    place, chunk = one("SELECT place, substr(body, 1000, 64) FROM checkpoint_chunk"
                       " WHERE length(body) > 2000 LIMIT 1")
    key, record = one("SELECT key, substr(record, 1, 64) FROM session ORDER BY key LIMIT 1")
    root, = one("SELECT rootpage FROM sqlite_schema WHERE name = 'journal'")
    database.close()
    cases = [("a journal body", places_of(content, body), f"The event at lsn {lsn} "),
             ("a checkpoint's chunk", places_of(content, chunk),
              f"of checkpoint {place >> 20} is damaged"),
             ("a session's record", places_of(content, record), f"The record of session {key} "),
             ("a page's header", [(root - 1) * PAGE], "The structure of the file is damaged"),
             ("the first page's header", [0], "is not a database"),
             ("the file's end", [], "damaged")]
    for what, places, words in cases:
        os.mkdir(folder)
        changed = bytearray(content)
        for at in places:
            changed[at] ^= 0x10
        if not places:
            del changed[-PAGE * 2:]
        with open(os.path.join(folder, "descent.db"), "wb") as file:
            file.write(changed)
        code, out, errors = world.command("verify", "--data", folder)
        check(code == 1 and words in out + errors,
              f"{what}: verify exited with {code}: {out} {errors}")
        check("findings 0" not in out, f"{what}: {out}")
        target = world.path("from-damaged")
        code = world.command("restore", "--data", target, "--from", folder)[0]
        check(code == 1 and os.listdir(target) in ([], ["descent.lock"]),
              f"{what}: restore exited with {code} and left {os.listdir(target)}")
        shutil.rmtree(target)
        if places and words != "is not a database":
            code, out, errors = world.command("compact", "--data", folder)
            with open(os.path.join(folder, "descent.db"), "rb") as file:
                check(code == 1 and file.read() == changed,
                      f"{what}: compact exited with {code}: {out} {errors}")
        shutil.rmtree(folder)
    print(f"  {len(cases)} kinds of damage found, refused by restore")


# --- kill -9 --------------------------------------------------------------------------------------


def folder_with_gaps(world):
    """The backup, with a session added and deleted that filled most of the file."""
    folder = world.path("gaps")
    world.good("restore", "--data", folder, "--from", world.path("backup"))
    server = Server(world, folder)
    server.create("bulk", BULK)
    for step in range(8):
        server.step("bulk", gradient(BULK, "bulk", step))
    server.ask("DELETE", "/v1/sessions/bulk")
    weights = {name: server.weights(name) for name in COUNTS}
    server.end(signal.SIGKILL)  # before housekeeping gives the space back
    return folder, {name: (digest(w), step) for name, (w, step) in weights.items()}


def kill_at_random(world, words, took):
    """True when it was killed, False when it had come to its end."""
    process = subprocess.Popen([BINARY, *words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=CLEAN)
    # At any time, or about when the new file takes the old one's place.
    time.sleep(took * world.random.uniform(*world.random.choice([(0, 1), (0.8, 1.2)])))
    process.kill()
    return process.wait(60) == -signal.SIGKILL


def compact_under_kill(world, kills):
    folder, weights = folder_with_gaps(world)
    path, copy = os.path.join(folder, "descent.db"), world.path("copy")
    old = world.report(folder)
    check(old["findings"] == 0, f"the folder with gaps has findings: {old}")
    shutil.copytree(folder, copy)
    begun = time.monotonic()
    said = world.good("compact", "--data", copy).split()
    took = time.monotonic() - begun
    before, after = int(said[1]), int(said[4])
    check(said[0::3] == ["before", "after"] and before == os.path.getsize(path) and
          after == os.path.getsize(os.path.join(copy, "descent.db")) and after < before,
          f"compact said {said}, the file had {os.path.getsize(path)} bytes")
    check(sorted(os.listdir(copy)) == ["descent.db", "descent.lock"], f"left: {os.listdir(copy)}")
    check(world.report(copy) == old, "compact changed what is in the file")
    hits = olds = tries = 0
    while tries < kills or (hits == 0 and tries < 10 * kills):  # a loaded machine keeps no time
        tries += 1
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)
        hits += kill_at_random(world, ["compact", "--data", copy], took)
        size = os.path.getsize(os.path.join(copy, "descent.db"))
        check(size in (before, after), f"after a kill the file has {size} bytes")
        olds += size == before
        check(world.report(copy) == old, "after a kill the file is not what it was")
    check(hits > 0, "no kill hit a compact at work: this proves nothing")
    world.good("compact", "--data", copy)  # whatever the last kill left is no hindrance
    check(sorted(os.listdir(copy)) == ["descent.db", "descent.lock"], f"left: {os.listdir(copy)}")
    server = Server(world, copy)
    for name, (expected, step) in weights.items():
        w, found = server.weights(name)
        check(found == step and digest(w) == expected, f"{name}: other bits after compact")
    server.end()
    print(f"  compact from {before / 1e6:.0f} to {after / 1e6:.0f} MB; {hits} of {tries} kills hit "
          f"it, {olds} left the old file, {tries - olds} the new")


def copies_under_kill(world, kills):
    """A backup or a restore that is killed leaves no database; the next one is not hindered."""
    source = world.path("backup")
    for command, option in (("backup", "--to"), ("restore", "--data")):
        other = ["--data" if command == "backup" else "--from", source]
        target = world.path("target")
        begun = time.monotonic()
        world.good(command, option, target, *other)
        took = time.monotonic() - begun
        hits = tries = 0
        while tries < kills or (hits == 0 and tries < 10 * kills):
            tries += 1
            shutil.rmtree(target)
            killed = kill_at_random(world, [command, option, target, *other], took)
            there = os.path.exists(os.path.join(target, "descent.db"))
            hits += killed and not there
            check(there or killed, f"{command} ended by itself without a database")
            if not there:
                world.good(command, option, target, *other)
            check(world.report(target) == world.report(source), f"{command}: not the same content")
        shutil.rmtree(target)
        check(hits > 0, f"no kill hit {command} at work: this proves nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"offline: --kills {options.kills} --seed {options.seed}", flush=True)

    def offline(folder):
        world = World(folder, options.seed)
        backup_under_load(world)
        refusals(world)
        another_owner(world)
        damage(world)
        compact_under_kill(world, options.kills)
        copies_under_kill(world, max(options.kills // 4, 1))
    running.main(offline)


if __name__ == "__main__":
    main()
