"""Pages are bounded in bytes: a page ends early, and its links lead on."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from starlette.testclient import TestClient

from app.services import feed
from app.services.feed.pages import MAX_PAGE_BYTES, Order
from tests.figures import Figure
from tests.fixtures import Person, linked
from tests.services.walking import read, rows, walk

ORDERS: tuple[Order, ...] = ("new", "old", "top", "hot", "voted")
# 40,000 characters: six bytes each as JSON, three bytes each in both, and one byte each.
HUGE = {"escaped": "\x01", "Chinese": "字", "Latin": "x"}
MAX_CONTENT_CHARACTERS = 40_000


@pytest.fixture
def huge_posts(connection: Connection, person: Person) -> list[int]:
    """60 posts of 40,000 characters of several kinds and some short ones, all of which the person voted for."""
    values = {f"text{number}": text_ for number, text_ in enumerate(HUGE.values())}
    return rows(
        connection,
        f"""
        WITH made AS (
            INSERT INTO posts (owner_id, title, content, created_at)
            SELECT :owner_id, 'title ' || n,
                CASE n % 5 WHEN 0 THEN 'short' WHEN 1 THEN repeat(:text1, :most)
                    WHEN 2 THEN repeat(:text2, :most) ELSE repeat(:text0, :most) END,
                timestamptz '2026-11-01 00:00:00+00' + interval '1 minute' * n
            FROM generate_series(1, 60) AS n
            RETURNING id, created_at
        ), voted AS (
            INSERT INTO votes (post_id, user_id, created_at) SELECT id, {person.id}, created_at FROM made
        )
        SELECT id FROM made ORDER BY id
        """,
        owner_id=person.id, most=MAX_CONTENT_CHARACTERS, **values,
    )  # fmt: skip


@pytest.mark.parametrize("limit", [7, 100])
@pytest.mark.parametrize("order", ORDERS)
def test_a_walk_over_huge_posts_meets_each_once_and_back_again(
    connection: Connection, person: Person, huge_posts: list[int], order: Order, limit: int
) -> None:
    query = feed.PageQuery(order, limit, reader_id=person.id if order == "voted" else None)

    forwards = walk(connection, person, query)
    backwards = walk(connection, person, query, begin=forwards.last, is_backward=True)

    assert sorted(forwards.ids) == huge_posts
    assert len(forwards.pages) > 60 / limit
    met = [post_id for page in reversed(backwards.pages) for post_id in page]
    assert met == forwards.ids[: len(forwards.ids) - len(forwards.last.rows)]


@pytest.mark.parametrize("sort", ["new", "top"])
def test_no_answer_is_larger_than_a_page_may_be_and_each_page_is_as_full_as_it_can_be(
    client: TestClient, person: Person, huge_posts: list[int], sort: str
) -> None:
    following: str | None = f"/posts?limit=100&sort={sort}"
    pages, shown = [], []
    while following is not None:
        response = client.get(following, headers=person.headers)
        assert client.get(
            following, headers=person.headers | {"If-None-Match": response.headers["ETag"]}
        ).status_code == 304  # fmt: skip
        pages.append(len(response.content))
        shown.append(response.json())
        following = linked(response)

    assert sorted(item["Post"]["id"] for page in shown for item in page) == huge_posts
    assert max(pages) <= MAX_PAGE_BYTES
    for size, page in zip(pages[:-1], shown[1:], strict=True):
        first = json.dumps(page[0], ensure_ascii=False, separators=(",", ":"))
        assert size + len(first.encode()) + 200 > MAX_PAGE_BYTES


def test_a_post_that_is_larger_than_a_page_is_a_page_of_its_own(
    client: TestClient, connection: Connection, person: Person, make_post: Callable[..., int]
) -> None:
    ids = [make_post(person), make_post(person), make_post(person)]
    # As in a database that was adopted.
    connection.execute(text("UPDATE posts SET content = repeat('x', 1500000) WHERE id = :id"), {"id": ids[1]})
    pages = []
    following: str | None = "/posts?limit=100&sort=old"
    while following is not None:
        response = client.get(following, headers=person.headers)
        pages.append([item["Post"]["id"] for item in response.json()])
        following = linked(response)

    assert pages == [ids[:1], ids[1:2], ids[2:]]


def test_the_database_sends_no_more_than_a_page_may_hold(
    database: Engine, connection: Connection, person: Person, huge_posts: list[int]
) -> None:
    newest = huge_posts[-20:]  # All of them have taken longer than a statement may.
    connection.execute(text("UPDATE posts SET content = repeat('字', 40000) WHERE id = ANY(:ids)"), {"ids": newest})
    row_counts: list[int] = []

    def note(_connection: object, cursor: Any, *_: object) -> None:
        row_counts.append(cursor.rowcount)

    event.listen(database, "after_cursor_execute", note)
    try:
        page = read(connection, person, feed.PageQuery("new", 100)).page
    finally:
        event.remove(database, "after_cursor_execute", note)

    assert len(page.rows) == MAX_PAGE_BYTES // (3 * MAX_CONTENT_CHARACTERS)
    assert row_counts == [len(page.rows) + 1]
    assert len(huge_posts) == 60


def test_a_page_changes_its_etag_when_more_fits(connection: Connection, person: Person, huge_posts: list[int]) -> None:
    query = feed.PageQuery("new", 100)
    before = read(connection, person, query)
    last = before.page.rows[-1].id
    (following,) = rows(connection, "SELECT max(id) FROM posts WHERE id < :id", id=last)
    connection.execute(text("UPDATE posts SET content = 'short' WHERE id = :id"), {"id": following})

    after = read(connection, person, query)

    assert [row.id for row in after.page.rows][: len(before.page.rows)] == [row.id for row in before.page.rows]
    assert len(after.page.rows) > len(before.page.rows)
    assert after.etag != before.etag
    assert huge_posts


def test_a_large_page_is_serialized_before_it_reaches_the_event_loop_and_a_small_one_when_it_is_sent(
    connection: Connection, person: Person, huge_posts: list[int], figure: Figure
) -> None:
    def seconds_of(query: feed.PageQuery) -> tuple[feed.Page, float]:
        best, page = 1.0, None
        for _ in range(5):
            reading = read(connection, person, query)
            page = reading.page
            is_ready = "parts" in vars(page)
            began_at = time.thread_time()
            assert reading.json
            best = min(best, time.thread_time() - began_at)
            assert ("parts" in vars(page), is_ready) == (True, len(huge_posts) > 50 and query.limit > 10)
        assert page is not None
        return page, best

    large, large_seconds = seconds_of(feed.PageQuery("new", 100))
    # As large as a page can be that is not measured: all that is in it might be escaped, and is not.
    connection.execute(text("UPDATE posts SET content = repeat('x', 13000)"))
    small, small_seconds = seconds_of(replace(feed.PageQuery("new", 10), skip=5))

    figure(
        f"in the event loop: {len(large.rows)} huge posts {large_seconds * 1000:.1f} ms,"
        f" {len(small.rows)} posts of 13 KB {small_seconds * 1000:.1f} ms"
    )
    assert max(large_seconds, small_seconds) < 0.01
