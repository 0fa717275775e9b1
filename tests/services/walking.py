"""Walk lists by cursors, as a client does with its links; and make many rows to walk over."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from app.security import access_tokens
from app.services import feed
from app.services.feed.pages import PageRows
from tests.fixtures import Person


def read(connection: Connection, reader: Person, query: feed.PageQuery | feed.PostQuery) -> feed.PageResponse:
    """Read one page in a batch of one. Raise the outcome if it is an exception."""
    (outcome,) = feed.read(connection, [feed.PageRequest(access_tokens.verify(reader.token), query)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@dataclass
class Walk:
    """Pages of ids, in the order in which they were met."""

    pages: list[list[int]]
    last: feed.Page

    @property
    def ids(self) -> list[int]:
        return [post_id for page in self.pages for post_id in page]


def walk(
    connection: Connection,
    reader: Person,
    query: feed.PageQuery,
    *,
    begin: feed.Page | None = None,
    is_backward: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Walk:
    """Follow the `next` (or `prev`) links, from the first page or from `begin`, until there is none."""
    met = Walk([], begin or feed.Page(PageRows([])))
    cursor = None
    if begin is not None:
        cursor = begin.previous_cursor if is_backward else begin.next_cursor
        if cursor is None:
            return met
    while True:
        position = feed.position_of(cursor, query.order) if cursor else None
        page = read(connection, reader, replace(query, position=position)).page
        assert len(page.rows) <= query.limit
        ids = [row.id for row in page.rows]
        met.pages.append(ids)
        if page.rows:
            met.last = page
        cursor = page.previous_cursor if is_backward else page.next_cursor
        if cursor is None:
            return met
        between()


def rows(connection: Connection, statement: str, **parameters: Any) -> list[Any]:
    return list(connection.scalars(text(statement), parameters))


def make_voters(connection: Connection, count: int) -> list[int]:
    """Users that only vote. None of them is signed in."""
    return rows(
        connection,
        """
        INSERT INTO users (email, email_canonical, password_hash)
        SELECT email, email, 'x' FROM (SELECT 'voter' || n || '@' || gen_random_uuid() FROM generate_series(1, :n) AS n)
            AS voter (email)
        RETURNING id
        """,
        n=count,
    )


def make_posts(connection: Connection, owner: Person, count: int) -> list[int]:
    """Published posts, three in each minute; the first is the oldest."""
    return rows(
        connection,
        """
        INSERT INTO posts (owner_id, title, content, created_at)
        SELECT :owner_id, 'title ' || n, 'content ' || n,
            timestamptz '2026-11-01 00:00:00+00' + interval '1 minute' * (n / 3)
        FROM generate_series(1, :n) AS n
        RETURNING id
        """,
        owner_id=owner.id,
        n=count,
    )


def cast_at_random(connection: Connection, voters: list[int], seed: float) -> None:
    """A few votes for most posts, many for some: with a good many ties."""
    connection.execute(text("SELECT setseed(:seed)"), {"seed": seed})
    connection.execute(
        text("""
            INSERT INTO votes (post_id, user_id)
            SELECT posts.id, voter FROM posts, unnest(CAST(:voters AS bigint[])) AS voter
            WHERE random() < 0.02 * (posts.id % 11)
        """),
        {"voters": voters},
    )
