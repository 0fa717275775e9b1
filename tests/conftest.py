"""The tests' PostgreSQL: migrated once into a template that every worker clones; commits are real.

`TEST_DATABASE_URL` names a server on which the role may create databases; without it the embedded one is used.
Savepoints cannot isolate these tests, because hot requests read on connections of their own; so each test that uses
`database` begins with empty tables (docs/decisions/0002 has the figures).
"""

import hashlib
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic.config import Config
from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from alembic import command
from app.config import ENV_FILE_VARIABLE, LOCAL_FOLDER, Settings
from app.dev.postgres import running

ROOT = Path(__file__).resolve().parent.parent
# Durability is not what is tested here; the tests that do test it start servers of their own.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}

_until_the_end = ExitStack()
pytest_plugins = ["tests.figures", "tests.fixtures", "tests.programs", "tests.buckets"]


def pytest_configure(config: pytest.Config) -> None:
    """Point the application at a database of this worker's own, before any test module imports it."""
    # Neither the checkout's `.env` nor settings of this shell may reach the tests and the programs that they start.
    os.environ[ENV_FILE_VARIABLE] = os.devnull
    settings = {*Settings.model_fields} - {"max_batch"}  # With which the whole suite may be run.
    for name in [name for name in os.environ if name.lower() in settings]:
        del os.environ[name]
    is_controller = not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None)
    if is_controller or config.option.collectonly:
        return
    # As where a script runs `nohup make test &`. Programs that tests start would ignore them, too.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    os.environ |= {
        "DATABASE_URL": _until_the_end.enter_context(_own_database()).render_as_string(hide_password=False),
        "SECRET_KEY": secrets.token_hex(32),
        "PASSWORD_HASH_ROUNDS": "4",
        # In memory, so that no test begins with it empty; its own tests set it lower.
        "RATE_LIMIT_PER_MINUTE": "1000000",
        # Tests of mails send them themselves, or start servers that do.
        "MAIL_ENABLED": "false",
        "MEDIA_ROOT": _until_the_end.enter_context(TemporaryDirectory(prefix="media-")),
        # What tests leave is looked at by them, and not to be removed meanwhile.
        "CLEANUP_INTERVAL_MINUTES": "0",
    }


def pytest_unconfigure() -> None:
    # The process that only distributes tests has no database, though a conftest.py may have imported the engines.
    if "DATABASE_URL" in os.environ and "app.database.engines" in __import__("sys").modules:
        from app.database.engines import dispose

        dispose()
    _until_the_end.close()


@contextmanager
def test_server() -> Iterator[URL]:
    """A database on the server that tests use, from which others can be made."""
    if configured := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(configured.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg2")
        return
    with running(LOCAL_FOLDER / "test-postgres", options=FAST) as url:
        yield url


@contextmanager
def administration(url: URL) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


@contextmanager
def _own_database() -> Iterator[URL]:
    with test_server() as server:
        name = f"test_{os.getpid()}_{secrets.token_hex(3)}"
        with administration(server) as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {_template(connection, server)}"))
        try:
            yield server.set(database=name)
        finally:
            with administration(server) as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _template(connection: Connection, server: URL) -> str:
    """The database that Alembic migrated; made anew when a migration has changed."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "alembic" / "versions").glob("*.py")):
        digest.update(path.read_bytes())
    name = f"template_{digest.hexdigest()[:12]}"
    connection.execute(text("SELECT pg_advisory_lock(7235)"))  # One worker makes it, the others wait.
    try:
        if connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}) is None:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name}_unfinished WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}_unfinished TEMPLATE template0"))
            config = Config(ROOT / "alembic.ini")
            config.attributes |= {"url": server.set(database=f"{name}_unfinished"), "configure_logging": False}
            command.upgrade(config, "head")
            connection.execute(text(f"ALTER DATABASE {name}_unfinished RENAME TO {name}"))
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(7235)"))
    return name
