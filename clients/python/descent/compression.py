"""Compressed gradients: fewer bytes a step, with error feedback.

    compression = descent.TopK(0.01)
    for batch in batches:
        session.step(gradients(batch), compression=compression)

What a step leaves out is not lost: it is kept, tensor by tensor, and added to the next gradient
(Seide et al. 2014, Karimireddy et al. 2019), so that over time everything arrives:

    g <- g + residual;   send code(g);   residual <- g - decode(code(g))

The residual changes when the server has taken the step. If `step` raises, or is repeated with its
key, the same gradients are the same bytes again. An object belongs to one worker, and is not for
several threads. `compression.residual`, {name: flat array}, may be saved and put back.

    Int8()          a quarter of f32: 255 values from -max to max
    Sign()          a 32nd: a bit each, and the mean size
    TopK(fraction)  the largest, with their places
    TwoBit(T)       a 16th: -T, 0 or T, as MXNet's kvstore has it, in its bytes
    Rows()          exact: only rows that are not all zero. Rules with "lazy_rows" (see
                    client.optimizers()) leave the others as they are, state and all

Everything decodes to numbers that f32 holds (f64 where the gradient is), so what the server applies
is exactly what is subtracted here.
"""

import contextlib
import math
import struct
from typing import NamedTuple

from . import tensors
from .safetensors import Raw

numpy = tensors.numpy


class SparseRows(NamedTuple):
    """Some rows of a tensor, for Rows(): `rows`, ascending numbers of its first dimension, and
    `values`, those rows. They are sent as they are, also when all zero."""

    rows: object
    values: object


class Encoded(NamedTuple):
    """A gradient ready to be sent: entries of a safetensors file, and its metadata."""

    entries: dict
    metadata: dict
    residual: dict  # what to keep when it has arrived


class Compression:
    """What the codecs share. feedback=False: what is left out is lost."""

    codec = None

    def __init__(self, feedback=True):
        self.feedback = feedback
        self.residual = {}

    def encode(self, gradients):
        """Encoded; changes nothing."""
        entries, residual = {}, {}
        for name, value in gradients.items():
            tensor = tensors.encode(value)
            if tensor.dtype == "f16":
                tensor = tensors.encode(value, "f32")
            with _quiet():  # what is not finite is the server's to judge
                parts, kept = self._encode(self._add(name, _flat(tensor)), tensor)
            entries.update((name + suffix, raw) for suffix, raw in parts.items())
            residual[name] = kept
        return Encoded(entries, self._metadata(), residual if self.feedback else {})

    def arrived(self, encoded):
        """The server has taken it: from now on its residual counts."""
        for name, kept in encoded.residual.items():
            self.residual[name] = _finite(kept)

    def _metadata(self):
        return {"codec": self.codec}

    def _add(self, name, flat):
        kept = self.residual.get(name)
        if kept is None:
            return flat
        if len(kept) != len(flat):
            raise ValueError("tensor %r has %d numbers, not %d" % (name, len(flat), len(kept)))
        return flat + kept if numpy is not None else [g + r for g, r in zip(flat, kept)]

    def _encode(self, flat, tensor):
        """({suffix: Raw}, what is left out, as flat)."""
        raise NotImplementedError


class Int8(Compression):
    """One signed byte each, times a scale for the tensor: the largest is 127."""

    codec = "int8"

    def _encode(self, flat, tensor):
        scale = _scale(_largest(flat) / 127, tensor.dtype)
        if not 0 < scale < math.inf:  # all zeros, or something is not finite
            codes, kept = bytes(len(flat)), flat
        elif numpy is not None:
            q = numpy.clip(numpy.rint(flat / flat.dtype.type(scale)), -127, 127)
            codes, kept = q.astype("i1").tobytes(), flat - q * flat.dtype.type(scale)
        else:
            q = [max(-127, min(127, round(g / scale))) for g in flat]
            codes = struct.pack("%db" % len(q), *q)
            kept = [g - k * scale for g, k in zip(flat, q)]
        return {"": Raw("I8", tensor.shape, codes), ".scale": _number(scale, tensor.dtype)}, kept


