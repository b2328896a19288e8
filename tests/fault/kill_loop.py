#!/usr/bin/env python3
"""One step is one transaction: clients train through a server that is killed all the time.

The server is killed at every named point (service/core/points.def; the flavour `points` has them)
and at random moments; clients on several sessions, of every mode of durability, repeat each request
until it is acknowledged. No acknowledged step may be lost, unless it lies beyond the durable_step
that was told, none may count twice, no read may go back, and at the end the weights, averages and
receipts must be, to the last bit, what a second server makes of the acknowledged gradients one
after the other, and numpy of those of sgd and adam.

Others go back, fork, export and import, save, read the past and the ledger, and send outliers
(kill/past.py): what was seen of a moment never changes, and between two lives `descent verify`
replays everything without a finding.

Exit status: 0 passed, 1 a promise was broken, 3 a mistake of this script.
"""
import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill import points, reference  # noqa: E402
from kill.server import Broken, Down, check, failures  # noqa: E402
from kill.svrg import SvrgWorker  # noqa: E402
from kill.world import World  # noqa: E402

POINT_S = 20  # in which a point must be passed


def one_point(world, draw, point, pause_ms):
    """A life that ends at the point."""
    passes = draw.randint(1, points.PASSES.get(point, 24))
    wait = pause_ms if pause_ms is not None else draw.choice((0, 0, 5, 30))
    if point == points.HALF:
        check(world.begin(), "the server did not start")
        client = next(c for c in world.actors if getattr(c, "number", 0) == 7)
        world.quiet.set()
        while not client.parked and not world.trouble():
            time.sleep(0.01)
        if not world.trouble():
            world.half_reply(client)
        world.quiet.clear()
        return
    asked = f"{point}:{passes}:{wait}"
    if point in points.FRESH:
        fresh = os.path.join(world.folder, "fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        check(not world.server.start(asked, data=fresh), f"{asked} was not passed")
        check(world.server.start(data=fresh), "what was left in a new folder does not open")
        check(world.server.end(signal.SIGTERM) == 0, "it did not end with 0")
        return
    if point in points.REPLAY:
        check(world.begin(), "the server did not start")
        world.await_steps(40, POINT_S)
        if not world.trouble():
            world.kill()
    if point in points.QUIET:
        world.quiet.set()
    if world.begin(asked):
        if point in points.TERM:
            time.sleep(draw.uniform(0.02, 0.2))
            world.server.process.send_signal(signal.SIGTERM)
        code = world.server.await_death(POINT_S)
        if world.trouble():
            return
        check(code is not None, f"{asked} was not passed in {POINT_S} s")
        check(code == -signal.SIGKILL, f"on the way to {asked} the server ended with {code}")
    world.quiet.clear()


def one_random(world, draw):
    """A life that ends at a random moment, now and then while it starts."""
    if draw.random() < 0.15:
        world.main.close()
        process = subprocess.Popen([world.binary, "serve", "--listen", "127.0.0.1:0", "--log",
                                    "off", "--data", world.server.data], stdout=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, 0.03))
        process.kill()
        process.wait()
        world.random_kills += 1
    check(world.begin(), "the server did not start")
    world.finish_half()
    if draw.random() < 0.1:
        time.sleep(1.5)  # long enough to see that an interval is kept
    else:
        time.sleep(draw.uniform(0.02, 0.35))
    if draw.random() < 0.1:
        world.stop_orderly()
    else:
        world.kill()


def run(world, options):
    draw = random.Random(world.seed)
    plan = points.chosen(options.points) * options.rounds + [None] * options.kills
    draw.shuffle(plan)
    world.create()
    world.start_actors()
    for number, point in enumerate(plan):
        begun = time.monotonic()
        if point is None or number == 0:
            one_random(world, draw)
        if point is not None:
            one_point(world, draw, point, options.pause)
        if world.trouble():
            return
        world.spent_s[point] = world.spent_s.get(point, 0) + time.monotonic() - begun
        if draw.random() < 0.5:  # else the server is the first to see what the kill left
            world.look_over()
        if point is not None and (number == 0 or draw.random() < 0.3):
            world.recover()
            time.sleep(draw.uniform(0.02, 0.1))
            world.kill()
    world.recover()
    time.sleep(0.2)
    world.stop.set()
    for actor in world.actors + world.readers:
        actor.join(60)
        check(not actor.is_alive(), f"client {actor.number} does not come to an end")
    if world.trouble():
        return
    begun = time.monotonic()
    steps = reference.verify(world.sessions, world.main, options.reference or options.binary,
                             world.folder)
    print(f"  compared with the reference in {time.monotonic() - begun:.1f} s")
    check(world.server.end(signal.SIGTERM) == 0, "the last SIGTERM did not end it with 0")
    world.look_over()
    report(world, plan, steps)


