"""`Upgrade` on routes that do not upgrade is ignored: the body is read, and one request has one answer."""

import json
import subprocess
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from tests.fixtures import PASSWORD, Person, Server
from tests.hostile.raw import Answer, exchange, port_of
from tests.programs import find_program

PROTOCOLS = ["h2c", "websocket", "foo", "websocket, h2c"]
NEXT = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def login(person: Person, upgrade: str, framing: str, version: str = "1.1") -> tuple[bytes, bytes]:
    """Head and body of a sign-in that requests another protocol."""
    body = urlencode({"username": person.email, "password": PASSWORD}).encode()
    if framing == "chunked":
        middle = len(body) // 2
        halves = (body[:middle], body[middle:], b"")
        framed = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves)
        length = "Transfer-Encoding: chunked"
    else:
        framed, length = body, f"Content-Length: {len(body)}"
    lines = [
        f"POST /login HTTP/{version}", "Host: a", "Content-Type: application/x-www-form-urlencoded", length,
        "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode(), framed


def assert_signed_in(answer: Answer) -> None:
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)["token_type"] == "bearer"


PACKETS: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
    "one packet": lambda head, body: [head + body],
    "head, then body": lambda head, body: [head, body],
    "head and half the body": lambda head, body: [head + body[:7], body[7:]],
    "half the head": lambda head, body: [head[:90], head[90:] + body],
    "byte by byte": lambda head, body: [bytes([byte]) for byte in head + body],
}


@pytest.mark.parametrize("packets", PACKETS)
@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize("upgrade", PROTOCOLS)
def test_the_body_is_read_and_what_follows_is_the_next_request(
    server: Server, person: Person, upgrade: str, framing: str, packets: str
) -> None:
    head, body = login(person, upgrade, framing)
    pieces = PACKETS[packets](head, body)

    first, second = exchange(port_of(server), *pieces[:-1], pieces[-1] + NEXT)

    assert_signed_in(first)
    assert (second.status, second.body) == (200, b'{"status":"ok"}')


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_a_body_that_looks_like_a_request_is_a_body(server: Server, framing: str) -> None:
    """It was answered as one, so that one request had two answers."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    if framing == "chunked":
        length, body = b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    else:
        length, body = b"Content-Length: %d" % len(smuggled), smuggled
    head = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + length + b"\r\n\r\n"

    answers = exchange(port_of(server), head, body, NEXT)

    assert [answer.status for answer in answers] == [404, 200]


def test_each_of_several_pipelined_upgrades_has_its_answer(server: Server) -> None:
    head = b"%s / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n%s\r\n"
    requests = [
        head % (b"GET", b""), head % (b"HEAD", b""), head % (b"DELETE", b"Content-Length: 3\r\n") + b"abc",
        head % (b"GET", b"Transfer-Encoding: chunked\r\n") + b"1\r\nx\r\n0\r\n\r\n", head % (b"GET", b""),
    ]  # fmt: skip

    answers = exchange(port_of(server), b"".join(requests) + NEXT, methods=("GET", "HEAD", "GET"))

    assert [answer.status for answer in answers] == [200, 200, 405, 200, 200, 200]


def test_upgrade_in_http_1_0_is_ignored_too(server: Server, person: Person) -> None:
    (answer,) = exchange(port_of(server), *login(person, "h2c", "Content-Length", version="1.0"))

    assert_signed_in(answer)


@pytest.mark.parametrize("target", [b"a:443", b"/posts", b"http://a/"])
def test_connect_is_refused_and_nothing_behind_it_is_read(server: Server, target: bytes) -> None:
    (answer,) = exchange(port_of(server), b"CONNECT %s HTTP/1.1\r\nHost: a\r\n\r\n" % target + NEXT)

    assert (answer.status, json.loads(answer.body)["code"]) == (400, "bad_request")
    assert answer.headers["connection"] == "close"


@pytest.mark.needs("curl")
def test_curl_signs_in_where_it_offers_http_2(server: Server, person: Person) -> None:
    answer = subprocess.run(
        [find_program("curl"), "--http2", "--silent", "--show-error", "--max-time", "20", f"{server.url}/login",
         "--data-urlencode", f"username={person.email}", "--data-urlencode", f"password={PASSWORD}"],
        capture_output=True, check=True,
    )  # fmt: skip

    assert json.loads(answer.stdout)["token_type"] == "bearer"
