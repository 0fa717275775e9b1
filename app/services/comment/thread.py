"""Threads: a page of comments with the first replies below each, in one statement for a batch of requests.

Each level reads the first replies of at most `MAX_EXPANDED` comments of the level above, by index. So the cost depends
on what a page shows, and not on the size of the thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Integer, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.dialects.postgresql.base import PGDialect

from app.config import MODERATING
from app.database.prepared import PreparedStatement
from app.errors import CommentNotFound, MalformedCursor, NotAuthenticated, PostNotFound
from app.models import Session
from app.models.base import LARGEST_KEY, possible_key
from app.schemas import cursor as cursors
from app.schemas.comment import MAX_THREAD_DEPTH
from app.schemas.types import MAX_PAGE_SIZE
from app.security.access_tokens import ANONYMOUS, AccessToken
from app.services.comment.rows import AUTHOR, BY_ID, COLUMNS, IS_REMOVED_LEAF, MAX_PAGE_BYTES, CommentRow, serialize

Sort = Literal["top", "new", "old"]
MAX_REPLIES = 5
# How many requests share a statement. The rows of one may have 1 MB.
MAX_TOGETHER = 32
# How many comments of a level get their replies.
MAX_EXPANDED = 100
# Before the first comment of a list.
_START: Mapping[Sort, tuple[int, int]] = {"top": (2**31 - 1, LARGEST_KEY), "new": (0, LARGEST_KEY), "old": (0, 0)}


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Which comments of a post to read.

    `position` has the votes and the id of the last comment of the page before.
    """

    post_id: int
    parent_id: int | None
    sort: Sort
    limit: int
    depth: int
    position: tuple[int, int] | None = None


class ThreadRequest(NamedTuple):
    """One request: the caller's token, which the statement authenticates, and the query."""

    token: AccessToken
    query: ThreadQuery


class Thread(NamedTuple):
    """The comments as a JSON array, and the cursor of the next page."""

    json: bytes
    next_cursor: str | None


def position_of(cursor: str, post_id: int, parent_id: int | None, sort: Sort) -> tuple[int, int]:
    """Return the position of a cursor.

    Raises `MalformedCursor` unless it belongs to this list.
    """
    match cursors.verify(cursor):
        case ["comments", str(made_for), int(post), int() | None as parent, int(votes), int(last_id)] if (
            made_for,
            post,
            parent,
        ) == (sort, post_id, parent_id):
            return votes, last_id
    raise MalformedCursor


