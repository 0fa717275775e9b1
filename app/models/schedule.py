"""When tasks that one process runs for all are due."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Schedule(Base):
    """A task by its name, and when it may run next."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
