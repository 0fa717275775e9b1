"""A PostgreSQL with streaming replicas, a PgBouncer in front of one, and servers on them."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from alembic import command
from app.dev import postgres
from app.security import access_tokens
from tests.chaos.conftest import Postgres
from tests.fixtures import Person, Server, _server
from tests.races.waiting import wait_until


class Replicated(Postgres):
    """A migrated primary, or a replica of one, from which replicas can be made."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    @property
    def engine(self) -> Engine:
        """An engine whose connections are not pooled."""
        return create_engine(self.url, poolclass=NullPool)

    def replica(self, name: str) -> "Replicated":
        """A new server that streams from this one, and runs."""
        made = Replicated(self.folder.with_name(name))
        ours = postgres._settle(self.folder, None)
        theirs = postgres._settle(made.folder, None)
        shutil.copy2(ours.folder / "password", theirs.folder / "password")
        data = theirs.folder / "data.new"
        data.mkdir(mode=0o700)
        if ours.account:
            os.chown(data, ours.account["user"], ours.account["group"])
        arguments = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
        program = ours.binaries / "pg_basebackup"
        done = postgres._run(ours.account, program, "-d", dsn(self.url, "replication"), "-D", data, *arguments)
        assert done.returncode == 0, done.stderr
        data.rename(theirs.folder / "data")
        made.start()
        return made

    def promote(self) -> None:
        with self.connect() as connection:
            assert connection.scalar(text("SELECT pg_promote()"))

    def wait_for(self, other: Postgres) -> None:
        """Wait until this replica has replayed what the other's log holds now."""
        with other.connect() as there, self.connect() as here:
            end = there.scalar(text("SELECT pg_current_wal_insert_lsn()::text"))
            wait_until(here, "SELECT pg_last_wal_replay_lsn() >= CAST(:end AS pg_lsn)", end=end)


def dsn(url: URL, database: str | None = None) -> str:
    """The URL as libpq takes it."""
    return url.set(drivername="postgresql", database=database or url.database).render_as_string(hide_password=False)


@pytest.fixture(scope="package")
def folder() -> Iterator[Path]:
    """A folder that the account of every server can enter."""
    made = Path(tempfile.mkdtemp(prefix="scaling-"))
    made.chmod(0o711)
    yield made
    for inside in made.iterdir():
        shutil.rmtree(inside.resolve(), ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="package")
def _primary(folder: Path) -> Iterator[Replicated]:
    with running(Replicated(folder / "primary")) as primary:
        primary.start()
        migrate(primary)
        yield primary


@pytest.fixture(scope="package")
def _replica(_primary: Replicated) -> Iterator[Replicated]:
    with running(_primary.replica("replica")) as replica:
        yield replica


@pytest.fixture
def primary(_primary: Replicated) -> Replicated:
    """Running, migrated, without rows, and durable."""
    with _primary.connect() as connection:
        connection.execute(text("TRUNCATE users, posts, idempotency_keys, schedules, outgoing_mails CASCADE"))
    return _primary


@pytest.fixture
def replica(primary: Replicated, _replica: Replicated) -> Replicated:
    """A replica of it, for tests that leave it as it was."""
    _replica.wait_for(primary)
    return _replica


@pytest.fixture
def make_replica(primary: Replicated) -> Iterator[Callable[..., Replicated]]:
    """Make a replica that may be harmed, of the primary, or, `make_replica(of)`, of another server."""
    with ExitStack() as stack:
        yield lambda of=primary: stack.enter_context(running(of.replica(f"replica-{secrets.token_hex(4)}")))


@contextmanager
def running(server: Replicated) -> Iterator[Replicated]:
    """The server, which is stopped at the end, also where it was halted."""
    try:
        yield server
    finally:
        with suppress(FileNotFoundError):
            server.signal(signal.SIGCONT)
        server.close()


def migrate(server: Replicated) -> None:
    config = Config("alembic.ini")
    config.attributes |= {"url": server.url, "configure_logging": False}
    command.upgrade(config, "head")


@pytest.fixture
def start(primary: Replicated, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start `python -m app serve` on the primary: `start(WORKERS="2", DATABASE_REPLICA_URL=dsn(replica.url))`."""
    with ExitStack() as stack:
        ours = {"DATABASE_URL": dsn(primary.url), "RATE_LIMITS_ENABLED": "false"}
        yield lambda **environment: stack.enter_context(_server(tmp_path, ours | environment))


@pytest.fixture
def people(primary: Replicated) -> list[Person]:
    """Eight signed-in users, each with a post that has the user's id."""
    made = []
    with primary.connect() as connection:
        for number in range(1, 9):
            email = f"{secrets.token_hex(6)}@example.com"
            connection.execute(
                text("""
                    INSERT INTO users (id, email, email_canonical, password_hash) OVERRIDING SYSTEM VALUE
                    VALUES (:id, :email, :email, 'x');
                    INSERT INTO posts (id, owner_id, title, content) OVERRIDING SYSTEM VALUE
                    VALUES (:id, :id, 'first', 'content')
                """),
                {"id": number, "email": email},
            )
            made.append(sign_in(connection, number, email))
        for table in ("users", "posts"):
            connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)"))
    return made


def sign_in(connection: Connection, user_id: int, email: str = "") -> Person:
    """The person, with a new session."""
    session_id = connection.scalar(
        text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"),
        {"id": user_id},
    )
    assert isinstance(session_id, int)
    return Person(user_id, email, access_tokens.issue(user_id, session_id, timedelta(hours=1)), session_id)
