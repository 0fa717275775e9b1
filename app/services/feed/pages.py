"""Pages of posts: cursors, and statements that each need a plan of their own.

These are the statements of searches, drafts, filtered lists sorted by votes, and an author's posts with a tag.

A traversal is a sequence of pages, each requested with the cursor of the page before. A cursor has the sort values of
the last row, and the page continues after them (keyset pagination). A post whose sort values stay the same during a
traversal appears in it exactly once. Votes change those of `top` and `hot`: a post that gains or loses votes during a
traversal may appear twice or not at all (docs/decisions/0031-sort-later-pages-by-current-votes.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Double,
    Integer,
    Subquery,
    Text,
    UnaryExpression,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.types import TypeEngine

from app.config import Sort
from app.database.prepared import PreparedStatement
from app.errors import MalformedCursor
from app.models import Post, PostStats, User
from app.models.base import Key, possible_key
from app.schemas import cursor as cursors
from app.schemas.cursor import CursorValue
from app.security.access_tokens import AccessToken
from app.services.feed import readers, search
from app.services.feed.readers import AnySelect
from app.services.feed.rows import PAGE_COLUMNS, POST_COLUMNS, PostRow
from app.services.feed.serialization import MAX_ENDING_BYTES, serialize

# `voted`: the posts that a user voted for, newest vote first. `bookmarked`: the same of bookmarks. `home`: posts of
# followed users and tags, newest first.
Order = Literal[Sort, "voted", "bookmarked", "home"]


# Maximum size of a page's JSON. A page ends before the post that would exceed it; the list continues at `next_cursor`.
MAX_PAGE_BYTES = 1_000_000
# JSON escapes a character of one byte with at most six. The rest of a post (keys, times, names, tags) takes less than
# `MAX_OTHER_BYTES`.
MAX_ESCAPED_BYTES = 6
MAX_OTHER_BYTES = 4_200


class Position(NamedTuple):
    """Position of a traversal.

    It has the sort values of the last row, the time of the first page, and the search. Only `voted` and `bookmarked`
    have the time.
    """

    is_backward: bool
    value: CursorValue
    post_id: int
    began_at: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The query for a page.

    Equal queries in a batch share one statement and one result.
    """

    order: Order
    limit: int
    skip: int = 0
    search: str | None = None
    owner_id: int | None = None
    is_drafts: bool = False
    created_after: datetime | None = None
    created_before: datetime | None = None
    # The reader whose own votes, bookmarks or home page are listed.
    reader_id: int | None = None
    tag: str | None = None
    position: Position | None = None
    # Whether the page is cut to `MAX_PAGE_BYTES` as JSON. A page that is not serialized is only cut to as much text.
    is_serialized: bool = True


class PageRows(NamedTuple):
    """Posts in order, each with its relations to the readers, and two cursors.

    `parts` are the serialized rows, if the page had to be measured.
    """

    rows: Sequence[PostRow]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    parts: Sequence[bytes] | None = None


class PageResult(NamedTuple):
    """A page, and the roles of its readers with valid sessions, by session and user."""

    page: PageRows
    roles: Mapping[tuple[int, int], str]


def read_page(connection: Connection, query: PageQuery, tokens: Iterable[AccessToken]) -> PageResult:
    """Read a page once for all its readers, with a statement of its own.

    It is for searches, drafts, filtered lists sorted by votes, and an author's posts with a tag (`lists.py` reads the
    others).

    This takes one statement, preceded by another one if published posts are searched, and by one if they have a tag.
    The connection must be in AUTOCOMMIT, with a snapshot for each statement.
    """
    position = query.position
    skip = query.skip if position is None else 0
    parameters: dict[str, object] = {
        **readers.parameters(tokens),
        "rows": query.limit + 1,  # One more than the page shows whether there is another page.
        "skip": skip,
        "owner_id": query.owner_id,
        "created_after": query.created_after,
        "created_before": query.created_before,
        "tags": None if query.tag is None else [query.tag],
    }
    if query.search is not None:
        words = query.search
        parameters |= search.parameters(words) if query.is_drafts else search.find(connection, words)
    if query.tag is not None and not query.is_drafts and "found" not in parameters:
        parameters |= search.find_tagged(connection, query.tag)
    if position is not None:
        parameters |= {"value": position.value, "post_id": position.post_id}
    is_backward = position is not None and position.is_backward
    kind = _Kind(
        query.order,
        is_walk=position is not None,
        is_backward=is_backward,
        is_drafts=query.is_drafts,
        skips=skip > 0,
        filters=tuple(name for name in _FILTERS if parameters.get(name) is not None),
    )
    rows = PostRow.all_of(connection.execute(_page_statement(kind), parameters))
    roles = readers.roles_of_valid_sessions(rows)
    return PageResult(page_of(query, [row for row in rows if row.id is not None]), roles)


