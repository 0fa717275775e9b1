"""Past the bound requests are refused, and clients that ignore `Retry-After` are held."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.middleware import load_shedding
from app.middleware.load_shedding import LoadShedding

TOLD_SECONDS = 0.3


class Site:
    """An application with room for one request, which may be long; and its callers."""

    def __init__(self) -> None:
        self.is_free = asyncio.Event()
        self.admission = LoadShedding(self.serve, max_in_flight=1)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/long":
            await self.is_free.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def ask(self, port: int | None, path: str = "/posts") -> tuple[int, float]:
        """The status, and the seconds that it took."""
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Any:
            raise AssertionError("the body must not be read")

        client = None if port is None else ("192.0.2.1", port)
        began_at = time.monotonic()
        await self.admission({"type": "http", "path": path, "headers": [], "client": client}, receive, send)
        return statuses[0], time.monotonic() - began_at


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Site], Awaitable[None]]], None]:
    """Run a scene while a long request takes all the room."""
    monkeypatch.setattr(load_shedding, "RETRY_AFTER_SECONDS", TOLD_SECONDS)

    def play(scene: Callable[[Site], Awaitable[None]]) -> None:
        async def run() -> None:
            site = Site()
            long = asyncio.create_task(site.ask(1, "/long"))
            await asyncio.sleep(0)
            await scene(site)
            site.is_free.set()
            assert (await long)[0] == 200
            assert (site.admission.in_hand_count, site.admission.held_count) == (0, 0)

        asyncio.run(run())

    return play


Play = Callable[[Callable[[Site], Awaitable[None]]], None]


def test_clients_that_come_first_or_honour_retry_after_are_refused_at_once(played: Play) -> None:
    async def scene(site: Site) -> None:
        for port in (2, 3):
            status, seconds = await site.ask(port)
            assert (status, seconds < TOLD_SECONDS / 2) == (503, True)
        await asyncio.sleep(TOLD_SECONDS * 1.1)
        status, seconds = await site.ask(2)
        assert (status, seconds < TOLD_SECONDS / 2) == (503, True)

    played(scene)


def test_clients_that_ignore_retry_after_are_held_and_refused_again(played: Play) -> None:
    async def scene(site: Site) -> None:
        await site.ask(2)
        for _ in range(2):  # As often as it does.
            status, seconds = await site.ask(2)
            assert (status, seconds >= TOLD_SECONDS * 0.8) == (503, True)

    played(scene)


def test_held_clients_are_admitted_if_a_slot_is_free_afterwards(played: Play) -> None:
    async def scene(site: Site) -> None:
        await site.ask(2)
        held = asyncio.create_task(site.ask(2))
        await asyncio.sleep(0)
        site.is_free.set()
        status, seconds = await held
        assert (status, seconds >= TOLD_SECONDS * 0.8) == (200, True)

    played(scene)


def test_the_number_of_held_clients_is_bounded(played: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_shedding, "MAX_HELD_CLIENTS", 1)

    async def scene(site: Site) -> None:
        await asyncio.gather(site.ask(2), site.ask(3))
        (_, held), (status, seconds) = await asyncio.gather(site.ask(2), site.ask(3))
        assert held >= TOLD_SECONDS * 0.8
        assert (status, seconds < TOLD_SECONDS / 2) == (503, True)

    played(scene)


def test_clients_are_forgotten_when_their_time_has_come(played: Play) -> None:
    async def scene(site: Site) -> None:
        for port in range(2, 50):
            await site.ask(port)
        assert len(site.admission.return_times) == 48
        await asyncio.sleep(TOLD_SECONDS * 1.1)
        await site.ask(None)  # Clients of a Unix socket have no address.
        assert len(site.admission.return_times) == 1

    played(scene)


def test_probes_are_always_admitted(played: Play) -> None:
    async def scene(site: Site) -> None:
        for path in load_shedding.NEVER_SHED:
            assert (await site.ask(2, path))[0] == 200

    played(scene)
