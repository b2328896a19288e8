#!/usr/bin/env python3
"""Who may do what, from outside: when a server asks for tokens, what it does with a file of tokens that changes, breaks
or goes, and that no token is ever written anywhere: not to the log at its most talkative, not to the file of tokens, not
to the database."""
import json
import os
import pathlib
import re
import resource
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import check, main, run, within  # noqa: E402

SESSION = {"optimizer": "sgd", "parameters": {"w": [1, 2]}}


class Server(running.Server):
    """A server with these options; `listen` may be any address, it is asked on 127.0.0.1."""

    def ask(self, token=None, method="GET", path="/v1/sessions", body=None):
        connection = self.connect()
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
        within(2, lambda: self.status(token) == status, f"it does not become {status}")

    def says(self, words, times=None):
        within(5, lambda: self.said().count(words) >= (times or 1), f"it does not say {words}")
        check(times in (None, self.said().count(words)), f"it says {words} more often")

    def end(self):
        check(self.stop() == 0, "the server ended in disorder")


def command(*arguments):
    code, out, errors = run(*arguments)
    check(code == 0, "%s: %d %s" % (arguments, code, errors))
    return out, errors


def create(data, *options):
    """(token, id): stdout has the token alone, stderr the rest, and not the token."""
    out, errors = command("token", "create", "--data", data, *options)
    token = out.strip()
    check(re.fullmatch("dsc_[a-z2-7]{52}", token) and out == token + "\n", out)
    check(token not in errors, "stderr has the token")
    return token, re.search("tok_[a-z0-9]+", errors).group()


def refused(*options):
    """What a server says that does not start; nothing listens then."""
    code, out, errors = run("serve", *options)
    check(code != 0 and out == "", "%s started: %s" % (options, out))
    return errors


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
        server = Server(folder, *options, listen=listen, data=data)
        words = "%s %s" % (listen, options)
        check(server.status() == (401 if asks else 200), words)
        check(server.ask(path="/readyz")[0] == 200, words)
        warns = "descent token create --data %s" % data in server.said()
        check(warns == asks, "%s says: %s" % (words, server.said()))
        check(("--insecure" in server.said()) == (listen == everywhere and not asks), words)
        server.end()
    says = refused("--data", data, "--listen", everywhere, "--auth", "off")
    check("--insecure" in says and "descent token create" in says, says)
    says = refused("--data", "memory:", "--listen", everywhere)
    check("--tokens FILE" in says, says)
    says = refused("--data", data, "--auth", "maybe")
    check("auto, on or off" in says, says)
    tokens = folder + "/elsewhere.json"
    server = Server(folder, "--tokens", tokens, "--auth", "on", data="memory:")
    token = command("token", "create", "--tokens", tokens)[0].strip()
    check(server.status(token) == 200, "--tokens beside memory:")
    server.end()
    with open(tokens, "w") as file:
        file.write("{")
    says = refused("--data", "memory:", "--tokens", tokens, "--auth", "on")
    check(tokens in says, says)


def changes(folder):
    """The running server takes up what is made and revoked, and keeps what it has when the file is no good."""
    data = folder + "/changes"
    path = pathlib.Path(data, "tokens.json")
    server = Server(folder, "--auth", "on", data=data)
    one, one_id = create(data)
    check(server.status(one) == 200, "a new token is not known at once")
    two, two_id = create(data, "--name", "second")
    command("token", "revoke", two_id, "--data", data)
    server.becomes(two, 401)  # what was revoked
    check(server.status(one) == 200, "revoking one took another")
    good = path.read_bytes()
    wrong = (b"", b"{", good[:-4], good.replace(b"tok_", b"tik_"), good.replace(b"sha256", b"sha257"))
    for count, bad in enumerate(wrong, 1):
        path.write_bytes(bad)
        server.says("the tokens stay as they were", count)
        check(server.status(one) == 200, "a bad file ended access")
        time.sleep(0.6)
        server.says("the tokens stay as they were", count)  # not twice
    path.unlink()
    server.says("tokens.json is gone")
    check(server.status(one) == 200, "a file that is gone ended access")
    path.write_bytes(good)
    path.chmod(0o600)
    before = server.said().count("tokens now")
    server.tell(signal.SIGHUP)
    within(5, lambda: server.said().count("tokens now") > before, "SIGHUP was not heard")
    for _ in range(20):
        server.tell(signal.SIGHUP)
    check(server.status(one) == 200, "SIGHUP ended access")
    command("token", "revoke", one_id, "--data", data)
    server.becomes(one, 401)
    server.end()

    server = Server(folder, data=data)  # asks nobody, and does not die of SIGHUP
    server.tell(signal.SIGHUP)
    check(server.status() == 200, "SIGHUP ended the server")
    server.end()


def no_descriptors(folder):
    """What is revoked while no file can be opened ends as soon as one can; meanwhile that is said once."""
    data = folder + "/no-descriptors"
    token, name = create(data)
    server = Server(folder, "--auth", "on", data=data)
    check(server.status(token) == 200, "a good token")
    pid = server.process.pid
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, limit[1]))
    command("token", "revoke", name, "--data", data)
    server.says("the tokens stay as they were", 1)
    time.sleep(1.2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    server.says("the tokens stay as they were", 1)  # not twice
    server.becomes(token, 401)
    server.end()


def secrets(folder):
    """No token, good or bad, is anywhere but in the answer of `create`."""
    data = folder + "/secrets"
    server = Server(folder, "--auth", "on", "--log", "debug", data=data)
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
    server.end()
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


main(modes, changes, no_descriptors, secrets)
