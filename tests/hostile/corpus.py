"""Hostile values for every parameter and field, made from the OpenAPI document.

A value is the text of a JSON value where it goes into a body, and raw bytes where it goes into an address or a header.
So nothing is lost to a serializer: lone surrogates, numbers of 4 000 digits, what is not JSON at all.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_from_bytes

from app.main import app

DOCUMENT: dict[str, Any] = {**app.api.openapi()}
# A stream does not end, so tests/live has hostile values for it.
DOCUMENT["paths"] = {path: item for path, item in DOCUMENT["paths"].items() if path != "/live"}
FORM = "application/x-www-form-urlencoded"

# As JSON, and, without the quotes, as text for addresses and forms.
NUMBERS = [
    "0", "-1", "1", "-0", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "1" + "0" * 4000, "-" + "9" * 4001, "1" + "0" * 5000, "0.5", "1.0", "1e308", "1e400",
    "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "٣", "+1",
]  # fmt: skip
TEXTS = [
    # Nothing, much, and what other languages mean something by.
    "", " ", "\t", "x", "x" * 301, "x" * 4001, "null", "true", "[]", "{}", "undefined", "../../etc/passwd", "\x01",
    "\r\nX-Injected: 1", "{0}", "%s", "%(id)s", "${7*7}", "<b>", "\\",
    # SQL and its patterns.
    "%", "_", "%_%", "'", '"', "''", "';--", "' OR '1'='1", "1; DROP TABLE posts", "$$",
    # Full-text queries.
    "&", "&&", "|", "!", "!!", "<->", ":*", "a:*", "'a':*", "(", "()", "a & ", "& | ! ( ) : *", '"a', 'a"', "-", "--",
    "-a", "a -", "or", "a or", "OR OR", "\\:", "'\\", "a" * 2000, "a " * 240, "-a " * 160,
    # Unicode.
    "\u202e", "\ufeff", "\uffff", "é", "e\u0301", "ﷺ" * 40, "𝒜", "\U0001f469\u200d\U0001f467", "ı", "ß" * 400,
    "a\u0300" * 500,
    # Times.
    "2026-01-01", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-13-45",
    "9999-12-31T23:59:59.999999999Z", "292277026596-12-04", "-1e15", "1e15", "infinity", "epoch", "now",
    # Names and e-mail addresses.
    "user1", "USER1", "a@b", "a@b.example", "@", "a@[127.0.0.1]", '"a b"@b.example', "ﬁ@b.example",
    "a@" + "b" * 250 + ".example",
]  # fmt: skip
RAW_JSON = [
    r'"\u0000"', r'"a\u0000b"', r'"\ud800"', r'"\udc00\ud800"', r'"\ud83d"', "null", "true", "false", "[]", "{}",
    "[[]]", '{"$ne": null}', '["x"]', '{"id": 1}', '{"a": 1, "a": 2}', "[" * 100_000, "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000, "'x'", "",
]  # fmt: skip
NOT_UTF_8 = [b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', '"ü"'.encode("latin-1"), '{"id": 1}'.encode("utf-16")]
RAW_BYTES = [
    b"%00", b"a%00b", b"%ff", b"%c0%80", b"%ed%a0%80", b"%", b"%zz", b"%25", b"%2e%2e%2f", b"%0d%0a", b"+", b"&",
    b"=", b";", b"a=b", b"x" * 65_536,
]  # fmt: skip
RAW_HEADERS = [
    b"", b"\xff", b"\x7f", b"\t", b'"', b'"' * 3000, b'W/"1"', b'"1"', b'"1-x"', b"*", b"* , *", b'"-1"',
    b'"99999999999999999999"', b"a" * 9000, b"x" * 40_000,
]  # fmt: skip
CONTENT_TYPES = [
    b"", b"text/plain", b"application/xml", b"multipart/form-data", b"multipart/form-data; boundary=x", b"garbage",
    b"application/json; charset=utf-16", b"application/json; charset=\xff", FORM.encode(), b"application/json" * 100,
]  # fmt: skip
# Cases without hostile parts. With ids that no row has, each operation with an id in its path answers 404.
NO_SUCH_ID = b"2147483647"
PLAIN = ("nothing", "no such id")
# The document has the last one only in words.
EVERYWHERE = ["authorization", "x-request-id", "accept", "origin", "host", "cookie", "idempotency-key"]
# Query parameters that the document has only in words.
IN_WORDS = {("POST", "/login"): ["cookie"]}


@dataclass(frozen=True)
class Case:
    """A request, byte by byte. `aimed_at` names its hostile part."""

    method: str
    template: str
    target: bytes
    aimed_at: str
    content: bytes
    headers: dict[bytes, bytes]

    def __str__(self) -> str:
        sent = f"{self.target[:300]!r} {self.content[:300]!r} {self.headers!r:.300}"
        return f"{self.method} {self.template}, {self.aimed_at}: {sent}"


def cases() -> Iterator[Case]:
    """Yield every operation with every hostile value in every parameter, header and field, one at a time."""
    for template, item in DOCUMENT["paths"].items():
        for method, described in item.items():
            operation = Operation(method.upper(), template, described)
            yield operation.case("nothing")
            if "{" in template:
                yield operation.case("no such id", path=NO_SUCH_ID)
            yield from _in_address(operation)
            yield from _in_headers(operation)
            if operation.media_type == FORM:
                yield from _in_form(operation)
            elif operation.media_type is not None:
                yield from _in_json(operation)


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and how to write a good request to it with one thing changed."""

    method: str
    template: str
    described: dict[str, Any] = field(repr=False)

    @property
    def media_type(self) -> str | None:
        return next(iter(self.described.get("requestBody", {}).get("content", {})), None)

    def parameters(self, where: str) -> list[str]:
        return [each["name"] for each in self.described.get("parameters", []) if each["in"] == where]

    def fields(self) -> dict[str, Any]:
        """Return the fields of the body, with a valid value of each."""
        if self.media_type is None:
            return {}
        schema = self.described["requestBody"]["content"][self.media_type]["schema"]
        schema = _resolved(schema.get("anyOf", [schema])[0])
        return {name: _example(each) for name, each in schema.get("properties", {}).items()}

    def case(
        self,
        aimed_at: str,
        *,
        path: bytes = b"1",
        query: bytes = b"",
        body: bytes | None = None,
        headers: dict[bytes, bytes] | None = None,
    ) -> Case:
        # Of several parts of a path that vary, the first is what is aimed at.
        before, *rest = self.template.encode().split(b"{")
        parts = [part.partition(b"}")[2] for part in rest]
        target = before + b"".join((path if place == 0 else b"1") + part for place, part in enumerate(parts))
        target += b"?" + query if query else b""
        sent = ({b"content-type": self.media_type.encode()} if self.media_type else {}) | (headers or {})
        return Case(self.method, self.template, target, aimed_at, self.json() if body is None else body, sent)

    def json(self, changed: str | None = None, value: bytes = b"") -> bytes:
        """Return a valid body with one raw value in one field; a form where the operation takes one."""
        if self.media_type == FORM:
            return self.form()
        pairs = [
            b'"%s": %s' % (name.encode(), value if name == changed else json.dumps(good).encode())
            for name, good in self.fields().items()
        ]
        return b"{" + b", ".join(pairs) + b"}" if pairs else b""

    def form(self, changed: str | None = None, value: bytes = b"") -> bytes:
        pairs = [
            name.encode() + b"=" + (value if name == changed else quote_from_bytes(str(good).encode()).encode())
            for name, good in self.fields().items()
        ]
        return b"&".join(pairs)


