"""Security events of an account, for its owner."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import SecurityEvent
from app.models.security_event import Event


def list_own(db: Session, user_id: int, *, before_id: int | None, limit: int, skip: int) -> Sequence[SecurityEvent]:
    """Return the account's events, newest first, before `before_id` if it is given.

    Kinds that this release does not know are left out: a newer release can have written them before a rollback.
    """
    statement = select(SecurityEvent).where(SecurityEvent.user_id == user_id, SecurityEvent.event.in_([*Event]))
    if before_id is not None:
        statement = statement.where(SecurityEvent.id < before_id)
    return db.scalars(statement.order_by(SecurityEvent.id.desc()).limit(limit).offset(skip)).all()
