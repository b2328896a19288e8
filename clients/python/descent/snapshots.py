"""Snapshots for SVRG: weights that were frozen, and the full gradient at them."""

import uuid

from . import tensors, wire


class Snapshot(dict):
    """What the server says about a snapshot. Members are attributes too: .snapshot (its number),
    .step, .status ("collecting" or "ready"), .workers, .examples, .parts, ...

    An older one than the newest is gone: using it raises snapshot_stale or snapshot_not_found.
    """

    def __init__(self, session, members):
        super().__init__(members)
        self._session = session
        self._path = "%s/snapshots/%d" % (session.path, members["snapshot"])

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError("the snapshot has only %s" % ", ".join(self)) from None

    @property
    def ready(self):
        return self["status"] == "ready"

    def parameters(self, dtype=None):
        """The frozen weights, as Parameters."""
        return self._session._vector(self._path + "/parameters", dtype)

    def gradient(self, dtype=None):
        """The full gradient at them, {name: array}; Error snapshot_collecting before it is ready."""
        return dict(self._session._vector(self._path + "/gradient", dtype))

    def add(self, gradients, examples, part=None, reduction=None, dtype=None):
        """Adds the full gradient of a shard of so many examples: their mean, or with
        reduction="sum" their sum. Returns itself, as it is then.

        A shard is named by the session handle's worker and by `part`, which tells several of one
        worker apart; sent again it counts once. Without either every call is another shard.
        """
        session = self._session
        fields = {"examples": examples, "worker": session.worker, "part": part}
        if session.worker is None and part is None:
            fields["part"] = uuid.uuid4().hex  # so that another attempt is the same shard
        fields["reduction"] = reduction
        fields = {name: wire.plain(value) for name, value in fields.items() if value is not None}
        request = session._step_request(gradients, dtype, fields)
        body, path = request["body"], self._path + "/gradients"
        body = wire.json_bytes(body) if isinstance(body, dict) else body
        return self._now("POST", path, request["query"], request["headers"], body)

    def close(self):
        """Says that all shards are in, where their number was not announced. Returns itself."""
        return self._now("POST", self._path + "/close")

    def refresh(self):
        """Asks how far it is. Returns itself."""
        return self._now("GET", self._path)

    def _now(self, *request):
        self.update(wire.document_of(self._session.client._send(*request)))
        return self


class Snapshots:
    """Session's methods for SVRG."""

    def take_snapshot(self, workers=None, examples=None):
        """Freezes the weights as they are now, in place of the snapshot before; returns a Snapshot.
        It is ready when shards of so many workers, or examples, have been added to it, or when it
        is closed.

        Sent once only, for a second one would undo what others have added to the first: after
        ConnectionFailed look at `snapshot()`."""
        announced = {"workers": wire.plain(workers), "examples": wire.plain(examples)}
        body = wire.json_bytes({name: n for name, n in announced.items() if n is not None})
        headers = {"Content-Type": wire.JSON}
        path = self.path + "/snapshots"
        answer = self.client._send("POST", path, None, headers, body, repeat=False)
        return Snapshot(self, wire.document_of(answer))

    def snapshot(self):
        """The newest Snapshot, or None."""
        listed = wire.document_of(self.client._send("GET", self.path + "/snapshots"))["snapshots"]
        return Snapshot(self, listed[-1]) if listed else None

    def _vector(self, path, dtype):
        query = {} if dtype is None else {"dtype": dtype}
        headers = {"Accept": wire.MEDIA[self.client.format]}
        return self._parameters_in(self.client._send("GET", path, query, headers), dtype)

    def _pair_request(self, gradients, pair, dtype, fields):
        """The request of a step that has a batch's gradients at the snapshot's weights, too."""
        if self.client.format == "safetensors":
            both = {**gradients, **{"snapshot/" + name: value for name, value in pair.items()}}
            return self._step_request(both, dtype, fields)
        request = self._step_request(gradients, dtype, fields)
        if self.client.format == "json":
            lists = {name: tensors.to_lists(value) for name, value in pair.items()}
            request["body"]["snapshot_gradients"] = lists
            return request
        other = self._step_request(pair, dtype, {})
        if request["query"]["dtype"] != other["query"]["dtype"]:
            return self._pair_request(gradients, pair, "f64", fields)
        request["body"] += other["body"]
        return request


def number_of(snapshot):
    """The number of a Snapshot, or the number itself."""
    return getattr(snapshot, "snapshot", snapshot)
