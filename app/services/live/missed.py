"""Events that a stream missed: those after the last one that its client got."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT

from app.database.event_log import Position
from app.services.live.happenings import Happening, LoggedEvent, describe

# Events that one statement searches, and messages that it returns: with comments of 10,000 characters, 0.8 MB.
WINDOW = 10_000
MAX_MESSAGES = 20

_WINDOW = f"""
    SELECT transaction_id, id, kind, actor_id, post_id, comment_id, user_id FROM events
    WHERE (transaction_id, id) > (:transaction_id, :event_id)
        AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY transaction_id, id LIMIT {WINDOW}
"""
# The search ends at the last message that is returned. Only without so many, the end of the window is searched, too.
_MISSED = text(f"""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM ({_WINDOW}) AS event
        WHERE (kind = 'comment' AND post_id = ANY (:post_ids)) OR (kind = 'notification' AND user_id = :user_id)
            OR (kind = 'post_published' AND (:wants_all OR EXISTS (
                SELECT FROM posts WHERE posts.id = event.post_id AND posts.tags && :tags
            )))
        ORDER BY transaction_id, id LIMIT {MAX_MESSAGES}
    )
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS ends_before,
        (SELECT json_agg(json_build_array(
            transaction_id, id, kind, actor_id, post_id, comment_id, user_id
        ) ORDER BY transaction_id, id) FROM wanted) AS wanted,
        CASE WHEN (SELECT count(*) FROM wanted) < {MAX_MESSAGES} THEN (
            SELECT json_build_array(transaction_id, id) FROM ({_WINDOW}) AS event OFFSET {WINDOW - 1}
        ) END AS last
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
    if len(events) == MAX_MESSAGES:
        return Missed(happenings, events[-1].position, is_end=False)
    if row.last is not None:
        return Missed(happenings, Position(*row.last), is_end=False)
    return Missed(happenings, Position(row.ends_before, 0), is_end=True)
