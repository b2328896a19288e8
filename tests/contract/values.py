"""Values from schemas: those that obey one, with every border and choice, and those that do not."""
import random

ANY_TYPES = [("null", None), ("boolean", True), ("number", 1.5), ("string", "text"), ("array", []), ("object", {})]

LARGE = 5000  # what has more items than that is for tests of that limit alone


def types_of(schema):
    types = schema.get("type", [])
    return {types} if isinstance(types, str) else set(types)


def simple(document, schema, rng):
    """Some value that obeys the schema."""
    schema = document.resolve(schema)
    if "default" in schema:
        return schema["default"]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return simple(document, schema[key][-1], rng)
    types = types_of(schema)
    if "object" in types:
        return {name: simple(document, schema["properties"][name], rng) for name in schema.get("required", [])
                if name in schema.get("properties", {})}
    if "array" in types:
        return [simple(document, schema.get("items", {}), rng) for _ in range(schema.get("minItems", 0))]
    if "integer" in types or "number" in types:
        return numbers(schema)[0]
    if "string" in types:
        return "x" * max(1, schema.get("minLength", 0))
    return True if "boolean" in types else None


def numbers(schema):
    """Numbers on the borders of what a numeric schema takes, and one between them."""
    whole = "integer" in types_of(schema)
    tiny = 1 if whole else 1e-6
    low = schema.get("minimum", schema["exclusiveMinimum"] + tiny if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - tiny if "exclusiveMaximum" in schema else None)
    out = [v for v in (low, high) if v is not None]
    if low is not None and high is not None:
        middle = low + min(high - low, 2) / 2
        out.append(int(middle) if whole else middle)
        if low < 0 < high:
            out.append(0)
    elif not out:
        out = [1, -1] if whole else [0.5, -1.5, 1e-300, 1e300]
    return out


def beyond(schema):
    """Numbers just outside."""
    step = 1 if "integer" in types_of(schema) else 1e-3
    out = []
    if "minimum" in schema:
        out.append(schema["minimum"] - step * max(1, abs(schema["minimum"])))
    if "exclusiveMinimum" in schema:
        out += [schema["exclusiveMinimum"], schema["exclusiveMinimum"] - 1]
    if "maximum" in schema:
        out.append(schema["maximum"] + step * max(1, abs(schema["maximum"])))
    if "exclusiveMaximum" in schema:
        out += [schema["exclusiveMaximum"], schema["exclusiveMaximum"] + 1]
    if "integer" in types_of(schema):
        out += [0.5, 1e300]
    return out


def good(document, schema, rng):
    """Pairs (what it is, value) that obey the schema: null, every choice, every border."""
    schema = document.resolve(schema)
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return [pair for part in schema[key] for pair in good(document, part, rng)]
    if "allOf" in schema:
        return good(document, schema["allOf"][0], rng)
    if "enum" in schema:
        return [("choice %r" % value, value) for value in schema["enum"]]
    types = types_of(schema)
    out = []
    if "null" in types:
        out.append(("null", None))
    if "boolean" in types:
        out += [("true", True), ("false", False)]
    if "integer" in types or "number" in types:
        out += [("number %r" % value, value) for value in numbers(schema)]
    if "string" in types and "pattern" not in schema and "contentEncoding" not in schema:
        out += [("string of %d" % size, "x" * size)
                for size in sorted({max(1, schema.get("minLength", 1)), schema.get("maxLength", 5)})]
        if schema.get("minLength", 0) == 0 and "maxLength" in schema:
            out.append(("empty string", ""))
        if schema.get("maxLength", 10) >= 10 and "maxLength" in schema:
            out.append(("string of others", "ä \u6f22 \U0001f600"))
    return out


def bad(document, schema):
    """Pairs (what it is, value) that do not obey the schema."""
    schema = document.resolve(schema)
    return [(label, value) for label, value in candidates(document, schema)
            if document.complaints(schema, value, closed=False)]


