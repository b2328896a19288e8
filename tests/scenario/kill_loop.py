#!/usr/bin/env python3
"""One step is one transaction: clients train through a server that is killed at random moments.

Clients on several sessions repeat every request until it is acknowledged. At the end each
acknowledged step must be there exactly once, and the weights must be, to the last bit, what numpy
makes of the acknowledged gradients in the order of the receipts. Sessions that are durable by
interval or checkpoint may lose steps, but only whole ones and only beyond what they called durable.
"""
import argparse
import base64
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

INTERVAL_S = 0.1
INTERVAL_SLACK_S = 1.0  # the machine may be busy


class Down(Exception):
    """No answer: the server is gone or going."""


class Server:
    """The process, over all its lives. A life has a number; clients wait for the next one."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.process, self.port, self.life = None, None, 0
        self.died_at = 0.0
        self.changed = threading.Condition()
        self.log = open(os.path.join(folder, "log"), "wb")

    def start(self):
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [self.binary, "serve", "--listen", "127.0.0.1:0", "--log", "info",
             "--data", os.path.join(self.folder, "data")],
            stdout=subprocess.PIPE, stderr=self.log)

    def await_ready(self):
        line = self.process.stdout.readline().decode()
        check(line.startswith("descent listening on http://"), f"no greeting but {line!r}")
        with self.changed:
            self.port = int(line.rsplit(":", 1)[1])
            self.life += 1
            self.changed.notify_all()
        return time.monotonic() - self.begun

    def kill(self):
        """Leaves nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self, number):
        with self.changed:
            self.port = None
            self.died_at = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code

    def connect(self):
        """A connection to the present life, and its number; waits while there is none."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.port is not None, 120):
                raise SystemExit("the server did not come back")
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), self.life


class Wire:
    """Requests of one thread over one connection at a time."""

    def __init__(self, server):
        self.server, self.connection, self.life = server, None, 0

    def once(self, method, path, body=None, headers=()):
        if self.connection is None:
            self.connection, self.life = self.server.connect()
        try:
            self.connection.request(method, path, body, dict(headers))
            response = self.connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.connection = None
            time.sleep(0.005)
            raise Down(str(error)) from None
        if response.status == 503:
            raise Down("503")
        return response.status, data, response.headers

    def until_answered(self, method, path, body=None, headers=(), again=(409,)):
        while True:
            try:
                answer = self.once(method, path, body, headers)
            except Down:
                continue
            if answer[0] in again and json.loads(answer[1])["code"] == "idempotency_in_flight":
                time.sleep(0.01)
                continue
            return answer


failures = []


def check(condition, words):
    if not condition:
        failures.append(words)
        print("FAILED:", words, flush=True)
        raise SystemExit(words)


# --- the formulas, written from the description ---------------------------------------------------


def power(base, exponent):
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


class Model:
    """Weights and state of a rule, stepped in numpy. Every scalar is a double, rounded once."""

    def __init__(self, rule, weights):
        self.rule, self.real = rule, weights.dtype.type
        self.w, self.t = weights.copy(), 0
        self.m, self.v = np.zeros_like(weights), np.zeros_like(weights)

    def step(self, g, lr):
        real = self.real
        g = g.astype(self.w.dtype)
        self.t += 1
        if self.rule == "sgd":
            self.v = real(0.9) * self.v - real(lr) * g
            self.w = self.w + self.v
            return
        b1, b2 = 0.9, 0.999
        self.m = real(b1) * self.m + real(1 - b1) * g
        self.v = real(b2) * self.v + real(1 - b2) * (g * g)
        rate = real(lr / (1 - power(b1, self.t)))
        root = real(1 / np.sqrt(1 - power(b2, self.t)))
        self.w = self.w - rate * self.m / (np.sqrt(self.v) * root + real(1e-8))


RULES = {
    "sgd": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "adam": {"name": "adam", "lr": 0.002},
}


class Session:
    def __init__(self, name, rule, dtype, count, durability, seed):
        self.name, self.rule, self.dtype, self.count = name, rule, np.dtype(dtype), count
        self.durability = durability
        rng = np.random.default_rng([seed, len(name), count])
        self.start = rng.standard_normal(count).astype(self.dtype)
        self.mutex = threading.Lock()
        self.history = {}  # step -> (client, index, lr)

    def path(self, rest=""):
        return f"/v1/sessions/{self.name}{rest}"

    def tensors(self, flat):
        """The flat vector as the two tensors of the layout."""
        return {"w": flat[:-3].reshape(2, -1), "b": flat[-3:]}

    def create(self, wire):
        parameters = {
            name: {"shape": list(part.shape),
                   "data_b64": base64.b64encode(np.ascontiguousarray(part).tobytes()).decode()}
            for name, part in self.tensors(self.start).items()}
        body = {"optimizer": RULES[self.rule], "parameters": parameters,
                "dtype": "f32" if self.dtype == np.float32 else "f64",
                "durability": self.durability}
        status, data, _ = wire.until_answered("PUT", self.path(), json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})
        check(status in (200, 201), f"{self.name}: create gave {status} {data[:300]}")

    def weights(self, wire):
        status, data, headers = wire.until_answered(
            "GET", self.path("/parameters"), headers={"Accept": "application/octet-stream"})
        check(status == 200, f"{self.name}: parameters gave {status}")
        return np.frombuffer(data, self.dtype), int(headers["ETag"].strip('"').split("-")[1])


# --- clients --------------------------------------------------------------------------------------


class Client(threading.Thread):
    """Sends gradients until told to stop; draws gradient number i from (seed, client, i)."""

    def __init__(self, world, session, number, media, wire_dtype=None):
        super().__init__(daemon=True)
        self.world, self.session, self.number, self.media = world, session, number, media
        self.wire_dtype = wire_dtype or ("f32" if session.dtype == np.float32 else "f64")
        self.wire = Wire(world.server)
        self.random = random.Random(f"{world.seed} {number}")
        self.replayed = 0

    def gradient(self, index):
        rng = np.random.default_rng([self.world.seed, self.number, index])
        g = rng.standard_normal(self.session.count).astype(self.session.dtype)
        if self.wire_dtype == "bf16":
            g = (g.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return g

    def request(self, index, fields):
        """Path, body and type of a step."""
        g = self.gradient(index)
        if self.media == "json":
            body = {"gradients": {k: v.astype(float).tolist()
                                  for k, v in self.session.tensors(g).items()}, **fields}
            return self.session.path("/gradients"), json.dumps(body).encode(), "application/json"
        data = g.tobytes()
        if self.wire_dtype == "bf16":
            data = (g.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        query = "&".join(f"{k}={v}" for k, v in {"dtype": self.wire_dtype, **fields}.items())
        return self.session.path("/gradients?" + query), data, "application/octet-stream"

    def run(self):
        try:
            self.train()
        except SystemExit:
            pass
        except Exception as error:  # an error of this script is a failure too
            failures.append(f"client {self.number}: {error!r}")
            raise


class SureClient(Client):
    """On a session that is durable by the step: every step counts exactly once. Names its steps by
    Idempotency-Key, or by worker and seq."""

    def __init__(self, world, session, number, media, names, cursor=False, **more):
        super().__init__(world, session, number, media, **more)
        self.names, self.cursor = names, cursor
        self.sent = []  # (arguments of the request, receipt)

    def train(self):
        index = 0
        while not self.world.stop.is_set():
            index += 1
            fields = {"loss": index / 8}
            headers = {}
            if self.cursor:
                fields["cursor"] = f"{self.number}:{index}"
            if self.random.random() < 0.2:
                fields["lr"] = 0.0625
            if self.names == "key":
                headers["Idempotency-Key"] = f'"{self.number}-{index}"'
            else:
                fields.update(worker=f"w{self.number}", seq=index)
            path, body, media = self.request(index, fields)
            headers["Content-Type"] = media
            receipt = self.send(path, body, headers, f"gradient {index}")
            check("lr" not in fields or receipt["lr"] == 0.0625, "an override was not used")
            with self.session.mutex:
                there = self.session.history.get(receipt["step"])
                check(there is None, f"{self.session.name}: step {receipt['step']} told twice")
                self.session.history[receipt["step"]] = (self, index, receipt["lr"])
            self.sent.append(((path, body, headers), receipt))
            del self.sent[:-20]
            if self.random.random() < 0.1:
                self.ask_again()

    def send(self, path, body, headers, what):
        status, data, answer = self.wire.until_answered("POST", path, body, headers)
        check(status == 200, f"{self.session.name}, client {self.number}, {what}: {status} {data}")
        receipt = json.loads(data)
        check(receipt["status"] == "applied" and receipt["durable_step"] == receipt["step"],
              f"{self.session.name}: not a receipt of a durable step: {receipt}")
        self.replayed += answer["Idempotency-Replayed"] == "true"
        return receipt

    def ask_again(self):
        """The receipt of an acknowledged step is the same for ever."""
        arguments, receipt = self.sent[-1] if self.names == "seq" else self.random.choice(self.sent)
        again = self.send(*arguments, "repeated")
        check(again == receipt, f"{self.session.name}: {receipt} came back as {again}")
        self.replayed -= 1  # on purpose: does not count


class BoldClient(Client):
    """On a session that may lose its last steps: takes up where the session stands."""

    def __init__(self, world, session, number, media):
        super().__init__(world, session, number, media)
        self.models = [Model(session.rule, session.start)]  # by step
        self.told = [0.0]  # when a step was acknowledged
        self.durable = 0
        self.lost, self.lost_s = 0, 0.0

    def train(self):
        index = 0
        while not self.world.stop.is_set():
            index += 1
            path, body, media = self.request(index, {})
            model = Model(self.session.rule, self.session.start)
            model.__dict__.update(self.models[-1].__dict__)
            model.step(self.gradient(index), RULES[self.session.rule]["lr"])
            self.models.append(model)
            self.told.append(float("inf"))
            try:
                status, data, _ = self.wire.once("POST", path, body, {"Content-Type": media})
            except Down:
                self.take_up()
                continue
            check(status == 200, f"{self.session.name}: {status} {data}")
            receipt = json.loads(data)
            check(receipt["step"] == len(self.models) - 1, f"{self.session.name}: {receipt}")
            self.told[-1] = time.monotonic()
            self.durable = max(self.durable, receipt["durable_step"])
        self.compare()

    def take_up(self):
        step = self.compare()
        last = len(self.models) - 1
        sure = [k for k in range(last + 1)
                if self.told[k] < self.world.server.died_at - INTERVAL_S - INTERVAL_SLACK_S]
        if self.session.durability["mode"] == "interval":
            check(step >= max(sure), f"{self.session.name}: lost step {max(sure)}, which was old")
            if step < last and self.told[step + 1] < float("inf"):
                self.lost_s = max(self.lost_s, self.world.server.died_at - self.told[step + 1])
        self.lost += last - step
        self.durable = step  # it was read from the disk
        del self.models[step + 1:]
        del self.told[step + 1:]

    def compare(self):
        weights, step = self.session.weights(self.wire)
        check(self.durable <= step < len(self.models),
              f"{self.session.name} stands at {step}; durable was {self.durable}, "
              f"sent were {len(self.models) - 1}")
        check(weights.tobytes() == self.models[step].w.tobytes(),
              f"{self.session.name}: the weights at step {step} are not its own")
        for model in self.models[:step]:
            model.__dict__.clear()  # not needed again
        return step


class Patcher(Client):
    """Changes a session's learning rate while others step it: their receipts say which they had."""

    def train(self):
        while not self.world.stop.is_set():
            lr = self.random.choice([0.03125, 0.05])
            body = json.dumps({"optimizer": {"lr": lr}}).encode()
            status, data, _ = self.wire.until_answered("PATCH", self.session.path(), body,
                                                       {"Content-Type": "application/json"})
            check(status == 200, f"{self.session.name}: PATCH gave {status} {data}")
            time.sleep(0.05)


