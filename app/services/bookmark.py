"""Bookmark posts. Pages with them are in `feed`."""

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database.locks import lock_caller_and_post
from app.errors import QuotaExceeded
from app.models import Bookmark, User


def add(db: Session, caller: User, post_id: int) -> None:
    """Bookmark the post.

    The lock of the caller's account serializes their bookmarks, so that each counts those before.
    Raises `PostNotFound` (also for drafts), and `QuotaExceeded` past `BOOKMARKS_MAX`.
    """
    lock_caller_and_post(db, caller, post_id)
    if db.scalar(select(exists().where(Bookmark.post_id == post_id, Bookmark.user_id == caller.id))):
        return
    maximum = get_settings().bookmarks_max
    own = select(Bookmark.post_id).where(Bookmark.user_id == caller.id).limit(maximum)
    if db.scalar(select(func.count()).select_from(own.subquery())) == maximum:
        raise QuotaExceeded(maximum, "bookmarks")
    db.execute(insert(Bookmark).values(post_id=post_id, user_id=caller.id))


def remove(db: Session, caller: User, post_id: int) -> None:
    """Remove the bookmark. Raises `PostNotFound` (also for drafts)."""
    lock_caller_and_post(db, caller, post_id)
    db.execute(delete(Bookmark).where(Bookmark.post_id == post_id, Bookmark.user_id == caller.id))
