"""What the scripts share: a server process, requests, raw ones too, and failing in words."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("DESCENT_BINARY", os.path.join(ROOT, "build", "descent"))
WAIT_S = 30  # for what should come at once


# Options in the environment of whoever runs the tests are none of ours.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("DESCENT_")}


class Failed(Exception):
    pass


def check(condition, words):
    if not condition:
        raise Failed(words)


def within(seconds, condition, words):
    """Waits until condition() is true and returns what it gave."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < until, words() if callable(words) else words)
        time.sleep(0.01)


class Server:
    """A server process: its url and port as it says them, its stderr in FOLDER/log, its data in
    FOLDER/data or where else it is told."""

    before = 0  # bytes in the log that others wrote

    def __init__(self, folder, *options, listen="127.0.0.1:0", data=None, binary=BINARY, **popen):
        self.log = os.path.join(folder, "log")
        popen.setdefault("env", CLEAN)
        with open(self.log, "ab") as log:
            self.before = log.tell()
            popen.setdefault("stderr", log)
            self.process = subprocess.Popen(
                [binary, "serve", "--listen", listen, "--data",
                 data or os.path.join(folder, "data"), *options], stdout=subprocess.PIPE,
                text=True, **popen)
        RUNNING.append(self)
        line = self.process.stdout.readline()
        check(line.startswith("descent listening on "), f"it does not start: {self.said()}")
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def said(self):
        with open(self.log) as log:
            log.seek(self.before)
            return log.read()

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def memory_mb(self, which="VmRSS"):
        """VmRSS: now; VmHWM: the most there ever was."""
        with open(f"/proc/{self.process.pid}/status") as lines:
            return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(which))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def tell(self, number):
        self.process.send_signal(number)

    def hup(self):
        """SIGHUP, and waits until it was done."""
        before = self.reloads()
        self.tell(signal.SIGHUP)
        within(WAIT_S, lambda: self.reloads() > before, "SIGHUP is not answered in the log")

    def reloads(self):
        return self.said().count("reloaded")

    def wait(self, seconds=WAIT_S):
        code = self.process.wait(seconds)
        self.process.stdout.close()
        return code

    def stop(self, number=signal.SIGTERM, seconds=WAIT_S):
        self.tell(number)
        return self.wait(seconds)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


RUNNING = []


def run(*arguments, **options):
    """The binary to its end: (exit status, stdout, stderr)."""
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True,
                          **{"env": CLEAN, "timeout": WAIT_S, **options})
    return done.returncode, done.stdout, done.stderr


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def code(self):
        """The stable code of a problem document, or None."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return json.loads(self.body)["code"]


def receive(stream, to_head=False):
    """The next answer on a binary file, final ones only; None when the other side has closed."""
    while True:
        line = stream.readline()
        if not line:
            return None
        status = int(line.split()[1])
        headers = {}
        for line in iter(stream.readline, b"\r\n"):
            check(line.endswith(b"\r\n"), f"the header ends in {line!r}")
            name, value = line.decode().split(":", 1)
            headers[name.lower()] = value.strip()
        if status >= 200:
            break
    body = b""
    if to_head or status in (204, 304):
        pass
    elif headers.get("transfer-encoding") == "chunked":
        while True:
            size = int(stream.readline(), 16)
            body += stream.read(size)
            check(stream.readline() == b"\r\n", "a chunk has no end")
            if size == 0:
                break
    else:
        body = stream.read(int(headers.get("content-length", 0)))
        check(len(body) == int(headers.get("content-length", 0)), "the body is cut off")
    return Answer(status, headers, body)


class Wire:
    """A connection on which anything can be sent, plain or with TLS."""

    def __init__(self, port, context=None, name="localhost", timeout=WAIT_S):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            try:
                self.socket = context.wrap_socket(self.socket, server_hostname=name)
            except BaseException:
                self.socket.close()
                raise
        self.stream = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, to_head=False):
        return receive(self.stream, to_head)

    def ask(self, method, path, body=b"", **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = self.receive(method == "HEAD")
        check(answer is not None, f"{method} {path}: closed without an answer")
        return answer

    def at_end(self):
        """Whether the other side closes, and says nothing more."""
        try:
            return self.stream.read(1) == b""
        except socket.timeout:
            return False
        except OSError:
            return True  # a reset, or TLS without its last word

    def close(self):
        self.stream.close()
        self.socket.close()


def main(*tests):
    """Runs the tests, each with a folder of its own; the exit status says whether all passed."""
    for test in tests:
        folder = tempfile.mkdtemp(prefix="descent-" + test.__name__ + "-")
        start = time.monotonic()
        try:
            test(folder)
            print(f"{test.__name__}: passed, {time.monotonic() - start:.1f} s", flush=True)
        except Failed as failure:
            if RUNNING:
                print("the server's last words:", *RUNNING[-1].said().splitlines()[-12:], sep="\n  ")
            sys.exit(f"{test.__name__}: {failure}")
        finally:
            for server in RUNNING:
                server.kill()
            RUNNING.clear()
            shutil.rmtree(folder, ignore_errors=True)
