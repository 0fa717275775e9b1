"""What happened to accounts, for their owners to read."""

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey

Details = dict[str, str | int | None]


class SecurityEvent(Base):
    """One event of one account. It is the owner's, and goes with the account; the operator's copy is the log."""

    __tablename__ = "security_events"

    id: Mapped[PrimaryKey]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    event: Mapped[str]
    address: Mapped[str | None]
    user_agent: Mapped[str | None]
    request_id: Mapped[str | None]
    details: Mapped[Details] = mapped_column(JSONB, server_default=text("'{}'"))
    created_at: Mapped[Now]

    __table_args__ = (
        Index("security_events_user_id_id_idx", "user_id", "id"),
        Index("security_events_created_at_idx", "created_at"),
    )
