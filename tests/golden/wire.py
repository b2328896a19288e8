"""Writes tests/golden/wire/: one model in npy (by NumPy itself) and in safetensors (by the format's description).

The model: w [2, 3], b [3], s [], a zero-sized e [0, 2]; values that every dtype holds exactly. Run from the project's root.
"""
import json
import struct
from pathlib import Path

import numpy

FOLDER = Path(__file__).parent / "wire"
TENSORS = {
    "w": numpy.array([[-1.0, -0.5, 0.0], [0.5, 1.0, 1.5]]),
    "b": numpy.array([2.0, -2.5, 1024.0]),
    "e": numpy.zeros((0, 2)),
    "s": numpy.array(-0.0),
}


def bfloat16(array):
    return (array.astype("<f4").view("<u4") >> 16).astype("<u2")


DTYPES = {
    "f32": ("F32", lambda a: a.astype("<f4")),
    "f64": ("F64", lambda a: a.astype("<f8")),
    "f16": ("F16", lambda a: a.astype("<f2")),
    "bf16": ("BF16", bfloat16),
}


def safetensors(dtype, names):
    wire_name, convert = DTYPES[dtype]
    header, data = {"__metadata__": {"step": "3", "quote": 'a"b'}}, b""
    for name in names:
        piece = convert(TENSORS[name]).tobytes()
        header[name] = {
            "dtype": wire_name,
            "shape": list(TENSORS[name].shape),
            "data_offsets": [len(data), len(data) + len(piece)],
        }
        data += piece
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main():
    FOLDER.mkdir(exist_ok=True)
    flat = numpy.concatenate([array.ravel() for array in TENSORS.values()])
    for dtype, (_, convert) in DTYPES.items():
        (FOLDER / f"all.{dtype}.safetensors").write_bytes(safetensors(dtype, TENSORS))
        (FOLDER / f"some.{dtype}.safetensors").write_bytes(safetensors(dtype, ["s", "w"]))
        if dtype == "bf16":
            continue
        numpy.save(FOLDER / f"all.{dtype}.npy", convert(flat))
        for name, array in TENSORS.items():
            numpy.save(FOLDER / f"{name}.{dtype}.npy", convert(array))
    for version in (2, 3):
        with open(FOLDER / f"version{version}.npy", "wb") as file:
            numpy.lib.format.write_array(file, flat.astype("<f4"), version=(version, 0))


main()
