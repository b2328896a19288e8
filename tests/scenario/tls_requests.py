#!/usr/bin/env python3
"""Everything behind TLS is the same as without: odd requests have the answers that they have on a
plain server, tensors the same bits, silence an end."""
import json
import os
import random
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "clients",
                                "python"))
import numpy as np
import descent
from certificates import Pair, blind
from running import Failed, Server, Wire, check, main

HIDDEN = b"GET /livez HTTP/1.1\r\nHost: hidden\r\n\r\n"  # 37 bytes: 0x25
GET = b"GET /livez HTTP/1.1\r\nHost: test\r\n"
POST = b"POST /v1/sessions HTTP/1.1\r\nHost: test\r\n"
ODD = [
    (GET + b"\r\n", 200),
    (b"\r\n" + GET + b"\r\n", 200),
    (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    (POST + b"Content-Length: 37\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    (POST + b"Content-Length: 0\r\nContent-Length: 37\r\n\r\n" + HIDDEN, 400),
    (POST + b"Content-Length : 37\r\n\r\n" + HIDDEN, 400),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n" + HIDDEN, 400),
    (b"POST /v1/sessions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    (GET + b"Host: other\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    (GET + b"X: a\0b\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\nHost: test\n\n", 400),
    (GET + b"X: a\r\n b\r\n\r\n", 400),
    (b"GET https://test/livez HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    (GET + b"Expect: bananas\r\n\r\n", 417),
    (GET + b"Content-Length: 37\r\n\r\n" + HIDDEN, 400),
    (b"POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 37\r\n\r\n" + HIDDEN, 404),
    (b"DELETE /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 37\r\n\r\n" + HIDDEN, 405),
    (b"OPTIONS /livez HTTP/1.1\r\nHost: test\r\n\r\n", 204),
    (POST + b"Content-Type: application/json\r\nContent-Length: 37\r\n\r\n" + HIDDEN, 400),
    (POST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n25\r\n" + HIDDEN
     + b"\r\n0\r\n\r\n", 400),
    (b"GET /livez?a=1&a=2 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    (b"GET /v1%2Fsessions HTTP/1.1\r\nHost: test\r\n\r\n", 404),
    (GET + b"nonsense\r\n\r\n", 400),
    (b"GET /livez HTTP/2.0\r\nHost: test\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414),
]


def odd_requests(folder):
    good = Pair(folder, "good")
    plain_folder = os.path.join(folder, "plain")
    os.mkdir(plain_folder)
    plain, server = Server(plain_folder), Server(folder, *good.options())
    for data, status in ODD:
        answers = []
        for wire in (Wire(plain.port), Wire(server.port, good.context())):
            wire.send(data)
            answers.append(wire.receive())
            keeps = status < 400 or answers[-1].headers.get("connection") != "close"
            if keeps and b"HTTP/1.0" not in data:
                # No second answer to what was inside a body: the next one is to what is asked now.
                follows = wire.ask("GET", "/nowhere-else")
                check(follows.status == 404, f"{data[:80]!r}: then {follows.status}")
            else:
                check(wire.at_end(), f"{data[:80]!r}: more comes")
            wire.close()
        first, second = answers
        check(first.status == second.status == status and first.code() == second.code(),
              f"{data[:80]!r}: {first.status} {first.code()}, with TLS {second.status} "
              f"{second.code()}")
    # In single bytes, each a record of its own.
    wire = Wire(server.port, good.context())
    for byte in GET + b"\r\n" + b"GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n":
        wire.send(bytes([byte]))
    check([wire.receive().status, wire.receive().status] == [200, 404], "single bytes")
    check(plain.stop() == 0 and server.stop() == 0, "the stop")


def large_bodies(folder):
    """Bits against numpy: 4 MB up and down, pieces, ranges, chunks, streams, early refusals."""
    seed = int(os.environ.get("DESCENT_TEST_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    good = Pair(folder, "good")
    server = Server(folder, *good.options(), "--body-bytes-max", str(8 << 20))
    wire = Wire(server.port, good.context())
    raw = "application/octet-stream"
    count = 1_048_583
    made = wire.ask("PUT", "/v1/sessions/big", json.dumps({
        "optimizer": {"name": "sgd", "lr": 1.0},
        "parameters": {"w": {"shape": [count], "init": "zeros"}}}).encode(),
        Content_Type="application/json")
    check(made.status == 201, f"create: {made.status} {made.body[:200]}")
    weights = np.zeros(count, np.float32)
    for step in range(3):
        gradient = draw.standard_normal(count, np.float32)
        weights = weights - gradient
        answer = wire.ask("POST", "/v1/sessions/big/gradients", gradient.tobytes(),
                          Content_Type=raw, Accept=raw, Prefer="return=representation")
        check(answer.status == 200 and answer.headers["descent-step"] == str(step + 1),
              f"step: {answer.status}")
        check(answer.body == weights.tobytes(), "the weights differ in the answer")
    path = "/v1/sessions/big/parameters"
    whole = wire.ask("GET", path, Accept="application/vnd.safetensors")  # head and tensor apart
    check(whole.body.endswith(weights.tobytes()), "safetensors")
    head = wire.ask("HEAD", path, Accept=raw)
    check(head.status == 200 and head.headers["content-length"] == str(4 * count)
          and head.body == b"", "HEAD")
    for _ in range(20):
        first = draw.integers(0, 4 * count)
        last = min(first + draw.integers(0, 200_000), 4 * count - 1)
        part = wire.ask("GET", path, Accept=raw, Range=f"bytes={first}-{last}")
        check(part.status == 206 and part.body == weights.tobytes()[first:last + 1],
              f"bytes {first}-{last}: {part.status}")
    wire.send((f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {raw}\r\n\r\n" * 3).encode() + GET
              + b"\r\n")
    for _ in range(3):
        check(wire.receive().body == weights.tobytes(), "pipelined")
    check(wire.receive().status == 200, "the last of a pipeline")

    # A chunked body, in odd pieces.
    gradient = draw.standard_normal(count, np.float32)
    data, at = gradient.tobytes(), 0
    wire.send(f"POST /v1/sessions/big/gradients HTTP/1.1\r\nHost: test\r\nContent-Type: {raw}\r\n"
              "Transfer-Encoding: chunked\r\n\r\n".encode())
    while at < len(data):
        piece = data[at:at + int(draw.integers(1, 60_000))]
        wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        at += len(piece)
    wire.send(b"0\r\n\r\n")
    answer = wire.receive()
    check(answer.status == 200, f"chunked: {answer.status}")
    weights = weights - gradient
    if answer.headers.get("connection") == "close":
        check(wire.at_end(), "it says close and stays")
        wire.close()
        wire = Wire(server.port, good.context())
    check(wire.ask("GET", path, Accept=raw).body == weights.tobytes(), "after chunks")

    # A stream: the ledger, a line a step.
    lines = wire.ask("GET", "/v1/sessions/big/steps", Accept="application/x-ndjson")
    steps = [json.loads(line)["step"] for line in lines.body.splitlines()]
    check(steps == [1, 2, 3, 4], f"the ledger has {steps}")
    state = wire.ask("GET", "/v1/sessions/big/state")
    check(state.status == 200 and weights.tobytes() in state.body, "the state")

    # A stream without an end: each step comes when it is taken.
    follower = Wire(server.port, good.context(), timeout=10)
    follower.send(b"GET /v1/sessions/big/steps HTTP/1.1\r\nHost: test\r\n"
                  b"Accept: text/event-stream\r\nLast-Event-ID: 0-4\r\n\r\n")
    check(follower.stream.readline().split()[1] == b"200", "no stream of events")
    for number in (5, 6):
        gradient = draw.standard_normal(count, np.float32)
        check(wire.ask("POST", "/v1/sessions/big/gradients", gradient.tobytes(),
                       Content_Type=raw).status == 200, "a step")
        weights = weights - gradient
        for line in iter(follower.stream.readline, b""):
            if line.startswith(b"id: 0-%d-" % number):
                break
            check(not line.startswith(b"id:") or line.startswith(b"id: 0-4-"), f"event {line}")
        else:
            raise Failed("the stream of events ends")
    follower.close()

    # Expect: 100-continue is granted, or refused before the body comes.
    wire.send(b"POST /v1/sessions/big/gradients HTTP/1.1\r\nHost: test\r\nContent-Type: " +
              raw.encode() + b"\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(data))
    check(wire.stream.readline() == b"HTTP/1.1 100 Continue\r\n", "no leave to send")
    check(wire.stream.readline() == b"\r\n", "no leave to send")
    wire.send(data)
    check(wire.receive().status == 200, "after 100")
    wire.send(b"POST /v1/sessions/big/gradients HTTP/1.1\r\nHost: test\r\nContent-Type: " +
              raw.encode() + b"\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
    refused = wire.receive()
    check(refused.status == 413 and refused.code() == "too_large", f"413 at once: {refused.status}")
    check(wire.at_end(), "it goes on after that")
    wire.close()

    # Too large without asking: read, dropped, answered, and the connection lives.
    wire = Wire(server.port, good.context())
    refused = wire.ask("POST", "/v1/sessions/big/gradients", bytes(9 << 20), Content_Type=raw)
    check(refused.status == 413 and refused.code() == "too_large", f"413: {refused.status}")
    check(wire.ask("GET", "/livez").status == 200, "it ends after 413")
    wire.close()
    code = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert",
                           good.certificate, "--data-binary", "@-", "-H", "Content-Type: " + raw,
                           server.url + "/v1/sessions/big/gradients"], input=bytes(20 << 20),
                          capture_output=True).stdout
    check(code == b"413", f"curl sees {code} and not 413")
    try:
        descent.Client(server.url, cafile=good.certificate, retries=0).create(
            {"w": np.zeros(3 << 20, np.float32)}, "sgd")
    except descent.Error as error:
        check(error.status == 413, f"Python sees {error}")
    else:
        raise Failed("a body beyond the limit was taken")
    check(server.stop() == 0, "the stop")


# --- ends ---

def deadlines(folder):
    good = Pair(folder, "good")
    server = Server(folder, *good.options(), "--header-timeout-s", "1", "--body-timeout-s", "1",
                    "--keepalive-timeout-s", "1")
    hello = ssl.MemoryBIO()
    maker = good.context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    try:
        maker.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = hello.read()

    def drip(wire, data):
        """A byte every tenth of a second until the other side closes."""
        for byte in data:
            try:
                wire.send(bytes([byte]))
            except OSError:
                return
            time.sleep(0.1)

    def ends(wire, words):
        start = time.monotonic()
        check(wire.at_end(), f"{words}: something comes, or nothing ends")
        check(time.monotonic() - start < 4, f"{words}: it ends too late")
        wire.close()

    ends(Wire(server.port), "silence")
    for size in (1, 5, len(hello) // 2):
        wire = Wire(server.port)
        wire.send(hello[:size])
        ends(wire, f"{size} bytes of a handshake")
    wire = Wire(server.port)
    wire.send(hello)
    check(wire.stream.read(1) == b"\x16", "no answer to a greeting")
    start = time.monotonic()
    while wire.stream.read1(65536):
        check(time.monotonic() - start < 5, "a handshake that is not finished goes on")
    wire = Wire(server.port)
    drip(wire, hello)
    ends(wire, "a handshake that drips")
    # No words of ours among the records: what comes is the end, and no error of the protocol.
    for request in (b"", b"GET /live", GET + b"X: ", POST + b"Content-Length: 1000\r\n\r\nabc"):
        wire = Wire(server.port, good.context())
        wire.send(request)
        start = time.monotonic()
        try:
            more = wire.stream.read(1)
        except (ssl.SSLEOFError, ConnectionResetError):
            more = b""
        check(more == b"", f"{request!r}: {more!r}")
        check(0.5 < time.monotonic() - start < 4, f"{request!r}: ends too soon or too late")
        wire.close()
    wire = Wire(server.port, good.context())
    check(wire.ask("GET", "/livez").status == 200, "a connection")
    ends(wire, "a connection without requests")

    # The wrong language at either door.
    wire = Wire(server.port)
    wire.send(GET + b"\r\n")
    start = time.monotonic()
    said = wire.stream.read()
    check(b"HTTP" not in said and time.monotonic() - start < 4, f"plain HTTP at TLS: {said[:80]!r}")
    plain_folder = os.path.join(folder, "plain")
    os.mkdir(plain_folder)
    plain = Server(plain_folder)
    start = time.monotonic()
    try:
        Wire(plain.port, blind())
    except (ssl.SSLError, ConnectionResetError):
        check(time.monotonic() - start < 4, "TLS at plain HTTP: the end is late")
    else:
        raise Failed("TLS at plain HTTP: a handshake")
    check(server.stop() == 0 and plain.stop() == 0, "the stop")


main(odd_requests, large_bodies, deadlines)
