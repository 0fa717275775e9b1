"""How responses are sent: complete ones in one write, all others as uvicorn sends them."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.server.http_protocol import Protocol

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False
        self.is_reading = True

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name.endswith("name") else None

    def write(self, data: bytes) -> None:
        if data:
            self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def write_eof(self) -> None: ...


def answer(status: int, headers: Headers, *parts: bytes) -> Callable[[Send], Awaitable[None]]:
    async def send_all(send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for place, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": place < len(parts) - 1})

    return send_all


def connect(
    protocol_class: type[HttpToolsProtocol], app: Callable[[Send], Awaitable[None]]
) -> tuple[HttpToolsProtocol, Transport, ServerState]:
    """A connection to a server of `app`."""

    async def asgi(_scope: object, _receive: object, send: Send) -> None:
        await app(send)

    config = Config(asgi, http=protocol_class, log_config=None, lifespan="off")
    transport, state = Transport(), ServerState()
    state.default_headers = [(b"date", b"now")]
    protocol = protocol_class(config, state, {}, asyncio.get_running_loop())
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport, state


def exchange(
    protocol_class: type[HttpToolsProtocol], request: bytes, app: Callable[[Send], Awaitable[None]]
) -> Transport:
    """Return what a connection that sends `request` gets from a server of `app`."""

    async def run() -> Transport:
        protocol, transport, state = connect(protocol_class, app)
        protocol.data_received(request)
        while state.tasks:
            await asyncio.wait(state.tasks)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(run())


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = (b"content-length", b"5")
ORDINARY = {
    "whole": (GET, answer(200, [LENGTH, (b"etag", b'"1"')], b"whole")),
    "empty": (GET, answer(200, [(b"content-length", b"0")], b"")),
    "without a body": (GET, answer(304, [(b"etag", b'"1"')], b"")),
    "deleted": (b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", answer(204, [], b"")),
    "expected": (
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        answer(200, [LENGTH], b"whole"),
    ),
    "two requests": (GET + GET, answer(200, [LENGTH], b"whole")),
}
OTHER = {
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", answer(200, [LENGTH], b"whole")),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", answer(200, [LENGTH], b"whole")),
    "in parts": (GET, answer(200, [LENGTH], b"who", b"le")),
    "of no declared length": (GET, answer(200, [], b"who", b"le")),
    "whole, of no declared length": (GET, answer(200, [], b"whole")),
    "closing": (GET, answer(413, [LENGTH, (b"connection", b"close")], b"whole")),
    "chunked by itself": (GET, answer(200, [(b"transfer-encoding", b"chunked")], b"whole")),
    "longer than declared": (GET, answer(200, [LENGTH], b"longer")),
    "shorter than declared": (GET, answer(200, [LENGTH], b"less")),
    "with a line break in a header": (GET, answer(200, [LENGTH, (b"a", b"1\r\nset-cookie: b=c")], b"whole")),
    "with half a line break": (GET, answer(200, [LENGTH, (b"a", b"1\nset-cookie: b=c")], b"whole")),
    "with a control character": (GET, answer(200, [LENGTH, (b"a", b"\0")], b"whole")),
    "without a body to its head": (GET, answer(200, [LENGTH])),
    "without anything": (GET, lambda _: asyncio.sleep(0)),
}


@pytest.mark.parametrize("name", [*ORDINARY, *OTHER])
def test_the_bytes_sent_equal_those_of_uvicorn(name: str) -> None:
    request, app = (ORDINARY | OTHER)[name]
    ours, theirs = exchange(Protocol, request, app), exchange(HttpToolsProtocol, request, app)
    if name == "without a body to its head":  # Nothing was sent yet, so an error can still be reported.
        assert ours.written[0].startswith(b"HTTP/1.1 500 ")
        return
    assert b"".join(ours.written) == b"".join(theirs.written)
    assert ours.is_closed == theirs.is_closed


@pytest.mark.parametrize("name", ORDINARY)
def test_whole_answers_are_sent_in_one_piece(name: str) -> None:
    written = exchange(Protocol, *ORDINARY[name]).written
    assert len(written) == len(re.findall(rb"HTTP/1\.1 ", b"".join(written)))


@pytest.mark.parametrize("before", [b"", GET], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("after", [b"", b"GET / HT", GET], ids=["nothing comes", "half a request", "a request"])
def test_idle_connection_of_a_stopping_server_is_closed_after_a_last_request_that_was_on_its_way(
    before: bytes, after: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.server.http_protocol.LAST_REQUEST_SECONDS", 0.2)

    async def run() -> None:
        protocol, transport, state = connect(Protocol, answer(200, [LENGTH], b"whole"))

        async def send(data: bytes) -> None:
            protocol.data_received(data)
            while state.tasks:
                await asyncio.wait(state.tasks)

        await send(before)
        protocol.shutdown()
        assert not transport.is_closed
        await send(after)
        assert transport.is_closed == (after == GET)
        await asyncio.sleep(0.3)
        assert transport.is_closed
        answers = b"".join(transport.written).split(b"HTTP/1.1 ")[1:]
        assert [b"\r\nconnection: close\r\n" in each for each in answers] == [False] * bool(before) + [True] * (
            after == GET
        )
        protocol.connection_lost(None)

    asyncio.run(run())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are waited for 0.3 seconds in the place of thirty."""
    monkeypatch.setattr("app.server.http_protocol.STALLED_SECONDS", 0.3)
    monkeypatch.setattr("app.server.http_protocol.DRAIN_SECONDS", 0.3)


