#!/usr/bin/env python3
"""64 workers on one session of a million parameters, synchronous and asynchronous: no contribution
is lost or counted twice, every round's members stand in the ledger, memory is bounded, and who is
slow or vanishes holds up nothing but what must wait for it. `--seconds 60` (make load) is the long
form. Needs 4 GB of disk in TMPDIR."""
import argparse
import collections
import json
import os
import shutil
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402

WORKERS, COUNT, LR = 64, 1_000_000, 2.0 ** -12
BYTES = 4 * COUNT
HISTORY = 2 << 30
OWN_MB = 96  # the program, its libraries, stacks, SQLite's cache, the ledger
OCTETS = {"Content-Type": "application/octet-stream"}


class Server(running.Server):
    def __init__(self, folder):
        super().__init__(folder, "--log", "warning", "--history-bytes-max", str(HISTORY))

    def link(self):
        return self.connect(timeout=120)

    def reset_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")


def ask(link, method, path, body=None, headers=None):
    """Status and document."""
    link.request(method, path, body, headers or {})
    response = link.getresponse()
    data = response.read()
    return response.status, json.loads(data) if data else None


def must(link, method, path, body=None, headers=None):
    status, document = ask(link, method, path, body, headers)
    assert status in (200, 201, 202, 204), (method, path, status, document)
    return document


def create(link, name, aggregation):
    body = {"optimizer": {"name": "sgd", "lr": LR}, "aggregation": aggregation,
            "parameters": {"w": {"shape": [COUNT], "init": "zeros"}},
            "history": {"keep_steps": 1_000_000}}
    must(link, "PUT", f"/v1/sessions/{name}", json.dumps(body),
         {"Content-Type": "application/json"})


class Worker(threading.Thread):
    """Sends its number, over and over, until told to stop; notes the step of every seq that was
    acknowledged. Synchronous ones wait for their round."""

    def __init__(self, server, session, number, sync, based=False):
        super().__init__(daemon=True)
        import numpy as np

        self.server, self.session, self.number, self.sync = server, session, number, sync
        self.name, self.based = f"w{number:02}", based
        self.gradient = np.full(COUNT, number + 1, np.float32).tobytes()
        self.examples = 1 if number % 2 == 0 else 3
        self.steps = []  # of seq 1, 2 ...; None: its round was open at the end
        self.stop, self.stop_step = threading.Event(), None
        self.error, self.took, self.stale = None, [], 0
        self.at = 0

    def run(self):
        try:
            link = self.server.link()
            while not self.enough():
                begun = time.monotonic()
                step = self.send(link)
                self.took.append((begun, time.monotonic() - begun))
                if step == "stale":
                    continue
                self.steps.append(step)
            link.close()
        except Exception as error:  # told by whoever joins it
            self.error = repr(error)

    def enough(self):
        if self.stop_step is not None:
            return bool(self.steps) and (self.steps[-1] or 0) >= self.stop_step
        return self.stop.is_set()

    def send(self, link):
        query = (f"/v1/sessions/{self.session}/gradients?worker={self.name}"
                 f"&seq={len(self.steps) + 1}&examples={self.examples}")
        if self.based:
            query += f"&base_step={self.at}"
        headers = {**OCTETS, **({"Prefer": "wait=5"} if self.sync else {})}
        while True:
            status, answer = ask(link, "POST", query, self.gradient, headers)
            if status == 200:
                self.at = answer["step"]
                return answer["step"]
            if status == 409 and answer["code"] == "stale_gradient" and self.based:
                self.at, self.stale = answer["current_step"], self.stale + 1
                return "stale"
            assert status == 202, (self.name, status, answer)
            if self.stop.is_set() and self.stop_step is None:
                return None


def run_crowd(workers, seconds):
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    return workers


def end_crowd(workers, link, session, whole_rounds):
    """Everyone ends after the same round, where rounds need all."""
    if whole_rounds:
        last = must(link, "GET", f"/v1/sessions/{session}")["step"] + 3
        for worker in workers:
            worker.stop_step = last
    for worker in workers:
        worker.stop.set()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive(), f"{worker.name} does not come to an end"
        assert worker.error is None, f"{worker.name}: {worker.error}"