def page_of(query: PageQuery, rows: Sequence[PostRow]) -> PageRows:
    """Return the rows in the order of the list, cut to the limit and `MAX_PAGE_BYTES`."""
    position = query.position
    is_backward = position is not None and position.is_backward
    rows = rows[: query.limit]
    if not rows:
        return PageRows(rows)
    rows, parts = _fitting(rows) if query.is_serialized else (rows, None)
    has_more = rows[-1].is_followed
    if is_backward:
        rows, parts = rows[::-1], parts and parts[::-1]
    has_next = is_backward or has_more
    has_previous = has_more if is_backward else position is not None or query.skip > 0
    return PageRows(
        rows,
        _cursor(query, rows[-1], is_backward=False) if has_next else None,
        _cursor(query, rows[0], is_backward=True) if has_previous else None,
        parts,
    )


def _fitting(rows: Sequence[PostRow]) -> tuple[Sequence[PostRow], Sequence[bytes] | None]:
    """Return the first rows, at least one, whose JSON fits into `MAX_PAGE_BYTES`.

    They are returned serialized if the whole page might not fit; otherwise the second value is None.
    """
    octets = sum(row.octets + len(row.removal_reason or "") for row in rows)
    if MAX_ESCAPED_BYTES * octets + MAX_OTHER_BYTES * len(rows) <= MAX_PAGE_BYTES:
        return rows, None
    parts: list[bytes] = []
    size = len("[")
    for row in rows:
        part = serialize(row)
        size += len(part) + MAX_ENDING_BYTES
        if parts and size > MAX_PAGE_BYTES:
            break
        parts.append(part)
    return rows[: len(parts)], parts


_SHOWN = (
    Post.id,
    Post.title,
    Post.content,
    Post.published,
    cast(Post.created_at, Text).label("created_at"),
    cast(Post.updated_at, Text).label("updated_at"),
    cast(Post.published_at, Text).label("published_at"),
    Post.version,
    literal_column("posts.xmin", Text).label("xmin"),
    Post.owner_id,
    User.username,
    cast(User.created_at, Text).label("owner_created_at"),
    User.email,
    cast(func.to_json(Post.tags), Text).label("tags"),
    Post.media,
    Post.locked,
    Post.removal_reason,
    PostStats.votes,
    PostStats.comments,
)


def read_posts(connection: Connection, requests: Sequence[tuple[AccessToken, int]]) -> dict[int, PageResult]:
    """Read posts by id in one statement, drafts included, each as a page of its own.

    A post that does not exist is an empty page.
    """
    result = _POSTS.execute(
        connection,
        {
            "session_ids": sorted({token.session_id for token, _ in requests}),
            "user_ids": [token.user_id for token, _ in requests],
            "asked_post_ids": [possible_key(post_id) for _, post_id in requests],
            "post_ids": sorted({key for _, post_id in requests if (key := possible_key(post_id)) is not None}),
        },
    )
    rows = PostRow.all_of(result)
    roles = readers.roles_of_valid_sessions(rows)
    found = {row.id: PageRows([row]) for row in rows if row.id is not None}
    return {post_id: PageResult(found.get(post_id, PageRows([])), roles) for _, post_id in requests}


def _joined(shown: AnySelect) -> AnySelect:
    """Join owners and counts.

    Posts of deleted accounts are hidden until they are removed.
    """
    return shown.join(User, Post.has_owner()).join(PostStats, PostStats.post_id == Post.id)


def _posts_statement() -> AnySelect:
    wanted = Post.id == bindparam("post_ids", type_=ARRAY(BIGINT)).any_()
    posts = _joined(select(*_SHOWN)).where(wanted).subquery("post")
    found = readers.with_readers(posts, readers.relations_of_askers(posts), [posts.c.id.asc()])
    return found.with_only_columns(*(found.selected_columns[name] for name in POST_COLUMNS))


_POSTS = PreparedStatement(_posts_statement())


def position_of(cursor: str, order: Order) -> Position:
    """Return the position of a cursor.

    Raises `MalformedCursor` unless it belongs to this order.
    """
    made_for, is_backward, value, post_id, began_at, words = [*cursors.verify(cursor), *[None] * 6][:6]
    if made_for != order or isinstance(value, list) or not isinstance(post_id, int):
        raise MalformedCursor
    if order not in {"voted", "bookmarked"}:
        began_at = None  # Cursors of earlier releases have a snapshot here, with which they kept the order of `top`.
    if not isinstance(began_at, str | None) or not isinstance(words, str | None):
        raise MalformedCursor
    return Position(bool(is_backward), value, post_id, began_at, words)


def _cursor(query: PageQuery, row: PostRow, *, is_backward: bool) -> str:
    began_at = query.position.began_at if query.position else row.began_at
    words = () if query.search is None else (query.search,)
    return cursors.sign([query.order, is_backward, row.sort_value, row.id, began_at, *words])


_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "search": search.MATCHES,
    "found": Post.id == bindparam("found", type_=ARRAY(BIGINT)).any_(),
    "owner_id": Post.owner_id == bindparam("owner_id", type_=Key),
    "created_after": Post.created_at > bindparam("created_after", type_=DateTime(timezone=True)),
    "created_before": Post.created_at < bindparam("created_before", type_=DateTime(timezone=True)),
    "tags": Post.tags.contains(bindparam("tags", type_=ARRAY(Text))),
}

