"""The server under test: started, killed, stopped, started again on the same port and folder, and what it uses."""
import http.client
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import check  # noqa: E402


class Server(running.Server):
    """`generation` counts the starts. `away` is set from before the end of one to after the begin of the next:
    meanwhile lost connections, and 503 while it drains, are what clients expect."""

    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.port = 0
        self.generation = 0
        self.away = threading.Event()
        self.ready = threading.Event()
        self.start()

    def start(self):
        super().__init__(self.folder, "--log", "warning", *self.options, listen=f"127.0.0.1:{self.port}")
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
        self.link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=90)
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
                self.link.request(method, path, body, headers or {})
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
