"""Tags of posts, and the users who follow them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now, PrimaryKey


class Tag(Base):
    """A tag. Its name never changes.

    The trigger of `posts` creates it with its first post, a follow with its first follower, and cleanup removes it when
    it has neither.
    """

    __tablename__ = "tags"

    id: Mapped[PrimaryKey]
    # Sorted by code point, so that the unique index also finds prefixes.
    name: Mapped[str] = mapped_column(Text(collation="C"), unique=True)

    __table_args__ = (CheckConstraint("char_length(name) BETWEEN 1 AND 30", name="name"),)


class PostTag(Base):
    """A tag of a post, with the columns by which the tag's posts are listed.

    Derived from `posts.tags`, `published` and `created_at` by triggers. Nothing else writes it.
    """

    __tablename__ = "post_tags"

    post_id: Mapped[int] = mapped_column(Key, ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    # RESTRICT, because a tag with posts is never removed.
    tag_id: Mapped[int] = mapped_column(Key, ForeignKey("tags.id"), primary_key=True)
    published: Mapped[bool]
    created_at: Mapped[datetime]

    __table_args__ = (
        Index("post_tags_tag_id_published_created_at_post_id_idx", "tag_id", "published", "created_at", "post_id"),
    )


class TagStats(Base):
    """Numbers of published posts and followers of a tag, maintained by triggers."""

    __tablename__ = "tag_stats"

    tag_id: Mapped[int] = mapped_column(Key, ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True)
    posts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    followers: Mapped[int] = mapped_column(Integer, server_default=text("0"))

    __table_args__ = (
        Index("tag_stats_posts_tag_id_idx", "posts", "tag_id", postgresql_where=text("posts > 0")),
        # Few tags: those that cleanup examines.
        Index("tag_stats_tag_id_idx", "tag_id", postgresql_where=text("posts = 0 AND followers = 0")),
    )


class TagFollow(Base):
    """A user follows a tag."""

    __tablename__ = "tag_follows"

    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    tag_id: Mapped[int] = mapped_column(Key, ForeignKey("tags.id"), primary_key=True)
    created_at: Mapped[Now]

    __table_args__ = (Index("tag_follows_tag_id_user_id_idx", "tag_id", "user_id"),)
