#!/usr/bin/env python3
"""Requests generated from api/openapi.json, against a live server: what the document allows must be taken, what it
forbids must be refused with a problem that says where and leave everything as it was, and every answer must be one
that the document describes: its status, headers, media type and schema.

Beside the document it knows how to make a session to work on (Worlds), and where a value that a schema allows depends
on another (DEPENDS). Usage: generated.py [--seed N] [--only OPERATION]. Exit status: 0 clean, 1 complaints.
"""
import argparse
import json
import re
import sys
import time

from cases import PROBLEM, Generator, Request
from document import METHODS, Document, parse_json
from states import States
from wire import Client, Closed, Server
from worlds import Worlds

COMPLAINTS_MAX = 40

# What a schema allows and a session may refuse, since it depends on other fields or on the session: operation,
# place (a pointer, or the name of a query parameter), reason. A refusal must still be a documented one of a field.
DEPENDS = [
    ("sessions_(create|put|patch|fork)", r"/optimizer(/.*)?", "each rule has its own hyperparameters, with their ranges"),
    ("sessions_(create|put|patch|fork)", r"/schedule(/.*)?", "each schedule has its own parameters"),
    ("sessions_(create|put|patch|fork)", r"/aggregation(/.*)?", "each mode has its own fields"),
    ("sessions_(create|put|patch|fork)", r"/durability/mode", "checkpoint does not go with rounds of several, nor with SVRG"),
    ("sessions_(create|put|patch|fork)", r"/gradient/rescale", "it may not be 0"),
    ("sessions_(create|put)", r"/parameters/.*", "shape, data and init must fit each other"),
    ("sessions_(create|put)", r"/groups(/.*)?", "each pattern must match a tensor"),
    ("sessions_(create|put)", r"/ema/eps|/dtype", "data_b64 has as many bytes as the dtype wants"),
    ("gradients_submit", r"/?(lr|momentum|beta1|beta2)", "the rule must have it, with its range"),
    ("gradients_submit", r"/?(seq|snapshot|snapshot_gradients|worker|base_step)", "they go together, and with the session"),
    ("(sessions_fork|sessions_rewind)", r"/(step|lineage|id|optimizer)", "what the session has"),
    ("snapshots_create", r"/(workers|examples)", "only one of them"),
    (".*", r"/?(step|lineage|from|page_token|wait|after|average|dtype|tensors)", "what the session has, and Accept"),
]

# Documented, and not to be had from outside, or only by what other tests do: status (and code), who does it.
ELSEWHERE = {
    ("state_export", 413, "too_large"): "a layout of millions of tensors",
    ("snapshots_gradients", 429, "quota_exceeded"): "65,536 parts: half a minute",
    (500, "internal"): "tests/scenario/test_oom.c",
    (500, "history_mismatch"): "tests/contract/test_store_verify.c",
    (503, "overloaded"): "tests/scenario/test_http_guards.c: budgets",
    (503, "storage_failed"): "make check-fault",
    (507, "storage_full"): "tests/scenario/disk_full.py",
    (409, "idempotency_in_flight"): "tests/unit/test_engine.c",
}


def media_type_of(answer):
    return answer.header("Content-Type")


