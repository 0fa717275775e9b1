"""Rows of the statements that read posts."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from sqlalchemy import Row


class PostRow(NamedTuple):
    """A post with its owner, votes and readers.

    The fields are the columns of the statements, in their order. Times are PostgreSQL's text, because reading one as a
    `datetime` and writing that as JSON takes about three times as long.
    """

    id: int
    title: str
    content: str
    published: bool
    created_at: str
    updated_at: str
    published_at: str | None
    version: int
    xmin: str  # The transaction that wrote the row of the post.
    owner_id: int
    username: str
    owner_created_at: str
    email: str
    # A JSON array of strings.
    tags: str
    locked: bool
    removal_reason: str | None
    votes: int
    comments: int
    # The readers of the batch who voted for it.
    voters: list[int]
    # The readers of the batch who bookmarked it, and those who blocked its owner. None stands for none.
    bookmarkers: list[int] | None
    blockers: list[int] | None
    # Valid sessions with their users and roles, in one row of the statement.
    session_ids: list[int] | None
    reader_ids: list[int] | None
    roles: list[str] | None
    # Of pages: whether the list has another post after this one, the size of the text, and what a cursor needs.
    is_followed: bool = False
    octets: int = 0
    sort_value: str | int | float | None = None
    began_at: str | None = None
    # With several pages in one statement: the number of the page, and the place on it.
    number: int = 0
    place: int = 0

    @property
    def tag_names(self) -> list[str]:
        """The tags of the post, in order."""
        names: list[str] = json.loads(self.tags)
        return names

    @classmethod
    def all_of(cls, rows: Iterable[Row[*tuple[Any, ...]]]) -> list[Self]:
        """Return the rows as tuples of this type.

        An attribute of a `Row` takes 0.7 µs, and a post has 23.
        """
        return [cls(*row) for row in rows]


# The columns of all statements, and those of pages.
POST_COLUMNS = PostRow._fields[: PostRow._fields.index("is_followed")]
PAGE_COLUMNS = PostRow._fields[: PostRow._fields.index("number")]
