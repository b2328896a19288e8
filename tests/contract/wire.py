"""A server of one's own, and a client that can send anything, over connections that stay open."""
import os
import shutil
import socket
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402

TIMEOUT_S = 60


class Server(running.Server):
    """A process with a data folder of its own; both are gone after close()."""

    def __init__(self, *options, **more):
        self.folder = tempfile.mkdtemp(prefix="descent-contract-")
        super().__init__(self.folder, *options, **more)

    def alive(self):
        return self.process.poll() is None

    def close(self):
        """SIGTERM; the exit status."""
        try:
            return self.stop(seconds=TIMEOUT_S)
        finally:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


class Closed(Exception):
    """The other side has closed, or said what is no HTTP."""


class Client:
    """One connection, opened anew where the server has closed it."""

    def __init__(self, port):
        self.port, self.socket, self.rest = port, None, b""

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.rest = None, b""

    def connect(self):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method, target, headers=(), body=None):
        """headers: (name, value) pairs; Host and Content-Length are added."""
        lines = ["%s %s HTTP/1.1" % (method, target), "Host: 127.0.0.1"]
        lines += ["%s: %s" % pair for pair in headers]
        if body is not None:
            lines.append("Content-Length: %d" % len(body))
        data = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")
        fresh = self.socket is None
        try:
            return self.exchange(data, method)
        except (Closed, ConnectionError):
            self.close()
            if fresh:
                raise
        return self.exchange(data, method)  # an idle connection may have been closed meanwhile

    def exchange(self, data, method):
        self.connect()
        self.socket.sendall(data)
        answer = self.receive(method == "HEAD")
        if (answer.header("Connection") or "").lower() == "close":
            self.close()
        return answer

    def more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise Closed("closed after %r" % self.rest[:200])
        self.rest += data

    def line(self):
        while b"\r\n" not in self.rest:
            self.more()
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line.decode("latin-1")

    def take(self, size):
        while len(self.rest) < size:
            self.more()
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def receive(self, to_head=False, whole=True):
        """The next answer; not `whole`: of a chunked one the first piece only, and the rest is left there."""
        while True:
            words = self.line().split(" ", 2)
            if len(words) < 2 or words[0] != "HTTP/1.1" or not words[1].isdigit():
                raise Closed("no HTTP: %r" % words)
            status = int(words[1])
            headers = []
            while True:
                line = self.line()
                if not line:
                    break
                name, _, value = line.partition(":")
                headers.append((name, value.strip()))
            if status >= 200:
                break
        answer = Answer(status, headers, b"")
        if to_head or status in (204, 304):
            return answer
        if (answer.header("Transfer-Encoding") or "").lower() == "chunked":
            while True:
                size = int(self.line().split(";")[0], 16)
                answer.body += self.take(size)
                self.line()
                if size == 0 or not whole:
                    return answer
        answer.body = self.take(int(answer.header("Content-Length") or 0))
        return answer
