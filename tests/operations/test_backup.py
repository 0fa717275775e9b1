"""The nightly backup: systemd's ExecStart by hand, and what it leaves."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.migrations.conftest import address
from tests.operations.conftest import Roles, run_alembic
from tests.operations.test_layouts import Command, command_of_unit, write_settings

UNIT = "social-posts-backup"
DAY_SECONDS = 24 * 3600


@pytest.fixture
def backup(make_roles: Callable[[], Roles], tmp_path: Path) -> tuple[Command, Roles, Path]:
    """The unit's command, and everything that it needs.

    It needs a migrated database with a row, the roles, and the folder that systemd makes for it.
    """
    roles = make_roles()
    assert roles.make().returncode == 0
    assert run_alembic(roles.owner_url, "upgrade", "head").returncode == 0
    with create_engine(roles.app_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')"))
    write_settings(roles, tmp_path)
    (tmp_path / UNIT).mkdir()
    return command_of_unit(UNIT, roles, tmp_path), roles, tmp_path / UNIT


@pytest.mark.slow
def test_the_backup_of_the_timer_can_be_restored_and_replaces_old_ones(
    backup: tuple[Command, Roles, Path], make_roles: Callable[[], Roles]
) -> None:
    command, roles, folder = backup
    for name, days in (("old", 20), ("recent", 10), ("kept", 20)):
        path = folder / (f"social_posts-{name}.dump" if name != "kept" else "of-the-operator.dump")
        path.write_text(name)
        os.utime(path, (time.time() - days * DAY_SECONDS,) * 2)

    done = command.run(folder)

    assert done.returncode == 0, done.stderr
    assert str(roles.owner_url.password) not in " ".join(command.arguments) + done.stdout + done.stderr
    names = {path.name for path in folder.iterdir()}
    (new,) = names - {"social_posts-recent.dump", "of-the-operator.dump"}
    assert (folder / new).stat().st_mode & 0o777 == 0o600

    other = make_roles()
    assert other.make().returncode == 0
    restored = subprocess.run(
        [
            roles.programs / "pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error",
            "--dbname", address(other.owner_url), folder / new,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (restored.returncode, restored.stderr) == (0, "")
    with create_engine(other.app_url, poolclass=NullPool).connect() as connection:
        assert connection.scalars(text("SELECT email FROM users")).all() == ["a"]


@pytest.mark.slow
def test_a_backup_that_fails_leaves_the_others_and_no_file_that_looks_complete(
    backup: tuple[Command, Roles, Path],
) -> None:
    command, roles, folder = backup
    old = folder / "social_posts-old.dump"
    old.write_text("old")
    os.utime(old, (time.time() - 20 * DAY_SECONDS,) * 2)

    # A role that may not read the sequences.
    mistaken = {"DATABASE_DIRECT_URL": address(roles.app_url)}
    failed = replace(command, environment={**command.environment, **mistaken}).run(folder)

    assert failed.returncode != 0
    assert "pg_dump: error: " in failed.stderr
    assert [path.name for path in folder.iterdir()] == ["social_posts-old.dump"]
