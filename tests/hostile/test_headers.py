"""No value of a request reaches a header of its answer unencoded: every operation, over a real socket."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import unquote

import pytest

from tests.contract.answers import PROBLEM_KEYS
from tests.fixtures import Person, Server
from tests.hostile.corpus import DOCUMENT
from tests.hostile.raw import Answer, connected, exchange, parse, port_of, read_all

OPERATIONS = [(method.upper(), template) for template, item in DOCUMENT["paths"].items() for method in item]
INJECTED = "%0d%0aX-Injected:%201"
CONTROLS = ["%0a", "%0d", "%00", "%7f", "%09", "%1b", "%c2%85", "%0a/", INJECTED]
QUERIES = [INJECTED, "%00", "%0a", "%e2%80%a8", "%ff", "%c3%a9", "%22%3e,%3chttp://evil.example%3e"]
HEADERS = [b"X-Request-ID", b"Origin", b"Host", b"Accept", b"If-None-Match", b"If-Match", b"Idempotency-Key",
           b"Cookie", b"User-Agent", b"Referer", b"Accept-Language", b"X-Forwarded-Prefix"]  # fmt: skip
# Bytes that are allowed in a request's header, and not printable.
VALUES = [b"\xff", b"a\x85b", b"a\tb", b"\xe2\x80\xa8", b'"\xff"', b"http://localhost:8000\xa0"]


def request(method: str, target: str, person: Person | None, *headers: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Connection: close"]
    if not any(header.lower().startswith(b"host:") for header in headers):
        lines.append(b"Host: a")
    if person is not None:
        lines.append(f"Authorization: Bearer {person.token}".encode())
    if method in {"POST", "PUT", "PATCH"}:
        lines += [b"Content-Length: 2", b"Content-Type: application/json"]
    body = b"{}" if method in {"POST", "PUT", "PATCH"} else b""
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


def one_answer(server: Server, method: str, sent: bytes) -> Answer:
    answers = exchange(port_of(server), sent, methods=(method,))
    assert len(answers) == 1, (sent, answers)
    (answer,) = answers
    assert answer.status < 500, (sent, answer)
    assert "x-injected" not in answer.headers, sent
    return answer


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_path_with_a_control_character_is_404_on_every_operation(server: Server, person: Person, prefix: str) -> None:
    for method, template in OPERATIONS:
        for path in hostile_paths(prefix + template):
            for asked in {method, "HEAD"} if method == "GET" else {method}:
                answer = one_answer(server, asked, request(asked, path, person))

                assert answer.status == 404, (asked, path)
                if asked != "HEAD":
                    problem = json.loads(answer.body)
                    assert set(problem) == PROBLEM_KEYS
                    assert (problem["code"], problem["request_id"]) == ("not_found", answer.headers["x-request-id"])


def hostile_paths(template: str) -> Iterator[str]:
    path = template.replace("{", "").replace("}", "")
    for value in CONTROLS:
        plain = "/".join("1" if "{" in part else part for part in template.split("/"))
        yield plain + value
        if path != template:
            yield "/".join("1" + value if "{" in part else part for part in template.split("/"))


def test_a_hostile_query_leaves_every_answer_well_formed(
    server: Server, make_person: Callable[..., Person], make_post: Callable[..., int]
) -> None:
    admin = make_person(role="admin")
    for _ in range(3):
        make_post(admin)
    make_person(), make_person()
    for method, template in OPERATIONS:
        if method != "GET":
            continue
        names = [
            each["name"] for each in DOCUMENT["paths"][template]["get"].get("parameters", []) if each["in"] == "query"
        ]
        for name in [*names, "unknown"]:
            for value in QUERIES:
                target = template.replace("{id}", "1") + f"?limit=1&{name}={value}&sort=new"
                answer = one_answer(server, method, request(method, target, admin))
                for other in answer.headers.values():
                    assert unquote(value) not in other, (target, answer)


def test_hostile_headers_leave_every_answer_well_formed(server: Server, person: Person) -> None:
    for method, template in OPERATIONS:
        target = template.replace("{", "").replace("}", "")
        for value in VALUES:
            one_answer(
                server, method, request(method, target, person, *(b"%s: %s" % (name, value) for name in HEADERS))
            )


@pytest.mark.parametrize("wanted", [*VALUES, b"x" * 5_000, b"a, " * 3_000, b"a:b", b'"a"'])
def test_a_preflight_repeats_no_more_than_a_few_names(server: Server, wanted: bytes) -> None:
    preflight = [b"Origin: http://localhost:3000", b"Access-Control-Request-Method: POST"]

    refused = one_answer(server, "OPTIONS", request(
        "OPTIONS", "/posts", None, *preflight, b"Access-Control-Request-Headers: " + wanted
    ))  # fmt: skip
    allowed = one_answer(server, "OPTIONS", request(
        "OPTIONS", "/posts", None, *preflight, b"Access-Control-Request-Headers: authorization, content-type"
    ))  # fmt: skip

    assert "access-control-allow-headers" not in refused.headers
    assert allowed.headers["access-control-allow-headers"] == "authorization, content-type"


def test_an_origin_with_an_endless_port_is_not_repeated(server: Server) -> None:
    answer = one_answer(server, "GET", request("GET", "/", None, b"Origin: http://localhost:" + b"1" * 9_000))

    assert "access-control-allow-origin" not in answer.headers


def test_control_characters_in_headers_are_refused(server: Server) -> None:
    for byte in {*range(32), 127} - {9, 10, 13}:
        sent = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: a%cb\r\n\r\n" % byte
        (answer,) = exchange(port_of(server), sent)
        assert (answer.status, json.loads(answer.body)["code"]) == (400, "bad_request")


def test_pipelined_hostile_paths_have_one_answer_each(server: Server, person: Person) -> None:
    paths = ["/posts%0a", "/posts", "/posts/1%0a", "/v1/posts%0d%0a", "/posts?search=%0a"]
    with ExitStack() as stack:
        connection: socket.socket = stack.enter_context(connected(port_of(server)))
        sent = [f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {person.token}\r\n" for path in paths]
        connection.sendall("\r\n".join([*sent[:-1], sent[-1] + "Connection: close\r\n", ""]).encode())
        answers = parse(read_all(connection))

    assert [answer.status for answer in answers] == [404, 200, 404, 404, 200]
