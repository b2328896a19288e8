"""The safetensors format, read strictly and written plainly.

    8 bytes     N, the length of the header, unsigned little-endian
    N bytes     JSON: {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, ...}
                and, if there is any, "__metadata__": {text: text}
    the rest    the tensors' bytes: little-endian, C order, without holes or overlaps

The floating types descent knows are F64, F32, F16 and BF16. Tensors are written in the order of the
mapping, which becomes the layout order of a session created from them.
"""

import json
import struct
from typing import NamedTuple

from . import tensors

_WIRE = {"f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16"}
_DTYPES = {wire: dtype for dtype, wire in _WIRE.items()}
_HEADER_MAX = 100_000_000  # the limit of the reference implementation


class FormatError(ValueError):
    """The bytes are not a safetensors file; the message says where."""


class Raw(NamedTuple):
    """An entry of any type, as it is to stand in the file: compressed gradients have some."""

    dtype: str  # "I8"
    shape: tuple
    data: object  # bytes-like


def dumps(mapping, metadata=None, dtype=None):
    """bytes of a file with the tensors of `mapping`, arrays or Raw; metadata is {str: str}; dtype
    converts, None keeps."""
    header, chunks, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    for name, value in mapping.items():
        if name == "__metadata__":
            raise FormatError("__metadata__ cannot be the name of a tensor")
        if not isinstance(value, Raw):
            tensor = tensors.encode(value, dtype)
            value = Raw(_WIRE[tensor.dtype], tensor.shape, tensor.data)
        size = len(value.data)
        header[name] = {
            "dtype": value.dtype,
            "shape": list(value.shape),
            "data_offsets": [offset, offset + size],
        }
        chunks.append(value.data)
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # so that the data is aligned
    return b"".join([struct.pack("<Q", len(text)), text] + chunks)


def loads(data):
    """({name: array}, metadata) of a file in a bytes-like object; arrays share the memory of
    `data`."""
    view = memoryview(data).cast("B")
    if len(view) < 8:
        raise FormatError("%d bytes cannot hold the length of the header" % len(view))
    size = struct.unpack("<Q", view[:8])[0]
    if size > _HEADER_MAX or size > len(view) - 8:
        raise FormatError("the header claims %d bytes; the file has %d" % (size, len(view)))
    header = _header(bytes(view[8 : 8 + size]))
    metadata = _metadata(header.pop("__metadata__", {}))
    body = view[8 + size :]
    found, end = {}, 0
    entries = sorted(
        ((name,) + _entry(name, entry) for name, entry in header.items()), key=lambda item: item[3:]
    )
    for name, dtype, shape, first, last in entries:
        if first != end:
            raise FormatError(
                "tensor %r starts at byte %d, not at %d: hole or overlap" % (name, first, end)
            )
        if last > len(body):
            raise FormatError("tensor %r ends at byte %d of %d" % (name, last, len(body)))
        found[name] = tensors.decode(tensors.Tensor(dtype, shape, body[first:last]))
        end = last
    if end != len(body):
        raise FormatError("%d bytes follow the last tensor" % (len(body) - end))
    return found, metadata


def _unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FormatError("the header names something twice")
    return members


def _header(text):
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError("the header is not JSON: %s" % error) from None
    if not isinstance(header, dict):
        raise FormatError("the header is not a JSON object")
    return header


def _metadata(metadata):
    if not isinstance(metadata, dict) or not all(
        isinstance(text, str) for text in metadata.values()
    ):
        raise FormatError("__metadata__ must map text to text")
    return metadata


def _entry(name, entry):
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError("tensor %r must have dtype, shape and data_offsets" % name)
    dtype, shape, offsets = _DTYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise FormatError(
            "tensor %r has dtype %r; known are %s" % (name, entry["dtype"], ", ".join(_DTYPES))
        )
    if not _naturals(shape):
        raise FormatError("tensor %r has shape %r" % (name, shape))
    if not _naturals(offsets) or len(offsets) != 2:
        raise FormatError("tensor %r has data_offsets %r" % (name, offsets))
    size = tensors.count(shape) * tensors.SIZES[dtype]
    if offsets[1] - offsets[0] != size:
        raise FormatError(
            "tensor %r has %d bytes; its shape needs %d" % (name, offsets[1] - offsets[0], size)
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _naturals(values):
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
