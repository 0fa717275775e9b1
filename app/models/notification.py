"""Notifications, and the posts whose notifications users have muted."""

from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Key, Now, PrimaryKey

# The stronger kinds come first: of several for one cause, only the first is written.
NotificationKind = Literal["reply", "comment", "mention", "follow", "moderation"]
NOTIFICATION_KINDS: tuple[NotificationKind, ...] = get_args(NotificationKind)


class Notification(Base):
    """A notification of one user about one cause: a comment, a mention in a post, or a follow.

    It has no foreign keys: a key to the recipient would lock their account after the post, against the order of
    `database.locks`. What refers to a missing row, or to one that the recipient may not see, is hidden
    (`services.notification`).
    """

    __tablename__ = "notifications"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int]
    kind: Mapped[NotificationKind] = mapped_column(String)
    actor_id: Mapped[int | None]
    post_id: Mapped[int | None]
    comment_id: Mapped[int | None]
    created_at: Mapped[Now]
    read_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("kind IN ('reply', 'comment', 'mention', 'follow', 'moderation')", name="kind"),
        Index("notifications_user_id_id_idx", "user_id", "id"),
        # Unread ones. With the actor, of whose notifications only some are kept unread.
        Index(
            "notifications_user_id_id_actor_id_idx", "user_id", "id", "actor_id",
            postgresql_where=text("read_at IS NULL"),
        ),
        # One for each cause and recipient. A mention in a post has no comment.
        Index(
            "notifications_post_id_comment_id_user_id_key", "post_id", "comment_id", "user_id",
            unique=True, postgresql_nulls_not_distinct=True,
            postgresql_where=text("kind IN ('reply', 'comment', 'mention')"),
        ),
        Index(
            "notifications_actor_id_user_id_key", "actor_id", "user_id",
            unique=True, postgresql_where=text("kind = 'follow'"),
        ),
    )  # fmt: skip


class PostMute(Base):
    """A user wants no notifications about a post and its comments. Only this user sees it."""

    __tablename__ = "post_mutes"

    post_id: Mapped[int] = mapped_column(Key, ForeignKey("posts.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[Now]

    __table_args__ = (Index("post_mutes_user_id_post_id_idx", "user_id", "post_id"),)
