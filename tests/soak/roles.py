"""What the clients do, each on a connection of its own, over and over until the time is over. A role that trains keeps
the weights it expects, computed by numpy: steps of SGD with lr 1 whose gradients are small multiples of 1/16, so that
every sum is exact, and a step that is lost, doubled or torn shows in the bits."""
import http.client
import json
import struct

import numpy as np

from server import Unexpected

JSON = {"Content-Type": "application/json"}
OCTETS = "application/octet-stream"
TENSORS = "application/vnd.safetensors"


def must(good, words):
    if not good:
        raise Unexpected(words)


def create(client, name, count, **more):
    body = {"optimizer": {"name": "sgd", "lr": 1}, "parameters": {"w": {"shape": [count], "init": "zeros"}},
            "history": {"keep_steps": 20}, **more}
    client.call("PUT", f"/v1/sessions/{name}", json.dumps(body), JSON, (200, 201))


def gradient(random, count):
    return random.integers(-16, 17, count).astype(np.float32) / 16


def safetensors(array):
    header = json.dumps({"w": {"dtype": "F32", "shape": [len(array)], "data_offsets": [0, array.nbytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + array.tobytes()


class Trainer:
    """Steps on a session of its own, in one of three forms, exactly once over every restart; holds the weights
    against its own."""

    def __init__(self, number, form, count):
        self.name, self.form, self.count = f"train-{form}-{number}", form, count
        self.weights = np.zeros(count, np.float32)
        self.steps = 0

    def step(self, client, random):
        g = gradient(random, self.count)
        path, number = f"/v1/sessions/{self.name}/gradients", self.steps + 1
        if self.form == "json":
            _, _, data = client.call("POST", path, json.dumps({"gradients": {"w": g.tolist()}, "worker": "t",
                                                               "seq": number, "loss": 0.5}), JSON)
        elif self.form == "tensors":
            _, _, data = client.call("POST", path, safetensors(g),
                                     {"Content-Type": TENSORS, "Idempotency-Key": f'"{self.name}-{number}"'})
        else:
            _, _, data = client.call("POST", f"{path}?worker=t&seq={number}", g.tobytes(), {"Content-Type": OCTETS})
        receipt = json.loads(data)
        must(receipt["step"] == number, f"{self.name}: step {receipt['step']} is acknowledged for {number}")
        self.weights -= g
        self.steps = number
        with client.tally.lock:
            client.tally.steps += 1

    def look(self, client, random):
        path, accept = f"/v1/sessions/{self.name}/parameters", {"Accept": OCTETS}
        _, headers, data = client.call("GET", path, None, accept)
        must(data == self.weights.tobytes(), f"{self.name}: the weights at step {self.steps} are others")
        status, _, _ = client.call("GET", path, None, {**accept, "If-None-Match": headers["ETag"]}, (200, 304))
        must(status == 304, f"{self.name}: {headers['ETag']} is not known again")
        first = int(random.integers(0, len(data)))
        last = int(random.integers(first, len(data)))
        status, _, part = client.call("GET", path, None, {**accept, "Range": f"bytes={first}-{last}"}, (206,))
        must(part == data[first:last + 1], f"{self.name}: bytes {first}-{last} are others")

    def run(self, client, random):
        create(client, self.name, self.count)
        while True:
            for _ in range(10):
                self.step(client, random)
                client.rest(0.02)
            self.look(client, random)

    def check(self, client):
        """After the last restart: nothing that was acknowledged is missing, and not more than was under way."""
        session = json.loads(client.call("GET", f"/v1/sessions/{self.name}")[2])
        must(session["step"] in (self.steps, self.steps + 1),
             f"{self.name} stands at {session['step']}, acknowledged were {self.steps}")
        if session["step"] == self.steps:
            self.look(client, np.random.default_rng(0))


class Member:
    """One of several workers on one session, asynchronous or in rounds."""

    def __init__(self, number, session, aggregation):
        self.name, self.session, self.aggregation = f"m{number}", session, aggregation
        self.sent = 0

    def run(self, client, random):
        create(client, self.session, 64, aggregation=self.aggregation)
        synchronous = self.aggregation["mode"] == "sync"
        while True:
            g = gradient(random, 64)
            body = {"gradients": {"w": g.tolist()}, "worker": self.name, "seq": self.sent + 1}
            status = 202
            while status == 202:  # the server stops, and the round is open still: the same again waits for it
                status, _, _ = client.call("POST", f"/v1/sessions/{self.session}/gradients", json.dumps(body),
                                           {**JSON, "Prefer": "wait=20"} if synchronous else JSON, (200, 202))
                client.rest(0.02)
            self.sent += 1

    def check(self, client):
        workers = json.loads(client.call("GET", f"/v1/sessions/{self.session}/workers")[2])["workers"]
        last = {worker["name"]: worker["seq"] for worker in workers}[self.name]
        must(last in (self.sent, self.sent + 1), f"{self.session}: {self.name} sent {self.sent}, the last is {last}")


class Reader:
    """Looks at everything, and asks for what does not exist."""

    def __init__(self, number, names):
        self.number, self.names = number, names

    def run(self, client, random):
        while True:
            name = self.names[random.integers(len(self.names))]
            for part in ("", "/steps?page_size=5", "/hash", "/workers", "/checkpoints"):
                client.call("GET", f"/v1/sessions/{name}{part}", None, None, (200, 404))
                client.rest(0.02)
            for path, expect in (("/v1/sessions/no-such", (404,)), ("/nowhere", (404,)), ("/livez?a=1", (400,)),
                                 ("/metrics", (200, 404)), ("/v1/optimizers", (200,)), ("/readyz", (200,)),
                                 ("/openapi.json", (200,))):
                client.call("GET", path, None, None, expect)
                client.rest(0.02)
            client.call("POST", f"/v1/sessions/{name}/checkpoints", None, None, (200, 201, 404))
            client.call("POST", f"/v1/sessions/{name}/gradients", "{]", JSON, (400, 404))
            client.call("DELETE", "/livez", None, None, (405,))
            client.call("GET", f"/v1/sessions/{name}/parameters", None, {"Accept": "text/html"}, (404, 406))
            token = ""
            while True:
                page = json.loads(client.call("GET", f"/v1/sessions?page_size=20{token}")[2])
                if page["next_page_token"] is None:
                    break
                token = f"&page_token={page['next_page_token']}"


class Poller:
    """Waits for a step that is to come."""

    def __init__(self, number, names):
        self.number, self.names = number, names

    def run(self, client, random):
        after = 0
        while True:
            name = self.names[random.integers(len(self.names))]
            status, headers, _ = client.call("GET", f"/v1/sessions/{name}/parameters?after={after}&wait=2", None,
                                             {"Accept": OCTETS}, (200, 304, 404))
            if status == 200:
                after = int(headers["ETag"].strip('"').split("-")[1])
            else:
                after = 0
                client.rest(0.1)


class Maker:
    """Makes sessions, moves their state into others, and deletes them."""

    def __init__(self, number):
        self.number = number

    def run(self, client, random):
        count = 0
        while True:
            name, copy = f"made-{self.number}-{count}", f"copy-{self.number}-{count}"
            trainer = Trainer(0, "json", int(random.integers(1, 2000)))
            trainer.name = name
            create(client, name, trainer.count, optimizer="adam" if count % 2 else "sgd")
            for number in range(3):
                client.call("POST", f"/v1/sessions/{name}/gradients?worker=t&seq={number + 1}",
                            gradient(random, trainer.count).tobytes(), {"Content-Type": OCTETS})
            _, _, state = client.call("GET", f"/v1/sessions/{name}/state")
            client.call("PUT", f"/v1/sessions/{copy}", state, {"Content-Type": TENSORS}, (200, 201))
            hashes = [json.loads(client.call("GET", f"/v1/sessions/{which}/hash")[2])["state_hash"]
                      for which in (name, copy)]
            must(hashes[0] == hashes[1], f"{copy} is not {name}")
            for which in (name, copy):
                client.call("DELETE", f"/v1/sessions/{which}", None, None, (204, 404))
            count += 1
            client.rest(0.05)


class Traveller:
    """Rewinds and forks."""

    def __init__(self, number):
        self.name = f"travel-{number}"

    def run(self, client, random):
        count, path = 0, f"/v1/sessions/{self.name}"
        create(client, self.name, 100)
        while True:
            for _ in range(4):
                client.call("POST", f"{path}/gradients", gradient(random, 100).tobytes(), {"Content-Type": OCTETS})
                client.rest(0.02)
            step = json.loads(client.call("GET", path)[2])["step"]
            fork = f"fork-{self.name}-{count}"
            client.call("POST", f"{path}/forks", json.dumps({"step": step - 2, "id": fork}), JSON, (201, 409))
            client.call("POST", f"/v1/sessions/{fork}/gradients", gradient(random, 100).tobytes(),
                        {"Content-Type": OCTETS})
            client.call("DELETE", f"/v1/sessions/{fork}", None, None, (204, 404))
            client.call("POST", f"{path}/rewind", json.dumps({"step": step - 1}), JSON)
            after = json.loads(client.call("GET", path)[2])
            must(after["step"] == step - 1, f"{self.name}: rewound to {after['step']}, not {step - 1}")
            count += 1


class Snapshotter:
    """SVRG: a snapshot, its full gradient from two parts, steps with both gradients."""

    def __init__(self, number):
        self.name = f"svrg-{number}"

    def run(self, client, random):
        path = f"/v1/sessions/{self.name}"
        create(client, self.name, 50, svrg={"update_freq": None, "coefficient": 1.0})
        while True:
            made = json.loads(client.call("POST", f"{path}/snapshots", json.dumps({"examples": 8}), JSON, (201,))[2])
            number = made["snapshot"]
            for part in ("a", "b"):
                client.call("POST", f"{path}/snapshots/{number}/gradients?examples=4&worker=w&part={part}",
                            gradient(random, 50).tobytes(), {"Content-Type": OCTETS})
            client.call("GET", f"{path}/snapshots/{number}/gradient", None, {"Accept": OCTETS})
            client.call("GET", f"{path}/snapshots/{number}/parameters", None, {"Accept": TENSORS})
            for _ in range(5):
                g = gradient(random, 50).tolist()
                client.call("POST", f"{path}/gradients", json.dumps(
                    {"gradients": {"w": g}, "snapshot_gradients": {"w": g}, "snapshot": number}), JSON)
                client.rest(0.02)


class Aborter:
    """Uploads that come to nothing, answers that nobody reads, requests that are none."""

    def __init__(self, number, names):
        self.number, self.names = number, names

    def run(self, client, random):
        while True:
            name = self.names[random.integers(len(self.names))]
            known = "".join(f"{name}: {value}\r\n" for name, value in client.server.headers.items())
            post = (f"POST /v1/sessions/{name}/gradients HTTP/1.1\r\nHost: soak\r\n{known}"
                    f"Content-Type: {OCTETS}\r\n").encode()
            odd = (post + b"Content-Length: 4000000\r\n\r\n" + bytes(300000),
                   post + b"Transfer-Encoding: chunked\r\n\r\n10000\r\n" + bytes(65536) + b"\r\n10",
                   post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", post + b"Content-Length: 5, 5\r\n\r\n12345",
                   b"GET /v1/ses", b"\r\n", b"nonsense\r\n\r\n",
                   f"GET /v1/sessions/{name}/parameters HTTP/1.1\r\nHost: soak\r\n{known}Accept: {OCTETS}\r\n\r\n".encode())
            if client.server.ready.wait(0.2):
                try:
                    link = client.server.connect(5)
                    link.connect()
                    with link.sock as wire:
                        wire.sendall(odd[random.integers(len(odd))])
                        if random.integers(2):
                            wire.settimeout(0.05)
                            wire.recv(100)
                except OSError:
                    pass
            client.rest(0.02)


class Listener:
    """The stream of events of a session, where there is one."""

    def __init__(self, number, names):
        self.number, self.names = number, names

    def run(self, client, random):
        while True:
            name = self.names[random.integers(len(self.names))]
            if client.link is None:
                client.connect()
            try:
                client.link.request("GET", f"/v1/sessions/{name}/steps", None,
                                    {**client.server.headers, "Accept": "text/event-stream"})
                answer = client.link.getresponse()
                if answer.status == 200:
                    for _ in range(20):
                        if client.tally.stopping.is_set() or not answer.readline():
                            break
                else:
                    answer.read()
                client.tally.count(answer.status, 0.0)
                if answer.status not in (200, 404, 406) and not client.excused():
                    raise Unexpected(f"a stream of events: {answer.status}")
            except (OSError, http.client.HTTPException):
                pass  # the end of a stream is the end of the server, or of the session
            client.close()
            client.rest(0.5)