class Ledger(threading.Thread):
    """Reads the lines of a session's steps while they are made: history is kept only so long."""

    def __init__(self, server, session):
        super().__init__(daemon=True)
        self.link, self.path = server.link(), f"/v1/sessions/{session}/steps?tensors=false&from="
        self.lines, self.stop, self.error = [], threading.Event(), None

    def run(self):
        try:
            while not self.stop.wait(0.3):
                self.read()
        except Exception as error:  # told by whoever ends it
            self.error = repr(error)

    def read(self):
        self.link.request("GET", f"{self.path}{len(self.lines) + 1}",
                          headers={"Accept": "application/x-ndjson"})
        response = self.link.getresponse()
        data = response.read()
        assert response.status == 200, (response.status, data[:300])
        self.lines += [json.loads(line) for line in data.splitlines()]

    def end(self):
        """All of them."""
        self.stop.set()
        self.join(60)
        assert self.error is None, f"the ledger: {self.error}"
        self.read()
        self.link.close()
        return self.lines


def members(line):
    return [(m["worker"], m["seq"]) for m in line.get("members") or [line]]


def hold_ledger(lines, workers, step):
    """Every acknowledged contribution stands in the line of its step, and nothing else anywhere."""
    assert [line["step"] for line in lines] == list(range(1, step + 1)), "lines are missing"
    seen = collections.Counter()
    where = {}
    for line in lines:
        for member in members(line):
            seen[member] += 1
            where[member] = line["step"]
    twice = [member for member, times in seen.items() if times > 1]
    assert not twice, f"counted twice: {twice[:5]}"
    told = {(w.name, seq): at for w in workers for seq, at in enumerate(w.steps, 1)}
    for member, at in told.items():
        assert at is None or where.get(member) == at, (
            f"{member} was acknowledged with step {at} and stands at {where.get(member)}")
    beyond = [member for member in where if member not in told]
    assert not beyond, f"in the ledger and not acknowledged: {beyond[:5]}"
    return len(where)


def hold_weights(link, session, lines, workers, sync):
    """What the steps come to, one number for all parameters: sgd in float32, worked out here."""
    import numpy as np

    by_name = {w.name: w for w in workers}
    w, lr = np.float32(0), np.float32(LR)
    for line in lines:
        parts = [by_name[name] for name, _ in sorted(members(line))]
        if sync:
            total = sum(p.examples * float(p.number + 1) for p in parts)
            g = np.float32(total / sum(p.examples for p in parts))
        else:
            g = np.float32(parts[0].number + 1)
        w = w - lr * g
    link.request("GET", f"/v1/sessions/{session}/parameters",
                 headers={"Accept": "application/octet-stream"})
    got = np.frombuffer(link.getresponse().read(), np.float32)
    assert len(got) == COUNT and (got == w).all(), f"weights {got[0]}, not {w}"


def bound_mb(count, sync):
    """Each worker has one contribution: a body that is on its way or in the open round. A step of
    its own has room for the next weights beside it once it is admitted; a round has that once, and
    its mean. Then the weights, those before them, and one event on its way to the store."""
    vectors = count + 2 if sync else 2 * count
    return OWN_MB + BYTES * (vectors + 6) // 10 ** 6


def crowd(server, mode, count, seconds):
    """`count` workers at full speed."""
    link, session, sync = server.link(), f"crowd-{mode}", mode == "sync"
    create(link, session, {"mode": "sync", "workers": count} if sync else {"mode": "async"})
    server.reset_peak()
    workers = [Worker(server, session, number, sync) for number in range(count)]
    ledger = Ledger(server, session)
    ledger.start()
    begun = time.monotonic()
    run_crowd(workers, seconds)
    end_crowd(workers, link, session, sync)
    spent = time.monotonic() - begun
    peak, bound = server.memory_mb("VmHWM"), bound_mb(count, sync)
    step = must(link, "GET", f"/v1/sessions/{session}")["step"]
    lines = ledger.end()
    taken = hold_ledger(lines, workers, step)
    if sync:
        odd = [line["step"] for line in lines if len(members(line)) != count]
        assert not odd, f"rounds without all: {odd[:5]}"
    assert taken == sum(len(w.steps) for w in workers), "some stand nowhere"
    hold_weights(link, session, lines, workers, sync)
    listed = {w["name"]: w["seq"] for w in
              must(link, "GET", f"/v1/sessions/{session}/workers")["workers"]}
    assert listed == {w.name: len(w.steps) for w in workers}, "the list of workers differs"
    longest = max(took for w in workers for _, took in w.took)
    print(f"  {mode}: {taken} contributions of {count} workers in {step} steps, "
          f"{taken / spent:.0f}/s, {taken * BYTES / spent / 1e6:.0f} MB/s; the longest answer took "
          f"{longest:.1f} s; {peak} MB at most, bound {bound} MB", flush=True)
    assert peak <= bound, f"{peak} MB of memory, more than {bound}"
    must(link, "DELETE", f"/v1/sessions/{session}")
    link.close()


