"""Votes: one user, one post, at most one."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Vote(Base):
    """A vote of a user for a post. The composite primary key allows one vote per user and post."""

    __tablename__ = "votes"

    post_id: Mapped[int] = mapped_column(Key, ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[Now]

    __table_args__ = (Index("votes_user_id_created_at_post_id_idx", "user_id", "created_at", "post_id"),)
