"""`python -m app doctor` finds each possible fault, names the remedy, and reports no other fault."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from app.cli import doctor, surroundings
from app.config import Settings, get_settings
from app.database.engines import get_batch_engine, get_engine, get_limits_engine, max_connections
from app.models import Base
from app.security import passwords
from tests.cli.test_commands import app
from tests.conftest import _own_database, administration
from tests.contract.test_odd_rows import DAMAGED_HASHES

# As the application's own settings, and durable.
LIMITS = {
    "options": "-c statement_timeout=10s -c idle_in_transaction_session_timeout=10s -c synchronous_commit=on",
}
SUPERUSER = "a superuser, who may do anything on the server"


@pytest.fixture(autouse=True)
def _no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty folder, because that of other tests has files of their databases."""
    monkeypatch.setattr(get_settings(), "media_root", tmp_path / "media")


@pytest.fixture
def own() -> Iterator[Engine]:
    """A migrated database that may be harmed."""
    with _own_database() as url:
        engine = create_engine(url, poolclass=NullPool, connect_args=LIMITS)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('', '', '')"))
            connection.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('', '', 1)"))
            connection.execute(text("INSERT INTO votes (post_id, user_id) VALUES (1, 1)"))
        yield engine


@contextmanager
def ordinary_role(engine: Engine, grants: str) -> Iterator[Engine]:
    """An engine that connects as a new role with these rights, or as the group that has them."""
    name, password = f"app_{os.getpid()}_{secrets.token_hex(3)}", secrets.token_hex(8)
    with administration(engine.url) as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"))
        for grant in filter(None, grants.split(";")):
            connection.execute(text(f"{grant} TO {name}"))
    try:
        yield create_engine(engine.url.set(username=name, password=password), poolclass=NullPool, connect_args=LIMITS)
    finally:
        with administration(engine.url) as connection:
            connection.execute(text(f"DROP OWNED BY {name}; DROP ROLE {name}"))


def troubles(engine: Engine, settings: Settings | None = None, *, is_full: bool = False) -> list[str]:
    """Return the findings that are not ok.

    Left out are the tests' superuser, missing durability, and the transactions of tests that run at the same time.
    """
    left_out = ("durability", "events: ", SUPERUSER)
    return [
        str(finding)
        for finding in doctor.examine(engine, settings or get_settings(), is_full=is_full)
        if finding.level != "ok" and not any(words in finding.what for words in left_out)
    ]


@pytest.mark.parametrize("is_full", [False, True])
def test_migrated_database_has_no_troubles(own: Engine, is_full: bool) -> None:
    assert troubles(own, is_full=is_full) == []


def test_command_says_every_line_and_succeeds(own: Engine) -> None:
    done = app("doctor", "--full", DATABASE_URL=own.url.render_as_string(hide_password=False))

    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("configuration", "PostgreSQL", "role", "clock", "connections", "migrations", "rights", "indexes",
                 "triggers", "addresses", "counts", "deletions"):  # fmt: skip
        assert what in done.stdout
    assert {line[:6] for line in done.stdout.splitlines()} <= {"ok    ", "warn  "}


def test_command_fails_if_something_needs_repair(own: Engine) -> None:
    with own.begin() as connection:
        connection.execute(text("DROP INDEX posts_search_idx"))

    done = app("doctor", DATABASE_URL=own.url.render_as_string(hide_password=False))

    assert done.returncode == 1
    assert "FAIL  indexes: posts_search_idx missing; create" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DROP INDEX posts_search_idx", "FAIL  indexes: posts_search_idx missing"),
        ("ALTER TABLE users DROP CONSTRAINT users_email_canonical_key", "FAIL  indexes: users_email_canonical_key"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'posts_search_idx'::regclass",
         "FAIL  indexes: posts_search_idx invalid; run: REINDEX"),
        ("ALTER TABLE votes DISABLE TRIGGER votes_count_insert", "FAIL  triggers: votes_count_insert missing"),
        ("DROP TRIGGER users_name ON users", "FAIL  triggers: users_name missing or disabled"),
        ("UPDATE users SET email = 'a@bücher.example', email_canonical = 'a@bücher.example'",
         "warn  addresses: 1 accounts are not found by their e-mail address (ids 1)"),
        ("DROP TRIGGER posts_search ON posts", "FAIL  triggers: posts_search missing or disabled"),
        ("UPDATE post_stats SET votes = 5", "FAIL  counts: 1 of a sample of at most 2,000 per table differ"),
        ("INSERT INTO deletions SELECT id, now() - interval '2 hours' FROM users LIMIT 1",
         "warn  deletions: 1 in progress, the oldest since 20"),
    ],
)  # fmt: skip
def test_harm_is_found_with_its_remedy(own: Engine, harm: str, said: str) -> None:
    with own.begin() as connection:
        connection.execute(text(harm))

    (found,) = troubles(own)

    assert found.startswith(said)
    assert "; " in found


