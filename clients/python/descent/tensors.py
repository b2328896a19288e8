"""Tensors in memory <-> little-endian bytes: by numpy where it is installed, else nested lists.

A tensor to send is anything numpy understands, or a number, or nested sequences of numbers. dtypes
have the server's names: f64, f32, f16, bf16. Numbers without a float type of their own (lists,
integers) travel as f64, so nothing is rounded before the server rounds once, to the session's
dtype.
"""

import array
import struct
import sys
from typing import NamedTuple

try:
    import numpy
except ImportError:
    numpy = None

SIZES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2}
_NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2"}
_STRUCT = {"f64": "d", "f32": "f", "f16": "e"}


class Tensor(NamedTuple):
    """A tensor ready for the wire: `data` holds the elements in C order, little-endian."""

    dtype: str
    shape: tuple
    data: object  # bytes-like


def count(shape):
    """Number of elements of a shape."""
    total = 1
    for extent in shape:
        total *= extent
    return total


def encode(value, dtype=None):
    """A Tensor from an array or from nested lists; dtype=None keeps the array's own float type."""
    if dtype is not None and dtype not in SIZES:
        raise ValueError("dtype %r is none of %s" % (dtype, ", ".join(SIZES)))
    return _encode_lists(value, dtype) if numpy is None else _encode_numpy(value, dtype)


def decode(tensor):
    """A numpy array, or nested lists without it; bf16 becomes float32.

    The array is a view of the bytes where they are aligned.
    """
    return _decode_lists(tensor) if numpy is None else _decode_numpy(tensor)


def to_lists(value):
    """The same numbers as nested lists of floats, as JSON needs them."""
    return _decode_lists(encode(value))


# --- with numpy ---


def _encode_numpy(value, dtype):
    source = numpy.asarray(value)
    if source.dtype.kind not in "fiu":
        raise TypeError("a tensor must hold real numbers, not %s" % source.dtype)
    if dtype is None:
        known = {8: "f64", 4: "f32", 2: "f16"} if source.dtype.kind == "f" else {}
        dtype = known.get(source.dtype.itemsize, "f64")
    if dtype == "bf16":
        bits = numpy.array(source, dtype="<f4", order="C").view("<u4")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
        quiet = (bits >> 16) | 0x40  # a NaN stays one
        wire = numpy.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, rounded).astype("<u2")
    else:
        wire = numpy.asarray(source, dtype=_NUMPY[dtype], order="C")
    return Tensor(dtype, tuple(source.shape), wire.reshape(-1).view("u1").data)


def _decode_numpy(tensor):
    if tensor.dtype == "bf16":
        bits = numpy.frombuffer(tensor.data, dtype="<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(tensor.shape)
    flat = numpy.frombuffer(tensor.data, dtype=_NUMPY[tensor.dtype])
    return (flat if flat.flags.aligned else flat.copy()).reshape(tensor.shape)


# --- without ---


def _encode_lists(value, dtype):
    if dtype is None:
        dtype = "f32" if getattr(value, "typecode", None) == "f" else "f64"
    shape = _shape_of(value)
    flat = []
    _flatten(value, shape, 0, flat)
    return Tensor(dtype, shape, _pack(flat, dtype))


def _is_sequence(value):
    return (
        hasattr(value, "__len__")
        and hasattr(value, "__getitem__")
        and not isinstance(value, (str, bytes, dict))
    )


def _shape_of(value):
    shape = []
    while _is_sequence(value):
        shape.append(len(value))
        if not len(value):
            break
        value = value[0]
    return tuple(shape)


def _flatten(value, shape, axis, flat):
    if axis == len(shape):
        if _is_sequence(value):
            raise ValueError("ragged tensor: a list where axis %d should hold numbers" % (axis - 1))
        if isinstance(value, (str, bytes, bool, dict)) or value is None:
            raise TypeError("a tensor must hold real numbers, not %s" % type(value).__name__)
        flat.append(float(value))
        return
    if not _is_sequence(value) or len(value) != shape[axis]:
        raise ValueError(
            "ragged tensor: axis %d does not hold %d entries everywhere" % (axis, shape[axis])
        )
    for item in value:
        _flatten(item, shape, axis + 1, flat)


def _pack(flat, dtype):
    if dtype == "f16":
        return struct.pack("<%de" % len(flat), *flat)
    if dtype == "bf16":
        return struct.pack("<%dH" % len(flat), *map(_bf16_bits, flat))
    packed = array.array(_STRUCT[dtype], flat)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _bf16_bits(number):
    bits = array.array("I", array.array("f", [number]).tobytes())[0]
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 | 0x40
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF


def _decode_lists(tensor):
    total = count(tensor.shape)
    if tensor.dtype == "bf16":
        halves = struct.unpack("<%dH" % total, tensor.data)
        flat = struct.unpack(
            "<%df" % total, struct.pack("<%dI" % total, *(half << 16 for half in halves))
        )
    else:
        flat = struct.unpack("<%d%s" % (total, _STRUCT[tensor.dtype]), tensor.data)
    return _nest(flat, tensor.shape)


def _nest(flat, shape):
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return list(flat)
    stride = count(shape[1:])
    return [_nest(flat[row * stride : (row + 1) * stride], shape[1:]) for row in range(shape[0])]
