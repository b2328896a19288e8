"""SVRG through the client against a live server."""

import threading
import unittest

from .test_client import Live

try:
    import numpy
except ImportError:
    numpy = None

SVRG = {"update_freq": 2}


class Snapshots(Live):
    def create(self, client=None, **options):
        options.setdefault("svrg", SVRG)
        parameters = {"w": [1.0, 2.0], "b": 3.0}
        return super().create(client, parameters, {"name": "sgd", "lr": 0.5}, dtype="f64", **options)

    def test_a_step_is_corrected_by_its_pair_in_every_format(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                self.assertIsNone(session.snapshot())
                session.step({"w": [2.0, 0.0], "b": 0.0})
                taken = session.take_snapshot(workers=2)
                self.assertEqual((taken.snapshot, taken.step, taken.ready), (1, 1, False))
                self.same(taken.parameters(), {"w": [0.0, 2.0], "b": 3.0})
                self.refused("snapshot_collecting", taken.gradient)
                for worker, gradients, examples in (
                    ("a", {"w": [1.0, 1.0], "b": 1.0}, 3),
                    ("b", {"w": [5.0, 1.0], "b": -3.0}, 1),
                ):
                    handle = session.client.session(session.id, worker=worker)
                    other = handle.snapshot().add(gradients, examples)
                self.assertTrue(other.ready)
                self.assertFalse(taken.ready)
                self.assertTrue(taken.refresh().ready)
                self.same(taken.gradient(), {"w": [2.0, 1.0], "b": 0.0})
                receipt = session.step(
                    {"w": [1.0, 1.0], "b": 1.0},
                    snapshot=taken,
                    snapshot_gradients={"w": [0.5, 1.0], "b": 3.0},
                    return_parameters=True,
                )
                self.assertEqual((receipt.step, receipt.snapshot), (2, 1))
                self.same(receipt.parameters, {"w": [-1.25, 1.5], "b": 4.0})
                self.assertFalse(receipt.snapshot_due)
                self.assertTrue(session.step({"w": [0.0, 0.0], "b": 0.0}).snapshot_due)

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_halves_of_different_types_make_a_pair(self):
        session = self.create(self.client(format="raw"))
        taken = session.take_snapshot()
        taken.add({"w": [0.0, 0.0], "b": 0.0}, 1)
        self.assertFalse(taken.ready)
        self.assertTrue(taken.close().ready)
        third = numpy.array([1, 1]) / 3
        narrow = {"w": third.astype("f4"), "b": numpy.float32(0)}
        session.step({"w": third, "b": 0.0}, snapshot=1, snapshot_gradients=narrow)
        moved = third - third.astype("f4").astype("f8")
        self.assertEqual((session.parameters()["w"] == [1, 2] - 0.5 * moved).all(), True)

    def test_a_shard_counts_once(self):
        session = self.client().session(self.create().id, worker="a")
        taken = session.take_snapshot(examples=4)
        shard = {"w": [1.0, 1.0], "b": 1.0}
        self.assertEqual(taken.add(shard, 1, part="x").parts, 1)
        self.assertEqual(taken.add(shard, 1, part="x").parts, 1)
        self.refused("idempotency_mismatch", taken.add, shard, 2, part="x")
        self.assertTrue(taken.add({"w": [9.0, 9.0], "b": 9.0}, 3, "y", reduction="sum").ready)
        self.same(taken.gradient(), {"w": [2.5, 2.5], "b": 2.5})
        session.take_snapshot()
        self.refused("snapshot_stale", session.step, shard, snapshot=1, snapshot_gradients=shard)

    def test_a_step_waits_for_the_snapshot(self):
        session = self.create()
        taken, ones = session.take_snapshot(workers=1), {"w": [1.0, 1.0], "b": 1.0}
        self.refused("snapshot_collecting", session.step, ones, snapshot=1, snapshot_gradients=ones)
        late = threading.Timer(0.2, taken.add, (ones, 1))
        late.start()
        receipt = session.step(ones, snapshot=taken, snapshot_gradients=ones, wait=20)
        late.join()
        self.assertEqual((receipt.step, receipt.snapshot), (1, 1))
