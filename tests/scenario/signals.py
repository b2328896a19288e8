#!/usr/bin/env python3
"""Signals: SIGHUP at any time and under load loses nothing; SIGTERM drains as clients and load
balancers can see; and the options that say what would be served without serving it."""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import numpy as np
from running import BINARY, CLEAN, Failed, Server, Wire, check, main, run, within

RAW = "application/octet-stream"


def create(wire, name, count=1031, **more):
    body = {"optimizer": {"name": "sgd", "lr": 1.0},
            "parameters": {"w": {"shape": [count], "init": "zeros"}}, **more}
    answer = wire.ask("PUT", f"/v1/sessions/{name}", json.dumps(body).encode(),
                      Content_Type="application/json")
    check(answer.status == 201, f"create {name}: {answer.status} {answer.body[:200]}")


def step(wire, name, gradient, **headers):
    return wire.ask("POST", f"/v1/sessions/{name}/gradients", gradient.tobytes(),
                    Content_Type=RAW, **headers)


def storm(folder):
    """SIGHUP without pause while clients step on kept connections: every request is answered, on the
    connection it came on, and the weights are the sum of the gradients."""
    seed = int(os.environ.get("DESCENT_TEST_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    server = Server(folder)
    faults, steps, stop = [], [0] * 4, threading.Event()
    sums = [None] * 4

    def work(index):
        draw = np.random.default_rng(seed + index)
        try:
            wire = Wire(server.port)
            create(wire, f"s{index}")
            weights = np.zeros(1031, np.float32)
            while not stop.is_set():
                gradient = draw.integers(-8, 9, 1031).astype(np.float32)
                answer = step(wire, f"s{index}", gradient)
                if answer.status != 200:
                    faults.append(f"{answer.status} {answer.body[:200]}")
                    return
                weights -= gradient
                steps[index] += 1
            sums[index] = weights
            wire.close()
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    until, sent = time.monotonic() + 3, 0
    while time.monotonic() < until:
        server.tell(signal.SIGHUP)
        sent += 1
        if sent % 10 == 0:
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    check(not faults, f"{len(faults)} faults, the first: {faults[0] if faults else ''}")
    check(min(steps) > 10 and server.reloads() > 10, f"steps {steps}, reloads {server.reloads()}")
    print(f"{sum(steps)} steps amid {sent} SIGHUP, {server.reloads()} reloads")
    check(server.stop() == 0, "the stop")
    server = Server(folder)
    wire = Wire(server.port)
    for index in range(4):
        body = wire.ask("GET", f"/v1/sessions/s{index}/parameters", Accept=RAW).body
        check(np.array_equal(np.frombuffer(body, np.float32), sums[index]), f"s{index} differs")
    check(server.stop() == 0, "the stop")


def at_odd_times(folder):
    """SIGHUP while it starts and while it drains, SIGTERM while it starts."""
    random.seed(int(os.environ.get("DESCENT_TEST_SEED", "1")))
    for number in (signal.SIGHUP, signal.SIGTERM):
        for _ in range(12):
            # Signals that come before main is reached have their default action, so wait for it.
            process = subprocess.Popen(
                [BINARY, "serve", "--listen", "127.0.0.1:0", "--data",
                 os.path.join(folder, "data")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

            def catches():
                with open(f"/proc/{process.pid}/status") as status:
                    caught = [line for line in status if line.startswith("SigCgt:")][0]
                return int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1)

            within(5, catches, "it never catches SIGTERM")
            time.sleep(random.uniform(0, 0.03))
            process.send_signal(number)
            if number == signal.SIGHUP:
                line = process.stdout.readline()
                check(line.startswith(b"descent listening"), f"SIGHUP at the start: {line}")
                process.terminate()
                for _ in range(20):
                    process.send_signal(signal.SIGHUP)
                    time.sleep(0.0005)
            check(process.wait(20) == 0, f"{number!r} at the start: {process.returncode}")
            process.stdout.close()


def drain(folder):
    """What is seen of a stop from outside, with time given to a load balancer."""
    server = Server(folder, "--drain-delay-s", "2")
    idle, probe, busy, waiting, half = [Wire(server.port) for _ in range(5)]
    create(busy, "one")
    check(probe.ask("GET", "/readyz").status == 200, "not ready")
    check(idle.ask("GET", "/livez").status == 200, "not alive")
    gradient = np.ones(1031, np.float32)
    half.send(b"POST /v1/sessions/one/gradients HTTP/1.1\r\nHost: test\r\nContent-Type: "
              + RAW.encode() + b"\r\nContent-Length: 4124\r\n\r\n" + gradient.tobytes()[:100])
    waiting.send(b"GET /v1/sessions/one/parameters?after=1000&wait=60 HTTP/1.1\r\nHost: t\r\n\r\n")
    time.sleep(0.2)
    start = time.monotonic()
    server.tell(signal.SIGTERM)
    within(1, lambda: "finishing" in server.said(), "SIGTERM is not heard")
    time.sleep(0.1)
    # It says that it leaves, and serves all the same, also who comes anew.
    answer = probe.ask("GET", "/readyz")
    check(answer.status == 503 and answer.code() == "draining", f"readyz: {answer.status}")
    for path in ("/readyz", "/healthz"):
        check(Wire(server.port).ask("GET", path).code() == "draining", path)
    check(Wire(server.port).ask("GET", "/livez").status == 200, "livez while it leaves")
    check(step(busy, "one", gradient).status == 200, "a step while it leaves")
    check(step(Wire(server.port), "one", gradient).status == 200, "a new connection")
    server.tell(signal.SIGTERM)  # a second one, and a reload, change nothing
    server.tell(signal.SIGHUP)
    check(server.process.poll() is None, "a second SIGTERM ends it")

    # Then it drains: nobody gets in, who waits is answered at once, kept connections are told.
    def refused():
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return False
        except ConnectionRefusedError:
            return True

    within(4, refused, "it listens still")
    check(time.monotonic() - start > 1.8, "the delay is too short")
    check(waiting.receive().status == 304 and time.monotonic() - start < 4, "a long-poll is held")
    for method, path in (("GET", "/v1/sessions/one"), ("POST", "/v1/sessions/one/gradients")):
        answer = (busy if method == "GET" else idle).ask(method, path)
        check(answer.status == 503 and answer.code() == "draining", f"{method}: {answer.status}")
        check(answer.headers.get("connection") == "close" and "retry-after" in answer.headers,
              f"{method}: {answer.headers}")
    check(busy.at_end() and idle.at_end(), "they are kept")
    # What had begun is finished, and acknowledged, and on disk.
    server.tell(signal.SIGTERM)
    half.send(gradient.tobytes()[100:])
    answer = half.receive()
    check(answer.status == 200 and json.loads(answer.body)["step"] == 3, f"half: {answer.status}")
    check(server.wait() == 0, "the exit status")
    server = Server(folder)
    wire = Wire(server.port)
    check(json.loads(wire.ask("GET", "/v1/sessions/one").body)["step"] == 3, "a step is lost")
    start = time.monotonic()
    check(server.stop(signal.SIGINT) == 0 and time.monotonic() - start < 5, "SIGINT, at once")
    wire.close()


def questions(folder):
    """--print-config and --check-config."""
    data = os.path.join(folder, "data")
    conf = os.path.join(folder, "descent.conf")
    with open(conf, "w") as out:
        out.write("# ours\nidle-s = 77\nlog=warning\n")
    environment = {**CLEAN, "DESCENT_WAIT_S_MAX": "9"}
    code, text, errors = run("serve", "--print-config", "--config", conf, "--data", data, "--log",
                             "error", env=environment)
    check(code == 0 and errors == "" and not os.path.exists(data), f"{code} {errors}")
    lines = text.splitlines()
    said = {lines[i + 1]: lines[i] for i in range(0, len(lines), 2)}
    for line, source in ((f"data = {data}", "# flag, --data"), ("log = error", "# flag, --log"),
                         ("idle-s = 77", f"# {conf}:2"), ("connections-max = 1024", "# default"),
                         ("wait-s-max = 9", "# environment, DESCENT_WAIT_S_MAX"),
                         (f"# config = {conf}", "# flag, --config"), ("tls-cert =", "# default")):
        check(said.get(line) == source, f"{line}: {said.get(line)} and not {source}, of {text}")
    # It is a file that says the same.
    again = os.path.join(folder, "again.conf")
    with open(again, "w") as out:
        out.write(text)
    code, second, _ = run("serve", "--print-config", "--config", again, env=CLEAN)
    check(code == 0 and [line for line in second.splitlines() if line[0] != "#"] ==
          [line for line in lines if line[0] != "#"], second)
    # Every option of the table is there, once.
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "api", "config.def")) as table:
        options = [line.split('"')[1] for line in table if line.startswith("OPTION(")]
    check([line.lstrip("# ").split(" =")[0] for line in lines[1::2]] == options, "the options")

    tokens = os.path.join(folder, "tokens.json")
    with open(tokens, "w") as out:
        out.write("nonsense")
    for arguments, wanted, words in (
            (["--data", data], 0, ""),
            (["--data", "memory:"], 0, ""),
            (["--data", os.path.join(folder, "no", "such")], 2, "No such file"),
            (["--data", conf], 2, "Not a directory"),
            (["--data", data, "--log-file", os.path.join(folder, "new.log")], 0, ""),
            (["--data", data, "--log-file", conf], 0, ""),
            (["--data", data, "--log-file", os.path.join(folder, "no", "log")], 2, "No such file"),
            (["--data", data, "--log-file", folder], 2, "Is a directory"),
            (["--data", data, "--listen", "nonsense"], 2, "must be HOST:PORT"),
            (["--data", data, "--idle-s", "0"], 2, "--idle-s is"),
            (["--data", data, "--listen", "0.0.0.0:1", "--auth", "off"], 2, "--insecure"),
            (["--data", data, "--tokens", tokens, "--auth", "on"], 2, tokens),
            (["--data", data, "--config", "/nonexistent"], 2, "/nonexistent cannot be read")):
        code, out, errors = run("serve", "--check-config", *arguments, env=CLEAN)
        check(code == wanted and words in errors and not os.path.exists(data),
              f"{arguments}: {code} {out}{errors}")
        check((out == "") == (code != 0) and (errors == "") == (code == 0), f"{out}{errors}")
    code, _, errors = run("serve", "--check-config", "--data", data,
                          env={**CLEAN, "DESCENT_LISTN": "x", "DESCENT_LOG": "info"})
    check(code == 0 and "DESCENT_LISTN in the environment is no option" in errors, errors)
    check("DESCENT_LOG " not in errors, errors)
    for command in (["backup", "--to", folder], ["verify"], ["compact"], ["health"]):
        code, _, errors = run(*command, "--idle-s", "5", env=CLEAN)
        check(code == 2 and "--idle-s means nothing" in errors, f"{command}: {code} {errors}")


main(storm, at_odd_times, drain, questions)
