"""Webhooks, what is to be delivered to them, and how far the event log is queued."""

from datetime import datetime
from typing import Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey

WebhookScope = Literal["own", "all"]
DeliveryStatus = Literal["waiting", "delivered", "given_up"]


class Webhook(Base):
    """A URL to which the events of some kinds are sent.

    `due_at` is when to look for a delivery next: `infinity` if none waits. A process postpones it while it delivers, so
    there is one request at a time, and a delivery becomes due again if the process dies. `failing_since` is the first
    of the failures since the last success, and `failure_count` their number.
    """

    __tablename__ = "webhooks"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    scope: Mapped[WebhookScope] = mapped_column(String, server_default=text("'own'"))
    # Encrypted, because signatures need the secret itself.
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[Now]
    due_at: Mapped[datetime] = mapped_column(server_default=text("'infinity'"))
    failure_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failing_since: Mapped[datetime | None]
    # Earlier events are not sent.
    enabled_at: Mapped[Now]
    disabled_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("scope IN ('own', 'all')", name="scope"),
        Index("webhooks_owner_id_id_idx", "owner_id", "id"),
        Index("webhooks_due_at_idx", "due_at"),
        Index("webhooks_id_idx", "id", postgresql_where=text("scope = 'all'")),
    )

    @property
    def enabled(self) -> bool:
        """Whether events are queued and delivered."""
        return self.disabled_at is None


class WebhookDelivery(Base):
    """One event for one webhook: what is sent, and what came of it.

    `due_at` is when to try next, while it waits. The last attempt had the response code, or the failure.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[PrimaryKey]
    # No foreign key, so that deleting a webhook takes no longer if it has many. Cleanup removes those that are left.
    webhook_id: Mapped[int] = mapped_column(BigInteger)
    event: Mapped[str]
    body: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(String, server_default=text("'waiting'"))
    created_at: Mapped[Now]
    due_at: Mapped[Now]
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    attempted_at: Mapped[datetime | None]
    response_code: Mapped[int | None] = mapped_column(Integer)
    milliseconds: Mapped[int | None] = mapped_column(Integer)
    failure: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("status IN ('waiting', 'delivered', 'given_up')", name="status"),
        Index("webhook_deliveries_webhook_id_id_idx", "webhook_id", "id"),
        Index("webhook_deliveries_webhook_id_due_at_id_idx", "webhook_id", "due_at", "id",
              postgresql_where=text("status = 'waiting'")),
    )  # fmt: skip


class EventPosition(Base):
    """How far a consumer has read the event log. Its lock lets one process at a time read."""

    __tablename__ = "event_positions"

    consumer: Mapped[str] = mapped_column(primary_key=True)
    transaction_id: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[int] = mapped_column(BigInteger)
