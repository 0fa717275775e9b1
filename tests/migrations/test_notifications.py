"""Migrations 0044 to 0046: events, notifications and mutes, beside tables of the same names."""

import pytest
from sqlalchemy import URL, Connection, Engine, text

from alembic import command
from tests.migrations import descendants
from tests.migrations.conftest import config_for, drift
from tests.migrations.test_descendants import adopt, examine, rows

BEFORE = "0043"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database of the revision before, with two users and a post of the first."""
    command.upgrade(config_for(url), BEFORE)
    for name in ("a", "b"):
        looking.execute(
            text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:name, :name, '')"), {"name": name}
        )
    looking.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('1', '', 1)"))
    return looking


def test_counts_of_accounts_stay_without_the_unused_one_and_again_after_a_downgrade(url: URL, old: Connection) -> None:
    for _ in range(2):
        command.upgrade(config_for(url), "head")
        old.execute(text("INSERT INTO notifications (user_id, kind) VALUES (1, 'moderation')"))
        old.execute(text("INSERT INTO post_mutes (user_id, post_id) VALUES (1, 1)"))
        assert drift(old) == []
        command.downgrade(config_for(url), BEFORE)
        assert old.execute(text("SELECT user_id, posts, unread FROM user_stats")).all() == [(1, 1, 0)]


FOREIGN = """
    CREATE TABLE notifications (id serial CONSTRAINT notifications_pkey PRIMARY KEY, who integer REFERENCES users);
    CREATE INDEX events_transaction_id_id_idx ON notifications (who);
    CREATE VIEW events AS SELECT * FROM notifications;
    CREATE SEQUENCE post_mutes;
    INSERT INTO notifications (who) VALUES (1), (2);
"""


def test_tables_with_our_names_keep_their_rows_under_others(url: URL, old: Connection) -> None:
    for statement in FOREIGN.split(";")[:-1]:
        old.execute(text(statement))

    command.upgrade(config_for(url), "head")

    assert drift(old) == []
    assert old.execute(text("SELECT id, who FROM notifications_before_0044 ORDER BY 1")).all() == [(1, 1), (2, 2)]
    assert old.execute(text("SELECT count(*) FROM events_before_0044")).scalar() == 2
    kept = text("""
        SELECT relname FROM pg_class WHERE relname LIKE '%before_0044' AND relkind IN ('i', 'S') ORDER BY relname
    """)
    assert old.scalars(kept).all() == [
        "events_transaction_id_id_idx_before_0044", "notifications_id_seq_before_0044",
        "notifications_pkey_before_0044", "post_mutes_before_0044",
    ]  # fmt: skip
    assert old.execute(text("INSERT INTO notifications_before_0044 (who) VALUES (1) RETURNING id")).scalar() == 3


THEIRS = """
    CREATE TABLE notifications (id serial PRIMARY KEY, user_id integer REFERENCES users ON DELETE CASCADE, body text);
    CREATE TABLE events (id serial PRIMARY KEY, name text);
    INSERT INTO notifications (user_id, body) VALUES (1, 'hello');
    INSERT INTO events (name) VALUES ('party');
"""


def test_adoption_keeps_tables_with_our_names_under_others_and_says_so(
    url: URL, engine: Engine, looking: Connection
) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC + THEIRS)
    said = [what for what, _ in examine(engine).steps]
    for table in ("notifications", "events"):
        assert f"rename table {table}, whose name is needed, to former_{table}" in said

    adopt(url)

    assert rows(looking, "SELECT user_id, body FROM former_notifications") == [(1, "hello")]
    assert rows(looking, "SELECT name FROM former_events") == [("party",)]
    assert rows(looking, "SELECT count(*) FROM notifications") == rows(looking, "SELECT count(*) FROM events") == [(0,)]
    assert drift(looking) == []
