"""Pages of lists: one statement for all pages of a batch that are of one kind.

The statement takes the values of its pages (cursor, skip, author, dates, limit, readers) as arrays, and reads the rows
of each page in a LATERAL subquery. So a batch costs as many statements as it has kinds of pages, and PostgreSQL plans
each kind once per connection (docs/decisions/0030-read-all-pages-of-a-kind-in-one-statement.md).

Searches, drafts, filtered lists sorted by votes, and the posts of an author with a tag are not among these kinds,
because their best plan depends on values (`pages.py`). No index has the posts of an author, of a tag, or of some days,
sorted by votes: few posts are best found and sorted, and among many a scan of the whole list soon finds the next
ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter

from sqlalchemy import Connection, DateTime, Integer, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.database.prepared import PreparedStatement
from app.models.base import possible_key
from app.schemas.types import MAX_PAGE_SIZE, MAX_SKIP
from app.security.access_tokens import AccessToken
from app.services.feed import readers
from app.services.feed.home import home_list
from app.services.feed.pages import MAX_PAGE_BYTES, Order, PageQuery, PageResult, page_of
from app.services.feed.rows import PostRow

# How many rows of its list a page may need, counted from its start. A statement is planned for one of these numbers,
# because with another limit another plan is best.
MAX_BOUNDED_REACH = 1_000
REACHES = (MAX_PAGE_SIZE + 1, MAX_BOUNDED_REACH, MAX_SKIP + MAX_PAGE_SIZE + 1)

# A page begins in one of these lists. Each order ends in the post's id and uses an index in both directions.
_FROM_PUBLISHED = """
    SELECT posts.id AS post_id, posts.created_at AS sort_value, NULL AS began_at FROM posts
    WHERE posts.published AND {visible}
    ORDER BY posts.created_at {direction}, posts.id {direction} LIMIT {reach}
"""
_FROM_POSTS = """
    SELECT posts.*, posts.xmin, posts.created_at AS sort_value, NULL AS began_at FROM posts
    WHERE posts.published AND {visible} {conditions}
    ORDER BY posts.created_at {direction}, posts.id {direction} LIMIT {reach}
"""
_FROM_STATS = """
    SELECT post_stats.post_id, post_stats.{order} AS sort_value, NULL AS began_at FROM post_stats
    WHERE post_stats.published AND {visible} {conditions}
    ORDER BY post_stats.{order} {direction}, post_stats.post_id {direction} LIMIT {reach}
"""
_FROM_VOTES = """
    SELECT votes.post_id, votes.created_at AS sort_value, now()::text AS began_at FROM votes
    CROSS JOIN LATERAL (
        SELECT FROM posts WHERE posts.id = votes.post_id AND posts.published AND {visible} LIMIT 1
    ) AS votable
    WHERE votes.user_id = asked.reader_id {conditions}
    ORDER BY votes.created_at {direction}, votes.post_id {direction} LIMIT {reach}
"""
_FROM_TAGS = """
    SELECT post_tags.post_id, post_tags.created_at AS sort_value, NULL AS began_at FROM post_tags
    WHERE post_tags.tag_id = (SELECT tags.id FROM tags WHERE tags.name = asked.tag) AND post_tags.published
        AND {visible} {conditions}
    ORDER BY post_tags.created_at {direction}, post_tags.post_id {direction} LIMIT {reach}
"""
_FROM_BOOKMARKS = _FROM_VOTES.replace("votes", "bookmarks").replace("votable", "bookmarkable")
# Posts of deleted accounts are hidden until they are removed. While no account waits for that, no owner is looked up.
# These are scalar subqueries, which PostgreSQL looks up row by row: for NOT EXISTS it would read all deleted users.
_IS_VISIBLE = """
    ((SELECT NOT EXISTS (SELECT FROM deletions))
        OR NOT (SELECT users.is_deleted FROM users WHERE users.id = posts.owner_id))
"""
# By id, a list needs no column but those of its index, and PostgreSQL reads only the index.
_IS_VISIBLE_BY_ID = """
    ((SELECT NOT EXISTS (SELECT FROM deletions)) OR NOT (
        SELECT users.is_deleted FROM posts AS post JOIN users ON users.id = post.owner_id WHERE post.id = {post_id}))