def test_full_examination_counts_every_post(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with own.begin() as connection:
        connection.execute(text("UPDATE post_stats SET votes = 5"))
    # `--full` walks with the application's own connections.
    monkeypatch.setattr("app.services.recount.writing", own.begin)

    (found,) = troubles(own, is_full=True)

    assert found.startswith("FAIL  counts: 1 of all differ from the rows that they count; run: python -m app recount")


@pytest.mark.parametrize("revision", ["0001", None])
def test_unmigrated_database_yields_only_the_advice_to_migrate(own: Engine, revision: str | None) -> None:
    with own.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision:
            connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})

    (found,) = troubles(own)

    assert found.startswith(f"FAIL  migrations: at {revision or 'none'}, not ")
    assert "alembic upgrade head" in found


def test_release_older_than_the_database_is_reported(own: Engine) -> None:
    with own.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    (found,) = troubles(own)

    assert found.startswith("warn  migrations: at 9999, newer than ")


def test_superuser_is_a_warning_in_development_and_a_failure_in_production(own: Engine) -> None:
    settings = get_settings()
    for environment, level in (("development", "warn"), ("production", "FAIL")):
        there = settings.model_copy(update={"environment": environment})
        (found,) = [str(each) for each in doctor.examine(own, there, is_full=False) if SUPERUSER in each.what]
        assert found.startswith(f"{level}  role ")


def test_defaults_of_the_tutorial_are_a_warning_in_production_only(own: Engine) -> None:
    settings = get_settings().model_copy(update={"tutorial_defaults": True, "cors_origins": []})
    for environment, count in (("development", 0), ("production", 1)):
        there = settings.model_copy(update={"environment": environment})
        found = [each for each in doctor.examine(own, there, is_full=False) if "tutorial defaults" in each.what]
        assert [each.level for each in found] == ["warn"] * count


def test_role_that_may_read_and_write_passes_and_one_that_may_not_fails(own: Engine) -> None:
    everything = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    with ordinary_role(own, everything) as engine:
        found = list(doctor.examine(engine, get_settings(), is_full=False))
        assert {each.level for each in found if "durability" not in each.what} == {"ok"}
    with ordinary_role(own, "GRANT SELECT ON ALL TABLES IN SCHEMA public") as engine:
        (trouble,) = troubles(engine)
        assert trouble.startswith("FAIL  rights: may not delete on allowances, delete on ")
        assert trouble.count(" on ") == 3 * len(Base.metadata.tables)


def test_too_many_connections_are_a_failure_that_names_a_pooler(own: Engine) -> None:
    wanted = {"database_pool_size": 1000, "workers": 3, "database_direct_url": secret(own.url)}
    (found,) = troubles(own, get_settings().model_copy(update=wanted))
    assert troubles(own, get_settings().model_copy(update={**wanted, "database_behind_pooler": True})) == []

    assert found.startswith("FAIL  connections: 3 workers may open 30")
    assert "lower DATABASE_POOL_SIZE or WORKERS" in found


def test_every_pool_of_a_worker_is_counted_and_the_connection_of_its_heartbeat() -> None:
    pools = [engine().pool for engine in (get_engine, get_batch_engine, get_limits_engine)]

    assert max_connections(get_settings()) == sum(pool.size() for pool in pools) + 1  # type: ignore[attr-defined]


def test_clocks_that_differ_are_found(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    for seconds, level in ((1.0, []), (5.0, ["warn"]), (-5.0, ["warn"]), (60.0, ["FAIL"])):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now() + seconds)
        assert [found[:4] for found in troubles(own)] == level


