"""Outbox: a mail is a row of the transaction that causes it, so it is sent only after that commits."""

from sqlalchemy import Connection, insert
from sqlalchemy.orm import Session

from app.models import MailKind, OutgoingMail
from app.observability import request_context


def post(db: Session | Connection, kind: MailKind, address: str) -> None:
    """Queue a mail for delivery after the commit. `mail.templates` has the text of each kind.

    A `password_reset` may be queued for any address. Delivery looks up the account, so that the request takes the same
    time whether or not there is one.
    """
    db.execute(
        insert(OutgoingMail).values(
            kind=kind,
            address=address,
            request_id=request_context.request_id.get(),
            client_address=request_context.client_address.get(),
        )
    )
