"""The sessions, those who use them, and the lives of the server."""
import json
import signal
import socket
import subprocess
import threading
import time

from .clients import Churner, Client, Patcher, Reader
from .past import Forker, Historian, Outlier, Rewinder
from .rounds import Member, RoundSession
from .server import Down, Server, Wire, check, failures
from .sessions import INTERVAL, SLACK_S, STEP, Session, Told
from .svrg import SvrgWorker

# Small limits, so that sessions leave memory and the journal is shortened all the time.
OPTIONS = ("--idle-s", "1", "--history-bytes-max")
SMALL, LARGE = "1048576", "1073741824"
KEEP_STEPS = 60
HISTORY = ("past32", "late32", "lapse64", "back64")
GROUPS = [{"tensors": ["b"], "lr_mult": 0.5, "weight_decay_mult": 0}]


def make_sessions():
    small, vector = {"w": (2, 514), "b": (3,)}, {"w": (4,), "b": (3,)}
    matrix = {"w": (12, 20), "b": (7,)}
    return [
        Session("sgd32", {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "f4", small, model="sgd",
                ema={"decay": 0.9}),
        Session("adam32", {"name": "adam", "lr": 0.002}, "f4", vector, groups=GROUPS),
        Session("adam64", {"name": "adam", "lr": 0.002}, "f8", {"w": (70_000,), "b": (3,)},
                model="adam"),
        Session("dcasgd32", {"name": "dcasgd", "lr": 0.01, "momentum": 0.9}, "f4", {"w": (515,)}),
        Session("muon32", {"name": "muon", "lr": 0.02}, "f4", matrix),
        Session("adafactor32", {"name": "adafactor", "lr": 0.01}, "f4", matrix,
                ema={"decay": 0.5}),
        Session("interval32", {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "f4", small, INTERVAL,
                model="sgd"),
        Session("every64", {"name": "adam", "lr": 0.002}, "f8", {"w": (131,)},
                {"mode": "checkpoint", "steps": 7}),
        Session("slices64", {"name": "adam", "lr": 0.002}, "f8", {"w": (400_000,)},
                {"mode": "checkpoint", "steps": 2}),
        Session("rare32", {"name": "adam", "lr": 0.002}, "f4", vector, STEP),
        Session("past32", {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "f4", vector, model="sgd",
                ema={"decay": 0.9}, hash_every=1, gradient={"max_norm_ratio": 50}),
        Session("late32", {"name": "dcasgd", "lr": 0.01, "momentum": 0.9}, "f4", {"w": (515,)},
                hash_every=7),
        Session("lapse64", {"name": "adam", "lr": 0.002}, "f8", matrix, INTERVAL, model="adam",
                hash_every=7),
        RoundSession("sync32", {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "f4", small, 4,
                     {"mode": "sync", "workers": 4}, model="sgd", ema={"decay": 0.9}, hash_every=5),
        RoundSession("gather64", {"name": "adam", "lr": 0.002}, "f8", matrix, 3,
                     {"mode": "async", "accumulate": 3}, model="adam"),
        RoundSession("muonsync32", {"name": "muon", "lr": 0.02}, "f4", matrix, 2,
                     {"mode": "sync", "workers": 3, "quorum": 2, "timeout_s": 0}),
    ]


def make_clients(world, s):
    """Everyone, by the session they work on."""
    def client(name, number, *arguments, **more):
        return lambda: Client(world, s[name], number, *arguments, **more)

    def member(name, number, *arguments, **more):
        return lambda: Member(world, s[name], number, *arguments, **more)

    return {
        "sgd32": [client("sgd32", 1, "json", "key", cursor=True),
                  client("sgd32", 2, "raw", "seq"),
                  client("sgd32", 3, "raw", "key+match", wire_dtype="bf16"),
                  lambda: Patcher(world, s["sgd32"], 21)],
        "adam32": [client("adam32", 4, "json", "seq", cursor=True),
                   client("adam32", 5, "raw", "key"), client("adam32", 6, "raw", "seq")],
        "adam64": [client("adam64", 7, "raw", "key", cursor=True, pace_s=0.1)],
        "dcasgd32": [client("dcasgd32", 8, "raw", "key", bases=True, prefer=True),
                     client("dcasgd32", 9, "json", "seq", bases=True)],
        "muon32": [client("muon32", 10, "raw", "match")],
        "adafactor32": [client("adafactor32", 11, "json", "match"),],
        "interval32": [client("interval32", 12, "raw", "key"),
                       client("interval32", 13, "raw", "seq")],
        "every64": [client("every64", 14, "json", "key"), client("every64", 15, "raw", "seq")],
        "slices64": [client("slices64", 16, "raw", "seq", wire_dtype="bf16", pace_s=0.2)],
        "rare32": [client("rare32", 17, "raw", "key", pace_s=6)],
        "past32": [client("past32", 41, "json", "key", cursor=True),
                   client("past32", 42, "raw", "seq"),
                   lambda: Rewinder(world, s["past32"], 43, 0.2),
                   lambda: Forker(world, s["past32"], 44), lambda: Outlier(world, s["past32"], 45)],
        "late32": [client("late32", 46, "raw", "key", bases=True),
                   client("late32", 47, "json", "seq", bases=True),
                   lambda: Rewinder(world, s["late32"], 48, 0.3),
                   lambda: Forker(world, s["late32"], 49)],
        "lapse64": [client("lapse64", 50, "raw", "key"), client("lapse64", 51, "raw", "seq"),
                    lambda: Rewinder(world, s["lapse64"], 52, 0.5)],
        "back64": [lambda: Rewinder(world, s["slices64"], 53, 0.5)],
        "sync32": [member("sync32", 61, "json", True), member("sync32", 62, "raw", True),
                   member("sync32", 63, "raw", True, wire_dtype="bf16"),
                   member("sync32", 64, "raw", True)],
        "gather64": [member("gather64", 65, "json", False), member("gather64", 66, "raw", False)],
        "muonsync32": [member("muonsync32", 67, "raw", True),
                       member("muonsync32", 68, "raw", True)],
        "svrg64": [lambda: SvrgWorker(world, None, 71)],
        "churn": [lambda: Churner(world, None, 18), lambda: Churner(world, None, 19)],
    }


class World:
    """`promised`: history is as long as keep_steps says, else as short as a small limit makes it."""

    def __init__(self, binary, folder, seed, only=None, promised=False):
        self.binary, self.folder, self.seed = binary, folder, seed
        self.promised = promised
        self.server = Server(binary, folder, *OPTIONS, LARGE if promised else SMALL)
        self.stop, self.quiet = threading.Event(), threading.Event()
        self.errors = []  # tracebacks: mistakes of these scripts
        sessions = {session.name: session for session in make_sessions()}
        clients = make_clients(self, sessions)
        names = only or list(clients)
        if names == ["plain"]:
            names = [name for name in clients if name not in HISTORY]
        unknown = set(names) - set(clients)
        if unknown:
            raise SystemExit(f"no such session: {', '.join(sorted(unknown))}")
        self.sessions = [session for name, session in sessions.items() if name in names]
        self.actors = [make() for name in names for make in clients[name]]
        for actor in self.actors:
            if isinstance(actor, Patcher):
                actor.session.patched = True
            if isinstance(actor, Rewinder):
                actor.session.rewound = True
        quick = [x for x in self.sessions if x.name not in ("slices64", "rare32", "adam64")]
        large = [x for x in self.sessions if x.name in ("slices64", "adam64")]
        self.readers = ([Reader(self, quick, 31, 0.003)] if quick else []) + \
                       ([Reader(self, large, 32, 0.3)] if large else [])
        if self.sessions:  # what is large, rarely
            self.readers.append(Historian(self, 4 * quick + large or self.sessions, 33))
        self.lives = self.random_kills = 0
        self.orderly = False  # the life before ended as it should
        self.slowest_s = 0.0  # answer to a step
        self.spent_s = {}  # by point
        self.verified_s = []
        self.begun_s, self.recovered_s = [], []
        self.main = None
        self.half = None  # a step whose reply was cut off
        shown = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True)
        self.verifies = "descent verify" in shown.stdout

    def create(self):
        """The first life."""
        check(self.server.start(), "the server did not start")
        self.main = Wire(self.server, direct=True)
        for session in self.sessions:
            session.more.setdefault("history", {"keep_steps": KEEP_STEPS})
            session.keep = KEEP_STEPS
            session.create(self.main)
        check(self.server.end(signal.SIGKILL) == -signal.SIGKILL, "the kill came too late")

    def start_actors(self):
        for actor in self.actors + self.readers:
            actor.start()

    # --- lives ---

    def begin(self, point=None, held_up_s=0.0):
        """Starts a life and looks every session over, then lets clients in. False: it was killed on
        the way, as it was asked to. `held_up_s`: for so long the disk had taken nothing."""
        died_at, ended = self.server.died_at, self.server.life
        self.lives += 1
        self.main.close()
        if not self.server.start(point):
            check(point is not None, "the server was killed by nobody")
            return False
        listening = time.monotonic()
        # A machine that was busy when the server died had held up the clients too.
        waited = [wire.cut_off[1] for wire in (actor.wire for actor in self.actors + self.readers)
                  if wire.cut_off[0] == ended]
        slack_s = SLACK_S + self.slowest_s + max(waited, default=0) + held_up_s
        try:
            for session in self.sessions:
                status, data, _ = self.main.once("GET", session.path())
                check(status == 200, f"{session.name} is gone: {status} {data}")
                session.note_begin(self.server.life, self.moment_of(data), died_at,
                                   slack_s, self.orderly)
                if isinstance(session, RoundSession):
                    session.note_round(json.loads(data))
            self.orderly = False
        except Down:
            code = self.server.await_death(10)
            check(point is not None and code == -signal.SIGKILL, f"the server ended with {code}")
            return False
        if point is None:
            self.begun_s.append(listening - self.server.begun)
            self.recovered_s.append(time.monotonic() - self.server.begun)
        self.server.announce()
        return True

    @staticmethod
    def moment_of(view):
        view = json.loads(view)
        return view["lineage"], view["step"]

    def look_over(self):
        """What can be asked between two lives."""
        if not self.verifies:
            return
        begun = time.monotonic()
        done = subprocess.run([self.binary, "verify", "--data", self.server.data],
                              capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"descent verify: {done.returncode} {done.stdout[-500:]} "
              f"{done.stderr[-500:]}")
        self.verified_s.append(time.monotonic() - begun)

    def await_steps(self, count, seconds):
        """Until so many steps more were acknowledged."""
        def told():
            return sum(len(session.history) for session in self.sessions if session.sure)

        wanted, until = told() + count, time.monotonic() + seconds
        while told() < wanted and not self.trouble():
            check(time.monotonic() < until, f"no {count} steps in {seconds} s")
            time.sleep(0.01)

    def kill(self):
        check(self.server.end(signal.SIGKILL) == -signal.SIGKILL, "the kill came too late")
        self.random_kills += 1

    def stop_orderly(self):
        check(self.server.end(signal.SIGTERM) == 0, "a SIGTERM did not end it with 0")
        self.orderly = True

    def trouble(self):
        return bool(failures or self.errors)

    def recover(self):
        """A life without a point, after one was reached."""
        check(self.begin(), "the server did not come back")
        self.finish_half()
        for actor in self.actors:
            if isinstance(actor, Churner):
                actor.look(self.main)

    # --- a reply half sent ---

    def half_reply(self, client):
        """A step whose reply is large and of which only the first part is read before the kill."""
        client.index += 1
        fields = client.draw_fields()
        path, body, headers = client.request(fields)
        headers.update({"Prefer": "return=representation", "Accept": "application/octet-stream"})
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", self.server.port))
        link.settimeout(30)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        got = b""
        try:
            link.sendall(head.encode() + body)
            while b"\r\n\r\n" not in got:
                piece = link.recv(512)
                check(piece, "no head of a reply")
                got += piece
            check(got.startswith(b"HTTP/1.1 200"), f"{got[:300]}")
            self.half = (client, client.index, fields, (path, body, headers))
            check(self.server.end(signal.SIGKILL) == -signal.SIGKILL, "not killed")
            rest = 0
            try:
                while piece := link.recv(65536):
                    rest += len(piece)
            except OSError:
                pass
        finally:
            link.close()
        size = client.session.count * client.session.dtype.itemsize
        check(rest < size, "the reply had gone whole: nothing was cut off")

    def finish_half(self):
        """The step of a reply that was cut off was taken once and for all."""
        if self.half is None:
            return
        (client, index, fields, (path, body, headers)), self.half = self.half, None
        status, data, answer = self.main.until_answered("POST", path, body,
                                                        {**headers, "Accept": "application/json",
                                                         "Prefer": "return=minimal"})
        check(status == 200, f"the step of a reply cut off: {status} {data[:300]}")
        check(answer["Idempotency-Replayed"] == "true", "a step was forgotten with its reply")
        receipt = json.loads(data)
        client.session.note_told(Told(client, index, fields, receipt, self.server.life,
                                      (path, body, headers)))
        client.replayed += 1
