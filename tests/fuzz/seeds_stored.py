"""Writes the seeds of tests/fuzz/corpus/ that a server stores: records, states, databases. Needs build/descent
(DESCENT_BINARY). Run from the project's root; what it writes differs by its times."""
import base64
import gzip
import json
import os
import sqlite3
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))
from running import Server  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
UPGRADE = Path(__file__).parent.parent / "golden" / "upgrade"
SESSION, EVENT, HEAD, LINES = range(4)
EVENT_RECEIPTS = 5

SESSIONS = {
    "plain": {"optimizer": "adam", "ema": {"decay": 0.5}, "hash_every": 1, "labels": {"a": "b"},
              "groups": [{"tensors": ["b*"], "lr_mult": 2}]},
    "round": {"optimizer": "sgd", "aggregation": {"mode": "sync", "workers": 3}, "svrg": {"update_freq": 2}, "hash_every": 1},
    "late": {"optimizer": {"name": "dcasgd", "lr": 0.1}, "aggregation": {"mode": "async", "max_staleness": 2}, "hash_every": 1},
}


def ask(link, method, path, document=None, headers=None):
    link.request(method, path, json.dumps(document) if document is not None else None,
                 {**({"Content-Type": "application/json"} if document is not None else {}), **(headers or {})})
    answer = link.getresponse()
    data = answer.read()
    return answer.status, data


def tell_stories(link, states):
    for name, spec in SESSIONS.items():
        path = f"/v1/sessions/{name}"
        status, data = ask(link, "PUT", path, {**spec, "parameters": {"w": [[1, 2], [3, 4]], "b": 0}})
        if status != 201:
            print(name, data)
            continue
        if "svrg" in spec:
            ask(link, "POST", f"{path}/snapshots", {"examples": 2})
            ask(link, "POST", f"{path}/snapshots/1/gradients",
                {"gradients": {"w": [[1, 2], [3, 4]], "b": 1}, "examples": 1, "worker": "a", "part": "p"})
        for number in range(4):
            for worker in ("a", "b", "c") if "svrg" in spec else ("a",):
                if (worker, number) == ("c", 3):
                    break  # a round stays open
                ask(link, "POST", f"{path}/gradients",
                    {"gradients": {"w": [[1, 2], [3, number]], "b": 1}, "worker": worker, "loss": 0.5, "cursor": "here"},
                    {"Idempotency-Key": f'"{worker}{number}"'})
        ask(link, "PATCH", path, {"labels": {"c": "d"}})
        ask(link, "POST", f"{path}/checkpoints")
        states[name] = ask(link, "GET", f"{path}/state")[1]
        if name == "plain":
            ask(link, "POST", f"{path}/rewind", {"step": 2})


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def small(path):
    """The database in small pages: the same rows in a few KiB."""
    with tempfile.TemporaryDirectory() as folder:
        link = sqlite3.connect(path)
        link.execute("PRAGMA journal_mode = DELETE")
        link.execute("PRAGMA page_size = 512")
        link.execute("VACUUM INTO ?", (os.path.join(folder, "small.db"),))
        link.close()
        return Path(folder, "small.db").read_bytes()


def cut(label, path):
    """One of each kind of record, the largest of each, which has the most in it."""
    link = sqlite3.connect(path)
    found = {}
    for key, record in link.execute("SELECT key, record FROM session"):
        found[f"{label}-session{key}"] = bytes([SESSION]) + record
    for kind, head, body in link.execute("SELECT kind & 255, head, body FROM journal WHERE chunk = 0"):
        name = f"{label}-event{kind}"
        if len(head) >= len(found.get(name, b"")):
            found[name] = bytes([EVENT]) + head
        if kind == EVENT_RECEIPTS:
            found[f"{label}-lines"] = bytes([LINES]) + body
    for place, body in link.execute("SELECT place, body FROM checkpoint_chunk WHERE place & 1048575 = 0"):
        size = struct.unpack("<Q", body[:8])[0]
        found[f"{label}-head{place >> 20}"] = bytes([HEAD]) + body[8:8 + size]
    link.close()
    for name, data in found.items():
        write("records", name, data)


def state(name, file):
    """Record, head and numbers of an exported state, as fuzz_state.c takes them."""
    size = struct.unpack("<Q", file[:8])[0]
    about = json.loads(json.loads(file[8:8 + size])["__metadata__"]["descent_state"])
    parts = [base64.b64decode(about[part]) for part in ("record", "head")]
    write("state", name, b"".join(struct.pack(">H", len(part)) + part for part in parts) + file[8 + size:])
    write("requests", f"state-{name}", f"PUT /v1/sessions/copy\nContent-Type: application/vnd.safetensors\n"
          f"Content-Length: {len(file)}\n\n".encode() + file)


def main():
    states = {}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, "--log", "off")
        link = server.connect()
        tell_stories(link, states)
        link.close()
        server.stop()
        path = os.path.join(folder, "data", "descent.db")
        cut("now", path)
        write("database", "now.db", small(path))
        for name, file in states.items():
            state(name, file)
        for old in UPGRADE.glob("*.db.gz"):
            label = old.name.split(".")[0]
            path = os.path.join(folder, label + ".db")
            Path(path).write_bytes(gzip.decompress(old.read_bytes()))
            cut(label, path)
            write("database", label + ".db", small(path))
    write("database", "empty", b"")
    write("database", "text", b"this is no database\n")


if __name__ == "__main__":
    main()
