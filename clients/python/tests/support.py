"""What the tests share: a live server, a proxy that loses answers, and the package as it is without
numpy."""

import atexit
import http.client
import http.server
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients" / "python"))

_started = None


class OwnServer:
    """build/descent (or $DESCENT_BINARY) on a free port, with a folder of its own."""

    def __init__(self, *options):
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="descent-python-")
        self.listen = "127.0.0.1:0"
        atexit.register(self.close)
        self.start()

    def start(self):
        binary = os.environ.get("DESCENT_BINARY", str(ROOT / "build" / "descent"))
        self.process = subprocess.Popen(
            [
                binary,
                "serve",
                "--listen",
                self.listen,
                "--data",
                self.folder + "/data",
                "--log",
                "error",
                *self.options,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        prefix = "descent listening on "
        if not line.startswith(prefix):
            raise RuntimeError("the server said %r and not where it listens" % line)
        self.url = line[len(prefix) :].strip()
        self.listen = self.url.split("//")[1]  # after a restart: the same port

    def token(self, *options):
        """A new token of this server."""
        binary = os.environ.get("DESCENT_BINARY", str(ROOT / "build" / "descent"))
        made = subprocess.run(
            [binary, "token", "create", "--data", self.folder + "/data", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        return made.stdout.strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def server_url():
    """$DESCENT_URL, or a server started for all tests of this run."""
    global _started
    if os.environ.get("DESCENT_URL"):
        return os.environ["DESCENT_URL"]
    if _started is None:
        _started = OwnServer()
    return _started.url


def descent_with(numpy):
    """The package as imported where numpy is or is not installed; None where numpy is wanted and
    absent."""
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name == "descent" or name.startswith("descent.")
    }
    for name in hidden:
        del sys.modules[name]
    real = sys.modules.get("numpy")
    if not numpy:
        sys.modules["numpy"] = None  # makes `import numpy` raise ImportError
    try:
        package = importlib.import_module("descent")
        tensors = importlib.import_module("descent.tensors")
        importlib.import_module("descent.safetensors")
        return package if bool(tensors.numpy) == numpy else None
    finally:
        for name in [
            name for name in sys.modules if name == "descent" or name.startswith("descent.")
        ]:
            del sys.modules[name]
        sys.modules.update(hidden)
        if not numpy:
            del sys.modules["numpy"]
            if real is not None:
                sys.modules["numpy"] = real


class FlakyProxy:
    """Stands between client and server and does to request i what plan[i] says; past the plan
    everything passes.

    "pass"      deliver the request and the answer
    "lose"      deliver the request, wait for the answer, then drop the connection without giving it
    "refuse"    drop the connection, delivering nothing
    "hang up"   deliver both, then close the kept connection without a word
    (status, headers, body)   answer this, delivering nothing
    """

    def __init__(self, upstream, plan=()):
        self.plan = list(plan)
        self.seen = []  # (method, path, action)
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def relay(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                action = proxy.plan.pop(0) if proxy.plan else "pass"
                proxy.seen.append((self.command, self.path, action))
                if isinstance(action, tuple):
                    return self.answer(*action)
                if action != "refuse":
                    answer = deliver(upstream, self.command, self.path, body, self.headers)
                    if action != "lose":
                        self.answer(*answer)
                if action != "pass":
                    self.close_connection = True

            def answer(self, status, headers, body):
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                if status not in (204, 304):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def deliver(upstream, method, path, body, headers):
    """One request to the real server on a connection of its own: (status, headers, body)."""
    parts = urllib.parse.urlsplit(upstream)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        names = ("host", "connection", "content-length", "accept-encoding")
        kept = {name: value for name, value in headers.items() if name.lower() not in names}
        connection.request(method, path, body or None, kept)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()
