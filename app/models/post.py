"""Posts and their vote counts."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Computed,
    Double,
    FetchedValue,
    ForeignKey,
    Index,
    Integer,
    Text,
    and_,
    case,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, Key, Now, PrimaryKey
from app.models.user import User

FIRST_VERSION = 1


class Post(Base):
    """A post. Every change increments `version`, which is part of the ETag."""

    __tablename__ = "posts"

    id: Mapped[PrimaryKey]
    title: Mapped[str]
    content: Mapped[str]
    # Only the RealWorld API reads and writes it.
    description: Mapped[str] = mapped_column(Text, server_default=text("''"))
    published: Mapped[bool] = mapped_column(server_default=text("true"))
    # For a draft, the first publication replaces it.
    created_at: Mapped[Now]
    updated_at: Mapped[Now]
    # NULL while the post is still in the state in which it was created, draft or published.
    first_published_at: Mapped[datetime | None]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    version: Mapped[int] = mapped_column(Integer, server_default=text(str(FIRST_VERSION)))
    # A locked post accepts no comments.
    locked: Mapped[bool] = mapped_column(server_default=text("false"))
    # Set while a moderator has removed the post, which is not published then.
    removal_reason: Mapped[str | None]
    published_before_removal: Mapped[bool | None]
    # In the author's order. Triggers keep `post_tags` and `tag_stats` equal to them.
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    # Its pictures as JSON, in the author's order. Triggers of `media` keep it.
    media: Mapped[str] = mapped_column(Text, server_default=text("'[]'"))
    # The trigger `posts_search` computes it from title and content with `search_vector` (migration 0024).
    search: Mapped[str] = mapped_column(
        TSVECTOR,
        server_default=FetchedValue(),
        server_onupdate=FetchedValue(for_update=True),
        deferred=True,
        deferred_raiseload=True,
    )

    owner: Mapped[User] = relationship(lazy="raise")

    @hybrid_property
    def published_at(self) -> datetime | None:
        """The time of the first publication; None if there was none."""
        return self.first_published_at or (self.created_at if self.published else None)

    @published_at.inplace.expression
    @classmethod
    def _published_at(cls) -> ColumnElement[datetime | None]:
        return func.coalesce(cls.first_published_at, case((cls.published, cls.created_at)))

    @classmethod
    def publication_times(cls, is_published: bool) -> dict[str, ColumnElement[datetime | None]]:
        """Return the new times of a post that becomes published, or a draft.

        Only the first publication counts.
        """
        if not is_published:
            published_at = func.coalesce(cls.first_published_at, cls.created_at)
            return {"first_published_at": case((cls.published, published_at), else_=cls.first_published_at)}
        is_first = ~cls.published & cls.first_published_at.is_(None)
        return {
            "created_at": case((is_first, func.now()), else_=cls.created_at),
            "first_published_at": case((is_first, func.now()), else_=cls.first_published_at),
        }

    @classmethod
    def has_owner(cls) -> ColumnElement[bool]:
        """Return the condition that joins the owner.

        Posts of deleted accounts count as missing while they await removal.
        """
        return and_(User.id == cls.owner_id, ~User.is_deleted)

    @classmethod
    def visible_to(cls, viewer: User) -> ColumnElement[bool]:
        """Return the condition that the viewer may see the post.

        Drafts and removed posts are visible to their owners and moderators only.
        """
        exists = select(User.id).where(cls.has_owner()).exists()
        return exists if viewer.is_moderator else and_(exists, or_(cls.published, cls.owner_id == viewer.id))

    __table_args__ = (
        CheckConstraint(
            "(removal_reason IS NULL) = (published_before_removal IS NULL)"
            " AND (removal_reason IS NULL OR NOT published)",
            name="removed",
        ),
        Index("posts_created_at_id_idx", "created_at", "id", postgresql_where=text("published")),
        # Not two partial indexes: the foreign key needs one of all posts of an owner.
        Index("posts_owner_id_published_created_at_id_idx", "owner_id", "published", "created_at", "id"),
        # Without drafts: the time to read entries of other users' drafts would reveal that they exist.
        Index("posts_search_idx", "search", postgresql_using="gin", postgresql_where=text("published")),
    )


class PostStats(Base):
    """Sort values of a post, in narrow rows: a vote never rewrites a wide post.

    Triggers maintain them. `votes` always equals the number of rows in the table `votes`, and `comments` the number of
    comments that are neither tombstones nor removed. `hot` grows with the
    logarithm of the votes and with the creation time. It does not depend on the current time, so no row has to be
    rewritten as posts age.
    """

    __tablename__ = "post_stats"

    post_id: Mapped[int] = mapped_column(Key, ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    votes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    comments: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    published: Mapped[bool]
    created_at: Mapped[datetime]
    hot: Mapped[float] = mapped_column(Double, Computed("hot_score(votes, created_at)", persisted=True))

    __table_args__ = (
        Index("post_stats_votes_post_id_idx", "votes", "post_id", postgresql_where=text("published")),
        Index("post_stats_hot_post_id_idx", "hot", "post_id", postgresql_where=text("published")),
    )