"""
_IS_PUBLISHED_VISIBLE = _IS_VISIBLE_BY_ID.format(post_id="posts.id")
_IS_RANKED_VISIBLE = _IS_VISIBLE_BY_ID.format(post_id="post_stats.post_id")
# For each order: its list, the visibility of a post, the columns of its index, and the type of the first.
_LISTS: Mapping[Order, tuple[str, str, str, str]] = {
    "new": (_FROM_POSTS, _IS_VISIBLE, "posts.created_at, posts.id", "timestamptz"),
    "old": (_FROM_POSTS, _IS_VISIBLE, "posts.created_at, posts.id", "timestamptz"),
    "top": (_FROM_STATS, _IS_RANKED_VISIBLE, "post_stats.votes, post_stats.post_id", "integer"),
    "hot": (_FROM_STATS, _IS_RANKED_VISIBLE, "post_stats.hot, post_stats.post_id", "double precision"),
    "voted": (_FROM_VOTES, _IS_VISIBLE, "votes.created_at, votes.post_id", "timestamptz"),
    "bookmarked": (_FROM_BOOKMARKS, _IS_VISIBLE, "bookmarks.created_at, bookmarks.post_id", "timestamptz"),
}
_OF_TAG = (
    _FROM_TAGS,
    _IS_VISIBLE_BY_ID.format(post_id="post_tags.post_id"),
    "post_tags.created_at, post_tags.post_id",
    "timestamptz",
)
# The lists that each reader has of their own, and the tables of those that are sorted by the time of a row of one.
_OWN: frozenset[Order] = frozenset({"voted", "bookmarked", "home"})
_DATED: Mapping[Order, str] = {"voted": "votes", "bookmarked": "bookmarks"}
_CONDITIONS = {
    "owner_id": "AND posts.owner_id = asked.owner_id",
    "created_after": "AND {dated}.created_at > asked.created_after",
    "created_before": "AND {dated}.created_at < asked.created_before",
    "tag": "",  # Another list has them (`_OF_TAG`).
}
_COLUMNS = """
    {post}.id, {post}.title, {post}.content, {post}.published, {post}.created_at, {post}.updated_at,
    coalesce({post}.first_published_at, CASE WHEN {post}.published THEN {post}.created_at END) AS published_at,
    {post}.version, {post}.xmin, {post}.owner_id, to_json({post}.tags)::text AS tags, {post}.locked,
    {post}.removal_reason,
    listed.sort_value, listed.began_at
"""
# OFFSET and LIMIT of `_ROWS_OF_LIST` have the values of the page, the list has the limit for which it is planned.
# Subqueries with LIMIT 1 are looked up row by row: the planner does not know how few rows there are, and would read
# whole tables.
# Its columns are those of `PostRow`.
# Bookmarks and blocks are looked up only where a reader of the page has any, which OFFSET 0 finds out once for a page.
# A row has whether another one follows. Rows that start past `MAX_PAGE_BYTES` are dropped: JSON is never shorter than
# the text, and PostgreSQL knows the length of a long text without reading it.
_STATEMENT = """
    SELECT page.id, page.title, page.content, page.published, page.created_at::text, page.updated_at::text,
        page.published_at::text, page.version, page.xmin, page.owner_id, owner.username, owner.created_at::text,
        owner.email, page.tags, page.locked, page.removal_reason, stats.votes, stats.comments,
        ARRAY (
            SELECT votes.user_id FROM votes
            WHERE votes.post_id = page.id AND votes.user_id = ANY (asked.reader_ids::bigint[])
        ) AS voters,
        CASE WHEN relations.have_bookmarks THEN ARRAY (
            SELECT bookmarks.user_id FROM bookmarks
            WHERE bookmarks.post_id = page.id AND bookmarks.user_id = ANY (asked.reader_ids::bigint[])
        ) END AS bookmarkers,
        CASE WHEN relations.have_blocks THEN ARRAY (
            SELECT blocks.blocker_id FROM blocks
            WHERE blocks.blocked_id = page.owner_id AND blocks.blocker_id = ANY (asked.reader_ids::bigint[])
        ) END AS blockers,
        CASE WHEN row_number() OVER () = 1 THEN valid.session_ids END AS session_ids,
        CASE WHEN row_number() OVER () = 1 THEN valid.reader_ids END AS reader_ids,
        CASE WHEN row_number() OVER () = 1 THEN valid.roles END AS roles,
        page.is_followed, page.octets, {sort_value} AS sort_value, page.began_at, asked.number, page.place
    FROM ({valid}) AS valid
    LEFT JOIN ({walk}
        unnest(
            :numbers, :reader_ids, :rows, :skips, :values, :post_ids, :began_at,
            :owner_ids, :created_after, :created_before, :own_reader_ids, :tags
        ) AS asked (
            number, reader_ids, rows, skip, value, post_id, began_at, owner_id, created_after, created_before,
            reader_id, tag
        )
        CROSS JOIN LATERAL (
            SELECT
                EXISTS (SELECT FROM bookmarks WHERE user_id = ANY (asked.reader_ids::bigint[])) AS have_bookmarks,
                EXISTS (SELECT FROM blocks WHERE blocker_id = ANY (asked.reader_ids::bigint[])) AS have_blocks
            OFFSET 0
        ) AS relations
        CROSS JOIN LATERAL (
            SELECT *, row_number() OVER position AS place, lead(id) OVER position IS NOT NULL AS is_followed,
                sum(octets) OVER position - octets AS octets_before
            FROM (
                SELECT {columns}, octet_length({post}.title) + octet_length({post}.content) AS octets
                FROM ({listed}) AS listed {posts}
            ) AS measured
            WINDOW position AS (ORDER BY sort_value {direction}, id {direction})
        ) AS page
        CROSS JOIN LATERAL (
            SELECT users.username, users.created_at, users.email FROM users
            WHERE users.id = page.owner_id AND NOT users.is_deleted LIMIT 1
        ) AS owner
        CROSS JOIN LATERAL (
            SELECT post_stats.votes, post_stats.comments FROM post_stats WHERE post_stats.post_id = page.id LIMIT 1
        ) AS stats
    ) ON page.octets_before < {max_bytes}
