#!/usr/bin/env python3
"""Plays systemd to a server: listens on a notify socket, passes a listening one, waits as a watchdog
does. What sd_notify(3) and sd_listen_fds(3) say is what is asked here."""
import json
import os
import re
import resource
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from running import BINARY, CLEAN, RUNNING, Failed, Server, Wire, check, main, run, within


class Manager:
    """A notify socket and what came over it: (time, {name: value})."""

    def __init__(self, folder, abstract=False):
        name = f"\0descent-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else \
            os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.environment = {"NOTIFY_SOCKET": name.replace("\0", "@")}
        self.heard = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            words = self.socket.recv(4096).decode()
            self.heard.append((time.monotonic(),
                               dict(line.split("=", 1) for line in words.split("\n") if line)))

    def times(self, name, value=None):
        return [at for at, words in list(self.heard)
                if name in words and value in (None, words[name])]

    def index(self, name, value="1"):
        for index, (_, words) in enumerate(list(self.heard)):
            if words.get(name) == value:
                return index
        raise Failed(f"{name}={value} was not heard in {self.heard}")

    def last(self, name):
        return [words[name] for _, words in list(self.heard) if name in words][-1]


class Activated(Server):
    """Started as systemd starts what it passes sockets to: they are descriptors 3 and on, LISTEN_PID
    is the process's own."""

    def __init__(self, folder, sockets, *options, names=None, pid=None, environment=None):
        self.log = os.path.join(folder, "log")
        given = {**CLEAN, "LISTEN_FDS": str(len(sockets)), **(environment or {})}
        if names:
            given["LISTEN_FDNAMES"] = names
        arguments = [BINARY, "serve", "--data", os.path.join(folder, "data"), *options]
        ends = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                given["LISTEN_PID"] = str(pid or os.getpid())
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                high = [os.dup2(one.fileno(), 100 + i) for i, one in enumerate(sockets)]
                os.dup2(ends[1], 1)
                os.dup2(log, 2)
                for i, one in enumerate(high):
                    os.dup2(one, 3 + i)
                os.closerange(3 + len(sockets), 200)
                os.execve(BINARY, arguments, given)
            finally:
                os._exit(127)
        os.close(ends[1])
        self.pid, self.code = child, None
        RUNNING.append(self)
        with os.fdopen(ends[0]) as out:
            self.line = out.readline()

    def tell(self, number):
        os.kill(self.pid, number)

    def wait(self, _=None):
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self):
        if self.code is None:
            self.tell(signal.SIGKILL)
            self.wait()


def start(folder, manager, *options, **more):
    return Server(folder, *options, env={**CLEAN, **manager.environment, **more})


