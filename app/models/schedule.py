"""A table that no code uses any more.

The release before claimed periodic tasks in it, and would fail without it.
"""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Schedule(Base):
    """A periodic task of the release before, and the time from which it may run next.

    A migration of the next release drops the table (docs/migrations.md).
    """

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
