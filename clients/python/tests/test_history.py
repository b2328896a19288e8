"""The past of a session, forks, whole states and dry runs against a live server."""

import unittest

from . import support
from .test_client import AFTER, GRADIENT, Live


class History(Live):
    def test_past_weights_are_what_they_were(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                seen = [session.parameters()]
                for _ in range(4):
                    session.step(GRADIENT)
                    seen.append(session.parameters())
                for step, weights in enumerate(seen):
                    past = session.parameters(step=step)
                    self.assertEqual((past.step, past.etag), (step, '"0-%d"' % step))
                    self.same(past, {name: as_list(value) for name, value in weights.items()})
                self.refused("not_found", session.parameters, step=5)

    def test_the_ledger_is_paged_without_a_seam(self):
        session = self.create()
        receipts = [session.step(GRADIENT, loss=float(step)) for step in range(7)]
        for page_size in (1, 3, 100):
            entries = list(session.steps(page_size=page_size))
            self.assertEqual([entry.loss for entry in entries], [r.loss for r in receipts])
            self.assertEqual([entry.grad_norm for entry in entries], [r.grad_norm for r in receipts])
        self.assertEqual([entry.step for entry in session.steps(start=6)], [6, 7])
        self.assertNotIn("tensors", next(session.steps(tensors=False)))
        self.assertEqual(next(session.steps())["tensors"][0]["name"], "w")

    def test_a_rewind_goes_back_and_loses_nothing(self):
        session = self.create(worker="w0")
        for _ in range(3):
            session.step(GRADIENT)
        before, last = session.hash(1), session.hash()
        info = session.rewind(1)
        self.assertEqual((info["step"], info["lineage"]), (1, 1))
        self.same(session.parameters(), AFTER)
        self.assertEqual(session.hash(), before)
        self.assertEqual(session.step(GRADIENT).step, 2)  # its numbers go on
        self.assertEqual(session.hash(3, lineage=0), last)
        self.assertEqual(len(list(session.steps(lineage=0))), 3)

    def test_a_fork_goes_on_by_itself(self):
        session = self.create()
        for _ in range(3):
            session.step(GRADIENT)
        fork = session.fork(step=1, optimizer={"lr": 0.25}, labels={"run": "b"})
        self.addCleanup(self.forget, fork.id)
        info = fork.info()
        self.assertEqual(info["parent"], {"id": session.id, "step": 1, "lineage": 0})
        self.assertEqual((info["optimizer"]["lr"], info["labels"]), (0.25, {"run": "b"}))
        self.assertEqual((fork.forked["state"], fork.forked["replayed"]), ("kept", 0))
        fork.step(GRADIENT)
        self.assertEqual((fork.info()["step"], session.info()["step"]), (2, 3))
        again = session.fork(step=1, replay=True)
        self.addCleanup(self.forget, again.id)
        self.assertEqual((again.forked["replayed"], again.forked["off_policy"]), (2, True))
        self.assertEqual(again.hash(), session.hash())
        self.refused("session_exists", session.fork, id=fork.id)

    def test_a_lost_answer_makes_one_fork(self):
        session = self.create()
        proxy = support.FlakyProxy(self.url, ["lose", "pass"])
        self.addCleanup(proxy.close)
        fork = self.client(url=proxy.url).session(session.id).fork()
        self.addCleanup(self.forget, fork.id)
        self.assertEqual([action for _, _, action in proxy.seen], ["lose", "pass"])
        self.assertEqual(self.client().session(fork.id).info()["parent"]["id"], session.id)

    def test_a_rewind_is_never_repeated(self):
        session = self.create()
        session.step(GRADIENT)
        proxy = support.FlakyProxy(self.url, ["pass", "lose"])
        self.addCleanup(proxy.close)
        there = self.client(url=proxy.url).session(session.id)
        there.info()
        with self.assertRaises(self.descent.ConnectionFailed):
            there.rewind(0)
        self.assertEqual(len(proxy.seen), 2)
        self.assertEqual(session.info()["lineage"], 1)

    def test_a_whole_state_is_restored(self):
        session = self.create(optimizer="adam", ema={"decay": 0.5})
        for _ in range(3):
            session.step(GRADIENT)
        file = session.export_state()
        restored = self.client().restore(file)
        self.addCleanup(self.forget, restored.id)
        self.assertEqual(restored.hash(), session.hash())
        self.assertEqual(self.client().restore(file, id=restored.id).id, restored.id)
        for _ in range(3):
            session.step(GRADIENT)
            restored.step(GRADIENT)
        self.assertEqual(restored.hash(), session.hash())
        early = self.client().restore(session.export_state(step=1))
        self.addCleanup(self.forget, early.id)
        self.assertEqual(early.hash(), session.hash(1))
        broken = bytearray(file)
        broken[-1] ^= 1
        self.refused("invalid_field", self.client().restore, bytes(broken))

    def test_a_dry_run_changes_nothing(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format), worker="w0")
                told = session.step(GRADIENT, dry_run=True, return_parameters=True)
                self.assertIs(told.dry_run, True)
                self.assertIsNone(told.etag)
                self.same(told.parameters, AFTER)
                self.assertEqual(session.info()["step"], 0)
                receipt = session.step(GRADIENT)
                self.assertEqual((receipt.step, receipt.update_norm), (1, told.update_norm))

    def test_checkpoints_are_made_and_listed(self):
        session = self.create()
        session.step(GRADIENT)
        self.assertEqual(session.checkpoint(), {"step": 1, "lineage": 0})
        newest = session.checkpoints()[0]
        self.assertEqual((newest["step"], newest["lineage"]), (1, 0))
        self.assertGreater(newest["bytes"], 0)

    def test_what_is_abnormal_is_kept_for_inspection(self):
        session = self.create(gradient={"max_norm_ratio": 10})
        for _ in range(40):
            session.step(GRADIENT)
        wild = {
            name: [[v * 1000 for v in row] if isinstance(row, list) else row * 1000 for row in rows]
            for name, rows in GRADIENT.items()
        }
        self.refused("abnormal_gradient", session.step, wild)
        self.assertEqual(session.info()["step"], 40)
        kept = session.quarantine()
        self.assertEqual([entry["step"] for entry in kept], [40])
        self.same(session.quarantined(kept[0]["number"]), wild)
        self.refused("not_found", session.quarantined, kept[0]["number"] + 1)


class HistoryWithoutNumpy(History):
    numpy = False


def as_list(value):
    return value.tolist() if hasattr(value, "tolist") else value


del Live  # its tests run where they are

if __name__ == "__main__":
    unittest.main()
