"""Pictures: rows, and the removal of their files."""

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey


class Media(Base):
    """A picture of a user. A post or the user's profile uses it, or nothing does, since `unused_since`.

    Its files are `<name>.webp` and `<name>-400.webp`. Triggers keep `posts.media` and `users.avatar` equal to the rows,
    and write a row of `media_removals` when a row is deleted.
    """

    __tablename__ = "media"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(unique=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    # Of both files.
    bytes: Mapped[int] = mapped_column(Integer)
    alt: Mapped[str | None]
    blurhash: Mapped[str]
    post_id: Mapped[int | None] = mapped_column(ForeignKey("posts.id", ondelete="CASCADE"))
    position: Mapped[int | None] = mapped_column(Integer)
    is_avatar: Mapped[bool] = mapped_column(server_default=text("false"))
    unused_since: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), server_default=text("now()"))
    created_at: Mapped[Now]

    __table_args__ = (
        Index("media_owner_id_id_idx", "owner_id", "id"),
        Index("media_owner_id_key", "owner_id", unique=True, postgresql_where=text("is_avatar")),
        Index("media_post_id_idx", "post_id", postgresql_where=text("post_id IS NOT NULL")),
        Index("media_unused_since_idx", "unused_since", postgresql_where=text("unused_since IS NOT NULL")),
        CheckConstraint("name ~ '^[0-9a-f]{32}$'", name="name"),
        CheckConstraint(
            "(post_id IS NOT NULL)::int + is_avatar::int + (unused_since IS NOT NULL)::int = 1", name="use"
        ),
        CheckConstraint("(post_id IS NULL) = (position IS NULL)", name="position"),
    )


class MediaRemoval(Base):
    """The name of a picture whose files are to be deleted, from `due_at` on.

    An upload writes it before it stores files, and deletes it in the transaction that adds the picture's row. So files
    without a row have one of these, also after a crash.
    """

    __tablename__ = "media_removals"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[Now]

    __table_args__ = (Index("media_removals_due_at_idx", "due_at"),)
