"""What live streams show: the state of watched posts, sessions and unread notifications, and new events.

One statement reads all that a worker's streams watch. Content of events is read only where a stream wants it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection, Row, bindparam, case, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT
from sqlalchemy.dialects.postgresql.base import PGDialect

from app.config import MODERATING
from app.database.event_log import Position
from app.database.notification_visibility import IS_SHOWN
from app.database.prepared import PreparedStatement
from app.models import EventKind, Session, User
from app.schemas.live import (
    CommentMessage,
    LiveComment,
    NotificationMessage,
    PublishedMessage,
    PublishedPost,
    UnreadMessage,
)
from app.schemas.notification import NotificationOut, UnreadByKind
from app.schemas.user import UserSummary

# Events that one poll reads. The next poll reads on.
MAX_EVENTS = 500
# Of the newest unread notifications of a user, so many are counted.
MAX_UNREAD = 1_000
# Events of the log that one statement searches for those that a stream missed.
MISSED_WINDOW = 10_000


class PostState(NamedTuple):
    """The values of a post that streams show, and those that decide who may see it."""

    votes: int
    comments: int
    version: int
    published: bool
    locked: bool
    owner_id: int


class SessionState(NamedTuple):
    """The user of a valid session, and the role that the session gives. API keys give none."""

    user_id: int
    role: str

    @property
    def is_moderator(self) -> bool:
        return self.role in MODERATING


class LoggedEvent(NamedTuple):
    """An event of the log that streams may show."""

    transaction_id: int
    id: int
    kind: str
    actor_id: int | None
    post_id: int | None
    comment_id: int | None
    user_id: int | None

    @property
    def position(self) -> Position:
        return Position(self.transaction_id, self.id)


# A cheap sign that the unread notifications of a user have changed: their number, and the newest.
UnreadSign = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a worker's streams watch, at one moment.

    `position` is the place in the event log up to which `events` has all events, `end` that of the newest.
    """

    read_at: int
    position: Position
    end: Position
    sessions: Mapping[int, SessionState]
    posts: Mapping[int, PostState]
    unread: Mapping[int, UnreadSign]
    events: Sequence[LoggedEvent]


@dataclass(frozen=True, slots=True)
class Happening:
    """The message of an event, and who gets it.

    `topics` are the topics that it belongs to. `hidden_from` are users who blocked its author.
    """

    position: Position
    text: str
    topics: frozenset[str]
    hidden_from: frozenset[int]


# An API key shows nothing that only moderators may see.
_ROLE = case((Session.kind == literal_column("'login'"), User.role), else_=literal_column("'user'"))
_VALID_SESSIONS = str(
    select(func.json_agg(func.json_build_array(Session.id, User.id, _ROLE)))
    .join(User, Session.is_valid())
    .where(Session.id == bindparam("session_ids", type_=ARRAY(BIGINT)).any_())
    .compile(dialect=PGDialect(paramstyle="named"))
)
# Events of one transaction may be on two pages, so a full page ends at its last event, and another one at the end of
# the log.
_SNAPSHOT = PreparedStatement(
    text(f"""
    WITH log AS MATERIALIZED (
        SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ends_before
    ), event AS MATERIALIZED (
        SELECT transaction_id, id, kind, actor_id, post_id, comment_id, user_id FROM events
        WHERE (transaction_id, id) > (:transaction_id, :event_id) AND transaction_id < (SELECT ends_before FROM log)
        ORDER BY transaction_id, id LIMIT {MAX_EVENTS}
    )
    SELECT extract(epoch FROM now())::bigint AS read_at, log.ends_before,
        (
            {_VALID_SESSIONS}
        ) AS sessions,
        (
            SELECT json_agg(json_build_array(
                posts.id, stats.votes, stats.comments, posts.version, posts.published, posts.locked, posts.owner_id
            ))
            FROM unnest(:post_ids) AS watched (id) JOIN posts ON posts.id = watched.id
            JOIN post_stats AS stats ON stats.post_id = watched.id
            JOIN users ON users.id = posts.owner_id AND NOT users.is_deleted
        ) AS posts,
        (
            SELECT json_agg(json_build_array(wanted.id, unread.number, unread.newest))
            FROM unnest(:user_ids) AS wanted (id) CROSS JOIN LATERAL (
                SELECT count(*) AS number, max(id) AS newest FROM (
                    SELECT id FROM notifications WHERE user_id = wanted.id AND read_at IS NULL
                    ORDER BY id DESC LIMIT {MAX_UNREAD}
                ) AS newest
            ) AS unread
        ) AS unread,
        (
            SELECT json_agg(json_build_array(
                transaction_id, id, kind, actor_id, post_id, comment_id, user_id
            ) ORDER BY transaction_id, id) FROM event
        ) AS events
    FROM log
""").bindparams(
        *(bindparam(name, type_=BIGINT) for name in ("transaction_id", "event_id")),
        *(bindparam(name, type_=ARRAY(BIGINT)) for name in ("session_ids", "post_ids", "user_ids")),
    )
)

