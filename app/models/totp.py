"""Second factors: the secret that an authenticator app shares with us, and the codes for when the app is lost."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Totp(Base):
    """One user's second factor; until it is confirmed with a code, signing in does not ask for it.

    `last_step` is the time step of the last code that was accepted: none of its time or before is accepted again.
    """

    __tablename__ = "totps"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    last_step: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[Now]
    confirmed_at: Mapped[datetime | None]


class RecoveryCode(Base):
    """A code that stands in once for the authenticator, as its SHA-256. Using it is deleting it."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("totps.user_id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
