"""A client of a live WebSocket."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live.listening import TIMEOUT_SECONDS, Message


class Socket:
    """Messages of one WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Message] = []

    def send(self, message: object) -> None:
        self.connection.send(message if isinstance(message, str) else json.dumps(message))

    def next(self, kind: str) -> Message:
        """Return the next message of this type."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            message: Message = json.loads(self.connection.recv(timeout=deadline - time.monotonic()))
            self.messages.append(message)
            if message["type"] == kind:
                return message


@contextmanager
def socket_at(url: str, headers: Mapping[str, str], query: str = "", **options: Any) -> Iterator[Socket]:
    """Open a WebSocket, whose first message is `state`."""
    address = f"ws{url.removeprefix('http')}/live?{query}"
    with connect(address, additional_headers=headers, compression=None, **options) as connection:
        yield Socket(connection)


def refusal_of(url: str, headers: Mapping[str, str], query: str = "", **options: Any) -> tuple[int, str]:
    """Return status and code of the answer to a handshake that is refused."""
    try:
        with socket_at(url, headers, query, **options):
            raise AssertionError("the handshake was accepted")
    except InvalidStatus as error:
        return error.response.status_code, json.loads(error.response.body)["code"]
