#!/usr/bin/env python3
"""Five hundred event streams on one session that takes steps: each is told every step once, in
order, over a rewind too; readers who stop reading cost the others nothing and the server no memory;
who has gone is noticed; a stop does not wait for any of them. `--measure` prints what the streams
cost the steps instead, at a thousand steps a second."""
import argparse
import http.client
import json
import multiprocessing
import os
import re
import resource
import selectors
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import run  # noqa: E402

STREAMS, STUCK, STEPS = 500, 20, 400
TURN = re.compile(rb"id: (\d+)-(\d+)-[0-9a-f]+\nevent: (step|rewind)\n")
WAIT_S = 60  # for what should come at once
RAW = {"Content-Type": "application/octet-stream"}
TENSORS = 200  # a line that tells of each has 30 KB: too much for who does not read
GRADIENT = b"\0" * 4 * TENSORS


class Server(running.Server):
    headers = {}

    def __init__(self, folder, *options, **more):
        super().__init__(folder, "--log", "warning", *options, **more)
        self.link = self.connect()

    def ask(self, method, path, body=None, headers=None):
        self.link.request(method, "/v1/sessions/watched" + path, body,
                          {**self.headers, **(headers or {})})
        response = self.link.getresponse()
        data = response.read()
        assert response.status < 300, (method, path, response.status, data[:300])
        return json.loads(data) if data else None

    def create(self, **members):
        document = {"optimizer": "sgd", **members,
                    "parameters": {f"w{i}": 0 for i in range(TENSORS)}}
        self.ask("PUT", "", json.dumps(document), {"Content-Type": "application/json"})

    def processor_s(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def subscribe(port, query="?tensors=false", small=False):
    link = socket.socket()
    link.settimeout(WAIT_S)
    if small:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(("127.0.0.1", port))
    link.sendall(b"GET /v1/sessions/watched/steps%s HTTP/1.1\r\nHost: test\r\n"
                 b"Accept: text/event-stream\r\n\r\n" % query.encode())
    return link


def begin(link):
    """Reads until the stream has said where it stands, and maybe some of what follows."""
    data = b""
    while not re.search(rb"\nid: [^\n]+\n\n\r\n", data):
        piece = link.recv(65536)
        data += piece
        assert piece and data.startswith(b"HTTP/1.1 200 "), data
    return link


class Reader:
    """Reads many streams at once; `turns` has the lines that told of each."""

    def __init__(self, links):
        self.selector = selectors.DefaultSelector()
        self.texts = {}
        for link in links:
            self.texts[link] = []
            self.selector.register(link, selectors.EVENT_READ)

    def read(self, enough, seconds):
        until = time.monotonic() + seconds
        waiting = set(self.texts)
        while waiting and time.monotonic() < until:
            for key, _ in self.selector.select(0.5):
                data = key.fileobj.recv(1 << 20)
                self.texts[key.fileobj].append(data)
                if not data:
                    self.selector.unregister(key.fileobj)
                if not data or enough in b"".join(self.texts[key.fileobj][-2:]):
                    waiting.discard(key.fileobj)
        return not waiting

    def turns(self, link):
        # Chunks have sizes between them, where an event is cut.
        text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", b"".join(self.texts[link]))
        return [(int(lineage), int(step), kind.decode())
                for lineage, step, kind in TURN.findall(text)]


def streams(folder):
    server = Server(folder, "--body-timeout-s", "2", data="memory:")
    server.create(history={"keep_steps": 1000000})  # a quick machine takes some thousand
    server.ask("POST", "/gradients", GRADIENT, RAW)
    base = server.threads()
    links = [begin(subscribe(server.port)) for _ in range(STREAMS)]
    stuck = [begin(subscribe(server.port, "", small=True)) for _ in range(STUCK)]
    before = server.memory_mb()
    reader = Reader(links)
    for step in range(STEPS):
        server.ask("POST", "/gradients", GRADIENT, RAW)
        if step % 100 == 50:
            assert reader.read(b"id: 0-%d-" % (step + 2), 60), "they lag behind"
    server.ask("POST", "/rewind", '{"step": 10}', {"Content-Type": "application/json"})
    server.ask("POST", "/gradients", GRADIENT, RAW)
    assert reader.read(b"id: 1-11-", 60), "they lag behind"
    after = server.memory_mb()
    wanted = [(0, step, "step") for step in range(2, STEPS + 2)]
    wanted += [(1, 10, "rewind"), (1, 11, "step")]
    for link in links:
        turns = reader.turns(link)
        # A rewind may come before a stream was told of the last steps.
        cut = turns.index((1, 10, "rewind"))
        assert turns[:cut] == wanted[:cut] and turns[cut:] == wanted[-2:], turns[cut - 3:]
    print(f"{STREAMS} streams were told {STEPS} steps and a rewind; {STUCK} did not listen; "
          f"memory {before} MB, then {after} MB")
    assert after - before < 64, "memory grows with what is not read"
    # Who does not read is cut off once his time is up; who leaves is noticed at once.
    for link in links[STREAMS // 2:]:
        link.close()
    until = time.monotonic() + 30
    while server.threads() > base + STREAMS // 2 and time.monotonic() < until:
        server.ask("POST", "/gradients", GRADIENT, RAW)
        time.sleep(0.01)  # the first step is to be kept
    assert server.threads() <= base + STREAMS // 2, "who has gone, or does not read, stays"
    again = [begin(subscribe(server.port, "?from=1", small=True)) for _ in range(STUCK)]
    begun = time.monotonic()
    assert server.stop() == 0 and time.monotonic() - begun < 10, "the stop"
    print(f"the stop took {time.monotonic() - begun:.2f} s")
    for link in links[:STREAMS // 2] + stuck + again:
        link.close()


def tokens(folder):
    """A stream does not outlive the token that let it in, and what is none of its token's stops it not."""
    data = os.path.join(folder, "data")

    def token(*arguments):
        code, said, errors = run("token", *arguments, "--data", data)
        assert code == 0, errors
        return said.strip()

    def follow(text, last=b""):
        link = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        link.sendall(b"GET /v1/sessions/watched/steps?tensors=false HTTP/1.1\r\nHost: test\r\n"
                     b"Accept: text/event-stream\r\nAuthorization: Bearer %s\r\n%s\r\n"
                     % (text.encode(), last))
        return link

    def goes_on(link):
        for _ in range(2):  # the first may be on its way already
            server.ask("POST", "/gradients", GRADIENT, RAW)
            data = b""
            while b"\nevent: step\n" not in data:
                piece = link.recv(65536)
                assert piece and not piece.endswith(b"\r\n0\r\n\r\n"), "the stream ended"
                data += piece

    def end(link):
        link.settimeout(20)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            piece = link.recv(65536)
            assert piece, f"the server closes in the middle of a stream, after {data[-200:]}"
            data += piece
        link.close()

    def look(text, status):
        connection = server.connect()
        connection.request("GET", "/v1/sessions", headers={"Authorization": "Bearer " + text})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == status, answer.status

    def rewrite(change):
        """The file with its second token changed, put in place as `descent token` does."""
        with open(data + "/tokens.json", encoding="ascii") as file:
            document = json.load(file)
        change(document["tokens"][1])
        with open(data + "/tokens.new", "w", encoding="ascii") as file:
            json.dump(document, file)
        os.chmod(data + "/tokens.new", 0o600)
        os.rename(data + "/tokens.new", data + "/tokens.json")

    first, second = token("create"), token("create", "--scopes", "read")
    server = Server(folder, "--auth", "on")
    server.headers = {"Authorization": "Bearer " + first}
    server.create()
    link = begin(follow(second))
    link.settimeout(20)
    look(token("create", "--tenant", "other"), 200)  # so the new file is read
    goes_on(link)
    server.tell(signal.SIGHUP)
    time.sleep(0.3)
    goes_on(link)
    rewrite(lambda one: one.update(quotas={"inflight": 5}))
    look(token("create", "--tenant", "other"), 200)
    goes_on(link)
    rewrite(lambda one: one.update(tenant="other"))
    end(link)
    rewrite(lambda one: one.update(tenant=""))
    time.sleep(1)
    link = begin(follow(second, b"Last-Event-ID: 0-0\r\n"))
    rewrite(lambda one: one.update(expires_at="2020-01-01T00:00:00Z"))
    end(link)
    rewrite(lambda one: one.update(expires_at=None))
    time.sleep(1)
    link = begin(follow(second, b"Last-Event-ID: 0-0\r\n"))
    for name in re.findall("tok_[a-z0-9]+", token("list"))[1:]:
        token("revoke", name)
    end(link)
    link = follow(second, b"Last-Event-ID: 0-0\r\n")
    answer = link.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    link.close()
    assert server.stop() == 0, "the stop"
    print("a stream ends with its token")


def step_on(port, rate, seconds, queue):
    """Steps at that rate; how long each took, in ms."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    took, begun, count = [], time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        pause = begun + count / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        start = time.monotonic()
        link.request("POST", "/v1/sessions/watched/gradients", GRADIENT, RAW)
        response = link.getresponse()
        response.read()
        assert response.status == 200
        took.append((time.monotonic() - start) * 1e3)
        count += 1
    queue.put((count / (time.monotonic() - begun), sorted(took)))


def measure(folder, rate, seconds):
    print("streams   steps/s    p50 ms    p99 ms   server's processor   events/s read")
    for streams in (0, 1, 50, 500):
        server = Server(folder, data="memory:")
        server.create()
        links = [begin(subscribe(server.port)) for _ in range(streams)]
        reader = Reader(links)
        queue = multiprocessing.Queue()
        stepper = multiprocessing.Process(target=step_on,
                                          args=(server.port, rate, seconds, queue))
        used, begun = server.processor_s(), time.monotonic()
        stepper.start()
        size = 0
        room = bytearray(1 << 20)
        while stepper.is_alive() and queue.empty():
            for key, _ in reader.selector.select(0.1):
                size += key.fileobj.recv_into(room)
        used = (server.processor_s() - used) / (time.monotonic() - begun)
        reached, took = queue.get()
        stepper.join()
        events = size / 460 / seconds
        print(f"{streams:7d} {reached:9.0f} {took[len(took) // 2]:9.2f} "
              f"{took[len(took) * 99 // 100]:9.2f} {used:15.2f} {events:15.0f}", flush=True)
        assert server.stop() == 0, "the stop"
        for link in links:
            link.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--measure", action="store_true")
    arguments.add_argument("--rate", type=float, default=1000)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments = arguments.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * STREAMS + 100:
        print(f"only {hard} files can be open at once")
        return 77
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * STREAMS + 100), hard))
    if arguments.measure:
        def figures(folder):
            measure(folder, arguments.rate, arguments.seconds)
        running.main(figures)
    else:
        running.main(streams, tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
