"""A session and what it answers: Session, Receipt, Parameters."""

import json
import threading
import time
import urllib.parse
import uuid

from . import safetensors, tensors, wire
from .errors import ConnectionFailed, Error
from .events import Events
from .history import History, moment
from .snapshots import Snapshots, number_of
from .workers import WAIT_MAX_S, Workers, step_of

_SEQ_NEVER = 2**53 - 1  # no worker gets there; see Session.step


class Receipt(dict):
    """What the server says about a step. Members are attributes too: receipt.step, .grad_norm, ...

    replayed     True when this is the stored receipt of an earlier attempt: nothing was applied now
    etag         names the revision after the step, for `if_newer` and `if_match`
    parameters   the new weights (Parameters) when the step asked for them, else None
    waiting      True: a contribution to a round that is open still. It has .round, the step that it
                 will become, .received and .expected, and neither step nor etag
    """

    replayed = False
    etag = None
    parameters = None

    @property
    def waiting(self):
        return self.get("status") == "waiting"

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError("the receipt has only %s" % ", ".join(self)) from None


class Parameters(dict):
    """Tensors by name, in layout order, with the revision they are: step, lineage and etag."""

    step = None
    lineage = None
    etag = None


class Session(History, Events, Workers, Snapshots):
    """A handle of one session: `id`, and what can be done with it.

    forked   of a handle that `fork` returned: what became of the parent's state, a dict with
             state, slots, replayed; else None

    Threads may share a handle; the steps of one with a worker are numbered, so they take turns.
    """

    def __init__(self, client, id, worker=None):
        self.client = client
        self.id = id
        self.worker = worker
        self.forked = None
        self.seq = None  # of this worker's next step; None: the server is asked when it comes
        self.path = "/v1/sessions/" + urllib.parse.quote(id, safe="")
        self._layout = None
        self._lock = threading.Lock()

    def __repr__(self):
        return "<descent.Session %s>" % self.id

    def info(self):
        """The configuration, every default filled in; step, tensors, cursor, last receipt, ..."""
        return wire.document_of(self.client._send("GET", self.path))

    def step(
        self,
        gradients,
        loss=None,
        examples=None,
        base_step=None,
        cursor=None,
        lr=None,
        return_parameters=False,
        dtype=None,
        key=None,
        if_match=None,
        dry_run=False,
        worker=None,
        kind=None,
        wait=None,
        compression=None,
        snapshot=None,
        snapshot_gradients=None,
        **hyperparameters,
    ):
        """Applies a gradient, {name: array} with every tensor of the session. Returns a Receipt.

        loss, examples       recorded; examples also weighs the mean of a round of workers
        base_step            the step of the weights the gradient was computed at
        cursor               text up to 4096 bytes that is committed with the step: your own
                             position (epoch, batch, generator state). After a crash
                             `session.info()["cursor"]` tells where to go on.
        lr, **hyperparameters   for this step only: lr=0.1, momentum=..., beta1=..., beta2=...
        return_parameters    also fetch the new weights, as receipt.parameters, in the same exchange
        dtype                "bf16" or "f16" halve what is sent; None sends arrays as they are
        if_match             an ETag (receipt.etag, parameters.etag): apply only if that is still
                             the revision, else Error with code step_conflict
        dry_run              True: tells what the step would do (receipt.dry_run is True) and takes
                             none; no key and no worker go with it
        worker               who sends it, in place of the handle's worker and without a number of
                             its own: mode "sync" wants a name
        kind                 "delta": what is sent is w_client - w_fetched
        snapshot, snapshot_gradients   SVRG: a Snapshot or its number, and the gradient of the same
                             batch at its weights
        wait                 seconds to wait until the round of this contribution is closed (or, in
                             mode "ssp", until the others have caught up; or until the snapshot has
                             all of its shards); without it, or when they
                             are over, receipt.waiting may be True: the contribution is kept, and
                             `parameters(after=receipt, wait=...)` gets the weights it leads to
        compression          descent.Int8(), Sign(), TopK(fraction), TwoBit(threshold) or Rows():
                             sends fewer bytes; what they leave out is added to the next gradient.
                             Keep one object for all steps of a worker
        key                  an Idempotency-Key of your own, kept across a restart of your program;
                             by default every call draws a new one

        A step is applied exactly once however often the network fails: each call carries an
        Idempotency-Key, and is repeated with it. If even that ends in ConnectionFailed, call again
        with key=error.key.

        A handle with a worker sends (worker, seq) in place of a key; the server keeps the last seq
        of each worker for ever. A new handle does not know its seq. It learns it by sending its
        first step with a seq that is far too high: the server refuses that (sequence_gap), applying
        nothing, and says which it expects. Whether the last step before a crash was applied is
        thereby settled; which of your batches it was, `cursor` tells.
        """
        fields = dict(hyperparameters, base_step=base_step, loss=loss, examples=examples, lr=lr)
        fields.update(cursor=cursor, kind=kind, snapshot=number_of(snapshot))
        numbered = worker is None and key is None and self.worker is not None and not dry_run
        fields["worker"] = None if numbered else worker or self.worker
        fields = {name: wire.plain(value) for name, value in fields.items() if value is not None}
        encoded = None if compression is None else compression.encode(gradients)
        if snapshot_gradients is None:
            request = self._step_request(gradients, dtype, fields, encoded)
        elif compression is None:
            request = self._pair_request(gradients, snapshot_gradients, dtype, fields)
        else:
            raise ValueError("a pair of gradients is sent plain: leave compression out")
        if return_parameters:
            request["headers"]["Prefer"] = "return=representation"
            media = wire.JSON if self.client.format == "json" else wire.SAFETENSORS
            request["headers"]["Accept"] = media
        if if_match is not None:
            request["headers"]["If-Match"] = if_match
        if dry_run:
            request["query"]["dry_run"] = "true"
            return self._submit(request)
        if numbered:
            with self._lock:
                receipt = self._step_by_sequence(request, wait)
        else:
            receipt = self._step_by_key(request, key or uuid.uuid4().hex, wait)
        if encoded is not None and receipt.get("status") != "skipped":
            compression.arrived(encoded)
        return receipt

    def parameters(
        self,
        dtype=None,
        tensors=None,
        if_newer=None,
        average=None,
        step=None,
        lineage=None,
        after=None,
        wait=None,
    ):
        """The weights now, as Parameters, or those of a past step (see History).

        dtype      "f32", "f64", "f16" or "bf16" on the wire (bf16 arrives as float32); by default
                   the session's
        tensors    names of the tensors wanted; by default all
        if_newer   Parameters or a Receipt from before, or an ETag: None is returned if nothing has
                   changed since
        average    "ema": the moving average of the weights in their place, of a session that was
                   created with `ema`. It is no revision: its etag is of use for `if_newer` of
                   another average only
        after      a step, or the Parameters or Receipt of one: None is returned if there is no
                   later one, after `wait` seconds
        """
        query = moment(step, lineage)
        if after is not None:
            query["after"] = wire.plain(step_of(after))
        if average is not None:
            query["average"] = average
        if dtype is not None:
            query["dtype"] = dtype
        if tensors is not None:
            tensors = list(tensors)
            if self.client.format == "raw":  # no names in it: ask in the one order that is sure
                layout = list(self._layout_now())
                tensors.sort(key=lambda name: layout.index(name) if name in layout else len(layout))
            query["tensors"] = ",".join(tensors)
        headers = {"Accept": wire.MEDIA[self.client.format]}
        if if_newer is not None:
            headers["If-None-Match"] = if_newer if isinstance(if_newer, str) else if_newer.etag
        answer = self._fetch(query, headers, wait)
        return None if answer.status == 304 else self._parameters_in(answer, dtype, tensors)

    def replace(self, parameters):
        """Puts other weights in place of all; returns a Receipt. The optimizer's state stays."""
        body, media, query = self._encode(parameters, None)
        path = self.path + "/parameters"
        answer = self.client._send("PUT", path, query, {"Content-Type": media}, body)
        receipt = Receipt(wire.document_of(answer) if answer.body else {})
        receipt.etag = answer.headers.get("ETag")
        return receipt

    def update(self, **patch):
        """Changes the configuration from the next step on; returns the session as `info` does.

        session.update(optimizer={"lr": 0.01}, schedule={"warmup_steps": 10}, labels={"run": "b"})
        """
        body, headers = wire.json_bytes(patch), {"Content-Type": wire.JSON}
        answer = self.client._send("PATCH", self.path, None, headers, body)
        return wire.document_of(answer) if answer.body else self.info()

    def delete(self):
        """Deletes the session and all it stored. Error session_not_found if there is none."""
        answer = self.client._send("DELETE", self.path, good=(404,))
        if answer.status == 404 and answer.attempts == 1:  # else an earlier attempt deleted it
            raise Error.from_answer(answer.status, answer.body)

    def _receipt(self, members):
        return Receipt(members)

    def _fetch(self, query, headers, wait):
        """The answer with the weights, or 304; when it is to wait, after `wait` seconds."""
        path, deadline = self.path + "/parameters", time.monotonic() + (wait or 0)
        while True:
            left = min(max(deadline - time.monotonic(), 0), WAIT_MAX_S)
            if wait is not None:
                query["wait"] = "%.3f" % left
            answer = self.client._send("GET", path, query, headers, good=(304,), wait=left)
            if answer.status != 304 or time.monotonic() >= deadline:
                return answer

    # --- how a step is sent ---

    def _step_request(self, gradients, dtype, fields, encoded=None):
        if encoded is None and self.client.format == "json":
            lists = {name: tensors.to_lists(value) for name, value in gradients.items()}
            body = {"gradients": lists, **fields}
            return {"headers": {"Content-Type": wire.JSON}, "query": {}, "body": body}
        if encoded is not None:
            if dtype is not None:
                raise ValueError("dtype is for gradients that are not compressed")
            body = safetensors.dumps(encoded.entries, encoded.metadata)
            media, query = wire.SAFETENSORS, {}
        else:
            body, media, query = self._encode(gradients, dtype)
        for name, value in fields.items():
            query[name] = value if isinstance(value, str) else json.dumps(value)
        return {"headers": {"Content-Type": media}, "query": query, "body": body}

    def _step_by_key(self, request, key, wait):
        request["headers"]["Idempotency-Key"] = '"%s"' % key
        try:
            return self._await_round(lambda asked: self._submit(request, None, asked), wait)
        except ConnectionFailed as error:
            error.key = key
            raise

    def _step_by_sequence(self, request, wait):
        if self.seq is None:
            try:
                return self._submit(request, {"worker": self.worker, "seq": _SEQ_NEVER})
            except Error as error:
                if error.code != "sequence_gap":
                    raise
                self.seq = error.problem["expected"]
        sequence = {"worker": self.worker, "seq": self.seq}
        receipt = self._await_round(lambda asked: self._submit(request, sequence, asked), wait)
        self.seq += 1  # only now: after an exception the same gradients go under the same number
        return receipt

    def _submit(self, request, sequence=None, wait=0):
        query, body, headers = request["query"], request["body"], request["headers"]
        if wait > 0:
            preferred = [headers["Prefer"]] if "Prefer" in headers else []
            headers = {**headers, "Prefer": ", ".join([*preferred, "wait=%d" % wait])}
        if isinstance(body, dict):
            body = wire.json_bytes({**body, **(sequence or {})})
        elif sequence:
            query = {**query, **sequence}
        path = self.path + "/gradients"
        answer = self.client._send("POST", path, query, headers, body, wait=wait)
        return self._receipt_in(answer)

    def _receipt_in(self, answer):
        if wire.media_type(answer) == wire.JSON:
            document = wire.document_of(answer)
            weights = document.pop("parameters", None)
            receipt = Receipt(document)
            if weights is not None:
                receipt.parameters = _parameters(wire.arrays_of(weights), document, answer)
        else:
            receipt = Receipt(wire.header_members(answer.headers))
            receipt.parameters = self._parameters_in(answer)
        receipt.replayed = answer.headers.get("Idempotency-Replayed", "").lower() == "true"
        receipt.etag = answer.headers.get("ETag")
        return receipt

    # --- tensors on the wire ---

    def _encode(self, mapping, dtype):
        """(body, media type, query) of all tensors of the session."""
        if self.client.format == "json":
            lists = {name: tensors.to_lists(value) for name, value in mapping.items()}
            return wire.json_bytes({"parameters": lists}), wire.JSON, {}
        if self.client.format == "safetensors":
            return safetensors.dumps(mapping, dtype=dtype), wire.SAFETENSORS, {}
        encoded = {name: tensors.encode(value, dtype) for name, value in mapping.items()}
        layout = self._layout_now()
        if set(encoded) != set(layout):
            raise ValueError("the session's tensors are %s; got %s" % (list(layout), list(encoded)))
        kinds = {tensor.dtype for tensor in encoded.values()}
        if len(kinds) > 1:  # raw bytes have one type: the one that holds them all
            kinds = {"f64"}
            encoded = {name: tensors.encode(value, "f64") for name, value in mapping.items()}
        for name, shape in layout.items():
            if encoded[name].shape != shape:
                raise ValueError(
                    "tensor %r has shape %s; the session's is %s"
                    % (name, encoded[name].shape, shape)
                )
        return b"".join(encoded[name].data for name in layout), wire.RAW, {"dtype": kinds.pop()}

    def _layout_now(self):
        """{name: shape} in layout order; it never changes."""
        if self._layout is None:
            info = self.info()
            self._dtype = info["dtype"]
            self._layout = {entry["name"]: tuple(entry["shape"]) for entry in info["tensors"]}
        return self._layout

    def _parameters_in(self, answer, dtype=None, names=None):
        media = wire.media_type(answer)
        if media == wire.JSON:
            document = wire.document_of(answer)
            tensors_in = document.get("parameters", document.get("gradient"))
            return _parameters(wire.arrays_of(tensors_in), document, answer)
        if media == wire.SAFETENSORS:
            found, metadata = safetensors.loads(answer.body)
            return _parameters(found, metadata, answer)
        found, offset, layout = {}, 0, self._layout_now()
        dtype = dtype or self._dtype
        view = memoryview(answer.body)
        for name, shape in layout.items():
            if names is None or name in names:
                end = offset + tensors.count(shape) * tensors.SIZES[dtype]
                found[name] = tensors.decode(tensors.Tensor(dtype, shape, view[offset:end]))
                offset = end
        return _parameters(found, {}, answer)


def _parameters(found, members, answer):
    """Parameters with their revision, as the body tells it or else the ETag, "lineage-step"."""
    parameters = Parameters(found)
    parameters.etag = answer.headers.get("ETag")
    named = parameters.etag.strip('"').split("-") + [None] if parameters.etag else [None, None]
    for attribute, fallback in (("lineage", named[0]), ("step", named[1])):
        value = members.get(attribute, fallback)
        setattr(parameters, attribute, int(value) if value is not None else None)
    return parameters
