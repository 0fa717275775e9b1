"""Caches are bounded in bytes, for every input."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import psutil
import pytest

from app.api import pagination
from app.config import Sort
from app.errors import Overloaded
from app.middleware import load_shedding
from app.middleware.load_shedding import LoadShedding
from app.middleware.request_context import RequestContext
from app.observability import request_context
from app.schemas.post import PageParameters
from app.services.feed import lists, pages
from tests.figures import Figure
from tests.fixtures import Person, Server

MAX_GROWTH_MB = 10
QUERY_BYTES = 16_000


def resident_mb(server: Server) -> float:
    return float(psutil.Process(server.process.pid).memory_info().rss / 1e6)


@pytest.mark.slow
def test_distinct_long_queries_take_no_memory(
    start_server: Callable[..., Server], person: Person, make_post: Callable[..., int], figure: Figure
) -> None:
    for _ in range(3):
        make_post(person)
    server = start_server()
    with httpx2.Client(base_url=server.url, headers=person.headers, timeout=60) as client:

        def ask(first: int, count: int) -> None:
            for number in range(first, first + count):
                query = f"limit=1&x={number:x<{QUERY_BYTES}}"
                assert client.get(f"/posts?{query}").status_code == 200

        ask(0, 100)
        before = resident_mb(server)
        ask(100, 1_000)
        after = resident_mb(server)

    figure(f"1,000 distinct queries of 16 KB: {before:.0f} MB before, {after:.0f} MB after")
    assert after - before < MAX_GROWTH_MB


def test_only_short_queries_are_remembered() -> None:
    pagination._remembered_query.cache_clear()
    for number in range(50):
        for filler in (10, pagination.MAX_REMEMBERED_QUERY_BYTES):
            found = pagination.read_query(PageParameters, f"limit=5&x={number:0>{filler}}".encode())
            assert (found.parameters.limit, found.linked) == (5, "limit=5")

    assert pagination._remembered_query.cache_info().currsize == 50


def test_statements_of_many_kinds_of_pages_are_not_all_kept() -> None:
    for number in range(32):
        directions, reach = {"has_cursor": bool(number & 1), "is_backward": bool(number & 2)}, lists.REACHES[number % 3]
        for filters in ((), ("owner_id",), ("created_after",), ("created_before", "owner_id")):
            lists._statement(lists.Kind("new", filters=filters, reach=reach, **directions))
    orders: tuple[Sort, ...] = ("new", "old", "top", "hot")
    for order in orders:
        for number in range(32):
            is_walk, is_backward, is_drafts, skips, is_timed = (bool(number & 1 << place) for place in range(5))
            filters = ("owner_id", "created_after") if is_timed else ("owner_id",)
            pages._page_statement(pages._Kind(order, is_walk, is_backward, is_drafts, skips, filters))

    assert pages._page_statement.cache_info().currsize == pages.MAX_STATEMENTS
    assert lists._statement.cache_info().maxsize == lists.MAX_STATEMENTS


def test_clients_that_were_refused_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: object) -> None:
        raise AssertionError("there is no room")

    monkeypatch.setattr(load_shedding, "MAX_RETURN_TIMES", 100)
    middleware = LoadShedding(answer, max_in_flight=0)
    statuses = []

    async def send(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def come(port: int) -> None:
        scope = {"type": "http", "path": "/posts", "client": ("192.0.2.1", port), "headers": []}
        await middleware(scope, None, send)  # type: ignore[arg-type]

    async def come_all() -> None:
        for port in range(1_000):
            await come(port)

    asyncio.run(come_all())

    assert statuses == [Overloaded.status] * 1_000
    assert [port for _, port in middleware.return_times] == list(range(900, 1_000))  # type: ignore[misc]


def test_what_a_proxy_passes_on_as_an_address_is_cut() -> None:
    seen = []

    async def note(scope: dict[str, Any], *_: object) -> None:
        seen.append((scope["client"], request_context.client_address.get()))

    scope = {"type": "http", "method": "GET", "path": "/", "client": ("x" * 30_000, 7), "headers": []}
    asyncio.run(RequestContext(note)(scope, None, None))  # type: ignore[arg-type]

    assert seen == [(("x" * 64, 7), "x" * 64)]
