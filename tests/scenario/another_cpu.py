#!/usr/bin/env python3
"""A Muon session is killed on one kind of CPU and comes back on another with the same bits: what
OpenBLAS made of a gradient is in the journal with it. OPENBLAS_CORETYPE plays the other CPU. The
same gradients given to a new session there must end with other bits, or the test would show nothing.
"""
import pathlib
import signal
import sys

import numpy

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up] / folder)
                for up, folder in ((1, "lib"), (2, "clients/python"))]
import descent  # noqa: E402
from running import CLEAN, Server, check, main  # noqa: E402

STEPS, SEED = 6, 5
START = {"w": numpy.ones((48, 160), numpy.float32), "b": numpy.zeros(160, numpy.float32)}
CORES = ("Prescott", "Haswell")  # SSE3, AVX2 with FMA


def start(folder, core):
    server = Server(folder, "--log", "warning", env={**CLEAN, "OPENBLAS_CORETYPE": core})
    return server, descent.Client(server.url)


def train(client, name):
    session = client.create(START, "muon", id=name)
    draw = numpy.random.default_rng(SEED)
    for _ in range(STEPS):
        session.step({k: draw.normal(size=v.shape).astype(numpy.float32) for k, v in START.items()})
    return bits(session)


def bits(session):
    return b"".join(numpy.asarray(v).tobytes() for v in session.parameters().values())


def another_cpu(folder):
    server, client = start(folder, CORES[0])
    before = train(client, "one")
    server.stop(signal.SIGKILL)
    server, client = start(folder, CORES[1])
    after = bits(client.session("one"))
    other = train(client, "two")
    check(after == before, "replay gave other bits")
    if other == before:
        print("both kinds of CPU compute the same here: nothing was shown")
        sys.exit(77)
    print("replayed on %s with the bits of %s, where %s itself computes others" % (CORES[1], CORES[0], CORES[1]))


if "avx2" not in open("/proc/cpuinfo").read():
    print("this CPU cannot play %s" % CORES[1])
    sys.exit(77)
print("seed", SEED)
main(another_cpu)
