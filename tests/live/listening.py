"""A client of a live stream, in a thread of its own."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from tests.fixtures import Person

Message = dict[str, Any]
# Much longer than a message takes, because the machine may be busy.
TIMEOUT_SECONDS = 20.0


class Listener:
    """The messages of one stream of Server-Sent Events, as they arrive."""

    def __init__(self, url: str, query: str, headers: dict[str, str], **options: Any) -> None:
        self._arrived = threading.Condition()
        self.messages: list[Message] = []
        self.times: list[float] = []
        self.last_event_id: str | None = None
        self.retry: int | None = None
        self.has_ended = False
        self._client = httpx2.Client(timeout=60, **options)
        stack = self._client.stream("GET", f"{url}/live?{query}", headers=headers)
        self._stack = stack
        self.response = stack.__enter__()
        if self.response.status_code != 200:
            problem = self.response.read()
            stack.__exit__(None, None, None)
            self._client.close()
            raise AssertionError(problem)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(httpx2.TransportError, httpx2.StreamError):
            for line in self.response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_event_id = value
                elif name == "retry":
                    self.retry = int(value)
                elif name == "data":
                    with self._arrived:
                        self.messages.append(json.loads(value))
                        self.times.append(time.monotonic())
                        self._arrived.notify_all()
        with self._arrived:
            self.has_ended = True
            self._arrived.notify_all()

    def wait_for(self, is_wanted: Callable[[Message], bool], seconds: float = TIMEOUT_SECONDS) -> Message:
        """Return the first message that is wanted."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while True:
                for message in self.messages:
                    if is_wanted(message):
                        return message
                left = deadline - time.monotonic()
                assert left > 0, f"no such message among {self.messages}"
                assert not self.has_ended, f"the stream ended with {self.messages}"
                self._arrived.wait(left)

    def wait_for_type(self, kind: str, seconds: float = TIMEOUT_SECONDS) -> Message:
        return self.wait_for(lambda message: message["type"] == kind, seconds)

    def wait_for_end(self, seconds: float = TIMEOUT_SECONDS) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.has_ended, seconds), f"the stream goes on: {self.messages}"

    def of_type(self, kind: str) -> list[Message]:
        with self._arrived:
            return [message for message in self.messages if message["type"] == kind]

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # Closing alone would not end the connection, because the thread still reads from it.
        with suppress(OSError):
            self.response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._stack.__exit__(None, None, None)
        self._client.close()


@contextmanager
def listening(url: str, reader: Person, query: str, *, last_event_id: str | None = None) -> Iterator[Listener]:
    """Listen to a stream, from its first message on."""
    headers = dict(reader.headers)
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    listener = Listener(url, query, headers)
    try:
        listener.wait_for_type("state")
        yield listener
    finally:
        listener.close()
