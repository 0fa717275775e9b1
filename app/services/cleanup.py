"""Cleanup: delete rows that have expired.

These are ended sessions, stored responses, attempt counters, old vote history, unsent mails, expired tokens and old
security events. Batches are bounded, and each is one transaction. Rows that another transaction has locked are left for
the next run. So cleanup can run at any time, also concurrently.

A cursor into a list sorted by votes keeps the order of the time at which its traversal began, by
`post_stats_history`. A traversal that takes longer than `HISTORY_KEPT` counts older votes as if they had been
there from the start. A post that such votes moved across its position may be missed or listed twice.
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
    PostStatsHistory,
    SecurityEvent,
    Session,
)

HISTORY_KEPT = timedelta(hours=2)
# For an operator to look at what could not be sent, and why.
UNSENT_MAILS_KEPT = timedelta(days=7)
BATCH_ROWS = 5_000


def run(batch_rows: int = BATCH_ROWS, is_stopping: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, int]]:
    """Remove all that has expired; yield each table's name and how many of its rows were removed.

    Told to stop, it leaves the rest to the next time.
    """
    remove = partial(_remove, batch_rows, is_stopping)
    yield "sessions", remove(Session, Session.expires_at <= func.now())
    yield "idempotency_keys", remove(IdempotencyKey, IdempotencyKey.expires_at <= func.now())
    yield "allowances", remove(AttemptCounter, AttemptCounter.expires_at <= func.now())
    is_old = PostStatsHistory.changed_at < func.now() - HISTORY_KEPT
    yield "post_stats_history", remove(PostStatsHistory, is_old)
    yield "mail_tokens", remove(MailToken, MailToken.expires_at <= func.now())
    is_unsent = OutgoingMail.created_at < func.now() - UNSENT_MAILS_KEPT
    yield "outgoing_mails", remove(OutgoingMail, is_unsent)
    is_past = SecurityEvent.created_at < func.now() - get_settings().security_events_kept
    yield "security_events", remove(SecurityEvent, is_past)


Expiring = Session | IdempotencyKey | AttemptCounter | PostStatsHistory | MailToken | OutgoingMail | SecurityEvent


def _remove(
    batch_rows: int, is_stopping: Callable[[], bool], table: type[Expiring], is_expired: ColumnElement[bool]
) -> int:
    """Walk along the key, so that no row is looked at twice, whether or not it was removed."""
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
