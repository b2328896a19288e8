"""Many workers on one session, through the client against a live server."""

import threading
import time
import unittest

from . import support
from .test_client import Live

SGD = {"name": "sgd", "lr": 1}
SYNC = {"mode": "sync", "workers": 2}
ONES = {"w": [1.0, 1.0]}
TWOS = {"w": [3.0, -1.0]}


class Workers(Live):
    def create(self, client=None, parameters=None, optimizer=None, **options):
        parameters, optimizer = parameters or {"w": [0.0, 0.0]}, optimizer or SGD
        return super().create(client, parameters, optimizer, **options)

    def together(self, *calls):
        """What each call returns, all of them running at once."""
        results = [None] * len(calls)

        def run(i):
            try:
                results[i] = calls[i]()
            except Exception as error:  # shown by whoever looks at the result
                results[i] = error

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def test_two_workers_make_one_step_of_their_weighted_mean(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format), aggregation=SYNC)
                first = session.step(ONES, worker="a", examples=3)
                self.assertTrue(first.waiting)
                self.assertEqual(
                    (first.round, first.received, first.expected, first.worker), (1, 1, 2, "a")
                )
                self.assertEqual((first.etag, first.parameters), (None, None))
                self.assertEqual(
                    session.info()["round"], {"round": 1, "received": 1, "expected": 2}
                )
                self.refused("already_contributed", session.step, ONES, worker="a")
                last = session.step(TWOS, worker="b", examples=1, return_parameters=True)
                self.assertFalse(last.waiting)
                self.assertEqual((last.step, last.received, last.expected), (1, 2, 2))
                self.same(last.parameters, {"w": [-1.5, -0.5]})
                self.refused("stale_gradient", session.step, ONES, worker="a", base_step=0)

    def test_all_get_the_receipt_of_the_step_they_wait_for(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                client = self.client(format=format)
                session = self.create(client, aggregation=SYNC, worker="a")
                other = client.session(session.id, worker="b")
                receipts = []
                for number in (1, 2, 3):
                    found = self.together(
                        lambda: session.step(ONES, wait=30, return_parameters=True),
                        lambda: other.step(TWOS, wait=30),
                    )
                    self.assertEqual([receipt.step for receipt in found], [number, number])
                    self.same(found[0].parameters, {"w": [-2.0 * number, 0.0]})
                    receipts.append(found[0])
                self.assertEqual((session.seq, other.seq), (4, 4))
                self.assertEqual([entry.received for entry in session.steps()], [2, 2, 2])
                members = list(session.steps(start=3))[0].members
                self.assertEqual(
                    [(each["worker"], each["seq"], each["examples"]) for each in members],
                    [("a", 3, 1.0), ("b", 3, 1.0)],
                )

    def test_a_wait_ends(self):
        session = self.create(aggregation=SYNC)
        start = time.monotonic()
        self.assertTrue(session.step(ONES, worker="a", wait=1).waiting)
        self.assertLess(time.monotonic() - start, 20)
        self.assertGreater(time.monotonic() - start, 0.9)

    def test_the_same_key_is_the_same_contribution(self):
        session = self.create(aggregation=SYNC)
        first = session.step(ONES, worker="a", key="once")
        again = session.step(ONES, worker="a", key="once")
        self.assertEqual((first.replayed, again.replayed), (False, True))
        self.assertEqual(session.info()["round"]["received"], 1)
        session.step(TWOS, worker="b")
        final = session.step(ONES, worker="a", key="once")
        self.assertEqual((final.replayed, final.waiting, final.step), (True, False, 1))

    def test_newer_weights_are_waited_for(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format), aggregation=SYNC)
                seen = session.parameters()
                self.assertIsNone(session.parameters(after=seen))
                self.assertIsNone(session.parameters(after=seen, wait=0.05))
                waiting = session.step(ONES, worker="a")
                timer = threading.Timer(0.1, lambda: session.step(TWOS, worker="b"))
                timer.start()
                found = session.parameters(after=waiting, wait=30)
                timer.join()
                self.assertEqual((found.step, found.etag), (1, '"0-1"'))
                self.same(found, {"w": [-2.0, 0.0]})
                self.assertIsNotNone(session.parameters(after=0))
        self.refused("invalid_field", session.parameters, wait=1)

    def test_workers_are_listed_and_dismissed(self):
        session = self.create(aggregation=SYNC, worker="a/b c")
        self.assertEqual(session.workers(), [])
        session.step(ONES)
        (listed,) = session.workers()
        self.assertEqual((listed["name"], listed["seq"]), ("a/b c", 1))
        self.assertEqual((listed["live"], listed["waiting"]), (True, True))
        session.dismiss("a/b c")
        self.assertEqual(session.workers(), [])
        self.refused("not_found", session.dismiss, "a/b c")
        self.refused("session_not_found", self.client().session("no-such").dismiss, "a")

    def test_a_delta_is_what_a_client_changed(self):
        session = self.create()
        session.step({"w": [0.5, -1.0]}, kind="delta")
        self.same(session.parameters(), {"w": [0.5, -1.0]})
        self.refused("invalid_field", session.step, ONES, kind="weights")

    def test_who_is_ahead_waits_for_the_others(self):
        session = self.create(aggregation={"mode": "ssp", "staleness": 1})
        session.step(ONES, worker="b")
        with self.assertRaises(self.descent.Error) as caught:
            for _ in range(10):
                session.step(ONES, worker="a")
        self.assertEqual(caught.exception.code, "too_far_ahead")
        steps = session.info()["step"]
        timer = threading.Timer(0.1, lambda: session.step(ONES, worker="b"))
        timer.start()
        self.assertEqual(session.step(ONES, worker="a", wait=30).status, "applied")
        timer.join()
        self.assertEqual(session.info()["step"], steps + 2)

    def test_a_killed_server_is_waited_for_within_a_round(self):
        server = support.OwnServer()
        self.addCleanup(server.close)
        client = self.client(url=server.url)
        session = client.create({"w": [0.0, 0.0]}, SGD, worker="a", aggregation=SYNC)
        other = client.session(session.id, worker="b")

        def restart():
            deadline = time.monotonic() + 20
            while session.info()["round"]["received"] == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
            server.start()
            return other.step(TWOS, wait=30)

        mine, others = self.together(lambda: session.step(ONES, wait=30), restart)
        self.assertEqual((mine.step, others.step, mine.waiting), (1, 1, False))
        self.same(session.parameters(), {"w": [-2.0, 0.0]})


if __name__ == "__main__":
    unittest.main()
