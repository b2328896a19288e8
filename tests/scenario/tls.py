#!/usr/bin/env python3
"""TLS: what is refused before the server starts, which versions and ciphers it speaks, who is
believed, and how a certificate is renewed. What is behind it: tls_requests.py."""
import os
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
from certificates import Pair, blind, openssl, shown
from running import Failed, Server, Wire, check, main, run, within

warnings.filterwarnings("ignore", category=DeprecationWarning)  # we want old versions of TLS


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


# --- who waits for whom ---

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


main(wrong_files, versions, trust, slow_handshakes_hold_up_nobody, renewal)
