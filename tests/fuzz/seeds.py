"""Writes the seeds of tests/fuzz/corpus/. Run from the project's root."""
import gzip
import shutil
import struct
import subprocess
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
GOLDEN = Path(__file__).parent.parent / "golden" / "wire"

JSON = [
    '{"optimizer": {"name": "adam", "lr": 1e-3}, "parameters": {"w": [[0.1, -2], [3, 4e5]], "b": 0}}',
    '{"gradients": {"w": [[[1],[2]],[[3],[4]]], "e": [], "f": [[],[]]}, "base_step": 12.0, "seq": 18446744073709551615}',
    '[1, [2, [3, ["x", {"y": [4]}]]], true, false, null, "\\u00e9\\n", -0, 1.5e-300, 12345678901234567890123]',
    '[[1,2],[3]]',
    '{"a":1,"a":2}',
    '[NaN]',
]
SAFETENSORS = [
    '{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}',
    '{"b":{"dtype":"F64","shape":[2],"data_offsets":[8,24]},"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}',
]

def compressed(codec, parts):
    """A header of these (name, dtype, shape, bytes), with a codec, on the layout w[2,3] b[17] s[]."""
    entries, end = ['"__metadata__":{"codec":"%s"}' % codec], 0
    for name, dtype, shape, size in parts:
        entries.append('"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}' % (name, dtype, shape, end, end + size))
        end += size
    return "{%s}" % ",".join(entries)


COMPRESSED = [
    compressed("int8", [("w", "I8", [2, 3], 6), ("w.scale", "F32", [], 4), ("b", "I8", [17], 17), ("b.scale", "F16", [1], 2),
                        ("s", "I8", [], 1), ("s.scale", "F64", [], 8)]),
    compressed("sign", [("w.sign", "U8", [1], 1), ("w.scale", "F32", [], 4), ("b.sign", "U8", [3], 3), ("b.scale", "BF16", [1], 2),
                        ("s.sign", "U8", [1], 1), ("s.scale", "F32", [], 4)]),
    compressed("topk", [("w.indices", "U32", [1], 4), ("w.values", "F32", [1], 4), ("b.indices", "I64", [0], 0),
                        ("b.values", "F16", [0], 0), ("s.indices", "I32", [0], 0), ("s.values", "F64", [0], 0)]),
    compressed('2bit","threshold":"0.25', [("w", "U8", [4], 4), ("b", "U8", [8], 8), ("s", "U8", [4], 4), ("s.threshold", "F32", [], 4)]),
    compressed("1bit", [("w", "U8", [4], 4), ("b", "U8", [4], 4), ("s", "U8", [4], 4)]),
    compressed("rows", [("w.rows", "U32", [0], 0), ("w.values", "F32", [0, 3], 0), ("b", "F32", [17], 68), ("s", "F16", [], 2)]),
]
NPY = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (6,), }",
    "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 2), }",
]
NEGOTIATE = [
    "application/json",
    "application/x-npy;q=0.5, application/octet-stream;q=0.6, */*;q=.1",
    'application/json;x="a,b\\";q=0", application/*;q=1.000',
    "Application/JSON; charset=utf-8",
]


def zstd(data, *options):
    return subprocess.run(["zstd", "-qc", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


CODED = b'{"w": [' + b", ".join(b"%d" % i for i in range(60)) + b"]}"
CODING = [
    gzip.compress(CODED, mtime=0),
    gzip.compress(CODED, mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(bytes(3000), mtime=0),
    bytes([31, 139, 8, 0x1C, 0, 0, 0, 0, 0, 3, 2, 0]) + b"xxname\0comment\0" + gzip.compress(CODED, mtime=0)[10:],
    zstd(CODED),
    zstd(CODED, "--no-check", "-19") + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(bytes(3000)),
    zstd(CODED * 20, "--no-content-size", "--fast=3"),
    b"gzip;q=0.5, zstd;q=0.8, *;q=0, identity",
    b"x-gzip",
    b'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:;a="b,c", md5=(1 2)',
    b"sha-512=3, sha-256=10",
]


def write(target, seeds):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed{number}").write_bytes(seed)


def safetensors(header, sparse=False):
    """Data 0, 1, 2 ..., or, sparse, zeros with a one here and there: small whole numbers."""
    size = max(int(end) for end in header.replace("]", ",").split(",") if end.isdigit())
    data = bytes(range(size)) if not sparse else bytes((i // 8) % 2 * (i % 8 == 0) for i in range(size))
    return struct.pack("<Q", len(header)) + header.encode() + data


def npy(header):
    sizes = {"<f2": 8, "<f4": 24, "<f8": 48}
    size = next(size for descr, size in sizes.items() if descr in header)
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(size)


write("json", [text.encode() for text in JSON])
write("safetensors", [safetensors(header) for header in SAFETENSORS])
write("compressed", [safetensors(header, sparse=True) for header in COMPRESSED])
write("npy", [npy(header) for header in NPY])
write("coding", [bytes([6]) + seed for seed in CODING])
write("negotiate", [text.encode() for text in NEGOTIATE])
for name in ("all.f32.safetensors", "some.bf16.safetensors"):
    shutil.copy(GOLDEN / name, CORPUS / "safetensors" / name)
for name in ("all.f32.npy", "version2.npy", "w.f64.npy"):
    shutil.copy(GOLDEN / name, CORPUS / "npy" / name)
