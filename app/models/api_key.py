"""API keys, with which programs act for a user."""

from typing import Literal

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key

Scope = Literal["feed", "read", "write"]


class ApiKey(Base):
    """The name, scopes and SHA-256 of an API key; its session is of kind `api_key`.

    The session has the user, the expiry time and the time of last use. Ending the session deletes the key.
    """

    __tablename__ = "api_keys"

    session_id: Mapped[int] = mapped_column(Key, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str]
    scopes: Mapped[list[Scope]] = mapped_column(ARRAY(String))
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)

    __table_args__ = (CheckConstraint("scopes IN ('{feed}', '{read}', '{read,write}')", name="scopes"),)
