"""What can go wrong: the server's problem documents (RFC 9457), and answers that never came."""

import json


class Error(Exception):
    """The server refused a request.

    status       the HTTP status, e.g. 422
    code         the stable name to branch on, e.g. "shape_mismatch"
    detail       what is wrong and how to mend it
    errors       [{"pointer": "/gradients/w", "detail": ...}] where fields are at fault, else []
    request_id   names the request in the server's log
    problem      the whole document, with members of its own such as "expected" of sequence_gap
    """

    def __init__(self, status, problem):
        self.status = status
        self.problem = problem
        self.code = problem.get("code", "http_%d" % status)
        self.detail = problem.get("detail") or problem.get("title") or ""
        self.errors = problem.get("errors") or []
        self.request_id = problem.get("request_id")
        super().__init__(self._text())

    def _text(self):
        text = "%d %s: %s" % (self.status, self.code, self.detail)
        places = ["%s: %s" % (error.get("pointer"), error.get("detail")) for error in self.errors]
        if places:
            text += " (" + "; ".join(places) + ")"
        if self.request_id:
            text += " [request %s]" % self.request_id
        return text

    @classmethod
    def from_answer(cls, status, body):
        """The error in an answer; of one that is no problem document (a proxy's page) a line."""
        try:
            problem = json.loads(bytes(body).decode("utf-8"))
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            lines = bytes(body[:200]).decode("utf-8", "replace").strip().splitlines()
            problem = {"detail": lines[0] if lines else "the answer had no problem document"}
        return cls(status, problem)


class ConnectionFailed(Error):
    """No answer came, although the request was repeated. status is 0 and code "connection_failed".

    Whether the last request took effect is then unknown. A step can be sent again without the risk
    of applying it twice: pass `key`, the Idempotency-Key it was sent with, to Session.step. (A
    session handle with a worker keeps its sequence number: there it is enough to call step again
    with the same gradients.)
    """

    def __init__(self, detail, key=None):
        self.key = key
        super().__init__(0, {"code": "connection_failed", "detail": detail})
