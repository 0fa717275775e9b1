"""The queue of deliveries: fill it from the event log, claim from it, and settle what was claimed.

One process at a time fills it: the position in the log is a row, which it locks. The position and the deliveries are
written in one transaction, so each event is queued once. Bodies have ids only. What a webhook's owner may see of them
is decided when the owner asks.

Deliveries are at least once: a process that dies between the request and `settle` leaves the delivery to the next one,
after the lease. A webhook has one request at a time, in the order of the events as far as retries allow. After a
failure it also pauses, so that receivers that hang take few of the places for requests at once.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import (
    Connection,
    DateTime,
    Update,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database import event_log
from app.database.event_log import Position
from app.database.sessions import writing
from app.mail import outbox
from app.models import User, Webhook, WebhookDelivery

logger = logging.getLogger("app.webhooks")

CONSUMER = "webhooks"
BATCH_EVENTS = 1_000
# Longer than a request takes. A delivery whose sender died is due again after this time.
LEASE = timedelta(minutes=1)
# Pauses before the second and later attempts: those of Standard Webhooks
# (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
PAUSES = (
    *(timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5)),
    *(timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24)),
)
# After so long without a success, the webhook is disabled. A delivery is not tried again later either.
GIVEN_UP_AFTER = timedelta(days=3)
# Before any other delivery of a webhook that just failed. It doubles with each failure.
FIRST_REST, MAX_REST = timedelta(seconds=1), timedelta(minutes=4)
# Requests of one owner at once, in each process, so that 15 owners with slow receivers leave places to others.
MAX_REQUESTS_OF_OWNER = 4
# The next webhooks are chosen from as many as these owners may have, the due ones of longest ago: 16 owners take all
# places for requests, so 16 others are seen beside them. With 100,000 due webhooks, it takes 3 ms instead of 51.
OWNERS_SEEN = 32
MIN_WEBHOOKS_SEEN_OF_OWNER = 100  # Accounts may have more than `WEBHOOKS_MAX`, if it was lowered.
# A webhook with more is disabled, so that its owner notices.
MAX_WAITING = 10_000
GONE = 410
TEST_BODY = '{"type": "test", "data": {}}'
_NEVER = cast("infinity", DateTime(timezone=True))


class Claimed(NamedTuple):
    """A delivery that this process is to make."""

    webhook_id: int
    id: int
    url: str
    secret: bytes
    body: str
    attempt_count: int
    owner_id: int


class Outcome(NamedTuple):
    """What came of an attempt: a status code, or why there is none."""

    milliseconds: int
    response_code: int | None = None
    failure: str | None = None

    @property
    def is_success(self) -> bool:
        return self.response_code is not None and 200 <= self.response_code < 300


_HAS_WEBHOOKS = text("SELECT EXISTS (SELECT FROM webhooks WHERE disabled_at IS NULL)")
_BEGIN = text("""
    INSERT INTO event_positions (consumer, transaction_id, event_id)
    VALUES (:consumer, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, 0) ON CONFLICT DO NOTHING
""")
# A position in the future belongs to another server, as after a restored dump. Then the log begins now.
_LOCK_POSITION = text("""
    SELECT CASE WHEN is_foreign THEN pg_snapshot_xmin(pg_current_snapshot())::text::bigint ELSE transaction_id END,
        CASE WHEN is_foreign THEN 0 ELSE event_id END
    FROM event_positions
    CROSS JOIN LATERAL (SELECT transaction_id > pg_snapshot_xmax(pg_current_snapshot())::text::bigint) AS _ (is_foreign)
    WHERE consumer = :consumer FOR NO KEY UPDATE OF event_positions SKIP LOCKED
""")
_MOVE = text("""
    UPDATE event_positions SET transaction_id = :transaction_id, event_id = :id WHERE consumer = :consumer