class Sign(Compression):
    """One bit each, and the mean of the sizes."""

    codec = "sign"

    def _encode(self, flat, tensor):
        scale = _rounded(_mean_size(flat), tensor.dtype)
        if numpy is not None:
            negative = flat < 0
            bits = numpy.packbits(negative, bitorder="little").tobytes()
            kept = flat - numpy.where(negative, -scale, scale).astype(flat.dtype)
        else:
            negative = [g < 0 for g in flat]
            bits = _pack(negative, 1, lambda place: place)
            kept = [g - (-scale if down else scale) for g, down in zip(flat, negative)]
        parts = {".sign": Raw("U8", (len(bits),), bits), ".scale": _number(scale, tensor.dtype)}
        return parts, kept


class TopK(Compression):
    """The largest numbers of every tensor and their places: `fraction` of them, at least one."""

    codec = "topk"

    def __init__(self, fraction, feedback=True):
        super().__init__(feedback)
        if not 0 < fraction <= 1:
            raise ValueError("fraction is %r; it must be more than 0 and at most 1" % fraction)
        self.fraction = fraction

    def _encode(self, flat, tensor):
        count = math.ceil(self.fraction * len(flat))
        if numpy is not None:
            first = len(flat) - count
            chosen = numpy.argpartition(numpy.abs(flat), first)[first:] if count else []
            places = numpy.sort(numpy.asarray(chosen, dtype="i8"))
            values, kept = flat[places], flat.copy()
            kept[places] = 0
        else:
            sizes = [abs(g) if g == g else math.inf for g in flat]  # the server is to see NaN
            places = sorted(sorted(range(len(flat)), key=lambda i: -sizes[i])[:count])
            values, kept = [flat[i] for i in places], list(flat)
            for i in places:
                kept[i] = 0.0
        return {".indices": _indices(places), ".values": _numbers(values, tensor.dtype)}, kept


