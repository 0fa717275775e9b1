"""`cleanup.run` removes what has expired, and nothing else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from app.services import cleanup
from tests.fixtures import Person, counted_queries

TABLES = (
    *("sessions", "idempotency_keys", "allowances", "mail_tokens", "invites", "outgoing_mails", "security_events"),
    *("notifications", "moderation_log", "reports", "events", "webhook_deliveries", "media"),
)


def fill(connection: Connection, person: Person, expired: int = 10) -> None:
    """Ten expired rows in each table, and one that is valid.

    With the person's own, two sessions are valid.
    """
    for age, count in (("-1 second", expired), ("1 hour", 1)):
        connection.execute(
            text(f"""
                INSERT INTO sessions (user_id, expires_at)
                SELECT :id, now() + interval '{age}' FROM generate_series(1, {count})
            """),
            {"id": person.id},
        )
        connection.execute(
            text(f"""
                INSERT INTO idempotency_keys (user_id, key, fingerprint, status, body, expires_at)
                SELECT :id, '{age}' || n, '', 201, '', now() + interval '{age}' FROM generate_series(1, {count}) AS n
            """),
            {"id": person.id},
        )
        connection.execute(
            text(f"""
                INSERT INTO allowances (limit_name, key, used_at, expires_at)
                SELECT '{age}', int4send(n), ARRAY[now()], now() + interval '{age}'
                FROM generate_series(1, {count}) AS n
            """)
        )
        connection.execute(
            text(f"""
                INSERT INTO invites (token_hash, expires_at)
                SELECT CAST('{age}' || n AS bytea), now() + interval '{age}' FROM generate_series(1, {count}) AS n
            """)
        )
    for age, count in (("-1 second", expired), ("1 hour", 1)):
        connection.execute(
            text(f"""
                WITH users_made AS (
                    INSERT INTO users (email, email_canonical, password_hash)
                    SELECT '', '{age}' || n, '' FROM generate_series(1, {count}) AS n RETURNING id
                )
                INSERT INTO mail_tokens (user_id, purpose, token_hash, email, expires_at)
                SELECT id, 'password_reset', int8send(id), '', now() + interval '{age}' FROM users_made
            """)
        )
    for days, count in ((8, expired), (6, 1)):
        connection.execute(
            text(f"""
                INSERT INTO outgoing_mails (kind, address, created_at, due_at)
                SELECT 'email_changed', '', now() - interval '{days} days', 'infinity' FROM generate_series(1, {count})
            """)
        )
    for table, kept_days in (("notifications", 90), ("events", 7)):
        for days, count in ((kept_days + 1, expired), (kept_days - 1, 1)):
            connection.execute(
                text(f"""
                    INSERT INTO {table} (user_id, kind, created_at)
                    SELECT :id, 'moderation', now() - interval '{days} days' FROM generate_series(1, {count})
                """),
                {"id": person.id},
            )
    for days, count in ((366, expired), (364, 1)):
        connection.execute(
            text(f"""
                INSERT INTO moderation_log (action, created_at)
                SELECT 'ban', now() - interval '{days} days' FROM generate_series(1, {count})
            """)
        )
        connection.execute(
            text(f"""
                INSERT INTO reports (reporter_id, post_id, reason, resolved_at, action)
                SELECT :id, n, '', now() - interval '{days} days', 'dismiss' FROM generate_series(1, {count}) AS n
            """),
            {"id": person.id},
        )
    # Of a webhook that was deleted, and of one that is there.
    webhook_id = connection.scalar(
        text("INSERT INTO webhooks (owner_id, url, events, secret) VALUES (:id, '', '{}', '') RETURNING id"),
        {"id": person.id},
    )
    for owner, count in ((10_000, expired), (webhook_id, 1)):
        connection.execute(
            text("""
                INSERT INTO webhook_deliveries (webhook_id, event, body)
                SELECT :webhook, 'comment', '' FROM generate_series(1, :count)
            """),
            {"webhook": owner, "count": count},
        )
    for hours, count in ((25, expired), (23, 1)):
        connection.execute(
            text(f"""
                INSERT INTO media (owner_id, name, width, height, bytes, blurhash, unused_since)
                SELECT :id, md5('{hours}' || n), 1, 1, 1, '', now() - interval '{hours} hours'
                FROM generate_series(1, {count}) AS n
            """),
            {"id": person.id},
        )
    # Open reports are kept.
    connection.execute(
        text("""
            INSERT INTO reports (reporter_id, user_id, reason, created_at)
            VALUES (:id, :id, '', now() - interval '2 years') ON CONFLICT DO NOTHING
        """),
        {"id": person.id},
    )
    for days, count in ((91, expired), (89, 1)):
        connection.execute(
            text(f"""
                INSERT INTO security_events (user_id, event, created_at)
                SELECT :id, 'signed_in', now() - interval '{days} days' FROM generate_series(1, {count})
            """),
            {"id": person.id},
        )


def left(connection: Connection) -> list[int | None]:
    return [connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in TABLES]


def test_expired_rows_are_removed_in_batches_and_counted(connection: Connection, person: Person) -> None:
    fill(connection, person)

    assert dict(cleanup.run(batch_rows=3)) == dict.fromkeys(TABLES, 10) | {"tags": 0}

    assert left(connection) == [2 if table in {"sessions", "reports"} else 1 for table in TABLES]
    assert dict(cleanup.run()) == dict.fromkeys((*TABLES, "tags"), 0)


def test_runs_at_once_remove_each_row_once_and_fail_in_none(connection: Connection, person: Person) -> None:
    fill(connection, person, expired=300)
    start = threading.Barrier(4)

    def clean(_: int) -> dict[str, int]:
        start.wait(20)
        return dict(cleanup.run(batch_rows=7))

    with ThreadPoolExecutor(4) as threads:
        removed = list(threads.map(clean, range(4)))

    assert left(connection) == [2 if table in {"sessions", "reports"} else 1 for table in TABLES]
    assert {table: sum(run[table] for run in removed) for table in TABLES} == dict.fromkeys(TABLES, 300)


def test_empty_run_asks_one_statement_per_table(database: Engine) -> None:
    with counted_queries(database) as queries:
        assert dict(cleanup.run()) == dict.fromkeys((*TABLES, "tags"), 0)

    assert len(queries) == len((*TABLES, "tags"))


def test_the_newest_deliveries_of_a_webhook_and_those_that_wait_are_kept(
    connection: Connection, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "DELIVERIES_KEPT", 4)
    ids = connection.scalars(
        text("""
            WITH made AS (
                INSERT INTO webhooks (owner_id, url, events, secret) VALUES (:id, '', '{}', ''), (:id, '', '{}', '')
                RETURNING id
            )
            INSERT INTO webhook_deliveries (webhook_id, event, body, status)
            SELECT id, 'comment', '', CASE n % 4 WHEN 0 THEN 'waiting' WHEN 1 THEN 'given_up' ELSE 'delivered' END
            FROM made, generate_series(0, 9) AS n ORDER BY made.id, n RETURNING id
        """),
        {"id": person.id},
    ).all()

    assert dict(cleanup.run(batch_rows=2))["webhook_deliveries"] == 8

    assert connection.scalars(text("SELECT id FROM webhook_deliveries ORDER BY id")).all() == [
        ids[place] for place in (0, 4, 6, 7, 8, 9, 10, 14, 16, 17, 18, 19)
    ]


def test_locked_rows_are_skipped_without_waiting(
    database: Engine, connection: Connection, make_person: Callable[..., Person]
) -> None:
    fill(connection, make_person())

    with database.begin() as other:
        other.execute(text("SELECT FROM sessions WHERE expires_at < now() ORDER BY id LIMIT 4 FOR UPDATE"))
        assert dict(cleanup.run(batch_rows=3))["sessions"] == 6
    assert dict(cleanup.run(batch_rows=3))["sessions"] == 4


def test_new_notifications_and_events_are_not_read(database: Engine, connection: Connection, person: Person) -> None:
    """The first batch has a row to keep, so that a large table costs a run one statement."""
    for table in ("notifications", "events"):
        connection.execute(
            text(f"INSERT INTO {table} (user_id, kind) SELECT :id, 'moderation' FROM generate_series(1, 20)"),
            {"id": person.id},
        )

    with counted_queries(database) as queries:
        assert dict(cleanup.run(batch_rows=3)) == dict.fromkeys((*TABLES, "tags"), 0)

    assert len(queries) == len((*TABLES, "tags"))
