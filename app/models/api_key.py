"""Keys with which programs act for a user."""

from typing import Literal

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key

Scope = Literal["read", "write"]


class ApiKey(Base):
    """What a session of kind `api_key` has beside: a name, what it may do, and the SHA-256 of the key.

    Whose it is, until when, and when it was last used is the session's; ending the session deletes the key.
    """

    __tablename__ = "api_keys"

    session_id: Mapped[int] = mapped_column(Key, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str]
    scopes: Mapped[list[Scope]] = mapped_column(ARRAY(String))
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)

    __table_args__ = (CheckConstraint("scopes IN ('{read}', '{read,write}')", name="scopes"),)
