#!/usr/bin/env python3
"""TLS: what is refused before the server starts, which versions and ciphers it speaks, and that
everything behind it is the same as without: odd requests have the answers that they have on a plain
server, tensors the same bits, silence an end. Certificates are made here by openssl."""
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "clients",
                                "python"))
import numpy as np
import descent
from running import Failed, Server, Wire, check, main, run, within

warnings.filterwarnings("ignore", category=DeprecationWarning)  # we want old versions of TLS
if shutil.which("openssl") is None:
    print("there is no openssl to make certificates with")
    sys.exit(77)


# --- certificates ---

def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    check(done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}")
    return done.stdout


class Pair:
    """A certificate for localhost and 127.0.0.1 that signs itself, and its key."""

    def __init__(self, folder, name, kind="ec", names="DNS:localhost,IP:127.0.0.1", days=30):
        self.certificate = os.path.join(folder, name + ".pem")
        self.key = os.path.join(folder, name + ".key")
        if kind == "ec":
            openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                    self.key)
        else:
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out",
                    self.key)
        request = os.path.join(folder, name + ".csr")
        extensions = os.path.join(folder, name + ".ext")
        with open(extensions, "w") as out:
            out.write("subjectAltName=" + names + "\n")
        openssl("req", "-new", "-key", self.key, "-subj", "/CN=localhost", "-out", request)
        openssl("x509", "-req", "-in", request, "-signkey", self.key, "-days", str(days),
                "-extfile", extensions, "-out", self.certificate)
        os.chmod(self.key, 0o600)

    def options(self):
        return ["--tls-cert", self.certificate, "--tls-key", self.key]

    def context(self, **versions):
        context = ssl.create_default_context(cafile=self.certificate)
        for name, value in versions.items():
            setattr(context, name, value)
        return context

    def digest(self):
        with open(self.certificate) as text:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.read())).digest()


def shown(wire):
    """The digest of the certificate that a connection has seen."""
    return hashlib.sha256(wire.socket.getpeercert(binary_form=True)).digest()