""")
# Whose an event is: a notification is its recipient's, all else the actor's and the post owner's. A deleted post names
# its owner as `user_id`. Owners do not learn which moderator acted on their posts, as they do not from notifications.
_MATCHES = """
    SELECT webhook.id AS webhook_id, event.transaction_id, event.id, event.kind, json_build_object(
        'type', event.kind, 'timestamp', to_char(event.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', json_build_object(
            'actor_id', CASE
                WHEN event.kind NOT LIKE 'post%' OR webhook.scope = 'all' OR event.actor_id = webhook.owner_id
                    THEN event.actor_id
            END, 'post_id', event.post_id, 'comment_id', event.comment_id,
            'user_id', event.user_id
        )
    )::text AS body
    FROM events AS event
    CROSS JOIN LATERAL (
        SELECT id, events, scope, owner_id FROM webhooks
        WHERE disabled_at IS NULL AND enabled_at <= event.created_at AND scope = 'own' AND owner_id = ANY (
            CASE event.kind
                WHEN 'notification' THEN ARRAY[event.user_id]
                ELSE ARRAY[event.actor_id, event.user_id, (SELECT owner_id FROM posts WHERE posts.id = event.post_id)]
            END
        )
        UNION ALL
        SELECT id, events, scope, owner_id FROM webhooks
        WHERE disabled_at IS NULL AND enabled_at <= event.created_at AND scope = 'all' AND event.kind <> 'notification'
    ) AS webhook
    WHERE event.id = ANY (:event_ids) AND event.kind = ANY (webhook.events)
"""
_IDS = bindparam("event_ids", type_=ARRAY(BIGINT))
_IS_ENTITLED = """(
    users.is_active AND (users.ban_reason IS NULL OR users.banned_until <= now())
    AND (webhooks.scope = 'own' OR users.role = 'admin')
) IS TRUE AS is_entitled"""
_MATCHED = text(f"""
    SELECT webhooks.id, {_IS_ENTITLED} FROM webhooks JOIN users ON users.id = webhooks.owner_id
    WHERE webhooks.id IN (SELECT webhook_id FROM ({_MATCHES}) AS matched)
""").bindparams(_IDS)
_QUEUE = text(f"""
    INSERT INTO webhook_deliveries (webhook_id, event, body)
    SELECT webhook_id, kind, body FROM ({_MATCHES}) AS matched WHERE webhook_id = ANY (:webhook_ids)
    ORDER BY transaction_id, id
""").bindparams(_IDS, bindparam("webhook_ids", type_=ARRAY(BIGINT)))
_OVERFLOWING = text("""
    SELECT id FROM unnest(CAST(:webhook_ids AS bigint[])) AS webhook (id)
    WHERE (
        SELECT count(*) FROM (
            SELECT FROM webhook_deliveries WHERE webhook_id = webhook.id AND status = 'waiting' LIMIT :most + 1
        ) AS waiting
    ) > :most ORDER BY id
