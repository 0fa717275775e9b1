"""Attempts counted against a limit, in a table that no other table refers to."""

from datetime import datetime

from sqlalchemy import DateTime, Index, LargeBinary, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, PrimaryKey


class AttemptCounter(Base):
    """When a limit's tries were made for one key, of which only a keyed hash is kept."""

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
