"""Cleanup: remove expired and outdated rows in batches.

These are expired sessions, stored responses, attempt counters and mail tokens, unsent mails, and old security events.
Batches are bounded and each is one transaction. Rows that are locked by other transactions are left for the next run.
So cleanup can run at any time, and several runs can overlap.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from sqlalchemy import ColumnElement, delete, func, select, true

from app.config import get_settings
from app.database.sessions import writing
from app.models import (
    AttemptCounter,
    IdempotencyKey,
    MailToken,
    OutgoingMail,
    SecurityEvent,
    Session,
)

# Unsent mails are kept so that an operator can see which failed, and why.
UNSENT_MAILS_KEPT = timedelta(days=7)
BATCH_ROWS = 5_000


def run(batch_rows: int = BATCH_ROWS, is_stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, int]]:
    """Remove all expired rows; yield each table's name and number of removed rows.

    When `is_stopping` returns true, the rest is left for the next run.
    """
    remove = partial(_remove, batch_rows, is_stopping)
    yield "sessions", remove(Session, Session.expires_at <= func.now())
    yield "idempotency_keys", remove(IdempotencyKey, IdempotencyKey.expires_at <= func.now())
    yield "allowances", remove(AttemptCounter, AttemptCounter.expires_at <= func.now())
    yield "mail_tokens", remove(MailToken, MailToken.expires_at <= func.now())
    is_unsent = OutgoingMail.created_at < func.now() - UNSENT_MAILS_KEPT
    yield "outgoing_mails", remove(OutgoingMail, is_unsent)
    is_past = SecurityEvent.created_at < func.now() - get_settings().security_events_kept
    yield "security_events", remove(SecurityEvent, is_past)


Expiring = Session | IdempotencyKey | AttemptCounter | MailToken | OutgoingMail | SecurityEvent


def _remove(
    batch_rows: int, is_stopping: Callable[[], bool], table: type[Expiring], is_expired: ColumnElement[bool]
) -> int:
    """Remove expired rows of a table by ascending id, so that no row is read twice."""
    removed = 0
    is_next: ColumnElement[bool] = true()
    while not is_stopping():
        expired = (
            select(table.id)
            .where(is_next, is_expired)
            .order_by(table.id)
            .limit(batch_rows)
            .with_for_update(skip_locked=True)
            .cte("expired")
        )
        with writing() as connection:
            ids = connection.scalars(delete(table).where(table.id.in_(select(expired.c.id))).returning(table.id)).all()
        if not ids:
            break
        removed += len(ids)
        is_next = table.id > max(ids)
    return removed
