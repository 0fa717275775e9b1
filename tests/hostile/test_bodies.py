"""Bodies past every limit, with every method: the refusal reaches the client, and memory is bounded."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import httpx2
import psutil
import pytest

from app.config import Settings
from app.server.http_protocol import MAX_DRAINED_BYTES
from tests.contract.answers import PROBLEM_KEYS
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.hostile.raw import Answer, connected, exchange, parse, port_of, read_all

MAX_BODY_BYTES = Settings.model_fields["max_body_bytes"].default
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "QUERY", "PURGE"]
PIECE = b"x" * 65_536
CHUNK = b"10000\r\n" + PIECE + b"\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def assert_too_large(answer: Answer) -> None:
    assert answer.status == 413, answer
    assert answer.headers["connection"] == "close"
    problem = json.loads(answer.body)
    assert set(problem) == PROBLEM_KEYS
    assert (problem["code"], problem["request_id"]) == ("body_too_large", answer.headers["x-request-id"])


@pytest.mark.parametrize("way", ["Content-Length", "chunked"])
@pytest.mark.parametrize("megabytes", [3, 15])
@pytest.mark.parametrize("signed_in", [True, False])
def test_an_honest_client_reads_the_413(
    server: Server, person: Person, way: str, megabytes: int, signed_in: bool
) -> None:
    """`http.client` sends its whole body before it reads anything."""
    body = b"[" + b" " * 1_000_000 * megabytes + b"]"
    content = body if way == "Content-Length" else iter([body[i : i + 65_536] for i in range(0, len(body), 65_536)])
    headers = {"Content-Type": "application/json", **(person.headers if signed_in else {})}
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=30)

    client.request("DELETE", "/users/me/totp", content, headers, encode_chunked=way == "chunked")
    answer = client.getresponse()

    assert_too_large(Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()))
    client.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_declared_body_past_the_limit_is_413_for_every_method(server: Server, method: str) -> None:
    head = f"{method} /users/me/totp HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()

    (answer,) = exchange(port_of(server), head, b"x" * (MAX_BODY_BYTES + 1), methods=(method,))

    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    if method != "HEAD":
        assert_too_large(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [*((method, "/users/me/totp") for method in METHODS), ("POST", "/vote"), ("GET", "/posts"), ("POST", "/nowhere")],
)
def test_an_endless_body_ends_after_one_answer(server: Server, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with connected(port_of(server)) as connection:
        connection.sendall(head)
        sent_bytes = 0
        with suppress(OSError):
            while sent_bytes < 2 * MAX_DRAINED_BYTES:
                connection.sendall(CHUNK)
                sent_bytes += len(CHUNK)
        received = read_all(connection)

    assert sent_bytes < 2 * MAX_DRAINED_BYTES, "it is read for ever"
    assert len(parse(received, method)) <= 1  # None where the end of the connection overtook it.
    assert exchange(port_of(server), LIVE)[0].status == 200


def upload(server: Server, megabytes: int) -> None:
    """Send that much, chunked, to a route that reads the body of a DELETE; without signing in."""
    with connected(port_of(server)) as connection, suppress(OSError):
        connection.sendall(b"DELETE /users/me/totp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(megabytes * 16):
            connection.sendall(CHUNK)


def resident_megabytes(server: Server) -> float:
    """Return the memory of the server and its workers together."""
    process = psutil.Process(server.process.pid)
    return float(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])) / 1e6


@pytest.mark.parametrize("megabytes", [100, pytest.param(600, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_a_body_of_a_delete(server: Server, figure: Figure, megabytes: int) -> None:
    upload(server, 1)
    before = resident_megabytes(server)

    upload(server, megabytes)

    grown = resident_megabytes(server) - before
    assert grown < 20
    figure(f"{megabytes} MB chunked to DELETE without login: the server grew by {grown:.1f} MB")


def test_chunks_of_one_byte_cost_no_more_than_their_share(server: Server, figure: Figure) -> None:
    """1 MB in such chunks is 6 MB on the wire, and used to take a second of a core."""
    process = psutil.Process(server.process.pid)
    head = b"DELETE /users/me/totp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    before = sum(process.cpu_times()[:2])

    (answer,) = exchange(port_of(server), head, b"1\r\nx\r\n" * 1_000_000)

    seconds = sum(process.cpu_times()[:2]) - before
    assert_too_large(answer)
    assert seconds < 0.5
    figure(f"a million chunks of one byte: {seconds:.2f} s of a core")


@pytest.mark.parametrize("path", ["/vote", "/posts", "/posts/1", "/api-keys"])
def test_a_body_just_within_the_limit_leaves_the_connection_in_use(server: Server, path: str) -> None:
    """Also where the answer does not wait for it."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n".encode()

    first, second = exchange(port_of(server), head, b"x" * MAX_BODY_BYTES, LIVE)

    assert first.status in {401, 405, 422}
    assert second.status == 200


