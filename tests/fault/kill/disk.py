"""The world of the kill loop over a disk of its own, which can be taken away: an ext4 in a file."""
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

from . import reference
from .server import Broken, Down, check, failures
from .world import World

FS_IOC_SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2
IMAGE_MB = 512
SKIPPED = 77


class Unable(Exception):
    """This machine cannot run the test."""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unable(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


class Disk:
    """To be opened, and closed whatever happens, also when it was not opened to the end."""

    tools = ("mkfs.ext4", "losetup", "mount", "umount")

    def __init__(self, base):
        self.image, self.mount = os.path.join(base, "image"), os.path.join(base, "mount")
        self.device, self.mounted = None, False
        self.witnesses = 0

    def open(self):
        if os.geteuid() != 0:
            raise Unable("mounting needs root")
        for tool in self.tools:
            if shutil.which(tool) is None:
                raise Unable(f"there is no {tool}")
        os.mkdir(self.mount)
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_MB << 20)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.device = self.device_of(self.image)
        self.attach()
        self.cut()  # a machine that cannot do it says so before there is anything to lose
        self.detach()
        self.attach()
        if not self.forgot():
            raise Unable("the power went, and what was not synced is still there")

    def device_of(self, image):
        return run("losetup", "-f", "--show", image)

    def attach(self):
        run("mount", "-t", "ext4", self.device, self.mount)
        self.mounted = True

    def witness(self, synced):
        return os.path.join(self.mount, f"{'synced' if synced else 'not'}-{self.witnesses}")

    def cut(self):
        """The power goes. Two files tell later what that was worth."""
        self.witnesses += 1
        root = os.open(self.mount, os.O_RDONLY)
        try:
            for synced in (True, False):
                with open(self.witness(synced), "wb", buffering=0) as file:
                    file.write(b"x" * 5000)
                    if synced:
                        os.fsync(file)
                        os.fsync(root)
            fcntl.ioctl(root, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        except OSError as error:
            raise Unable(f"the file system cannot be shut down: {error}") from None
        finally:
            os.close(root)

    def forgot(self):
        """Whether the last cut took what was not synced, and that alone; ask after attach()."""
        size = [os.path.getsize(name) if os.path.exists(name) else 0
                for name in (self.witness(True), self.witness(False))]
        return size == [5000, 0]

    def detach(self):
        for _ in range(50):  # a killed process lets go a little later
            if subprocess.run(["umount", self.mount], capture_output=True,
                              check=False).returncode == 0:
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


def finish(world, disk):
    """A last life over what the disk has: every acknowledged step is there once, with its bits.
    Returns how many those are."""
    check(world.server.end(signal.SIGKILL) == -signal.SIGKILL, "it had ended before")
    disk.detach()
    disk.attach()
    world.look_over()
    world.recover()
    world.stop.set()
    for actor in world.actors + world.readers:
        actor.join(60)
        check(not actor.is_alive(), f"client {actor.number} does not come to an end")
    if world.trouble():
        raise Broken("seen by a client")
    steps = reference.verify(world.sessions, world.main, world.binary, world.folder)
    check(world.server.end(signal.SIGTERM) == 0, "the last SIGTERM did not end it with 0")
    world.look_over()
    return steps


def conduct(name, options, disk_of, rounds):
    """Makes the disk and the world on it, and runs the rounds, which return what they counted as
    (number, of what), none of which may be 0. Tidies up, says how it went, exits: with 0, with 1
    when a promise was broken, with 3 for a mistake of these scripts."""
    print(f"{name}: --rounds {options.rounds} --sessions {options.sessions} "
          f"--seed {options.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))
    base, begun = tempfile.mkdtemp(prefix=f"descent-{name}-"), time.monotonic()
    disk, world, counted, unable, errors = disk_of(base), None, (), None, []
    try:
        disk.open()
        os.mkdir(os.path.join(disk.mount, "data"))
        os.symlink(os.path.join(disk.mount, "data"), os.path.join(base, "data"))
        names = None if options.sessions == "all" else options.sessions.split(",")
        world = World(os.path.abspath(options.binary), base, options.seed, names)
        errors = world.errors
        world.server.disk_fails = True
        world.create()
        world.start_actors()
        counted = rounds(world, disk, options.rounds)
        for number, what in counted:
            check(number > 0, f"0 {what}: this proves nothing")
    except Unable as error:
        unable = str(error)
    except (Broken, Down, SystemExit) as error:
        if not failures:
            failures.append(str(error))
    except Exception:
        errors.append(traceback.format_exc())
    finally:
        if world is not None:
            world.server.leave_nothing()
            world.stop.set()
        if (failures or errors) and world is not None:
            print(*errors, sep="\n")
            with open(world.server.log_path, errors="replace") as log:
                print("the server's last words:", *log.read().splitlines()[-15:], sep="\n  ")
        disk.close()
        shutil.rmtree(base, ignore_errors=True)
    if unable is not None and world is not None:
        failures.append(unable)  # it could at first
    code = 1 if failures else 3 if errors else SKIPPED if unable is not None else 0
    if code == SKIPPED:
        print(f"*** NOT TESTED: {name}: {unable} ***")
    else:
        if code == 0:
            print(f"{name}: counted", ", ".join(f"{number} {what}" for number, what in counted))
        print(f"{name}: {'FAILED' if code else 'passed'} in {time.monotonic() - begun:.0f} s")
    sys.stdout.flush()
    os._exit(code)
