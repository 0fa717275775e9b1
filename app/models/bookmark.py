"""Bookmarks: at most one for each user and post."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now


class Bookmark(Base):
    """A post that a user has saved. Only this user sees it."""

    __tablename__ = "bookmarks"

    post_id: Mapped[int] = mapped_column(Key, ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[Now]

    __table_args__ = (Index("bookmarks_user_id_created_at_post_id_idx", "user_id", "created_at", "post_id"),)