# Sort columns of each order. All end in the post's id, and use an index in both directions.
_SORTED_BY: Mapping[Order, tuple[ColumnElement[Any], ColumnElement[int], TypeEngine[Any]]] = {
    "new": (Post.created_at.expression, Post.id.expression, DateTime(timezone=True)),
    "old": (Post.created_at.expression, Post.id.expression, DateTime(timezone=True)),
    "top": (PostStats.votes.expression, PostStats.post_id.expression, Integer()),
    "hot": (PostStats.hot.expression, PostStats.post_id.expression, Double()),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Everything on which the SQL text of a page depends."""

    order: Order
    is_walk: bool
    is_backward: bool
    is_drafts: bool
    skips: bool
    filters: tuple[str, ...]


# A statement takes up to 160 KB, and clients can request about 4,000 of them. With this maximum both caches take at
# most 14 MB. Building a statement that is not cached takes some milliseconds.
MAX_STATEMENTS = 48


@lru_cache(maxsize=MAX_STATEMENTS)
def _page_statement(kind: _Kind) -> AnySelect:
    posts = _window(kind).limit(bindparam("rows", type_=Integer)).subquery("page")
    order = _ordered(kind, posts.c.sort_value, posts.c.id)
    return _bounded(kind, readers.with_readers(posts, readers.relations_of_readers(posts), order), posts, order)


def _bounded(kind: _Kind, page: AnySelect, posts: Subquery, order: Sequence[UnaryExpression[Any]]) -> AnySelect:
    """Drop rows that start past `MAX_PAGE_BYTES`; add whether each has a successor.

    JSON is never shorter than the text, so every row that fits is kept. PostgreSQL knows the length of a long text
    without reading it. The window is the same as in `with_readers`.
    """
    title, content, media = (func.octet_length(posts.c[name]) for name in ("title", "content", "media"))
    octets = title + content + media
    measured = page.add_columns(
        octets.label("octets"),
        (func.sum(octets).over(order_by=order) - octets).label("octets_before"),
        func.lead(posts.c.id).over(order_by=order).is_not(None).label("is_followed"),
    ).subquery("measured")
    shown = {column.name: column for column in measured.c}
    if kind.order in {"new", "old"}:
        shown["sort_value"] = cast(measured.c.sort_value, Text).label("sort_value")
    # `octets_before` is null in the row that has only sessions.
    is_past = measured.c.octets_before >= literal_column(str(MAX_PAGE_BYTES))
    found = select(*(shown[name] for name in PAGE_COLUMNS)).where(is_past.is_not(True))
    return found.order_by(*_ordered(kind, measured.c.sort_value, measured.c.id))


def _window(kind: _Kind) -> AnySelect:
    value, post_id, _ = _SORTED_BY[kind.order]
    shown = _joined(select(*_SHOWN, value.label("sort_value"), null().label("began_at"))).where(*_conditions(kind))
    if kind.is_walk:
        shown = shown.where(_beyond(kind, value, post_id))
    page = _sorted(shown, kind, value, post_id)
    return page.offset(bindparam("skip", type_=Integer)) if kind.skips else page


def _conditions(kind: _Kind) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [_FILTERS[name] for name in kind.filters]
    published: ColumnElement[bool] = Post.published.expression
    if kind.is_drafts:
        return [*conditions, ~published, readers.MAY_SEE_DRAFTS]
    conditions.append(published)
    if kind.order in {"top", "hot"}:
        # PostgreSQL uses the partial index of `post_stats` only under the condition on that table.
        conditions.append(PostStats.published.expression)
    return conditions


def _is_ascending(kind: _Kind) -> bool:
    return (kind.order == "old") != kind.is_backward


def _beyond(kind: _Kind, value: ColumnElement[Any], post_id: ColumnElement[int]) -> ColumnElement[bool]:
    """That a row comes after the traversal's position, in its direction."""
    row = tuple_(value, post_id)
    position = tuple_(bindparam("value", type_=_SORTED_BY[kind.order][2]), bindparam("post_id", type_=Key))
    return row > position if _is_ascending(kind) else row < position


def _sorted(statement: AnySelect, kind: _Kind, value: ColumnElement[Any], post_id: ColumnElement[int]) -> AnySelect:
    if "found" in kind.filters:
        # OFFSET 0 keeps the planner from scanning the sorted list for the few posts that were found.
        few = statement.offset(literal_column("0")).subquery()
        statement, value, post_id = select(few), few.c.sort_value, few.c.id
    return statement.order_by(*_ordered(kind, value, post_id))


def _ordered(kind: _Kind, value: ColumnElement[Any], post_id: ColumnElement[int]) -> list[UnaryExpression[Any]]:
    return [value.asc(), post_id.asc()] if _is_ascending(kind) else [value.desc(), post_id.desc()]
