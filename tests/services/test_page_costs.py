"""Which page requests are bounded, and the queues in which they are read."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app.api import batch_queues
from app.schemas.types import MAX_PAGE_SIZE, MAX_SKIP
from app.security import access_tokens
from app.security.access_tokens import AccessToken
from app.services.feed import PageQuery, PageRequest, PostQuery
from app.services.feed.pages import Position
from tests.fixtures import Person

SLOW_SECONDS = 0.5
TOKEN = AccessToken(user_id=1, session_id=1, expires_at=0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CURSOR = Position(is_backward=False, value=NOW.isoformat(), post_id=1, began_at=None)
BOUNDED: list[dict[str, Any]] = [
    {},
    {"limit": MAX_PAGE_SIZE},
    {"skip": 900},
    {"owner_id": 1, "created_after": NOW, "created_before": NOW},
    {"position": CURSOR, "skip": MAX_SKIP},
    {"order": "old"},
    {"order": "top"},
    {"order": "hot", "skip": 500},
    {"order": "top", "position": CURSOR},
    {"order": "voted", "reader_id": 1},
    {"order": "bookmarked", "reader_id": 1},
    {"tag": "a", "skip": 900, "created_after": NOW, "created_before": NOW},
    {"order": "old", "tag": "a", "position": CURSOR},
]
UNBOUNDED: list[dict[str, Any]] = [
    {"search": "word"},
    {"is_drafts": True, "owner_id": 1},
    {"skip": MAX_SKIP},
    {"skip": 1_000},
    {"order": "top", "owner_id": 1},
    {"order": "hot", "created_after": NOW},
    {"order": "top", "tag": "a"},
    {"tag": "a", "owner_id": 1},
    {"tag": "a", "search": "word"},
]


@pytest.mark.parametrize("values", BOUNDED)
def test_walks_along_an_index_are_bounded(values: dict[str, Any]) -> None:
    assert PageRequest(TOKEN, PageQuery(**{"order": "new", "limit": 10, **values})).is_bounded


def test_posts_by_id_are_bounded() -> None:
    assert PageRequest(TOKEN, PostQuery(1)).is_bounded


@pytest.mark.parametrize("values", UNBOUNDED)
def test_searches_drafts_and_large_skips_are_not_bounded(values: dict[str, Any]) -> None:
    assert not PageRequest(TOKEN, PageQuery(**{"order": "new", "limit": 10, **values})).is_bounded


@pytest.fixture
def slow_search(connection: Connection) -> Iterator[None]:
    """Let each search take `SLOW_SECONDS` and more in the database."""
    connection.execute(text("ALTER FUNCTION search_query(text, boolean) RENAME TO fast_search_query"))
    connection.execute(
        text(f"""
            CREATE FUNCTION search_query(words text, finds_parts boolean) RETURNS tsquery IMMUTABLE LANGUAGE sql AS
            $$ SELECT pg_sleep({SLOW_SECONDS}); SELECT fast_search_query(words, finds_parts) $$
        """)
    )
    yield
    connection.execute(text("DROP FUNCTION search_query(text, boolean)"))
    connection.execute(text("ALTER FUNCTION fast_search_query(text, boolean) RENAME TO search_query"))


@pytest.mark.usefixtures("slow_search")
def test_a_slow_search_delays_no_bounded_page(person: Person) -> None:
    token = access_tokens.verify(person.token)
    searches = [PageRequest(token, PageQuery("new", 10, search=f"word{number}")) for number in range(3)]
    first_page = PageRequest(token, PageQuery("new", 10))

    async def ask() -> None:
        slow = [asyncio.create_task(batch_queues.read_page(search)) for search in searches]
        await asyncio.sleep(SLOW_SECONDS / 5)
        for _ in range(3):
            await batch_queues.read_page(first_page)
        assert not [task.result() for task in slow if task.done()]
        await asyncio.gather(*slow)

    asyncio.run(asyncio.wait_for(ask(), 20))
