"""Comments, their counts, and votes for them."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    and_,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now, PrimaryKey
from app.models.post import FIRST_VERSION, Post
from app.models.user import User


class Comment(Base):
    """A comment on a post, or a reply to another comment of the post.

    A deleted comment that has replies stays as a tombstone: without author and content. A trigger makes every comment
    a tombstone that loses its owner. A parent has a smaller id than its replies.
    """

    __tablename__ = "comments"

    id: Mapped[PrimaryKey]
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id", ondelete="CASCADE"))
    parent_id: Mapped[int | None]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    content: Mapped[str] = mapped_column(Text)
    depth: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[Now]
    updated_at: Mapped[Now]
    version: Mapped[int] = mapped_column(Integer, server_default=text(str(FIRST_VERSION)))
    deleted_at: Mapped[datetime | None]
    # Set while a moderator has removed the comment.
    removal_reason: Mapped[str | None]

    @classmethod
    def visible_to(cls, viewer: User) -> ColumnElement[bool]:
        """Return the condition that the viewer may see the comment, also as a tombstone: they may see its post."""
        return select(Post.id).where(Post.id == cls.post_id, Post.visible_to(viewer)).exists()

    @classmethod
    def is_shown_to(cls, viewer: User) -> ColumnElement[bool]:
        """Return the condition that it is no tombstone for the viewer.

        Comments of deleted accounts count as tombstones while they await removal. Removed ones do for all but their
        author and moderators.
        """
        has_author = select(User.id).where(User.id == cls.owner_id, ~User.is_deleted).exists()
        if viewer.is_moderator:
            return has_author
        return and_(has_author, or_(cls.removal_reason.is_(None), cls.owner_id == viewer.id))

    __table_args__ = (
        UniqueConstraint("post_id", "id"),
        ForeignKeyConstraint(["post_id", "parent_id"], ["comments.post_id", "comments.id"]),
        CheckConstraint("parent_id < id", name="parent"),
        CheckConstraint(
            "(owner_id IS NULL) = (deleted_at IS NOT NULL) AND (deleted_at IS NULL OR content = '')", name="tombstone"
        ),
        CheckConstraint("removal_reason IS NULL OR deleted_at IS NULL", name="removed"),
        Index(
            "comments_post_id_parent_id_idx",
            "post_id",
            "parent_id",
            postgresql_where=text("removal_reason IS NOT NULL"),
        ),
        Index("comments_post_id_parent_id_id_idx", "post_id", "parent_id", "id"),
        Index("comments_owner_id_id_idx", "owner_id", "id"),
    )


class CommentStats(Base):
    """Counts of a comment, in narrow rows: a vote never rewrites a comment.

    Triggers maintain them. `parent_key` is the parent's id, and 0 for a comment on the post itself. `replies` includes
    tombstones and removed comments.
    """

    __tablename__ = "comment_stats"

    comment_id: Mapped[int] = mapped_column(Key, ForeignKey("comments.id", ondelete="CASCADE"), primary_key=True)
    post_id: Mapped[int]
    parent_key: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    votes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    replies: Mapped[int] = mapped_column(Integer, server_default=text("0"))

    __table_args__ = (
        Index("comment_stats_post_id_parent_key_votes_comment_id_idx", "post_id", "parent_key", "votes", "comment_id"),
    )


class CommentVote(Base):
    """One user's vote for one comment. The composite primary key prevents a second vote."""

    __tablename__ = "comment_votes"

    comment_id: Mapped[int] = mapped_column(Key, ForeignKey("comments.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)

    __table_args__ = (Index("comment_votes_user_id_comment_id_idx", "user_id", "comment_id"),)
