"""The server under test over all its lives, and the requests that go to it."""
import http.client
import json
import os
import signal
import subprocess
import threading
import time


class Down(Exception):
    """No answer: the server is gone or going."""


class Broken(Exception):
    """A promise was not kept."""


failures = []


def check(condition, words):
    if not condition:
        failures.append(words)
        print("FAILED:", words, flush=True)
        raise Broken(words)


class Server:
    """The process. A life has a number; clients are let in when the life before was looked over."""

    def __init__(self, binary, folder, *options):
        self.binary, self.options = binary, options
        self.data = os.path.join(folder, "data")
        self.log_path = os.path.join(folder, "log")
        self.process, self.port, self.life = None, None, 0
        self.open_port = None  # what clients see
        self.died_at = 0.0
        self.disk_fails = False  # on purpose: then a 503 may say so
        self.changed = threading.Condition()

    def start(self, point=None, data=None, bug=os.environ.get("DESCENT_BUG", "")):
        """Starts a life; True when it greets, False when it died before that."""
        environment = {**os.environ, "DESCENT_POINT": point or "", "DESCENT_BUG": bug}
        self.life += 1
        self.begun = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--listen", "127.0.0.1:0", "--log", "info",
                 "--data", data or self.data, *self.options],
                stdout=subprocess.PIPE, stderr=log, env=environment)
        line = self.process.stdout.readline().decode()
        if line == "" and self.await_death(10) == -signal.SIGKILL:
            return False
        check(line.startswith("descent listening on http://"), f"no greeting but {line!r}")
        self.port = int(line.rsplit(":", 1)[1])
        return True

    def announce(self):
        with self.changed:
            self.open_port = self.port
            self.changed.notify_all()

    def await_death(self, seconds):
        """The exit code, or None when it still lives after so long."""
        until, code = time.monotonic() + seconds, None
        while code is None and time.monotonic() < until and not failures:
            try:
                code = self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
        if code is None:
            return None
        with self.changed:
            self.open_port = None
            self.died_at = time.monotonic()
        self.process.stdout.close()
        return code

    def end(self, number):
        with self.changed:
            self.open_port = None
        self.process.send_signal(number)
        code = self.await_death(60)
        check(code is not None, f"signal {number} did not end the server")
        return code

    def leave_nothing(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def connect(self):
        """A connection to the present life, and its number; waits while there is none."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.open_port is not None or failures, 60):
                raise Broken("the server did not come back")
            if failures:
                raise Broken("given up")
            return self.open_port, self.life


class Wire:
    """Requests of one thread over one connection at a time. `direct`: also before clients may."""

    PATIENCE_S = 25

    def __init__(self, server, direct=False):
        self.server, self.direct = server, direct
        self.connection, self.life = None, 0
        self.cut_off = (0, 0.0)  # the life that ended under a request, and how long that had waited

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def once(self, method, path, body=None, headers=()):
        begun = time.monotonic()
        try:
            if self.connection is None:
                port, self.life = ((self.server.port, self.server.life) if self.direct
                                   else self.server.connect())
                self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            begun = time.monotonic()
            self.connection.request(method, path, body, dict(headers))
            response = self.connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.cut_off = (self.life, time.monotonic() - begun)
            self.close()
            time.sleep(0.005)
            raise Down(str(error)) from None
        if response.status == 503:
            check(json.loads(data)["code"] != "storage_failed" or self.server.disk_fails,
                  f"{method} {path}: {data}")
            raise Down("503")
        check(response.status < 500, f"{method} {path} gave {response.status} {data[:300]}")
        return response.status, data, response.headers

    def until_answered(self, method, path, body=None, headers=(), unsure=None):
        """Repeats until there is an answer; `unsure` is called when one may have been lost."""
        give_up = time.monotonic() + self.PATIENCE_S
        while True:
            check(time.monotonic() < give_up, f"{method} {path}: no answer in {self.PATIENCE_S} s")
            try:
                answer = self.once(method, path, body, headers)
            except Down:
                if unsure is not None:
                    unsure()
                continue
            if answer[0] == 409 and json.loads(answer[1])["code"] == "idempotency_in_flight":
                time.sleep(0.005)
                continue
            return answer