class Churner(Client):
    """Creates, steps and deletes sessions of its own."""

    def train(self):
        index = 0
        while not self.world.stop.is_set():
            index += 1
            own = Session(f"churn-{index}", "sgd", "f4", 9, {"mode": "step"}, self.world.seed)
            own.create(self.wire)
            self.session = own
            path, body, media = self.request(index, {"worker": "w", "seq": 1})
            status, data, _ = self.wire.until_answered("POST", path, body, {"Content-Type": media})
            check(status == 200, f"{own.name}: a new session gave {status} {data}")
            model = Model(own.rule, own.start)
            model.step(self.gradient(index), 0.05)
            weights, step = own.weights(self.wire)
            check(step == 1 and weights.tobytes() == model.w.tobytes(), f"{own.name}: wrong bits")
            status, _, _ = self.wire.until_answered("DELETE", own.path())
            check(status in (204, 404), f"{own.name}: DELETE gave {status}")
            status, _, _ = self.wire.until_answered("GET", own.path())
            check(status == 404, f"{own.name}: there after it was deleted ({status})")


# --- the run --------------------------------------------------------------------------------------


class World:
    def __init__(self, binary, folder, seed):
        self.seed, self.server, self.stop = seed, Server(binary, folder), threading.Event()
        step = {"mode": "step"}
        mom, a32, a64 = (Session("mom32", "sgd", "f4", 1031, step, seed),
                         Session("adam32", "adam", "f4", 7, step, seed),
                         Session("adam64", "adam", "f8", 70_003, step, seed))
        self.sure = [mom, a32, a64]
        inter = Session("interval32", "sgd", "f4", 1031, {"mode": "interval",
                                                          "seconds": INTERVAL_S}, seed)
        every = Session("every64", "adam", "f8", 131, {"mode": "checkpoint", "steps": 7}, seed)
        self.sessions = self.sure + [inter, every]
        self.clients = [
            SureClient(self, mom, 1, "json", "key", cursor=True),
            SureClient(self, mom, 2, "raw", "seq"),
            SureClient(self, mom, 3, "raw", "key", wire_dtype="bf16"),
            SureClient(self, a32, 4, "json", "seq", cursor=True),
            SureClient(self, a32, 5, "raw", "key"),
            SureClient(self, a64, 6, "raw", "key", cursor=True),
            BoldClient(self, inter, 7, "raw"),
            BoldClient(self, every, 8, "json"),
            Patcher(self, mom, 9, "json"),
            Churner(self, a32, 10, "raw"),
        ]

    def verify(self, session, wire):
        """Every acknowledged step once, and the bits that follow from them."""
        weights, step = session.weights(wire)
        history = session.history
        check(sorted(history) == list(range(1, step + 1)),
              f"{session.name} stands at {step} with {len(history)} acknowledged; "
              f"not acknowledged: {sorted(set(range(1, step + 1)) - set(history))[:5]}")
        model = Model(session.rule, session.start)
        cursor = None
        for k in range(1, step + 1):
            client, index, lr = history[k]
            model.step(client.gradient(index), lr)
            if client.cursor:
                cursor = f"{client.number}:{index}"
        differ = np.flatnonzero(weights != model.w)
        check(weights.tobytes() == model.w.tobytes(),
              f"{session.name}: {len(differ)} of {session.count} weights differ after {step} steps")
        view = json.loads(wire.until_answered("GET", session.path())[1])
        check(view["cursor"] == cursor, f"{session.name}: cursor {view['cursor']}, not {cursor}")
        print(f"  {session.name}: {step} steps, every one once, the same bits")


