#!/usr/bin/env python3
"""Requests that come to no good end, in the log and in the figures: late ones, refused ones, left ones; what is held
for them, and for how long."""
import json
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import Server, WAIT_S, Wire, check, main, run, within

GIB = 1 << 30
SESSION = {"optimizer": "sgd", "parameters": {"w": {"shape": [1 << 20], "init": "zeros"}}}


def create(server):
    wire = Wire(server.port)
    answer = wire.ask("PUT", "/v1/sessions/s", json.dumps(SESSION).encode(), Content_Type="application/json")
    check(answer.status == 201, answer.body)
    return wire


def figure(server, name):
    """The value of a sample, 0 when it is not there."""
    wire = Wire(server.port)
    text = wire.ask("GET", "/metrics").body.decode()
    wire.close()
    match = re.search("^" + re.escape(name) + r" (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def lines(server):
    return [json.loads(line) for line in server.said().splitlines()]


def line_of(server, **fields):
    """The line with these fields, when it has come."""
    def look():
        found = [line for line in lines(server) if all(line.get(key) == value for key, value in fields.items())]
        check(len(found) < 2, f"{fields} twice")
        return found
    return within(WAIT_S, look, lambda: f"no line {fields}: {server.said()}")[0]


def late(folder):
    """What the watchdog answers."""
    server = Server(folder, "--log-format", "json", "--body-timeout-s", "1", "--header-timeout-s", "1")
    body, header = Wire(server.port), Wire(server.port)
    body.send(b"POST /v1/sessions HTTP/1.1\r\nHost: t\r\nX-Request-Id: body\r\nContent-Length: 9\r\n\r\n{")
    header.send(b"GET /livez?a=SECRET HTTP/1.1\r\nHo")
    sizes = [len(wire.receive().body) for wire in (body, header)]
    line = line_of(server, request_id="body")
    check((line["level"], line["status"], line["code"], line["bytes_in"], line["bytes_out"]) ==
          ("info", 408, "request_timeout", 1, sizes[0]), line)
    line = line_of(server, path="/livez")
    check((line["status"], line["bytes_out"]) == (408, sizes[1]) and "request_id" in line, line)
    check("SECRET" not in server.said(), server.said())
    for operation in ("sessions_create", "none"):
        check(figure(server, 'descent_http_requests_total{operation="%s",code="408"}' % operation) == 1, operation)
    check(figure(server, "descent_http_requests_cut_total") == 0, "they had an answer")


def announced(folder):
    """Bodies that are said to come: they hold what is held for them no longer than any that does not come."""
    server = Server(folder, "--body-timeout-s", "1")
    held = [Wire(server.port) for _ in range(4)]  # all of --inflight-bytes-max
    for wire in held:
        wire.send(b"POST /v1/sessions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % GIB)
        within(WAIT_S, lambda: figure(server, "descent_http_inflight_body_bytes") % GIB == 0, "it is not held")
    other = Wire(server.port)
    within(WAIT_S, lambda: other.ask("POST", "/v1/sessions", b"{}").status != 503, "there is no room again")
    for wire in held:
        check(wire.receive().status == 408 and wire.at_end(), "not 408")


def strangers(folder):
    """Of who has no token, and of what is nowhere, no more than 64 MiB is read."""
    os.mkdir(os.path.join(folder, "data"))
    token = run("token", "create", "--data", os.path.join(folder, "data"))[1].strip()
    server = Server(folder, "--auth", "on", "--body-bytes-max", str(GIB))
    for path, key, status, closes in (("/v1/sessions", "dsc_no", 401, True), ("/nowhere", token, 404, True)):
        for size in (64 << 20, (64 << 20) + 1):
            wire = Wire(server.port)
            wire.send(f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key}\r\n"
                      f"Content-Length: {size}\r\n\r\n".encode())
            if size == 64 << 20:
                wire.send(bytes(size))
            check(wire.receive().status == status, f"{path}: not {status}")
            if size > 64 << 20:
                check(wire.at_end(), "it waits for the body")
            else:
                check(wire.ask("GET", "/livez").status == 200, "the connection is closed")
            wire.close()


def refused(folder):
    """No query in the log, whoever refuses it; 503 is no error of the server."""
    server = Server(folder, "--log-format", "json", "--connections-max", "1", "--log-requests")
    kept = Wire(server.port)
    wire = Wire(server.port)
    check(wire.ask("GET", "/v1/optimizers", X_Request_Id="surplus").code() == "overloaded", "it is not refused")
    check(line_of(server, request_id="surplus")["level"] == "warning", "503 is an error")
    kept.close()
    for i, fields in enumerate(("Host: a/b\r\n", "Host: a\r\nExpect: x\r\n", "Host: a\r\nBad Name: x\r\n", "")):
        wire = Wire(server.port)
        wire.send(f"GET /v1/sessions?after=SECRET HTTP/1.1\r\nX-Request-Id: no-{i}\r\n{fields}\r\n".encode())
        check(wire.receive().status in (400, 417), "it is not refused")
        check(line_of(server, request_id=f"no-{i}")["path"] == "/v1/sessions", "the path")
    check("SECRET" not in server.said(), server.said())


def left(folder):
    """Streams that their clients leave, and answers that nobody takes."""
    server = Server(folder, "--log-format", "json", "--log-requests", "--heartbeat-s", "1")
    create(server)
    for i in range(2):
        wire = Wire(server.port)
        wire.send(b"GET /v1/sessions/s/steps HTTP/1.1\r\nHost: t\r\nX-Request-Id: events-%d\r\n"
                  b"Accept: text/event-stream\r\n\r\n" % i)
        check(wire.stream.readline() == b"HTTP/1.1 200 OK\r\n", "no stream")
        wire.close()
        check(line_of(server, request_id=f"events-{i}")["message"] == "request", "it is not cut off")
    check(figure(server, "descent_http_requests_cut_total") == 0, "a stream has ended, and was not cut off")
    sent = 'descent_http_response_body_bytes_total{operation="parameters_fetch"}'
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    ask = (b"GET /v1/sessions/s/parameters HTTP/1.1\r\nHost: t\r\nX-Request-Id: left\r\n"
           b"Accept: application/octet-stream\r\n\r\n")
    reader.sendall(ask * 4)  # the system takes some MB itself
    check(reader.recv(1000) != b"", "no answer")
    reader.close()
    within(WAIT_S, lambda: figure(server, "descent_http_requests_cut_total") > 0, "nothing is cut off")
    check(figure(server, sent) % (4 << 20) == 0 and figure(server, sent) < 16 << 20, "bytes count that did not go")
    wire = Wire(server.port)
    before = figure(server, sent)
    answer = wire.ask("GET", "/v1/sessions/s/parameters", Accept="application/octet-stream")
    check(len(answer.body) == 4 << 20, "weights")
    within(WAIT_S, lambda: figure(server, sent) == before + (4 << 20), "an answer's bytes are not counted")


def slow_reader(folder):
    """An answer that is taken slowly may be so for as long as answers may, also where idle connections may not."""
    server = Server(folder, "--keepalive-timeout-s", "1")
    create(server)
    wire = Wire(server.port)
    wire.send(b"GET /v1/sessions/s/parameters HTTP/1.1\r\nHost: t\r\nAccept: application/octet-stream\r\n\r\n")
    got = 0
    while got < 4 << 20:
        try:
            piece = wire.socket.recv(1 << 16)
        except OSError as failure:
            piece = str(failure)
        check(isinstance(piece, bytes) and piece, f"the answer is cut off after {got} bytes: {piece}")
        got += len(piece)
        time.sleep(0.06)


main(late, announced, strangers, refused, left, slow_reader)
