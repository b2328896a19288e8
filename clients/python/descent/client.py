"""A server: Client."""

import os
import secrets
import ssl
import urllib.parse

from . import safetensors, wire
from .errors import ConnectionFailed, Error
from .session import Session
from .transport import Transport


def _checked(token):
    """What could not be sent as it is: a message that has it would end up in logs."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("the token has blanks, line ends or other characters that no token has")
    return token


class Client:
    """A descent server.

    url       "http://127.0.0.1:8080"; a path before /v1 (behind a proxy) may follow
    timeout   seconds to wait for the server at any one point of an exchange
    retries   how often a request is repeated when no answer comes or the server is busy (see
              descent.transport): 8 ride out about five seconds, such as a restart of the server.
              Repeating never applies a step twice.
    format    how tensors travel: "safetensors" (exact bytes, names and shapes checked), "raw" (the
              same bytes without a header) or "json" (exact too, readable, slow beyond some thousand
              numbers)
    coding    "gzip" or "zstd": bodies go and come smaller, for networks that are slower than that
              takes; zstd wants Python 3.14 or the package zstandard
    headers   sent with every request, for instance for a proxy
    token     of a server that asks for one, "dsc_..."; without it that of the environment variable
              DESCENT_TOKEN, if there is one. It goes to the server of `url` alone
    cafile    for https: trust only the certificates in this PEM file, for instance the server's own
              where nobody has signed it. Without it the system's certificates decide.
    context   in place of cafile: an ssl.SSLContext

    Threads may share a client: each gets its own kept connection.
    """

    def __init__(
        self,
        url="http://127.0.0.1:8080",
        timeout=30.0,
        retries=8,
        format="safetensors",
        headers=None,
        token=None,
        cafile=None,
        context=None,
        coding=None,
    ):
        if format not in wire.MEDIA:
            raise ValueError("format %r is none of %s" % (format, ", ".join(wire.MEDIA)))
        if cafile is not None:
            if context is not None:
                raise ValueError("give cafile or context, not both")
            context = ssl.create_default_context(cafile=cafile)
        headers = {"User-Agent": "descent-python", "Accept": wire.JSON, **(headers or {})}
        token = token or os.environ.get("DESCENT_TOKEN")
        if token and "authorization" not in map(str.lower, headers):
            headers["Authorization"] = "Bearer " + _checked(token)
        self._transport = Transport(url, timeout, retries, headers, context, coding)
        self.format = format

    def create(self, parameters, optimizer, id=None, worker=None, **options):
        """A new session; returns its handle.

        parameters   {name: array or nested lists}; their order is the layout. In place of an array
                     {"shape": [784, 10], "init": "zeros"}, or "ones", {"normal": {"mean": 0,
                     "std": 0.01}}, {"uniform": {"low": -1, "high": 1}}: the server makes it
        optimizer    "adam", or {"name": "adam", "lr": 1e-3, ...}: `Client.optimizers` tells what
                     there is; or one of another framework by its name there, with the fields it
                     has: {"preset": "torch.optim.Adam", "lr": 1e-3}, see `Client.presets`
        id           a name of your choice; without it the client draws one, so that a repeated
                     request cannot create two sessions. Creating an id again with the same
                     arguments returns the session that is there.
        options      other members of the session: dtype="f64", gradient={"clip_norm": 1.0},
                     labels={...}, ...; among them
                     schedule={"name": "cosine", "max_steps": 1000, "warmup_steps": 50}: the rate
                     as a function of the step, see `Client.schedules`
                     groups=[{"tensors": ["*.bias"], "weight_decay_mult": 0}]: factors for the
                     tensors whose names match
                     ema={"decay": 0.999}: a moving average of the weights, see
                     Session.parameters
        """
        id = id or "py-" + secrets.token_hex(10)
        document = {"optimizer": optimizer, **options}
        if self.format == "json" or any(isinstance(value, dict) for value in parameters.values()):
            lists = {name: wire.json_parameter(value) for name, value in parameters.items()}
            body, media = wire.json_bytes({**document, "parameters": lists}), wire.JSON
        else:
            metadata = {"descent": wire.json_bytes(document).decode("utf-8")}
            body, media = safetensors.dumps(parameters, metadata), wire.SAFETENSORS
        session = Session(self, id, worker)
        answer = self._send("PUT", session.path, headers={"Content-Type": media}, body=body)
        if answer.status == 201:
            session.seq = 1  # nobody can have sent anything yet
        return session

    def restore(self, state, id=None, worker=None):
        """A session of what Session.export_state gave, of this server or another; returns its
        handle. It goes on to the same bits. id: without it the client draws one; restoring the same
        state again under it returns the session that is there, as long as it has not gone on."""
        session = Session(self, id or "py-" + secrets.token_hex(10), worker)
        self._send("PUT", session.path, headers={"Content-Type": wire.SAFETENSORS}, body=state)
        return session

    def session(self, id, worker=None):
        """The handle of a session that exists; nothing is sent. For `worker` see Session.step."""
        return Session(self, id, worker)

    def sessions(self, page_size=50):
        """Every session, one dict each, fetched page by page as the iteration goes."""
        token = None
        while True:
            query = {"page_size": page_size}
            if token:
                query["page_token"] = token
            page = wire.document_of(self._send("GET", "/v1/sessions", query))
            yield from page["sessions"]
            token = page.get("next_page_token")
            if not token:
                return

    def optimizers(self, name=None):
        """The rules the server has: dicts with formula, source, hyperparameters; or one of them."""
        if name is not None:
            path = "/v1/optimizers/" + urllib.parse.quote(name, safe="")
            return wire.document_of(self._send("GET", path))
        answer = wire.document_of(self._send("GET", "/v1/optimizers"))
        return answer["optimizers"] if isinstance(answer, dict) else answer

    def presets(self):
        """Optimizers of other frameworks by their names there: dicts with the rule (`optimizer`),
        the fields that can be set with the framework's defaults, and those that are fixed."""
        return wire.document_of(self._send("GET", "/v1/presets"))["presets"]

    def schedules(self):
        """The learning-rate schedules: dicts with formula, source, parameters."""
        return wire.document_of(self._send("GET", "/v1/schedules"))["schedules"]

    def ready(self):
        """Whether the server is ready; one that is starting is waited for, by retries."""
        try:
            return self._transport.request("GET", "/readyz").status == 200
        except ConnectionFailed:
            return False

    def close(self):
        """Closes the connections. The client stays usable and opens new ones when needed."""
        self._transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _send(
        self, method, path, query=None, headers=None, body=None, good=(), repeat=True, wait=0
    ):
        """The answer to a request, which the server was asked to hold back for up to `wait`
        seconds; raises Error unless its status is 2xx or one of `good`."""
        answer = self._transport.request(method, path, query, headers, body, repeat, wait)
        if not 200 <= answer.status < 300 and answer.status not in good:
            raise Error.from_answer(answer.status, answer.body)
        return answer
