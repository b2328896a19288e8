"""Every method of the client against a live server ($DESCENT_URL, or one started here)."""

import contextlib
import io
import math
import os
import random
import re
import struct
import threading
import unittest
import uuid

from . import support

W, B = [[1.25, 2.25], [3.25, 4.25]], [0.5, 0.5]
GRADIENT = {"w": [[1.0, 1.0], [1.0, 1.0]], "b": [1.5, -1.5]}
AFTER = {"w": [[0.75, 1.75], [2.75, 3.75]], "b": [-0.25, 1.25]}  # one step of sgd with lr 0.5
SGD = {"name": "sgd", "lr": 0.5}


class Live(unittest.TestCase):
    numpy = True

    @classmethod
    def setUpClass(cls):
        cls.url = support.server_url()
        cls.descent = support.descent_with(numpy=cls.numpy) or support.descent_with(numpy=False)

    def client(self, **options):
        client = self.descent.Client(options.pop("url", self.url), **options)
        self.addCleanup(client.close)
        return client

    def create(self, client=None, parameters=None, optimizer=SGD, **options):
        session = (client or self.client()).create(
            parameters or {"w": W, "b": B}, optimizer, **options
        )
        self.addCleanup(self.forget, session.id)
        return session

    def forget(self, id):
        with self.descent.Client(self.url) as client:
            try:
                client.session(id).delete()
            except self.descent.Error as error:
                self.assertEqual(error.code, "session_not_found")

    def refused(self, code, call, *arguments, **options):
        with self.assertRaises(self.descent.Error) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.code, code)
        return caught.exception

    def same(self, found, expected):
        lists = {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in found.items()
        }
        self.assertEqual(lists, expected)


class Sessions(Live):
    def test_a_session_says_all_about_itself(self):
        info = self.create(gradient={"clip_norm": 2.5}, labels={"run": "a"}).info()
        self.assertEqual(info["optimizer"]["name"], "sgd")
        self.assertEqual(info["optimizer"]["lr"], 0.5)
        self.assertEqual((info["step"], info["parameter_count"], info["dtype"]), (0, 6, "f32"))
        self.assertEqual(
            [(t["name"], t["shape"]) for t in info["tensors"]], [("w", [2, 2]), ("b", [2])]
        )
        self.assertEqual((info["gradient"]["clip_norm"], info["labels"]), (2.5, {"run": "a"}))

    def test_an_optimizer_can_be_just_a_name(self):
        self.assertEqual(self.create(optimizer="adam").info()["optimizer"]["beta1"], 0.9)

    def test_tensors_can_be_started_by_the_server(self):
        session = self.create(
            parameters={
                "w": {"shape": [2, 3], "init": "zeros"},
                "b": [0.5],
                "n": {"shape": [7], "init": {"normal": {"mean": 0, "std": 0.01}}},
            },
            seed=3,
        )
        found = session.parameters()
        self.same({"w": found["w"], "b": found["b"]}, {"w": [[0.0] * 3] * 2, "b": [0.5]})
        self.assertTrue(all(0 < abs(float(number)) < 0.1 for number in found["n"]))

    def test_an_id_of_ones_own_creates_once(self):
        id = "py-test-" + uuid.uuid4().hex[:12]
        first, second = self.create(id=id), self.create(id=id)
        self.assertEqual((first.id, second.info()["id"]), (id, id))
        self.refused("session_exists", self.create, id=id, optimizer={"name": "sgd", "lr": 0.25})

    def test_the_list_is_paged_without_a_seam(self):
        client = self.client()
        made = {self.create(client).id for _ in range(5)}
        listed = [entry["id"] for entry in client.sessions(page_size=2)]
        self.assertLessEqual(made, set(listed))
        self.assertEqual(len(listed), len(set(listed)))

    def test_a_changed_rate_holds_from_the_next_step(self):
        session = self.create()
        self.assertEqual(
            session.update(optimizer={"lr": 0.25}, labels={"run": "b"})["optimizer"]["lr"], 0.25
        )
        self.assertEqual(session.step(GRADIENT).lr, 0.25)
        self.assertEqual(session.info()["labels"], {"run": "b"})

    def test_a_deleted_session_is_gone(self):
        session = self.create()
        session.delete()
        self.refused("session_not_found", session.info)
        self.refused("session_not_found", session.delete)

    def test_optimizers_are_described(self):
        client = self.client()
        self.assertLessEqual(
            {"sgd", "momentum", "adam"}, {rule["name"] for rule in client.optimizers()}
        )
        adam = client.optimizers("adam")
        self.assertLessEqual(
            {"lr", "beta1", "beta2", "eps"}, {each["name"] for each in adam["hyperparameters"]}
        )
        self.refused("optimizer_not_found", client.optimizers, "no_such_rule")

    def test_presets_and_schedules_are_described(self):
        client = self.client()
        presets = {preset["name"]: preset for preset in client.presets()}
        self.assertEqual(presets["torch.optim.Adam"]["optimizer"], "adam")
        self.assertEqual(presets["torch.optim.Adam"]["fields"]["beta1"], 0.9)
        self.assertEqual(presets["torch.optim.Adam"]["fixed"]["eps_mode"], "outside")
        schedules = {schedule["name"]: schedule for schedule in client.schedules()}
        self.assertLessEqual(
            {"max_steps", "warmup_steps"},
            {each["name"] for each in schedules["cosine"]["parameters"]},
        )

    def test_a_preset_stands_for_a_rule_and_its_fields(self):
        session = self.create(optimizer={"preset": "torch.optim.Adam", "lr": 0.25})
        optimizer = session.info()["optimizer"]
        self.assertEqual((optimizer["name"], optimizer["lr"]), ("adam", 0.25))
        error = self.refused(
            "unknown_field", self.create, optimizer={"preset": "torch.optim.Adam", "wd": 1}
        )
        self.assertIn("weight_decay", error.detail)
        self.refused("unknown_optimizer", self.create, optimizer={"preset": "torch.optim.Eve"})

    def test_the_server_is_ready(self):
        self.assertTrue(self.client().ready())


