"""Blocks: at most one for each pair of users."""

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Block(Base):
    """One user has blocked another, whose posts are hidden from the first."""

    __tablename__ = "blocks"

    blocker_id: Mapped[int] = mapped_column(
        Key, ForeignKey("users.id", name="blocks_blocker_id_users_fkey", ondelete="CASCADE"), primary_key=True
    )
    blocked_id: Mapped[int] = mapped_column(
        Key, ForeignKey("users.id", name="blocks_blocked_id_users_fkey", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[Now]

    __table_args__ = (
        CheckConstraint("blocker_id <> blocked_id", name="others"),
        Index("blocks_blocker_id_created_at_blocked_id_idx", "blocker_id", "created_at", "blocked_id"),
        Index("blocks_blocked_id_blocker_id_idx", "blocked_id", "blocker_id"),
    )
