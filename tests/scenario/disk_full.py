#!/usr/bin/env python3
"""A full disk: steps are refused with 507, nothing changes, reading goes on, and when space comes
back the same server goes on. The data folder is a small tmpfs, which only root can mount."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

COUNT = 250_007  # a step's event is 1 MB
DISK_MB, BALLAST_MB = 96, 64


class Failed(Exception):
    pass


def check(condition, words):
    if not condition:
        raise Failed(words)


class Server:
    def __init__(self, binary, folder):
        self.log = open(os.path.join(os.path.dirname(folder), "..", "log"), "ab")
        self.process = subprocess.Popen([binary, "serve", "--listen", "127.0.0.1:0", "--data",
                                         folder], stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        check(line.startswith("descent listening on "), f"it does not start: {line!r}")
        self.connection = http.client.HTTPConnection("127.0.0.1", int(line.rsplit(":", 1)[1]),
                                                     timeout=60)

    def ask(self, method, path, body=None, headers=()):
        self.connection.request(method, path, body, dict(headers))
        response = self.connection.getresponse()
        return response.status, response.read()

    def session(self, name):
        status, data = self.ask("GET", f"/v1/sessions/{name}")
        check(status == 200, f"{name} cannot be read: {status} {data}")
        return json.loads(data)

    def weights(self, name):
        status, data = self.ask("GET", f"/v1/sessions/{name}/parameters",
                                headers={"Accept": "application/octet-stream"})
        check(status == 200, f"{name}: parameters gave {status}")
        return np.frombuffer(data, np.float32)

    def step(self, name, number):
        return self.ask("POST", f"/v1/sessions/{name}/gradients", gradient(number).tobytes(),
                        {"Content-Type": "application/octet-stream",
                         "Idempotency-Key": f"{name}-{number}"})

    def await_ready(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.ask("GET", "/readyz")[0] == 200:
                return True
            time.sleep(0.1)
        return False


def gradient(number):
    return np.random.default_rng(number).standard_normal(COUNT, dtype=np.float32)


def replay(start, first, last):
    w, half = start.copy(), np.float32(0.5)
    for number in range(first, last + 1):
        w = w - half * gradient(number)
    return w


def fill(path):
    """Takes all that is left on the disk."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    if file.write(bytes(size)) < size:
                        break
            except OSError:
                pass


def step_until_full(server, name, first):
    """Steps number by number; the number that was refused."""
    for number in range(first, first + 200):
        status, data = server.step(name, number)
        if status != 200:
            check(status == 507 and json.loads(data)["code"] == "storage_full",
                  f"{name}: a full disk gave {status} {data[:300]}")
            return number
    raise Failed(f"{name}: the disk never got full")


def run(binary, folder, servers):
    ballast, rest = os.path.join(folder, "ballast"), os.path.join(folder, "rest")
    data = os.path.join(folder, "data")
    os.mkdir(data)
    with open(ballast, "wb") as file:
        file.write(bytes(BALLAST_MB << 20))
    server = Server(binary, data)
    servers.append(server)
    starts = {}
    for name, durability in (("sure", {"mode": "step"}),
                             ("later", {"mode": "interval", "seconds": 0.02})):
        body = {"optimizer": {"name": "sgd", "lr": 0.5}, "durability": durability,
                "parameters": {"w": {"shape": [COUNT], "init": {"normal": {"mean": 0, "std": 1}}}}}
        status, answer = server.ask("PUT", f"/v1/sessions/{name}", json.dumps(body),
                                    {"Content-Type": "application/json"})
        check(status == 201, f"create gave {status} {answer}")
        starts[name] = server.weights(name)

    # durable by the step
    refused = step_until_full(server, "sure", 1)
    fill(rest)
    print(f"  step mode: step {refused} was refused with 507")
    check(server.ask("GET", "/readyz")[0] == 503, "a full disk, but readyz says 200")
    check(server.ask("GET", "/livez")[0] == 200, "livez is not for the disk")
    for _ in range(3):
        check(server.step("sure", refused)[0] == 507, "the same step again was not refused")
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
                           {"Content-Type": "application/json"})
    labels = server.session("sure")["labels"]
    check((status, labels) in ((507, {}), (200, {"disk": "full"})),
          f"PATCH on a full disk: {status}, labels {labels}")
    status, answer = server.step("sure", 1)
    check(status == 200 and json.loads(answer)["step"] == 1, "a stored receipt was not given")

    # durable later: what is not yet told is taken, then it is told; nothing taken is lost
    refused_later = step_until_full(server, "later", 1)
    taken = server.session("later")["step"]
    print(f"  interval mode: {taken} steps were taken before the disk was found full")
    check(taken == refused_later - 1, "a refused step counts")
    check(server.session("later")["durable_step"] < max(taken, 1), "durable on a full disk")
    time.sleep(1.5)  # it tries again meanwhile
    check(server.step("later", refused_later)[0] == 507, "the disk is still full")

    # space comes back
    os.unlink(rest)
    os.unlink(ballast)
    check(server.await_ready(5), "there is space, but readyz does not become 200")
    status, answer = server.step("sure", refused)
    check(status == 200 and json.loads(answer)["step"] == refused, f"no recovery: {answer}")
    until = time.monotonic() + 5
    while server.session("later")["durable_step"] < taken and time.monotonic() < until:
        time.sleep(0.05)
    view = server.session("later")
    check(view["durable_step"] == view["step"] == taken, f"taken, but not written: {view}")
    status, answer = server.step("later", refused_later)
    check(status == 200, f"no recovery of the interval session: {status} {answer}")
    print("  both go on without a restart")

    # what is on the disk
    server.process.send_signal(signal.SIGTERM)
    check(server.process.wait(30) == 0, "it did not stop in order")
    server = Server(binary, data)
    servers.append(server)
    for name, last in (("sure", refused), ("later", refused_later)):
        check(server.session(name)["step"] == last, f"{name} lost steps")
        check(server.weights(name).tobytes() == replay(starts[name], 1, last).tobytes(),
              f"{name} has other bits after the restart")

    # killed while the disk is full
    refused = step_until_full(server, "sure", refused + 1)
    fill(rest)
    server.process.kill()
    server.process.wait()
    try:
        server = Server(binary, data)
        servers.append(server)
        print("  it starts on a full disk")
    except Failed:
        print("  it does not start on a full disk, and says why")
        os.unlink(rest)
        server = Server(binary, data)
        servers.append(server)
    check(server.session("sure")["step"] == refused - 1, "a kill on a full disk lost a step")
    check(server.weights("sure").tobytes() == replay(starts["sure"], 1, refused - 1).tobytes(),
          "other bits after a kill on a full disk")


def main():
    binary = os.path.abspath(os.environ.get("DESCENT_BINARY", "build/descent"))
    base = tempfile.mkdtemp(prefix="descent-full-")
    folder = os.path.join(base, "disk")
    os.mkdir(folder)
    servers, failure, mounted, begun = [], None, False, time.monotonic()
    try:
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder],
                               capture_output=True, text=True)
        mounted = mount.returncode == 0
        if mounted:
            run(binary, folder, servers)
        elif os.geteuid() == 0:
            failure = f"cannot mount a tmpfs as root: {mount.stderr.strip()}"
        else:
            print("*** NOT TESTED: a full disk needs root, to mount a small tmpfs ***")
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
    print(f"disk_full: {'FAILED: ' + failure if failure else 'passed' if mounted else 'skipped'} "
          f"in {time.monotonic() - begun:.0f} s")
    return 1 if failure else 0 if mounted else 77  # skipped is not passed


if __name__ == "__main__":
    sys.exit(main())
