#!/usr/bin/env python3
"""A block device that fails one request in some with EIO, now and then, under a server with clients
in every durability mode: an ext4 on a loop device over a file that nbdfuse serves from nbdkit,
whose error filter is switched on and off by a file. ext4 gives an error of the data to the
server, and turns read-only at an error of its own journal; then the server is killed and the
file system mounted anew. What goes on without a restart must go on by itself when the device is
well again; now and then it is killed afterwards, for what it said meanwhile must be on the disk.

The clients and what they hold the server to are those of tests/fault/kill_loop.py. Needs root, loop
devices, FUSE, and the packages nbdkit, libnbd-bin and fuse3."""
import argparse
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill.disk import Disk, Unable, conduct, finish, run  # noqa: E402
from kill.server import Broken, Down, Wire, check  # noqa: E402

RATE = 5  # percent of the writes; of the reads a tenth of that
# What the loop device writes at once. FUSE hands larger writes on in parts of 1 MiB, and when not
# the first part fails the loop device sees a short write and calls it done: a sync would succeed
# over what is not on the disk, which no program can see.
REQUEST_KB = 256


class FailingDisk(Disk):
    """The same ext4 over a device that fails while a file is there."""

    tools = Disk.tools + ("nbdkit", "nbdfuse", "fusermount3")

    def __init__(self, base):
        super().__init__(base)
        self.switch, self.fuse = os.path.join(base, "errors"), os.path.join(base, "fuse")
        self.served = self.limit = self.limit_before = None

    def device_of(self, image):
        if not os.path.exists("/dev/fuse"):
            raise Unable("there is no /dev/fuse")
        os.mkdir(self.fuse)
        file = os.path.join(self.fuse, "disk")
        self.served = subprocess.Popen(
            ["nbdfuse", file, "[", "nbdkit", "--exit-with-parent", "--filter=error", "file", image,
             "error=EIO", f"error-pread-rate={RATE / 10}%", f"error-pwrite-rate={RATE}%",
             f"error-file={self.switch}", "]"],
            stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not os.path.exists(file):
            if self.served.poll() is not None or time.monotonic() > until:
                raise Unable("nbdfuse does not serve the device")
            time.sleep(0.05)
        device = run("losetup", "-f", "--show", file)
        self.limit = f"/sys/block/{os.path.basename(device)}/queue/max_sectors_kb"
        with open(self.limit, encoding="utf-8") as limit:
            self.limit_before = limit.read()
        self.set_limit(str(REQUEST_KB))
        return device

    def set_limit(self, text):
        try:
            with open(self.limit, "w", encoding="utf-8") as limit:
                limit.write(text)
        except OSError as error:
            raise Unable(f"{self.limit} cannot be set: {error}") from None

    def fail(self, on):
        if on:
            open(self.switch, "w", encoding="utf-8").close()
        elif os.path.exists(self.switch):
            os.unlink(self.switch)

    def close(self):
        self.fail(False)
        try:
            if self.limit_before is not None:  # the loop device keeps it
                self.set_limit(self.limit_before)
            super().close()
        finally:
            if self.served is not None:
                subprocess.run(["fusermount3", "-u", "-z", self.fuse], capture_output=True,
                               check=False)
                try:
                    self.served.wait(10)
                except subprocess.TimeoutExpired:
                    self.served.kill()
                    self.served.wait()


def errors_told(server, seconds):
    """Waits until the server tells of a write that failed; false when it has none."""
    seen, until = os.path.getsize(server.log_path), time.monotonic() + seconds
    while time.monotonic() < until:
        with open(server.log_path, "rb") as file:
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
        except Down:
            time.sleep(0.1)
    return False


def rounds(world, disk, count):
    server, draw = world.server, random.Random(world.seed)
    restarts, healed, troubled, recovery = 0, 0, 0, []
    check(world.begin(), "the server did not start")
    probe = Wire(server, direct=True)
    for _ in range(count):
        time.sleep(draw.uniform(0.2, 0.6))
        failing = time.monotonic()
        disk.fail(True)
        trouble = errors_told(server, 5)
        time.sleep(draw.uniform(0, 0.3))
        disk.fail(False)
        begun = time.monotonic()
        check(server.process.poll() is None, "the server did not survive an error of the device")
        troubled += trouble
        well = ready_within(probe, 3)
        if world.trouble():
            raise Broken("seen by a client")
        healed += well and trouble
        restarts += not well
        if well and draw.random() < 0.7:
            continue
        held_up_s = time.monotonic() - failing
        check(server.end(signal.SIGKILL) == -signal.SIGKILL, "it had ended before")
        probe.close()
        disk.detach()
        disk.attach()
        world.look_over()
        check(world.begin(held_up_s=held_up_s), "the server did not come back")
        if not well:
            recovery.append(time.monotonic() - begun)
    time.sleep(0.5)
    steps = finish(world, disk)
    if recovery:
        print(f"  {restarts} restarts for a file system that had turned read-only, back after at "
              f"most {max(recovery):.1f} s")
    return ((troubled, f"of {count} times errors that the server told of"),
            (healed + restarts, f"times back from them, {healed} by itself"),
            (world.lives, "lives"),
            (steps, "acknowledged steps, every one there once"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("DESCENT_BINARY", "build/descent"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sessions", default="all",
                        help="NAME,NAME of tests/fault/kill/world.py; plain; all")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    conduct("device_error", parser.parse_args(), FailingDisk, rounds)


if __name__ == "__main__":
    main()
