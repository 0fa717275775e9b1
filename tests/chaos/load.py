"""A light HTTP client, so that the load costs less than the server, and statistics of its answers."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: status, headers by lower-case name, body, and how long it took.

    Status 0: the connection broke.

    It is `to_another` where a kept connection broke after the request was sent, and it was sent again on a new one.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    began_at: float
    seconds: float
    to_another: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answers:
    """Statistics of all answers."""

    all: list[Answer] = field(default_factory=list)

    @property
    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(answer.status for answer in self.all).items()))

    def with_status(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.all if answer.status in statuses]

    def percentile_milliseconds(self, percent: int) -> float:
        return 1000 * statistics.quantiles((answer.seconds for answer in self.all), n=100)[percent - 1]


class Client:
    """One connection that is kept, and made anew when the server has closed it."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers = f"Host: {parts.netloc}\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self, method: str, path: str, body: Any = None, headers: str = "", *, media_type: str | None = None
    ) -> Answer:
        """Send a request and return the answer. A body that is a string is sent as a form, and bytes as they are.

        Reconnect if a kept connection was closed before any byte of the answer came: no request was lost then.
        """
        default_type = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
        if body is None or isinstance(body, bytes):
            content = body or b""
        else:
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}{headers}Content-Length: {len(content)}\r\n"
        request = f"{head}Content-Type: {media_type or default_type}\r\n\r\n".encode() + content
        began_at = time.monotonic()
        if self._streams is not None and self._streams[0].at_eof():
            await self.close()
        is_kept = self._streams is not None
        status, answered, received = await self._attempt(request)
        if to_another := status == 0 and is_kept:
            status, answered, received = await self._attempt(request)
        return Answer(status, answered, received, began_at, time.monotonic() - began_at, to_another)

    async def _attempt(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(request)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError, TimeoutError):
            await self.close()
            return 0, {}, b""
        if headers.get("connection") == "close":
            await self.close()
        return int(head[0].split()[1]), headers, body

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
            await asyncio.sleep(0)  # In which the loop lets go of the socket.


async def press(
    clients: Sequence[Client], ask: Callable[[Client, int], Awaitable[Answer]], *, until: Callable[[], bool]
) -> Answers:
    """Let every client send one request after the other until `is_over`."""
    answers = Answers()

    async def keep_asking(client: Client, number: int) -> None:
        while not until():
            answer = await ask(client, number)
            answers.all.append(answer)
            if answer.status == 0:
                await asyncio.sleep(0.05)
        await client.close()

    await asyncio.gather(*(keep_asking(client, number) for number, client in enumerate(clients)))
    return answers


def read_pages(url: str, tokens: Sequence[str], count: int, seconds: float, *, waits: bool) -> Answers:
    """Run clients that read the newest posts. With `waits` they honour `Retry-After`.

    What is in pages is left out.
    """

    async def read(client: Client, _: int) -> Answer:
        answer = await client.send("GET", "/posts")
        if waits and answer.status == 503:
            await asyncio.sleep(float(answer.headers["retry-after"]))
        return replace(answer, headers={}, body=b"") if answer.status == 200 else answer

    clients = [Client(url, tokens[number % len(tokens)]) for number in range(count)]
    return asyncio.run(press(clients, read, until=for_seconds(seconds)))


async def ask_once(clients: Sequence[Client], *paths: str) -> list[Answer]:
    """Send each path by one client, all at once, and return the answers in order."""
    sending = (client.send("GET", paths[number % len(paths)]) for number, client in enumerate(clients))
    answers = await asyncio.gather(*sending)
    for client in clients:
        await client.close()
    return answers


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Return a condition that is true after this time."""
    over_at = time.monotonic() + seconds
    return lambda: time.monotonic() > over_at
