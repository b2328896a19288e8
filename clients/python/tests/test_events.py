"""Following a session, over breaks of the connection and restarts of the server."""

import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from . import support
from .test_client import GRADIENT, Live


def place(event):
    """lineage-step of an id, which has a third part."""
    return event.id.rpartition("-")[0]


class Following(Live):
    def test_every_step_is_told_once_and_as_the_ledger_has_it(self):
        session = self.create()
        for step in range(5):
            session.step(GRADIENT, loss=float(step))
        events = session.events(start=1, tensors=False)
        told = [next(events) for _ in range(5)]
        self.assertEqual([event.kind for event in told], ["step"] * 5)
        self.assertEqual([event.data for event in told], list(session.steps(tensors=False)))
        self.assertEqual([place(event) for event in told], ["0-%d" % step for step in range(1, 6)])
        session.rewind(2)
        session.step(GRADIENT)
        again, last = next(events), next(events)
        self.assertEqual((again.kind, again.data), ("rewind", {"lineage": 1, "step": 2}))
        self.assertEqual((place(last), last.data.step), ("1-3", 3))
        events.close()
        resumed = [next(session.events(event.id)) for event in (told[3], again)]
        self.assertEqual([place(event) for event in resumed], ["1-2", "1-3"])

    def test_without_a_start_it_begins_with_the_next_step(self):
        session = self.create()
        session.step(GRADIENT)
        events, told = session.events(), []
        watcher = threading.Thread(target=lambda: told.append(next(events)))
        watcher.start()
        while not told and session.info()["step"] < 200:
            session.step(GRADIENT)
        watcher.join()
        self.assertEqual(told[0].kind, "step")
        self.assertGreaterEqual(told[0].data.step, 2)

    def test_a_removal_is_the_end(self):
        session = self.create()
        session.step(GRADIENT)
        events = session.events(start=1)
        next(events)
        session.delete()
        self.assertEqual([(event.kind, event.id) for event in events], [("deleted", None)])
        self.refused("session_not_found", next, session.events())

    def test_another_of_the_same_name_is_not_gone_on_with(self):
        session = self.create(id="twice")
        session.step(GRADIENT)
        last = next(session.events(start=1)).id
        session.delete()
        again = self.create(id="twice")
        again.step(GRADIENT)
        again.step(GRADIENT)
        self.refused("session_not_found", next, again.events(last_event_id=last))

    def test_what_makes_no_sense_is_told(self):
        session = self.create()
        self.refused("invalid_request", next, session.events(last_event_id="x"))
        self.refused("invalid_field", next, session.events(start=7))


class Restarts(unittest.TestCase):
    def test_a_killed_server_is_come_back_to_where_the_stream_was(self):
        server = support.OwnServer()
        self.addCleanup(server.close)
        session = support.descent_with(numpy=False).Client(server.url).create({"w": [1.0]}, "sgd")
        steps = [session.step({"w": [1.0]}).step for _ in range(3)]
        events = session.events(start=1)
        told = [next(events).data.step for _ in range(3)]
        server.kill()
        server.start()
        steps += [session.step({"w": [1.0]}).step for _ in range(3)]
        told += [next(events).data.step for _ in range(3)]
        events.close()
        self.assertEqual(told, steps)


class Connections(unittest.TestCase):
    def test_a_certificate_that_is_not_trusted_is_told_at_once(self):
        if shutil.which("openssl") is None:
            self.skipTest("there is no openssl")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        key, certificate = folder + "/key", folder + "/certificate"
        make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1"
        subprocess.run(
            [*make.split(), "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        server = support.OwnServer("--tls-cert", certificate, "--tls-key", key)
        self.addCleanup(server.close)
        descent = support.descent_with(numpy=False)
        begun = time.monotonic()
        with self.assertRaisesRegex(descent.ConnectionFailed, "not trusted") as raised:
            next(descent.Client(server.url).session("x").events())
        self.assertIsInstance(raised.exception.__cause__, ssl.SSLCertVerificationError)
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_silent_stream_lasts_longer_than_other_exchanges(self):
        server = support.OwnServer()
        self.addCleanup(server.close)
        client = support.descent_with(numpy=False).Client(server.url, timeout=0.3)
        session, told = client.create({"w": [1.0]}, "sgd"), []
        stream, opened = client._transport.stream, []
        client._transport.stream = lambda *rest: opened.append(rest) or stream(*rest)
        events = session.events(start=1)
        watcher = threading.Thread(target=lambda: told.append(next(events)))
        watcher.start()
        time.sleep(1.2)
        session.step({"w": [1.0]})
        watcher.join()
        events.close()
        self.assertEqual((told[0].data.step, len(opened)), (1, 1))


if __name__ == "__main__":
    unittest.main()