def report(world, plan, steps):
    replayed = sum(getattr(actor, "replayed", 0) for actor in world.actors)
    named = [point for point in plan if point is not None]
    print(f"  {world.lives} lives: killed {len(named)} times at {len(set(named))} points, "
          f"{world.random_kills} times at random moments; "
          f"{sum(reader.count for reader in world.readers)} reads; {replayed} requests were "
          "repeated because their answer was lost with the server")
    for actor in world.actors:
        if hasattr(actor, "summary"):
            print(f"  {actor.summary()}")
    for session in world.sessions:
        if session.lost_s:
            print(f"  {session.name}: what was lost was told at most {session.lost_s:.3f} s before")
    check(len(plan) < 40 or replayed > 0, "no answer was ever lost: the kills prove nothing")
    for words, times in (("listening", world.begun_s), ("all sessions back", world.recovered_s)):
        print(f"  {words} after ms: min {1e3 * min(times):.0f}, median "
              f"{1e3 * statistics.median(times):.0f}, max {1e3 * max(times):.0f}")
    if world.verified_s:
        print(f"  descent verify {len(world.verified_s)} times: at most "
              f"{max(world.verified_s):.1f} s, {sum(world.verified_s):.1f} s in all")
    slowest = sorted(world.spent_s.items(), key=lambda pair: -pair[1])[:6]
    print("  most time for", ", ".join(f"{name or 'random'} {s:.1f} s" for name, s in slowest))
    kills = len(named) + world.random_kills
    acknowledged = steps + sum(getattr(actor, "seq", 0) for actor in world.actors
                               if isinstance(actor, SvrgWorker))
    check(kills > 0 and acknowledged > 0,
          f"{kills} kills, {acknowledged} steps: this proves nothing")
    print(f"kill_loop: counted {kills} kills, {acknowledged} acknowledged steps, every one there "
          "once")
    if not world.verifies:
        print("  descent verify: SKIPPED, this program has no such command")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary",
                        default=os.environ.get("DESCENT_BINARY", "build/points/descent"))
    parser.add_argument("--reference", help="what serves the reference; the same program")
    parser.add_argument("--points", default="none",
                        help="all, none, or a list of quick, slow, history, NAME*TIMES")
    parser.add_argument("--rounds", type=int, default=1, help="how often each point")
    parser.add_argument("--kills", type=int, default=20, help="kills at random moments")
    parser.add_argument("--pause", type=int, help="ms between a point and the kill")
    parser.add_argument("--sessions", help="NAME,NAME; plain: without history; all")
    parser.add_argument("--promised", action="store_true",
                        help="no limit makes history shorter than keep_steps")
    parser.add_argument("--keep", action="store_true", help="leave the folder of a failure")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="descent-kill-")
    begun = time.monotonic()
    print(f"kill_loop: --points {options.points} --rounds {options.rounds} "
          f"--kills {options.kills} --seed {options.seed}", flush=True)
    world = World(options.binary, folder, options.seed,
                  options.sessions.split(",") if options.sessions else None, options.promised)
    try:
        run(world, options)
    except (Broken, Down) as error:
        if not failures:
            failures.append(str(error))
    except Exception:
        world.errors.append(traceback.format_exc())
    finally:
        world.server.leave_nothing()
        if failures or world.errors:
            print(*world.errors, sep="\n")
            with open(world.server.log_path, errors="replace") as log:
                print("the server's last words:", *log.read().splitlines()[-15:], sep="\n  ")
        if options.keep and (failures or world.errors):
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    code = 1 if failures else 3 if world.errors else 0
    print(f"kill_loop: {'FAILED' if code else 'passed'} in {time.monotonic() - begun:.0f} s")
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