# The end of the log, for a worker that begins to read it.
_END = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


def end_of_log(connection: Connection) -> Position:
    """Return the place after all events that can be read now."""
    return Position(connection.execute(_END).scalar_one(), 0)


def read_snapshot(
    connection: Connection,
    position: Position,
    *,
    session_ids: Iterable[int],
    post_ids: Iterable[int],
    user_ids: Iterable[int],
) -> Snapshot:
    """Read the state of all of these, and the events after the position, in one statement."""
    row = _SNAPSHOT.execute(
        connection,
        {
            "transaction_id": position.transaction_id,
            "event_id": position.id,
            "session_ids": [*session_ids],
            "post_ids": [*post_ids],
            "user_ids": [*user_ids],
        },
    ).one()
    events = [LoggedEvent(*values) for values in row.events or ()]
    return Snapshot(
        row.read_at,
        events[-1].position if len(events) == MAX_EVENTS else Position(row.ends_before, 0),
        Position(row.ends_before, 0),
        {session_id: SessionState(*values) for session_id, *values in row.sessions or ()},
        {post_id: PostState(*values) for post_id, *values in row.posts or ()},
        {user_id: (number, newest) for user_id, number, newest in row.unread or ()},
        events,
    )


_COUNT_UNREAD = text(f"""
    SELECT wanted.id, counted.kind, counted.number
    FROM unnest(:user_ids) AS wanted (id) CROSS JOIN LATERAL (
        SELECT n.kind, count(*) AS number FROM (
            SELECT * FROM notifications WHERE user_id = wanted.id AND read_at IS NULL
            ORDER BY id DESC LIMIT {MAX_UNREAD}
        ) AS n WHERE {IS_SHOWN.replace(":user_id", "wanted.id")} GROUP BY n.kind
    ) AS counted
""").bindparams(bindparam("user_ids", type_=ARRAY(BIGINT)))


def count_unread(connection: Connection, user_ids: Iterable[int]) -> dict[int, UnreadMessage]:
    """Return the unread notifications of each user by kind, without hidden ones."""
    counts: dict[int, dict[str, int]] = {user_id: {} for user_id in user_ids}
    if counts:
        for user_id, kind, number in connection.execute(_COUNT_UNREAD, {"user_ids": [*counts]}):
            counts[user_id][kind] = number
    return {
        user_id: UnreadMessage(unread=sum(by_kind.values()), by_kind=UnreadByKind(**by_kind))
        for user_id, by_kind in counts.items()
    }


