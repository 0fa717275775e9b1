"""Accounts with rows that are removed in the background."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Deletion(Base):
    """An account that is deleted, or that has sessions which have ended: `services.deletion` removes what is left.

    The row is removed with the last of them. `blocked_at` is when a foreign key of a table that is not ours forbade
    it; it is tried again an hour later.
    """

    __tablename__ = "deletions"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    requested_at: Mapped[Now]
    blocked_at: Mapped[datetime | None]
