"""An operator's tools: PostgreSQL's own programs, the two roles, and a shell."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.dev import postgres
from tests.conftest import ROOT, administration
from tests.migrations.conftest import _database, address, environment
from tests.programs import missing

TIMEOUT_SECONDS = 120


@pytest.fixture(scope="module")
def server() -> URL:
    """The server that tests use; the role may create databases and roles there."""
    return make_url(os.environ["DATABASE_URL"])


@pytest.fixture(scope="module")
def programs(server: URL) -> Path:
    """The folder of psql, pg_dump and pg_restore of the server's version, or of the next one."""
    with administration(server) as connection:
        major = int(connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0)
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("pg_dump") or "/").parent]
    with suppress(postgres.LocalPostgresError):
        folders.append(postgres._packaged_binaries())
    versions = {_major(folder): folder for folder in folders if (folder / "pg_dump").exists()}
    for version in (major, major + 1):
        if version in versions:
            return versions[version]
    return missing("pg_dump", f"pg_dump {major} or {major + 1} is not installed (Debian, Ubuntu: postgresql-client)")


def _major(folder: Path) -> int:
    said = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r" (\d+)", said)[0])


@pytest.fixture(scope="module")
def make_database(server: URL) -> Iterator[Callable[[], URL]]:
    """Make a database with nothing in it."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_database(server))


@dataclass(frozen=True)
class Roles:
    """The two roles of a database, as deploy/postgres/roles.sql makes them; and an administrator."""

    admin_url: URL
    owner_url: URL
    app_url: URL
    programs: Path

    def make(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                self.programs / "psql", address(self.admin_url), "--no-psqlrc", "--quiet",
                "--set", f"owner={self.owner_url.username}", "--set", f"app={self.app_url.username}",
                "--file", ROOT / "deploy" / "postgres" / "roles.sql",
            ],
            env={
                **os.environ,
                "OWNER_PASSWORD": str(self.owner_url.password),
                "APP_PASSWORD": str(self.app_url.password),
            },
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip


@contextmanager
def _roles(database: URL, programs: Path) -> Iterator[Roles]:
    name = f"posts_{secrets.token_hex(3)}"
    owner = database.set(username=f"{name}_owner", password=secrets.token_hex(8))
    roles = Roles(database, owner, database.set(username=name, password=secrets.token_hex(8)), programs)
    try:
        yield roles
    finally:
        with create_engine(database, poolclass=NullPool).begin() as there:
            for role in (owner.username, name):
                if there.execute(text("SELECT FROM pg_roles WHERE rolname = :role"), {"role": role}).all():
                    there.execute(text(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}"))
                    there.execute(text(f"DROP ROLE {role}"))


@pytest.fixture(scope="module")
def make_roles(make_database: Callable[[], URL], programs: Path) -> Iterator[Callable[[], Roles]]:
    """Roles for a new, empty database, which are not made yet."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_roles(make_database(), programs))


def run_app(url: URL, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m app …` on that database."""
    return _run([sys.executable, "-m", "app", *arguments], url, stdin)


def run_alembic(url: URL, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "alembic", *arguments], url, "")


def _run(command: list[str], url: URL, stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment(DATABASE_URL=address(url)), input=stdin,
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