"""
_ROWS_OF_LIST = "SELECT * FROM ({list}) AS list OFFSET asked.skip LIMIT asked.rows"
# Pages that differ in `skip` alone are parts of one list, which is read once for the batch, as far as any page needs.
_WALK = """
        (SELECT array_agg(post_id) AS post_ids, array_agg(sort_value) AS sort_values FROM (
            SELECT * FROM ({list}) AS list
            LIMIT (SELECT max(asked.skip + asked.rows) FROM unnest(:skips, :rows) AS asked (skip, rows))
        ) AS listed) AS walk CROSS JOIN
"""
_ROWS_OF_WALK = """
    SELECT part.*, NULL AS began_at FROM unnest(
        walk.post_ids[asked.skip + 1 : asked.skip + asked.rows],
        walk.sort_values[asked.skip + 1 : asked.skip + asked.rows]
    ) AS part (post_id, sort_value)
"""
_POSTS_BY_ID = """
    CROSS JOIN LATERAL (
        SELECT posts.*, posts.xmin FROM posts WHERE posts.id = listed.post_id AND posts.published LIMIT 1
    ) AS post
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything on which the SQL text of a page depends."""

    order: Order
    has_cursor: bool
    is_backward: bool
    filters: tuple[str, ...]
    reach: int

    @property
    def shares_walk(self) -> bool:
        """Whether all pages are parts of one list."""
        return not (self.has_cursor or self.filters or self.order in _OWN)

    @property
    def direction(self) -> str:
        return "ASC" if (self.order == "old") != self.is_backward else "DESC"


def kind_of(query: PageQuery) -> Kind | None:
    """Return the kind of a page; None if it needs a statement of its own."""
    if not _has_kind(query):
        return None
    position = query.position
    kind = Kind(
        query.order,
        has_cursor=position is not None,
        is_backward=position is not None and position.is_backward,
        filters=tuple(name for name in _CONDITIONS if getattr(query, name) is not None),
        reach=next(reach for reach in REACHES if _row_count(query) <= reach),
    )
    # The whole list costs no more than its furthest page, so first pages and those with `skip` share a statement.
    return replace(kind, reach=max(kind.reach, MAX_BOUNDED_REACH)) if kind.shares_walk else kind


def is_bounded(query: PageQuery) -> bool:
    """Whether the page takes an index walk over at most `MAX_BOUNDED_REACH` rows."""
    return _row_count(query) <= MAX_BOUNDED_REACH and _has_kind(query)


def _row_count(query: PageQuery) -> int:
    return query.limit + 1 + (query.skip if query.position is None else 0)


def _has_kind(query: PageQuery) -> bool:
    if query.search is not None or query.is_drafts:
        return False
    if query.tag is not None and (query.order in {"top", "hot"} or query.owner_id is not None):
        return False
    has_filters = not (query.owner_id is None and query.created_after is None and query.created_before is None)
    if query.order in {"top", "hot"}:
        return not has_filters
    return (query.reader_id is not None and not has_filters) if query.order in _OWN else query.reader_id is None


def read_pages(
    connection: Connection, kind: Kind, asked: Mapping[PageQuery, Sequence[AccessToken]]
) -> dict[PageQuery, PageResult]:
    """Read pages of one kind, each with the tokens of its readers, in one statement.

    The connection must be in AUTOCOMMIT, with a snapshot for each statement.
    """
    positions = [query.position for query in asked]
    tokens = [token for each in asked.values() for token in each]
    rows = PostRow.all_of(
        _statement(kind).execute(
            connection,
            {
                "session_ids": sorted({token.session_id for token in tokens}),
                "numbers": list(range(len(asked))),
                "reader_ids": [
                    f"{{{','.join({str(token.user_id) for token in of_page})}}}" for of_page in asked.values()
                ],
                "rows": [query.limit + 1 for query in asked],
                "skips": [query.skip if query.position is None else 0 for query in asked],
                "values": [None if position is None else str(position.value) for position in positions],
                "post_ids": [None if position is None else possible_key(position.post_id) for position in positions],
                "began_at": [None if position is None else position.began_at for position in positions],
                "owner_ids": [None if query.owner_id is None else possible_key(query.owner_id) for query in asked],
                "created_after": [query.created_after for query in asked],
                "created_before": [query.created_before for query in asked],
                "own_reader_ids": [
                    None if query.reader_id is None else possible_key(query.reader_id) for query in asked
                ],
                "tags": [query.tag for query in asked],
            },
        )
    )
    roles = readers.roles_of_valid_sessions(rows)
    pages: list[list[PostRow]] = [[] for _ in asked]
    for row in sorted((row for row in rows if row.id is not None), key=attrgetter("place")):
        pages[row.number].append(row)
    return {query: PageResult(page_of(query, page), roles) for query, page in zip(asked, pages, strict=True)}


# Clients can request about 300 kinds. A statement takes up to 50 KB, so all take at most 3 MB.
MAX_STATEMENTS = 64


@lru_cache(maxsize=MAX_STATEMENTS)
def _statement(kind: Kind) -> PreparedStatement:
    listed, sort_type = _list(kind)
    is_of_posts = listed.lstrip().startswith("SELECT posts.*")
    post = "listed" if is_of_posts else "post"
    statement = _STATEMENT.format(
        valid=readers.VALID_SESSIONS,
        columns=_COLUMNS.format(post=post),
        post=post,
        posts="" if is_of_posts else _POSTS_BY_ID,
        walk=_WALK.format(list=listed) if kind.shares_walk else "",
        listed=_ROWS_OF_WALK if kind.shares_walk else _ROWS_OF_LIST.format(list=listed),
        direction=kind.direction,
        sort_value="page.sort_value::text" if sort_type == "timestamptz" else "page.sort_value",
        max_bytes=MAX_PAGE_BYTES,
    )
    return PreparedStatement(text(statement).bindparams(*_PARAMETERS))


def _list(kind: Kind) -> tuple[str, str]:
    """Return the list as SQL, and the type of its sort value."""
    if kind.order == "home":
        _, is_tagged_visible, _, sort_type = _OF_TAG
        return home_list(
            direction=kind.direction,
            has_cursor=kind.has_cursor,
            reach=kind.reach,
            is_visible=_IS_VISIBLE,
            is_tagged_visible=is_tagged_visible,
        ), sort_type
    is_of_tag = "tag" in kind.filters
    conditions = [_CONDITIONS[name].format(dated="post_tags" if is_of_tag else "posts") for name in kind.filters]
    sign = ">" if kind.direction == "ASC" else "<"
    window, visible, sort_columns, sort_type = _OF_TAG if is_of_tag else _LISTS[kind.order]
    if kind.shares_walk and window is _FROM_POSTS:
        window, visible = _FROM_PUBLISHED, _IS_PUBLISHED_VISIBLE
    if kind.has_cursor:
        conditions.append(f"AND ({sort_columns}) {sign} (asked.value::{sort_type}, asked.post_id)")
    if kind.has_cursor and kind.order in _DATED:
        # So a vote that was removed and cast again meanwhile does not appear a second time.
        conditions.append(f"AND {_DATED[kind.order]}.created_at <= asked.began_at::timestamptz")
    order = "votes" if kind.order == "top" else kind.order
    listed = window.format(
        visible=visible, conditions=" ".join(conditions), direction=kind.direction, reach=kind.reach, order=order
    )
    return listed, sort_type


_PARAMETERS = (
    bindparam("session_ids", type_=ARRAY(BIGINT)),
    bindparam("numbers", type_=ARRAY(Integer)),
    bindparam("reader_ids", type_=ARRAY(String)),
    bindparam("rows", type_=ARRAY(Integer)),
    bindparam("skips", type_=ARRAY(Integer)),
    bindparam("values", type_=ARRAY(String)),
    bindparam("post_ids", type_=ARRAY(BIGINT)),
    bindparam("began_at", type_=ARRAY(String)),
    bindparam("owner_ids", type_=ARRAY(BIGINT)),
    bindparam("created_after", type_=ARRAY(DateTime(timezone=True))),
    bindparam("created_before", type_=ARRAY(DateTime(timezone=True))),
    bindparam("own_reader_ids", type_=ARRAY(BIGINT)),
    bindparam("tags", type_=ARRAY(String)),
)
