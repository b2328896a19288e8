"""The past of a session, and sessions that go on from it: what Session has of history."""

import secrets
import urllib.parse

from . import wire
from .errors import Error


def moment(step, lineage, query=None):
    """The query that names a revision; None where it is not named."""
    named = {"step": step, "lineage": lineage}
    return {**(query or {}), **{name: wire.plain(v) for name, v in named.items() if v is not None}}


class History:
    """Session's methods for its past. A revision is named by its step, and by the lineage where a
    rewind has left one behind: without a lineage it is the step on the line that leads to the
    current revision. Error history_gone says in problem["oldest_step"] what is still kept."""

    def hash(self, step=None, lineage=None):
        """The hash (32 hexadecimal digits) of weights and state, now or at a step: sessions with
        the same hash have the same, and with the same configuration and seed go on to the same
        bits."""
        answer = self.client._send("GET", self.path + "/hash", moment(step, lineage))
        return wire.document_of(answer)["state_hash"]

    def steps(self, start=None, lineage=None, tensors=True, page_size=100):
        """The ledger from step `start` on (None: from the oldest that is kept), one Receipt a step
        with worker, seq, bytes, created_at, stages (milliseconds) and, unless `tensors` is False,
        norms of each tensor; fetched page by page as the iteration goes. Steps that are not kept
        any more, also when they go meanwhile, raise history_gone. A rewind meanwhile does not
        change what comes, if `lineage` says which line it is."""
        query = moment(None, lineage, {"page_size": page_size})
        if start is not None:
            query["from"] = start
        if not tensors:
            query["tensors"] = "false"
        while True:
            page = wire.document_of(self.client._send("GET", self.path + "/steps", query))
            for entry in page["steps"]:
                yield self._receipt(entry)
            if page["next_page_token"] is None:
                return
            query.pop("from", None)
            query["page_token"] = page["next_page_token"]

    def rewind(self, step, lineage=None):
        """Goes back to a step, under the next lineage; returns the session as `info` does. What is
        left behind can be read, and gone back to, by its lineage. Keys and workers' numbers are
        not taken back: they go on counting.

        Sent once only, for another worker may have stepped when it was repeated: after
        ConnectionFailed look at info()["lineage"]."""
        body, headers = wire.json_bytes(moment(step, lineage)), {"Content-Type": wire.JSON}
        answer = self.client._send(
            "POST", self.path + "/rewind", None, headers, body, repeat=False
        )
        return wire.document_of(answer)

    def fork(self, step=None, lineage=None, id=None, worker=None, **options):
        """A new session that goes on from here, or from a step; returns its handle, whose `forked`
        says what became of the optimizer's state.

        id        a name of your choice; without it the client draws one
        options   what is to be other than the parent's: optimizer={"lr": 0.01} changes
                  hyperparameters, optimizer="nadam", or with a "name" or "preset", is another rule;
                  schedule=, gradient=, labels=, ...; state="reset" begins the state anew;
                  replay=True runs the gradients the parent took since through the fork, under
                  the fork's configuration
        """
        drawn = id or "py-" + secrets.token_hex(10)
        body = wire.json_bytes({**moment(step, lineage), "id": drawn, **options})
        headers = {"Content-Type": wire.JSON}
        answer = self.client._send("POST", self.path + "/forks", None, headers, body, good=(409,))
        child = type(self)(self.client, drawn, worker)
        if answer.status == 409:
            # Of an id that nobody else has, an earlier attempt of this request made the session.
            if id is not None or answer.attempts == 1:
                raise Error.from_answer(answer.status, answer.body)
        else:
            child.forked = wire.document_of(answer)["fork"]
        return child

    def checkpoint(self):
        """Saves the state now; returns {"step", "lineage"} of what is saved."""
        return wire.document_of(self.client._send("POST", self.path + "/checkpoints"))

    def checkpoints(self):
        """The checkpoints that are kept, the newest first: dicts with step, lineage, bytes."""
        answer = self.client._send("GET", self.path + "/checkpoints")
        return wire.document_of(answer)["checkpoints"]

    def export_state(self, step=None, lineage=None):
        """Everything the session is, now or at a step, as the bytes of a safetensors file. It can be
        kept, read by any reader of that format, and restored by Client.restore."""
        headers = {"Accept": wire.SAFETENSORS}
        answer = self.client._send("GET", self.path + "/state", moment(step, lineage), headers)
        return bytes(answer.body)

    def quarantine(self):
        """Gradients that were refused as abnormal (gradient={"max_norm_ratio": ...}) and kept, the
        newest first: dicts with number, step, created_at, dtype, grad_norm, loss, worker."""
        answer = self.client._send("GET", self.path + "/quarantine")
        return wire.document_of(answer)["quarantine"]

    def quarantined(self, number):
        """One of them: {name: array}."""
        path = "%s/quarantine/%s" % (self.path, urllib.parse.quote(str(number), safe=""))
        answer = self.client._send("GET", path, None, {"Accept": wire.SAFETENSORS})
        return dict(self._parameters_in(answer))
