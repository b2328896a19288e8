#!/usr/bin/env python3
"""Lint of api/openapi.json that needs nothing but python3-jsonschema: its structure by OpenAPI 3.1, its schemas by
JSON Schema 2020-12, examples against schemas, limits on all that a request may hold, words for all that has a name.
(`make check-contract` runs Redocly's linter too.) Exit status: 0 clean, 1 findings."""
import base64
import glob
import os
import re
import sys

import jsonschema

from document import METHODS, ROOT, Document

# What each object of OpenAPI 3.1 may have; * marks what it must.
OBJECTS = {
    "document": "*openapi *info servers tags *paths components security externalDocs jsonSchemaDialect webhooks",
    "info": "*title *version summary description termsOfService contact license",
    "path": "summary description servers parameters get put post delete options head patch trace",
    "operation": "*operationId *tags *summary description *responses *security parameters requestBody deprecated externalDocs",
    "parameter": "*name *in *description *schema required deprecated allowEmptyValue style explode example examples",
    "body": "description *content required",
    "media": "*schema example examples encoding",
    "response": "*description *headers content links",
    "header": "*description *schema required deprecated example examples style explode",
    "example": "*summary description value externalValue",
    "components": "schemas responses parameters examples requestBodies headers securitySchemes links callbacks pathItems",
    "scheme": "*type description scheme bearerFormat name in flows openIdConnectUrl",
}
# Header fields that are HTTP's, or are described by other parts of the document, or by a security scheme.
OF_HTTP = {"accept", "access-control-request-method", "authorization", "content-length", "content-type", "expect", "host",
           "origin", "transfer-encoding"}
READS = (r'(?:request_header|request_list|field_count)\([^"();]*"([A-Za-z-]+)"',
         r'strcasecmp\(request->headers\[i\]\.name, "([A-Za-z-]+)"\)')
SENDS = (r'reply_header\([^",;]*, "([A-Za-z-]+)"',)
FIELDS = r'\{"([a-z][a-z0-9_]*)", FIELD_'
OF_PREFLIGHTS = {"access-control-allow-headers", "access-control-allow-methods", "access-control-max-age"}
WORDS = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*$")


