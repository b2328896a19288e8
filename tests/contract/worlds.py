"""Sessions to work on: all that the generated tests know of the product beside its description."""
import json

JSON = "application/json"


class Worlds:
    """Sessions to work on: Adam on w [2, 2] and b [2], as in the document's examples."""

    PATH = {"name": "phone", "number": "1"}
    SPEC = {"optimizer": {"name": "adam", "lr": 0.001}, "parameters": {"w": [[0.1, 0.2], [0.3, 0.4]], "b": [0, 0]},
            "ema": {"decay": 0.9}, "svrg": {}, "gradient": {"max_norm_ratio": 100}, "labels": {"made": "by a test"}}
    STEP = {"gradients": {"w": [[0.1, -0.2], [0.3, 0.4]], "b": [0.5, -0.5]}, "worker": "phone"}

    def __init__(self, client):
        self.client, self.count = client, 0

    def must(self, method, target, body, *statuses):
        answer = self.client.request(method, target, [("Content-Type", JSON)],
                                     None if body is None else json.dumps(body).encode())
        if answer.status not in statuses:
            raise SystemExit("%s %s: %d %s" % (method, target, answer.status, answer.body.decode()))
        return answer

    def session(self, operation):
        """A session on which the operation can be carried out; its id."""
        self.count += 1
        name = "world-%d" % self.count
        base = "/v1/sessions/" + name
        self.must("PUT", base, self.SPEC, 201)
        for _ in range(11):
            self.must("POST", base + "/gradients", self.STEP, 200)
        huge = {"gradients": {"w": [[1e6, 1e6], [1e6, 1e6]], "b": [1e6, 1e6]}}
        self.must("POST", base + "/gradients", huge, 422)
        self.must("POST", base + "/snapshots", {}, 201)
        shard = {"gradients": self.STEP["gradients"], "examples": 10}
        self.must("POST", base + "/snapshots/1/gradients", shard, 200)
        if operation.id not in ("snapshots_gradients", "snapshots_close"):
            self.must("POST", base + "/snapshots/1/close", None, 200)
        kept = json.loads(self.must("GET", base + "/quarantine", None, 200).body)["quarantine"]
        self.quarantined = str(kept[0]["number"])
        return name

    def path(self, operation, name):
        """Its path on a session; one that creates a session gets a new id."""
        if operation.id == "sessions_put":
            self.count += 1
            name = "new-%d" % self.count
        path = operation.path.replace("{id}", name)
        if operation.path.startswith("/v1/optimizers"):
            return path.replace("{name}", "adam")
        if "/quarantine/" in operation.path:
            return path.replace("{number}", self.quarantined)
        for key, value in self.PATH.items():
            path = path.replace("{%s}" % key, value)
        return path
