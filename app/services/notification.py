"""List notifications, count and mark them, and mute posts. `database.notification_delivery` writes notifications.

Notifications refer to other rows without foreign keys. Those whose actor, post or comment the recipient may not see
now are hidden everywhere. Every statement reads a bounded number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Row, bindparam, delete, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.database.locks import lock_caller_and_post
from app.database.notification_visibility import IS_SHOWN, MAX_UNREAD
from app.errors import PostNotFound, QuotaExceeded
from app.models import Post, PostMute, User
from app.models.base import LARGEST_KEY
from app.schemas.page import KeysetPage

# Rows that a page reads at most, where it must skip many hidden ones.
MAX_ROWS_READ = 1_000
MAX_MUTED_POSTS = 10_000

# The last of `MAX_ROWS_READ` is returned even if it is hidden, because the next page continues after it.
_LIST = f"""
    SELECT n.*, actor.username, actor.display_name, actor.avatar FROM (
        SELECT n.*, {IS_SHOWN} AS is_shown FROM (
            SELECT notifications.*, row_number() OVER (ORDER BY notifications.id DESC) AS place FROM notifications
            WHERE notifications.user_id = :user_id AND notifications.id < :before {{wanted}}
            ORDER BY notifications.id DESC LIMIT {MAX_ROWS_READ}
        ) AS n
        WHERE ({IS_SHOWN}) OR n.place = {MAX_ROWS_READ} ORDER BY n.id DESC LIMIT :rows
    ) AS n LEFT JOIN users AS actor ON actor.id = n.actor_id ORDER BY n.id DESC
"""
_BIGINTS = {name: bindparam(name, type_=BigInteger) for name in ("user_id", "before", "up_to")}
_LIST_ALL = text(_LIST.format(wanted="")).bindparams(_BIGINTS["user_id"], _BIGINTS["before"])
_LIST_UNREAD = text(_LIST.format(wanted="AND notifications.read_at IS NULL")).bindparams(
    _BIGINTS["user_id"], _BIGINTS["before"]
)
_COUNT = text(f"""
    SELECT n.kind, count(*) AS number FROM (
        SELECT * FROM notifications WHERE user_id = :user_id AND read_at IS NULL ORDER BY id DESC LIMIT {MAX_UNREAD}
    ) AS n WHERE {IS_SHOWN} GROUP BY n.kind
""").bindparams(_BIGINTS["user_id"])
# Locked by ascending id, so that two requests at once do not wait for each other.
_MARK_READ = text(f"""
    WITH unread AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE id = ANY (ARRAY(
            SELECT id FROM notifications WHERE user_id = :user_id AND read_at IS NULL AND id <= :up_to
            ORDER BY id DESC LIMIT {MAX_UNREAD}
        )) AND read_at IS NULL
        ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE notifications SET read_at = now() FROM unread WHERE notifications.id = unread.id
""").bindparams(_BIGINTS["user_id"], _BIGINTS["up_to"])


@dataclass(frozen=True, slots=True)
class NotificationPage:
    """Notifications, newest first, and the id after which the next page begins."""

    rows: Sequence[Row[*tuple[Any, ...]]]
    next_after: int | None


def list_own(db: Session, caller: User, page: KeysetPage, *, only_unread: bool) -> NotificationPage:
    """Return the caller's notifications, without hidden ones."""
    values = {
        "user_id": caller.id,
        "before": LARGEST_KEY if page.last_id is None else page.last_id,
        "rows": page.limit + 1,
    }
    found = db.execute(_LIST_UNREAD if only_unread else _LIST_ALL, values).all()
    shown = [row for row in found if row.is_shown][: page.limit]
    if len(found) > page.limit:
        return NotificationPage(shown, found[page.limit - 1].id)
    reaches_bound = bool(found) and found[-1].place == MAX_ROWS_READ
    return NotificationPage(shown, found[-1].id if reaches_bound else None)


def count_unread(db: Session, caller: User) -> dict[str, int]:
    """Return the number of the caller's unread notifications by kind, without hidden ones.

    Of the newest `MAX_UNREAD`.
    """
    return {row.kind: row.number for row in db.execute(_COUNT, {"user_id": caller.id})}


def mark_read(db: Session, caller: User, up_to: int) -> None:
    """Mark the caller's notifications up to this id as read: the newest `MAX_UNREAD` of them.

    One that is written at the same time stays unread, even if its id is smaller.
    """
    db.execute(_MARK_READ, {"user_id": caller.id, "up_to": max(0, min(up_to, LARGEST_KEY))})


def is_muted(db: Session, caller: User, post_id: int) -> bool:
    """Return whether the caller has muted the post. Raises `PostNotFound` (also for drafts)."""
    muted = exists().where(PostMute.post_id == Post.id, PostMute.user_id == caller.id)
    found = db.scalar(select(muted).where(Post.id == post_id, Post.published, Post.visible_to(caller)))
    if found is None:
        raise PostNotFound(post_id)
    return found


def mute(db: Session, caller: User, post_id: int) -> None:
    """Mute the post.

    The lock of the caller's account serializes their mutes, so that each counts those before.
    Raises `PostNotFound` (also for drafts), and `QuotaExceeded` past `MAX_MUTED_POSTS`.
    """
    lock_caller_and_post(db, caller, post_id)
    others = select(PostMute.post_id).where(PostMute.user_id == caller.id, PostMute.post_id != post_id)
    if db.scalar(select(func.count()).select_from(others.limit(MAX_MUTED_POSTS).subquery())) == MAX_MUTED_POSTS:
        raise QuotaExceeded(MAX_MUTED_POSTS, "muted posts")
    db.execute(insert(PostMute).values(post_id=post_id, user_id=caller.id).on_conflict_do_nothing())


def unmute(db: Session, caller: User, post_id: int) -> None:
    """Unmute the post. Raises `PostNotFound` (also for drafts), unless it was muted."""
    muted = delete(PostMute).where(PostMute.post_id == post_id, PostMute.user_id == caller.id)
    if db.scalar(muted.returning(PostMute.post_id)) is None:
        lock_caller_and_post(db, caller, post_id)