def talk(
    app: Callable[..., Awaitable[None]], conversation: Callable[[socket.socket], Awaitable[None]], **options: Any
) -> None:
    """Have a conversation over a real socket with a server of `app`."""

    async def run() -> None:
        config = Config(app, http=Protocol, log_config=None, lifespan="off", **options)
        config.load()
        loop, state = asyncio.get_running_loop(), ServerState()
        server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, server.sockets[0].getsockname())
            await conversation(connection)
        server.close()
        await asyncio.sleep(0.1)
        assert not state.connections
        assert not state.tasks

    asyncio.run(run())


async def read_until_end(connection: socket.socket, within_seconds: float = 5) -> bytes:
    received = b""
    async with asyncio.timeout(within_seconds):
        with suppress(ConnectionResetError):
            while chunk := await asyncio.get_running_loop().sock_recv(connection, 65_536):
                received += chunk
    return received


async def drip(connection: socket.socket) -> None:
    """Send a byte now and then, until the server has closed the connection."""
    async with asyncio.timeout(5):
        with suppress(ConnectionError):
            while True:
                await asyncio.get_running_loop().sock_sendall(connection, b"x")
                await asyncio.sleep(0.02)


async def reading(_scope: object, receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """An application that reads the body before it answers."""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await answer(200, [LENGTH], b"whole")(send)


async def answering(_scope: object, _receive: object, send: Send) -> None:
    """An application that reads no body."""
    await answer(200, [LENGTH], b"whole")(send)


async def refusing(_scope: object, _receive: object, send: Send) -> None:
    await answer(413, [LENGTH, (b"connection", b"close")], b"whole")(send)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("app", "answer_count"), [(reading, 0), (answering, 1)], ids=["while it is read", "after the answer"]
)
def test_a_sender_whose_body_stalls_is_disconnected(app: Callable[..., Awaitable[None]], answer_count: int) -> None:
    async def conversation(connection: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(
            connection, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"
        )
        assert (await read_until_end(connection)).count(b"HTTP/1.1 ") == answer_count

    talk(app, conversation)


@pytest.mark.usefixtures("impatient")
def test_a_refused_sender_is_disconnected_after_a_while_however_slowly_it_sends() -> None:
    async def conversation(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        assert (await read_until_end(connection)).startswith(b"HTTP/1.1 413 ")
        await drip(connection)

    talk(refusing, conversation)


def test_the_number_of_drained_senders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.http_protocol.MAX_DRAINED_CONNECTIONS", 0)

    async def conversation(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        await read_until_end(connection)
        await drip(connection)

    talk(refusing, conversation)


def test_a_connection_whose_body_came_after_the_answer_ends_when_it_is_idle() -> None:
    """The timer of uvicorn is stopped by the body, and not started again."""

    async def conversation(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        await asyncio.sleep(0.05)
        await loop.sock_sendall(connection, b"abc")
        await read_until_end(connection, within_seconds=3)

    talk(answering, conversation, timeout_keep_alive=1)


def test_a_body_is_read_only_as_fast_as_it_is_received() -> None:
    """At most one part of at most 256 KB waits per connection, and none is lost."""
    part = b"x" * 100_000

    async def run() -> None:
        received: list[int] = []
        asked = asyncio.Semaphore(0)

        async def asgi(_scope: object, receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
            for _ in range(2):
                await asked.acquire()
                received.append(len((await receive())["body"]))
            await answer(204, [], b"")(send)

        config = Config(asgi, http=Protocol, log_config=None, lifespan="off")
        transport = Transport()
        protocol = Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(transport)  # type: ignore[arg-type]
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + part)
        await asyncio.sleep(0.01)
        assert not transport.is_reading
        asked.release()
        await asyncio.sleep(0.01)
        assert received == [100_000]
        assert not transport.is_reading  # The part is still in the hands of the application.
        asked.release()
        await asyncio.sleep(0.01)
        assert transport.is_reading
        protocol.data_received(part)
        await asyncio.sleep(0.01)
        assert received == [100_000, 100_000]
        assert transport.is_reading  # The response is complete: the next request may come.
        protocol.connection_lost(None)

    asyncio.run(run())
