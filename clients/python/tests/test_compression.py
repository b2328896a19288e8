"""Compressed gradients: what the client sends, decoded by loops of its own, and what the server
makes of it. MXNet's formats are checked against transcriptions of its kernels, through their bytes.
"""

import json
import math
import random
import struct
import unittest

from . import support
from .test_client import Live

SHAPES = {"w": (7, 5), "b": (33,), "s": (), "t": (2, 3, 4), "b.scale.x": (1,)}
FLOATS = {"F64": "d", "F32": "f", "F16": "e"}
WHOLE = {"I8": "b", "U8": "B", "I32": "i"}


def numbers(seed, size=1.0):
    """Flat lists of numbers that f32 holds."""
    source = random.Random(seed)
    count = {name: math.prod(shape) for name, shape in SHAPES.items()}
    return {
        name: [round(source.gauss(0, size) * 2**20) / 2**20 for _ in range(count[name])]
        for name in SHAPES
    }


def nested(flat, shape):
    if not shape:
        return flat[0]
    step = math.prod(shape[1:])
    return [nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def shaped(mapping):
    return {name: nested(flat, SHAPES[name]) for name, flat in mapping.items()}


def flatten(value):
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list):
        return [value]
    return [number for item in value for number in flatten(item)]


# --- decoding, from the description of the format alone ---


def read(body):
    """({name: (dtype, shape, numbers)}, metadata) of a safetensors file."""
    size = struct.unpack("<Q", body[:8])[0]
    header = json.loads(body[8 : 8 + size])
    metadata = header.pop("__metadata__")
    entries = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        code = {**FLOATS, **WHOLE}[entry["dtype"]]
        count = (last - first) // struct.calcsize(code)
        data = body[8 + size + first : 8 + size + last]
        entries[name] = (
            entry["dtype"],
            entry["shape"],
            struct.unpack("<%d%s" % (count, code), data),
        )
    return entries, metadata


