"""Clients that request much and read none of it: memory is bounded, and others are served."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx2
import psutil
import pytest

from app.server.http_protocol import MAX_UNSENT_BYTES_PER_CALLER
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.hostile.raw import connected, parse, port_of, read_all

StartServer = Callable[..., Server]
READERS = 40
PAGE = b"GET /posts?limit=25&sort=old HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# The system ends a connection of which nothing was taken for 30 s.
GONE_AFTER_SECONDS = 60


@pytest.fixture
def two_workers(start_server: StartServer) -> Server:
    return start_server(WORKERS="2")


@pytest.fixture
def page(make_person: Callable[..., Person], make_post: Callable[..., int]) -> bytes:
    """A request with an answer of some 900 KB."""
    person = make_person()
    for _ in range(25):
        make_post(person, content="x" * 36_000)
    return PAGE % person.token.encode()


def memory_megabytes(server: Server) -> float:
    """Return the memory of all processes of the server.

    Shared pages are counted once for each.
    """
    process = psutil.Process(server.process.pid)
    return float(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])) / 1e6


def connections_of(server: Server) -> int:
    process = psutil.Process(server.process.pid)
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port_of(server)
        for each in [process, *process.children(recursive=True)]
        for connection in each.net_connections("tcp")
    )


@pytest.mark.slow
def test_forty_clients_that_stop_reading_cost_little_and_are_disconnected(
    two_workers: Server, page: bytes, figure: Figure
) -> None:
    port = port_of(two_workers)
    with ExitStack() as stack:
        for _ in range(4):  # What serving this page takes at all.
            with connected(port) as reader:
                reader.sendall(page + LIVE)
                read_all(reader)
        before = memory_megabytes(two_workers)
        for _ in range(READERS):
            reader = stack.enter_context(connected(port, SO_RCVBUF=4096))
            reader.sendall(page * 3)
        time.sleep(3)
        during = memory_megabytes(two_workers)
        seconds = []
        with httpx2.Client(base_url=two_workers.url) as client:
            for _ in range(50):
                began_at = time.monotonic()
                assert client.get("/readyz").status_code == 200
                seconds.append(time.monotonic() - began_at)
        deadline = time.monotonic() + GONE_AFTER_SECONDS
        while connections_of(two_workers) > 2:
            assert time.monotonic() < deadline, "they are still connected"
            time.sleep(0.5)
        after = memory_megabytes(two_workers)

    figure(
        f"{READERS} stopped readers of three pages of 0.9 MB: memory of two workers +{during - before:.0f} MB, and"
        f" +{after - before:.0f} MB when they were gone; others' slowest answer {1000 * max(seconds):.0f} ms"
    )
    assert during - before < 50
    assert after - before < 25
    assert max(seconds) < 2


def test_a_slow_reader_gets_all_of_a_long_answer(server: Server, page: bytes) -> None:
    with connected(port_of(server), SO_RCVBUF=4096) as reader:
        reader.sendall(page + LIVE)
        time.sleep(0.5)
        first, second = parse(read_all(reader))

    assert (first.status, second.status) == (200, 200)
    assert len(first.body) > 25 * 36_000


def test_unread_answers_of_one_caller_are_bounded_and_other_callers_keep_theirs(
    start_server: StartServer, page: bytes, make_person: Callable[..., Person]
) -> None:
    server = start_server()  # With rate limits, because without them callers are not distinguished.
    others_page = PAGE % make_person().token.encode()
    with ExitStack() as stack:
        other = stack.enter_context(connected(port_of(server), SO_RCVBUF=4096))
        other.sendall(others_page + LIVE)
        time.sleep(0.5)
        readers = [stack.enter_context(connected(port_of(server), SO_RCVBUF=4096)) for _ in range(30)]
        for reader in readers:
            reader.sendall(page)
        time.sleep(2)
        remaining = connections_of(server) - 1
        answers = parse(read_all(other))

    assert 5 <= remaining <= 2 * MAX_UNSENT_BYTES_PER_CALLER / 1e6
    assert [answer.status for answer in answers] == [200, 200]
    assert len(answers[0].body) > 25 * 36_000


def test_connections_inherit_the_systems_bounds_on_what_is_unsent() -> None:
    from app.server.supervisor import _bound

    with _bound("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 * 1024