def a_life(folder):
    for abstract in (False, True):
        here = os.path.join(folder, str(abstract))
        os.mkdir(here)
        manager = Manager(here, abstract)
        server = start(here, manager)
        within(5, lambda: manager.times("READY"), "READY=1 does not come")
        # It listened before it was ready; while it opened the folder it asked for time.
        check(Wire(server.port).ask("GET", "/readyz").status == 200, "it is not ready")
        check(manager.index("EXTEND_TIMEOUT_USEC", "30000000") < manager.index("READY"),
              "no time was asked for")
        check(manager.last("STATUS") == f"serving 0 sessions at {server.url}",
              f"STATUS={manager.last('STATUS')}")
        check(not manager.times("WATCHDOG"), "a watchdog is fed that is not there")
        wire = Wire(server.port)
        body = json.dumps({"optimizer": "sgd", "parameters": {"w": [1.0]}}).encode()
        check(wire.ask("PUT", "/v1/sessions/one", body, Content_Type="application/json").status
              == 201, "a session")
        before = time.monotonic_ns() // 1000
        server.hup()
        within(5, lambda: len(manager.times("READY")) == 2, "READY=1 does not follow a reload")
        place = manager.index("RELOADING")
        stamp = int(manager.heard[place][1]["MONOTONIC_USEC"])
        check(before <= stamp <= time.monotonic_ns() // 1000, f"MONOTONIC_USEC={stamp}")
        check(manager.heard[place + 1][1]["READY"] == "1", "something between RELOADING and READY")
        check(manager.last("STATUS") == f"serving 1 sessions at {server.url}",
              f"STATUS={manager.last('STATUS')}")
        check(server.stop() == 0, "the stop")
        within(5, lambda: manager.times("STOPPING"), "STOPPING=1 does not come")
        check(manager.index("STOPPING") > place + 1, "STOPPING too soon")
        check(len(manager.times("READY")) == 2 and len(manager.times("STOPPING")) == 1, "repeats")


def nobody_listens(folder):
    """A notify socket that is wrong, gone or deaf stops nothing."""
    for name in ("/nonexistent/notify", "relative", "@" + "x" * 200, "vsock:2:1234", ""):
        server = Server(folder, env={**CLEAN, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
        check(Wire(server.port).ask("GET", "/readyz").status == 200, f"{name!r}: not ready")
        check(server.stop() == 0, f"{name!r}: the stop")


def watchdog(folder):
    manager = Manager(folder)
    interval_s = 1.0
    begun = time.monotonic()
    server = start(folder, manager, WATCHDOG_USEC=str(int(interval_s * 1e6)))
    within(10, lambda: len(manager.times("WATCHDOG", "1")) >= 5, "the watchdog is not fed")
    fed = manager.times("WATCHDOG")
    gaps = [b - a for a, b in zip(fed, fed[1:])]
    check(max(gaps) < interval_s, f"gaps of {gaps} s; systemd would have killed it")
    # Counted: what came in time may have been read late, and at once.
    count, most = len(fed), 1 + (time.monotonic() - begun) / (0.2 * interval_s)
    check(count <= most, f"fed {count} times, of at most {most:.0f}: more than it needs")
    # Load does not starve it, nor do open connections.
    idle = [Wire(server.port) for _ in range(50)]
    count = len(manager.times("WATCHDOG"))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        idle[0].ask("GET", "/readyz")
    check(len(manager.times("WATCHDOG")) >= count + 4, "it goes hungry under load")
    # Nor do reloads, however often they are asked for.
    count = len(manager.times("WATCHDOG"))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        server.tell(signal.SIGHUP)
        time.sleep(0.1)
    check(len(manager.times("WATCHDOG")) >= count + 4, "it goes hungry while it reloads")
    # A process that stands still is not fed: systemd would kill it.
    server.tell(signal.SIGSTOP)
    time.sleep(0.2)
    count = len(manager.times("WATCHDOG"))
    time.sleep(2.5)
    check(len(manager.times("WATCHDOG")) == count, "fed while it stands still")
    server.tell(signal.SIGCONT)
    within(5, lambda: len(manager.times("WATCHDOG")) > count + 1, "not fed after it goes on")
    check(server.stop() == 0, "the stop")
    fed = len(manager.times("WATCHDOG"))
    # Meant for another process, or for nobody.
    for more in ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"},
                 {"WATCHDOG_USEC": "soon"}, {}):
        server = start(folder, manager, **more)
        time.sleep(0.8)
        check(server.stop() == 0 and len(manager.times("WATCHDOG")) == fed, f"fed with {more}")


def full_is_alive(folder):
    """At its limit of connections it accepts nobody, and is alive all the same."""
    manager = Manager(folder)
    server = start(folder, manager, "--connections-max", "4", WATCHDOG_USEC="600000")
    crowd = [Wire(server.port) for _ in range(40)]
    crowd[0].ask("GET", "/livez")
    count = len(manager.times("WATCHDOG"))
    within(5, lambda: len(manager.times("WATCHDOG")) > count + 5, lambda:
           f"a full server is not fed: {server.said()}")
    check(server.stop() == 0, "the stop")
    for wire in crowd:
        wire.close()


def few_descriptors(folder):
    """Where the system allows few files, fewer connections are let in, and steps are written all the same."""
    def limit(count):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    code, _, errors = run("serve", "--listen", "127.0.0.1:0", "--data", folder + "/none",
                          preexec_fn=limit(200))
    check(code == 1 and "ulimit -n" in errors, errors)
    manager = Manager(folder)
    server = Server(folder, preexec_fn=limit(300),
                    env={**CLEAN, **manager.environment, "WATCHDOG_USEC": "600000"})
    check("at most 39 connections instead of --connections-max 1024" in server.said(), server.said())
    crowd = [Wire(server.port) for _ in range(100)]
    body = json.dumps({"optimizer": "sgd", "parameters": {"w": [1.0]}}).encode()
    answer = crowd[0].ask("PUT", "/v1/sessions/one", body, Content_Type="application/json")
    check(answer.status == 201, f"a session: {answer.status} {answer.body}")
    check(crowd[42].ask("GET", "/v1/sessions").code() == "overloaded", "one beyond the limit")
    count = len(manager.times("WATCHDOG"))
    within(5, lambda: len(manager.times("WATCHDOG")) > count + 5, lambda:
           f"a full server is not fed: {server.said()}")
    check(server.stop() == 0, "the stop")
    for wire in crowd:
        wire.close()


def listening(kind=socket.AF_INET, host="127.0.0.1"):
    one = socket.socket(kind, socket.SOCK_STREAM)
    one.bind((host, 0))
    one.listen(16)
    return one


def passed_socket(folder):
    one = listening()
    port = one.getsockname()[1]
    wire = Wire(port)  # before there is a server: it waits in the kernel
    wire.send(b"GET /readyz HTTP/1.1\r\nHost: early\r\n\r\n")
    manager = Manager(folder)
    server = Activated(folder, [one], "--listen", "192.0.2.1:1", names="descent.socket",
                       environment=manager.environment)
    check(server.line == f"descent listening on http://127.0.0.1:{port}\n", f"it says {server.line}")
    check(wire.receive().status == 200, "who came early is not served")
    # None of it is inherited by what it might start.
    with open(f"/proc/{server.pid}/fdinfo/3") as info:
        flags = int(re.search(r"flags:\s*(\d+)", info.read()).group(1), 8)
    check(flags & os.O_CLOEXEC and flags & os.O_NONBLOCK, f"flags {flags:o}")
    # A restart loses nobody: the socket is the manager's, and who connects meanwhile waits.
    check(server.stop() == 0, "the stop")
    late = Wire(port)
    late.send(b"GET /readyz HTTP/1.1\r\nHost: late\r\n\r\n")
    server = Activated(folder, [one])
    check(late.receive().status == 200, "who came between two servers is not served")
    check(server.stop() == 0, "the stop")

    # Meant for another process: an address of its own.
    server = Activated(folder, [one], "--listen", "127.0.0.1:0", pid=1)
    check(server.line.startswith("descent listening") and not server.line.endswith(f":{port}\n"),
          f"it took what was not its own: {server.line}")
    check(server.stop() == 0, "the stop")
    if socket.has_ipv6:
        try:
            six = listening(socket.AF_INET6, "::1")
        except OSError:
            six = None  # no IPv6 here
        if six is not None:
            server = Activated(folder, [six])
            check(server.line == f"descent listening on http://[::1]:{six.getsockname()[1]}\n",
                  f"IPv6: {server.line}")
            check(server.stop() == 0, "the stop")


def wrong_sockets(folder):
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))  # does not listen
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    local.bind(os.path.join(folder, "local"))
    local.listen(1)
    other = listening()
    connected = socket.create_connection(other.getsockname())
    with open(os.path.join(folder, "file"), "w") as plain:
        for what in (bound, datagrams, local, connected, plain):
            server = Activated(folder, [what])
            check(server.line == "" and server.wait() == 1, f"{what} was taken: {server.line}")
            check("descriptor 3 is no listening TCP socket" in server.said(), server.said())
    server = Activated(folder, [listening(), listening()], names="http:metrics")
    check(server.wait() == 1 and "passed 2 sockets (http:metrics)" in server.said(), server.said())


main(a_life, nobody_listens, watchdog, full_is_alive, few_descriptors, passed_socket, wrong_sockets)
