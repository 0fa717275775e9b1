"""Invites, with which people sign up while `REGISTRATION=invite`."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey


class Invite(Base):
    """An invite, as the SHA-256 of its token.

    `creator_id` is NULL for invites from the command line. `uses` is the number of accounts that signed up with it.
    """

    __tablename__ = "invites"

    id: Mapped[PrimaryKey]
    creator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    max_uses: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    uses: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("uses BETWEEN 0 AND max_uses", name="uses"),
        Index("invites_creator_id_id_idx", "creator_id", "id"),
    )
