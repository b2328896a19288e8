"""The server under test: started, killed, stopped, started again on the same port and folder, and what it uses."""
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import BINARY, CLEAN  # noqa: E402


class Plain:
    """A server whoever reaches it may use."""
    options, headers, context = [], {}, None


class Secure:
    """TLS by a certificate of our own, a token, and a line of log for every request."""

    def __init__(self, root, data):
        certificate, key = os.path.join(root, "tls.pem"), os.path.join(root, "tls.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        os.chmod(key, 0o600)
        token = subprocess.run([BINARY, "token", "create", "--data", data, "--name", "soak", "--tenant", "soak",
                                "--scopes", "admin"], check=True, capture_output=True, env=CLEAN, text=True)
        self.options = ["--auth", "on", "--tls-cert", certificate, "--tls-key", key, "--log-requests"]
        self.headers = {"Authorization": "Bearer " + token.stdout.strip()}
        self.context = ssl.create_default_context(cafile=certificate)


class Server:
    """`generation` counts the starts. `away` is set from before the end of one to after the begin of the next:
    meanwhile lost connections, and 503 while it drains, are what clients expect. `guard`: Plain or Secure."""

    def __init__(self, folder, options, guard):
        self.folder, self.guard = folder, guard
        self.options = options + guard.options
        self.headers = guard.headers
        self.port = 0
        self.generation = 0
        self.away = threading.Event()
        self.ready = threading.Event()
        self.log = os.path.join(folder, "..", "server.log")
        self.errors = []
        self.start()

    def link(self, timeout):
        """A connection that is not open yet."""
        if self.guard.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.guard.context)

    def rotate(self):
        """Moves the log away, as its users do, and looks through what was written."""
        if os.path.exists(self.log):
            os.rename(self.log, self.log + ".old")
            self.process.send_signal(signal.SIGHUP)
            self.look_for_errors(self.log + ".old")

    def look_for_errors(self, path):
        with open(path, encoding="utf-8", errors="replace") as log:  # 503: it drained
            self.errors += [line for line in log if line[27:].startswith(" error ") and "status=503" not in line]

    def start(self):
        self.process = subprocess.Popen(
            [BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--log-file", self.log, "--data", self.folder,
             *self.options], stdout=subprocess.PIPE, env=CLEAN)
        line = self.process.stdout.readline().decode()
        if not line.startswith("descent listening on "):
            raise RuntimeError(f"the server does not start: {line!r}")
        self.port = int(line.rsplit(":", 1)[1])
        while True:
            link = self.link(10)
            try:
                link.request("GET", "/readyz")
                if link.getresponse().status == 200:
                    break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("the server ended while it started") from None
            finally:
                link.close()
            time.sleep(0.02)
        self.generation += 1
        self.ready.set()
        self.away.clear()

    def end(self, how):
        """Ends it; the exit status that it had."""
        self.away.set()
        self.ready.clear()
        self.process.send_signal(how)
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    def verify(self):
        return subprocess.run([BINARY, "verify", "--data", self.folder], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=CLEAN, check=False, text=True)

    def use(self):
        """What the process holds: resident bytes, threads, descriptors; bytes in the folder."""
        pid, fields = self.process.pid, {}
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                fields[name] = value.split()
        disk = 0
        for name in os.listdir(self.folder):
            try:
                disk += os.stat(os.path.join(self.folder, name)).st_size
            except FileNotFoundError:
                pass
        return {"rss": int(fields["VmRSS"][0]) * 1024, "threads": int(fields["Threads"][0]),
                "files": len(os.listdir(f"/proc/{pid}/fd")), "disk": disk}

    def leave_nothing(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Stopped(Exception):
    """The time is over."""


class Unexpected(Exception):
    """An answer that no client should get."""


class Tally:
    """What all clients count together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.requests = 0
        self.codes = {}
        self.steps = 0
        self.complaints = []
        self.worst = 0.0

    def count(self, status, seconds):
        with self.lock:
            self.requests += 1
            self.codes[status] = self.codes.get(status, 0) + 1
            self.worst = max(self.worst, seconds)

    def complain(self, words):
        with self.lock:
            self.complaints.append(words)


class Client:
    """One connection that survives the ends of the server. A request whose answer was lost is sent again, so what
    it does must be the same twice."""

    def __init__(self, server, tally):
        self.server, self.tally = server, tally
        self.link = None
        self.generation = -1

    def connect(self):
        while not self.server.ready.wait(0.1):
            if self.tally.stopping.is_set():
                raise Stopped
        self.generation = self.server.generation
        self.link = self.server.link(90)
        self.link.connect()
        self.link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        if self.link is not None:
            self.link.close()
            self.link = None

    def rest(self, seconds):
        if self.tally.stopping.wait(seconds):
            raise Stopped

    def excused(self):
        return self.server.away.is_set() or self.generation != self.server.generation

    def call(self, method, path, body=None, headers=None, expect=(200,)):
        """Status, header, body of the answer. Tries until there is one that no restart is to blame for."""
        while True:
            if self.tally.stopping.is_set():
                raise Stopped
            begin = time.monotonic()
            try:
                if self.link is None:
                    self.connect()
                self.link.request(method, path, body, {**self.server.headers, **(headers or {})})
                answer = self.link.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not self.excused():
                    time.sleep(0.3)  # the connection may be lost before we know why
                if not self.excused() and not self.tally.stopping.is_set():
                    raise Unexpected(f"{method} {path}: {error!r}") from error
                continue
            if answer.status == 503 and b'"draining"' in data and self.excused():
                self.close()
                self.rest(0.05)
                continue
            self.tally.count(answer.status, time.monotonic() - begin)
            if answer.status not in expect:
                raise Unexpected(f"{method} {path}: {answer.status} {data[:300]!r}")
            return answer.status, answer.headers, data
