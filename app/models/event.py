"""The event log, which consumers read in the order of transactions."""

from enum import StrEnum

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey


class EventKind(StrEnum):
    """What happened. A newer release may have written others."""

    COMMENT = "comment"
    NOTIFICATION = "notification"
    POST_PUBLISHED = "post_published"
    POST_EDITED = "post_edited"
    POST_UNPUBLISHED = "post_unpublished"
    POST_DELETED = "post_deleted"


class Event(Base):
    """One event, written in the transaction of its cause (`database.event_log`).

    It has no foreign keys, so that it neither slows nor blocks deletions. Its ids may be those of rows that are deleted
    since. `user_id` is the recipient of a notification, and the owner of a deleted post.
    """

    __tablename__ = "events"

    id: Mapped[PrimaryKey]
    # As bigint, because SQLAlchemy does not know PostgreSQL's `xid8`.
    transaction_id: Mapped[int] = mapped_column(BigInteger, server_default=text("pg_current_xact_id()::text::bigint"))
    kind: Mapped[str]
    actor_id: Mapped[int | None]
    post_id: Mapped[int | None]
    comment_id: Mapped[int | None]
    user_id: Mapped[int | None]
    created_at: Mapped[Now]

    __table_args__ = (Index("events_transaction_id_id_idx", "transaction_id", "id"),)
