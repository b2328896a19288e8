#!/usr/bin/env python3
"""A folder that an earlier program left behind is opened by the present one: the same
configuration, steps and bits, repeats known, and the next step gives what it gave then. A folder of
a newer program is refused with a sentence, and left as it is."""
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "upgrade")
sys.path.insert(0, GOLDEN)
from generate import Server, describe  # noqa: E402  (the same words on the wire as then)
from running import BINARY, Failed, run  # noqa: E402

EARLIER = ("first", "third")  # by generate.py: records of format 2 and 3

failures = []


def check(condition, words):
    if not condition:
        failures.append(words)
        print("FAILED:", words, flush=True)


def hold(now, then, where):
    """Everything that was said then is said now; more may be said."""
    if isinstance(then, dict):
        for key, value in then.items():
            check(isinstance(now, dict) and key in now, f"{where}/{key} is not there any more")
            if isinstance(now, dict) and key in now:
                hold(now[key], value, f"{where}/{key}")
    elif where.endswith("_norm") and isinstance(now, float) and isinstance(then, float):
        # Norms in receipts are sums that are rounded; the order of summing has changed since: it now goes
        # tensor by tensor. Weights and state have no such freedom.
        check(abs(now - then) <= 4e-16 * abs(then), f"{where} is {now!r}, not {then!r}")
    else:
        check(now == then, f"{where} is {now!r}, not {then!r}")


def lay_out(folder, image):
    os.mkdir(folder)
    with open(os.path.join(folder, "descent.db"), "wb") as file:
        file.write(image)
    return folder


def opens(folder, golden):
    server = Server(BINARY, folder)
    try:
        listed = [s["id"] for s in server.json("GET", "/v1/sessions")["sessions"]]
        check(listed == sorted(golden["stands"]), f"there are {listed}")
        for name, then in golden["stands"].items():
            hold(describe(server, name), then, name)
        for repeat in golden["repeats"]:
            status, data, headers = server.ask("POST", repeat["path"], repeat["body"],
                                               repeat["headers"])
            then = {k: v for k, v in repeat["answer"].items() if k != "durable_step"}
            if repeat["headers"]:
                check(status == 200 and headers["Idempotency-Replayed"] == "true",
                      f"{repeat['path']}, a step it has: {status} {data[:200]}")
                hold(json.loads(data), then, f"repeated {repeat['path']}")
            else:  # a worker's last one, or an older one
                check((status, headers["Idempotency-Replayed"]) == (200, "true") or
                      (status == 409 and json.loads(data)["code"] == "stale_sequence"),
                      f"{repeat['path']}, a step it has: {status} {data[:200]}")
        for name, then in golden["stands"].items():
            check(server.numbers(name) == then["weights"], f"{name}: a repeat changed it")
        for name, step in golden["goes_on"].items():
            status, data, headers = server.ask("POST", step["path"], step["body"], step["headers"])
            check(status == 200 and headers["Idempotency-Replayed"] != "true",
                  f"{name}: the next step: {status} {data[:200]}")
            answer = json.loads(data)
            hold(answer, {k: v for k, v in step["answer"].items() if k != "durable_step"}, name)
    finally:
        check(server.stop(signal.SIGTERM) == 0, "SIGTERM did not end it with 0")
    server = Server(BINARY, folder)  # what it has written since, it reads again
    try:
        for name, step in golden["goes_on"].items():
            now = describe(server, name)
            check(now["view"]["step"] == step["answer"]["step"], f"{name}: {now['view']['step']}")
            check(now["weights"] == step["weights"] and now["average"] == step["average"],
                  f"{name}: other bits after the next step")
    finally:
        server.stop(signal.SIGKILL)


def fingerprint(folder):
    return {name: hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest()
            for name in sorted(os.listdir(folder)) if name.startswith("descent.db")}


def refuses_newer(folder):
    path = os.path.join(folder, "descent.db")
    with open(path, "r+b") as file:
        file.seek(60)  # user_version, in the header of the file
        version = int.from_bytes(file.read(4), "big")
        file.seek(60)
        file.write((version + 1000).to_bytes(4, "big"))
    before = fingerprint(folder)
    code, out, errors = run("serve", "--listen", "127.0.0.1:0", "--data", folder)
    check(code not in (0, -6, -11) and out == "", f"a newer database: exit {code}, {out!r}")
    check("was made by a newer descent" in errors and f"schema {version + 1000}" in errors,
          f"a newer database: {errors!r}")
    check(fingerprint(folder) == before, "a newer database was changed")


def main():
    base, begun = tempfile.mkdtemp(prefix="descent-upgrade-"), time.monotonic()
    sessions = 0
    try:
        for name in EARLIER:
            with open(os.path.join(GOLDEN, name + ".json")) as file:
                golden = json.load(file)
            with gzip.open(os.path.join(GOLDEN, name + ".db.gz")) as file:
                image = file.read()
            opens(lay_out(os.path.join(base, name), image), golden)
            sessions += len(golden["stands"])
        refuses_newer(lay_out(os.path.join(base, "newer"), image))
    except (Failed, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        check(False, str(error))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"upgrade: counted {sessions} sessions, {len(EARLIER)} earlier programs")
    print(f"upgrade: {'FAILED' if failures else 'passed'} in {time.monotonic() - begun:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
