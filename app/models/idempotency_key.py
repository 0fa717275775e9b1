"""Stored responses for requests that are repeated with the same Idempotency-Key."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, PrimaryKey


class IdempotencyKey(Base):
    """The response to one request, stored in the transaction of its effect.

    `user_id` is NULL for requests without a signed-in user.
    """

    __tablename__ = "idempotency_keys"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    key: Mapped[str]
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int] = mapped_column(Integer)
    location: Mapped[str | None]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime]

    __table_args__ = (
        Index("idempotency_keys_user_id_key_key", "user_id", "key", unique=True, postgresql_nulls_not_distinct=True),
        Index("idempotency_keys_expires_at_idx", "expires_at"),
    )