# The first comments with this parent. Each order ends in the comment's id, and uses an index.
_FROM_STATS = """
    SELECT stats.comment_id AS id, stats.votes FROM comment_stats AS stats
    WHERE stats.post_id = asked.post_id AND stats.parent_key = {parent_key} {after}
    ORDER BY stats.votes DESC, stats.comment_id DESC LIMIT {rows}
"""
_FROM_COMMENTS = """
    SELECT comments.id FROM comments WHERE comments.post_id = asked.post_id AND comments.parent_id {is_parent} {after}
    ORDER BY comments.parent_id {direction}, comments.id {direction} LIMIT {rows}
"""
# `asked.rows` is one more than the page shows. That comment only tells that there is a next page.
_FIRST_LEVEL = """
    level_0 AS MATERIALIZED (
        SELECT c.*, 0 AS level, listed.place
        FROM post CROSS JOIN LATERAL (
            SELECT placed.* FROM {placed} ORDER BY placed.place LIMIT asked.rows
        ) AS listed {by_id}
    )
"""
_NEXT_LEVEL = """
    level_{level} AS MATERIALIZED (
        SELECT c.*, {level} AS level, {max_replies} * parent.place + listed.place AS place
        FROM (
            SELECT above.id, above.place FROM level_{above} AS above
            WHERE above.replies > 0 AND asked.depth >= {level} AND {is_on_page}
            ORDER BY above.place LIMIT {max_expanded}
        ) AS parent CROSS JOIN LATERAL (SELECT placed.* FROM {placed}) AS listed {by_id}
    )
"""
# Rows that start past `MAX_PAGE_BYTES` are dropped, because JSON is never shorter than the text.
_STATEMENT = """
    SELECT asked.number, thread.* FROM unnest(
        :numbers, :session_ids, :user_ids, :post_ids, :parent_ids, :votes, :last_ids, :rows, :depths
    ) AS asked (number, session_id, user_id, post_id, parent_id, votes, last_id, rows, depth)
    LEFT JOIN LATERAL (
        WITH reader AS MATERIALIZED (
            SELECT users.id, sessions.kind = 'login' AND users.role IN {moderating} AS is_moderator
            FROM sessions JOIN users ON {is_valid}
            WHERE sessions.id = asked.session_id AND users.id = asked.user_id
            UNION ALL SELECT asked.user_id, false WHERE asked.user_id = {anonymous}
        ), post AS MATERIALIZED (
            SELECT posts.id FROM posts CROSS JOIN reader
            WHERE posts.id = asked.post_id AND (posts.published OR posts.owner_id = reader.id OR reader.is_moderator)
                AND (SELECT NOT users.is_deleted FROM users WHERE users.id = posts.owner_id)
        ), {levels}
        SELECT reader.id AS reader_id, post.id AS seen_post_id, {has_parent} AS has_parent,
            (SELECT count(*) FROM level_0) AS found_count, {is_hidden} AS is_hidden, c.level, c.place, {columns}
        FROM reader LEFT JOIN post ON true LEFT JOIN (
            SELECT *, sum(octets) OVER (ORDER BY level, place) - octets AS octets_before
            FROM ({all_levels}) AS listed WHERE level > 0 OR place < asked.rows
        ) AS c ON c.octets_before < {max_bytes} {author}
    ) AS thread ON true
    ORDER BY asked.number, thread.level, thread.place
"""
_READER = {"reader_id": "reader.id", "is_moderator": "reader.is_moderator"}
# The reader blocked the author, whose comments moderators see, or a moderator has removed it.
_IS_HIDDEN = f"""
    (NOT reader.is_moderator AND EXISTS (
        SELECT FROM blocks WHERE blocks.blocker_id = reader.id AND blocks.blocked_id = c.owner_id
    ) OR {IS_REMOVED_LEAF.format(**_READER)})
"""
_IS_VALID = str(Session.is_valid().compile(dialect=PGDialect()))
_HAS_PARENT = f"""
    EXISTS (
        SELECT FROM (
            SELECT comments.removal_reason, comments.owner_id, stats.replies
            FROM comments JOIN comment_stats AS stats ON stats.comment_id = comments.id
            WHERE comments.post_id = asked.post_id AND comments.id = asked.parent_id
        ) AS c WHERE NOT {IS_REMOVED_LEAF.format(**_READER)}
    )
"""
_PARAMETERS = [
    *(bindparam(name, type_=ARRAY(BIGINT)) for name in ("session_ids", "user_ids", "post_ids", "parent_ids")),
    *(bindparam(name, type_=ARRAY(Integer)) for name in ("numbers", "votes", "rows", "depths")),
    bindparam("last_ids", type_=ARRAY(BIGINT)),
]


def _list(sort: Sort, parent: str | None, *, is_first: bool = False) -> str:
    """Return the FROM item of the first comments below the parent, each with its place; None is the post itself."""
    rows = MAX_PAGE_SIZE + 1 if is_first else MAX_REPLIES
    if sort == "top":
        after = "AND (stats.votes, stats.comment_id) < (asked.votes, asked.last_id)" if is_first else ""
        listed = _FROM_STATS.format(parent_key=parent or 0, after=after, rows=rows)
        order = "list.votes DESC, list.id DESC"
    else:
        sign, direction = ("<", "DESC") if sort == "new" else (">", "ASC")
        after = f"AND comments.id {sign} asked.last_id" if is_first else ""
        is_parent = "IS NULL" if parent is None else f"= {parent}"
        listed = _FROM_COMMENTS.format(is_parent=is_parent, after=after, direction=direction, rows=rows)
        order = f"list.id {direction}"
    return f"(SELECT list.id, row_number() OVER (ORDER BY {order}) AS place FROM ({listed}) AS list) AS placed"


@lru_cache
def _statement(sort: Sort, *, has_parent: bool) -> PreparedStatement:
    first = _list(sort, "asked.parent_id" if has_parent else None, is_first=True)
    levels = [_FIRST_LEVEL.format(placed=first, by_id=BY_ID)] + [
        _NEXT_LEVEL.format(
            level=level,
            above=level - 1,
            max_replies=MAX_REPLIES,
            max_expanded=MAX_EXPANDED,
            is_on_page="above.place < asked.rows" if level == 1 else "true",
            placed=_list(sort, "parent.id"),
            by_id=BY_ID,
        )
        for level in range(1, MAX_THREAD_DEPTH + 1)
    ]
    statement = _STATEMENT.format(
        moderating=tuple(sorted(MODERATING)),
        is_valid=_IS_VALID,
        anonymous=ANONYMOUS.user_id,
        levels=", ".join(levels),
        has_parent=_HAS_PARENT if has_parent else "true",
        is_hidden=_IS_HIDDEN,
        columns=COLUMNS.format(**_READER),
        all_levels=" UNION ALL ".join(f"SELECT * FROM level_{level}" for level in range(MAX_THREAD_DEPTH + 1)),
        max_bytes=MAX_PAGE_BYTES,
        author=AUTHOR.format(**_READER),
    )
    return PreparedStatement(text(statement).bindparams(*_PARAMETERS))


