"""The messages of events. Their content is what readers may see now, not what it was at the event."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.database.event_log import Position
from app.database.notification_visibility import IS_SHOWN, MAX_UNREAD
from app.models import EventKind
from app.schemas.live import CommentMessage, LiveComment, NotificationMessage, PublishedMessage, PublishedPost
from app.schemas.notification import NotificationOut
from app.schemas.user import UserSummary


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


@dataclass(frozen=True, slots=True)
class Happening:
    """The message of an event, and who gets it.

    `topics` are the topics that it belongs to. `hidden_from` are users who blocked its author. `read_at` is when the
    content was read, in seconds of `time.monotonic`.
    """

    position: Position
    text: str
    topics: frozenset[str]
    hidden_from: frozenset[int]
    read_at: float


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
    text = message.model_dump_json()
    return Happening(event.position, text, frozenset(topics), frozenset(blockers), time.monotonic())


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
