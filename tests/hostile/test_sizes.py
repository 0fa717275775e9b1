"""Oversized input of every kind, over a socket to a real server, and the form of its refusal."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.server.http_protocol import MAX_DRAINED_BYTES
from tests.contract.answers import PROBLEM_KEYS
from tests.fixtures import Person, Server

TIMEOUT_SECONDS = 30
# What the two kernels keep between them, and the limits. Most of it is dropped as it comes.
MAX_KEPT_BYTES = 10_000_000 + MAX_DRAINED_BYTES


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        yield connection


def answer(server: Server, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and return status, headers and body.

    The server may answer before it has read all.
    """
    with connected(server) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:  # It has closed the connection. What it sent before can still be read.
            pass
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, body


def assert_refused(received_answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    found, headers, body = received_answer
    assert (found, headers["content-type"]) == (status, "application/json"), body
    problem = json.loads(body)
    assert set(problem) == PROBLEM_KEYS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == headers["x-request-id"] != ""
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def post(person: Person, *lines: str) -> bytes:
    head = [f"Authorization: Bearer {person.token}", "Host: test", "Content-Type: application/json", *lines]
    return "\r\n".join(["POST /posts HTTP/1.1", *head, "", ""]).encode()


def test_oversized_requests_are_refused_in_the_usual_shape(server: Server, person: Person) -> None:
    megabyte = b"x" * 1_000_001
    assert_refused(answer(server, post(person, "Content-Length: 1000001"), megabyte), 413, "body_too_large")

    chunks = [b"%x\r\n%s\r\n" % (100_000, b"x" * 100_000)] * 11
    chunked = post(person, "Transfer-Encoding: chunked", "Connection: close")
    assert_refused(answer(server, chunked, *chunks, b"0\r\n\r\n"), 413, "body_too_large")

    get = "GET /posts HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s\r\n"
    assert_refused(answer(server, (get % f"X-Long: {'x' * 33_000}\r\n").encode()), 431, "headers_too_large")
    many = "".join(f"X-{number}: {'x' * 100}\r\n" for number in range(400))
    assert_refused(answer(server, (get % many).encode()), 431, "headers_too_large")
    long = get.replace("/posts", "/posts?search=" + "x" * 17_000)
    assert_refused(answer(server, (long % "").encode()), 414, "uri_too_long")


@pytest.mark.parametrize(
    ("beginning", "more"),
    [(b"GET / HTTP/1.1\r\nHost: test\r\nX-Long: ", b"x" * 10_000),
     (b"GET / HTTP/1.1\r\nHost: test\r\n", b"X-Short: x\r\n" * 1_000),
     (b"GET /", b"x" * 10_000)],
    ids=["one header", "many headers", "a path"],
)  # fmt: skip
def test_a_head_that_never_ends_is_cut_off(server: Server, beginning: bytes, more: bytes) -> None:
    """Otherwise a client could fill the memory with bytes that no middleware sees."""
    assert sent_until_cut_off(server, beginning, more) < MAX_KEPT_BYTES
    assert answer(server, b"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")[0] == 200


def test_trailers_that_never_end_are_cut_off(server: Server, person: Person) -> None:
    beginning = post(person, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n"

    assert sent_until_cut_off(server, beginning, b"X-Trailer: x\r\n" * 1_000) < MAX_KEPT_BYTES


def sent_until_cut_off(server: Server, beginning: bytes, more: bytes) -> int:
    """Return how many bytes could be sent: all of them, if the server does not object."""
    sent = 0
    with connected(server) as connection:
        try:
            connection.sendall(beginning)
            time.sleep(0.2)  # So that what may be handled before the end of it is.
            while sent < 2 * MAX_KEPT_BYTES:
                connection.sendall(more)
                sent += len(more)
        except TimeoutError:
            raise AssertionError(f"neither read on nor cut off after {sent} bytes") from None
        except OSError:
            pass
    return sent


def test_an_oversized_head_is_refused_in_the_usual_shape(server: Server) -> None:
    assert_refused(answer(server, b"GET / HTTP/1.1\r\nX-Long: ", b"x" * 70_000), 431, "headers_too_large")


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100,
                 b"GET / HTTP/1.1\r\nHost test\r\n\r\n", b"GET http://[ HTTP/1.1\r\nHost: test\r\n\r\n",
                 b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"]
)  # fmt: skip
def test_malformed_http_is_refused_in_the_usual_shape(server: Server, nonsense: bytes) -> None:
    assert_refused(answer(server, nonsense), 400, "bad_request")


def test_there_is_nothing_to_upgrade_to(server: Server) -> None:
    upgrade = "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA=="
    received_answer = answer(server, f"GET /posts HTTP/1.1\r\nHost: test\r\n{upgrade}\r\n\r\n".encode())

    assert_refused(received_answer, 401, "not_authenticated")