class TwoBit(Compression):
    """-threshold, 0 or threshold: two bits each, laid out as MXNet's 2bit compression."""

    codec = "2bit"

    def __init__(self, threshold=0.5, feedback=True):
        super().__init__(feedback)
        if not 0 < threshold < math.inf:
            raise ValueError("threshold is %r; it must be more than 0" % threshold)
        self.threshold = _rounded(threshold, "f32")

    def _metadata(self):
        return {"codec": self.codec, "threshold": repr(self.threshold)}

    def _encode(self, flat, tensor):
        size = 4 * ((len(flat) + 15) // 16)
        bad = not math.isfinite(_largest(flat))  # the server is to see it
        if numpy is not None:
            threshold = flat.dtype.type(self.threshold)
            codes = numpy.zeros(4 * size, dtype="u1")
            codes[: len(flat)] = numpy.where(
                flat >= threshold, 3, numpy.where(flat <= -threshold, 2, 0)
            )
            quads = codes.reshape(size, 4)
            packed = (
                quads[:, 0] << 6 | quads[:, 1] << 4 | quads[:, 2] << 2 | quads[:, 3]
            ).tobytes()
            steps = numpy.array([0, 0, -threshold, threshold], dtype=flat.dtype)
            kept = flat - steps[codes[: len(flat)]]
        else:
            threshold = self.threshold
            codes = [3 if g >= threshold else 2 if g <= -threshold else 0 for g in flat]
            packed = _pack(codes, 2, lambda place: 6 - place).ljust(size, b"\0")
            steps = (0.0, 0.0, -threshold, threshold)
            kept = [g - steps[code] for g, code in zip(flat, codes)]
        parts = {"": Raw("U8", (size,), packed)}
        if bad:
            parts = {"": Raw("U8", (size,), b"\xff" * size), ".threshold": _number(math.nan, "f32")}
        return parts, kept


class Rows(Compression):
    """The rows that are not all zero, exactly: there is nothing to feed back. A tensor may also
    come as SparseRows; one without rows, or with all of them, is sent whole."""

    codec = "rows"

    def __init__(self):
        super().__init__(feedback=False)

    def encode(self, gradients):
        entries = {}
        for name, value in gradients.items():
            if isinstance(value, SparseRows):
                values = tensors.encode(value.values)
                rows = [int(row) for row in value.rows]
            else:
                values = tensors.encode(value)
                rows = _rows_of(values)
                if rows is None:
                    entries[name] = value
                    continue
                length = tensors.count(values.shape[1:]) * tensors.SIZES[values.dtype]
                data = b"".join(values.data[row * length : (row + 1) * length] for row in rows)
                values = tensors.Tensor(values.dtype, (len(rows),) + values.shape[1:], data)
            entries[name + ".rows"] = _indices(rows)
            entries[name + ".values"] = Raw(values.dtype.upper(), values.shape, values.data)
        return Encoded(entries, self._metadata(), {})


# --- numbers ---


def _quiet():
    return contextlib.nullcontext() if numpy is None else numpy.errstate(all="ignore")


def _flat(tensor):
    """A flat numpy array of its own type, or a list."""
    flat = tensors.decode(tensor._replace(shape=(tensors.count(tensor.shape),)))
    return flat if numpy is None or flat.dtype.isnative else flat.astype(flat.dtype.newbyteorder())


def _finite(kept):
    """What was not finite did not help the server; it is not sent again."""
    if numpy is not None:
        return numpy.where(numpy.isfinite(kept), kept, kept.dtype.type(0))
    return [r if math.isfinite(r) else 0.0 for r in kept]


def _largest(flat):
    """NaN when there is one."""
    if numpy is not None:
        return float(numpy.max(numpy.abs(flat))) if len(flat) else 0.0
    return math.nan if any(g != g for g in flat) else max(map(abs, flat), default=0.0)


def _mean_size(flat):
    if numpy is not None:
        return float(numpy.mean(numpy.abs(flat), dtype="f8")) if len(flat) else 0.0
    return math.fsum(map(abs, flat)) / len(flat) if flat else 0.0


def _rounded(number, dtype):
    if dtype == "f64" or not math.isfinite(number):
        return number
    try:
        return struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return math.inf


def _scale(size, dtype):
    """At least `size`, with so few digits that its product with a byte is exact."""
    if not math.isfinite(size):
        return math.nan
    digits, exponent = math.frexp(size)
    bits = 45 if dtype == "f64" else 16
    return _rounded(math.ldexp(math.ceil(math.ldexp(digits, bits)), exponent - bits), dtype)


def _rows_of(tensor):
    """Rows with a bit other than zero; None: all, or there are no rows."""
    if not tensor.shape or tensors.count(tensor.shape) == 0:
        return None
    length = tensors.count(tensor.shape[1:]) * tensors.SIZES[tensor.dtype]
    if numpy is not None:
        rows = numpy.frombuffer(tensor.data, dtype="u1").reshape(tensor.shape[0], length)
        found = numpy.flatnonzero(rows.any(axis=1)).tolist()
    else:
        nothing = bytes(length)
        found = [
            row
            for row in range(tensor.shape[0])
            if tensor.data[row * length : (row + 1) * length] != nothing
        ]
    return found if len(found) < tensor.shape[0] else None


def _pack(codes, bits, shift):
    """Codes of so many bits in bytes; shift(place) for those at bit `place` of a byte."""
    per = 8 // bits
    packed = bytearray((len(codes) + per - 1) // per)
    for i, code in enumerate(codes):
        packed[i // per] |= code << shift(i % per * bits)
    return bytes(packed)


def _numbers(values, dtype):
    tensor = tensors.encode(values, dtype)
    return Raw(dtype.upper(), (len(values),), tensor.data)


def _number(value, dtype):
    return Raw(dtype.upper(), (), tensors.encode(value, dtype).data)


def _indices(places):
    wide = len(places) > 0 and places[-1] > 0x7FFFFFFF
    if numpy is not None:
        data = numpy.asarray(places, dtype="<i8" if wide else "<i4").tobytes()
    else:
        data = struct.pack("<%d%s" % (len(places), "q" if wide else "i"), *places)
    return Raw("I64" if wide else "I32", (len(places),), data)