_BLOCKERS = "ARRAY(SELECT blocker_id FROM blocks WHERE blocked_id = author.id AND blocker_id = ANY (:reader_ids))"
_AUTHOR = "author.id AS author_id, author.username, author.display_name, author.avatar"
_COMMENTS = text(f"""
    SELECT c.id, c.post_id, c.parent_id, c.depth, c.content, c.created_at, {_AUTHOR}, {_BLOCKERS} AS blockers
    FROM unnest(:ids) AS wanted (id) JOIN comments AS c ON c.id = wanted.id
    JOIN posts ON posts.id = c.post_id AND posts.published
    JOIN users AS owner ON owner.id = posts.owner_id AND NOT owner.is_deleted
    JOIN users AS author ON author.id = c.owner_id AND NOT author.is_deleted
    WHERE c.deleted_at IS NULL AND c.removal_reason IS NULL
""")
_PUBLISHED = text(f"""
    SELECT posts.id, posts.title, posts.tags, posts.created_at, {_AUTHOR}, {_BLOCKERS} AS blockers
    FROM unnest(:ids) AS wanted (id) JOIN posts ON posts.id = wanted.id AND posts.published
    JOIN users AS author ON author.id = posts.owner_id AND NOT author.is_deleted
""")
# The event of a notification has its cause, not its id.
_NOTIFICATIONS = text(f"""
    SELECT wanted.place, n.*, author.username, author.display_name, author.avatar
    FROM unnest(:user_ids, :actor_ids, :post_ids, :comment_ids) WITH ORDINALITY
        AS wanted (user_id, actor_id, post_id, comment_id, place)
    CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT * FROM notifications WHERE user_id = wanted.user_id ORDER BY id DESC LIMIT {MAX_UNREAD}
        ) AS newest
        WHERE (actor_id, post_id, comment_id)
            IS NOT DISTINCT FROM (wanted.actor_id, wanted.post_id, wanted.comment_id)
        ORDER BY id DESC LIMIT 1
    ) AS n
    LEFT JOIN users AS author ON author.id = n.actor_id
    WHERE {IS_SHOWN.replace(":user_id", "n.user_id")}
""").bindparams(*(bindparam(f"{name}_ids", type_=ARRAY(BIGINT)) for name in ("user", "actor", "post", "comment")))
_IDS = tuple(bindparam(name, type_=ARRAY(BIGINT)) for name in ("ids", "reader_ids"))
_COMMENTS, _PUBLISHED = _COMMENTS.bindparams(*_IDS), _PUBLISHED.bindparams(*_IDS)


def describe(connection: Connection, events: Sequence[LoggedEvent], reader_ids: Iterable[int]) -> list[Happening]:
    """Return the messages of the events for these readers, in the order of the events.

    Events whose content is hidden from all of them by now have none.
    """
    readers = [*reader_ids]
    of_kind: dict[str, list[LoggedEvent]] = {}
    for event in events:
        of_kind.setdefault(event.kind, []).append(event)
    described: list[Happening] = []
    if comments := of_kind.get(EventKind.COMMENT):
        rows = connection.execute(_COMMENTS, {"ids": [e.comment_id for e in comments], "reader_ids": readers})
        by_id = {row.id: row for row in rows}
        described += [
            _happening(event, _comment(row), [f"post:{row.post_id}"], row.blockers)
            for event in comments
            if (row := by_id.get(event.comment_id)) is not None
        ]
    if published := of_kind.get(EventKind.POST_PUBLISHED):
        rows = connection.execute(_PUBLISHED, {"ids": [e.post_id for e in published], "reader_ids": readers})
        by_id = {row.id: row for row in rows}
        described += [
            _happening(event, _post(row), ["new", *(f"tag:{tag}" for tag in row.tags)], row.blockers)
            for event in published
            if (row := by_id.get(event.post_id)) is not None
        ]
    if notified := of_kind.get(EventKind.NOTIFICATION):
        values = {
            f"{name}_ids": [getattr(e, f"{name}_id") for e in notified] for name in ("user", "actor", "post", "comment")
        }
        described += [
            _happening(notified[row.place - 1], _notification(row), [f"user:{row.user_id}"], ())
            for row in connection.execute(_NOTIFICATIONS, values)
        ]
    return sorted(described, key=lambda happening: happening.position)


def _happening(event: LoggedEvent, message: BaseModel, topics: Iterable[str], blockers: Iterable[int]) -> Happening:
    return Happening(event.position, message.model_dump_json(), frozenset(topics), frozenset(blockers))


