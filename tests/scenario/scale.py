#!/usr/bin/env python3
"""A thousand small models and one of fifty million parameters in one server: idle ones leave memory
and come back with the same bits, a restart is quick. Needs 2 GB of disk in TMPDIR."""
import hashlib
import json
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import Server, check, main  # noqa: E402

SMALL, SMALL_COUNT, LARGE_COUNT = 1000, 1000, 50_000_000


def start(folder):
    begun = time.monotonic()
    server = Server(folder, "--idle-s", "2", "--log", "warning")
    return server, server.connect(timeout=120), time.monotonic() - begun


def stop(server):
    begun = time.monotonic()
    assert server.stop(seconds=60) == 0, server.process.returncode
    return time.monotonic() - begun


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    data = response.read()
    assert response.status < 300, (method, path, response.status, data[:300])
    return data


def create(connection, name, count):
    body = {"optimizer": {"name": "sgd", "lr": 0.5}, "labels": {"n": name},
            "parameters": {"w": {"shape": [count], "init": {"normal": {"mean": 0, "std": 1}}}}}
    ask(connection, "PUT", f"/v1/sessions/{name}", json.dumps(body), Content_Type="application/json")


def step(connection, name, gradient):
    return json.loads(ask(connection, "POST", f"/v1/sessions/{name}/gradients", gradient,
                          Content_Type="application/octet-stream"))


def digest(connection, name):
    return hashlib.sha256(ask(connection, "GET", f"/v1/sessions/{name}/parameters",
                              Accept="application/octet-stream")).hexdigest()


def scale(folder):
    import numpy as np

    check(shutil.disk_usage(folder).free >= 3 << 30, f"less than 3 GB free in {folder}: set TMPDIR")
    server, connection, _ = start(folder)
    rng = np.random.default_rng(1)
    small = rng.standard_normal(SMALL_COUNT, dtype=np.float32).tobytes()
    large = rng.standard_normal(LARGE_COUNT, dtype=np.float32).tobytes()
    names = [f"m{i:04}" for i in range(SMALL)]

    begun = time.monotonic()
    create(connection, "large", LARGE_COUNT)
    print(f"  50 M parameters created in {time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    first = np.frombuffer(ask(connection, "GET", "/v1/sessions/large/parameters",
                              Accept="application/octet-stream"), np.float32)
    for number in (1, 2):
        assert step(connection, "large", large)["step"] == number
    print(f"  fetched once, two steps of 200 MB in {time.monotonic() - begun:.1f} s")
    half, g = np.float32(0.5), np.frombuffer(large, np.float32)
    expected = hashlib.sha256(((first - half * g) - half * g).tobytes()).hexdigest()
    assert digest(connection, "large") == expected, "the large model has the wrong bits"
    del first

    begun = time.monotonic()
    for name in names:
        create(connection, name, SMALL_COUNT)
    print(f"  {SMALL} sessions created in {time.monotonic() - begun:.1f} s")
    begun = time.monotonic()
    for name in names:
        assert step(connection, name, small)["step"] == 1
    print(f"  a step of each in {time.monotonic() - begun:.1f} s")
    digests = {name: digest(connection, name) for name in names[::37]}
    # The peak, not what is there now: on a slow machine the large one may have left already.
    busy = server.memory_mb("VmHWM")

    begun = time.monotonic()
    while server.memory_mb("VmRSS") > busy / 3 and time.monotonic() - begun < 30:
        time.sleep(0.25)
    idle = server.memory_mb("VmRSS")
    print(f"  memory {busy} MB at its most, {idle} MB idle after {time.monotonic() - begun:.1f} s")
    assert idle <= busy / 3, "idle sessions stay in memory"
    begun = time.monotonic()
    assert digest(connection, "large") == expected, "came back with other bits"
    print(f"  the large one came back and was read in {time.monotonic() - begun:.1f} s")
    for name, value in digests.items():
        assert digest(connection, name) == value, f"{name} came back with other bits"

    stopped = stop(server)
    server, connection, started = start(folder)
    print(f"  stopped in {stopped:.2f} s, listening again after {started:.2f} s")
    assert started < 5, "a restart takes too long"
    pages, token, listed = 0, "", []
    while token is not None:
        page = json.loads(ask(connection, "GET",
                              f"/v1/sessions?page_size=500&page_token={token}" if token
                              else "/v1/sessions?page_size=500"))
        listed += [session["id"] for session in page["sessions"]]
        token = page["next_page_token"]
        pages += 1
    assert sorted(listed) == sorted(names + ["large"]) and pages == 3, (len(listed), pages)
    begun = time.monotonic()
    for name, value in digests.items():
        assert digest(connection, name) == value, f"{name} has other bits after the restart"
    assert digest(connection, "large") == expected, "the large one has other bits after the restart"
    print(f"  {len(digests)} small ones and the large one read in {time.monotonic() - begun:.1f} s")
    assert step(connection, "large", large)["step"] == 3
    begun = time.monotonic()
    ask(connection, "DELETE", "/v1/sessions/large")
    print(f"  the large one deleted in {time.monotonic() - begun:.1f} s")
    server.kill()  # the folder goes anyway


main(scale)
