"""api/openapi.json for tests: its operations, and whether an answer is one that it describes."""
import base64
import gzip
import hashlib
import json
import math
import os
import re

import jsonschema

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
METHODS = ("get", "put", "post", "delete", "patch")
# Of the connection and the message, not of an operation.
TRANSPORT = {"connection", "content-length", "content-type", "date", "keep-alive", "transfer-encoding"}

# Fields that are lists, so that several lines are one.
LISTS = {"preference-applied", "vary", "link", "access-control-expose-headers"}


def no_duplicates(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError("twice: " + ", ".join(sorted(name for name in set(names) if names.count(name) > 1)))
    return members


def parse_json(text):
    """Strictly: no member twice, no NaN or Infinity."""
    def refuse(word):
        raise ValueError(word + " is no JSON")

    return json.loads(text, object_pairs_hook=no_duplicates, parse_constant=refuse)


def media_type(value):
    return value.split(";")[0].strip().lower()


class Operation:
    def __init__(self, document, path, method, node):
        self.document, self.path, self.method, self.node = document, path, method.upper(), node
        self.id = node["operationId"]
        shared = document.root["paths"][path].get("parameters", [])
        self.parameters = [document.resolve(p) for p in shared + node.get("parameters", [])]
        self.responses = {status: document.resolve(r) for status, r in node["responses"].items()}
        self.content = document.resolve(node.get("requestBody", {})).get("content", {})

    def query(self):
        return [p for p in self.parameters if p["in"] == "query"]

    def headers(self):
        return [p for p in self.parameters if p["in"] == "header"]

    def response(self, status):
        return self.responses.get(str(status))


class Document:
    def __init__(self, path=None):
        with open(path or os.path.join(ROOT, "api", "openapi.json"), encoding="utf-8") as file:
            self.text = file.read()
        self.root = parse_json(self.text)
        self.operations = [Operation(self, path, method, item[method])
                           for path, item in self.root["paths"].items() for method in METHODS if method in item]
        self.validators = {}

    def resolve(self, node):
        while "$ref" in node:
            at = self.root
            for part in node["$ref"][2:].split("/"):
                at = at[part.replace("~1", "/").replace("~0", "~")]
            node = at
        return node

    def find(self, operation_id):
        return next(o for o in self.operations if o.id == operation_id)

    def match(self, method, path):
        """The operation of a request's path (raw, without its query); None for none, and the methods of the path."""
        segments = path.split("/")
        methods = set()
        for operation in self.operations:
            pattern = operation.path.split("/")
            if len(pattern) == len(segments) and all(
                    a == b or (a.startswith("{") and b) for a, b in zip(pattern, segments)):
                methods.add(operation.method)
                if operation.method == ("GET" if method == "HEAD" else method):
                    return operation, methods
        return None, methods

    # --- schemas ---

    def flat(self, node, closed, seen=()):
        """A schema with what it refers to in it and each allOf merged; `closed`: objects have no members that
        nobody names, as answers must be. What refers to itself stays a reference into $defs."""
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            if name in seen or self.recursive(name):
                return {"$ref": "#/$defs/" + name}
            return self.flat(self.resolve(node), closed, seen + (name,))
        out = {}
        for part in node.get("allOf", []):
            self.merge(out, self.flat(part, closed, seen))
        own = {}
        for key, value in node.items():
            if key == "allOf" or key.startswith("x-") or key in ("example", "examples", "description"):
                continue
            if key in ("properties", "patternProperties"):
                value = {name: self.flat(part, closed, seen) for name, part in value.items()}
            elif key in ("oneOf", "anyOf", "prefixItems"):
                value = [self.flat(part, closed, seen) for part in value]
            elif key in ("items", "additionalProperties", "propertyNames", "not", "contains"):
                value = self.flat(value, closed, seen)
            own[key] = value
        self.merge(out, own)
        if closed and "properties" in out and "additionalProperties" not in out:
            out["additionalProperties"] = False
        return out

    @staticmethod
    def merge(out, more):
        closed = out.get("additionalProperties") is False and "properties" in more
        for key, value in more.items():
            if key == "properties" and key in out:
                value = {**out[key], **{name: {"allOf": [out[key][name], part]} if name in out[key] else part
                                        for name, part in value.items()}}
            elif key == "required":
                value = sorted(set(out.get(key, [])) | set(value))
            out[key] = value
        if closed and more.get("additionalProperties") is None:
            out["additionalProperties"] = False

    def recursive(self, name):
        if not hasattr(self, "loops"):
            schemas = self.root["components"]["schemas"]
            uses = {n: set(re.findall(r'#/components/schemas/(\w+)', json.dumps(s))) for n, s in schemas.items()}
            self.loops = {n for n in schemas if n in uses[n]}
        return name in self.loops

    def schema(self, node, closed):
        out = self.flat(node, closed)
        schemas = self.root["components"]["schemas"]
        self.recursive("")
        out["$defs"] = {name: self.flat(schemas[name], closed, (name,)) for name in self.loops}
        return out

    def complaints(self, node, value, closed=True):
        """What of the value does not obey the schema, as at most three sentences."""
        key = (id(node), closed)
        if key not in self.validators:
            schema = self.schema(node, closed)
            jsonschema.Draft202012Validator.check_schema(schema)
            self.validators[key] = jsonschema.Draft202012Validator(schema)
        validator = self.validators[key]
        if validator.is_valid(value):
            return []
        return ["/%s: %s" % ("/".join(map(str, error.absolute_path)), error.message[:300])
                for error in sorted(validator.iter_errors(value), key=str)[:3]]

    # --- answers ---

    def check_answer(self, operation, status, headers, body, to_head=False):
        """What of an answer the operation does not describe; headers: a list of (name, value)."""
        where = "%s answers %d" % (operation.id, status)
        response = operation.response(status)
        if response is None:
            return [where + ", which is not documented: %.300r" % body]
        faults = []
        given = {}
        for name, value in headers:
            if name.lower() in given and name.lower() not in LISTS:
                faults.append("%s with %s twice" % (where, name))
            given[name.lower()] = given[name.lower()] + ", " + value if name.lower() in given else value
        described = {name.lower(): self.resolve(h) for name, h in response.get("headers", {}).items()}
        for name, header in described.items():
            if name not in given and header.get("required"):
                faults.append("%s without %s" % (where, name))
            if name in given:
                faults += ["%s, header %s: %s" % (where, name, c) for c in self.header_complaints(header, given[name])]
        anywhere = {name.lower() for name in self.root.get("x-headers", {})}
        faults += ["%s with the header %s, which is not documented" % (where, name)
                   for name in given if name not in described and name not in TRANSPORT | anywhere]
        content = response.get("content", {})
        if "content-type" not in given:
            if content:
                faults.append(where + " without Content-Type")
            if body:
                faults.append(where + " with a body and no Content-Type")
            return faults
        if body and "content-digest" in given:
            faults += ["%s: %s" % (where, c) for c in digest_complaints(given["content-digest"], body)]
        if body and given.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        kind = given["content-type"]
        if kind not in content:
            return faults + ["%s as %s, which is not documented" % (where, kind)]
        readable = given.get("content-encoding") in (None, "gzip")  # Python has no zstd
        if not to_head and readable and (kind == "application/json" or kind.endswith("+json")):
            try:
                value = parse_json(body)
            except ValueError as error:
                return faults + ["%s with what is no JSON: %s" % (where, error)]
            faults += ["%s: %s" % (where, c) for c in self.complaints(content[kind]["schema"], value)]
            if kind == "application/problem+json":
                faults += ["%s: %s" % (where, c) for c in problem_complaints(value, status, given)]
        return faults

    def header_complaints(self, header, text):
        schema = header["schema"]
        types = self.resolve(schema).get("type")
        value = text
        if types in ("integer", "number"):
            try:
                value = int(text) if types == "integer" else float(text)
            except ValueError:
                return ["%r is no %s" % (text, types)]
            if not math.isfinite(value):
                return ["%r is not finite" % text]
        elif types == "boolean":
            value = {"true": True, "false": False}.get(text, text)
        return self.complaints(schema, value)


def digest_complaints(field, body):
    """Content-Digest is of the bytes on the wire (RFC 9530)."""
    for name, value in re.findall(r"sha-(256|512)=:([^:]*):", field):
        if base64.b64decode(value) != hashlib.new("sha" + name, body).digest():
            yield "sha-%s is another body's" % name


def problem_complaints(problem, status, headers):
    if problem.get("status") != status:
        yield "its status is %r" % problem.get("status")
    if problem.get("type") != "/problems/%s" % problem.get("code"):
        yield "its type is %r and its code %r" % (problem.get("type"), problem.get("code"))
    if problem.get("request_id", headers.get("request-id")) != headers.get("request-id"):
        yield "request_id is %r and Request-Id %r" % (problem.get("request_id"), headers.get("request-id"))
    if not problem.get("title") or not problem.get("detail"):
        yield "title and detail must say something"
