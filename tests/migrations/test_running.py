"""`alembic upgrade head` beside a live system: two at once, blocked, interrupted, misconfigured."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from alembic import command
from tests.cli.test_commands import app
from tests.conftest import administration
from tests.fixtures import free_port
from tests.migrations import descendants
from tests.migrations.conftest import (
    address,
    config_for,
    error_line,
    revisions,
    run_alembic,
    start_alembic,
    version,
)  # fmt: skip
from tests.races.waiting import in_background, wait_until, wait_until_blocked

HEAD = revisions()[-1]
MAX_WAIT_OF_READERS_SECONDS = 2
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"


def add_user_with_post(connection: Connection) -> None:
    """At revision 0008 or later; both get id 1."""
    connection.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('', '', '')"))
    connection.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('', '', 1)"))


def test_two_upgrades_at_once_both_succeed(url: URL, looking: Connection) -> None:
    runs = [start_alembic("upgrade", "head", DATABASE_URL=address(url)) for _ in range(2)]

    errors = [run.communicate(timeout=120)[1] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], errors
    assert version(looking) == HEAD
    # Each revision was run by one of them, and by one only.
    assert sum(error.count("Running upgrade") for error in errors) == len(revisions())


def test_release_that_was_put_back_finds_nothing_to_migrate_and_can_do_nothing_else(
    url: URL, looking: Connection
) -> None:
    command.upgrade(config_for(url), "head")
    looking.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    upgraded = run_alembic("upgrade", "head", DATABASE_URL=address(url))
    others = [run_alembic(*what, DATABASE_URL=address(url)) for what in (("downgrade", "-1"), ("upgrade", "0001"))]

    assert (upgraded.returncode, upgraded.stdout) == (
        0, "a newer release has migrated this database; there is nothing to do\n",
    )  # fmt: skip
    assert [other.returncode != 0 for other in others] == [True, True]
    assert version(looking) == "9999"

    looking.execute(text("UPDATE alembic_version SET version_num = 'f4b0c2d1e3a5'"))
    assert run_alembic("upgrade", "head", DATABASE_URL=address(url)).returncode != 0


def test_blocked_migration_gives_up_soon_changes_nothing_and_succeeds_when_run_again(
    url: URL, engine: Engine, looking: Connection
) -> None:
    command.upgrade(config_for(url), "0008")
    add_user_with_post(looking)
    with engine.begin() as blocker:
        blocker.execute(text("SELECT FROM posts"))  # As a backup does for hours.
        blocked = start_alembic("-x", "tries=1", "upgrade", "head", DATABASE_URL=address(url))
        wait_until_blocked(looking, by=blocker)
        asked_at = time.monotonic()
        looking.execute(text("SELECT FROM posts"))  # Behind the migration.
        waited_seconds = time.monotonic() - asked_at
        _, error = blocked.communicate(timeout=60)

    assert blocked.returncode == 1
    assert error.splitlines()[-1].startswith("error: canceling statement due to lock timeout")
    assert "Traceback" not in error
    assert 0.5 < waited_seconds <= MAX_WAIT_OF_READERS_SECONDS
    assert version(looking) == "0008"
    again = run_alembic("upgrade", "head", DATABASE_URL=address(url))
    assert again.returncode == 0, again.stderr
    assert version(looking) == HEAD
    assert looking.scalar(text("SELECT count(*) FROM post_stats")) == 1


def test_blocked_migration_names_the_blocker_and_retries_until_it_succeeds(
    url: URL, engine: Engine, looking: Connection
) -> None:
    command.upgrade(config_for(url), "0008")
    add_user_with_post(looking)
    with engine.begin() as blocker:
        pid = blocker.scalar(text("SELECT pg_backend_pid() FROM posts"))
        upgrade = start_alembic("upgrade", "head", DATABASE_URL=address(url))
        wait_until_blocked(looking, by=blocker)
        wait_until(looking, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        wait_until_blocked(looking, by=blocker)
    _, error = upgrade.communicate(timeout=60)

    assert upgrade.returncode == 0, error
    assert version(looking) == HEAD
    assert re.search(rf"^waiting for process {pid} \(\), in a transaction for 00:00:0\d$", error, re.MULTILINE)
    assert "canceling statement due to lock timeout; 4 more tries\n" in error


def test_vote_cast_while_counts_are_first_made_is_counted(url: URL, engine: Engine, looking: Connection) -> None:
    command.upgrade(config_for(url), "0010")
    add_user_with_post(looking)
    with engine.begin() as voter:
        voter.execute(text("INSERT INTO votes (user_id, post_id) VALUES (1, 1)"))
        upgrade = in_background(lambda: command.upgrade(config_for(url), "0011"))
        wait_until_blocked(looking, by=voter)
    upgrade()

    assert looking.scalar(text("SELECT votes FROM post_stats")) == 1


def test_index_waits_for_a_long_transaction_and_blocks_no_writer(url: URL, engine: Engine, looking: Connection) -> None:
    command.upgrade(config_for(url), "0013")
    add_user_with_post(looking)
    with engine.begin() as long:
        long.execute(text("UPDATE posts SET title = 'long'"))
        upgrade = start_alembic("upgrade", "head", DATABASE_URL=address(url))
        wait_until_blocked(looking, by=long)
        time.sleep(2)  # Longer than lock_timeout.
        asked_at = time.monotonic()
        looking.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('', '', 1)"))
        looking.execute(text("SELECT FROM posts"))
        assert time.monotonic() - asked_at < 0.5
        assert upgrade.poll() is None
    _, error = upgrade.communicate(timeout=60)

    assert upgrade.returncode == 0, error
    assert version(looking) == HEAD
    assert len(re.findall(r"^waiting for process \d+ \(\), in a transaction for ", error, re.MULTILINE)) == 1


def test_interrupted_index_is_made_whole_by_running_again(url: URL, engine: Engine, looking: Connection) -> None:
    command.upgrade(config_for(url), "0013")
    add_user_with_post(looking)
    with engine.begin() as blocker:
        blocker.execute(text("UPDATE posts SET title = 'long'"))
        doomed = start_alembic("upgrade", "head", DATABASE_URL=address(url))
        wait_until_blocked(looking, by=blocker)
        doomed.kill()
        doomed.communicate()
        looking.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'")
        )
        wait_until(looking, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%')")
    assert looking.scalars(text(INVALID)).all() == ["posts_created_at_id_idx"]
    assert version(looking) == "0013"

    again = run_alembic("upgrade", "head", DATABASE_URL=address(url))

    assert again.returncode == 0, again.stderr
    assert version(looking) == HEAD
    assert looking.scalars(text(INVALID)).all() == []
    assert run_alembic("check", DATABASE_URL=address(url)).returncode == 0


@contextmanager
def role(server: URL, database: URL, password: str) -> Iterator[str]:
    """A role without privileges that owns the database."""
    name = f"migrator_{secrets.token_hex(3)}"
    with administration(server) as connection:
        connection.connection.cursor().execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", (password,))
        connection.execute(text(f"ALTER DATABASE {database.database} OWNER TO {name}"))
        try:
            yield name
        finally:
            connection.execute(text(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER"))
            with create_engine(database, poolclass=NullPool).begin() as owned:
                owned.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
            connection.execute(text(f"DROP ROLE {name}"))


Spelling = Callable[[URL, str, str], dict[str, str]]
ODD_PASSWORD = "50% of p@ss:w/rd?#&é"


def spelled(scheme: str) -> Spelling:
    def spell(url: URL, name: str, password: str) -> dict[str, str]:
        place = f"{url.host}:{url.port}/{url.database}"
        return {"DATABASE_URL": f"{scheme}://{name}:{quote(password, safe='')}@{place}"}

    return spell


def spelled_in_parts(url: URL, name: str, password: str) -> dict[str, str]:
    return {
        "DATABASE_HOSTNAME": str(url.host),
        "DATABASE_PORT": str(url.port),
        "DATABASE_NAME": str(url.database),
        "DATABASE_USERNAME": name,
        "DATABASE_PASSWORD": password,
    }


@pytest.mark.parametrize(
    "spell", [spelled("postgres"), spelled("postgresql"), spelled_in_parts], ids=["postgres", "postgresql", "parts"]
)
def test_upgrade_finds_the_database_by_any_setting_and_with_any_password(
    spell: Spelling, server: URL, url: URL, looking: Connection
) -> None:
    with role(server, url, ODD_PASSWORD) as name:
        run = run_alembic("upgrade", "head", **spell(url, name, ODD_PASSWORD))

    assert run.returncode == 0, run.stderr
    assert version(looking) == HEAD


@pytest.mark.parametrize(
    ("database_url", "reason"),
    [
        ("postgresql://u:secret@127.0.0.1:{port}/x", "Connection refused"),
        ("postgresql://u:secret@no-such-host.invalid/x", "no-such-host.invalid"),
        ("mysql://u:secret@127.0.0.1/x", "must look like postgresql://"),
        ("postgresql://u:secret@127.0.0.1:port/x", "must look like postgresql://"),
        ("u:secret@127.0.0.1/x", "must look like postgresql://"),
        ("postgresql://u:secret@127.0.0.1/x?no_such_option=1", "no_such_option"),
    ],
)
def test_upgrade_says_in_one_line_why_it_cannot_reach_the_database(database_url: str, reason: str) -> None:
    line = error_line(run_alembic("upgrade", "head", DATABASE_URL=database_url.format(port=free_port())))

    assert reason in line
    assert "secret" not in line


def test_upgrade_says_in_one_line_that_tries_are_a_number(url: URL) -> None:
    line = error_line(run_alembic("-x", "tries=many", "upgrade", "head", DATABASE_URL=address(url)))

    assert line == "error: -x tries takes a number, not many"


def test_upgrade_says_in_one_line_that_the_database_does_not_exist(url: URL) -> None:
    line = error_line(run_alembic("upgrade", "head", DATABASE_URL=address(url.set(database="no_such_database"))))

    assert "no_such_database" in line


@pytest.mark.parametrize("shape", [descendants.BY_ALEMBIC, descendants.BY_CREATE_ALL, descendants.BY_HAND])
def test_tables_of_other_software_are_not_migrated_and_adopt_is_named_in_one_line(
    url: URL, looking: Connection, shape: str
) -> None:
    descendants.make(looking, shape)
    before = inspect(looking).get_table_names()

    runs = [
        run_alembic("upgrade", "head", DATABASE_URL=address(url)),
        app("run", DATABASE_URL=address(url), PORT="0"),
    ]

    for run in runs:
        assert run.returncode == 1
        (line,) = run.stderr.splitlines()
        assert line.startswith("error: other software made the tables of this database")
        assert line.endswith("run: python -m app adopt")
    assert inspect(looking).get_table_names() == before


def test_commands_on_tables_of_other_software_name_adopt_in_one_line(url: URL, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_CREATE_ALL)

    runs = [app(name, DATABASE_URL=address(url), PORT="0") for name in ("serve", "worker", "cleanup")]
    (migrations,) = [line for line in app("doctor", DATABASE_URL=address(url)).stdout.splitlines() if "migrat" in line]

    for run in runs:
        assert run.returncode == 1
        (line,) = run.stderr.splitlines()
        assert line.startswith("error: other software made the tables of this database")
        assert line.endswith("run: python -m app adopt")
    assert migrations.startswith("FAIL  migrations: other software")
    assert migrations.endswith("run: python -m app adopt")


def test_a_role_without_the_right_to_create_tables_gets_one_line(url: URL, looking: Connection) -> None:
    role, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    looking.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    try:
        theirs = address(url.set(username=role, password=password))
        runs = [run_alembic("upgrade", "head", DATABASE_URL=theirs), app("run", DATABASE_URL=theirs, PORT="0")]
        grants = {run.stderr.splitlines()[-1].rpartition(": ")[2] for run in runs}
        for grant in grants:
            looking.exec_driver_sql(grant)
        mended = run_alembic("upgrade", "head", DATABASE_URL=theirs)
    finally:
        looking.exec_driver_sql(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    for run in runs:
        assert run.returncode == 1
        line = run.stderr.splitlines()[-1]
        assert "Traceback" not in run.stdout + run.stderr
        assert line.startswith("error: permission denied for schema public")
    assert grants == {f"GRANT CREATE ON SCHEMA public TO {role}"}
    assert mended.returncode == 0, mended.stderr