def decode_tensor(name, count, codec, entries, metadata):
    if codec == "int8":
        scale = entries[name + ".scale"][2][0]
        return [q * scale for q in entries[name][2]]
    if codec == "sign":
        scale, bits = entries[name + ".scale"][2][0], entries[name + ".sign"][2]
        return [-scale if bits[i // 8] >> i % 8 & 1 else scale for i in range(count)]
    if codec == "topk":
        found = dict(zip(entries[name + ".indices"][2], entries[name + ".values"][2]))
        return [found.get(i, 0.0) for i in range(count)]
    if codec == "2bit":
        steps = [0.0, 0.0, -float(metadata["threshold"]), float(metadata["threshold"])]
        codes = entries[name][2]
        return [steps[codes[i // 4] >> 6 - 2 * (i % 4) & 3] for i in range(count)]
    if name + ".rows" not in entries:
        return list(entries[name][2])
    values = entries[name + ".values"][2]
    rows = entries[name + ".rows"][2]
    length = count // SHAPES[name][0]
    found = [0.0] * count
    for k, row in enumerate(rows):
        found[row * length : (row + 1) * length] = values[k * length : (k + 1) * length]
    return found


def decode(body):
    entries, metadata = read(body)
    return {
        name: decode_tensor(name, math.prod(shape), metadata["codec"], entries, metadata)
        for name, shape in SHAPES.items()
    }


# --- MXNet's kernels (gradient_compression-inl.h), byte by byte ---


def quantize_2bit(gradient, residual, threshold):
    """The bytes of a KVStore's push; the residual is changed in place."""
    out = bytearray((len(gradient) + 15) // 16 * 4)
    for block in range(len(out)):
        for i in range(4 * block, min(4 * block + 4, len(gradient))):
            residual[i] += gradient[i]
            if residual[i] >= threshold:
                out[block] |= (0xC0, 0x30, 0x0C, 0x03)[i & 3]
                residual[i] -= threshold
            elif residual[i] <= -threshold:
                out[block] |= (0x80, 0x20, 0x08, 0x02)[i & 3]
                residual[i] += threshold
    return bytes(out)


def dequantize_2bit(packed, count, threshold):
    out = []
    for i in range(count):
        mask = (0xC0, 0x30, 0x0C, 0x03)[i & 3]
        masked = packed[(i >> 4) * 4 + ((i & 15) >> 2)] & mask
        negative = (0x80, 0x20, 0x08, 0x02)[i & 3]
        out.append(threshold if masked == mask else -threshold if masked == negative else 0.0)
    return out


def quantize_1bit(gradient, residual, threshold):
    out = bytearray((len(gradient) + 31) // 32 * 4)
    for i, number in enumerate(gradient):
        residual[i] += number
        if residual[i] > threshold:
            out[i >> 3] |= (0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01)[i & 7]
            residual[i] -= 1
        else:
            residual[i] += 1
    return bytes(out)


class Compressed(Live):
    def codecs(self):
        d = self.descent
        return [d.Int8(), d.Sign(), d.TopK(0.1), d.TwoBit(0.3), d.Rows()]

    def session(self, dtype="f32", optimizer="sgd", **options):
        weights = shaped(numbers(1))
        return self.create(
            parameters=weights, optimizer={"name": optimizer, "lr": 0.25}, dtype=dtype, **options
        )

    def arrays(self, mapping, kind="f4"):
        return self.typed(shaped(mapping), kind)

    def typed(self, mapping, kind):
        """As numpy arrays of f32 where there is numpy."""
        numpy = self.descent.tensors.numpy
        if numpy is None:
            return mapping
        return {name: numpy.array(value, dtype=kind) for name, value in mapping.items()}

    def sent_by(self, session):
        """Bodies that the session's steps send, as they go."""
        bodies = []
        send = session.client._send

        def keep(method, path, query=None, headers=None, body=None, **options):
            if path.endswith("/gradients"):
                bodies.append(bytes(body))
            return send(method, path, query, headers, body, **options)

        session.client._send = keep
        return bodies

    def test_what_is_left_out_arrives_later(self):
        """Sum of what was sent, and the residual, are the sum of the gradients."""
        for compression in self.codecs():
            session = self.session()
            bodies = self.sent_by(session)
            total = {name: [0.0] * math.prod(shape) for name, shape in SHAPES.items()}
            for step in range(10):
                gradient = numbers(10 + step)
                for name, flat in gradient.items():
                    total[name] = [t + g for t, g in zip(total[name], flat)]
                session.step(self.arrays(gradient), compression=compression)
            for body in bodies:
                for name, flat in decode(body).items():
                    total[name] = [t - g for t, g in zip(total[name], flat)]
            for name, flat in total.items():
                kept = compression.residual.get(name, [0.0] * len(flat))
                worst = max(abs(t - float(r)) for t, r in zip(flat, kept))
                self.assertLess(worst, 2e-5, (compression.codec, name))
                if compression.codec != "rows" and len(flat) > 1:
                    self.assertGreater(max(abs(float(r)) for r in kept), 0, compression.codec)

    def test_what_is_left_out_is_lost_without_feedback(self):
        session = self.session()
        compression = self.descent.TopK(0.1, feedback=False)
        bodies = self.sent_by(session)
        session.step(self.arrays(numbers(3)), compression=compression)
        session.step(self.arrays(numbers(3)), compression=compression)
        self.assertEqual(bodies[0], bodies[1])
        self.assertEqual(compression.residual, {})

    def test_the_server_applies_exactly_what_was_left_after_decoding(self):
        """The same bits as a plain session that is sent the decoded numbers, in either dtype."""
        for dtype in ("f32", "f64"):
            for compression in self.codecs():
                lazy = compression.codec == "rows"  # adam moves rows that are not sent
                rule = "sgd" if lazy else "adam"
                one, other = self.session(dtype, rule), self.session(dtype, rule)
                bodies = self.sent_by(one)
                for step in range(4):
                    gradient = numbers(20 + step)
                    for row in range(0, 7, 3):
                        gradient["w"][5 * row : 5 * row + 5] = [0.0] * 5
                    first = one.step(self.arrays(gradient), compression=compression)
                    plain = shaped(decode(bodies[-1]))
                    second = other.step(self.typed(plain, "f8"))
                    self.assertEqual(first.grad_norm, second.grad_norm)
                    self.same(
                        one.parameters(),
                        {
                            name: value.tolist() if hasattr(value, "tolist") else value
                            for name, value in other.parameters().items()
                        },
                    )
                self.assertEqual(one.hash(), other.hash(), (dtype, compression.codec))

    def test_rounds_of_compressed_gradients_are_those_of_plain_ones(self):
        """Also half-collected ones, over a kill; and what was journaled replays to the same bits."""
        server = support.OwnServer()
        self.addCleanup(server.close)
        client = self.client(url=server.url)
        sync = {"mode": "sync", "workers": 2}
        one, other = (
            self.create(client, shaped(numbers(1)), {"name": "adam", "lr": 0.1}, aggregation=sync)
            for _ in range(2)
        )
        bodies, codecs = self.sent_by(one), self.codecs()
        for step, compression in enumerate(codecs):
            for worker in ("a", "b"):
                gradient = self.arrays(numbers(40 + 2 * step + (worker == "b")))
                one.step(gradient, compression=compression, worker=worker, examples=3)
                plain = self.typed(shaped(decode(bodies[-1])), "f8")
                other.step(plain, worker=worker, examples=3)
                if worker == "a" and step % 2 == 0:
                    server.kill()
                    server.start()
            self.assertEqual(one.info()["step"], step + 1)
            self.assertEqual(one.hash(), other.hash(), compression.codec)
        server.kill()
        server.start()
        self.assertEqual(one.hash(), other.hash())
        self.assertEqual(one.parameters(step=2).etag, '"0-2"')

    def test_what_was_journaled_replays_to_the_same_bits(self):
        server = support.OwnServer()
        self.addCleanup(server.close)
        client = self.client(url=server.url)
        session = self.create(
            client, shaped(numbers(1)), {"name": "adam", "lr": 0.1}, history={"keep_steps": 100}
        )
        hashes = []
        for step in range(10):
            session.step(self.arrays(numbers(60 + step)), compression=self.codecs()[step % 5])
            hashes.append(session.hash())
        server.kill()
        server.start()
        self.assertEqual(session.hash(), hashes[-1])
        for step in range(10):
            self.assertEqual(session.hash(step=step + 1), hashes[step])
        replayed = session.fork(step=0, replay=True)
        self.assertEqual(replayed.hash(), hashes[-1])
        replayed.delete()
        session.delete()

    def test_it_is_small(self):
        d = self.descent
        session = self.create(parameters={"w": {"shape": [100, 100], "init": "zeros"}})
        bodies = self.sent_by(session)
        source = random.Random(5)
        w = [[source.gauss(0, 1) for _ in range(100)] for _ in range(100)]
        w = self.typed({"w": w}, "f4")
        limits = [
            (d.Int8(), 10000),
            (d.Sign(), 1250),
            (d.TopK(0.01), 1200 + 400),
            (d.TwoBit(1), 2500),
        ]
        for compression, limit in limits:
            session.step(w, compression=compression)
            self.assertLess(len(bodies[-1]), limit + 400, compression.codec)

    def test_raw_and_json_clients_can_too(self):
        for format in ("raw", "json"):
            session = self.create(client=self.client(format=format))
            receipt = session.step(
                {"w": [[1.0, 0.0], [0.0, 0.0]], "b": [0.0, 2.0]},
                compression=self.descent.TopK(0.25),
                return_parameters=True,
            )
            self.same(receipt.parameters, {"w": [[0.75, 2.25], [3.25, 4.25]], "b": [0.5, -0.5]})

    def test_a_step_that_fails_keeps_the_residual(self):
        session = self.session()
        compression = self.descent.Sign()
        session.step(self.arrays(numbers(1)), compression=compression)
        before = {name: flatten(value) for name, value in compression.residual.items()}
        with self.assertRaises(self.descent.Error):
            session.step(self.arrays(numbers(2)), compression=compression, if_match='"0-77"')
        session.step(self.arrays(numbers(2)), compression=compression, dry_run=True)
        after = {name: flatten(value) for name, value in compression.residual.items()}
        self.assertEqual(before, after)

    def test_a_step_that_is_repeated_is_the_same_bytes(self):
        proxy = support.FlakyProxy(self.url, ["pass"])
        self.addCleanup(proxy.close)
        client = self.client(url=proxy.url, retries=0)
        session = self.create(client=client, parameters=shaped(numbers(1)))
        compression = self.descent.TwoBit(0.4)
        proxy.plan = ["lose"] * 10
        with self.assertRaises(self.descent.ConnectionFailed) as caught:
            session.step(self.arrays(numbers(2)), compression=compression)
        self.assertEqual(compression.residual, {})
        proxy.plan = []
        receipt = session.step(
            self.arrays(numbers(2)), compression=compression, key=caught.exception.key
        )
        self.assertTrue(receipt.replayed)
        self.assertEqual(receipt.step, 1)
        self.assertNotEqual(compression.residual, {})

    def test_what_is_not_finite_is_refused_and_not_kept(self):
        for compression in self.codecs():
            for bad in (math.nan, math.inf):
                session = self.session()
                gradient = numbers(4)
                gradient["w"][3] = bad
                self.refused(
                    "nonfinite_gradient",
                    session.step,
                    self.arrays(gradient),
                    compression=compression,
                )
                self.assertEqual(compression.residual, {})
                session.update(gradient={"nonfinite": "skip"})
                receipt = session.step(self.arrays(gradient), compression=compression)
                self.assertEqual(receipt.status, "skipped")
                self.assertEqual(compression.residual, {})
                session.update(gradient={"nonfinite": "zero"})
                session.step(self.arrays(gradient), compression=compression)
                for kept in compression.residual.values():
                    self.assertTrue(all(math.isfinite(r) for r in flatten(kept)))
                compression.residual.clear()

    def test_small_and_large_numbers_keep_their_bits(self):
        """Scales are such that products are exact: also near the ends of f32."""
        for size in (1e-44, 1e-40, 1e-30, 1e30, 3e38):
            session = self.create(
                parameters={"w": [0.0, 0.0, 0.0]}, optimizer={"name": "sgd", "lr": 1}
            )
            compression = self.descent.Int8()
            bodies = self.sent_by(session)
            session.step(
                self.typed({"w": [size, -size / 3, size / 200]}, "f4"), compression=compression
            )
            entries, _ = read(bodies[-1])
            kind, _, (scale,) = entries["w.scale"]
            decoded = [q * scale for q in entries["w"][2]]
            if kind == "F32":
                for number in decoded:
                    self.assertEqual(number, struct.unpack("<f", struct.pack("<f", number))[0])
            found = flatten(session.parameters()["w"])
            wanted = [-struct.unpack("<f", struct.pack("<f", number))[0] for number in decoded]
            self.assertEqual(found, wanted)

    def test_sparse_rows_move_alone(self):
        d = self.descent
        weights = {"e": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "b": [1.0]}
        session = self.create(
            parameters=weights, optimizer={"name": "momentum", "lr": 0.5, "weight_decay": 0.5}
        )
        rows = d.Rows()
        session.step({"e": d.SparseRows([1], [[1.0, 1.0]]), "b": [0.0]}, compression=rows)
        session.step({"e": [[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]], "b": [0.0]}, compression=rows)
        # Row 1: v = (1, 1) + (3, 4) / 2; row 2, at step 2: v = (2, 0) + (5, 6) / 2. b came neither
        # time: its one row is zero.
        self.same(session.parameters(), {"e": [[1.0, 2.0], [1.75, 2.5], [2.75, 4.5]], "b": [1.0]})
        lazy = {rule["name"]: rule["lazy_rows"] for rule in session.client.optimizers()}
        self.assertTrue(lazy["momentum"] and lazy["group_adagrad"])
        self.assertFalse(lazy["lamb"] or lazy["sgld"])

    def test_wrong_ones_are_refused(self):
        d = self.descent
        session = self.create()
        for make in (
            lambda: d.TopK(0),
            lambda: d.TopK(1.5),
            lambda: d.TwoBit(0),
            lambda: d.TwoBit(-1),
        ):
            self.assertRaises(ValueError, make)
        unknown = d.Int8()
        unknown.codec = "zip"
        error = self.refused(
            "invalid_field",
            session.step,
            {"w": [[1.0, 1], [1, 1]], "b": [1.0, 1]},
            compression=unknown,
        )
        self.assertEqual(error.problem["errors"][0]["pointer"], "/gradients/__metadata__/codec")
        self.assertIn("topk", str(error))
        unsorted = d.SparseRows([1, 0], [[1.0, 1], [1, 1]])
        error = self.refused(
            "invalid_field", session.step, {"w": unsorted, "b": [1.0, 1]}, compression=d.Rows()
        )
        self.assertEqual(error.problem["errors"][0]["pointer"], "/gradients/w.rows/1")
        compression = d.Sign()
        session.step({"w": [[1.0, 1], [1, 1]], "b": [1.0, 1]}, compression=compression)
        self.assertRaises(
            ValueError, session.step, {"w": [1.0], "b": [1.0, 1]}, compression=compression
        )
        self.assertRaises(
            ValueError,
            session.step,
            {"w": [1.0], "b": [1.0, 1]},
            compression=compression,
            dtype="f16",
        )

    def test_2bit_is_that_of_mxnet(self):
        """The client's bytes are the kernel's, and the server reads them as its counterpart does."""
        for count, threshold in ((1, 0.5), (15, 0.5), (16, 0.25), (17, 1.0), (100, 0.375)):
            source = random.Random(count)
            compression = self.descent.TwoBit(threshold)
            session = self.create(
                parameters={"w": [0.0] * count}, optimizer={"name": "sgd", "lr": 1}
            )
            bodies = self.sent_by(session)
            residual, total = [0.0] * count, [0.0] * count
            for _ in range(8):
                # Multiples of 1/64: every sum is exact in f32, as in these loops.
                gradient = [source.randrange(-64, 65) / 64 for _ in range(count)]
                gradient[0] = threshold  # what just reaches it counts
                session.step(self.typed({"w": gradient}, "f4"), compression=compression)
                packed = quantize_2bit(gradient, residual, threshold)
                self.assertEqual(bytes(read(bodies[-1])[0]["w"][2]), packed)
                decoded = dequantize_2bit(packed, count, threshold)
                total = [t + g for t, g in zip(total, decoded)]
                self.assertEqual(flatten(compression.residual["w"]), residual)
            self.assertEqual(flatten(session.parameters()["w"]), [0.0 - t for t in total])

    def test_1bit_is_that_of_mxnet(self):
        """There is no such codec in this client, for Sign() is better; the server reads it."""
        count, source = 77, random.Random(9)
        gradient = [source.gauss(0, 1) for _ in range(count)]
        packed = quantize_1bit(gradient, [0.0] * count, 0.0)
        session = self.create(parameters={"w": [0.0] * count}, optimizer={"name": "sgd", "lr": 1})
        raw = self.descent.safetensors.Raw("U8", (len(packed),), packed)
        body = self.descent.safetensors.dumps({"w": raw}, {"codec": "1bit"})
        session.client._send(
            "POST",
            session.path + "/gradients",
            {},
            {"Content-Type": "application/vnd.safetensors"},
            body,
        )
        wanted = [-1.0 if g > 0 else 1.0 for g in gradient]
        self.assertEqual(flatten(session.parameters()["w"]), wanted)


class CompressedWithoutNumpy(Compressed):
    numpy = False


if __name__ == "__main__":
    unittest.main()
