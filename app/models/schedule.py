"""The schedule of periodic tasks, each run by one process for all."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Schedule(Base):
    """A periodic task and the time from which it may run next."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