class Trickle(threading.Thread):
    """A connection that sends the head of a contribution and then its body, slowly or no more."""

    def __init__(self, server, session, name, bytes_per_s):
        super().__init__(daemon=True)
        self.rate, self.stop, self.sent = bytes_per_s, threading.Event(), 0
        self.link = socket.create_connection(("127.0.0.1", server.port), 30)
        self.link.sendall(f"POST /v1/sessions/{session}/gradients?worker={name}&seq=1 HTTP/1.1\r\n"
                          f"Host: x\r\nContent-Length: {BYTES}\r\n"
                          "Content-Type: application/octet-stream\r\n\r\n".encode()
                          + bytes(100_000))

    def run(self):
        try:
            while not self.stop.wait(0.1) and self.rate and self.sent + 100_000 < BYTES - 10 ** 6:
                self.link.sendall(bytes(self.rate // 10))
                self.sent += self.rate // 10
        except OSError:
            pass  # it took too long for the server's patience
        self.stop.wait()
        self.link.close()


def laggards(server, mode, seconds):
    """A slow and a vanished worker: they hold up neither the others of their session nor other
    sessions. Synchronous, rounds go on at their quorum when the time is up."""
    link, session, timeout_s = server.link(), f"lag-{mode}", 0.3
    count = 4
    create(link, session, {"mode": "async"} if mode == "async" else
           {"mode": "sync", "workers": count + 2, "quorum": count, "timeout_s": timeout_s})
    create(link, f"other-{mode}", {"mode": "async"})
    trickles = [Trickle(server, session, "slow", 200_000),
                Trickle(server, session, "vanished", 0)]
    crowd_ = [Worker(server, session, number, mode == "sync") for number in range(count)]
    late = Worker(server, session, 50, mode == "sync", based=True)
    other = Worker(server, f"other-{mode}", 60, False)
    ledgers = [Ledger(server, session), Ledger(server, f"other-{mode}")]
    for thread in trickles + ledgers:
        thread.start()
    begun = time.monotonic()
    run_crowd(crowd_ + [other], seconds)
    if mode == "sync":  # comes with a gradient of long ago
        late.stop.set()
        assert late.send(server.link()) == "stale", "a gradient of step 0 joined a later round"
    end_crowd([other], link, f"other-{mode}", False)
    end_crowd(crowd_, link, session, mode == "sync")
    spent = time.monotonic() - begun
    for trickle in trickles:
        trickle.stop.set()
    step = must(link, "GET", f"/v1/sessions/{session}")["step"]
    lines, other_lines = [ledger.end() for ledger in ledgers]
    hold_ledger(lines, crowd_, step)
    others = must(link, "GET", f"/v1/sessions/other-{mode}")["step"]
    assert others == len(other.steps)
    hold_ledger(other_lines, [other], others)
    longest = max(took for _, took in other.took)
    # Nobody waits for who is not there: what a wait for them would take is far longer.
    assert longest < min(seconds, 5), f"another session waited {longest:.1f} s"
    assert others > seconds, f"another session made {others} steps in {seconds} s"
    if mode == "sync":
        odd = [line["step"] for line in lines if len(members(line)) != count]
        assert not odd, f"rounds that did not close at their quorum: {odd[:5]}"
        least = seconds / (timeout_s + 1.5)
        assert step > least, f"{step} rounds in {seconds} s"
        assert step <= spent / timeout_s + 1, f"{step} rounds in {spent:.1f} s: too early"
    else:
        assert step > seconds, f"{step} steps in {seconds} s"
    print(f"  a slow and a vanished worker, {mode}: {step} steps of {count} others, {others} of "
          f"another session, its longest answer took {longest:.2f} s", flush=True)
    for name in (session, f"other-{mode}"):
        must(link, "DELETE", f"/v1/sessions/{name}")
    link.close()


def run(folder, options):
    free = shutil.disk_usage(folder).free
    assert free >= 4 << 30, f"less than 4 GB free in {folder}: set TMPDIR"
    server = Server(folder)
    for mode in ("sync", "async"):
        crowd(server, mode, options.workers, options.seconds)
    for mode in ("sync", "async"):
        laggards(server, mode, max(2, options.seconds / 4))
    assert server.stop(seconds=120) == 0, "SIGTERM did not end it with 0"
    code, said, errors = running.run("verify", "--data", os.path.join(folder, "data"), timeout=None)
    assert code == 0, said[-500:] + errors[-500:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args()

    def workers_load(folder):
        run(folder, options)
    running.main(workers_load)


if __name__ == "__main__":
    main()
