"""The server under test: started, killed, stopped, started again on the same port and folder, and what it uses."""
import http.client
import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import check  # noqa: E402


class Plain:
    """A server whoever reaches it may use."""
    options, headers, context = [], {}, None


class Secure:
    """TLS by a certificate of our own, a token, and a line of log for every request."""

    def __init__(self, folder):
        from certificates import Pair  # needs openssl
        pair = Pair(folder, "tls")
        code, token, errors = running.run("token", "create", "--data", os.path.join(folder, "data"), "--name", "soak",
                                          "--tenant", "soak", "--scopes", "admin")
        check(code == 0, errors)
        self.options = ["--auth", "on", "--log-requests", *pair.options()]
        self.headers = {"Authorization": "Bearer " + token.strip()}
        self.context = pair.context()


class Server(running.Server):
    """`generation` counts the starts. `away` is set from before the end of one to after the begin of the next:
    meanwhile lost connections, and 503 while it drains, are what clients expect. `guard`: Plain or Secure."""

    def __init__(self, folder, options, guard):
        self.folder, self.guard = folder, guard
        self.lines = os.path.join(folder, "lines")
        self.options = [*options, *guard.options, "--log-file", self.lines]
        self.headers = guard.headers
        self.errors = []
        self.port = 0
        self.generation = 0
        self.away = threading.Event()
        self.ready = threading.Event()
        self.start()

    def start(self):
        super().__init__(self.folder, *self.options, listen=f"127.0.0.1:{self.port}")
        while True:
            link = self.connect(timeout=10)
            try:
                link.request("GET", "/readyz")
                if link.getresponse().status == 200:
                    break
            except OSError:
                check(self.process.poll() is None, "the server ended while it started")
            finally:
                link.close()
            time.sleep(0.02)
        self.generation += 1
        self.ready.set()
        self.away.clear()

    def connect(self, timeout=60):
        if self.guard.context is None:
            return super().connect(timeout)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.guard.context)

    def rotate(self):
        """Moves the log away, as its users do; the one before is whole by now, and is looked through."""
        self.look_for_errors(self.lines + ".old")
        os.rename(self.lines, self.lines + ".old")
        self.tell(signal.SIGHUP)

    def look_for_errors(self, path):
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as log:  # 503: it drained
                self.errors += [line for line in log if line[27:].startswith(" error ") and "status=503" not in line]

    def end(self, how):
        """Ends it; the exit status that it had."""
        self.away.set()
        self.ready.clear()
        return self.stop(how, seconds=60)

    def use(self):
        """What the process holds: resident bytes, threads, descriptors; bytes in the folder."""
        pid, fields = self.process.pid, {}
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                fields[name] = value.split()
        disk = 0
        data = os.path.join(self.folder, "data")
        for name in os.listdir(data):
            try:
                disk += os.stat(os.path.join(data, name)).st_size
            except FileNotFoundError:
                pass
        return {"rss": int(fields["VmRSS"][0]) * 1024, "threads": int(fields["Threads"][0]),
                "files": len(os.listdir(f"/proc/{pid}/fd")), "disk": disk}


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
        self.link = self.server.connect(90)
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
