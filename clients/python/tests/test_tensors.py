"""Tensors and safetensors files, with numpy and without; needs no server."""

import array
import json
import math
import random
import struct
import unittest

from . import support


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class BothWays:
    """The tests of a package; numpy = True or False says which."""

    numpy = None

    @classmethod
    def setUpClass(cls):
        cls.package = support.descent_with(numpy=cls.numpy)
        if cls.package is None:
            raise unittest.SkipTest("numpy is not installed")
        cls.tensors, cls.safetensors = cls.package.session.tensors, cls.package.session.safetensors

    def lists(self, value):
        return value.tolist() if hasattr(value, "tolist") else value

    def test_shapes_are_those_of_the_nesting(self):
        for value, shape in (
            (3, ()),
            ([1, 2, 3], (3,)),
            ([[1], [2]], (2, 1)),
            ([], (0,)),
            ([[[1.5] * 7]], (1, 1, 7)),
        ):
            self.assertEqual(self.tensors.encode(value).shape, shape)

    def test_numbers_without_a_float_type_travel_as_f64(self):
        tensor = self.tensors.encode([1, 0.1])
        self.assertEqual((tensor.dtype, bytes(tensor.data)), ("f64", struct.pack("<2d", 1, 0.1)))

    def test_arrays_keep_their_type(self):
        self.assertEqual(self.tensors.encode(array.array("f", [1, 2])).dtype, "f32")
        self.assertEqual(self.tensors.encode(array.array("d", [1, 2])).dtype, "f64")

    def test_ragged_tensors_are_refused(self):
        for value in ([[1, 2], [3]], [[1], 2], [1, [2]]):
            with self.assertRaises(ValueError):
                self.tensors.encode(value)

    def test_what_is_no_number_is_refused(self):
        for value in ("1", ["1"], [None], [{}]):
            with self.assertRaises(TypeError):
                self.tensors.encode(value)
        with self.assertRaises(ValueError):
            self.tensors.encode([1], "f8")

    def test_bits_survive_the_way_there_and_back(self):
        seed = 7
        draw = random.Random(seed)
        for size in (1, 7, 1031):
            numbers = [draw.gauss(0, 1) * 10.0 ** draw.randint(-30, 30) for _ in range(size)]
            file = self.safetensors.dumps({"w": numbers})
            self.assertEqual(
                self.lists(self.safetensors.loads(file)[0]["w"]), numbers, "seed %d" % seed
            )
            singles = list(struct.unpack("<%df" % size, struct.pack("<%df" % size, *numbers)))
            file = self.safetensors.dumps({"w": numbers}, dtype="f32")
            self.assertEqual(
                self.lists(self.safetensors.loads(file)[0]["w"]), singles, "seed %d" % seed
            )

    def test_bf16_rounds_to_nearest_and_ties_to_even(self):
        cases = {
            1.0: 0x3F80,
            1.00390625: 0x3F80,
            1.01171875: 0x3F82,
            1.0039065: 0x3F81,
            -2.5: 0xC020,
            3.4e38: 0x7F80,
            -0.0: 0x8000,
            math.inf: 0x7F80,
        }
        for number, bits in cases.items():
            self.assertEqual(
                struct.unpack("<H", self.tensors.encode(number, "bf16").data)[0], bits, number
            )
        nan = self.tensors.encode([math.nan], "bf16")
        self.assertTrue(math.isnan(self.tensors.decode(nan)[0]))

    def test_f16_is_written(self):
        self.assertEqual(
            bytes(self.tensors.encode([1.0, -2.0], "f16").data), bytes.fromhex("003c00c0")
        )

    def test_a_file_holds_tensors_in_order_with_metadata(self):
        file = self.safetensors.dumps({"w": [[1, 2], [3, 4]], "b": 0.5}, {"k": "\u00e9"})
        found, metadata = self.safetensors.loads(file)
        self.assertEqual(
            {name: self.lists(value) for name, value in found.items()},
            {"w": [[1, 2], [3, 4]], "b": 0.5},
        )
        self.assertEqual((list(found), metadata), (["w", "b"], {"k": "\u00e9"}))
        self.assertEqual(struct.unpack("<Q", file[:8])[0] % 8, 0)

    def test_a_file_is_known_byte_by_byte(self):
        header = b'{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
        self.assertEqual(
            self.safetensors.dumps({"b": [1]}, dtype="f32"), file_of(header, b"\0\0\x80\x3f")
        )

    def test_a_file_cut_anywhere_is_refused(self):
        file = self.safetensors.dumps({"w": [1, 2, 3], "b": 0.5})
        for size in range(len(file)):
            with self.assertRaises(self.safetensors.FormatError, msg="%d bytes" % size):
                self.safetensors.loads(file[:size])

    def test_broken_headers_are_refused(self):
        def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
            return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}

        cases = [
            [],
            {"w": 1},
            {"w": entry(more=1)},
            {"w": entry("F8")},
            {"w": entry(shape=(-1,))},
            {"w": entry(shape=(True,))},
            {"w": entry(shape=(2,))},
            {"w": entry(offsets=(4, 0))},
            {"w": entry(offsets=(1, 5))},
            {"w": entry(), "v": entry()},
            {"w": entry(), "__metadata__": {"k": 1}},
            b"{",
            b"\xff\xff",
            {},
            b'{"w":%s,"w":%s}' % (json.dumps(entry()).encode(), json.dumps(entry()).encode()),
        ]
        for header in cases:
            with self.assertRaises(self.safetensors.FormatError, msg=header):
                self.safetensors.loads(file_of(header, bytes(4)))
        with self.assertRaises(self.safetensors.FormatError):
            self.safetensors.loads(struct.pack("<Q", 2**63) + b"{}")

    def test_lists_for_json_are_the_same_numbers(self):
        self.assertEqual(self.tensors.to_lists([[1, 2], [3, 4.5]]), [[1.0, 2.0], [3.0, 4.5]])


