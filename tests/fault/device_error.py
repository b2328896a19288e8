#!/usr/bin/env python3
"""A block device that fails one request in some with EIO, now and then, under a server with clients
in every durability mode: an ext4 on a loop device over a file that nbdfuse serves from nbdkit,
whose error filter is switched on and off by a file. ext4 gives an error of the data to the
server, and turns read-only at an error of its own journal; then the server is killed and the
file system mounted anew. What goes on without a restart must go on by itself when the device is
well again.

Needs root, loop devices, FUSE, and the packages nbdkit, libnbd-bin and fuse3."""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import power_loss  # noqa: E402
from power_loss import SKIPPED, Disk, Unable, check, kill_loop, run  # noqa: E402


class FailingDisk(Disk):
    """The same ext4 over a device that fails while a file is there."""

    served, switch, rate = None, "", 5  # rate: percent of the writes

    def __init__(self, base):
        self.switch, self.fuse = os.path.join(base, "errors"), os.path.join(base, "fuse")
        os.mkdir(self.fuse)
        for tool in ("nbdkit", "nbdfuse", "fusermount3"):
            if shutil.which(tool) is None:
                raise Unable(f"there is no {tool}")
        if not os.path.exists("/dev/fuse"):
            raise Unable("there is no /dev/fuse")
        super().__init__(base)

    def device_of(self, image):
        file = os.path.join(self.fuse, "disk")
        self.served = subprocess.Popen(
            ["nbdfuse", file, "[", "nbdkit", "--exit-with-parent", "--filter=error", "file", image,
             "error=EIO", f"error-pread-rate={self.rate / 10}%", f"error-pwrite-rate={self.rate}%",
             f"error-file={self.switch}", "]"],
            stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not os.path.exists(file):
            if self.served.poll() is not None or time.monotonic() > until:
                raise Unable("nbdfuse does not serve the device")
            time.sleep(0.05)
        return run("losetup", "-f", "--show", file)

    def fail(self, on):
        if on:
            open(self.switch, "w").close()
        elif os.path.exists(self.switch):
            os.unlink(self.switch)

    def close(self):
        self.fail(False)
        try:
            super().close()
        finally:
            if self.served is not None:
                subprocess.run(["fusermount3", "-u", "-z", self.fuse], capture_output=True)
                try:
                    self.served.wait(10)
                except subprocess.TimeoutExpired:
                    self.served.kill()
                    self.served.wait()


class LiveClient(kill_loop.BoldClient):
    """A server that answers 503 lives on: what it serves is in memory, complete, and not durable
    yet. Only what another life serves was read from the disk. An interval is no promise while the
    disk takes nothing; what was called durable is."""

    def take_up(self):
        life, last = self.wire.life, len(self.models) - 1
        weights, step = self.session.weights(self.wire)
        same_life = self.wire.life == life
        check(self.durable <= step <= last and (step >= last - 1 or not same_life),
              f"{self.session.name} stands at {step}; durable was {self.durable}, sent {last}")
        check(weights.tobytes() == self.models[step].w.tobytes(),
              f"{self.session.name}: the weights at step {step} are not its own")
        if not same_life:
            self.lost += last - step
            self.durable = step
        for model in self.models[:self.durable]:
            model.__dict__.clear()  # not needed again
        del self.models[step + 1:]
        del self.told[step + 1:]


def errors_told(server, seconds):
    """Waits until the server tells of a write that failed; false when it has none."""
    path = os.path.join(server.folder, "log")
    seen, until = os.path.getsize(path), time.monotonic() + seconds
    while time.monotonic() < until:
        with open(path, "rb") as file:
            file.seek(seen)
            if b"error a write failed" in file.read():
                return True
        time.sleep(0.02)
    return False


def ready_within(wire, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if wire.once("GET", "/readyz")[0] == 200:
                return True
        except kill_loop.Down:
            time.sleep(0.1)
    return False


def rounds(world, disk, count):
    server, draw = world.server, random.Random(world.seed)
    restarts, healed, troubled, recovery = 0, 0, 0, []
    server.start()
    server.await_ready()
    main, probe = kill_loop.Wire(server), kill_loop.Wire(server)
    for session in world.sessions:
        session.create(main)
    for client in world.clients:
        client.start()
    for _ in range(count):
        time.sleep(draw.uniform(0.2, 0.6))
        disk.fail(True)
        trouble = errors_told(server, 5)
        time.sleep(draw.uniform(0, 0.3))
        disk.fail(False)
        begun = time.monotonic()
        check(server.process.poll() is None, "the server did not survive an error of the device")
        troubled += trouble
        if ready_within(probe, 3):
            healed += trouble
            continue
        restarts += 1
        check(server.end(signal.SIGKILL) == -signal.SIGKILL, "it had ended before")
        disk.detach()
        disk.attach()
        server.start()
        server.await_ready()
        recovery.append(time.monotonic() - begun)
        if kill_loop.failures:
            return
    time.sleep(0.5)
    world.stop.set()
    for client in world.clients:
        client.join(60)
        check(not client.is_alive(), f"client {client.number} does not come to an end")
    if kill_loop.failures:
        return
    for session in world.sure:
        world.verify(session, main)
    check(server.end(signal.SIGTERM) == 0, "the last SIGTERM did not end it with 0")
    print(f"  {count} times errors: {troubled} times told, healed by itself {healed} times, "
          f"{restarts} restarts after a mount" +
          (f", back after at most {max(recovery):.1f} s" if recovery else ""))
    check(troubled > 0, "no error ever came to the server: they prove nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("DESCENT_BINARY", "build/descent"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    power_loss.conduct("device_error", parser.parse_args(), LiveClient, rounds, FailingDisk)


if __name__ == "__main__":
    main()
