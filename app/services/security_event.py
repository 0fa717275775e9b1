"""Security events of an account, for its owner."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import SecurityEvent
from app.models.security_event import Event
from app.schemas.page import KeysetPage


def list_own(db: Session, user_id: int, page: KeysetPage) -> Sequence[SecurityEvent]:
    """Return the account's events, newest first.

    Kinds that this release does not know are left out: a newer release can have written them before a rollback.
    """
    own = select(SecurityEvent).where(SecurityEvent.user_id == user_id, SecurityEvent.event.in_([*Event]))
    return db.scalars(page.select(own, SecurityEvent.id, is_descending=True)).all()