class Lint:
    def __init__(self, document):
        self.document, self.findings, self.counts = document, [], {}

    def find(self, where, words):
        self.findings.append("%s: %s" % (where, words))

    def shape(self, kind, node, where):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        rules = OBJECTS[kind].split()
        for name in node:
            if not name.startswith("x-") and name not in [r.lstrip("*") for r in rules]:
                self.find(where, "a %s has no member %s" % (kind, name))
        for name in [r[1:] for r in rules if r.startswith("*")]:
            if name not in node:
                self.find(where, "a %s needs %s" % (kind, name))

    def words(self, node, where):
        for name in ("description", "summary", "title"):
            text = node.get(name)
            if text is not None and (not isinstance(text, str) or text != text.strip() or not text):
                self.find(where, "%s is no text that can be read" % name)

    # --- schemas ---

    def schema(self, node, where, asked, top=True):
        """asked: it is of a request, so that all it may hold must have limits."""
        if "$ref" in node:
            if not node["$ref"].startswith("#/components/schemas/"):
                self.find(where, "refers to %s" % node["$ref"])
            return
        self.words(node, where)
        types = node.get("type", [])
        types = {types} if isinstance(types, str) else set(types)
        fixed = "const" in node or "enum" in node
        if "integer" in types and not fixed and not ({"minimum", "exclusiveMinimum"} & set(node) and "maximum" in node):
            self.find(where, "an integer without its limits")
        if asked and "string" in types and not fixed and not (
                {"maxLength", "pattern", "format", "contentMediaType", "contentEncoding"} & set(node)):
            self.find(where, "a string without a limit")
        if asked and "array" in types and not {"maxItems", "x-limited-by"} & set(node):
            self.find(where, "a list without a limit")
        if asked and "object" in types and "additionalProperties" not in node and "allOf" not in node:
            self.find(where, "does not say whether it takes other members")
        for name in node.get("required", []):
            if name not in self.members(node) and "additionalProperties" not in node:
                self.find(where, "requires %s, which it does not have" % name)
        for name, part in node.get("properties", {}).items():
            if not WORDS.match(name) and not name.startswith("__"):
                self.find(where, "%s is no snake_case" % name)
            if not any(self.described(p) for p in (part, *part.get("allOf", []))):
                self.find(where, "%s is not described" % name)
            self.schema(part, where + "/" + name, asked, False)
        for key in ("oneOf", "anyOf", "allOf", "prefixItems"):
            for index, part in enumerate(node.get(key, [])):
                self.schema(part, "%s/%s/%d" % (where, key, index), asked, False)
        for key in ("items", "additionalProperties", "contentSchema", "not"):
            if isinstance(node.get(key), dict):
                self.schema(node[key], where + "/" + key, asked, False)

    def described(self, node):
        return "description" in node or "const" in node or "description" in self.document.resolve(node)

    def members(self, node):
        out = set(node.get("properties", {}))
        for part in node.get("allOf", []):
            out |= self.members(self.document.resolve(part))
        return out

    def reachable(self, node, found):
        """The names of all schemas that a part of the document uses."""
        if isinstance(node, dict):
            name = re.match(r"#/components/schemas/(.*)", str(node.get("$ref", "")))
            if name and name[1] not in found:
                found.add(name[1])
                self.reachable(self.document.root["components"]["schemas"][name[1]], found)
            for part in node.values():
                self.reachable(part, found)
        elif isinstance(node, list):
            for part in node:
                self.reachable(part, found)
        return found

    # --- the rest ---

    def examples(self, node, where):
        for name, example in node.get("examples", {}).items():
            example, here = self.document.resolve(example), "%s/examples/%s" % (where, name)
            self.shape("example", example, here)
            forms = [form for form in ("value", "x-value", "x-base64") if form in example]
            if len(forms) != 1:
                self.find(here, "it must have one of value, x-value, x-base64")
            if forms == ["value"]:
                for words in self.document.complaints(node["schema"], example["value"]):
                    self.find(here, words)
            if forms == ["x-base64"]:
                try:
                    base64.b64decode(example["x-base64"], validate=True)
                except ValueError as error:
                    self.find(here, str(error))
        if "example" in node:
            for words in self.document.complaints(node["schema"], node["example"]):
                self.find(where + "/example", words)

    def content(self, node, where, asked):
        for kind, media in node.get("content", {}).items():
            here = "%s/%s" % (where, kind)
            self.shape("media", media, here)
            if not asked and "examples" not in media and not where.startswith("components"):
                self.find(here, "no example")
            self.schema(media["schema"], here, asked)
            self.examples(media, here)

    def header(self, node, where):
        node = self.document.resolve(node)
        self.shape("header", node, where)
        self.schema(node["schema"], where, False)
        self.examples(node, where)

    def response(self, node, where):
        node = self.document.resolve(node)
        self.shape("response", node, where)
        self.words(node, where)
        for name, header in node.get("headers", {}).items():
            self.header(header, "%s/headers/%s" % (where, name))
        for name in ("Request-Id", "Cache-Control"):
            if name not in node.get("headers", {}) and not (name == "Request-Id" and where.endswith("RequestTimeout")):
                self.find(where, "every answer has " + name)
        self.content(node, where, False)

    def operation(self, operation, tags):
        node, where = operation.node, operation.id
        self.shape("operation", node, where)
        self.words(node, where)
        if len(node["tags"]) != 1 or node["tags"][0] not in tags:
            self.find(where, "it has one tag of the document's")
        if not WORDS.match(operation.id):
            self.find(where, "an operationId is snake_case")
        names = [(p["in"], p["name"].lower()) for p in operation.parameters]
        if len(names) != len(set(names)):
            self.find(where, "a parameter twice")
        for parameter in operation.parameters:
            here = "%s, parameter %s" % (where, parameter["name"])
            self.shape("parameter", parameter, here)
            self.words(parameter, here)
            self.schema(parameter["schema"], here, True)
            self.examples(parameter, here)
        body = self.document.resolve(node.get("requestBody", {}))
        if body:
            self.shape("body", body, where)
            self.content(body, where + ", body", True)
        for status, response in node["responses"].items():
            if not re.match(r"[2345]\d\d$", status):
                self.find(where, "%s is no status" % status)
            if "$ref" not in response:
                self.response(response, "%s, %s" % (where, status))
            if status[0] in "45" and list(self.document.resolve(response).get("content", {})) != ["application/problem+json"]:
                self.find(where, "%s is a problem document" % status)

    def sources(self):
        """What the server's sources read and send by name is described, and what is described is read."""
        files = [name for folder in ("api", "api/endpoint") for name in glob.glob(os.path.join(ROOT, folder, "*.c"))
                 if not os.path.basename(name).startswith("tokens")]  # a file of its own, not a request
        text = "".join(open(name, encoding="utf-8").read() for name in files)
        names = lambda patterns: {name.lower() for pattern in patterns for name in re.findall(pattern, text)}
        asked = {p["name"].lower() for o in self.document.operations for p in o.headers()}
        read, sent = names(READS), names(SENDS)
        if len(read) < 10 or len(sent) < 10:
            self.find("sources", "the patterns find nothing any more")
        for name in sorted(read - asked - OF_HTTP):
            self.find("sources", "the header field %s is read and not described" % name)
        for name in sorted(asked - read):
            if '"%s"' % name not in text.lower():
                self.find("sources", "the header field %s is described and not read" % name)
        told = {name.lower() for name in self.document.root.get("x-headers", {})}
        for operation in self.document.operations:
            for response in operation.responses.values():
                told |= {name.lower() for name in response.get("headers", {})}
        for name in sorted(sent - told - OF_PREFLIGHTS - {"content-type"}):
            self.find("sources", "the header field %s is sent and not described" % name)
        known = set(re.findall(r'"([a-z][a-z0-9_]*)": \{', self.document.text)) | {
            p["name"] for o in self.document.operations for p in o.parameters}
        for name in sorted(set(re.findall(FIELDS, text)) - known):
            self.find("sources", "the field %s is read and not described" % name)

    def all(self):
        root = self.document.root
        self.shape("document", root, "document")
        self.shape("info", root["info"], "info")
        self.shape("components", root["components"], "components")
        if not root["openapi"].startswith("3.1."):
            self.find("document", "OpenAPI %s" % root["openapi"])
        tags = [tag["name"] for tag in root["tags"]]
        if any("description" not in tag for tag in root["tags"]) or len(tags) != len(set(tags)):
            self.find("tags", "each is described, once")
        for path, item in root["paths"].items():
            self.shape("path", item, path)
            if not any(method in item for method in METHODS):
                self.find(path, "it has no operation")
        ids = [operation.id for operation in self.document.operations]
        if len(ids) != len(set(ids)):
            self.find("paths", "an operationId twice")
        for operation in self.document.operations:
            self.operation(operation, tags)
        for name, response in root["components"]["responses"].items():
            self.response(response, "components/responses/" + name)
        for name, scheme in root["components"].get("securitySchemes", {}).items():
            self.shape("scheme", scheme, name)
        self.sources()
        asked = set()
        for operation in self.document.operations:
            for part in [operation.parameters, operation.node.get("requestBody", {})]:
                self.reachable(part, asked)
        for name, schema in root["components"]["schemas"].items():
            self.schema(schema, name, name in asked)
            try:
                jsonschema.Draft202012Validator.check_schema(self.document.schema(schema, False))
            except jsonschema.SchemaError as error:
                self.find(name, error.message)


def main():
    lint = Lint(Document())
    lint.all()
    for finding in lint.findings:
        print(finding)
    print("api/openapi.json: %d findings in %s" % (
        len(lint.findings), ", ".join("%d %ss" % (n, kind) for kind, n in lint.counts.items() if n > 1)))
    return 1 if lint.findings else 0


if __name__ == "__main__":
    sys.exit(main())
