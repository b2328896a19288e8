#!/usr/bin/env python3
"""GET /metrics and the log against what was done: every request, byte and step of this script is counted on both
sides. The text is read by a strict reader and by promtool; counters only rise while eight threads step; histograms
add up; a restart begins anew; ten thousand sessions cost a scrape nothing; a log that nobody reads holds up nobody.
"""
import collections
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import running  # noqa: E402
from running import BINARY, ROOT, check, main, within  # noqa: E402

THREADS, EACH, MANY = 8, 60, 10_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def same(got, expected, what):
    check(got == expected, f"{what}: {got}, expected {expected}")


class Figures:
    """The exposition format, read strictly."""
    NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    SAMPLE = re.compile(rf'({NAME})(?:\{{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\}})? (-?[0-9.e+-]+|\+Inf|NaN)')

    def __init__(self, text):
        check(text.endswith("\n"), "the text does not end with a line")
        self.values, self.types, family, seen = {}, {}, None, set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                check(family not in seen, f"{family} comes twice")
                seen.add(family)
            elif line.startswith("# TYPE "):
                same(line.split()[2], family, "TYPE after HELP")
                self.types[family] = line.split()[3]
            else:
                match = self.SAMPLE.fullmatch(line)
                check(match is not None, f"not a sample: {line!r}")
                suffixes = ("_bucket", "_sum", "_count") if self.types[family] == "histogram" else ("",)
                check(match[1] in [family + suffix for suffix in suffixes], f"{line!r} stands under {family}")
                labels = tuple(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
                check((match[1], labels) not in self.values, f"{line!r} comes twice")
                self.values[match[1], labels] = float(match[3])
        self.check_histograms()

    def check_histograms(self, quiet=False):
        """quiet: nobody is between the count and the sum of what it observes."""
        buckets = collections.defaultdict(list)
        for (name, labels), value in self.values.items():
            if name.endswith("_bucket"):
                buckets[name[:-7], labels[:-1]].append((float(labels[-1][1]), value))
        check(len(buckets) > 10, "there are histograms")
        for (name, labels), counts in buckets.items():
            check(counts == sorted(counts) and counts[-1][0] == math.inf, f"{name} is not cumulative: {counts}")
            count, total = self.values[name + "_count", labels], self.values[name + "_sum", labels]
            same(counts[-1][1], count, f"{name}: what is at most +Inf")
            least = most = below = 0
            for i, (bound, value) in enumerate(counts):
                if value > below:
                    least += (value - below) * (counts[i - 1][0] if i else 0)
                    most += (value - below) * bound
                below = value
            check(not quiet or least - 1e-9 <= total <= most + 1e-9, f"{name}: the sum is {total}: {counts}")

    def __call__(self, name, **labels):
        check(name in {known for known, _ in self.values}, f"there is no {name}")
        return self.values.get((name, tuple(labels.items())), 0)

    def rising(self):
        kinds = {"counter": ("",), "histogram": ("_bucket", "_sum", "_count")}
        names = {name + suffix for name, kind in self.types.items() for suffix in kinds.get(kind, ())}
        return {key: value for key, value in self.values.items() if key[0] in names}


class Server(running.Server):
    def __init__(self, folder, *options, **more):
        self.started = time.time()
        super().__init__(folder, *options, **more)
        self.local = threading.local()
        self.lock = threading.Lock()
        self.requests, self.received, self.sent = collections.Counter(), collections.Counter(), collections.Counter()

    def ask(self, operation, method, path, body=None, expect=200, **headers):
        """Sends a request, and counts it as the server should."""
        if not hasattr(self.local, "connection"):
            self.local.connection = self.connect()
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        if isinstance(body, dict):
            headers.setdefault("Content_Type", "application/json")
        self.local.connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        response = self.local.connection.getresponse()
        answer = response.read()
        same(response.status, expect, f"{method} {path}: {answer[:200]}")
        with self.lock:
            self.requests[operation, str(expect)] += 1
            self.received[operation] += len(data or b"")
            self.sent[operation] += len(answer)
        return answer

    def create(self, name, count=3, **more):
        self.ask("sessions_put", "PUT", f"/v1/sessions/{name}", expect=201, body={
            "optimizer": {"name": "sgd", "lr": 0.5}, "parameters": {"w": {"shape": [count], "init": "zeros"}}, **more})

    def step(self, name, gradient, expect=200, query="", **more):
        headers = more.pop("headers", {})
        return self.ask("gradients_submit", "POST", f"/v1/sessions/{name}/gradients{query}",
                        {"gradients": {"w": gradient}, **more}, expect, **headers)

    def figures(self):
        return Figures(self.text())

    def text(self):
        return self.ask("metrics", "GET", "/metrics").decode()

    def wait_for(self, what, condition):
        def look():
            figures = self.figures()
            return condition(figures) and figures
        return within(running.WAIT_S, look, f"waited in vain for {what}")

    def end(self):
        same(self.stop(), 0, "exit status")


def lint(text):
    tool = shutil.which("promtool", path=os.environ["PATH"] + ":" + os.path.join(ROOT, "build/tools"))
    check(tool is not None, "promtool is missing: make deps-check")
    run = subprocess.run([tool, "check", "metrics"], input=text, text=True, capture_output=True)
    check(run.returncode == 0 and not run.stdout and not run.stderr, f"promtool: {run.stdout}{run.stderr}")
    broken = subprocess.run([tool, "check", "metrics"], input=text.replace("_total", "_sum"), text=True,
                            capture_output=True)
    check(broken.returncode != 0, "promtool takes anything")


def check_requests(server):
    before = (server.requests.copy(), server.received.copy(), server.sent.copy())  # without the scrape itself
    figures = server.figures()
    counted = {(dict(labels)["operation"], dict(labels)["code"]): value
               for (name, labels), value in figures.values.items() if name == "descent_http_requests_total"}
    same(counted, dict(before[0]), "requests")
    for operation in before[2]:
        same(figures("descent_http_request_body_bytes_total", operation=operation), before[1][operation],
             f"bytes to {operation}")
        same(figures("descent_http_response_body_bytes_total", operation=operation), before[2][operation],
             f"bytes of {operation}")
    times = sum(value for (name, _), value in figures.values.items() if name == "descent_http_request_seconds_count")
    same(times, sum(before[0].values()), "latencies")
    return figures


def check_truth(server, folder):
    server.create("one", 5)
    server.create("skips", 3, gradient={"nonfinite": "skip"})
    server.create("team", 2, aggregation={"mode": "sync", "workers": 2})
    for i in range(37):
        server.step("one", [i, 1, 2, 3, 4])
    for _ in range(3):
        server.step("one", [0] * 5, headers={"Idempotency_Key": "again"})
    for _ in range(2):
        server.step("one", [1] * 5, query="?dry_run=true")
    for _ in range(4):
        server.ask("gradients_submit", "POST", "/v1/sessions/skips/gradients", b"\0\0\x80\x7f" * 3,
                   Content_Type="application/octet-stream")
    for i in range(5):
        server.step("team", [i, 1], 202, worker="a")
        server.step("team", [1, i], 200, worker="b")
    for _ in range(2):
        server.ask("parameters_replace", "PUT", "/v1/sessions/one/parameters", {"parameters": {"w": [1, 2, 3, 4, 5]}})
    for _ in range(3):
        server.step("one", [1], 422)
    server.step("nobody", [1], 404)
    server.step("one", [1] * 5, 412, headers={"If_Match": '"0-1"'})
    server.ask("none", "GET", "/nothing", expect=404)
    server.ask("none", "DELETE", "/metrics", expect=405)
    server.ask("parameters_fetch", "GET", "/v1/sessions/one/parameters")
    server.ask("parameters_fetch", "HEAD", "/v1/sessions/one/parameters")
    server.ask("sessions_get", "GET", "/v1/sessions/one?none=1", expect=400)
    figures = check_requests(server)
    figures.check_histograms(quiet=True)
    for name, value, labels in [
            ("steps_total", 37 + 1 + 5, {"result": "applied"}), ("steps_total", 4, {"result": "skipped"}),
            ("steps_total", 2, {"result": "replaced"}), ("step_replays_total", 2, {}),
            ("contributions_total", 10, {}), ("rounds_closed_total", 5, {}),
            ("steps_refused_total", 3, {"code": "shape_mismatch"}),
            ("steps_refused_total", 1, {"code": "session_not_found"}),
            ("steps_refused_total", 1, {"code": "step_conflict"}), ("steps_refused_total", 0, {"code": "internal"}),
            ("sessions", 3, {}), ("sessions_resident", 3, {}), ("parameters", 10, {}),
            ("journal_events_total", 37 + 1 + 4 + 10 + 2, {}), ("http_connections", 1, {}),
            ("http_requests_running", 1, {}), ("http_inflight_body_bytes", 0, {}), ("commit_failures_total", 0, {}),
            ("checkpoint_seconds_count", 3, {})]:
        same(figures("descent_" + name, **labels), value, f"{name} {labels}")
    taken = 37 + 1 + 4 + 10
    for stage, count in [("receive", taken), ("decode", taken), ("wait", taken + 2), ("commit", taken + 2),
                         ("apply", taken - 5 + 2)]:
        same(figures("descent_step_stage_seconds_count", stage=stage), count, f"stage {stage}")
    server.wait_for("what was sent", lambda f: f("descent_step_stage_seconds_count", stage="send") == taken)
    staged = sum(figures("descent_step_stage_seconds_sum", stage=s)
                 for s in ["receive", "decode", "wait", "commit", "apply"])
    check(0 < staged <= figures("descent_http_request_seconds_sum", **{"class": "step"}) + 1e-6 * 5 * taken,
          "the stages of steps are longer than the requests")
    same(figures("descent_journal_bytes"), figures("descent_journal_written_bytes_total"), "bytes of the journal")
    commits = figures("descent_commit_group_size_count")
    check(figures("descent_fsync_seconds_count") >= commits >= 40, "each commit is synced")
    same(figures("descent_commit_seconds_count"), commits, "commits are timed")
    check(figures("descent_commit_group_size_sum") >= 3 + figures("descent_journal_events_total"), "writes")
    check(figures("descent_state_bytes") + figures("descent_buffer_bytes") > 0, "memory")
    server.wait_for("the file's size", lambda f: f("descent_database_bytes") ==
                    os.path.getsize(os.path.join(folder, "data", "descent.db")))


def check_process(server):
    figures, pid = server.figures(), server.process.pid
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status", encoding="utf-8"))
    stat = open(f"/proc/{pid}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()
    ticks = os.sysconf("SC_CLK_TCK")
    same(figures("process_threads"), int(status["Threads"]), "threads")
    same(figures("process_open_fds"), len(os.listdir(f"/proc/{pid}/fd")), "descriptors")
    check(abs(figures("process_resident_memory_bytes") / (int(status["VmRSS"].split()[0]) * 1024) - 1) < 0.2, "rss")
    check(abs(figures("process_virtual_memory_bytes") / (int(status["VmSize"].split()[0]) * 1024) - 1) < 0.2, "size")
    check(abs(figures("process_cpu_seconds_total") - (int(stat[11]) + int(stat[12])) / ticks) < 0.2, "cpu")
    check(abs(figures("process_start_time_seconds") - server.started) < 2, "start")
    info = [dict(labels) for (name, labels) in figures.values if name == "descent_build_info"]
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    same([len(info), info[0]["version"]], [1, version], "build info")
    check(all(info[0].values()) and info[0]["simd"] in ("avx512", "avx2", "default"), f"{info}")


def check_waiting(server):
    step = json.loads(server.ask("sessions_get", "GET", "/v1/sessions/one"))["step"]
    waiter = threading.Thread(target=server.ask, args=("parameters_fetch", "GET",
                                                       f"/v1/sessions/one/parameters?after={step}&wait=30"))
    waiter.start()
    server.wait_for("a request that waits", lambda f: f("descent_waiting_requests", **{"for": "step"}) == 1)
    server.step("one", [1] * 5)
    waiter.join()
    same(server.figures()("descent_waiting_requests", **{"for": "step"}), 0, "none waits")
    held = [server.connect() for _ in range(6)]
    for connection in held:
        connection.connect()
    now = server.wait_for("connections", lambda f: f("descent_http_connections") >= 7)("descent_http_connections")
    for connection in held:
        connection.close()
    server.wait_for("connections to go", lambda f: f("descent_http_connections") == now - 6)


def check_load(server):
    """Eight threads step, each in its own session, while this one reads the figures all the time."""
    def steps(name):
        for i in range(EACH):
            server.step(name, [i, 1, 2])

    names = [f"load-{i}" for i in range(THREADS)]
    for name in names:
        server.create(name)
    before = last = server.figures()
    threads = [threading.Thread(target=steps, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    scrapes = 0
    while any(thread.is_alive() for thread in threads):
        now = server.figures()
        new = now.rising()
        for key, value in last.rising().items():
            check(new[key] >= value, f"{key} went back from {value} to {new[key]}")
        last, scrapes = now, scrapes + 1
    for thread in threads:
        thread.join()
    after = check_requests(server)
    same(after("descent_steps_total", result="applied") - before("descent_steps_total", result="applied"),
         THREADS * EACH, "steps under load")
    for stage in ["receive", "decode", "wait", "commit", "apply"]:
        same(after("descent_step_stage_seconds_count", stage=stage) -
             before("descent_step_stage_seconds_count", stage=stage), THREADS * EACH, f"{stage} under load")
    for name in names:
        server.ask("sessions_delete", "DELETE", f"/v1/sessions/{name}", expect=204)
    same([server.figures()("descent_sessions"), server.figures()("descent_sessions_resident")], [3, 3], "sessions")
    return scrapes


def check_restart(server, folder):
    old = server.figures()
    server.end()
    server = Server(folder, "--log", "warning")
    new = server.figures()
    same([new("descent_sessions"), new("descent_parameters"), new("descent_sessions_resident")], [3, 10, 0],
         "after a restart")
    check(0 < new("descent_journal_bytes") <= old("descent_journal_written_bytes_total") + 4e6, "journal's bytes")
    same(sum(value for (name, _), value in new.values.items() if name == "descent_steps_total"), 0, "steps")
    check(new("process_start_time_seconds") > old("process_start_time_seconds"), "it is another process")
    server.step("one", [1] * 5)
    new = check_requests(server)
    same([new("descent_sessions_resident"), new("descent_steps_total", result="applied")], [1, 1], "a step later")
    server.end()


def check_many(folder):
    """A scrape beside ten thousand sessions takes as long as beside none."""
    def create(first):
        for i in range(first, MANY, THREADS):
            server.create(f"s{i}")

    def median():
        times = []
        for _ in range(21):
            begun = time.perf_counter()
            server.text()
            times.append(time.perf_counter() - begun)
        return sorted(times)[10] * 1e3

    server = Server(folder, "--log", "warning", data="memory:")
    few = median()
    threads = [threading.Thread(target=create, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(server.figures()("descent_sessions"), MANY, "sessions")
    many = median()
    print(f"a scrape takes {few:.2f} ms beside no session, {many:.2f} ms beside {MANY}")
    check(many < 10 * few + 5, "a scrape looks at the sessions")
    server.end()


def check_log(folder):
    path = os.path.join(folder, "requests.log")
    server = Server(folder, "--log-format", "json", "--log-file", path, "--log-requests", data="memory:")
    server.create("one")
    ids = [f"id-{i}" for i in range(20)]
    for name in ids:
        server.ask("gradients_submit", "POST", "/v1/sessions/one/gradients?lr=0.125", bytes(12),
                   Content_Type="application/octet-stream", Authorization="Bearer dsc_no", X_Request_Id=name,
                   traceparent=f"00-{TRACE}-b7ad6b7169203331-01")

    def told(words):
        if not os.path.exists(path):
            return False
        with open(path, encoding="utf-8") as lines:
            return words in lines.read()

    within(4, lambda: told("id-19"), "a line is missing")  # it is written after the answer
    os.rename(path, path + ".1")  # as logrotate does
    server.tell(signal.SIGHUP)
    within(4, lambda: told("reloaded"), "SIGHUP is not heard")
    server.ask("none", "GET", "/a%0Ab%22%1b?secret=1", expect=404, X_Request_Id="odd", traceparent="00-1-2-3")
    server.end()
    old, new = (open(name, encoding="utf-8").read() for name in (path + ".1", path))
    check("id-19" in old and "odd" in new and "odd" not in old, "SIGHUP does not open the log anew")
    text = old + new
    check("dsc_no" not in text and "0.125" not in text and "secret" not in text, "a secret is in the log")
    same(os.stat(path).st_mode & 0o777 & ~0o640, 0, "mode of the log")
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if line.get("request_id", "").startswith("id-")]
    same([line["request_id"] for line in steps], ids, "a line for each request")
    for line in steps:
        same((line["level"], line["message"], line["method"], line["path"], line["operation"], line["status"],
              line["trace_id"], line["parent_span_id"], line["remote"].split(":")[0]),
             ("info", "request", "POST", "/v1/sessions/one/gradients", "gradients_submit", 200, TRACE,
              "b7ad6b7169203331", "127.0.0.1"), "a request")
        check(line["duration_us"] > 0 and line["bytes_in"] == 12 and line["bytes_out"] > 100, f"{line}")
    odd, = [line for line in lines if line.get("request_id") == "odd"]
    same((odd["path"], odd["status"], odd["code"], "trace_id" in odd), ("/a%0Ab%22%1b", 404, "not_found", False), "odd")
    same([line["message"] for line in lines if "request_id" not in line],
         ["serving", "reloaded", "SIGTERM: finishing what runs", "stopped"], "other lines")


def check_flood(folder):
    """Refusals are told of up to a number in a second; a log that nobody reads holds up nobody."""
    read, write = os.pipe()
    server = Server(folder, "--log-problems-max", "5", data="memory:", stderr=write)
    begun = time.time()
    for _ in range(300):
        server.ask("none", "GET", "/nothing", expect=404)
    seconds = math.ceil(time.time() - begun) + 1
    figures = server.wait_for("the last line", lambda f: f("descent_log_lines_total", level="info") +
                              f("descent_log_suppressed_lines_total") >= 301)
    told = figures("descent_log_lines_total", level="info")
    check(1 + 5 <= told <= 1 + 5 * seconds, f"{told} lines in {seconds} s")
    server.end()
    os.close(write)
    os.close(read)
    read, write = os.pipe()
    server = Server(folder, "--log-requests", data="memory:", stderr=write)
    for _ in range(2000):
        server.ask("livez", "GET", "/livez")
    server.wait_for("lines to be dropped", lambda f: f("descent_log_dropped_lines_total") > 100)
    server.end()
    os.close(write)
    os.close(read)


def metrics(folder):
    server = Server(folder, "--log", "warning")
    lint(server.text())  # before anything happened
    check_truth(server, folder)
    lint(server.text())
    check_process(server)
    check_waiting(server)
    scrapes = check_load(server)
    lint(server.text())
    check_restart(server, folder)
    check_many(folder)
    check_log(folder)
    check_flood(folder)
    print(f"every request, byte and step is counted; {scrapes} scrapes under load never went back")


main(metrics)
