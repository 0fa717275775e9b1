"""Mails to send, written in the transaction of what they tell of: a mail goes out exactly when that happened."""

from sqlalchemy import Connection, insert
from sqlalchemy.orm import Session

from app.models import MailKind, OutgoingMail
from app.observability import request_context


def post(db: Session | Connection, kind: MailKind, address: str) -> None:
    """Have a mail sent once the transaction has committed; `mail.templates` knows what each kind says.

    A `password_reset` may be for any address that somebody typed: whether an account has it is asked when it is sent,
    so that this costs the same for every address.
    """
    db.execute(
        insert(OutgoingMail).values(
            kind=kind,
            address=address,
            request_id=request_context.request_id.get(),
            client_address=request_context.client_address.get(),
        )
    )
