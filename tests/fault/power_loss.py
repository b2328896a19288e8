#!/usr/bin/env python3
"""The power goes, again and again, under a server with clients in every durability mode. Its data
lie on an ext4 of their own (a file on a loop device), which is shut down without flushing
anything (FS_IOC_SHUTDOWN: what was not synced is gone, the file system's own journal too), while
the server still runs; then it is killed, the file system is mounted again, and the server
started.

The clients and what they hold the server to are those of tests/scenario/kill_loop.py. Needs root
and loop devices; DESCENT_FAULT_LONG=1: many rounds."""
import argparse
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario"))
import kill_loop  # noqa: E402
from kill_loop import check  # noqa: E402

FS_IOC_SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2
IMAGE_MB = 512
SKIPPED = 77


class Unable(Exception):
    """This machine cannot run the test."""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unable(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


class Disk:
    """An ext4 in a file. Close it whatever happens, also when it was not opened to the end."""
    device, mounted = None, False

    def __init__(self, base):
        self.image, self.mount = os.path.join(base, "image"), os.path.join(base, "mount")
        os.mkdir(self.mount)
        if os.geteuid() != 0:
            raise Unable("mounting needs root")
        for tool in ("mkfs.ext4", "losetup", "mount", "umount"):
            if shutil.which(tool) is None:
                raise Unable(f"there is no {tool}")
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_MB << 20)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.device = self.device_of(self.image)
        self.attach()

    def device_of(self, image):
        return run("losetup", "-f", "--show", image)

    def attach(self):
        run("mount", "-t", "ext4", self.device, self.mount)
        self.mounted = True

    def cut(self):
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        except OSError as error:
            raise Unable(f"the file system cannot be shut down: {error}") from None
        finally:
            os.close(descriptor)

    def detach(self):
        for _ in range(50):  # a killed process lets go a little later
            if subprocess.run(["umount", self.mount], capture_output=True).returncode == 0:
                self.mounted = False
                return
            time.sleep(0.1)
        raise Unable(f"{self.mount} cannot be unmounted")

    def close(self):
        try:
            if self.mounted:
                self.detach()
        finally:
            if self.device is not None:
                subprocess.run(["losetup", "-d", self.device], check=False)


class PatientClient(kill_loop.BoldClient):
    """What a server says whose disk is gone comes from its memory: only the next one is asked."""

    def take_up(self):
        if self.wire.connection is not None:
            self.wire.connection.close()
            self.wire.connection = None
        super().take_up()


def lose_power(server, disk, draw):
    """From the cut to the mount, and how long the mount took."""
    with server.changed:
        server.port = None  # who comes from now on waits for the next life
        server.died_at = time.monotonic()
    disk.cut()
    time.sleep(draw.uniform(0, 0.2))  # it goes on over a disk that takes nothing
    check(server.process.poll() is None, "the server did not survive the loss of its disk")
    server.kill()
    server.process.stdout.close()
    disk.detach()
    begun = time.monotonic()
    disk.attach()
    return time.monotonic() - begun


def rounds(world, disk, count):
    server, draw = world.server, random.Random(world.seed)
    mounting, listening, reading = [], [], []
    server.start()
    server.await_ready()
    main = kill_loop.Wire(server)
    for session in world.sessions:
        session.create(main)
    for client in world.clients:
        client.start()
    for number in range(count):
        time.sleep(1.5 if number % 5 == 3 else draw.uniform(0.05, 0.9))
        mounting.append(lose_power(server, disk, draw))
        if kill_loop.failures:
            return
        server.start()
        listening.append(server.await_ready())
        begun = time.monotonic()
        for session in world.sessions:
            check(main.until_answered("GET", session.path())[0] == 200, f"{session.name} is gone")
        reading.append(time.monotonic() - begun)
    time.sleep(0.2)
    world.stop.set()
    for client in world.clients:
        client.join(60)
        check(not client.is_alive(), f"client {client.number} does not come to an end")
    if kill_loop.failures:
        return
    for session in world.sure:
        world.verify(session, main)
    check(server.end(signal.SIGTERM) == 0, "the last SIGTERM did not end it with 0")
    lost = 0
    for client in world.clients:
        if isinstance(client, kill_loop.BoldClient):
            lost += client.lost
            print(f"  {client.session.name}: {len(client.models) - 1} steps, {client.lost} lost in "
                  f"{count} power cuts, none of them called durable, the oldest "
                  f"{client.lost_s:.3f} s before the cut")
    check(lost > 0, "no power cut lost anything: they prove nothing")
    for words, times in (("mounted again", mounting), ("listening", listening),
                         ("all sessions back", reading)):
        times.sort()
        print(f"  {words} after ms: median {1e3 * times[len(times) // 2]:.0f}, "
              f"max {1e3 * times[-1]:.0f}")


def conduct(name, options, client, rounds_of, disk_of):
    """Makes the disk and the world on it, runs the rounds, tidies up, says how it went, exits."""
    print(f"{name}: --rounds {options.rounds} --seed {options.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))
    base, begun = tempfile.mkdtemp(prefix=f"descent-{name}-"), time.monotonic()
    world, unable, failures = None, None, kill_loop.failures
    disk = disk_of.__new__(disk_of)
    bold, kill_loop.BoldClient = kill_loop.BoldClient, client
    try:
        disk.__init__(base)
        os.mkdir(os.path.join(disk.mount, "data"))
        os.symlink(os.path.join(disk.mount, "data"), os.path.join(base, "data"))
        world = kill_loop.World(os.path.abspath(options.binary), base, options.seed)
        kill_loop.BoldClient = bold
        rounds_of(world, disk, options.rounds)
    except Unable as error:
        unable = str(error)
    except SystemExit as error:
        failures.append(str(error))
    finally:
        if world is not None:
            world.server.kill()
        if failures and world is not None:
            log = open(os.path.join(base, "log"), errors="replace").read().splitlines()
            print("the server's last words:", *log[-15:], sep="\n  ")
        disk.close()
        shutil.rmtree(base, ignore_errors=True)
    if unable is not None and world is not None:
        failures.append(unable)  # it could at first
    if failures:
        print(f"{name}: FAILED ({failures[0]}) in {time.monotonic() - begun:.0f} s")
    elif unable is not None:
        print(f"*** NOT TESTED: {name}: {unable} ***")
    else:
        print(f"{name}: passed in {time.monotonic() - begun:.0f} s")
    sys.stdout.flush()
    os._exit(1 if failures else SKIPPED if unable is not None else 0)


def main():
    long = os.environ.get("DESCENT_FAULT_LONG") == "1"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("DESCENT_BINARY", "build/descent"))
    parser.add_argument("--rounds", type=int, default=100 if long else 5)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    conduct("power_loss", parser.parse_args(), PatientClient, rounds, Disk)


if __name__ == "__main__":
    main()
