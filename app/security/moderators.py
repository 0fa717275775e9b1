"""Moderators, who act on what others wrote, and on their accounts. The log of what they do."""

from datetime import datetime
from typing import get_args

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.config import MODERATING, Role
from app.errors import NotAuthenticated, NotAuthorized
from app.models import ModerationAction, ModerationEntry, User

# From the lowest to the highest.
_RANKS: tuple[Role, ...] = get_args(Role)


def lock_moderator(db: Session, user_id: int, *, clears: int | None = None) -> Role:
    """Lock the caller's account, so that it stays a moderator's in the transaction. Return its role.

    It is locked after the content or account on which the caller acts, so that a request that waits for that does not
    delay the demotion of its caller. No transaction that holds an account's lock waits for another account's content,
    so this cannot deadlock.
    `clears` is the author whose content it restores, or about whom it dismisses a report. Only admins clear themselves.
    Raises `NotAuthenticated` if the account is banned, disabled or deleted by now, `NotAuthorized` if it lost its role,
    or may not clear that author.
    """
    active = select(User.role).where(User.id == user_id, User.is_active, ~User.is_banned())
    role = db.scalar(active.with_for_update(read=True))
    if role is None:
        raise NotAuthenticated
    if role not in MODERATING or (clears == user_id and role != "admin"):
        raise NotAuthorized
    return role


def is_above(role: Role, other: Role) -> bool:
    """Return whether an account of this role may ban one of the other."""
    return _RANKS.index(role) > _RANKS.index(other)


def record(
    db: Session,
    moderator_id: int | None,
    action: ModerationAction,
    *,
    user_id: int | None = None,
    post_id: int | None = None,
    comment_id: int | None = None,
    report_id: int | None = None,
    reason: str | None = None,
    until: datetime | None = None,
) -> None:
    """Add to the log of moderation, in the transaction of the action. The operator has no `moderator_id`.

    `user_id` is the author of the content, or the account.
    """
    ids = {"user_id": user_id, "post_id": post_id, "comment_id": comment_id, "report_id": report_id}
    values = {"moderator_id": moderator_id, "action": action, "reason": reason, "until": until}
    db.execute(insert(ModerationEntry).values(**ids, **values))
