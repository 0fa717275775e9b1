"""Empty databases for the tests of migrations; and Alembic, in this process or another."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.models import Base
from tests.conftest import administration

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def server() -> URL:
    """The server that tests use; the role may create databases there."""
    return make_url(os.environ["DATABASE_URL"])


@pytest.fixture
def make_database(server: URL) -> Iterator[Callable[[], URL]]:
    """Make a database with nothing in it."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_database(server))


@contextmanager
def _database(server: URL) -> Iterator[URL]:
    name = f"migrations_{os.getpid()}_{secrets.token_hex(3)}"
    with administration(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    try:
        yield server.set(database=name)
    finally:
        with administration(server) as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def url(make_database: Callable[[], URL]) -> URL:
    """A database with nothing in it."""
    return make_database()


@pytest.fixture
def engine(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


@pytest.fixture
def looking(engine: Engine) -> Iterator[Connection]:
    """A connection for reading and writing rows: each statement is a transaction."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def config_for(url: URL) -> Config:
    """Return a configuration for `alembic.command` on this database."""
    config = Config(ROOT / "alembic.ini")
    config.attributes |= {"url": url, "configure_logging": False}
    return config


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process with another database."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")} | variables


def start_alembic(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_alembic(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    process = start_alembic(*arguments, **variables)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def address(url: URL) -> str:
    """Return the database's URL, as for DATABASE_URL."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def version(connection: Connection) -> str | None:
    """Return the revision of the database."""
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def contents(connection: Connection) -> Mapping[str, Sequence[str]]:
    """Return every row of every table, as text."""
    tables = connection.scalars(
        text("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    ).all()
    return {
        table: connection.scalars(text(f'SELECT t::text FROM "{table}" AS t ORDER BY 1')).all()
        for table in sorted(tables)
    }


def drift(connection: Connection) -> list[str]:
    """Return the findings of `alembic check`, except foreign objects: those that are not in the models."""
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    return [
        str(difference)
        for difference in compare_metadata(context, Base.metadata)
        if not str(difference[0]).startswith("remove_")
    ]


def revisions() -> list[str]:
    """Return all revisions, the oldest first."""
    scripts = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def error_line(run: subprocess.CompletedProcess[str]) -> str:
    """Return the error of the failed run, which is one line and no traceback."""
    assert run.returncode != 0
    assert "Traceback" not in run.stderr
    (line,) = (line for line in run.stderr.splitlines() if line.startswith(("error: ", "FAILED: ")))
    assert run.stderr.rstrip().endswith(line)
    return line