def blind():
    """Trusts anything."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- what is refused before it starts ---

def wrong_files(folder):
    good, other = Pair(folder, "good"), Pair(folder, "other")
    locked = os.path.join(folder, "locked.key")
    openssl("ec", "-in", good.key, "-aes256", "-passout", "pass:secret", "-out", locked)
    text = os.path.join(folder, "text.pem")
    with open(text, "w") as out:
        out.write("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    empty = os.path.join(folder, "empty.pem")
    open(empty, "w").close()
    absent = os.path.join(folder, "absent.pem")
    fifo = os.path.join(folder, "fifo")
    os.mkfifo(fifo)
    cases = [
        (["--tls-cert", good.certificate], "--tls-cert and --tls-key go together"),
        (["--tls-key", good.key], "--tls-cert and --tls-key go together"),
        (["--tls-cert", absent, "--tls-key", good.key], f"--tls-cert {absent} cannot be read: No"),
        (["--tls-cert", good.certificate, "--tls-key", absent], f"--tls-key {absent} cannot be"),
        (["--tls-cert", folder, "--tls-key", good.key], f"--tls-cert {folder} cannot be read"),
        (["--tls-cert", fifo, "--tls-key", good.key], f"--tls-cert {fifo} cannot be read"),
        (["--tls-cert", "/dev/zero", "--tls-key", good.key], "--tls-cert /dev/zero cannot be read"),
        (["--tls-cert", text, "--tls-key", good.key], f"--tls-cert {text} holds no certificate"),
        (["--tls-cert", empty, "--tls-key", good.key], f"--tls-cert {empty} holds no certificate"),
        (["--tls-cert", good.key, "--tls-key", good.key], "holds no certificate in PEM form"),
        (["--tls-cert", good.certificate, "--tls-key", good.certificate], "holds no private key"),
        (["--tls-cert", good.certificate, "--tls-key", locked], "without a passphrase"),
        (["--tls-cert", good.certificate, "--tls-key", other.key],
         f"--tls-key {other.key} does not belong to the certificate in {good.certificate}"),
    ]
    data = os.path.join(folder, "data")
    for options, says in cases:
        for more, wanted in (([], 1), (["--check-config"], 2)):
            code, out, errors = run("serve", "--listen", "127.0.0.1:0", "--data", data, *options,
                                    *more)
            check(code == wanted and says in errors and errors.count("\n") == 1 and not out,
                  f"{options} {more}: {code}, {out!r} {errors!r}")
        check(not os.path.exists(data), "it made a folder before it looked at the certificate")
    check(run("serve", "--check-config", "--data", data, *good.options())[0] == 0, "a good pair")

    # What is only dubious is served, and said.
    old = Pair(folder, "old", days=-1)
    os.chmod(old.key, 0o644)
    server = Server(folder, *old.options())
    check(Wire(server.port, blind()).ask("GET", "/readyz").status == 200, "an expired certificate")
    check("expired at" in server.said() and "everybody on this machine can read" in server.said(),
          f"no warnings: {server.said()}")
    check(server.stop() == 0, "the stop")


# --- versions and ciphers ---

def versions(folder):
    server = Server(folder, *Pair(folder, "good").options())
    rsa = Pair(folder, "rsa", kind="rsa")
    os.mkdir(os.path.join(folder, "second"))
    second = Server(os.path.join(folder, "second"), *rsa.options())

    def speaks(port, minimum, maximum, ciphers="ALL:@SECLEVEL=0"):
        context = blind()
        context.set_ciphers(ciphers)
        context.minimum_version, context.maximum_version = minimum, maximum
        try:
            wire = Wire(port, context, timeout=5)
        except (ssl.SSLError, ConnectionResetError):
            return None
        check(wire.ask("GET", "/livez").status == 200, "no answer")
        version = wire.socket.version()
        wire.close()
        return version

    class Old:
        """A server that takes anything, to see that this client would speak it."""

        def __enter__(self):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(rsa.certificate, rsa.key)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.port = self.socket.getsockname()[1]
            self.thread = threading.Thread(target=self.serve, args=(context,), daemon=True)
            self.thread.start()
            return self

        def serve(self, context):
            while True:
                try:
                    client = self.socket.accept()[0]
                except OSError:
                    return
                try:
                    client = context.wrap_socket(client, server_side=True)
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    client.recv(1)
                except OSError:
                    pass
                client.close()

        def __exit__(self, *_):
            self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    ours = ssl.TLSVersion
    weak = ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"]
    with Old() as old:
        for version in (ours.TLSv1, ours.TLSv1_1):
            check(speaks(old.port, version, version), f"this client cannot speak {version}")
            for port in (server.port, second.port):
                check(speaks(port, version, version) is None, f"{version} is spoken")
        for cipher in weak:
            named = cipher + ":@SECLEVEL=0"
            if cipher[:3] != "DHE":  # Python's server has no parameters for that
                check(speaks(old.port, ours.TLSv1_2, ours.TLSv1_2, named),
                      f"this client cannot {cipher}")
            check(speaks(second.port, ours.TLSv1_2, ours.TLSv1_2, named) is None,
                  f"{cipher} is spoken")
    for version in (ours.TLSv1_2, ours.TLSv1_3):
        for port in (server.port, second.port):
            check(speaks(port, version, version), f"{version} is not spoken")
    check(speaks(server.port, ours.TLSv1, ours.TLSv1_3) == "TLSv1.3", "not the best version")
    for cipher in ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"):
        check(speaks(second.port, ours.TLSv1_2, ours.TLSv1_2, cipher), f"{cipher} is not spoken")

    # SSL 3, which no library here speaks: its greeting, by hand.
    body = b"\x03\x00" + bytes(range(32)) + b"\x00" + b"\x00\x04\x00\x2f\x00\x35" + b"\x01\x00"
    hello = b"\x16\x03\x00" + (len(body) + 4).to_bytes(2, "big") + b"\x01" + \
        len(body).to_bytes(3, "big") + body
    wire = Wire(server.port)
    wire.send(hello)
    answer = wire.stream.read(1)
    check(answer in (b"", b"\x15"), f"SSL 3 is answered by {answer!r}")  # the end, or an alert
    check(server.stop() == 0 and second.stop() == 0, "the stop")


# --- who is believed ---

def trust(folder):
    good, other = Pair(folder, "good"), Pair(folder, "other")
    server = Server(folder, *good.options())
    check(server.url == f"https://127.0.0.1:{server.port}", f"it greets with {server.url}")

    def curl(*options):
        return subprocess.run(["curl", "-sS", "-m", "10", *options], capture_output=True,
                              text=True).returncode

    url = server.url + "/readyz"
    check(curl("--cacert", good.certificate, url) == 0, "curl --cacert fails")
    check(curl(url) == 60, "curl trusts anybody")
    check(curl("--cacert", other.certificate, url) == 60, "curl trusts another certificate")
    check(curl("--cacert", good.certificate, "--connect-to",
               f"elsewhere.example:443:127.0.0.1:{server.port}",
               "https://elsewhere.example/readyz") == 60, "curl trusts another name")
    for flag in ("--tlsv1.2", "--tlsv1.3"):
        check(curl(flag, "--cacert", good.certificate, url) == 0, f"curl {flag} fails")

    client = descent.Client(server.url, cafile=good.certificate)
    session = client.create({"w": np.arange(1031, dtype=np.float32)}, {"name": "sgd", "lr": 0.5},
                            id="trusted")
    session.step({"w": np.ones(1031, np.float32)})
    check(np.array_equal(session.parameters()["w"], np.arange(1031, dtype=np.float32) - 0.5),
          "the weights")
    check(descent.Client(server.url, context=good.context()).session("trusted").parameters(),
          "a context")
    for doubter in (descent.Client(server.url), descent.Client(server.url, cafile=other.certificate),
                    descent.Client(f"https://localhost.localdomain:{server.port}", retries=0)):
        start = time.monotonic()
        try:
            doubter.session("trusted").parameters()
        except descent.ConnectionFailed:
            check(time.monotonic() - start < 3, "it tries again and again")
        else:
            raise Failed("the Python client trusts anybody")

    check(run("health", "--listen", f"127.0.0.1:{server.port}", *good.options()) == (0, "", ""),
          "health over TLS")
    code, _, errors = run("health", "--listen", f"127.0.0.1:{server.port}")
    check(code == 1 and "is not ready" in errors, f"health without TLS: {code} {errors!r}")
    plain_folder = os.path.join(folder, "plain")
    os.mkdir(plain_folder)
    plain = Server(plain_folder)
    code, _, errors = run("health", "--listen", f"127.0.0.1:{plain.port}", *good.options())
    check(code == 1 and "TLS failed" in errors, f"health with TLS alone: {code} {errors!r}")
    check(server.stop() == 0 and plain.stop() == 0, "the stop")


# --- the same behind it ---

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


def slow_handshakes_hold_up_nobody(folder):
    good = Pair(folder, "good")
    server = Server(folder, *good.options())
    slow = [Wire(server.port) for _ in range(100)]
    for wire in slow:
        wire.send(b"\x16\x03\x01")
    start = time.monotonic()
    for _ in range(5):
        wire = Wire(server.port, good.context())
        check(wire.ask("GET", "/livez").status == 200, "no answer")
        wire.close()
    check(time.monotonic() - start < 5, "others wait for slow handshakes")
    start = time.monotonic()
    check(server.stop() == 0 and time.monotonic() - start < 10, "they hold up the stop")
    for wire in slow:
        wire.close()


# --- renewal ---

def renewal(folder):
    pairs = [Pair(folder, "a"), Pair(folder, "b", kind="rsa")]
    place = Pair(folder, "place")

    def put(pair, key=True):
        """In place by rename, as certbot does."""
        for name in ("certificate", "key") if key else ("certificate",):
            shutil.copy(getattr(pair, name), getattr(place, name) + ".new")
            os.rename(getattr(place, name) + ".new", getattr(place, name))

    put(pairs[0])
    server = Server(folder, *place.options(), "--log", "info")
    old = Wire(server.port, blind())
    check(shown(old) == pairs[0].digest(), "the certificate at the start")
    waiting = Wire(server.port)  # connected; its handshake comes later
    check(old.ask("GET", "/livez").status == 200, "a connection")
    put(pairs[1])
    server.hup()
    check(old.ask("GET", "/livez").status == 200, "a renewal drops connections")
    fresh = Wire(server.port, blind())
    check(shown(fresh) == pairs[1].digest(), "SIGHUP does not renew")
    late = blind().wrap_socket(waiting.socket, server_hostname="localhost")
    late.close()
    # Half a renewal is none, and is said.
    put(pairs[0], key=False)
    server.hup()
    check("does not belong to" in server.said() and "stays in use" in server.said(), "a mismatch")
    check(shown(Wire(server.port, blind())) == pairs[1].digest(), "a mismatch is served")
    os.unlink(place.certificate)
    server.hup()
    check(shown(Wire(server.port, blind())) == pairs[1].digest(), "an absent file is served")

    # Renewals without pause, under load: every handshake has one of the two, nothing is lost.
    put(pairs[0])
    stop, faults, handshakes = threading.Event(), [], [0]
    trusted = blind()

    def load():
        while not stop.is_set():
            try:
                wire = Wire(server.port, trusted)
                seen = shown(wire)
                for _ in range(3):
                    if wire.ask("GET", "/readyz").status != 200:
                        faults.append("a request fails")
                wire.close()
                if seen not in (pairs[0].digest(), pairs[1].digest()):
                    faults.append("another certificate")
                handshakes[0] += 1
            except Exception as error:
                faults.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    until, renewals = time.monotonic() + 2, 0
    while time.monotonic() < until:
        put(pairs[renewals % 2])
        server.tell(signal.SIGHUP)
        renewals += 1
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    check(not faults, f"{len(faults)} faults, the first: {faults[0] if faults else ''}")
    check(handshakes[0] > 20 and renewals > 20, f"{handshakes[0]} handshakes, {renewals} renewals")
    print(f"{handshakes[0]} handshakes amid {renewals} renewals")
    put(pairs[0])
    server.hup()
    within(5, lambda: shown(Wire(server.port, blind())) == pairs[0].digest(), "the last renewal")
    check(old.ask("GET", "/livez").status == 200, "the first connection is gone")
    check(server.stop() == 0, "the stop")


main(wrong_files, versions, trust, odd_requests, large_bodies, deadlines,
     slow_handshakes_hold_up_nobody, renewal)
