#!/usr/bin/env python3
"""A Muon session is killed on one kind of CPU and comes back on another with the same bits: what
OpenBLAS made of a gradient is in the journal with it. OPENBLAS_CORETYPE plays the other CPU. The
same gradients given to a new session there must end with other bits, or the test would show nothing.
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients/python"))
import descent  # noqa: E402

STEPS, SEED = 6, 5
START = {"w": numpy.ones((48, 160), numpy.float32), "b": numpy.zeros(160, numpy.float32)}
CORES = ("Prescott", "Haswell")  # SSE3, AVX2 with FMA


def start(folder, core):
    environment = dict(os.environ, OPENBLAS_CORETYPE=core)
    binary = os.environ.get("DESCENT_BINARY", "build/descent")
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--log", "warning", "--data", folder]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    line = server.stdout.readline().decode()
    assert line.startswith("descent listening on "), line
    return server, descent.Client(line.split()[-1])


def train(client, name):
    session = client.create(START, "muon", id=name)
    draw = numpy.random.default_rng(SEED)
    for _ in range(STEPS):
        session.step({k: draw.normal(size=v.shape).astype(numpy.float32) for k, v in START.items()})
    return bits(session)


def bits(session):
    return b"".join(numpy.asarray(v).tobytes() for v in session.parameters().values())


def run(servers, folder):
    server, client = start(folder, CORES[0])
    servers.append(server)
    before = train(client, "one")
    server.send_signal(signal.SIGKILL)
    server.wait()
    server, client = start(folder, CORES[1])
    servers.append(server)
    after = bits(client.session("one"))
    other = train(client, "two")
    assert after == before, "replay gave other bits"
    if other == before:
        print("both kinds of CPU compute the same here: nothing was shown")
        sys.exit(77)
    print("replayed on %s with the bits of %s, where %s itself computes others" % (CORES[1], CORES[0], CORES[1]))


def main():
    if "avx2" not in open("/proc/cpuinfo").read():
        print("this CPU cannot play %s" % CORES[1])
        return 77
    print("seed", SEED)
    servers = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(servers, folder)
        finally:
            for server in servers:
                if server.poll() is None:
                    server.kill()
                server.wait()
                server.stdout.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
