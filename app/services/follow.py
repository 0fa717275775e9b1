"""Follow and unfollow users, and list who follows whom.

Two users who follow each other at once take the locks of both accounts in the same order (`app.database.locks`).
Triggers count follows in `user_stats`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.config import get_settings
from app.database import notification_delivery
from app.database.locks import lock_pair
from app.errors import Blocked, QuotaExceeded, UserNotFound
from app.models import Block, Follow, User, UserStats
from app.schemas.follow import FollowState
from app.schemas.page import KeysetPage


def add(db: Session, caller: User, user_id: int) -> FollowState:
    """Follow the user, and notify them of the first follow.

    The lock of the caller's account serializes their follows, so that each counts those before.
    Raises `NotYourself`, `UserNotFound`, `Blocked`, and `QuotaExceeded` past `FOLLOWS_MAX`.
    """
    lock_pair(db, caller.id, user_id)
    if not db.scalar(select(_exists(caller.id, user_id))):
        if db.scalar(select(_is_blocked(caller.id, user_id))):
            raise Blocked
        maximum = get_settings().follows_max
        if (db.scalar(select(UserStats.following).where(UserStats.user_id == caller.id)) or 0) >= maximum:
            raise QuotaExceeded(maximum, "followed users")
        db.execute(insert(Follow).values(follower_id=caller.id, followee_id=user_id))
        notification_delivery.followed(db, actor_id=caller.id, user_id=user_id)
    return _state(db, user_id, followed=True)


def remove(db: Session, caller: User, user_id: int) -> FollowState:
    """Unfollow the user. Raises `NotYourself`, `UserNotFound`."""
    lock_pair(db, caller.id, user_id)
    db.execute(delete(Follow).where(Follow.follower_id == caller.id, Follow.followee_id == user_id))
    return _state(db, user_id, followed=False)


def _exists(follower_id: int, followee_id: int) -> Any:
    return exists().where(Follow.follower_id == follower_id, Follow.followee_id == followee_id)


def _is_blocked(caller_id: int, user_id: int) -> Any:
    """Return the condition that one of the two has blocked the other."""
    blocks = and_(Block.blocker_id == user_id, Block.blocked_id == caller_id)
    return exists().where(or_(blocks, and_(Block.blocker_id == caller_id, Block.blocked_id == user_id)))


def _state(db: Session, user_id: int, *, followed: bool) -> FollowState:
    followers = db.scalar(select(UserStats.followers).where(UserStats.user_id == user_id)) or 0
    return FollowState(user_id=user_id, followers=followers, followed=followed)


def list_followers(db: Session, user_id: int, page: KeysetPage) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the users who follow the user, newest follow first. Raises `UserNotFound`."""
    return _list(db, user_id, page, of=Follow.followee_id, shown=Follow.follower_id)


def list_following(db: Session, user_id: int, page: KeysetPage) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the users whom the user follows, newest follow first. Raises `UserNotFound`."""
    return _list(db, user_id, page, of=Follow.follower_id, shown=Follow.followee_id)


def _list(
    db: Session, user_id: int, page: KeysetPage, *, of: InstrumentedAttribute[int], shown: InstrumentedAttribute[int]
) -> Sequence[Row[*tuple[Any, ...]]]:
    account = aliased(User)
    is_there = exists().where(account.id == user_id, ~account.is_deleted)
    follows = (
        select(User.id, User.username, User.display_name, User.avatar, Follow.created_at.label("listed_at"))
        .join(User, User.id == shown)
        .where(of == user_id, ~User.is_deleted, is_there)
    )
    found = db.execute(page.select_newest(follows, Follow.created_at, shown)).all()
    if not found and not db.scalar(select(is_there)):
        raise UserNotFound(user_id)
    return found
