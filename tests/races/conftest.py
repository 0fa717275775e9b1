"""Two server processes on one database, and crowds of concurrent requests."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.fixtures import Person, Server, _server

Result = TypeVar("Result")

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """A request of a caller; None is an anonymous one."""

    method: str
    path: str
    caller: Person | None = None
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, client: httpx2.AsyncClient) -> httpx2.Response:
        headers = {**(self.caller.headers if self.caller else {}), **self.headers}
        return await client.request(self.method, self.path, json=self.json, headers=headers)


@dataclass(frozen=True)
class Crowd:
    """Concurrent calls, spread over the servers."""

    servers: Sequence[Server]

    def send(self, calls: Sequence[Call]) -> list[httpx2.Response]:
        """The answers to the calls, made at once, in the order of the calls."""
        return self.run([call.send for call in calls])

    def run(self, members: Sequence[Callable[[httpx2.AsyncClient], Awaitable[Result]]]) -> list[Result]:
        """Run the actions at once, each with a client of one of the servers; return their results in order."""

        async def act() -> list[Result]:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=TIMEOUT_SECONDS)
                    )
                    for server in self.servers
                ]
                return await asyncio.gather(*(member(clients[n % len(clients)]) for n, member in enumerate(members)))

        return asyncio.run(act())


@pytest.fixture(scope="package")
def _two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Server]]:
    folder: Path = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield [stack.enter_context(_server(folder, {"RATE_LIMITS_ENABLED": "false"})) for _ in range(2)]


@pytest.fixture
def crowd(_two_servers: Sequence[Server], database: object) -> Crowd:  # noqa: ARG001 - on empty tables.
    """Concurrent calls on two server processes and empty tables."""
    return Crowd(_two_servers)


def count(connection: Connection, condition: str, **values: Any) -> int:
    """Count rows: `count(connection, "votes WHERE post_id = :id", id=1)`."""
    found = connection.scalar(text(f"SELECT count(*) FROM {condition}"), values)
    assert isinstance(found, int)
    return found


def wrong_counts(connection: Connection) -> int:
    """Return the number of posts and counts that do not match.

    A post's count must exist and be the number of its votes. A count must have a post.
    """
    return count(
        connection,
        """
        posts FULL JOIN post_stats ON post_id = id
        WHERE post_stats.votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE votes.post_id = posts.id)
            OR posts.id IS NULL
        """,
    )


def statuses(answers: Sequence[httpx2.Response]) -> dict[int, int]:
    """Count the answers by status, in ascending order of status."""
    found = [answer.status_code for answer in answers]
    return {status: found.count(status) for status in sorted(set(found))}


def deadlocks(connection: Connection) -> int:
    """Return the number of deadlocks that PostgreSQL ended in this database.

    It counts the latest up to ten seconds late.
    """
    found = connection.scalar(text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))
    assert isinstance(found, int)
    return found
