"""Requests to remove rows of accounts in the background."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Deletion(Base):
    """A deleted account, or one with revoked sessions, with rows left to remove.

    `services.deletion` removes them, and then this row. `blocked_at` is the time at which a foreign key of a table
    that is not ours forbade the removal. It is retried an hour later.
    """

    __tablename__ = "deletions"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    requested_at: Mapped[Now]
    blocked_at: Mapped[datetime | None]
