"""JSON, headers and media types: what the wire has besides tensors."""

import json

from . import tensors

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
RAW = "application/octet-stream"
MEDIA = {"json": JSON, "safetensors": SAFETENSORS, "raw": RAW}


def media_type(answer):
    return answer.headers.get("Content-Type", "").split(";")[0].strip().lower()


def header_members(headers):
    """The receipt in headers: `Descent-Grad-Norm: 0.8` is member grad_norm, 0.8."""
    members = {}
    for name, text in headers.items():
        if name.lower().startswith("descent-"):
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            members[name[len("descent-") :].lower().replace("-", "_")] = value
    return members


def document_of(answer):
    return json.loads(answer.body.decode("utf-8"))


def json_bytes(document):
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8")


def json_parameter(value):
    return value if isinstance(value, dict) else tensors.to_lists(value)


def arrays_of(mapping):
    """The server's nested lists -> arrays, or lists without numpy."""
    return {name: tensors.decode(tensors.encode(value)) for name, value in mapping.items()}


def plain(value):
    """numpy's scalars -> Python's, whose text is the number and nothing else."""
    return value.item() if hasattr(value, "item") else value
