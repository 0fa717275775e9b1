"""The event log: events are written in the transaction of their cause, and read in a total order.

Transactions commit in another order than they begin, so a reader that continues after the greatest id would miss those
that commit late. Events are in the order of transaction ids. Readers get only those of transactions that are older
than every running one, because nothing can be added there any more. So an event arrives after all older transactions
that write have ended, those of other databases on the server included. Votes write no events.

Transaction ids belong to one server: after a dump is restored elsewhere, consumers begin anew (decision 0038).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app.models import Event, EventKind, Post


class Position(NamedTuple):
    """A place in the log, after which a consumer continues."""

    transaction_id: int
    id: int


START = Position(0, 0)


class LoggedEvent(NamedTuple):
    """An event of the log. A newer release may have written kinds that this one does not know."""

    transaction_id: int
    id: int
    kind: str
    actor_id: int | None
    post_id: int | None
    comment_id: int | None
    user_id: int | None
    created_at: datetime

    @property
    def position(self) -> Position:
        return Position(self.transaction_id, self.id)


_READ_AFTER = text("""
    SELECT transaction_id, id, kind, actor_id, post_id, comment_id, user_id, created_at FROM events
    WHERE (transaction_id, id) > (:transaction_id, :id)
        AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY transaction_id, id LIMIT :limit
""").bindparams(*(bindparam(name, type_=BIGINT) for name in ("transaction_id", "id")))


def read_after(connection: Connection | Session, position: Position, limit: int) -> Sequence[LoggedEvent]:
    """Return the next events after the position, oldest transaction first.

    No event will ever be added before those that it returns.
    """
    values = {**position._asdict(), "limit": limit}
    return [LoggedEvent(*row) for row in connection.execute(_READ_AFTER, values)]


def record(
    connection: Connection | Session, kind: EventKind, *, actor_id: int, post_id: int, user_id: int | None = None
) -> None:
    """Write an event of a post. `user_id` is the owner of a post that is deleted."""
    connection.execute(insert(Event).values(kind=kind, actor_id=actor_id, post_id=post_id, user_id=user_id))


def record_deleted_posts(connection: Connection | Session, post_ids: Sequence[int]) -> None:
    """Write that the posts are deleted, without an actor and with their owner as `user_id`. Drafts have no events."""
    deleted = select(literal(EventKind.POST_DELETED), Post.id, Post.owner_id).where(
        Post.id == bindparam("ids", list(post_ids), type_=ARRAY(BIGINT)).any_(), Post.published
    )
    connection.execute(insert(Event).from_select(["kind", "post_id", "user_id"], deleted))
