"""What to send to an operation, from its description alone: requests that must be taken, and requests that must not."""
import base64
import gzip
import hashlib
import json
import random
import re
import urllib.parse

import values

JSON = "application/json"
PROBLEM = "application/problem+json"


class Request:
    def __init__(self, operation, label, where="", query=(), headers=(), body=None, kind=None):
        self.operation, self.label, self.where = operation, label, where
        self.query = query if isinstance(query, str) else list(query)
        self.headers, self.body = list(headers), body
        if kind is not None:
            self.headers.append(("Content-Type", kind))

    def key(self):
        """What it tries, whichever example it is made of."""
        kind = next((value for name, value in self.headers if name == "Content-Type"), None)
        return kind, self.where, self.label.split(", ", 1)[-1]

    def target(self, path):
        if isinstance(self.query, str):
            return path + self.query
        text = "&".join(urllib.parse.quote(n, safe="") + "=" + urllib.parse.quote(v, safe="") for n, v in self.query)
        return path + ("?" + text if text else "")


def text_of(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


class Generator:
    def __init__(self, document, seed):
        self.document, self.rng = document, random.Random(seed)

    @staticmethod
    def once(requests):
        done = set()
        for request in requests:
            if request.key() not in done:
                done.add(request.key())
                yield request

    # --- what is sent as it should be ---

    def bases(self, operation):
        """The documented requests that are answered with 2xx, each once, the largest first: (media type, name, JSON
        value or None, bytes, query)."""
        if not operation.content:
            return [(None, "", None, None, [])]
        found = {}
        for run in operation.node.get("x-runs", []):
            if run["status"] >= 300 or "example" not in run or run.get("path") or "If-Match" in run.get("headers", {}):
                continue
            example = operation.content[run["type"]]["examples"][run["example"]]
            query = [pair for pair in run.get("query", {}).items() if pair[0] != "dry_run"]
            body = base64.b64decode(example["x-base64"]) if "x-base64" in example else json.dumps(example["value"]).encode()
            found.setdefault((run["type"], run["example"], str(query)),
                             (run["type"], run["example"], example.get("value"), body, query))
        return sorted(found.values(), key=lambda base: -len(base[3]))

    def accepted(self, operation):
        """The types that an answer of success may have, by Accept; not those that never end."""
        return sorted({kind for status, response in operation.responses.items() if status[0] == "2"
                       for kind, content in response.get("content", {}).items()
                       if not any("x-endless" in example for example in content["examples"].values())})

    def positive(self, operation):
        for base in self.bases(operation):
            kind, name, value, body, query = base
            label = "%s %s" % (kind or "", name)
            send = lambda what, **more: Request(operation, label + ", " + what, **{
                "query": query, "body": body, "kind": kind, **more})
            yield send("as it is")
            yield send("to any type", headers=[("Accept", "*/*")])
            yield send("with a request id", headers=[("X-Request-Id", "made-by.a_test~1")])
            yield send("with a bad request id", headers=[("X-Request-Id", "made by a test")])
            yield send("with a header nobody knows", headers=[("X-Nobody-Knows", "1")])
            if kind is not None:
                yield send("its type with a parameter", kind=kind + "; charset=utf-8")
                yield send("its type in capitals", kind=kind.upper())
            if kind == JSON:
                yield send("its type not said", kind=None)
                yield send("with spaces", body=json.dumps(value, indent=3).encode() + b"\r\n\t ")
                yield send("in \\u escapes", body=re.sub(rb'"([a-z])', lambda m: b'"\\u%04x' % m[1][0], body))
            if value is not None:
                yield from self.positive_values(operation, kind, label, value, query)
            for accept in self.accepted(operation):
                yield send("to " + accept, headers=[("Accept", accept), ("Prefer", "return=representation")])
                yield send("rather to " + accept, headers=[("Accept", "image/png, %s;q=0.5, */*;q=0.1" % accept)])
            yield send("with a digest", headers=[("Want-Content-Digest", "sha-512=3, sha-256=1"), ("Accept-Encoding", "gzip")])
            if body is not None:
                digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
                yield send("with its digest", headers=[("Content-Digest", "sha-256=:%s:" % digest)])
                yield send("in gzip", body=gzip.compress(body, mtime=0), headers=[("Content-Encoding", "gzip")])
            for parameter in operation.query():
                if kind is None or kind in parameter.get("x-content-types", [kind]):
                    yield from self.positive_query(operation, base, parameter)

    def positive_query(self, operation, base, parameter):
        kind, name, _, body, query = base
        query = [pair for pair in query if pair[0] != parameter["name"]]
        accept = parameter.get("x-accepts", [None])[0]
        headers = [("Accept", accept)] if accept else []
        for what, value in values.good(self.document, parameter["schema"], self.rng):
            if value is not None:
                yield Request(operation, "?%s: %s" % (parameter["name"], what), parameter["name"],
                              query + [(parameter["name"], text_of(value))], headers, body, kind)

    def positive_values(self, operation, kind, label, value, query):
        schema = operation.content[kind]["schema"]
        send = lambda what, path, new: Request(operation, "%s, %s: %s" % (label, values.pointer(path), what),
                                               values.pointer(path), query, (), json.dumps(new).encode(), kind)
        for path, part in values.objects(self.document, schema, value):
            at = value
            for step in path:
                at = at[step]
            for name, form in part["properties"].items():
                inner = path + (name,)
                if name in at and name not in part.get("required", []):
                    yield send("left out", inner, values.without(value, inner))
                for what, new in values.good(self.document, form, self.rng):
                    yield send(what, inner, values.put(value, inner, new) if name in at else
                               values.put(value, path, {**at, name: new}))

    # --- what is not ---

    def negative(self, operation):
        for base in self.bases(operation):
            kind, name, value, body, query = base
            label = "%s %s" % (kind or "", name)
            send = lambda what, **more: Request(operation, label + ", " + what, **{
                "query": query, "body": body, "kind": kind, **more})
            yield from self.negative_headers(operation, send, kind)
            yield from self.negative_query(operation, base)
            if kind is not None:
                for other in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "json", "*/*", "a/b/c",
                              "application/x-www-form-urlencoded", "application/jsonp", "text/json"):
                    yield send("sent as " + other, kind=other)
                yield send("without a body", body=None)
                yield send("with an empty body", body=b"")
            else:
                yield send("with a body", body=b"{}")
            if value is not None:
                yield from self.negative_values(operation, kind, label, value, body, query)
            elif body is not None:
                for what, data in (("a byte less", body[:-1]), ("half", body[:len(body) // 2]), ("a byte more", body + b"\0"),
                                   ("twice", body * 2), ("zeros", bytes(len(body) + 1)), ("JSON", b'{"w": [1, 2]}')):
                    yield send(what, body=data)

    def negative_headers(self, operation, send, kind):
        for accept in ("image/png", "application/json;q=0, application/*;q=0, */*;q=0", "video/*"):
            if operation.node["responses"]["406"]["$ref"].endswith("/NotAcceptable"):  # else it is about codings
                yield send("Accept: " + accept, headers=[("Accept", accept), ("Prefer", "return=representation")])
        if kind is not None:
            yield send("Content-Encoding: br", headers=[("Content-Encoding", "br")])
            for coding in ("gzip", "zstd"):
                yield send("said to be %s, and not" % coding, headers=[("Content-Encoding", coding)])
            yield send("with the digest of another", headers=[("Content-Digest", "sha-256=:%s=:" % ("A" * 43))])
            yield send("with what is no digest", headers=[("Content-Digest", "sha-256=x")])
        yield send("Accept-Encoding: nothing", headers=[("Accept-Encoding", "identity;q=0, *;q=0")])
        yield send("Expect: a miracle", headers=[("Expect", "a-miracle")])
        yield send("with 80 header fields", headers=[("X-%d" % i, "x") for i in range(80)])
        if "412" in operation.responses:
            for tag in ('"9-9"', '"x"', "0-11", '"0-11-ema"', 'W/"0-11"', '""', ","):
                yield send("If-Match: " + tag, headers=[("If-Match", tag)])
        for header in operation.headers():
            if header["name"] == "Idempotency-Key":
                for what, key in (("empty", ""), ("only quotes", '""'), ("too long", "k" * (header["schema"]["maxLength"] + 1))):
                    yield send("Idempotency-Key " + what, headers=[("Idempotency-Key", key)])

    def negative_query(self, operation, base):
        kind, _, _, body, query = base
        send = lambda what, text, where="": Request(operation, "?%s: %s" % (where, what), where, text, (), body, kind)
        whole = lambda *pairs: Request(operation, "", query=query + list(pairs)).target("")
        yield send("unknown", whole(("no_such_parameter", "1")), "no_such_parameter")
        yield send("unknown, without a value", whole() + ("&" if query else "?") + "nobody")
        yield send("no name", whole() + ("&" if query else "?") + "=1")
        yield send("& at the end", whole(("no_such_parameter", "1")) + "&")
        yield send("a bad escape", whole() + ("&" if query else "?") + "a=%zz")
        yield send("NUL", whole() + ("&" if query else "?") + "a=%00")
        yield send("no UTF-8", whole() + ("&" if query else "?") + "a=%ff")
        yield send("40 of them", whole(*[("p%d" % i, "1") for i in range(40)]))
        for parameter in operation.query():
            name = parameter["name"]
            rest = [pair for pair in query if pair[0] != name]
            if kind is not None and kind not in parameter.get("x-content-types", [kind]):
                yield send("with " + kind, Request(operation, "", query=rest + [(name, self.some(parameter))]).target(""), name)
                continue
            accept = parameter.get("x-accepts", [None])[0]
            for what, text in self.bad_texts(parameter):
                request = send(what, Request(operation, "", query=rest + [(name, text)]).target(""), name)
                request.headers += [("Accept", accept)] if accept else []
                yield request
            some = self.some(parameter)
            yield send("twice", Request(operation, "", query=rest + [(name, some), (name, some)]).target(""), name)
            yield send("in capitals", Request(operation, "", query=rest + [(name.upper(), some)]).target(""), name.upper())

    def some(self, parameter):
        found = [v for _, v in values.good(self.document, parameter["schema"], self.rng) if v is not None]
        return text_of(found[0]) if found else "w"

    def bad_texts(self, parameter):
        """Texts that do not stand for a value of the parameter's schema."""
        schema = self.document.resolve(parameter["schema"])
        types = values.types_of(schema)
        numeric = types & {"integer", "number"}
        if numeric or "boolean" in types:
            yield from ((repr(t), t) for t in ("", "x", "null", "NaN", "Infinity", "1,5", " ", "0x1p3", "1 2", "true1", "[1]"))
        if numeric:
            yield from (("number %r" % v, text_of(v)) for v in values.beyond(schema))
            yield "1e999", "1e999"
        if "boolean" in types:
            yield from ((t, t) for t in ("TRUE", "1", "yes"))
        if "enum" in schema:
            yield from ((repr(t), t) for t in ("", "no-such-choice", schema["enum"][0].upper(), schema["enum"][0] + " "))
        if "string" in types and "maxLength" in schema:
            yield "too long", "x" * (schema["maxLength"] + 1)
        if "string" in types and schema.get("minLength", 0) > 0:
            yield "empty", ""
        if "pattern" in schema:
            yield from ((repr(t), t) for t in ("!", "A b") if not re.search(schema["pattern"], t))
        if "array" in types:
            yield from (("%r" % t, t) for t in ("", "no-such-tensor", "w,,b", ",w", "w,w"))

    def negative_values(self, operation, kind, label, value, body, query):
        schema = operation.content[kind]["schema"]
        send = lambda what, path, data: Request(operation, "%s, %s: %s" % (label, values.pointer(path), what),
                                                values.pointer(path), query, (), data, kind)
        for what, text in values.broken_texts(body):
            if text != body:
                yield send(what, (), text)
        for path, part in values.places(self.document, schema, value):
            for what, new in values.bad(self.document, part):
                whole = values.put(value, path, new)
                if self.document.complaints(schema, whole, closed=False):
                    yield send(what, path, json.dumps(whole).encode())
        for path, part in values.objects(self.document, schema, value):
            at = value
            for step in path:
                at = at[step]
            for name in part.get("required", []):
                yield send("left out", path + (name,), json.dumps(values.without(value, path + (name,))).encode())
            if part.get("additionalProperties") is False:
                for name in ("no_such_field", "", "x" * 3000, "~/\u00e4\"\\"):
                    yield send("unknown", path + (name,), json.dumps(values.put(value, path, {**at, name: 1})).encode())
                for name in at:
                    yield send("in capitals", path + (name.upper(),),
                               json.dumps(values.put(value, path, {**at, name.upper(): at[name]})).encode())
            for name in at:
                mark = "a-name-for-%s" % name
                twice = json.dumps(values.put(value, path, {**at, mark: at[name]})).replace(json.dumps(mark), json.dumps(name))
                yield send("twice", path + (name,), twice.encode())
            for name, form in part["properties"].items():
                if name in at:
                    continue
                for what, new in values.bad(self.document, form):
                    whole = values.put(value, path, {**at, name: new})
                    yield send(what, path + (name,), json.dumps(whole).encode())
