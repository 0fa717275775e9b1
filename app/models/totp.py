"""Second factors: TOTP secrets and recovery codes."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Totp(Base):
    """One user's second factor.

    Sign-in requires it only after it was confirmed with a code. `last_step` is the time step of the last accepted code.
    Codes of this or an earlier step are refused.
    """

    __tablename__ = "totps"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    last_step: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[Now]
    confirmed_at: Mapped[datetime | None]


class RecoveryCode(Base):
    """A code that replaces the authenticator app once, as its SHA-256.

    Its use deletes the row.
    """

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("totps.user_id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
