#!/usr/bin/env python3
"""Who may do what, from outside: when a server asks for tokens, what it does with a file of tokens that changes, breaks
or goes, and that no token is ever written anywhere: not to the log at its most talkative, not to the file of tokens, not
to the database."""
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BINARY = os.environ.get("DESCENT_BINARY", "build/descent")
SESSION = {"optimizer": "sgd", "parameters": {"w": [1, 2]}}
failures = []


def check(condition, words):
    if not condition:
        failures.append(words)
        print("FAILED:", words, flush=True)


class Server:
    """A server with these options; `listen` may be any address, it is asked on 127.0.0.1."""

    started = []

    def __init__(self, folder, *options, listen="127.0.0.1:0"):
        self.log = tempfile.NamedTemporaryFile(dir=folder, prefix="log-", delete=False)
        self.process = subprocess.Popen(
            [BINARY, "serve", "--listen", listen, *options], stdout=subprocess.PIPE,
            stderr=self.log, text=True)
        Server.started.append(self)
        line = self.process.stdout.readline()
        assert line.startswith("descent listening on "), (line, self.said())
        self.port = int(line.rsplit(":", 1)[1])

    def ask(self, token=None, method="GET", path="/v1/sessions", body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": "Bearer " + token} if token else {}
        if body is not None:
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def status(self, token=None):
        return self.ask(token)[0]

    def becomes(self, token, status):
        """Whether that is the answer within two seconds."""
        end = time.monotonic() + 2
        while self.status(token) != status:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def said(self):
        return pathlib.Path(self.log.name).read_text()

    def says(self, words):
        end = time.monotonic() + 5
        while words not in self.said():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(30) == 0, "the server ended in disorder")
        self.process.stdout.close()


def command(*arguments, good=True):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=60)
    check((done.returncode == 0) == good, "%s: %d %s" % (arguments, done.returncode, done.stderr))
    return done


def create(data, *options):
    """(token, id): stdout has the token alone, stderr the rest, and not the token."""
    done = command("token", "create", "--data", data, *options)
    token = done.stdout.strip()
    check(re.fullmatch("dsc_[a-z2-7]{52}", token) and done.stdout == token + "\n", done.stdout)
    check(token not in done.stderr, "stderr has the token")
    return token, re.search("tok_[a-z0-9]+", done.stderr).group()


def refused(*options):
    """What a server says that does not start; nothing listens then."""
    done = subprocess.run([BINARY, "serve", *options], capture_output=True, text=True, timeout=60)
    check(done.returncode != 0 and done.stdout == "", "%s started: %s" % (options, done.stdout))
    return done.stderr


def modes(folder):
    """Asked for elsewhere, not on loopback, and never off by accident."""
    data = folder + "/modes"
    everywhere = "0.0.0.0:0"
    for listen, options, asks in (
            ("127.0.0.1:0", [], False), ("localhost:0", [], False),
            ("127.0.0.1:0", ["--auth", "on"], True), ("127.0.0.1:0", ["--auth", "off"], False),
            ("127.0.0.1:0", ["--insecure"], False),
            ("127.0.0.1:0", ["--auth", "on", "--insecure"], True),
            (everywhere, [], True), (everywhere, ["--auth", "on"], True),
            (everywhere, ["--insecure"], False),
            (everywhere, ["--auth", "off", "--insecure"], False),
            (everywhere, ["--auth", "on", "--insecure"], True)):
        server = Server(folder, "--data", data, *options, listen=listen)
        words = "%s %s" % (listen, options)
        check(server.status() == (401 if asks else 200), words)
        check(server.ask(path="/readyz")[0] == 200, words)
        warns = "descent token create --data %s" % data in server.said()
        check(warns == asks, "%s says: %s" % (words, server.said()))
        check(("--insecure" in server.said()) == (listen == everywhere and not asks), words)
        server.stop()
    says = refused("--data", data, "--listen", everywhere, "--auth", "off")
    check("--insecure" in says and "descent token create" in says, says)
    says = refused("--data", "memory:", "--listen", everywhere)
    check("--tokens FILE" in says, says)
    says = refused("--data", data, "--auth", "maybe")
    check("auto, on or off" in says, says)
    tokens = folder + "/elsewhere.json"
    server = Server(folder, "--data", "memory:", "--tokens", tokens, "--auth", "on")
    token = command("token", "create", "--tokens", tokens).stdout.strip()
    check(server.status(token) == 200, "--tokens beside memory:")
    server.stop()
    with open(tokens, "w") as file:
        file.write("{")
    says = refused("--data", "memory:", "--tokens", tokens, "--auth", "on")
    check(tokens in says, says)


