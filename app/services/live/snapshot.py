"""The state of watched posts, sessions and unread notifications, and the new events of the log, in one statement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, case, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.dialects.postgresql.base import PGDialect

from app.config import MODERATING
from app.database.event_log import Position
from app.database.notification_visibility import IS_SHOWN, MAX_UNREAD
from app.database.prepared import PreparedStatement
from app.models import Session, User
from app.schemas.live import UnreadMessage
from app.schemas.notification import UnreadByKind
from app.services.live.happenings import LoggedEvent

# Events that one poll reads. The next poll reads on.
MAX_EVENTS = 500


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
