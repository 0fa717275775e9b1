"""Outbox: a mail is a row of the transaction that causes it.

So it is sent only after that commits.
"""

from datetime import timedelta

from sqlalchemy import Connection, DateTime, cast, func, insert, select
from sqlalchemy.orm import Session

from app.models import MailKind, OutgoingMail
from app.observability import request_context

# Older mails are never sent, because they would confuse their recipients: they wait if delivery is off.
SENT_WITHIN = timedelta(days=1)
# Bounds the time of `measure`. Higher counts call for the same action.
MAX_COUNTED = 10_000


def post(db: Session | Connection, kind: MailKind, address: str) -> None:
    """Queue a mail for delivery after the commit.

    `mail.templates` has the text of each kind. A `password_reset` may be queued for any address. Delivery looks up the
    account, so that the request takes the same time whether or not there is one.
    """
    db.execute(
        insert(OutgoingMail).values(
            kind=kind,
            address=address,
            request_id=request_context.request_id.get(),
            client_address=request_context.client_address.get(),
        )
    )


def measure(db: Connection) -> tuple[int, int, float]:
    """Return the counts of waiting and given-up mails, and the maximum age.

    The age is that of the oldest waiting mail, in seconds. Each count is at most `MAX_COUNTED`. The age is 0 if no mail
    waits.
    """
    is_waiting = (OutgoingMail.due_at < cast("infinity", DateTime(timezone=True))) & (
        OutgoingMail.created_at > func.now() - SENT_WITHIN
    )
    # In the order of delivery, so that the counted mails are those that have waited longest.
    first = select(OutgoingMail.created_at).where(is_waiting).order_by(OutgoingMail.due_at).limit(MAX_COUNTED)
    waiting = first.subquery()
    given_up = select(OutgoingMail.id).where(~is_waiting).limit(MAX_COUNTED).subquery()
    age = func.extract("epoch", func.now() - func.min(waiting.c.created_at))
    row = db.execute(
        select(
            func.count(),
            select(func.count()).select_from(given_up).scalar_subquery(),
            func.coalesce(age, 0),
        ).select_from(waiting)
    ).one()
    return row[0], row[1], float(row[2])