""").bindparams(bindparam("webhook_ids", type_=ARRAY(BIGINT)))


def begin(db: Session) -> None:
    """Let the queue begin with the events from now on, unless it has begun before."""
    db.execute(_BEGIN, {"consumer": CONSUMER})


def fill() -> int:
    """Queue the next events of the log for the webhooks that want them; return how many events were read.

    Webhooks whose owners are banned, or no admins any more, are disabled instead.
    It returns 0 also if another process is filling. Without webhooks it is one read.
    """
    with writing() as connection:
        if not connection.scalar(_HAS_WEBHOOKS):
            return 0
        found = connection.execute(_LOCK_POSITION, {"consumer": CONSUMER}).one_or_none()
        if found is None:
            return 0
        events = event_log.read_after(connection, Position(*found), BATCH_EVENTS)
        if not events:
            return 0
        event_ids = [event.id for event in events]
        is_entitled = {row.id: row.is_entitled for row in connection.execute(_MATCHED, {"event_ids": event_ids})}
        locked = _lock(connection, [*is_entitled])
        for webhook_id in (each for each in locked if not is_entitled[each]):
            disable(connection, webhook_id, "its owner may not have it")
        if ids := [each for each in locked if is_entitled[each]]:
            connection.execute(_QUEUE, {"event_ids": event_ids, "webhook_ids": ids})
            for webhook_id in ids:
                wake(connection, webhook_id)
            for webhook_id in connection.scalars(_OVERFLOWING, {"webhook_ids": ids, "most": MAX_WAITING}).all():
                disable(connection, webhook_id, f"more than {MAX_WAITING} deliveries wait", is_told=True)
        connection.execute(_MOVE, {"consumer": CONSUMER, **events[-1].position._asdict()})
        return len(events)


def _lock(connection: Connection, webhook_ids: Sequence[int]) -> Sequence[int]:
    """Lock webhooks; return those that are still there and enabled."""
    rows = select(Webhook.id).where(Webhook.id.in_(webhook_ids), Webhook.disabled_at.is_(None))
    return connection.scalars(rows.order_by(Webhook.id).with_for_update(key_share=True)).all() if webhook_ids else []


_CLAIM = text(f"""
    WITH running AS (
        SELECT * FROM unnest(:owner_ids, :counts) AS running (owner_id, count)
    ), shared AS (
        SELECT id FROM (
            SELECT id, due_at, owner_id, row_number() OVER (PARTITION BY owner_id ORDER BY due_at, id) AS place
            FROM (
                SELECT id, due_at, owner_id FROM webhooks WHERE due_at <= now() ORDER BY due_at LIMIT :most_seen
            ) AS seen
        ) AS ranked LEFT JOIN running USING (owner_id)
        WHERE place + coalesce(count, 0) <= :most ORDER BY due_at, id LIMIT :limit
    ), due AS (
        SELECT id FROM webhooks WHERE id IN (SELECT id FROM shared) AND due_at <= now()
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE webhooks SET due_at = now() + :lease FROM due WHERE webhooks.id = due.id
        RETURNING webhooks.id, url, secret, owner_id, scope
    )
    SELECT webhooks.id AS webhook_id, delivery.id, url, secret, body, attempt_count, owner_id, {_IS_ENTITLED}
    FROM claimed AS webhooks JOIN users ON users.id = webhooks.owner_id
    LEFT JOIN LATERAL (
        SELECT id, body, attempt_count FROM webhook_deliveries
        WHERE webhook_id = webhooks.id AND status = 'waiting' AND webhook_deliveries.due_at <= now()
        ORDER BY webhook_deliveries.due_at, id LIMIT 1
    ) AS delivery ON true
