"""Mails that are to be sent: rows written in the transaction of what they tell of."""

from typing import Literal

from sqlalchemy import CheckConstraint, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Now, PrimaryKey

MailKind = Literal["password_reset", "email_verification", "password_changed", "email_changed"]


class OutgoingMail(Base):
    """One mail, until it is sent. Its text and its token are made when it is sent, and never stored.

    `address` is the recipient. Of a `password_reset` it is the address as typed; the mail goes to the account
    that has it, if there is one. A sender moves `due_at` ahead first, so that no other process sends the mail
    meanwhile, and so that it is due again if the sender never finishes.
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
            "kind IN ('password_reset', 'email_verification', 'password_changed', 'email_changed')", name="kind"
        ),
        Index("outgoing_mails_due_at_idx", "due_at"),
    )