def _addressed() -> list[bytes]:
    return [quote_from_bytes(value.encode(), safe="").encode() for value in NUMBERS + TEXTS] + RAW_BYTES


def _in_address(operation: Operation) -> Iterator[Case]:
    if "{" in operation.template:
        for value in _addressed():
            yield operation.case("path", path=value)
    in_words = IN_WORDS.get((operation.method, operation.template), [])
    for name in [*operation.parameters("query"), *in_words, "unknown"]:
        for value in _addressed():
            yield operation.case(f"query {name}", query=name.encode() + b"=" + value)
        yield operation.case(f"query {name} twice", query=f"{name}=1&{name}=2&{name}".encode())
        yield operation.case(f"query {name} as a list", query=f"{name}[]=1&{name}[x]=2".encode())


def _in_headers(operation: Operation) -> Iterator[Case]:
    for name in [*operation.parameters("header"), *EVERYWHERE]:
        for value in RAW_HEADERS:
            yield operation.case(f"header {name}", headers={name.lower().encode(): value})
    if operation.media_type is not None:
        for content_type in CONTENT_TYPES:
            yield operation.case("content type", headers={b"content-type": content_type})


def _in_form(operation: Operation) -> Iterator[Case]:
    for name in operation.fields():
        for value in _addressed():
            yield operation.case(f"field {name}", body=operation.form(name, value))


def _in_json(operation: Operation) -> Iterator[Case]:
    values = [text.encode() for text in (*NUMBERS, *map(json.dumps, TEXTS), *RAW_JSON)] + NOT_UTF_8
    for value in values:
        yield operation.case("body", body=value)
    for name in operation.fields():
        for value in values:
            yield operation.case(f"field {name}", body=operation.json(name, value))
        yield operation.case(f"field {name} twice", body=operation.json()[:-1] + b', "%s": null}' % name.encode())


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _example(schema: dict[str, Any]) -> Any:
    """Return a valid value for the field."""
    for each in map(_resolved, (schema, *schema.get("anyOf", []))):
        if "examples" in each:
            return each["examples"][0]
        for fixed in ("default", "const"):
            if each.get(fixed) is not None:
                return each[fixed]
        if "enum" in each:
            return each["enum"][-1]
        if each.get("type") in {"string", "boolean", "integer", "array"}:
            return {"string": "correct horse battery", "boolean": True, "integer": 1, "array": []}[each["type"]]
    return None
