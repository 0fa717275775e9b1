"""The mail outbox: rows written in the transaction of the announced event."""

from typing import Literal

from sqlalchemy import CheckConstraint, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey

MailKind = Literal["password_reset", "email_verification", "password_changed", "email_changed", "webhook_disabled"]


class OutgoingMail(Base):
    """One unsent mail.

    Its text and token are created when it is sent, and never stored. `address` is the recipient. For a `password_reset`
    it is the address as the user typed it: the mail goes to the account with this address, if there is one. Mail
    delivery postpones `due_at` before it sends a mail. So no other process sends the mail at the same time, and it
    becomes due again if the process dies.
    """

    __tablename__ = "outgoing_mails"

    id: Mapped[PrimaryKey]
    kind: Mapped[MailKind] = mapped_column(String)
    address: Mapped[str]
    request_id: Mapped[str | None]
    client_address: Mapped[str | None]
    created_at: Mapped[Now]
    due_at: Mapped[Now]
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failure: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(
            "kind IN ('password_reset', 'email_verification', 'password_changed', 'email_changed', 'webhook_disabled')",
            name="kind",
        ),
        Index("outgoing_mails_due_at_idx", "due_at"),
    )
