"""Reports, and the log of what moderators do."""

from datetime import datetime
from typing import Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, and_, text
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship

from app.models.base import Base, Key, Now, PrimaryKey
from app.models.user import User

ModerationAction = Literal["remove", "restore", "delete", "lock", "unlock", "ban", "unban", "dismiss"]
ReportAction = Literal["dismiss", "remove", "ban"]


class ModerationEntry(Base):
    """What a moderator, or the operator (NULL), did.

    It has no foreign keys, so that it outlives what it is about. `user_id` is the author of the content, or the
    account.
    """

    __tablename__ = "moderation_log"

    id: Mapped[PrimaryKey]
    moderator_id: Mapped[int | None]
    action: Mapped[ModerationAction] = mapped_column(String)
    user_id: Mapped[int | None]
    post_id: Mapped[int | None]
    comment_id: Mapped[int | None]
    report_id: Mapped[int | None]
    reason: Mapped[str | None]
    until: Mapped[datetime | None]
    created_at: Mapped[Now]

    moderator: Mapped[User | None] = relationship(
        primaryjoin=lambda: and_(foreign(ModerationEntry.moderator_id) == User.id, ~User.is_deleted),
        viewonly=True, lazy="raise",
    )  # fmt: skip


class Report(Base):
    """A user reports a post, a comment or an account: at most one open report for each pair.

    What is reported has no foreign key. So a deletion neither waits for reports nor takes them along.
    """

    __tablename__ = "reports"

    id: Mapped[PrimaryKey]
    reporter_id: Mapped[int] = mapped_column(Key, ForeignKey("users.id", ondelete="CASCADE"))
    post_id: Mapped[int | None]
    comment_id: Mapped[int | None]
    user_id: Mapped[int | None]
    reason: Mapped[str]
    created_at: Mapped[Now]
    # All NULL while the report is open. `resolver_id` is the moderator.
    resolved_at: Mapped[datetime | None]
    resolver_id: Mapped[int | None]
    action: Mapped[ReportAction | None] = mapped_column(String)
    note: Mapped[str | None]

    reporter: Mapped[User | None] = relationship(
        primaryjoin=lambda: and_(foreign(Report.reporter_id) == User.id, ~User.is_deleted), viewonly=True, lazy="raise"
    )
    resolver: Mapped[User | None] = relationship(
        primaryjoin=lambda: and_(foreign(Report.resolver_id) == User.id, ~User.is_deleted), viewonly=True, lazy="raise"
    )

    @property
    def listed_at(self) -> datetime | None:
        """The time by which resolved reports are sorted."""
        return self.resolved_at

    __table_args__ = (
        CheckConstraint("num_nonnulls(post_id, comment_id, user_id) = 1", name="thing"),
        CheckConstraint("action IN ('dismiss', 'remove', 'ban')", name="action"),
        CheckConstraint("(resolved_at IS NULL) = (action IS NULL)", name="resolved"),
        # Also finds the open reports of a thing.
        Index(
            "reports_post_id_comment_id_user_id_reporter_id_key", "post_id", "comment_id", "user_id", "reporter_id",
            unique=True, postgresql_nulls_not_distinct=True, postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("reports_reporter_id_resolved_at_idx", "reporter_id", "resolved_at"),
        # The queue, and what is resolved by time.
        Index("reports_id_idx", "id", postgresql_where=text("resolved_at IS NULL")),
        Index("reports_resolved_at_id_idx", "resolved_at", "id", postgresql_where=text("resolved_at IS NOT NULL")),
    )  # fmt: skip
