"""HTTP/1.1 with kept connections and repeated attempts, on http.client alone.

Every request this package makes but two may be repeated without harm, so it is: reads and deletes by
nature; a new session because it is PUT under an id that the client chose; new weights and changed
hyperparameters because they say what should be, not what to add; steps because they carry an
Idempotency-Key or a worker's sequence number; forks because the client chose their id. A rewind
and a new snapshot are sent once. What is repeated:

    no answer (refused, reset, timed out)   whether the request took effect does not matter
    408 502 503 504                         the server, or a proxy, was busy, stopping or starting
    409 idempotency_in_flight               an earlier attempt is at work: its receipt will come
    429 quota_exceeded                      where Retry-After is a few seconds: the token has too
                                            many requests at once, or takes too many steps a second

507 storage_full is not: it lasts until somebody makes room, and that person should hear of it.
"""

import contextlib
import http.client
import os
import random
import socket
import ssl
import threading
import time
import urllib.parse
import weakref
from typing import NamedTuple

from .coding import Coding
from .errors import ConnectionFailed

_BACKOFF_FIRST_S, _BACKOFF_MAX_S, _RETRY_AFTER_MAX_S = 0.05, 2.0, 60.0
_QUOTA_WAIT_MAX_S = 5.0  # beyond that somebody has to delete something
_SILENCE_S = 60.0  # of a stream: several heartbeats of the server
_BUSY = (408, 502, 503, 504)


class Answer(NamedTuple):
    status: int
    headers: object  # looked up without regard to case
    body: bytearray
    attempts: int  # 1: no earlier attempt can have taken effect


class _ClosesItself:
    """A thread's connection goes when the thread does."""

    def __del__(self):
        self.close()


class _HTTP(_ClosesItself, http.client.HTTPConnection):
    pass


class _HTTPS(_ClosesItself, http.client.HTTPSConnection):
    pass


class Transport:
    """One server. Threads share it, each on its own connection; a forked child opens new ones."""

    def __init__(self, url, timeout, retries, headers, context=None, coding=None):
        parts = urllib.parse.urlsplit(url if "://" in url else "http://" + url)
        known = parts.scheme in ("http", "https") and parts.hostname
        if not known or parts.query or parts.fragment:
            raise ValueError("url must look like http://HOST:PORT, not %r" % url)
        self.url = "%s://%s%s" % (parts.scheme, parts.netloc, parts.path.rstrip("/"))
        self._parts, self._prefix = parts, parts.path.rstrip("/")
        self._context = context  # None: the system's certificates decide
        self._timeout, self._retries, self._headers = timeout, retries, dict(headers or {})
        self._coding = Coding(coding) if coding else None
        self._local = threading.local()
        self._open = weakref.WeakSet()

    def request(self, method, path, query=None, headers=None, body=None, repeat=True, wait=0):
        """Sends until an answer comes that is not worth another attempt, and returns it; once, on a
        connection of its own, if it must not be repeated. Each may take `wait` seconds longer than
        others.

        Raises ConnectionFailed when none came.
        """
        target = self._prefix + path
        if query:
            target += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        headers = {**self._headers, **(headers or {})}
        if self._coding:
            body, headers = self._coding.encode(body, headers)
        attempts = failures = 0
        if not repeat:
            self._connection().close()
        while True:
            connection = self._connection()
            reused = connection.sock is not None
            if self._timeout is not None:
                connection.timeout = self._timeout + wait
                if reused:
                    connection.sock.settimeout(connection.timeout)
            status = answer_headers = received = failure = None
            attempts += 1
            try:
                status, answer_headers, received = _exchange(
                    connection, method, target, body, headers
                )
            except ssl.SSLCertVerificationError as error:
                connection.close()
                raise self._untrusted(error) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = error
            except BaseException:  # interrupted within a message: the connection is of no more use
                connection.close()
                raise
            if failure is None and self._coding:
                received = self._coding.decode(received, answer_headers)
            if failure is None and not _is_busy(status, answer_headers, received):
                return Answer(status, answer_headers, received, attempts)
            if failure is not None and reused and not isinstance(failure, socket.timeout):
                continue  # a kept connection that the server had closed: connect anew, at no charge
            failures += 1
            if failures > self._retries or not repeat:
                if failure is None:
                    return Answer(status, answer_headers, received, attempts)
                raise ConnectionFailed(
                    "no answer to %s %s%s in %d attempts: %s"
                    % (method, self.url, path, attempts, str(failure) or type(failure).__name__)
                ) from failure
            time.sleep(_delay_s(failures, answer_headers))

    @property
    def retries(self):
        return self._retries

    @contextlib.contextmanager
    def stream(self, path, query, headers):
        """The answer to one GET, to be read as it comes, on a connection of its own, which is
        closed at the end. Not repeated. ConnectionFailed: it cannot be."""
        target = self._prefix + path
        if query:
            target += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        connection = self._connect()
        try:
            connection.request("GET", target, headers={**self._headers, **headers})
            if self._timeout is not None:
                connection.sock.settimeout(max(self._timeout, _SILENCE_S))
            yield connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error) from error
        finally:
            connection.close()

    def _untrusted(self, error):
        """Another attempt would see the same."""
        return ConnectionFailed(
            "%s shows a certificate that is not trusted: %s" % (self.url, error)
        )

    def close(self):
        """Closes every connection; the next request opens a new one."""
        for connection in list(self._open):
            connection.close()

    def _connection(self):
        local = self._local
        # A socket shared with a parent process would mix messages. (http.client sets TCP_NODELAY.)
        if getattr(local, "pid", None) != os.getpid():
            local.connection, local.pid = self._connect(), os.getpid()
            self._open.add(local.connection)
        return local.connection

    def _connect(self):
        host, port = self._parts.hostname, self._parts.port
        if self._parts.scheme == "https":
            return _HTTPS(host, port, timeout=self._timeout, context=self._context)
        return _HTTP(host, port, timeout=self._timeout)


def _exchange(connection, method, target, body, headers):
    """One request and its answer: (status, headers, body)."""
    cut = False
    try:
        connection.request(method, target, body=body, headers=headers)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        cut = True  # the server stopped reading; it may have said why before
    response = connection.getresponse()
    if response.length is None:
        received = bytearray(response.read())
    else:
        received = bytearray(response.length)  # writable: arrays made from it are the caller's own
        view, filled = memoryview(received), 0
        while filled < len(view):
            size = response.readinto(view[filled:])
            if not size:
                raise http.client.IncompleteRead(bytes(view[:filled]), len(view) - filled)
            filled += size
        response.read()  # lets http.client see the end
    if cut:
        connection.close()
    return response.status, response.headers, received


def _is_busy(status, headers, body):
    if status == 429:
        after = _retry_after_s(headers)
        return after is not None and after <= _QUOTA_WAIT_MAX_S
    return status in _BUSY or (status == 409 and b'"idempotency_in_flight"' in body)


def _retry_after_s(headers):
    after = headers.get("Retry-After", "") if headers is not None else ""
    return float(after) if after.isdigit() else None


def _delay_s(failures, headers):
    """Seconds to wait: what Retry-After says, else growing, with jitter against coming in step."""
    after = _retry_after_s(headers)
    if after is not None:
        return min(after, _RETRY_AFTER_MAX_S)
    return min(_BACKOFF_FIRST_S * 2 ** (failures - 1), _BACKOFF_MAX_S) * random.uniform(0.5, 1.0)