def test_a_client_that_waits_for_100_continue_sends_nothing_of_a_body_that_is_too_large(server: Server) -> None:
    head = b"POST /users HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n"

    (answer,) = exchange(port_of(server), head)

    assert_too_large(answer)


def test_what_follows_an_unanswered_100_continue_is_never_taken_for_another_request(server: Server) -> None:
    """The client may leave its body out after a final answer, or send it: the connection must close."""
    inner = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST /vote HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(inner)
    with connected(port_of(server)) as connection:
        connection.sendall(head)
        time.sleep(0.3)
        connection.sendall(inner)
        (answer,) = parse(read_all(connection))

    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_a_broken_body_gets_no_second_answer(server: Server) -> None:
    head = b"POST /vote HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(port_of(server)) as connection:
        connection.sendall(head)
        time.sleep(0.3)
        connection.sendall(b"nonsense\r\n")
        (answer,) = parse(read_all(connection))

    assert answer.status == 401


def test_a_trailer_is_not_a_header(server: Server) -> None:
    """Otherwise a client could forge `X-Forwarded-For`: proxies replace the header and pass trailers on."""
    head = b"POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    (answer,) = exchange(port_of(server), head + b"1\r\nx\r\n0\r\nX-Request-ID: from-a-trailer\r\n\r\n")

    assert answer.headers["x-request-id"] != "from-a-trailer"


def test_requests_past_a_hundred_in_one_packet_are_not_queued(server: Server) -> None:
    """14,000 fit into a packet of 256 KB, and all used to be kept in memory until they were answered."""
    with connected(port_of(server)) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
        answers = parse(read_all(connection))

    assert 100 <= len(answers) < 500
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["connection"] == "close"


SENDER = """
import socket, sys
from contextlib import suppress
while True:
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as connection:
        connection.sendall(b"PURGE / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 1000000000\\r\\n\\r\\n")
        while True:
            connection.sendall(b"x" * 65_536)
"""


@pytest.mark.slow
def test_many_endless_senders_leave_others_their_share(server: Server, figure: Figure) -> None:
    """Forty clients send bodies that are too large, as fast as they can.

    Each starts again when it is cut off.
    """
    with ExitStack() as stack, httpx2.Client(base_url=server.url) as client:

        def median_seconds() -> float:
            seconds = []
            for _ in range(100):
                began_at = time.monotonic()
                assert client.get("/livez").status_code == 200
                seconds.append(time.monotonic() - began_at)
            return statistics.median(seconds)

        idle = median_seconds()
        for _ in range(40):
            process = subprocess.Popen([sys.executable, "-c", SENDER, str(port_of(server))])
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(3)
        busy = median_seconds()

    assert busy < 0.2
    figure(f"40 senders of endless bodies: others' median {1000 * busy:.1f} ms, {1000 * idle:.1f} ms without them")
