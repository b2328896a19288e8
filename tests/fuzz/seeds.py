"""Writes the seeds of tests/fuzz/corpus/ that are made of text; seeds_stored.py those of what a server stores. Run from
the project's root."""
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
HEADERS = [
    "Host: a:80\nContent-Length: 17\nContent-Type: application/json; charset=utf-8\nAccept: application/x-npy;q=0.5, */*;q=.1\n"
    "Prefer: return=representation, wait=\"30\"; x=y\nIdempotency-Key: \"k-1\"",
    "Host: [::1]:8080\nTransfer-Encoding: chunked\nExpect: 100-continue\nIf-Match: \"0-12\", \"0-13\"\nConnection: close",
    "Host: a\nRange: bytes=0-3\nIf-Range: \"0-13\"\nIf-None-Match: W/\"0-12\", \"0-13-zstd\", *",
    "Host: a\nRange: bytes=-18446744073709551616\nContent-Encoding: identity",
    "Host: a\nRange: bytes=5-,0-0\nAccept-Encoding: gzip;q=1.0, zstd;q=0, *;q=0.5\n"
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\nAuthorization: Bearer dsc_x",
    "Host: a\nContent-Length: 1\nContent-Length: 1",
    "Host: a\nContent-Length: 1\nTransfer-Encoding: chunked",
    "Host: a\nExpect: bananas\nX : y",
    "Host: evil.example:80\nOrigin: https://evil.example\nSec-Fetch-Site: cross-site",
    "Host: 10.0.0.1\nOrigin: https://page.example\nAccess-Control-Request-Method: PUT\n"
    "Access-Control-Request-Headers: content-type, x-a\nAccess-Control-Request-Private-Network: true",
]
PATHS = [
    "/v1/sessions/a-b_c/gradients?worker=w%C3%A9&seq=7&base_step=12",
    "/v1/sessions/%61/workers/w%2F0",
    "/v1/sessions/s/parameters?step=18446744073709551615&lineage=0&tensors=w,b&after=13&wait=30",
    "/v1/sessions/s/snapshots/3/gradient?dtype=bf16", "/livez%00?a=%00", "/%c0%af?%ff=1&&a", "//..//%2e%2e?a=1&a=2",
    "/v1/optimizers/adam?", "/openapi.json?a=b=c+d",
]
CONFIGS = [
    "# what is served\nlisten = 127.0.0.1:0\ndata=memory:\n\n  log =  debug  \nbody-bytes-max = 1024\n",
    "idle-s = 0\n", "nonsense\n", "listen = a\nlisten = b\n", "log=loud", "connections-max = 18446744073709551616\n",
    "--listen=127.0.0.1:1\n--data\nmemory:\n--insecure\n--sessions-max=3",
]
SPECS = [
    '{"optimizer":{"name":"adam","lr":0.001,"beta1":0.9},"parameters":{},"dtype":"f64","seed":7,"labels":{"run":"d\\u00e9"}}',
    '{"optimizer":{"preset":"torch.optim.AdamW","lr":1e-3},"parameters":{},"schedule":{"name":"cosine","max_steps":1000,'
    '"warmup_steps":50},"gradient":{"rescale":1.0,"clip_value":null,"clip_norm":1.0,"nonfinite":"skip","max_norm_ratio":9}}',
    '{"optimizer":"sgd","parameters":null,"groups":[{"tensors":["*.bias","b?"],"lr_mult":2.0,"weight_decay_mult":0.0,'
    '"adapt":false}],"ema":{"decay":0.999,"debias":true},"history":{"keep_steps":10},"hash_every":5}',
    '{"optimizer":"lion","parameters":1,"aggregation":{"mode":"sync","workers":4,"quorum":3,"timeout_s":1.5,"reduction":"mean",'
    '"vote":true},"svrg":{"update_freq":3,"coefficient":0.5}}',
    '{"optimizer":"muon","parameters":1,"aggregation":{"mode":"ssp","staleness":3,"accumulate":2}}',
    '{"optimizer":"sgd","parameters":1,"aggregation":{"mode":"async","max_staleness":2,"stale":"scale"},'
    '"durability":{"mode":"interval","seconds":0.5}}',
    '{"optimizer":"lars","parameters":1,"schedule":{"name":"multistep","milestones":[10,20],"gamma":0.1},'
    '"durability":{"mode":"checkpoint","steps":9}}',
    '{"optimizer":{"lr":0.5},"schedule":null,"labels":{}}',
]
TOKENS = [
    '{"format":1,"tokens":[{"id":"tok_v4d77s74aue4qfap","name":"trainer","tenant":"t","scopes":["read","step"],"quotas":{"sessions":10,'
    '"parameters":5,"disk_bytes":7,"steps_per_s":0.5,"inflight":2},"created_at":"2026-01-02T03:04:05.000006Z","expires_at":null,'
    '"sha256":"' + 64 * "0" + '"},{"id":"tok_v4d77s74aue4qfaq","name":"","tenant":"","scopes":["admin"],"quotas":{},'
    '"created_at":"2026-01-02T03:04:05.000000Z","expires_at":"2027-01-02T03:04:05.000000Z","sha256":"' + 64 * "a" + '"}]}',
    '{"format":1,"tokens":[]}', '{"format":2,"tokens":[]}', "", "dsc_" + 51 * "a" + "q\n",
]
LOGS = [
    "\0request\0/v1/sessions/a b\0curl/8 \"x\\\\\0\x1b[2J\u009b\u202e\u00e9",
    "\1request\0/v1/sessions/a=b\0curl/8 \"x\\\\\0\x1b[2J\r\n\u2028\u00e9",
    "\0" + 3000 * "w" + "\0" + 1500 * "\x01" + "\0" + 500 * "\u20ac" + "\0" + 2000 * "z",
    "\1\0" + 2000 * "\x7f" + "\0" + 2000 * "\"" + "\0" + 400 * "\U0001f600",
]
TEXTS = ["aGVsbG8=", "*.bias\nlayer.1.bias", "a?c\na\u00e9c", "\"\\\u0001\ud7ff\U0010ffff\t", "****a*b\naaab", "AA==", "/+8="]
J = "Content-Type: application/json\n\n"
REQUESTS = [
    "GET /v1/sessions/s\n\n\x1eGET /v1/sessions?page_size=1\n\n\x1eGET /v1/sessions/s/hash\n\n\x1eDELETE /v1/sessions/s\n\n",
    "POST /v1/sessions\n" + J + SPECS[2].replace("null", '{"w.bias":{"shape":[2],"init":{"normal":{"mean":0,"std":0.01}}}}', 1),
    "POST /v1/sessions/s/gradients\nIdempotency-Key: \"k\"\nIf-Match: \"0-0\"\nPrefer: return=representation\n" + J +
    '{"gradients":{"w":[[1,2],[3,4]],"b":5},"loss":0.5,"cursor":"c","lr":0.1,"examples":2}\x1e'
    "POST /v1/sessions/s/gradients\nIdempotency-Key: k\n" + J + '{"gradients":{"w":[[1,2],[3,4]],"b":5}}',
    "POST /v1/sessions/s/gradients?worker=w&seq=1&base_step=0\nContent-Type: application/octet-stream\n\n" + 20 * "0" +
    "\x1eGET /v1/sessions/s/steps?from=1&tensors=true\nAccept: application/x-ndjson\n\n\x1eGET /v1/sessions/s/workers\n\n",
    "GET /v1/sessions/s/parameters?tensors=b&dtype=bf16\nAccept: application/octet-stream\nRange: bytes=0-0\n\n\x1e"
    "GET /v1/sessions/s/parameters?average=ema\nAccept: application/vnd.safetensors\nIf-None-Match: \"0-0\"\n\n\x1e"
    "HEAD /v1/sessions/s/parameters?after=0&wait=1\n\n\x1eGET /v1/sessions/s/state\n\n",
    "PATCH /v1/sessions/s\n" + J + SPECS[7] + "\x1ePUT /v1/sessions/s/parameters\n" + J +
    '{"parameters":{"w":[[1,2],[3,4]],"b":{"data_b64":"AACAPw==","shape":[]}}}\x1ePOST /v1/sessions/s/rewind\n' + J +
    '{"step":0}\x1ePOST /v1/sessions/s/forks\n' + J +
    '{"step":1,"lineage":0,"id":"f","optimizer":{"name":"adamw","lr":1},"state":"reset","replay":true}\x1eGET /v1/sessions/f\n\n',
    "POST /v1/sessions/r/gradients\n" + J + '{"gradients":{"w":[1,2]},"worker":"a"}\x1ePOST /v1/sessions/r/gradients\n'
    "Prefer: wait=1\n" + J + '{"gradients":{"w":[3,4]},"worker":"b"}\x1eGET /v1/sessions/r/steps\n\n\x1e'
    "DELETE /v1/sessions/r/workers/a\n\n\x1eGET /v1/sessions/r/quarantine/1\n\n",
    "POST /v1/sessions/r/snapshots\n" + J + '{"examples":2}\x1ePOST /v1/sessions/r/snapshots/1/gradients\n' + J +
    '{"gradients":{"w":[1,2]},"examples":1,"worker":"a","part":"p","reduction":"sum"}\x1e'
    "POST /v1/sessions/r/snapshots/1/close\n\n\x1eGET /v1/sessions/r/snapshots/1/gradient\n\n\x1e"
    "GET /v1/sessions/r/snapshots/1/parameters\n\n\x1ePOST /v1/sessions/r/gradients\n" + J +
    '{"gradients":{"w":[1,2]},"snapshot_gradients":{"w":[1,2]},"snapshot":1,"worker":"a"}',
    "POST /v1/sessions/r/gradients?snapshot=1&dry_run=true&kind=delta\nContent-Type: application/octet-stream\n\n" + 16 * "1",
    "POST /v1/sessions\nTransfer-Encoding: chunked\n" + J + "{}\x1ePOST /v1/sessions\nContent-Length: 3\n\n{}\x1e"
    "OPTIONS /v1/sessions\n\n\x1eBREW /livez\n\n\x1eGET /metrics\n\n\x1eGET /openapi.json\nRange: bytes=1-5\n\n",
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
for target, texts in (("headers", HEADERS), ("paths", PATHS), ("config", CONFIGS), ("spec", SPECS), ("text", TEXTS),
                      ("requests", REQUESTS), ("tokens", TOKENS), ("log", LOGS)):
    write(target, [text.encode() for text in texts])
TWICE = b"POST /v1/sessions/s/gradients\nContent-Type: application/json\nContent-Encoding: %b\nContent-Digest: sha-256=:AA==:\n\n%b"
GRADIENT = b'{"gradients":{"w":[[1,2],[3,4]],"b":5}}'
NEW = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"descent":"{\\"optimizer\\":\\"adam\\"}"}}'
for name, seed in (
        ("gzip", TWICE.replace(b"Content-Digest: sha-256=:AA==:\n", b"") % (b"gzip", gzip.compress(GRADIENT, mtime=0))),
        ("zstd", TWICE.replace(b"Content-Digest: sha-256=:AA==:\n", b"") % (b"zstd", zstd(GRADIENT))),
        ("digest", TWICE % (b"identity", GRADIENT)),
        ("npy", b"POST /v1/sessions/s/gradients?loss=1\nContent-Type: application/x-npy\n\n" +
         npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }")[:128 + 20]),
        ("new", b"POST /v1/sessions\nContent-Type: application/vnd.safetensors\n\n" + safetensors(NEW)),
        ("coded", b"GET /v1/sessions/s/parameters\nAccept-Encoding: gzip;q=0.5, zstd\nWant-Content-Digest: sha-256=3\n\n\x1e"
         b"GET /openapi.json\nAccept-Encoding: gzip\n\n\x1eGET /v1/sessions/s/parameters\nAccept: application/x-npy\n\n"),
        ("pages", b"OPTIONS /v1/sessions\nOrigin: https://page.example\nAccess-Control-Request-Method: PUT\n\n\x1e"
         b"DELETE /v1/sessions/s\nOrigin: https://evil.example\n\n\x1eGET /v1/sessions\nHost: evil.example\n\n"),
        ("events", b"GET /v1/sessions/s/steps\nAccept: text/event-stream\nLast-Event-ID: 0-0\n\n")):
    (CORPUS / "requests" / name).write_bytes(seed)
for name in ("all.f32.safetensors", "some.bf16.safetensors"):
    shutil.copy(GOLDEN / name, CORPUS / "safetensors" / name)
for name in ("all.f32.npy", "version2.npy", "w.f64.npy"):
    shutil.copy(GOLDEN / name, CORPUS / "npy" / name)
