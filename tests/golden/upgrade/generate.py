#!/usr/bin/env python3
"""Makes NAME.db.gz and NAME.json: a folder as an earlier program leaves it after a SIGKILL, and what
that program said about it. "first" is of commit 6eb903a, the first released schema with records of
format 2; "third" of 4a4c4f3, with records of format 3:

    git worktree add /tmp/first 6eb903a && make -C /tmp/first build/descent
    tests/golden/upgrade/generate.py /tmp/first/build/descent first

tests/scenario/upgrade.py holds the present program against them."""
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "lib"))
import running  # noqa: E402

TENSORS = {"layer.w": [3, 4], "layer.bias": [4], "frozen": [5], "scale": []}
COUNT = 12 + 4 + 5 + 1
GROUPS = [{"tensors": ["frozen"], "lr_mult": 0},
          {"tensors": "*.bias", "lr_mult": 2, "weight_decay_mult": 0, "adapt": False}]
STEP, INTERVAL = {"mode": "step"}, {"mode": "interval", "seconds": 0.001}

# What each session is made of, and how it names its steps.
SESSIONS = {
    "adam-keys": ({"optimizer": {"name": "adam", "lr": 0.01}, "durability": STEP,
                   "labels": {"made": "by the first"}}, "key"),
    "adamw-groups": ({"optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.1},
                      "dtype": "f64", "groups": GROUPS, "ema": {"decay": 0.9, "debias": True},
                      "schedule": {"name": "cosine", "max_steps": 40, "warmup_steps": 3},
                      "gradient": {"clip_norm": 1, "nonfinite": "skip"}}, "seq"),
    "dcasgd-late": ({"optimizer": {"name": "dcasgd", "lr": 0.1, "lambda": 0.5, "revisions": 3}},
                    "key"),
    "sgd-patched": ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
                     "schedule": {"name": "exponential", "gamma": 0.9}}, "seq"),
    "lamb-ema": ({"optimizer": {"name": "lamb", "lr": 0.05}, "groups": GROUPS[1:],
                  "ema": {"decay": 0.5}}, "seq"),
    "sgld-seed": ({"optimizer": {"name": "sgld", "lr": 0.001}, "seed": 11}, "key"),
    "later": ({"optimizer": {"name": "rmsprop", "lr": 0.01}, "durability": INTERVAL}, "key"),
    "every": ({"optimizer": {"name": "adagrad", "lr": 0.1},
               "durability": {"mode": "checkpoint", "steps": 2}}, "seq"),
    "untouched": ({"optimizer": {"name": "adam"}}, "key"),
}


class Server(running.Server):
    def __init__(self, binary, data):
        super().__init__(os.path.dirname(data), data=data, binary=binary)
        self.connection = self.connect()

    def ask(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, path, data,
                                {"Content-Type": "application/json", **(headers or {})})
        response = self.connection.getresponse()
        return response.status, response.read(), response.headers

    def json(self, method, path, body=None, headers=None):
        status, data, _ = self.ask(method, path, body, headers)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {data}")
        return json.loads(data)

    def numbers(self, name, query=""):
        """The bytes of a session's parameters, in hex."""
        status, data, _ = self.ask("GET", f"/v1/sessions/{name}/parameters{query}",
                                   headers={"Accept": "application/octet-stream"})
        if status != 200:
            raise RuntimeError(f"{name}: parameters {status} {data}")
        return data.hex()


def numbers(seed, scale=1):
    draw = random.Random(seed)
    flat = [scale * draw.randint(-2000, 2000) / 1024 for _ in range(COUNT)]
    tensors = {}
    for name, shape in TENSORS.items():
        size = 1
        for extent in shape:
            size *= extent
        part, flat = flat[:size], flat[size:]
        while len(shape) > 1:
            part = [part[i:i + shape[-1]] for i in range(0, len(part), shape[-1])]
            shape = shape[:-1]
        tensors[name] = part if shape else part[0]
    return tensors