def test_missing_limits_are_reported_with_the_statement_that_sets_them(own: Engine) -> None:
    (found,) = troubles(create_engine(own.url, poolclass=NullPool))
    assert found.startswith(
        "warn  limits: no idle_in_transaction_session_timeout, no statement_timeout; run: ALTER ROLE "
    )

    with ordinary_role(own, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public") as engine:
        name = str(engine.url.username)
        with administration(own.url) as connection:
            statements = found.partition("run: ")[2].partition("; then")[0]
            connection.execute(text(statements.replace(statements.split()[2], name)))
        assert troubles(create_engine(engine.url, poolclass=NullPool)) == []


def test_direct_database_is_required_behind_a_pooler_and_must_be_the_same(own: Engine) -> None:
    def trouble(**settings: object) -> list[str]:
        return troubles(own, get_settings().model_copy(update={"database_behind_pooler": True, **settings}))

    (found,) = trouble()
    assert found == "warn  migrations: none can run through a pooler; set DATABASE_DIRECT_URL where they are run"

    assert trouble(database_direct_url=secret(own.url)) == []
    (found,) = trouble(database_direct_url=secret(own.url.set(database="postgres")))
    assert found == "FAIL  direct database: another one; correct DATABASE_DIRECT_URL"
    (found,) = trouble(database_direct_url=secret(own.url.set(host="127.0.0.1", port=1)))
    assert found.startswith("FAIL  direct database: connection to server")


def test_replica_must_answer_and_be_a_replica(own: Engine) -> None:
    def trouble(url: URL) -> list[str]:
        return troubles(own, get_settings().model_copy(update={"database_replica_url": secret(url)}))

    (found,) = trouble(own.url.set(host="127.0.0.1", port=1))
    assert found.startswith("warn  replica: the primary answers reads alone: connection to server")
    (found,) = trouble(own.url)
    assert found.startswith("FAIL  replica: it does not follow this primary; correct DATABASE_REPLICA_URL")


def secret(url: URL) -> SecretStr:
    return SecretStr(url.set(drivername="postgresql").render_as_string(hide_password=False))


def test_rows_that_other_software_left_are_named_with_a_remedy(own: Engine) -> None:
    with own.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO users (id, email, email_canonical, password_hash, created_at) OVERRIDING SYSTEM VALUE VALUES
                    (0, 'a', 'a', '$2b$04$' || repeat('a', 53), now()), (7, 'b', 'b', '$2b$04$cut', now()),
                    (8, 'c', 'c', '$2b$31$' || repeat('a', 53), '10000-01-01'),
                    (9, 'd', 'd', '$2b$04$' || repeat('a', 53), '0044-03-15 BC')
            """)
        )
        connection.execute(text("UPDATE users SET password_hash = '$2a$12$' || repeat('.', 53) WHERE id = 1"))
        connection.execute(
            text("INSERT INTO posts (id, title, content, owner_id) OVERRIDING SYSTEM VALUE VALUES (-3, '', '', 1)")
        )
        connection.execute(
            text("""
                INSERT INTO security_events (id, user_id, event, details) OVERRIDING SYSTEM VALUE VALUES
                    (1001, 1, 'of_a_newer_release', '{}'), (1002, 1, 'signed_in', '[]'), (1003, 1, 'signed_in', 'null'),
                    (1004, 1, 'signed_in', '{"a": [1]}'), (1005, 1, 'signed_in', '{"a": {}}'),
                    (1006, 1, 'signed_in', '{"a": "b", "c": 1, "d": null}')
            """)
        )

    quick = [trouble for trouble in troubles(own) if "rows:" in trouble]
    full = [trouble for trouble in troubles(own, is_full=True) if "rows:" in trouble]

    assert [trouble.partition(" with")[0] for trouble in quick] == ["warn  rows: users 0", "warn  rows: posts -3"]
    assert [trouble.partition(" with")[0] for trouble in full] == [
        "warn  rows: users 0", "warn  rows: posts -3", "warn  rows: users 8, 9", "warn  rows: users 7, 8",
        "warn  rows: security_events 1001, 1002, 1003, 1004, 1005",
    ]  # fmt: skip
    assert all(";" in trouble for trouble in full)


@pytest.mark.parametrize("kind", ["as it is made", *DAMAGED_HASHES])
def test_doctor_and_sign_in_agree_on_which_hashes_can_be_verified(own: Engine, kind: str) -> None:
    # Empty is that of an account which is not meant to sign in.
    password_hash = DAMAGED_HASHES.get(kind, passwords.hash_password("x")) or "empty"
    with own.begin() as connection:
        connection.execute(text("UPDATE users SET password_hash = :hash"), {"hash": password_hash})

    named = [trouble for trouble in troubles(own, is_full=True) if "password hash" in trouble]

    assert bool(named) is not passwords.can_be_verified(password_hash)


@pytest.mark.parametrize("sees_activity", [True, False], ids=["as a superuser", "as an ordinary role"])
def test_open_transaction_that_delays_events_is_found(
    own: Engine, monkeypatch: pytest.MonkeyPatch, sees_activity: bool
) -> None:
    monkeypatch.setattr(surroundings, "MAX_EVENT_DELAY_SECONDS", 0.2)
    grants = "GRANT SELECT ON ALL TABLES IN SCHEMA public"
    with own.connect() as writer, ordinary_role(own, grants) as ordinary:
        writer.execute(text("INSERT INTO events (kind) VALUES ('comment')"))
        with own.begin() as other:
            other.execute(text("INSERT INTO events (kind) VALUES ('comment')"))
        time.sleep(0.3)
        with (own if sees_activity else ordinary).connect() as connection:
            found = surroundings.examine_event_delay(connection)
            writer_pid = writer.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    assert found.level == "warn"
    if sees_activity:
        assert f"process {writer_pid} (" in found.what
        assert found.remedy == f"end it as a superuser: SELECT pg_terminate_backend({writer_pid})"
    else:
        assert "by an open transaction that writes" in found.what


def test_database_without_open_transactions_delays_no_event(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "MAX_EVENT_DELAY_SECONDS", 60)
    with own.connect() as connection:
        assert str(surroundings.examine_event_delay(connection)) == "ok    events: no open transaction delays them"