_AnyRow = Row[*tuple[Any, ...]]


def _author(row: _AnyRow, user_id: int) -> UserSummary:
    return UserSummary(id=user_id, username=row.username, display_name=row.display_name, avatar=row.avatar)


def _comment(row: _AnyRow) -> CommentMessage:
    return CommentMessage(
        comment=LiveComment(
            id=row.id,
            post_id=row.post_id,
            parent_id=row.parent_id,
            depth=row.depth,
            content=row.content,
            author=_author(row, row.author_id),
            created_at=row.created_at,
        )
    )


def _post(row: _AnyRow) -> PublishedMessage:
    post = PublishedPost(
        id=row.id, title=row.title, tags=row.tags, owner=_author(row, row.author_id), created_at=row.created_at
    )
    return PublishedMessage(post=post)


def _notification(row: _AnyRow) -> NotificationMessage:
    return NotificationMessage(
        notification=NotificationOut(
            id=row.id,
            kind=row.kind,
            actor=None if row.actor_id is None else _author(row, row.actor_id),
            post_id=row.post_id,
            comment_id=row.comment_id,
            created_at=row.created_at,
            read_at=row.read_at,
        )
    )


# The window is read whole, so that its last row says where the next one begins.
_MISSED = text(f"""
    WITH event AS MATERIALIZED (
        SELECT transaction_id, id, kind, actor_id, post_id, comment_id, user_id FROM events
        WHERE (transaction_id, id) > (:transaction_id, :event_id)
            AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        ORDER BY transaction_id, id LIMIT {MISSED_WINDOW}
    ), wanted AS (
        SELECT * FROM event
        WHERE (kind = 'comment' AND post_id = ANY (:post_ids)) OR (kind = 'notification' AND user_id = :user_id)
            OR (kind = 'post_published' AND (:wants_all OR EXISTS (
                SELECT FROM posts WHERE posts.id = event.post_id AND posts.tags && :tags
            )))
    )
    SELECT count(*) AS number, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ends_before,
        (SELECT json_build_array(transaction_id, id) FROM event ORDER BY transaction_id DESC, id DESC LIMIT 1) AS last,
        (SELECT json_agg(json_build_array(
            transaction_id, id, kind, actor_id, post_id, comment_id, user_id
        ) ORDER BY transaction_id, id) FROM (
            SELECT * FROM wanted ORDER BY transaction_id, id LIMIT {MAX_EVENTS}
        ) AS wanted) AS wanted
    FROM event
""").bindparams(
    *(bindparam(name, type_=BIGINT) for name in ("transaction_id", "event_id", "user_id")),
    bindparam("post_ids", type_=ARRAY(BIGINT)),
    bindparam("tags", type_=ARRAY(TEXT)),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events that a stream shows. `user_id` is None without the topic `me`."""

    reader_id: int
    user_id: int | None
    post_ids: frozenset[int]
    has_new: bool
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Missed:
    """The next messages that a stream missed, and the place up to which these are all."""

    happenings: Sequence[Happening]
    position: Position
    is_end: bool


def read_missed(connection: Connection, position: Position, wanted: Wanted) -> Missed | None:
    """Read the next events after the position that a stream wants.

    None: the position is not of this server's log.
    """
    row = connection.execute(
        _MISSED,
        {
            "transaction_id": position.transaction_id,
            "event_id": position.id,
            "user_id": wanted.user_id,
            "post_ids": [*wanted.post_ids],
            "wants_all": wanted.has_new,
            "tags": [*wanted.tags],
        },
    ).one()
    if position > (row.ends_before, 0):
        return None
    events = [LoggedEvent(*values) for values in row.wanted or ()]
    happenings = describe(connection, events, [wanted.reader_id])
    if len(events) == MAX_EVENTS:
        return Missed(happenings, events[-1].position, is_end=False)
    if row.number == MISSED_WINDOW:
        return Missed(happenings, Position(*row.last), is_end=False)
    return Missed(happenings, Position(row.ends_before, 0), is_end=True)
