"""Cleanup: remove expired and outdated rows in batches.

These are expired sessions, stored responses, attempt counters, mail tokens and invites, unsent mails, old security
events, notifications and resolved reports, old entries of the log of moderation and of the event log, old deliveries of
webhooks, unused pictures, and tags without posts and followers.
Batches are bounded and each is one transaction. Rows that are locked by other transactions are left for the next run.
So cleanup can run at any time, and several runs can overlap.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from sqlalchemy import ColumnElement, bindparam, delete, func, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT

from app.config import get_settings
from app.database.sessions import writing
from app.models import (
    AttemptCounter,
    Event,
    IdempotencyKey,
    Invite,
    MailToken,
    Media,
    ModerationEntry,
    Notification,
    OutgoingMail,
    Report,
    SecurityEvent,
    Session,
)

# Unsent mails are kept so that an operator can see which failed, and why.
UNSENT_MAILS_KEPT = timedelta(days=7)
# Pictures that no post and no profile uses. The background worker then deletes their files.
UNUSED_MEDIA_KEPT = timedelta(days=1)
# Of each webhook, besides those that wait.
DELIVERIES_KEPT = 1_000
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
    yield "invites", remove(Invite, Invite.expires_at <= func.now())
    is_unsent = OutgoingMail.created_at < func.now() - UNSENT_MAILS_KEPT
    yield "outgoing_mails", remove(OutgoingMail, is_unsent)
    is_past = SecurityEvent.created_at < func.now() - get_settings().security_events_kept
    yield "security_events", remove(SecurityEvent, is_past)
    yield "notifications", _remove_oldest(batch_rows, is_stopping, Notification, get_settings().notifications_kept)
    moderation_kept = get_settings().moderation_kept
    yield "moderation_log", _remove_oldest(batch_rows, is_stopping, ModerationEntry, moderation_kept)
    yield "reports", remove(Report, Report.resolved_at < func.now() - moderation_kept)
    yield "events", _remove_oldest(batch_rows, is_stopping, Event, get_settings().events_kept)
    yield "webhook_deliveries", _remove_deliveries(batch_rows, is_stopping)
    yield "media", remove(Media, Media.unused_since < func.now() - UNUSED_MEDIA_KEPT)
    yield "tags", _remove_unused_tags(batch_rows, is_stopping)


Expiring = (
    Session | IdempotencyKey | AttemptCounter | MailToken | Invite | OutgoingMail | SecurityEvent | Report | Media
)


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


def _remove_oldest(
    batch_rows: int,
    is_stopping: Callable[[], bool],
    table: type[Notification | ModerationEntry | Event],
    kept: timedelta,
) -> int:
    """Remove old rows of a table that is written in the order of time, by ascending id.

    It ends with the first batch that has a row to keep. So the table needs no index on its time, which every write
    would pay for.
    """
    removed = 0
    is_next: ColumnElement[bool] = true()
    is_old = table.created_at < func.now() - kept
    while not is_stopping():
        with writing() as connection:
            rows = connection.execute(
                select(table.id, is_old).where(is_next).order_by(table.id).limit(batch_rows)
            ).all()
            if ids := [key for key, is_expired in rows if is_expired]:
                expired = select(table.id).where(table.id == bindparam("ids", ids, type_=ARRAY(BIGINT)).any_())
                locked = expired.order_by(table.id).with_for_update(skip_locked=True).cte("expired")
                removed += connection.execute(delete(table).where(table.id.in_(select(locked.c.id)))).rowcount
        if not ids or len(ids) < len(rows):
            break
        is_next = table.id > ids[-1]
    return removed


_NEXT_WEBHOOK = text("SELECT min(webhook_id) FROM webhook_deliveries WHERE webhook_id > :last")
_DELETE_DELIVERIES = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries WHERE webhook_id = :webhook_id AND (
            NOT EXISTS (SELECT FROM webhooks WHERE id = :webhook_id)
            OR status <> 'waiting' AND id <= (
                SELECT id FROM webhook_deliveries WHERE webhook_id = :webhook_id ORDER BY id DESC OFFSET :kept LIMIT 1
            )
        )
        ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED
    )
""")


def _remove_deliveries(batch_rows: int, is_stopping: Callable[[], bool]) -> int:
    """Remove all deliveries of deleted webhooks, and all but the newest and the waiting ones of the others."""
    removed = 0
    webhook_id: int | None = 0
    while not is_stopping():
        with writing() as connection:
            webhook_id = connection.scalar(_NEXT_WEBHOOK, {"last": webhook_id})
        if webhook_id is None:
            break
        rows = batch_rows
        while rows == batch_rows and not is_stopping():
            with writing() as connection:
                values = {"webhook_id": webhook_id, "kept": DELIVERIES_KEPT, "rows": batch_rows}
                rows = connection.execute(_DELETE_DELIVERIES, values).rowcount
            removed += rows
    return removed


# Tags of drafts have no counted posts, but rows in `post_tags`.
_IS_UNUSED = """
    NOT EXISTS (SELECT FROM post_tags WHERE tag_id = tags.id)
    AND NOT EXISTS (SELECT FROM tag_follows WHERE tag_id = tags.id)
"""
_LOCK_UNUSED = text(f"""
    SELECT id FROM tags
    WHERE id IN (SELECT tag_id FROM tag_stats WHERE posts = 0 AND followers = 0 AND tag_id > :last) AND {_IS_UNUSED}
    ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED
""")
_DELETE_UNUSED = text(f"DELETE FROM tags WHERE id = ANY (:ids) AND {_IS_UNUSED}")


def _remove_unused_tags(batch_rows: int, is_stopping: Callable[[], bool]) -> int:
    """Remove tags without posts and followers by ascending id.

    Every writer locks a tag before it refers to it. So the tags are locked first, and examined again by the next
    statement, which sees what was committed before the lock.
    """
    removed = last = 0
    while not is_stopping():
        with writing() as connection:
            ids = connection.scalars(_LOCK_UNUSED, {"last": last, "rows": batch_rows}).all()
            if not ids:
                break
            removed += connection.execute(_DELETE_UNUSED, {"ids": ids}).rowcount
        last = max(ids)
    return removed
