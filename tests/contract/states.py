"""Answers that depend on what was before: conflicts, what is not kept any more, limits, a server that stops. Told step
by step, since no description of single requests can say them; each answer must be a documented one."""
import json
import os
import signal
import struct
import tempfile
import time

from wire import Client, Closed, Server
from running import run

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
OCTETS = "application/octet-stream"
G = {"w": [[0.1, -0.2], [0.3, 0.4]], "b": [0.5, -0.5]}
W = {"w": [[1, 2], [3, 4]], "b": [5, 6]}
PATIENCE_S = 20
LIMIT = 2048  # of a body, of the tight server
GRADIENTS = "/gradients"


def safetensors(tensors, metadata=None):
    """tensors: {name: (shape, numbers)}, in f32."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (shape, numbers) in tensors.items():
        piece = struct.pack("<%df" % len(numbers), *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class States:
    def __init__(self, run):
        self.run, self.document = run, run.document
        self.client = run.client

    def ask(self, operation, path, wanted, body=None, headers=(), kind=JSON, client=None):
        """One request; wanted: (status, code) or a status. The answer."""
        operation = self.document.find(operation)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = list(headers) + ([("Content-Type", kind)] if body is not None else [])
        answer = (client or self.client).request(operation.method, path, headers, body)
        words = "%s of %s" % (wanted, path)
        self.run.note(operation, answer, words)
        status, code = wanted if isinstance(wanted, tuple) else (wanted, None)
        told = json.loads(answer.body).get("code") if code else None
        if answer.status != status or told != code:
            self.run.complaints.append("%s: %d %s, not %s" % (path, answer.status, answer.body[:300], wanted))
        return answer

    def session(self, name, **members):
        base = "/v1/sessions/" + name
        self.ask("sessions_put", base, 201, {"optimizer": "sgd", "parameters": W, **members})
        return base

    def step(self, base, wanted=200, headers=(), **members):
        return self.ask("gradients_submit", base + GRADIENTS, wanted, {"gradients": G, **members}, headers)

    # --- one session after another ---

    def sessions(self):
        base = self.session("state-same")
        self.ask("sessions_put", base, 200, {"optimizer": "sgd", "parameters": W})
        self.ask("sessions_put", base, (409, "session_exists"), {"optimizer": "adam", "parameters": W})
        self.ask("sessions_fork", base + "/forks", (409, "session_exists"), {"id": "state-same"})
        for operation, path in (("sessions_put", "/v1/sessions/state-bad"), ("sessions_create", "/v1/sessions")):
            make = lambda value, code: self.ask(operation, path, (422, code), {"optimizer": "sgd", "parameters": {"w": value}})
            make([[1, 2], [3]], "shape_mismatch")
            make({"shape": [2], "data": [1]}, "shape_mismatch")
            make({"shape": [2], "data_b64": "AAAA"}, "length_mismatch")
            self.ask(operation, path, (422, "unknown_optimizer"), {"optimizer": "adamm", "parameters": W})
        self.ask("sessions_patch", base, (422, "invalid_field"), {"optimizer": {"name": "adamm"}})

    def files(self):
        base = self.session("state-file")
        self.step(base)
        file = self.ask("state_export", base + "/state", 200).body
        self.ask("sessions_put", "/v1/sessions/state-back", 201, file, kind=SAFETENSORS)
        self.ask("sessions_create", "/v1/sessions", (422, "invalid_field"), file, kind=SAFETENSORS)
        size = struct.unpack("<Q", file[:8])[0]
        header, data = json.loads(file[8:8 + size]), file[8 + size:]

        def again(code, change):
            entries = json.loads(json.dumps(header))
            more = change(entries) or b""
            text = json.dumps(entries).encode()
            self.ask("sessions_put", "/v1/sessions/state-none", (422, code),
                     struct.pack("<Q", len(text)) + text + data + more, kind=SAFETENSORS)

        def strange(entries):
            entries["u"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
            return bytes(4)

        again("unknown_tensor", strange)
        again("missing_tensor", lambda entries: entries.update(v=entries.pop("w")))

    def tensors(self):
        base = self.session("state-tensors", svrg={})
        self.ask("snapshots_create", base + "/snapshots", 201, {})
        for operation, path, member, more in (
                ("gradients_submit", base + GRADIENTS, "gradients", {}),
                ("parameters_replace", base + "/parameters", "parameters", {}),
                ("snapshots_gradients", base + "/snapshots/1" + GRADIENTS, "gradients", {"examples": 1})):
            send = lambda value, code: self.ask(operation, path, (422, code), {member: value, **more})
            send({"w": G["w"]}, "missing_tensor")
            send({**G, "u": [1]}, "unknown_tensor")
            send({**G, "w": [1, 2, 3, 4]}, "shape_mismatch")
            send({**G, "w": [[1, 2], [3]]}, "shape_mismatch")
            query = "?examples=1" if more else ""
            self.ask(operation, path + query, (422, "length_mismatch"), bytes(23), kind=OCTETS)
            bad = struct.pack("<6f", 1, 2, 3, float("nan"), 5, float("inf"))
            code = "invalid_field" if operation == "parameters_replace" else "nonfinite_gradient"
            self.ask(operation, path + query, (422, code), bad, kind=OCTETS)
            file = safetensors({"w": ([2, 2], [1, 2, 3, 4]), "u": ([2], [1, 2])})
            self.ask(operation, path + query, (422, "unknown_tensor"), file, kind=SAFETENSORS)

    def order(self):
        base = self.session("state-order")
        self.step(base, worker="w0", seq=1)
        self.step(base, worker="w0", seq=2)
        self.step(base, worker="w0", seq=2)
        self.step(base, (422, "idempotency_mismatch"), worker="w0", seq=2, loss=1)
        self.step(base, (409, "stale_sequence"), worker="w0", seq=1)
        self.step(base, (409, "sequence_gap"), worker="w0", seq=9)
        self.step(base, headers=[("Idempotency-Key", '"one"')])
        self.step(base, headers=[("Idempotency-Key", "one")])
        self.step(base, (422, "idempotency_mismatch"), headers=[("Idempotency-Key", "one")], loss=2)
        self.step(base, (412, "step_conflict"), headers=[("If-Match", '"0-0"')])
        self.step(base, (422, "invalid_field"), worker="w\u0007")
        for operation, path in (("sessions_rewind", "/rewind"), ("sessions_fork", "/forks")):
            self.ask(operation, base + path, (404, "not_found"), {"step": 10 ** 6})
            self.ask(operation, base + path, (404, "not_found"), {"step": 1, "lineage": 9})
            self.ask(operation, base + path, (400, "invalid_request"), {"step": 1}, [("If-Match", '"0-1"')])
        self.ask("parameters_fetch", base + "/parameters", (412, "step_conflict"), headers=[("If-Match", '"0-0"')])
        for operation, path in (("parameters_fetch", "/parameters"), ("hash_get", "/hash"), ("state_export", "/state")):
            self.ask(operation, base + path + "?step=1000000", (404, "not_found"))
        self.ask("steps_list", base + "/steps?lineage=9", (404, "not_found"))
        self.ask("parameters_fetch", base + "/parameters?after=1000&wait=0.01", 304)

    def workers(self):
        base = self.session("state-late", aggregation={"mode": "async", "max_staleness": 0})
        self.step(base)
        self.step(base, (409, "stale_gradient"), base_step=0)
        base = self.session("state-round", aggregation={"mode": "sync", "workers": 2})
        self.step(base, 202, worker="w0", headers=[("Prefer", "wait=0")])
        self.step(base, (409, "already_contributed"), worker="w0")
        self.step(base, 200, worker="w1")
        self.step(base, 202, worker="w0", headers=[("Prefer", "wait=1")], base_step=1)
        base = self.session("state-ahead", aggregation={"mode": "ssp", "staleness": 0})
        self.step(base, worker="w0")
        self.step(base, worker="w1")
        self.step(base, worker="w1")
        if self.step(base, (409, "too_far_ahead"), worker="w1").header("Retry-After") is None:
            self.run.complaints.append("too_far_ahead without Retry-After")
        base = self.session("state-wild", gradient={"max_norm_ratio": 10})
        for _ in range(12):
            self.step(base)
        huge = {"w": [[1e9, 1], [1, 1]], "b": [1, 1]}
        self.ask("gradients_submit", base + GRADIENTS, (422, "abnormal_gradient"), {"gradients": huge})

    def snapshots(self):
        base = self.session("state-snapshots", svrg={})
        pair = {"snapshot_gradients": G}
        self.step(base, (404, "snapshot_not_found"), snapshot=1, **pair)
        self.ask("snapshots_create", base + "/snapshots", 201, {})
        self.step(base, (409, "snapshot_collecting"), snapshot=1, **pair)
        self.ask("snapshots_gradient", base + "/snapshots/1/gradient", (409, "snapshot_collecting"))
        self.ask("snapshots_close", base + "/snapshots/1/close", (400, "invalid_request"))
        shard = {"gradients": G, "examples": 1, "worker": "w0", "part": "0"}
        self.ask("snapshots_gradients", base + "/snapshots/1" + GRADIENTS, 200, shard)
        self.ask("snapshots_gradients", base + "/snapshots/1" + GRADIENTS, (422, "idempotency_mismatch"), {**shard, "examples": 2})
        self.ask("snapshots_close", base + "/snapshots/1/close", 200)
        self.ask("snapshots_gradients", base + "/snapshots/1" + GRADIENTS, (409, "snapshot_closed"), {**shard, "worker": "w1"})
        self.step(base, snapshot=1, **pair)
        self.ask("snapshots_create", base + "/snapshots", 201, {"workers": 2})
        self.step(base, (409, "snapshot_stale"), snapshot=1, **pair)
        self.ask("snapshots_gradients", base + "/snapshots/1" + GRADIENTS, (409, "snapshot_stale"), shard)
        self.ask("snapshots_close", base + "/snapshots/1/close", (409, "snapshot_stale"))
        self.ask("snapshots_get", base + "/snapshots/1", (404, "snapshot_not_found"))
        self.ask("snapshots_parameters", base + "/snapshots/1/parameters", (404, "snapshot_not_found"))
        self.ask("snapshots_gradient", base + "/snapshots/1/gradient", (404, "snapshot_not_found"))

    def events(self):
        """The beginning of a stream that has no end."""
        base = self.session("state-events")
        client = Client(self.client.port)
        client.connect()
        client.socket.sendall(b"GET %s/steps HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n" % base.encode())
        answer = client.receive(whole=False)
        self.run.note(self.document.find("steps_list"), answer, "events")
        if not answer.body.startswith(b"retry: "):
            self.run.complaints.append("events begin with %r" % answer.body)
        client.close()
        events = [("Accept", "text/event-stream")]
        self.ask("steps_list", base + "/steps", (400, "invalid_request"), headers=events + [("Last-Event-ID", "13")])
        self.ask("steps_list", base + "/steps?from=9", (422, "invalid_field"), headers=events)

    def origins(self):
        """While no tokens are asked for, a page of another origin may do nothing."""
        for operation in self.document.operations:
            if operation.node["security"]:
                path = operation.path.replace("{id}", "none").replace("{number}", "1").replace("{name}", "adam")
                self.ask(operation.id, path, (403, "forbidden"), headers=[("Origin", "http://elsewhere.example")])

    def past(self):
        """Only the newest checkpoints can be gone back to."""
        base = self.session("state-gone", durability={"mode": "checkpoint", "steps": 1}, history={"keep_steps": 0})
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and any(
                self.client.request("GET", base + path).status != 410 for path in ("/hash?step=2", "/steps?from=1")):
            self.step(base)
        for operation, path in (("parameters_fetch", "/parameters"), ("hash_get", "/hash"), ("state_export", "/state")):
            self.ask(operation, base + path + "?step=2", (410, "history_gone"))
        self.ask("steps_list", base + "/steps?from=1", (410, "history_gone"))
        self.ask("sessions_rewind", base + "/rewind", (410, "history_gone"), {"step": 2})
        self.ask("sessions_fork", base + "/forks", (410, "history_gone"), {"step": 2})

    # --- servers of their own ---

    def limits(self):
        server = Server("--body-bytes-max", str(LIMIT), "--sessions-max", "1", data="memory:")
        client = Client(server.port)
        try:
            base = "/v1/sessions/only"
            body = {"optimizer": "sgd", "parameters": W}
            self.ask("sessions_put", base, 201, body, client=client)
            self.ask("sessions_put", "/v1/sessions/other", (429, "quota_exceeded"), body, client=client)
            self.ask("sessions_create", "/v1/sessions", (429, "quota_exceeded"), body, client=client)
            self.ask("sessions_fork", base + "/forks", (429, "quota_exceeded"), {}, client=client)
            for operation in (o for o in self.document.operations if o.content):
                path = operation.path.replace("{id}", "only").replace("{number}", "1")
                for kind in operation.content:
                    self.ask(operation.id, path, (413, "too_large"), bytes(LIMIT + 1), kind=kind, client=client)
        finally:
            client.close()
            self.ended(server)

    def slow(self):
        """Requests whose header does not end."""
        server = Server("--header-timeout-s", "1", data="memory:")
        clients = []
        try:
            for operation in self.document.operations:
                clients.append((operation, Client(server.port)))
                clients[-1][1].connect()
                clients[-1][1].socket.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\n" % (
                    operation.method.encode(), operation.path.translate({ord("{"): None, ord("}"): None}).encode()))
            for operation, client in clients:
                answer = client.receive()
                self.run.note(operation, answer, "a header without an end")
                if answer.status != 408:
                    self.run.complaints.append("%s, a header without an end: %d" % (operation.id, answer.status))
        finally:
            for _, client in clients:
                client.close()
            self.ended(server)

    def access(self):
        """Tokens: none, a strange one, one of too little scope, one whose quota is used up."""
        with tempfile.TemporaryDirectory(prefix="descent-contract-") as folder:
            file = os.path.join(folder, "tokens.json")

            def token(*options):
                code, said, errors = run("token", "create", "--tokens", file, *options)
                assert code == 0, errors
                return said.strip()

            bearer = lambda text: [("Authorization", "Bearer " + text)]
            reader, admin, busy = token("--scopes", "read"), token(), token("--inflight-max", "1")
            server = Server("--auth", "on", "--tokens", file, data="memory:")
            client, waiting = Client(server.port), Client(server.port)
            try:
                self.ask("sessions_put", "/v1/sessions/only", 201, {"optimizer": "sgd", "parameters": W}, bearer(admin),
                         client=client)
                waiting.connect()
                waiting.socket.sendall(b"GET /v1/sessions/only/parameters?after=9&wait=60 HTTP/1.1\r\nHost: x\r\n"
                                       b"Authorization: Bearer %s\r\n\r\n" % busy.encode())
                time.sleep(0.2)
                for operation in self.document.operations:
                    path = operation.path.replace("{id}", "only").replace("{number}", "1").replace("{name}", "adam")
                    if not operation.node["security"]:
                        self.ask(operation.id, path, 200, client=client)
                        continue
                    scope = operation.node["security"][0]["bearer"]
                    self.ask(operation.id, path, (401, "unauthorized"), client=client)
                    for wrong in ("Bearer nonsense", "Bearer " + reader[:-1] + "!", "Basic dTpw", "Bearer", reader):
                        self.ask(operation.id, path, (401, "unauthorized"), headers=[("Authorization", wrong)], client=client)
                    if scope != ["read"]:
                        self.ask(operation.id, path, (403, "forbidden"), headers=bearer(reader), client=client)
                    self.ask(operation.id, path, (429, "quota_exceeded"), headers=bearer(busy), client=client)
            finally:
                client.close()
                waiting.close()
                self.ended(server)

    def stopping(self):
        """A server that stops finishes what has begun; who asks on an open connection meanwhile is told."""
        server = Server("--drain-timeout-s", "20", data="memory:")
        begun, client = Client(server.port), Client(server.port)
        late = []
        try:
            operations = [o for o in self.document.operations if o.id != "livez"]
            for _ in operations:
                late.append(Client(server.port))
                late[-1].request("GET", "/livez")
            body = json.dumps({"optimizer": "sgd", "parameters": W}).encode()
            begun.connect()
            begun.socket.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                                 b"Content-Length: %d\r\n\r\n" % len(body))
            if not begun.line().startswith("HTTP/1.1 100"):
                self.run.complaints.append("no 100 Continue")
            begun.line()
            server.tell(signal.SIGTERM)
            self.until_draining(client)
            for operation, one in zip(operations, late):
                path = operation.path.replace("{id}", "x").replace("{number}", "1").replace("{name}", "adam")
                self.ask(operation.id, path, (503, "draining"), client=one)
            begun.socket.sendall(body)
            answer = begun.receive()
            self.run.note(self.document.find("sessions_create"), answer, "the end of a request that has begun")
            if answer.status != 201:
                self.run.complaints.append("a request that had begun was answered %d" % answer.status)
        finally:
            for one in [begun, client, *late]:
                one.close()
            self.ended(server)

    def until_draining(self, client):
        for _ in range(2000):
            try:
                if client.request("GET", "/readyz").status == 503:
                    return
            except (Closed, OSError):
                return
        self.run.complaints.append("SIGTERM, and it does not drain")

    def ended(self, server):
        code = server.close()
        if code != 0:
            self.run.complaints.append("a server ended with %d" % code)

    def all(self):
        for part in (self.sessions, self.files, self.tensors, self.order, self.workers, self.snapshots, self.events, self.origins, self.past,
                     self.limits, self.slow, self.access, self.stopping):
            part()
