#!/usr/bin/env python3
"""The power goes, again and again, under a server with clients in every durability mode. Its data
lie on an ext4 of their own (a file on a loop device), which is shut down without flushing
anything (FS_IOC_SHUTDOWN: what was not synced is gone, the file system's own journal too), while
the server still runs; then it is killed, the file system is mounted again, and the server
started.

The clients and what they hold the server to are those of tests/fault/kill_loop.py. Beside the data
lie two files: that each cut took the one that was not synced, and left the other, is held too.
Needs root and loop devices; DESCENT_FAULT_LONG=1: many rounds."""
import argparse
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill.disk import Disk, conduct, finish  # noqa: E402
from kill.server import Broken, check  # noqa: E402


def lose_power(world, disk, draw):
    """From the cut to the mount, and how long the mount took."""
    server = world.server
    with server.changed:
        server.open_port = None  # who comes from now on waits for the next life
    cut_at = time.monotonic()
    disk.cut()
    time.sleep(draw.uniform(0, 0.2))  # it goes on over a disk that takes nothing
    check(server.process.poll() is None, "the server did not survive the loss of its disk")
    check(server.end(signal.SIGKILL) == -signal.SIGKILL, "the kill came too late")
    server.died_at = cut_at
    disk.detach()
    begun = time.monotonic()
    disk.attach()
    return time.monotonic() - begun


def rounds(world, disk, count):
    draw = random.Random(world.seed)
    mounting, forgot = [], 0
    check(world.begin(), "the server did not start")
    for number in range(count):
        time.sleep(1.5 if number % 5 == 3 else draw.uniform(0.05, 0.9))
        mounting.append(lose_power(world, disk, draw))
        if world.trouble():
            raise Broken("seen by a client")
        forgot += disk.forgot()
        if draw.random() < 0.5:  # else the server is the first to see what was left
            world.look_over()
        check(world.begin(), "the server did not come back")
    time.sleep(0.2)
    check(forgot == count, f"{count} power cuts, of which only {forgot} took what was not synced "
          "and left what was")
    steps = finish(world, disk)
    for words, times in (("mounted again", mounting), ("listening", world.begun_s),
                         ("all sessions back", world.recovered_s)):
        times = sorted(times)
        print(f"  {words} after ms: median {1e3 * times[len(times) // 2]:.0f}, "
              f"max {1e3 * times[-1]:.0f}")
    return ((forgot, "power cuts"),
            (steps, "acknowledged steps, every one there once"),
            (sum(session.lost for session in world.sessions), "steps lost, none told durable"),
            (sum(getattr(actor, "replayed", 0) for actor in world.actors),
             "requests repeated whose answer was lost"))


def main():
    long = os.environ.get("DESCENT_FAULT_LONG") == "1"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("DESCENT_BINARY", "build/descent"))
    parser.add_argument("--rounds", type=int, default=100 if long else 12)
    parser.add_argument("--sessions", default="all",
                        help="NAME,NAME of tests/fault/kill/world.py; plain; all")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    conduct("power_loss", parser.parse_args(), Disk, rounds)


if __name__ == "__main__":
    main()
