"""Moderators, who delete what others wrote."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.config import MODERATING
from app.errors import NotAuthenticated, NotAuthorized
from app.models import User


def lock_moderator(db: Session, user_id: int) -> None:
    """Lock the caller's account, so that it stays a moderator's in the transaction.

    It is locked after the content to delete, so that a request that waits for that does not delay the demotion of its
    caller. No transaction that holds an account's lock waits for another account's content, so this cannot deadlock.
    Raises `NotAuthenticated` if the account is disabled or deleted by now, `NotAuthorized` if it lost its role.
    """
    active = select(User.role).where(User.id == user_id, User.is_active)
    role = db.scalar(active.with_for_update(read=True))
    if role is None:
        raise NotAuthenticated
    if role not in MODERATING:
        raise NotAuthorized
