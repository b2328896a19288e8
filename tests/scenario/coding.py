#!/usr/bin/env python3
"""Codings and digests against encoders and decoders that are not ours: Python's gzip and hashlib, the zstd command,
curl --compressed. With --figures it measures instead: bytes/s both ways, and what asking for nothing costs."""

import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import check, main  # noqa: E402

COUNT = 5003
SESSION = "/v1/sessions/s"
RAW = {"Content-Type": "application/octet-stream"}


def zstd(data, *options):
    return subprocess.run(["zstd", "-qc", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def unzstd(data):
    return zstd(data, "-d")


ENCODERS = {
    "gzip 1": ("gzip", lambda data: gzip.compress(data, 1)),
    "gzip 9": ("gzip", gzip.compress),
    "gzip 0": ("gzip", lambda data: gzip.compress(data, 0)),
    "gzip in members": ("x-gzip", lambda data: b"".join(gzip.compress(data[i : i + 999]) for i in range(0, len(data), 999))),
    "zstd 1": ("zstd", lambda data: zstd(data, "-1")),
    "zstd 19": ("zstd", lambda data: zstd(data, "-19")),
    "zstd --fast": ("zstd", lambda data: zstd(data, "--fast=5", "--no-check")),
    "zstd of a pipe": ("zstd", lambda data: zstd(data, "--no-content-size")),
    "zstd in frames": ("zstd", lambda data: zstd(data[:999]) + zstd(b"") + zstd(data[999:])),
    "zstd --long": ("zstd", lambda data: zstd(data, "--long=23", "--no-content-size")),
}
DECODERS = {"gzip": gzip.decompress, "zstd": unzstd, None: bytes}


class Server(running.Server):
    def __init__(self, folder):
        super().__init__(folder, "--log", "error")
        self.connection = self.connect()

    def ask(self, method, path, headers=None, body=None):
        """Status, header fields, body as it came."""
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            self.connection.putheader(name, value)
        if body is not None:
            self.connection.putheader("Content-Length", str(len(body)))
        self.connection.endheaders(body)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()


def digest(name, data):
    algorithm = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}[name]
    return "%s=:%s:" % (name, base64.b64encode(algorithm(data).digest()).decode())


def numbers(count, draw):
    return struct.pack("<%df" % count, *(draw() for _ in range(count)))


def make_session(server, count, init):
    spec = {"optimizer": "sgd", "parameters": {"w": {"shape": [count], "init": init}}}
    status, _, body = server.ask("PUT", SESSION, {"Content-Type": "application/json"}, json.dumps(spec).encode())
    check(status == 201, body)


def check_bodies(server):
    """What each encoder makes is the same step; a digest of the coded bytes is right, of others wrong."""
    plain = numbers(COUNT, lambda: random.gauss(0, 1))
    for place, (name, (coding, encode)) in enumerate(ENCODERS.items()):
        coded = encode(plain)
        for algorithm in ("sha-256", "sha-512"):
            headers = {**RAW, "Content-Encoding": coding, "Idempotency-Key": "one", "Content-Digest": digest(algorithm, coded)}
            status, fields, body = server.ask("POST", SESSION + "/gradients", headers, coded)
            check(status == 200 and json.loads(body)["step"] == 1, (name, status, body))
            first = place == 0 and algorithm == "sha-256"
            check((fields["Idempotency-Replayed"] is None) == first, (name, fields))
            headers["Content-Digest"] = digest(algorithm, plain)
            status, _, body = server.ask("POST", SESSION + "/gradients", headers, coded)
            check(status == 400 and digest(algorithm, coded).split("=", 1)[1] in json.loads(body)["detail"], (name, body))
    # What the command line calls ultra and long is more than a content coding may ask for (RFC 9659).
    headers = {**RAW, "Content-Encoding": "zstd"}
    status, _, body = server.ask("POST", SESSION + "/gradients", headers, zstd(plain, "--long=27", "--no-content-size"))
    check(status == 400 and b"8 MiB" in body, body)


def check_answers(server):
    for media in ("application/json", "application/octet-stream", "application/vnd.safetensors", "application/x-npy"):
        _, _, plain = server.ask("GET", SESSION + "/parameters", {"Accept": media})
        for accept, coding in (("zstd", "zstd"), ("gzip", "gzip"), ("br, gzip;q=0.1", "gzip"), ("br", None)):
            for algorithm in ("sha-256", "sha-512"):
                headers = {"Accept": media, "Accept-Encoding": accept, "Want-Content-Digest": algorithm + "=1"}
                status, fields, body = server.ask("GET", SESSION + "/parameters", headers)
                check(status == 200 and fields["Content-Encoding"] == coding, (media, accept, fields))
                check(DECODERS[coding](body) == plain, (media, accept))
                check(fields["Content-Digest"] == digest(algorithm, body), (media, accept, fields))
                head, fields, _ = server.ask("HEAD", SESSION + "/parameters", headers)
                check(fields["Content-Length"] == str(len(body)), fields)
                check(fields["Content-Digest"] == digest(algorithm, b""), fields)  # RFC 9530, B.2
    headers = {"Accept": "application/octet-stream", "Want-Content-Digest": "sha-256=5", "Range": "bytes=100-299"}
    status, fields, body = server.ask("GET", SESSION + "/parameters", headers)
    check(status == 206 and len(body) == 200 and fields["Content-Digest"] == digest("sha-256", body), fields)
    curl = ["curl", "-sS", "--compressed", server.url + SESSION + "/parameters"]
    done = subprocess.run(curl, stdout=subprocess.PIPE, check=True).stdout
    check(done == server.ask("GET", SESSION + "/parameters")[2], "curl --compressed")


def best_of(times, act):
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
    return best


def figures(server):
    count = 1 << 20
    make_session(server, count, {"normal": {"mean": 0, "std": 0.05}})
    raw = numbers(count, lambda: random.gauss(0, 0.05))
    text = json.dumps({"gradients": {"w": [float("%.9g" % x) for x in struct.unpack("<%df" % (count // 3), raw[: count // 3 * 4])]}}).encode()
    text = text[:-3] + b", 0" * (count - count // 3) + b"]}}"
    print("4 MB of f32, and %.1f MB of JSON; whole requests on loopback, best of 5" % (len(text) / 1e6))
    for name, media, plain in (("f32", "application/octet-stream", raw), ("JSON", "application/json", text)):
        for coding, encode in ((None, bytes), ("zstd", zstd), ("gzip", lambda data: gzip.compress(data, 1))):
            coded = encode(plain)
            headers = {"Content-Type": media, **({"Content-Encoding": coding} if coding else {})}
            path = SESSION + "/gradients?dry_run=true"
            check(server.ask("POST", path, headers, coded)[0] == 200, name)
            seconds = best_of(5, lambda: server.ask("POST", path, headers, coded))
            print("  %-4s in   %-5s %5.1f MB -> %6.1f ms" % (name, coding or "plain", len(coded) / 1e6, seconds * 1e3))
        for accept in ("identity", "zstd", "gzip", "gzip, *;q=0"):
            headers = {"Accept": media, "Accept-Encoding": accept}
            path = SESSION + "/parameters"
            size = len(server.ask("GET", path, headers)[2])
            seconds = best_of(5, lambda: server.ask("GET", path, headers))
            print("  %-4s out  %-12s %5.1f MB -> %6.1f ms" % (name, accept, size / 1e6, seconds * 1e3))
    seconds = best_of(5, lambda: server.ask("POST", SESSION + "/gradients?dry_run=true", {**RAW, "Content-Digest": digest("sha-256", raw)}, raw))
    print("  f32  in   plain with Content-Digest -> %6.1f ms" % (seconds * 1e3))


def coding(folder):
    server = Server(folder)
    if "--figures" in sys.argv:
        figures(server)
    else:
        make_session(server, COUNT, {"normal": {"mean": 0, "std": 0.05}})
        check_bodies(server)
        check_answers(server)
        print("codings and digests are those of others")
    check(server.stop() == 0, "the stop")


if shutil.which("zstd") is None or shutil.which("curl") is None:
    print("there is no zstd command, or no curl")
    sys.exit(77)
seed = int(os.environ.get("DESCENT_TEST_SEED", time.time_ns() % 10**9))
print("seed: DESCENT_TEST_SEED=%d" % seed)
random.seed(seed)
main(coding)
