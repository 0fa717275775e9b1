"""Migrated sessions get an absolute end beside the idle one; and API keys on the way back."""

from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for

INSERT_USER = "INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '') RETURNING id"
OPEN = "INSERT INTO sessions (user_id, expires_at) VALUES (:user, now() + CAST(:life AS interval))"


def test_sessions_that_are_there_end_when_they_were_to_end(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "0014")
    user = looking.scalar(text(INSERT_USER))
    for life in ("-1 day", "1 hour", "3650 days"):
        looking.execute(text(OPEN), {"user": user, "life": life})
    before = looking.execute(text("SELECT id, created_at, expires_at FROM sessions ORDER BY id")).all()
    # Ids far apart: more than one batch.
    looking.execute(text("ALTER TABLE sessions ALTER COLUMN id RESTART WITH 25000"))
    looking.execute(text(OPEN), {"user": user, "life": "5 days"})

    command.upgrade(config_for(url), "head")

    after = looking.execute(text("SELECT id, created_at, expires_at FROM sessions ORDER BY id LIMIT 3")).all()
    assert after == before
    assert looking.scalars(text("SELECT id FROM sessions WHERE ends_at <> expires_at OR kind <> 'login'")).all() == []


def test_the_release_before_opens_sessions_that_end_while_the_migration_runs(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "0015")

    looking.execute(text(OPEN), {"user": looking.scalar(text(INSERT_USER)), "life": "30 days"})

    assert looking.scalar(text("SELECT ends_at = expires_at AND kind = 'login' FROM sessions"))


def test_no_api_key_becomes_a_sign_in_when_the_release_before_comes_back(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "head")
    user = looking.scalar(text(INSERT_USER))
    looking.execute(text(OPEN), {"user": user, "life": "1 day"})
    looking.execute(
        text("INSERT INTO sessions (user_id, kind, expires_at, ends_at) VALUES (:user, 'api_key', :never, :never)"),
        {"user": user, "never": "infinity"},
    )

    command.downgrade(config_for(url), "0014")

    assert looking.scalars(text("SELECT count(*) FROM sessions WHERE expires_at < 'infinity'")).all() == [1]
    assert looking.scalar(text("SELECT count(*) FROM sessions")) == 1