class Steps(Live):
    def test_a_step_moves_the_weights_in_every_format(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                receipt = session.step(GRADIENT)
                self.assertEqual((receipt.status, receipt.step, receipt.lineage), ("applied", 1, 0))
                self.assertAlmostEqual(receipt.grad_norm, math.sqrt(4 + 2 * 1.5**2), places=5)
                self.assertFalse(receipt.replayed)
                found = session.parameters()
                self.same(found, AFTER)
                self.assertEqual((found.step, found.lineage), (1, 0))

    def test_new_weights_come_with_the_receipt_on_request(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                receipt = session.step(GRADIENT, loss=0.5, return_parameters=True)
                self.same(receipt.parameters, AFTER)
                self.assertEqual((receipt.step, receipt.parameters.step), (1, 1))
                self.assertEqual((receipt.lineage, receipt.durable_step), (0, 1))
                self.assertAlmostEqual(receipt.grad_norm, math.sqrt(4 + 2 * 1.5**2), places=5)
                self.assertIsNone(session.step(GRADIENT).parameters)

    def test_what_goes_with_a_step_is_recorded(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                session.step(GRADIENT)
                receipt = session.step(
                    GRADIENT,
                    loss=0.125,
                    examples=32,
                    base_step=1,
                    cursor='epoch 1 & "\u00e9"',
                    lr=0.25,
                )
                self.assertEqual(
                    (receipt.loss, receipt.base_step, receipt.staleness, receipt.lr),
                    (0.125, 1, 0, 0.25),
                )
                info = session.info()
                self.assertEqual(
                    (info["cursor"], info["step"], info["last"]["step"]),
                    ('epoch 1 & "\u00e9"', 2, 2),
                )

    def test_an_override_holds_for_one_step(self):
        session = self.create(optimizer={"name": "momentum", "lr": 0.5, "momentum": 0.5})
        self.assertEqual(
            [session.step(GRADIENT, lr=0.125, momentum=0.0).lr, session.step(GRADIENT).lr],
            [0.125, 0.5],
        )

    def test_a_step_only_from_the_revision_it_was_meant_for(self):
        session = self.create()
        first = session.step(GRADIENT)
        session.step(GRADIENT, if_match=first.etag)
        error = self.refused("step_conflict", session.step, GRADIENT, if_match=first.etag)
        self.assertEqual((error.status, session.info()["step"]), (412, 2))

    def test_half_precision_gradients_are_taken(self):
        for format in ("safetensors", "raw"):
            for dtype in ("bf16", "f16", "f64"):
                with self.subTest(format + " " + dtype):
                    session = self.create(self.client(format=format))
                    session.step(GRADIENT, dtype=dtype)
                    self.same(session.parameters(), AFTER)

    def test_weights_are_fetched_only_if_newer(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                seen = session.parameters()
                self.assertIsNone(session.parameters(if_newer=seen))
                self.assertIsNone(session.parameters(if_newer=seen.etag))
                session.step(GRADIENT)
                self.same(session.parameters(if_newer=seen), AFTER)

    def test_a_coding_changes_the_way_and_nothing_else(self):
        start = {"w": [i / 7 for i in range(2000)]}
        gradient = {"w": [i / 3 for i in range(2000)]}
        for coding in ("gzip", "zstd"):
            with self.subTest(coding):
                try:
                    coded = self.client(coding=coding, format="json")
                except ImportError:
                    self.skipTest("this Python has no " + coding)
                sent = []
                encode = coded._transport._coding.encode
                coded._transport._coding.encode = lambda *rest: sent.append(encode(*rest)) or sent[-1]
                session, plain = self.create(coded, start), self.create(parameters=start)
                seen = session.parameters()
                self.assertEqual(seen.etag, '"0-0-%s"' % coding)
                self.assertEqual(seen.step, 0)
                self.assertIsNone(session.parameters(if_newer=seen))
                self.assertEqual(session.step(gradient, if_match=seen.etag).step, 1)
                plain.step(gradient)
                self.assertEqual(session.hash(), plain.hash())
                self.assertGreater(max(len(body) for body, _ in sent if body), 4000)
                self.assertEqual(sum("Content-Encoding" in fields for _, fields in sent), 2)
        self.assertRaises(ValueError, self.descent.Client, self.url, coding="br")

    def test_some_tensors_in_another_type(self):
        for format in ("safetensors", "raw"):
            for dtype in (None, "f64", "f32", "f16", "bf16"):
                with self.subTest("%s %s" % (format, dtype)):
                    session = self.create(self.client(format=format))
                    self.same(session.parameters(dtype=dtype, tensors=["b", "w"]), {"w": W, "b": B})
                    self.same(session.parameters(dtype=dtype, tensors=["b"]), {"b": B})

    def test_the_rate_follows_a_schedule_that_can_be_changed(self):
        session = self.create(schedule={"name": "multi_factor", "steps": [1], "factor": 0.5})
        self.assertEqual([session.step(GRADIENT).lr for _ in range(2)], [0.5, 0.25])
        self.assertEqual(session.step(GRADIENT, lr=2).lr, 2)
        shown = session.update(schedule={"name": "constant", "warmup_steps": 8})["schedule"]
        self.assertEqual((shown["name"], shown["warmup_steps"]), ("constant", 8))
        self.assertEqual(session.step(GRADIENT).lr, 0.25)  # step 4 of 8

    def test_groups_have_factors_of_their_own(self):
        session = self.create(groups=[{"tensors": "b", "lr_mult": 0}])
        session.step(GRADIENT)
        self.same(session.parameters(), {**AFTER, "b": B})
        self.refused("invalid_field", self.create, groups=[{"tensors": "*.bias"}])
        self.refused("unknown_field", session.update, groups=[])

    def test_the_average_is_fetched_in_every_format(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                zeros = {"w": [[0, 0], [0, 0]], "b": [0, 0]}
                session = self.create(
                    self.client(format=format), parameters=zeros, ema={"decay": 0.5}
                )
                session.step(GRADIENT)
                found = session.parameters(average="ema")
                self.same(found, {"w": [[-0.25] * 2] * 2, "b": [-0.375, 0.375]})
                self.assertEqual((found.step, found.lineage, found.etag), (1, 0, '"0-1-ema"'))
                self.assertIsNone(session.parameters(average="ema", if_newer=found))
                self.assertEqual(session.parameters(if_newer=found).step, 1)
                part = session.parameters(average="ema", tensors=["b"])
                self.same(part, {"b": [-0.375, 0.375]})
        self.refused("invalid_field", self.create().parameters, average="ema")

    def test_weights_are_replaced(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                before = session.parameters()
                session.replace(AFTER)
                self.same(session.parameters(if_newer=before), AFTER)

    def test_bits_survive_the_way_there_and_back(self):
        seed = 5
        draw = random.Random(seed)
        for size in (1, 7, 1031):
            numbers = [draw.gauss(0, 1) * 10.0 ** draw.randint(-20, 20) for _ in range(size)]
            singles = list(struct.unpack("<%df" % size, struct.pack("<%df" % size, *numbers)))
            for format in ("safetensors", "raw", "json"):
                for dtype, expected in (("f32", singles), ("f64", numbers)):
                    with self.subTest("%d %s %s, seed %d" % (size, format, dtype, seed)):
                        session = self.create(
                            self.client(format=format), {"w": numbers}, dtype=dtype
                        )
                        found = session.parameters(dtype=dtype if format != "json" else None)
                        if format == "json" and dtype == "f32":
                            # JSON has the shortest text that names the same float: as a double it
                            # is a neighbour, as a float the same bits.
                            listed = [float(value) for value in found["w"]]
                            packed = struct.pack("<%df" % size, *listed)
                            found = {"w": list(struct.unpack("<%df" % size, packed))}
                        self.same(found, {"w": expected})

    def test_a_scalar_is_a_tensor(self):
        session = self.create(parameters={"a": 0.5, "b": [[0.5]]})
        session.step({"b": [[1.0]], "a": 0.5})
        found = session.parameters()
        self.assertEqual((float(found["a"]), float(found["b"][0][0])), (0.25, 0.0))

    def test_threads_share_a_client(self):
        session = self.create()
        failures = []

        def work():
            try:
                for _ in range(5):
                    session.step(GRADIENT)
            except Exception as error:  # shown by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((failures, session.info()["step"]), ([], 20))


class ExactlyOnce(Live):
    def test_the_same_key_gives_the_same_receipt(self):
        session = self.create()
        first, again = session.step(GRADIENT, key="k 1"), session.step(GRADIENT, key="k 1")
        self.assertEqual((first.replayed, again.replayed, dict(first)), (False, True, dict(again)))
        self.assertEqual(session.info()["step"], 1)
        self.refused("idempotency_mismatch", session.step, AFTER, key="k 1")

    def test_a_worker_counts_its_steps(self):
        session = self.create(worker="w0")
        self.assertEqual(session.seq, 1)
        session.step(GRADIENT)
        session.step(GRADIENT)
        self.assertEqual((session.seq, session.info()["step"]), (3, 2))

    def test_a_restarted_worker_goes_on_where_the_server_stands(self):
        for format in ("safetensors", "json"):
            with self.subTest(format):
                client = self.client(format=format)
                session = self.create(client, worker="w0")
                session.step(GRADIENT)
                again = client.session(session.id, worker="w0")
                self.assertIsNone(again.seq)
                again.step(GRADIENT)
                self.assertEqual((again.seq, session.info()["step"]), (3, 2))
                fresh = client.session(session.id, worker="w1")
                fresh.step(GRADIENT)
                self.assertEqual((fresh.seq, session.info()["step"]), (2, 3))

    def test_a_repeated_number_is_replayed_and_an_old_one_refused(self):
        session = self.create(worker="w0")
        session.step(GRADIENT)
        session.step(GRADIENT)
        session.seq = 2
        self.assertTrue(session.step(GRADIENT).replayed)
        session.seq = 1
        self.refused("stale_sequence", session.step, GRADIENT)
        session.seq = 9
        self.assertEqual(
            self.refused("sequence_gap", session.step, GRADIENT).problem["expected"], 3
        )
        self.assertEqual(session.info()["step"], 2)


class Refusals(Live):
    def test_an_error_tells_what_where_and_which_request(self):
        session = self.create()
        error = self.refused("shape_mismatch", session.step, {"w": [[1.0, 1.0, 1.0]], "b": B})
        self.assertEqual((error.status, error.problem["status"]), (422, 422))
        self.assertTrue(error.request_id)
        self.assertIn("w", error.detail + str(error.errors))
        self.assertIn("shape_mismatch", str(error))
        self.assertEqual(session.info()["step"], 0)

    def test_each_fault_has_its_code(self):
        session = self.create()
        self.refused("missing_tensor", session.step, {"w": W})
        self.refused("unknown_tensor", session.step, {"w": W, "b": B, "c": B})
        self.refused("nonfinite_gradient", session.step, {"w": W, "b": [math.nan, 0.0]})
        self.refused("session_not_found", self.client().session("no-such-session").step, GRADIENT)
        self.refused("unknown_optimizer", self.create, optimizer="no_such_rule")
        error = self.refused("invalid_field", self.create, optimizer={"name": "adam", "beta1": 2})
        self.assertEqual(error.errors[0]["pointer"], "/optimizer/beta1")
        self.assertEqual(
            self.refused("unknown_field", self.create, colour="red").errors[0]["pointer"], "/colour"
        )

    def test_faults_of_the_caller_are_found_before_sending(self):
        session = self.create(self.client(format="raw"))
        with self.assertRaises(ValueError):
            session.step({"w": W})
        with self.assertRaises(ValueError):
            session.step({"w": [[1.0]], "b": B})
        for url in ("ftp://127.0.0.1", "http://", "http://127.0.0.1/?a=b"):
            with self.assertRaises(ValueError):
                self.descent.Client(url)
        with self.assertRaises(ValueError):
            self.descent.Client(self.url, format="xml")


class Readme(Live):
    def test_its_examples_run(self):
        text = (support.ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")
        examples = re.findall(r"```python\n(.*?)```", text, re.S)
        self.assertGreater(len(examples), 1)
        names = {}
        for example in examples:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(example.replace("http://127.0.0.1:8080", self.url), names)


class WithoutNumpy(Live):
    numpy = False

    def test_lists_go_out_and_come_back(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                session = self.create(self.client(format=format))
                receipt = session.step(GRADIENT, return_parameters=True)
                self.assertEqual(
                    (dict(receipt.parameters), dict(session.parameters())), (AFTER, AFTER)
                )


@unittest.skipIf(os.environ.get("DESCENT_URL"), "the server at DESCENT_URL is not ours to kill")
class Restarts(Live):
    def test_a_killed_server_is_waited_for_and_forgets_nothing(self):
        server = support.OwnServer()
        self.addCleanup(server.close)
        client = self.client(url=server.url)
        session = client.create({"w": W, "b": B}, SGD, worker="w0")
        session.step(GRADIENT)
        server.kill()
        timer = threading.Timer(0.3, server.start)
        timer.start()
        receipt = session.step(GRADIENT)
        timer.join()
        self.assertEqual((receipt.step, session.info()["step"]), (2, 2))


if __name__ == "__main__":
    unittest.main()