class Run:
    def __init__(self, document, seed, only):
        self.document, self.generator, self.only = document, Generator(document, seed), only
        self.server = Server(data="memory:")
        self.client = Client(self.server.port)
        self.worlds = Worlds(self.client)
        self.counts, self.complaints, self.seen, self.used = {}, [], set(), set()

    def complain(self, request, words):
        self.complaints.append("%s, %s: %s" % (request.operation.id, request.label, words))
        if len(self.complaints) == COMPLAINTS_MAX:
            raise SystemExit(self.report())

    def report(self):
        for complaint in self.complaints:
            print("COMPLAINT", complaint)
        return 1 if self.complaints else 0

    def send(self, request, path, method=None):
        """The answer, held against the document; None when there was none."""
        operation = request.operation
        method = method or operation.method
        try:
            answer = self.client.request(method, request.target(path), request.headers, request.body)
        except (Closed, OSError) as error:
            self.complain(request, "no answer: %r" % error)
            return None
        for words in self.document.check_answer(operation, answer.status, answer.headers, answer.body, method == "HEAD"):
            self.complain(request, words)
        self.see(operation, answer)
        return answer

    def see(self, operation, answer):
        code = ""
        if answer.header("Content-Type") == PROBLEM and answer.body:
            code = json.loads(answer.body).get("code")
        self.seen.add((operation.id, answer.status, code))
        if answer.status < 300:
            self.seen.add((operation.id, answer.status, answer.header("Content-Type")))

    def note(self, operation, answer, words):
        """An answer that was had by hand, held against the document."""
        request = Request(operation, words)
        for fault in self.document.check_answer(operation, answer.status, answer.headers, answer.body):
            self.complain(request, fault)
        self.see(operation, answer)
        self.count("states")

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- positive ---

    def depends(self, request):
        for entry in DEPENDS:
            if re.fullmatch(entry[0], request.operation.id) and re.fullmatch(entry[1], request.where):
                self.used.add(entry)
                return True
        return False

    def positive(self, operation):
        for request in self.generator.once(self.generator.positive(operation)):
            name = self.worlds.session(operation) if "{id}" in operation.path else ""
            answer = self.send(request, self.worlds.path(operation, name))
            self.count("positive")
            if answer is None or answer.status < 400:
                if answer is not None and answer.status == 201 and operation.path.count("/") < 5:
                    self.client.request("DELETE", answer.header("Location") or "/")
                continue
            if answer.status not in (404, 409, 410, 422) or not self.depends(request):
                self.complain(request, "refused: %d %.400s" % (answer.status, answer.body.decode(errors="replace")))

    # --- negative ---

    def state(self, name):
        """All that a refused request could have changed."""
        if not name:
            return self.client.request("GET", "/v1/sessions?page_size=500").body
        base = "/v1/sessions/" + name
        return tuple(self.client.request("GET", base + part).body
                     for part in ("", "/hash", "/workers", "/snapshots/1", "/quarantine"))

    def negative(self, operation):
        name = self.worlds.session(operation) if "{id}" in operation.path and operation.id != "sessions_put" else ""
        path = self.worlds.path(operation, name)
        before = self.state(name)
        for request in self.generator.once(self.generator.negative(operation)):
            answer = self.send(request, path)
            self.count("negative")
            if answer is None:
                continue
            if not 400 <= answer.status < 500:
                self.complain(request, "taken, or failed: %d %.300s" % (answer.status, answer.body.decode(errors="replace")))
                name = self.worlds.session(operation) if name else name
                path = self.worlds.path(operation, name)
                before = self.state(name)
            elif self.state(name) != before:
                self.complain(request, "refused with %d, but something has changed" % answer.status)
                before = self.state(name)
            else:
                self.check_place(request, answer)

    def check_place(self, request, answer):
        """A refused field is the one that was wrong, or what holds it, or in it."""
        errors = parse_json(answer.body).get("errors") if answer.body else None
        if answer.status != 422 or not errors or not request.where:
            return
        told = errors[0]["pointer"]
        meant = request.where if request.where.startswith("/") else "/" + request.where
        if request.label.endswith("left out"):
            meant = meant.rsplit("/", 1)[0]
        if not (told.startswith(meant) or meant.startswith(told)):
            self.complain(request, "%s is at fault, and the answer says %s: %s" % (meant, told, errors[0]["detail"]))

    # --- addresses and methods ---

    def addresses(self, operation):
        if "{id}" in operation.path:
            name = self.worlds.session(operation)
        base = self.generator.bases(operation)[0]
        for parameter in (p for p in operation.parameters if p["in"] == "path"):
            bad = ["no-such-thing", "UPPER", "a" * 65, "a" * 4000, "%2e%2e", "a%2Fb", "a%00b", "%zz", "%", "%ff", "-a", "_a",
                   "a.b", "0", "99999999999999999999", "1e1", "+1", "%20", "%7Bid%7D"]
            for text in bad:
                if operation.id == "sessions_put" and text in ("no-such-thing", "0", "1e1", "99999999999999999999"):
                    continue
                path = operation.path.replace("{%s}" % parameter["name"], text)
                path = self.worlds.path(_Path(operation, path), name if "{id}" in operation.path else "")
                request = Request(operation, "{%s}: %.40s" % (parameter["name"], text), "", base[4], (), base[3], base[0])
                answer = self.send(request, path)
                self.count("addresses")
                if answer is not None and answer.status not in (400, 404, 409, 422):
                    self.complain(request, "%d %.200s" % (answer.status, answer.body.decode(errors="replace")))

    def long_address(self, operation):
        path = self.worlds.path(operation, "none")
        request = Request(operation, "an address of 9,000 bytes", "", "?" + "a" * 9000)
        answer = self.send(request, path)
        self.count("addresses")
        if answer is not None and answer.status != 414:
            self.complain(request, "%d" % answer.status)

    def methods(self):
        """Each method that a path does not have, HEAD and OPTIONS on those that it has."""
        for path, item in self.document.root["paths"].items():
            known = [m for m in METHODS if m in item]
            some = self.document.match(known[0].upper(), path.replace("{", "").replace("}", ""))[0]
            name = self.worlds.session(some) if "{id}" in path else ""
            real = self.worlds.path(_Path(some, path), name).replace("new-", "none-")
            allowed = {m.upper() for m in known} | {"OPTIONS"} | ({"HEAD"} if "get" in known else set())
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X"):
                if method.lower() in known and method.isupper() or method == "HEAD" and "get" in known:
                    continue
                request = Request(some, "%s %s" % (method, path))
                self.count("methods")
                answer = self.client.request(method, real)
                if method == "OPTIONS":
                    if answer.status != 204 or set((answer.header("Allow") or "").split(", ")) != allowed or answer.body:
                        self.complain(request, "%d, Allow %s" % (answer.status, answer.header("Allow")))
                    continue
                for words in self.document.check_answer(some, answer.status, answer.headers, answer.body, method == "HEAD"):
                    self.complain(request, words)
                for operation in (o for o in self.document.operations if o.path == path):
                    self.see(operation, answer)
                if answer.status != 405 or set((answer.header("Allow") or "").split(", ")) != allowed:
                    self.complain(request, "%d, Allow %s" % (answer.status, answer.header("Allow")))

    def heads(self, operation):
        """HEAD says what GET says, without the body."""
        name = self.worlds.session(operation) if "{id}" in operation.path else ""
        path = self.worlds.path(operation, name)
        for accept in self.generator.accepted(operation) or ["*/*"]:
            request = Request(operation, "HEAD", headers=[("Accept", accept)])
            get, head = self.send(request, path), self.send(request, path, "HEAD")
            self.count("methods")
            if get is None or head is None:
                continue
            varying = {"date", "request-id"}
            examples = operation.response(200)["content"].get(media_type_of(get), {}).get("examples", {})
            if any("x-varies" in example for example in examples.values()):
                varying.add("content-length")
            pick = lambda answer: sorted((n, v) for n, v in answer.headers if n.lower() not in varying)
            if head.body or get.status != head.status or pick(get) != pick(head):
                self.complain(request, "HEAD differs from GET: %s %s" % (pick(get), pick(head)))

    def conditions(self, operation):
        """If-None-Match and Range, where answers have a tag."""
        name = self.worlds.session(operation)
        path = self.worlds.path(operation, name)
        for accept in self.generator.accepted(operation):
            plain = self.send(Request(operation, "whole", headers=[("Accept", accept)]), path)
            tag = plain.header("ETag")
            wanted = [({"If-None-Match": tag}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x", W/' + tag}, 304),
                      ({"If-None-Match": '"x"'}, 200)]
            if plain.header("Accept-Ranges"):
                wanted += [({"Range": "bytes=0-3"}, 206), ({"Range": "bytes=4-"}, 206),
                           ({"Range": "bytes=-5", "Want-Content-Digest": "sha-256=1"}, 206),
                           ({"Range": "bytes=0-3", "If-Range": tag}, 206),
                           ({"Range": "bytes=0-3", "If-Range": '"x"'}, 200),
                           ({"Range": "bytes=999999-"}, 416), ({"Range": "bytes=0-1,3-4"}, 200), ({"Range": "lines=1-2"}, 200)]
            for fields, status in wanted:
                request = Request(operation, "%s %s" % (accept, fields), headers=[("Accept", accept), *fields.items()])
                answer = self.send(request, path)
                self.count("conditions")
                if answer.status != status:
                    self.complain(request, "%d, not %d" % (answer.status, status))
                elif status == 206:
                    first, last, total = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.header("Content-Range")).groups())
                    if answer.body != plain.body[first:last + 1] or total != len(plain.body):
                        self.complain(request, "other bytes than the whole has there")

    # --- what the document promises and nobody has seen ---

    def unseen(self):
        """Every documented status, code and media type of success of an operation is provoked, here or ELSEWHERE."""
        for operation in self.document.operations:
            seen = {(status, what) for name, status, what in self.seen if name == operation.id}
            for status, response in operation.responses.items():
                for kind, content in response.get("content", {}).items():
                    codes = [kind]
                    if kind == PROBLEM:
                        codes = content["schema"]["properties"]["code"]["enum"]
                    for what in codes:
                        key = (int(status), what)
                        if key not in seen and key not in ELSEWHERE and (operation.id, *key) not in ELSEWHERE:
                            yield "%s: nothing here made it answer %s %s" % (operation.id, status, what)

    def all(self):
        operations = [o for o in self.document.operations if self.only is None or o.id == self.only]
        if not operations:
            raise SystemExit("there is no such operation")
        for operation in operations:
            self.negative(operation)
        for operation in operations:
            self.addresses(operation)
            self.long_address(operation)
            if operation.method == "GET":
                self.heads(operation)
            if "304" in operation.responses:
                self.conditions(operation)
        if self.only is None:
            self.methods()
        for operation in operations:
            self.positive(operation)
        if self.only is None:
            States(self).all()
            self.complaints += self.unseen()
            self.complaints += ["DEPENDS has a line that nothing depends on: %s %s" % e[:2] for e in DEPENDS if e not in self.used]
        if not self.server.alive():
            self.complaints.append("the server has died: " + self.server.said()[-2000:])
        elif self.client.request("GET", "/livez").status != 200:
            self.complaints.append("the server does not say that it lives")


class _Path:
    """An operation at another path."""

    def __init__(self, operation, path):
        self.id, self.path = operation.id, path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help="one operation")
    given = parser.parse_args()
    print("seed %d" % given.seed)
    began = time.monotonic()
    run = Run(Document(), given.seed, given.only)
    try:
        run.all()
    except OSError as error:
        run.complaints.append("%r" % error)
    finally:
        errors = run.server.said()[-2000:]
        run.client.close()
        code = run.server.close()
    if code != 0:
        run.complaints.append("the server ended with %d: %s" % (code, errors))
    print("%s: %d requests in %.1f s" % (", ".join("%d %s" % (n, w) for w, n in run.counts.items()),
                                         sum(run.counts.values()), time.monotonic() - began))
    return run.report()


if __name__ == "__main__":
    sys.exit(main())