def changes(folder):
    """The running server takes up what is made and revoked, and keeps what it has when the file is no good."""
    data = folder + "/changes"
    path = pathlib.Path(data, "tokens.json")
    server = Server(folder, "--data", data, "--auth", "on")
    one, one_id = create(data)
    check(server.status(one) == 200, "a new token is not known at once")
    two, two_id = create(data, "--name", "second")
    command("token", "revoke", two_id, "--data", data)
    check(server.becomes(two, 401), "what was revoked goes on")
    check(server.status(one) == 200, "revoking one took another")
    good = path.read_bytes()
    for bad in (b"", b"{", good[:-4], good.replace(b"tok_", b"tik_"), good.replace(b"sha256", b"sha257")):
        before = server.said().count("the tokens stay as they were")
        path.write_bytes(bad)
        end = time.monotonic() + 5
        while server.said().count("the tokens stay as they were") == before and time.monotonic() < end:
            time.sleep(0.02)
        check(server.said().count("the tokens stay as they were") == before + 1, "no word about %r" % bad)
        check(server.status(one) == 200, "a bad file ended access")
        time.sleep(0.6)
        check(server.said().count("the tokens stay as they were") == before + 1, "it is said twice")
    path.unlink()
    check(server.says("tokens.json is gone"), "no word about a file that is gone")
    check(server.status(one) == 200, "a file that is gone ended access")
    path.write_bytes(good)
    path.chmod(0o600)
    before = server.said().count("tokens now")
    server.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 5
    while server.said().count("tokens now") == before and time.monotonic() < end:
        time.sleep(0.02)
    check(server.said().count("tokens now") > before, "SIGHUP was not heard")
    for _ in range(20):
        server.process.send_signal(signal.SIGHUP)
    check(server.status(one) == 200, "SIGHUP ended access")
    command("token", "revoke", one_id, "--data", data)
    check(server.becomes(one, 401), "what was revoked goes on")
    server.stop()

    server = Server(folder, "--data", data)  # asks nobody, and does not die of SIGHUP
    server.process.send_signal(signal.SIGHUP)
    check(server.status() == 200, "SIGHUP ended the server")
    server.stop()


def no_descriptors(folder):
    """What is revoked while no file can be opened ends as soon as one can; meanwhile that is said once."""
    data = folder + "/no-descriptors"
    token, name = create(data)
    server = Server(folder, "--data", data, "--auth", "on")
    check(server.status(token) == 200, "a good token")
    pid = server.process.pid
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, limit[1]))
    command("token", "revoke", name, "--data", data)
    check(server.says("the tokens stay as they were"), "no word about a file that cannot be opened")
    time.sleep(1.2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    check(server.said().count("the tokens stay as they were") == 1, "it is said twice")
    check(server.becomes(token, 401), "what was revoked goes on")
    server.stop()


def secrets(folder):
    """No token, good or bad, is anywhere but in the answer of `create`."""
    data = folder + "/secrets"
    server = Server(folder, "--data", data, "--auth", "on", "--log", "debug")
    good, _ = create(data, "--tenant", "acme")
    low, _ = create(data, "--scopes", "read")
    late, _ = create(data, "--expires-s", "1")
    unknown = "dsc_" + "a" * 51 + "q"
    odd = "not-the-form-of-a-token-0123456789"
    time.sleep(1.1)
    for token in (good, low, late, unknown, odd):
        server.ask(token)
        server.ask(token, "PUT", "/v1/sessions/s", SESSION)
        server.ask(token, "POST", "/v1/sessions/s/gradients", {"gradients": {"w": [1, 1]}})
        server.ask(token, "POST", "/v1/sessions/s/gradients", {"gradients": {"w": [1]}})
        server.ask(token, "GET", "/v1/sessions/none/state")
        server.ask(token, "BREW", "/v1/sessions")
        server.ask(token, "GET", "/v1/sessions?page_size=" + "x")
    check(server.status(good) == 200 and server.status(late) == 401, "the tokens are not as thought")
    server.stop()
    said = server.said()
    check(all("status=%d" % status in said for status in (200, 401, 403)), "the log does not say what was asked")
    places = {"the log": said.encode()}
    for path in pathlib.Path(data).iterdir():
        places[path.name] = path.read_bytes()
    check("tokens.json" in places and "descent.db" in places, "what is in the folder: %s" % list(places))
    for token in (good, low, late, unknown, odd):
        for place, data_there in places.items():
            for part in (token, token[4:], token[4:24]):
                check(part.encode() not in data_there, "%s has a token" % place)
    check(b"acme/s" in places["descent.db"], "the search finds nothing in the database")
    for path in pathlib.Path(data).glob("tokens.json*"):
        check(path.stat().st_mode & 0o077 == 0, "%s can be read by others" % path.name)


def main():
    folder = tempfile.mkdtemp(prefix="descent-access-")
    try:
        for test in (modes, changes, no_descriptors, secrets):
            print(test.__name__, flush=True)
            test(folder)
    finally:
        for server in Server.started:
            server.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print("access:", "%d failures" % len(failures) if failures else "all well")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