def run(world, kills, terms):
    draw = random.Random(world.seed)
    server = world.server
    recovery, first = [], []
    server.start()
    server.await_ready()
    main = Wire(server)
    for session in world.sessions:
        session.create(main)
    for client in world.clients:
        client.start()
    for number in range(kills + terms):
        if number % 10 == 9:
            time.sleep(1.5)  # long enough to see that an interval is kept
        else:
            time.sleep(draw.uniform(0.02, 0.45))
        code = server.end(signal.SIGKILL if number < kills else signal.SIGTERM)
        check(code == (-signal.SIGKILL if number < kills else 0), f"the server exited with {code}")
        if failures:
            return
        if number < kills and draw.random() < 0.15:  # also while it starts
            server.start()
            time.sleep(draw.uniform(0, 0.03))
            server.kill()
            server.process.stdout.close()
        server.start()
        recovery.append(server.await_ready())
        begun = time.monotonic()
        for session in world.sessions:
            check(main.until_answered("GET", session.path())[0] == 200, f"{session.name} is gone")
        first.append(time.monotonic() - begun)
    time.sleep(0.2)
    world.stop.set()
    for client in world.clients:
        client.join(60)
        check(not client.is_alive(), f"client {client.number} does not come to an end")
    if failures:
        return
    for session in world.sure:
        world.verify(session, main)
    check(server.end(signal.SIGTERM) == 0, "the last SIGTERM did not end it with 0")
    for client in world.clients:
        if isinstance(client, BoldClient):
            print(f"  {client.session.name}: {len(client.models) - 1} steps, {client.lost} lost in "
                  f"{kills} kills, the oldest {client.lost_s:.3f} s before the kill")
    replayed = sum(c.replayed for c in world.clients)
    print(f"  {replayed} requests were repeated because their answer was lost with the server")
    check(kills < 50 or replayed > 0, "no answer was ever lost: the kills prove nothing")
    for words, times in (("listening", recovery), ("all sessions back", first)):
        print(f"  {words} after ms: median {1e3 * np.median(times):.0f}, max {1e3 * max(times):.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("DESCENT_BINARY", "build/descent"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=5, help="orderly stops after the kills")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="descent-kill-")
    begun = time.monotonic()
    print(f"kill_loop: --kills {options.kills} --seed {options.seed}", flush=True)
    world = World(options.binary, folder, options.seed)
    try:
        run(world, options.kills, options.terms)
    except SystemExit as error:
        failures.append(str(error))
    finally:
        world.server.kill()
        if failures:
            log = open(os.path.join(folder, "log"), errors="replace").read().splitlines()
            print("the server's last words:", *log[-15:], sep="\n  ")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"kill_loop: {'FAILED' if failures else 'passed'} in {time.monotonic() - begun:.0f} s")
    sys.stdout.flush()
    os._exit(1 if failures else 0)


if __name__ == "__main__":
    main()