def step_request(name, number):
    """Step `number` of a session, from 1: path, body and headers."""
    names = SESSIONS[name][1]
    body = {"gradients": numbers(f"{name} {number}"), "cursor": f"{name}:{number}",
            "loss": number / 8}
    if name == "dcasgd-late" and number > 2:
        body["base_step"] = number - 1 - number % 3
    if number == 3 and name == "adam-keys":
        body["lr"] = 0.5
    headers = {}
    if names == "key":
        headers["Idempotency-Key"] = f"{name}-{number}"
    else:
        body.update(worker="w1", seq=number - (name == "sgd-patched" and number > 5))
    return {"path": f"/v1/sessions/{name}/gradients", "body": body, "headers": headers}


def take(server, request):
    return server.json("POST", request["path"], request["body"], request["headers"])


def describe(server, name):
    view = server.json("GET", f"/v1/sessions/{name}")
    averaged = view["ema"] is not None
    return {"view": view, "weights": server.numbers(name),
            "average": server.numbers(name, "?average=ema") if averaged else None}


def main():
    binary, golden_name = os.path.abspath(sys.argv[1]), sys.argv[2]
    base = tempfile.mkdtemp(prefix="descent-golden-")
    data, golden = os.path.join(base, "data"), {"repeats": [], "stands": {}, "goes_on": {}}
    busy = [name for name in SESSIONS if name != "untouched"]
    try:
        server = Server(binary, data)
        for name, (settings, _) in SESSIONS.items():
            server.json("PUT", f"/v1/sessions/{name}", {"parameters": numbers(name), **settings})
        for name in busy:
            for number in (1, 2):
                take(server, step_request(name, number))
        server.stop(signal.SIGTERM)  # a checkpoint of each
        server = Server(binary, data)
        for name in busy:
            for number in (3, 4):
                request = step_request(name, number)
                golden["repeats"].append({**request, "answer": take(server, request)})
        server.json("PATCH", "/v1/sessions/sgd-patched",
                    {"optimizer": {"lr": 0.25}, "labels": {"patched": "yes"}})
        server.json("PUT", "/v1/sessions/sgd-patched/parameters", {"parameters": numbers("other")})
        for name in ("sgd-patched", "adamw-groups"):
            number = 6 if name == "sgd-patched" else 5
            request = step_request(name, number)
            if name == "adamw-groups":  # not finite in f32 arithmetic of the norm: skipped
                request["body"]["gradients"]["scale"] = 1e308
                request["body"]["gradients"]["frozen"] = [1e308] * 5
            take(server, request)
        server.json("PUT", "/v1/sessions/gone", {"parameters": numbers("gone"), "optimizer": "sgd"})
        server.ask("DELETE", "/v1/sessions/gone")
        for name in SESSIONS:
            golden["stands"][name] = describe(server, name)
            view = golden["stands"][name]["view"]
            assert view["durable_step"] == view["step"], view
        server.stop(signal.SIGKILL)
        with open(os.path.join(data, "descent.db"), "rb") as file:
            image = file.read()
        server = Server(binary, data)
        for name in SESSIONS:
            before, golden["stands"][name] = golden["stands"][name], describe(server, name)
            now = golden["stands"][name]
            assert (before["weights"], before["average"]) == (now["weights"], now["average"]), name
            request = step_request(name, golden["stands"][name]["view"]["step"] + 1)
            answer = take(server, request)
            golden["goes_on"][name] = {**request, "answer": answer, **describe(server, name)}
        server.stop(signal.SIGTERM)
    finally:
        server.stop(signal.SIGKILL)
        shutil.rmtree(base)
    with open(os.path.join(HERE, golden_name + ".db.gz"), "wb") as file:
        file.write(gzip.compress(image, 9, mtime=0))
    with open(os.path.join(HERE, golden_name + ".json"), "w") as file:
        json.dump(golden, file, indent=0)  # a repeat is known by the bytes of its body: no sorting
        file.write("\n")
    print(f"{len(image)} bytes of database, {len(SESSIONS)} sessions")


if __name__ == "__main__":
    main()
