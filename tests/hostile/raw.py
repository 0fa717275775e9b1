"""Byte-exact requests over a real socket, and a strict parser of the answers."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.fixtures import Server

TIMEOUT_SECONDS = 30
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([ -~]*)")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@contextmanager
def connected(port: int, **options: int) -> Iterator[socket.socket]:
    """A connection to that port of this machine.

    `options` are socket options, as in `SO_RCVBUF=4096`.
    """
    with socket.socket() as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        for name, value in options.items():
            connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        connection.connect(("127.0.0.1", port))
        yield connection


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def parse(received: bytes, *methods: str) -> list[Answer]:
    """Return the answers to requests with these methods.

    The last method stands for all that follow.

    Raises `AssertionError` where the bytes are not whole, well-formed answers of printable ASCII.
    """
    answers: list[Answer] = []
    while received:
        method = methods[min(len(answers), len(methods) - 1)] if methods else "GET"
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, f"half a head: {head!r}"
        first, *lines = head.split(b"\r\n")
        status = STATUS_LINE.fullmatch(first)
        fields = [FIELD_LINE.fullmatch(line) for line in lines]
        assert status is not None, first
        assert all(fields), head
        headers = {found[1].decode().lower(): found[2].decode() for found in fields if found}
        body = b""
        if method != "HEAD" and status[1] not in {b"204", b"304"}:
            if headers.get("transfer-encoding") == "chunked":
                body, received = _unchunked(received)
            else:
                length = int(headers["content-length"])
                body, received = received[:length], received[length:]
                assert len(body) == length, "half a body"
        answers.append(Answer(int(status[1]), headers, body))
    return answers


def _unchunked(received: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, received = received.partition(b"\r\n")
        length = int(size, 16)
        body, received = body + received[:length], received[length + 2 :]
        if length == 0:
            return body, received


def exchange(port: int, *pieces: bytes, methods: tuple[str, ...] = ("GET",)) -> list[Answer]:
    """Send the pieces, each in its own packet, and return all answers.

    These are the answers that come before the connection closes.
    """
    with connected(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # The server has hung up; what it answered can still be read.
            for piece in pieces:
                connection.sendall(piece)
        return parse(read_all(connection), *methods)
