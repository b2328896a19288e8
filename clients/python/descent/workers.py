"""Many workers on one session: what Session has of them, and how it waits."""

import time
import urllib.parse

from . import wire
from .errors import Error

WAIT_MAX_S = 60  # the longest that a server is asked to wait at once; more is asked for again
_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.01, 1.0
_PASSING = ("too_far_ahead", "snapshot_collecting")  # refusals that time mends


class Workers:
    """Session's methods for those who train it together."""

    def workers(self):
        """Who contributes: one dict each with name, seq, contributions, base_step, lag, last_seen,
        live, waiting. The round that is open is info()["round"]."""
        return wire.document_of(self.client._send("GET", self.path + "/workers"))["workers"]

    def dismiss(self, name):
        """Forgets a worker: nobody waits for it, and its numbers start again at 1. Error not_found
        if there is none of that name."""
        path = "%s/workers/%s" % (self.path, urllib.parse.quote(name, safe=""))
        answer = self.client._send("DELETE", path, good=(404,))
        if answer.status == 404:
            error = Error.from_answer(answer.status, answer.body)
            if error.code != "not_found" or answer.attempts == 1:  # else an earlier attempt did it
                raise error

    def _await_round(self, send, wait):
        """Sends a contribution, again and again under the same key or number, until its round is
        closed, nobody is too far behind and its snapshot is ready, or `wait` seconds have
        passed."""
        deadline, pause = time.monotonic() + (wait or 0), _PAUSE_FIRST_S
        while True:
            left = deadline - time.monotonic()
            asked = min(max(-(-left // 1), 0), WAIT_MAX_S)  # whole seconds: RFC 7240 has no others
            try:
                receipt = send(int(asked))
                if not receipt.waiting or time.monotonic() >= deadline:
                    return receipt
            except Error as error:
                if error.code not in _PASSING or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _PAUSE_MAX_S)


def step_of(moment):
    """The step that a number, Parameters or a Receipt stands for; of a contribution that waits the
    one before its round's."""
    if isinstance(moment, dict) and moment.get("status") == "waiting":
        return moment["round"] - 1
    return getattr(moment, "step", moment)
