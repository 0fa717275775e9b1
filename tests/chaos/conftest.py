"""A durable PostgreSQL that tests may stop, kill and restart; and servers on it."""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from alembic.config import Config
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from alembic import command
from app.dev import postgres as local_postgres
from app.security import access_tokens
from tests.fixtures import Person, Server, _server, free_port

TIMEOUT_SECONDS = 60


class Postgres:
    """A server of the test's own, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = {"port": str(free_port())}
        self._running = ExitStack()
        self.url: URL

    def start(self) -> None:
        """Return when it takes connections."""
        self.url = self._running.enter_context(local_postgres.running(self._folder, options=self._options))

    def stop(self, number: signal.Signals) -> None:
        """SIGINT: end every connection, in order.

        SIGQUIT: at once, as in a crash; it has to recover.
        """
        os.kill(self._postmaster, number)
        self._running.close()  # Waits until its last process has ended.

    def signal(self, number: signal.Signals) -> None:
        """Send it to every process of the server."""
        postmaster = self._postmaster
        # The postmaster first: it would start again what others end.
        for pid in (postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server while the block runs; its kernel still takes what is sent to it."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @property
    def _postmaster(self) -> int:
        return int((self._folder.resolve() / "data" / "postmaster.pid").read_text().splitlines()[0])

    def close(self) -> None:
        self._running.close()

    def connect(self) -> Connection:
        """Return a connection in AUTOCOMMIT mode that is not pooled."""
        return create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


@pytest.fixture(scope="module")
def _migrated_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o711)
    postgres = Postgres(folder / "postgres")
    try:
        postgres.start()
        config = Config("alembic.ini")
        config.attributes |= {"url": postgres.url, "configure_logging": False}
        command.upgrade(config, "head")
        yield postgres
    finally:
        postgres.close()
        shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(_migrated_postgres: Postgres) -> Postgres:
    """Running, migrated, without rows, and durable: fsync is on."""
    with _migrated_postgres.connect() as connection:
        assert connection.scalar(text("SHOW fsync")) == "on"
        connection.execute(text("TRUNCATE users, posts, idempotency_keys CASCADE"))
    return _migrated_postgres


@pytest.fixture
def people(postgres: Postgres) -> list[Person]:
    """Signed-in users."""
    made = []
    with postgres.connect() as connection:
        for _ in range(16):
            email = f"{secrets.token_hex(6)}@example.com"
            user_id = connection.scalar(
                text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:e, :e, 'x') RETURNING id"),
                {"e": email},
            )
            session_id = connection.scalar(
                text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"),
                {"id": user_id},
            )
            token = access_tokens.issue(int(user_id or 0), int(session_id or 0), timedelta(hours=1))
            made.append(Person(int(user_id or 0), email, token, int(session_id or 0)))
    return made


@pytest.fixture
def post_ids(postgres: Postgres, people: list[Person]) -> list[int]:
    """Posts of the first user."""
    with postgres.connect() as connection:
        return list(
            connection.scalars(
                text("""
                    INSERT INTO posts (owner_id, title, content)
                    SELECT :owner, 'title ' || n, 'content' FROM generate_series(1, 30) AS n RETURNING id
                """),
                {"owner": people[0].id},
            )
        )


@pytest.fixture
def start(postgres: Postgres, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start `python -m app serve` on that PostgreSQL: `start(WORKERS="2")`."""
    with ExitStack() as stack:

        def begin(**environment: str) -> Server:
            url = postgres.url.render_as_string(hide_password=False)
            return stack.enter_context(
                _server(tmp_path, {"DATABASE_URL": url, "RATE_LIMITS_ENABLED": "false", **environment})
            )

        yield begin


def wait_until_it_takes_connections(postgres: Postgres) -> float:
    """Wait until PostgreSQL takes connections, and return the time."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            psycopg2.connect(postgres.url.set(drivername="postgresql").render_as_string(hide_password=False)).close()
        except psycopg2.OperationalError:
            time.sleep(0.02)
        else:
            return time.monotonic()
    raise AssertionError("PostgreSQL takes no connections")


def miscounted(connection: Connection) -> int:
    """Return how many posts have a count that is not the number of their votes."""
    found = connection.scalar(
        text("""
            SELECT count(*) FROM posts LEFT JOIN post_stats ON post_id = id
            WHERE post_stats.votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE votes.post_id = posts.id)
        """)
    )
    return int(found or 0)
