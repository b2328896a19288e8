"""A session's steps as they are taken: what Session has of its event stream."""

import http.client
import json
import random
import time
from typing import NamedTuple

from . import wire
from .errors import ConnectionFailed, Error

_PAUSE_S, _PAUSE_MAX_S = 1.0, 30.0
_BUSY = (408, 429, 502, 503, 504)


class Event(NamedTuple):
    """kind      "step": data is the Receipt of the ledger, as from Session.steps
              "rewind": the session went back; what came after data["step"] is left behind, and it
              goes on from there under data["lineage"]
              "gap": lines up to data["step"] that did not come are not kept any more
              "deleted": the session, and the end
    id        where it leads, for last_event_id; None of "deleted"
    """

    kind: str
    id: str
    data: dict


class Events:
    """Session's method for following it."""

    def events(self, last_event_id=None, start=None, tensors=True):
        """Follows the session: yields an Event for every step as soon as it is on disk, without a
        gap and without a repeat. It connects again by itself, where it was, when a connection
        breaks or the server restarts; ConnectionFailed after as many vain attempts in a row as
        the client has retries, or at once when the server's certificate is not trusted. Closing the
        generator closes the connection.

        A stream that has been silent for a minute, or the client's timeout if that is longer, is
        taken for broken: a server whose --heartbeat-s is above 30 needs a client with a timeout of
        twice that.

        last_event_id   the id of the last event that was seen: goes on after it
        start           else: the step to begin with. Without both: the next one
        tensors         False: lines without the norms of each tensor
        """
        query = {} if tensors else {"tensors": "false"}
        if start is not None:
            query["from"] = wire.plain(start)
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        failures, pause, connected = 0, _PAUSE_S, False
        while True:
            if last_event_id is not None:
                headers["Last-Event-ID"] = last_event_id
            failure = None
            try:
                with self.client._transport.stream(self.path + "/steps", query, headers) as answer:
                    if answer.status not in _BUSY:
                        if answer.status == 404 and connected:  # meanwhile
                            yield Event("deleted", None, {})
                            return
                        if answer.status != 200:
                            raise Error.from_answer(answer.status, answer.read())
                        connected = True
                        for kind, id, data, retry in _parse(answer):
                            failures = 0
                            last_event_id = id if id is not None else last_event_id
                            pause = retry if retry is not None else pause
                            if kind is not None:
                                data = json.loads(data)
                                data = self._receipt(data) if kind == "step" else data
                                yield Event(kind, None if kind == "deleted" else id, data)
                            if kind == "deleted":
                                return
            except (OSError, http.client.HTTPException) as error:
                failure = error
            failures += 1
            if failures > self.client._transport.retries:
                raise ConnectionFailed(
                    "the events of %s ended %d times in a row: %s"
                    % (self.path, failures, failure or "the server is busy")
                ) from failure
            time.sleep(min(pause * 2 ** (failures - 1), _PAUSE_MAX_S) * random.uniform(0.5, 1.0))


def _parse(lines):
    """(event or None, id or None, data, seconds before coming back or None) of each block, by the
    rules of the WHATWG; one that is cut short is none."""
    kind = id = retry = None
    data = []
    while True:
        line = lines.readline()
        if not line.endswith(b"\n"):
            return
        line = line.decode("utf-8").rstrip("\r\n")
        if line:
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                id = value
            elif name == "retry" and value.isdigit():
                retry = int(value) / 1000
            continue
        if data or id is not None or retry is not None:
            yield (kind or "message") if data else None, id, "\n".join(data), retry
        kind = id = retry = None
        data = []
