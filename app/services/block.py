"""Block and unblock users, and list the blocked ones.

Posts of blocked users are left out of the blocker's pages (`app.services.feed`).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database.locks import lock_pair
from app.errors import QuotaExceeded
from app.models import Block, Follow, User
from app.schemas.page import KeysetPage


def add(db: Session, caller: User, user_id: int) -> None:
    """Block the user. Follows between the two end, in both directions.

    A concurrent follow waits for the lock, and is refused then.
    Raises `NotYourself`, `UserNotFound`, and `QuotaExceeded` past `BLOCKS_MAX`.
    """
    lock_pair(db, caller.id, user_id)
    if db.scalar(select(exists().where(Block.blocker_id == caller.id, Block.blocked_id == user_id))):
        return
    maximum = get_settings().blocks_max
    own = select(Block.blocked_id).where(Block.blocker_id == caller.id).limit(maximum)
    if db.scalar(select(func.count()).select_from(own.subquery())) == maximum:
        raise QuotaExceeded(maximum, "blocked users")
    db.execute(insert(Block).values(blocker_id=caller.id, blocked_id=user_id))
    follows = and_(Follow.follower_id == caller.id, Follow.followee_id == user_id)
    followed = and_(Follow.follower_id == user_id, Follow.followee_id == caller.id)
    db.execute(delete(Follow).where(or_(follows, followed)))


def remove(db: Session, caller: User, user_id: int) -> None:
    """Unblock the user. Raises `NotYourself`, `UserNotFound`."""
    lock_pair(db, caller.id, user_id)
    db.execute(delete(Block).where(Block.blocker_id == caller.id, Block.blocked_id == user_id))


def list_own(db: Session, caller: User, page: KeysetPage) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the users whom the caller has blocked, newest block first."""
    blocks = (
        select(User.id, User.username, User.display_name, User.avatar, Block.created_at.label("listed_at"))
        .join(User, User.id == Block.blocked_id)
        .where(Block.blocker_id == caller.id, ~User.is_deleted)
    )
    return db.execute(page.select_newest(blocks, Block.created_at, Block.blocked_id)).all()