class WithoutNumpy(BothWays, unittest.TestCase):
    numpy = False

    def test_tensors_come_back_as_lists(self):
        self.assertEqual(
            self.safetensors.loads(self.safetensors.dumps({"w": [[1, 2]]}))[0], {"w": [[1.0, 2.0]]}
        )


class WithNumpy(BothWays, unittest.TestCase):
    numpy = True

    def test_arrays_in_any_memory_order_are_sent_in_c_order(self):
        numpy = self.tensors.numpy
        matrix = numpy.arange(6, dtype=">f4").reshape(2, 3)
        for value in (matrix, numpy.asfortranarray(matrix), matrix[:, ::-1][:, ::-1]):
            tensor = self.tensors.encode(value)
            self.assertEqual((tensor.dtype, tensor.shape), ("f32", (2, 3)))
            self.assertEqual(bytes(tensor.data), struct.pack("<6f", *range(6)))

    def test_arrays_that_come_back_may_be_written_to(self):
        file = bytearray(self.safetensors.dumps({"w": [1.0, 2.0]}))
        found, _ = self.safetensors.loads(file)
        found["w"] += 1
        self.assertEqual(found["w"].tolist(), [2.0, 3.0])

    def test_without_numpy_the_bytes_are_the_same(self):
        plain = support.descent_with(numpy=False).client
        seed = 11
        draw = random.Random(seed)
        rows = [
            [draw.gauss(0, 1) * 10.0 ** draw.randint(-6, 4) for _ in range(7)] for _ in range(31)
        ]
        for dtype in ("f64", "f32", "f16", "bf16", None):
            ours, theirs = (
                module.dumps({"w": rows}, dtype=dtype)
                for module in (self.safetensors, plain.safetensors)
            )
            self.assertEqual(ours, theirs, "%s, seed %d" % (dtype, seed))


if __name__ == "__main__":
    unittest.main()
