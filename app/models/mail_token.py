"""Tokens sent by mail: returning one proves access to the mailbox."""

from datetime import datetime
from typing import Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, PrimaryKey

MailTokenPurpose = Literal["password_reset", "email_verification"]


class MailToken(Base):
    """The newest token of an account for a purpose, as its SHA-256.

    It is valid only while the account has the address that it was sent to.
    """

    __tablename__ = "mail_tokens"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[MailTokenPurpose] = mapped_column(String)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    email: Mapped[str]
    expires_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("user_id", "purpose"),
        CheckConstraint("purpose IN ('password_reset', 'email_verification')", name="purpose"),
        Index("mail_tokens_expires_at_idx", "expires_at"),
    )