def candidates(document, schema):
    schema = document.resolve(schema)
    out = [("type " + name, value) for name, value in ANY_TYPES]
    out += [("array of null", [None]), ("object of null", {"x": None}), ("true as text", "true"), ("1 as text", "1")]
    parts = [document.resolve(p) for key in ("oneOf", "anyOf", "allOf") for p in schema.get(key, [])] + [schema]
    for part in parts:
        types = types_of(part)
        if "enum" in part:
            out += [("no choice", "no-such-choice"), ("a choice in capitals", str(part["enum"][0]).upper())]
        if "integer" in types or "number" in types:
            out += [("number %r" % value, value) for value in beyond(part)]
        if "string" in types and "maxLength" in part:
            out += [("too long", "x" * (part["maxLength"] + 1)), ("far too long", "x" * (part["maxLength"] + 100000))]
        if "string" in types and part.get("minLength", 0) > 0:
            out.append(("empty", ""))
        if part.get("maxItems", LARGE) < LARGE:
            out.append(("too many", [1] * (part["maxItems"] + 1)))
        if part.get("maxProperties", LARGE) < LARGE:
            out.append(("too many", {"x%d" % i: "x" for i in range(part["maxProperties"] + 1)}))
    return out


def places(document, schema, value, where=()):
    """Every place in a value that a schema describes: (path, schema), the whole first."""
    schema = document.resolve(schema)
    yield where, schema
    for key in ("oneOf", "anyOf"):
        fitting = [p for p in schema.get(key, []) if not document.complaints(p, value, closed=False)]
        if fitting:
            yield from (p for p in places(document, fitting[0], value, where) if p[0] != where)
    for part in schema.get("allOf", []):
        yield from (p for p in places(document, part, value, where) if p[0] != where)
    if isinstance(value, dict):
        for name, member in value.items():
            part = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(part, dict):
                yield from places(document, part, member, where + (name,))
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, member in enumerate(value):
            yield from places(document, schema["items"], member, where + (index,))


def objects(document, schema, value, where=()):
    """Every object in a value with its schema, if that names its members: where fields can be left out or added."""
    for path, part in places(document, schema, value, where):
        at = value
        for step in path[len(where):]:
            at = at[step]
        if not isinstance(at, dict):
            continue
        for form in [part] + [document.resolve(p) for key in ("oneOf", "anyOf", "allOf") for p in part.get(key, [])]:
            if "properties" in form and not document.complaints(form, at, closed=False):
                yield path, form


def put(value, path, new):
    """A copy of a value with another one at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new) if len(path) > 1 else new
    return copy


def without(value, path):
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = without(value[path[0]], path[1:])
    return copy


def pointer(path):
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def broken_texts(text):
    """Texts that are no JSON, made of one that is."""
    yield "empty", b""
    yield "blank", b"  \n"
    for cut in (1, len(text) // 3, len(text) // 2, len(text) - 1):
        yield "cut at %d" % cut, text[:cut]
    yield "more behind it", text + b"{}"
    yield "a comma behind it", text[:-1] + b",}"
    yield "single quotes", text.replace(b'"', b"'")
    yield "NaN", text.replace(b"{", b'{"x": NaN, ', 1)
    yield "Infinity", text.replace(b"{", b'{"x": -Infinity, ', 1)
    yield "a comment", b"/* */" + text
    yield "a number with a leading 0", text.replace(b"{", b'{"x": 01, ', 1)
    yield "a byte order mark", b"\xef\xbb\xbf" + text
    yield "bytes that are no UTF-8", text.replace(b"{", b'{"\xff": 1, ', 1)
    yield "half a surrogate", text.replace(b"{", b'{"\\ud800": 1, ', 1)
    yield "a NUL in a name", text.replace(b"{", b'{"a\\u0000": 1, ', 1)
    yield "a control character", text.replace(b"{", b'{"a\n": 1, ', 1)
    yield "UTF-16", text.decode().encode("utf-16")
    yield "nested without end", b"[" * 100000
    yield "nested objects without end", b'{"a":' * 50000


def shuffled(seed, items):
    items = list(items)
    random.Random(seed).shuffle(items)
    return items