def read(connection: Connection, requests: Sequence[ThreadRequest]) -> list[Thread | Exception]:
    """Return one outcome per request, in order, with one statement for `MAX_TOGETHER` requests of a kind.

    It is a `Thread`, `NotAuthenticated`, `PostNotFound`, or `CommentNotFound` for the parent.
    """
    kinds: dict[tuple[Sort, bool], list[int]] = {}
    for number, request in enumerate(requests):
        kinds.setdefault((request.query.sort, request.query.parent_id is not None), []).append(number)
    outcomes: dict[int, Thread | Exception] = {}
    for (sort, has_parent), of_kind in kinds.items():
        for first in range(0, len(of_kind), MAX_TOGETHER):
            numbers = of_kind[first : first + MAX_TOGETHER]
            rows = _statement(sort, has_parent=has_parent).execute(connection, _parameters(requests, numbers))
            for number, of_request in groupby(rows, attrgetter("number")):
                outcomes[number] = _outcome(requests[number], list(of_request))
    return [outcomes[number] for number in range(len(requests))]


def _parameters(requests: Sequence[ThreadRequest], numbers: Sequence[int]) -> dict[str, object]:
    asked = [requests[number] for number in numbers]
    starts = [request.query.position or _START[request.query.sort] for request in asked]
    return {
        "numbers": numbers,
        "session_ids": [request.token.session_id for request in asked],
        "user_ids": [request.token.user_id for request in asked],
        "post_ids": [possible_key(request.query.post_id) for request in asked],
        "parent_ids": [possible_key(request.query.parent_id or 0) for request in asked],
        "votes": [votes for votes, _ in starts],
        "last_ids": [last_id for _, last_id in starts],
        "rows": [request.query.limit + 1 for request in asked],
        "depths": [request.query.depth for request in asked],
    }


def _outcome(request: ThreadRequest, rows: Sequence[Row[*tuple[Any, ...]]]) -> Thread | Exception:
    (first, *_) = rows
    if first.reader_id is None:
        return NotAuthenticated()
    if first.seen_post_id is None:
        return PostNotFound(request.query.post_id)
    if not first.has_parent:
        return CommentNotFound(request.query.parent_id or 0)
    if first.id is None:
        return Thread(b"[]", None)
    found = [(row.level, row.is_hidden, CommentRow(*row[_FIRST_COLUMN:])) for row in rows]
    return _thread(request, found, first.found_count)


# The columns before those of `CommentRow`.
_FIRST_COLUMN = len(("number", "reader_id", "seen_post_id", "has_parent", "found_count", "is_hidden", "level", "place"))


def _thread(request: ThreadRequest, found: Sequence[tuple[int, bool, CommentRow]], found_count: int) -> Thread:
    """Return the rows, which are sorted by level, as JSON.

    Hidden comments are left out with the replies below them, which no comment shows then, and so are the last ones that
    do not fit.
    """
    parts: list[tuple[int, CommentRow, bytes]] = []
    size = len("[]")
    listed: list[CommentRow] = []  # Of the first level, also hidden ones.
    for level, is_hidden, row in found:
        if not is_hidden:
            part = serialize(row, request.token.user_id)
            size += len(part) + len(',"replies":[]},')
            if parts and size > MAX_PAGE_BYTES:
                break
            parts.append((level, row, part))
        if level == 0:
            listed.append(row)
    replies: dict[int, list[bytes]] = {}
    top: list[bytes] = []
    # From the last level, so that a comment's replies are complete when it is reached.
    for level, row, part in reversed(parts):
        whole = b'%s,"replies":[%s]}' % (part, b",".join(reversed(replies.pop(row.id, []))))
        (replies.setdefault(row.parent_id or 0, []) if level else top).append(whole)
    query, last = request.query, listed[-1]
    values = ["comments", query.sort, query.post_id, query.parent_id, last.votes, last.id]
    return Thread(b"[%s]" % b",".join(reversed(top)), cursors.sign(values) if found_count > len(listed) else None)
