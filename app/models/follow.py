"""Follows: at most one for each pair of users."""

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Follow(Base):
    """One user follows another. The composite primary key prevents a second row."""

    __tablename__ = "follows"

    follower_id: Mapped[int] = mapped_column(
        Key, ForeignKey("users.id", name="follows_follower_id_users_fkey", ondelete="CASCADE"), primary_key=True
    )
    followee_id: Mapped[int] = mapped_column(
        Key, ForeignKey("users.id", name="follows_followee_id_users_fkey", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[Now]

    __table_args__ = (
        CheckConstraint("follower_id <> followee_id", name="others"),
        Index("follows_follower_id_created_at_followee_id_idx", "follower_id", "created_at", "followee_id"),
        Index("follows_followee_id_created_at_follower_id_idx", "followee_id", "created_at", "follower_id"),
    )
