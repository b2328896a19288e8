"""A server whose data lie on a small tmpfs, which only root can mount."""
import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import running
from running import RUNNING, check, within

OCTETS = "application/octet-stream"


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """FOLDER/disk is one for as long as this lasts. Who is not root skips the test."""
    disk = os.path.join(folder, "disk")
    os.mkdir(disk)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk],
                           capture_output=True, text=True)
    if mount.returncode != 0:
        check(os.geteuid() != 0, f"cannot mount a tmpfs as root: {mount.stderr.strip()}")
        print("*** NOT TESTED: a full disk needs root, to mount a small tmpfs ***")
        sys.exit(77)
    try:
        yield disk
    finally:
        for server in RUNNING:
            server.kill()
        subprocess.run(["umount", disk], check=False)


class Server(running.Server):
    def __init__(self, folder, *options):
        super().__init__(folder, *options, data=os.path.join(folder, "disk", "data"))
        self.connection = self.connect()

    def ask(self, method, path, body=None, **headers):
        self.connection.request(method, path, body,
                                {name.replace("_", "-"): value for name, value in headers.items()})
        response = self.connection.getresponse()
        return response.status, response.read()

    def create(self, name, count, **more):
        body = {"parameters": {"w": {"shape": [count], "init": {"normal": {"mean": 0, "std": 1}}}},
                **more}
        status, data = self.ask("PUT", f"/v1/sessions/{name}", json.dumps(body),
                                Content_Type="application/json")
        check(status == 201, f"create gave {status} {data}")

    def session(self, name):
        status, data = self.ask("GET", f"/v1/sessions/{name}")
        check(status == 200, f"{name} cannot be read: {status} {data}")
        return json.loads(data)

    def weights(self, name, real=np.float32):
        status, data = self.ask("GET", f"/v1/sessions/{name}/parameters", Accept=OCTETS)
        check(status == 200, f"{name}: parameters gave {status}")
        return np.frombuffer(data, real)

    def step(self, name, number, gradient, query=""):
        """Status and document."""
        status, data = self.ask("POST", f"/v1/sessions/{name}/gradients{query}", gradient.tobytes(),
                                Content_Type=OCTETS, Idempotency_Key=f"{name}-{number}")
        return status, json.loads(data)

    def await_ready(self, words):
        within(5, lambda: self.ask("GET", "/readyz")[0] == 200, f"{words}, but readyz is not 200")


def fill(path):
    """Takes all that is left on the disk."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    if file.write(bytes(size)) < size:
                        break
            except OSError:
                pass
