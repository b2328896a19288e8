#!/usr/bin/env python3
"""Slow clients by the hundred (slowhttptest: slow headers, slow bodies, slow reading of an answer of 3 MB) beside one
that is not: it gets right answers all along, and the slow ones are cut at their deadlines, not when they like."""
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import Server, main  # noqa: E402

COUNT = 150_000  # 3 MB of JSON, far more than the sockets' buffers hold
SECONDS = 12  # it would go on for so long
GONE_S = 9  # all made within two seconds, DEADLINE_S later cut, and as much again for a machine that is busy
DEADLINE_S = 2
# What the server may take: it runs beside slowhttptest and this script, on few cores. A server whose slow clients
# hold up the others does not answer before they end, SECONDS later.
WORST_S = 2.0
JSON = {"Content-Type": "application/json"}

ATTACKS = (
    ("slow headers", 300, ["-H", "-u", "{url}/livez"]),
    ("slow bodies", 300, ["-B", "-s", "100000", "-f", "application/octet-stream", "-u",
                          "{url}/v1/sessions/small/gradients"]),
    # it names no media type, so the answers are JSON, each of its own memory
    ("slow reading", 150, ["-X", "-w", "256", "-y", "512", "-n", "1", "-z", "64", "-u",
                           "{url}/v1/sessions/large/parameters"]),
)


def ask(link, method, path, body=None, headers=None):
    link.request(method, path, body, headers or {})
    answer = link.getresponse()
    return answer.status, answer.read()


class Normal(threading.Thread):
    """Trains, looks, connects anew: what must go on."""

    def __init__(self, port):
        super().__init__()
        self.port, self.over = port, threading.Event()
        self.times, self.wrong = [], []

    def run(self):
        steps, kept = 0, http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        start = json.loads(ask(kept, "GET", "/v1/sessions/small")[1])["step"]
        while not self.over.is_set():
            fresh = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            path = "/v1/sessions/small"
            for link, method, path, body in ((kept, "POST", f"{path}/gradients", '{"gradients":{"w":[1,2]}}'),
                                             (fresh, "GET", f"{path}/parameters", None),
                                             (kept, "GET", "/readyz", None)):
                begin = time.monotonic()
                status, data = ask(link, method, path, body, JSON if body else {})
                self.times.append(time.monotonic() - begin)
                if status != 200:
                    self.wrong.append((method, path, status, data[:200]))
                elif method == "POST":
                    steps += 1
                    if json.loads(data)["step"] != start + steps:
                        self.wrong.append((path, data[:200]))
            fresh.close()
            time.sleep(0.01)
        kept.close()


def attack(name, slow, arguments, server):
    alone = server.threads()
    normal = Normal(server.port)
    normal.start()
    begin, most, quiet = time.monotonic(), 0, None
    program = subprocess.Popen(
        ["slowhttptest", "-c", str(slow), "-r", "200", "-i", "1", "-l", str(SECONDS), "-p", "5", "-v", "2",
         *[argument.format(url=server.url) for argument in arguments]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = []
    reader = threading.Thread(target=lambda: output.append(program.stdout.read().decode(errors="replace")))
    reader.start()
    while (program.poll() is None or quiet is None) and time.monotonic() - begin < SECONDS + 10:
        now = server.threads()
        most = max(most, now)
        # the normal one has two connections, slowhttptest's own look at the server one
        if most > alone + slow // 2 and now <= alone + 4 and quiet is None:
            quiet = time.monotonic() - begin
        time.sleep(0.05)
    taken = time.monotonic() - begin
    if program.poll() is None:
        program.kill()
        program.wait()
    reader.join()
    program.stdout.close()
    normal.over.set()
    normal.join()
    worst, middle = max(normal.times), sorted(normal.times)[len(normal.times) // 2]
    print(f"{name}: {most - alone} connections at once, gone after {quiet or taken:.1f} s; the normal client had "
          f"{len(normal.times)} answers, median {middle * 1000:.1f} ms, worst {worst * 1000:.0f} ms")
    assert not normal.wrong, normal.wrong[:3]
    assert most > alone + slow // 2, f"slowhttptest made {most - alone} connections only: {output[0][-2000:]}"
    assert worst < WORST_S, f"the normal client waited for {worst:.1f} s"
    assert quiet is not None and quiet < GONE_S, f"slow ones are still there after {GONE_S} s: {output[0][-2000:]}"
    available = re.findall(r"service available:\s*(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", output[0]))
    assert "NO" not in available, available


def slow_clients(folder):
    server = Server(folder, "--log", "warning", "--header-timeout-s", str(DEADLINE_S), "--body-timeout-s", str(DEADLINE_S),
                    "--transfer-bytes-per-s", "100000000")
    link = server.connect()
    for name, count, init in (("small", 2, "zeros"), ("large", COUNT, {"normal": {"mean": 0, "std": 1}})):
        body = {"optimizer": {"name": "sgd", "lr": 0.001}, "parameters": {"w": {"shape": [count], "init": init}}}
        status, data = ask(link, "PUT", f"/v1/sessions/{name}", json.dumps(body), JSON)
        assert status == 201, data
    link.close()
    for attacked in ATTACKS:
        attack(*attacked, server)
        time.sleep(0.5)
    assert server.stop() == 0


if shutil.which("slowhttptest") is None:
    print("there is no slowhttptest")
    sys.exit(77)
main(slow_clients)
