"""Profiles: read them by id or username, and search them by username."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, and_, exists, func, literal, select
from sqlalchemy.orm import Session

from app.errors import UserNotFound
from app.models import Block, Follow, User, UserStats
from app.models.base import Key

# The expression of the unique index on usernames. Its collation makes a range of it a prefix search.
_USERNAME: ColumnElement[str] = func.lower(User.username.collate("C"))
# No character comes after it.
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Profile:
    """An account with its counts, and whether the viewer follows or has blocked it."""

    account: User
    posts: int
    followers: int
    following: int
    followed: bool
    blocked: bool


def get(db: Session, user_id: int, viewer: User | None) -> Profile:
    """Return the profile of an account. Raises `UserNotFound`."""
    found = _read(db, User.id == user_id, viewer)
    if found is None:
        raise UserNotFound(user_id)
    return found


def get_by_username(db: Session, username: str, viewer: User | None) -> Profile:
    """Return the profile of an account that is neither disabled nor banned. Raises `UserNotFound`."""
    found = _read(db, and_(_folded(username) == _USERNAME, User.is_active, ~User.is_banned()), viewer)
    if found is None:
        raise UserNotFound(username)
    return found


def search(db: Session, prefix: str, limit: int) -> Sequence[Row[int, str, str | None, str | None]]:
    """Return accounts whose username begins with the prefix, alphabetically, without disabled and banned ones."""
    first = _folded(prefix)
    return db.execute(
        select(User.id, User.username, User.display_name, User.avatar)
        .where(_USERNAME.between(first, first.concat(_LAST_CHARACTER)), User.is_active, ~User.is_banned())
        .order_by(_USERNAME)
        .limit(limit)
    ).all()


def _folded(text: str) -> ColumnElement[str]:
    return func.lower(literal(text).collate("C"))


def _read(db: Session, is_wanted: ColumnElement[bool], viewer: User | None) -> Profile | None:
    viewer_id = literal(viewer and viewer.id, Key)
    follow = exists().where(Follow.follower_id == viewer_id, Follow.followee_id == User.id)
    block = exists().where(Block.blocker_id == viewer_id, Block.blocked_id == User.id)
    found = db.execute(
        select(
            User,
            func.coalesce(UserStats.posts, 0),
            func.coalesce(UserStats.followers, 0),
            func.coalesce(UserStats.following, 0),
            follow,
            block,
        )
        .outerjoin(UserStats, UserStats.user_id == User.id)
        .where(is_wanted, ~User.is_deleted)
    ).one_or_none()
    return None if found is None else Profile(*found)
