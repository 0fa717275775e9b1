"""Attempt counters of limits, in a table that no other table references."""

from datetime import datetime

from sqlalchemy import DateTime, Index, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, PrimaryKey


class AttemptCounter(Base):
    """The times of attempts for one key of a limit, stored as a keyed hash."""

    __tablename__ = "allowances"

    id: Mapped[PrimaryKey]
    limit_name: Mapped[str]
    key: Mapped[bytes] = mapped_column(LargeBinary)
    used_at: Mapped[list[datetime]] = mapped_column(ARRAY(DateTime(timezone=True)))
    expires_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("limit_name", "key"),
        Index("allowances_expires_at_idx", "expires_at"),
    )