""").bindparams(bindparam("owner_ids", type_=ARRAY(BIGINT)), bindparam("counts", type_=ARRAY(BIGINT)))


def claim(limit: int, running: Mapping[int, int]) -> list[Claimed]:
    """Claim the next deliveries of at most `limit` webhooks, for the time of the lease.

    `running` has how many requests this process makes for each owner, who gets at most `MAX_REQUESTS_OF_OWNER` in all.
    Webhooks whose owners are banned, or no admins any more, are disabled.
    """
    claimed = []
    with writing() as connection:
        most_seen = OWNERS_SEEN * max(MIN_WEBHOOKS_SEEN_OF_OWNER, get_settings().webhooks_max)
        share = {"owner_ids": [*running], "counts": [*running.values()], "most": MAX_REQUESTS_OF_OWNER}
        for row in connection.execute(_CLAIM, {"limit": limit, "lease": LEASE, "most_seen": most_seen, **share}).all():
            if not row.is_entitled:
                disable(connection, row.webhook_id, "its owner may not have it")
            elif row.id is None:
                _schedule(connection, row.webhook_id)
            else:
                claimed.append(Claimed(*row[:7])._replace(secret=bytes(row.secret)))
    return claimed


def settle(delivery: Claimed, outcome: Outcome) -> None:
    """Record the outcome, and when to try again. What was deleted or disabled meanwhile stays as it is."""
    with writing() as connection:
        webhook = connection.execute(
            select(Webhook.url, Webhook.failure_count, (func.now() - Webhook.failing_since).label("failing_for"))
            .where(Webhook.id == delivery.webhook_id, Webhook.disabled_at.is_(None))
            .with_for_update(key_share=True)
        ).one_or_none()
        if webhook is None:
            return
        pause = PAUSES[min(delivery.attempt_count, len(PAUSES) - 1)]
        is_last = WebhookDelivery.created_at + GIVEN_UP_AFTER < func.now() + pause
        connection.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery.id, WebhookDelivery.status == "waiting")
            .values(
                **outcome._asdict(),
                status="delivered" if outcome.is_success else case((is_last, "given_up"), else_="waiting"),
                due_at=func.now() + pause,
                attempt_count=delivery.attempt_count + 1,
                attempted_at=func.now() - timedelta(milliseconds=outcome.milliseconds),
            )
        )
        if outcome.is_success or webhook.url != delivery.url:  # What the old URL does says nothing about the new one.
            connection.execute(_of(delivery.webhook_id).values(failure_count=0, failing_since=None))
            _schedule(connection, delivery.webhook_id)
            return
        failures = {
            "failure_count": Webhook.failure_count + 1,
            "failing_since": func.coalesce(Webhook.failing_since, func.now()),
        }
        connection.execute(_of(delivery.webhook_id).values(failures))
        if outcome.response_code == GONE:
            disable(connection, delivery.webhook_id, "the receiver answered 410 Gone", is_told=True)
        elif webhook.failing_for and webhook.failing_for > GIVEN_UP_AFTER:
            disable(connection, delivery.webhook_id, "no delivery succeeded for three days", is_told=True)
        else:
            rest = min(MAX_REST, FIRST_REST * 2 ** min(webhook.failure_count, 20))
            # Also if its next delivery is later: `claim` schedules it after the rest.
            connection.execute(_of(delivery.webhook_id).values(due_at=func.now() + rest))


def add_test(db: Session, webhook_id: int) -> WebhookDelivery:
    """Queue a delivery of the kind `test`. The webhook is locked and enabled."""
    values = {"webhook_id": webhook_id, "event": "test", "body": literal(TEST_BODY)}
    made = db.scalars(insert(WebhookDelivery).values(values).returning(WebhookDelivery)).one()
    wake(db, webhook_id)
    return made


# A webhook that waits for the next attempt of a delivery that failed is due at that time exactly.
_WAKE = text("""
    UPDATE webhooks SET due_at = now() WHERE id = :webhook_id AND (due_at = 'infinity' OR due_at = (
        SELECT min(due_at) FROM webhook_deliveries
        WHERE webhook_id = :webhook_id AND status = 'waiting' AND webhook_deliveries.due_at > now()
    ))
""")


def wake(db: Session | Connection, webhook_id: int) -> None:
    """Let the next delivery of the webhook be looked for at once, unless it rests after a failure or is in use."""
    db.execute(_WAKE, {"webhook_id": webhook_id})


def disable(db: Session | Connection, webhook_id: int, reason: str, *, is_told: bool = False) -> None:
    """Disable a webhook, give up what waits, and mail its owner if `is_told`.

    Only confirmed addresses get mails.
    """
    db.execute(_of(webhook_id).values(disabled_at=func.now(), due_at=_NEVER))
    waiting = (WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.status == "waiting")
    db.execute(update(WebhookDelivery).where(*waiting).values(status="given_up"))
    logger.info("webhook disabled: webhook_id=%d reason=%r", webhook_id, reason)
    if is_told:
        owner = select(User.email).join(Webhook, Webhook.owner_id == User.id)
        address = db.scalar(owner.where(Webhook.id == webhook_id, User.is_active, User.email_verified_at.is_not(None)))
        if address is not None:
            outbox.post(db, "webhook_disabled", address)


def _of(webhook_id: int) -> Update:
    return update(Webhook).where(Webhook.id == webhook_id)


def _schedule(connection: Connection, webhook_id: int) -> None:
    """Set when the locked webhook is due: with its next delivery."""
    waiting = (WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.status == "waiting")
    next_due = select(func.coalesce(func.min(WebhookDelivery.due_at), _NEVER)).where(*waiting).scalar_subquery()
    connection.execute(_of(webhook_id).values(due_at=func.greatest(next_due, func.now())))
