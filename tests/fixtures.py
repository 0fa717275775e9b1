"""Fixtures: an empty database, a client, people with posts, queries counted, real server processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, event, text
from starlette.testclient import TestClient

from tests import pictures
from tests.mail_server import MailServer, Received

ROOT = Path(__file__).resolve().parent.parent
# What cascades from these is not named.
EMPTIED = (
    *("posts", "users", "tags", "idempotency_keys", "allowances", "outgoing_mails", "schedules"),
    *("notifications", "events", "invites", "moderation_log", "media_removals", "event_positions"),
    "webhook_deliveries",
)
_numbers = count(1)


@pytest.fixture
def database() -> Engine:
    """The application's own engine, on empty tables. Everything is committed for real."""
    from app.database.engines import get_engine

    engine = get_engine()
    with engine.begin() as connection:
        for table in EMPTIED:
            connection.execute(text(f"DELETE FROM {table}"))
    return engine


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    """A connection for reading rows: each statement sees what has been committed."""
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture(scope="session")
def _running_client() -> Iterator[TestClient]:
    from app.background import worker
    from app.live import stream
    from app.main import app

    # The client reads each response to its end, so live streams end at once. tests/live has servers.
    stream.MAX_STREAM_SECONDS = (0.0, 0.0)
    # Its statements would be among those that tests of this process count.
    worker.OBSERVATION_INTERVAL = timedelta(days=365)
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(_running_client: TestClient, database: Engine) -> TestClient:  # noqa: ARG001 - on empty tables.
    """A client without credentials, on empty tables."""
    return _running_client


@dataclass(frozen=True)
class Person:
    """A signed-in user. `headers` are those that their client sends."""

    id: int
    email: str
    token: str
    session_id: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


PASSWORD = "correct horse battery"  # Of each user of `make_person`.


@pytest.fixture
def make_person(database: Engine) -> Callable[..., Person]:
    """Make a signed-in user: `make_person(role="admin", username="ada")`."""
    from app.security import access_tokens, passwords
    from app.security.email_addresses import canonical_email

    def make(
        *, email: str | None = None, role: str = "user", username: str | None = None, is_verified: bool = False
    ) -> Person:
        email = email or f"person{next(_numbers)}@example.com"
        with database.begin() as connection:
            user_id = connection.scalar(
                text("""
                    INSERT INTO users (email, email_canonical, username, role, password_hash, email_verified_at)
                    VALUES (:email, :canonical, :username, :role, :hash, CASE WHEN :is_verified THEN now() END)
                    RETURNING id
                """),
                {
                    "email": email,
                    "canonical": canonical_email(email),
                    "username": username,
                    "role": role,
                    "hash": passwords.hash_password(PASSWORD),
                    "is_verified": is_verified,
                },
            )
            session_id = connection.scalar(
                text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day') RETURNING id"),
                {"id": user_id},
            )
        assert isinstance(user_id, int)
        assert isinstance(session_id, int)
        return Person(user_id, email, access_tokens.issue(user_id, session_id, timedelta(minutes=30)), session_id)

    return make


@pytest.fixture
def person(make_person: Callable[..., Person]) -> Person:
    """A signed-in user."""
    return make_person()


@pytest.fixture
def make_media(client: TestClient) -> Callable[..., dict[str, Any]]:
    """Upload a picture: `make_media(person, alt="A boat")["id"]`."""

    def make(owner: Person, content: bytes | None = None, *, alt: str = "", **headers: str) -> dict[str, Any]:
        response = client.post(
            "/media",
            files={"file": ("picture.png", content or pictures.png())},
            data={"alt": alt},
            headers=owner.headers | headers,
        )
        assert response.status_code == 201, response.text
        return dict(response.json())

    return make


@pytest.fixture
def make_post(database: Engine) -> Callable[..., int]:
    """Write a post and return its id: `make_post(owner, title="…", published=False)`."""

    def make(owner: Person, **columns: Any) -> int:
        number = next(_numbers)
        values = {"title": f"title {number}", "content": f"content {number}", "published": True} | columns
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        with database.begin() as connection:
            post_id = connection.scalar(
                text(f"INSERT INTO posts (owner_id, {names}) VALUES (:owner_id, {places}) RETURNING id"),
                {"owner_id": owner.id, **values},
            )
        assert isinstance(post_id, int)
        return post_id

    return make


@pytest.fixture
def make_comment(database: Engine) -> Callable[..., int]:
    """Write a comment and return its id: `make_comment(owner, post_id, parent_id=…, content="…")`."""

    def make(owner: Person, post_id: int, *, parent_id: int | None = None, content: str = "comment") -> int:
        with database.begin() as connection:
            comment_id = connection.scalar(
                text("""
                    INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
                    SELECT :post_id, :parent_id, :owner_id, :content,
                        coalesce((SELECT depth + 1 FROM comments WHERE id = :parent_id), 0)
                    RETURNING id
                """),
                {"post_id": post_id, "parent_id": parent_id, "owner_id": owner.id, "content": content},
            )
        assert isinstance(comment_id, int)
        return comment_id

    return make


@pytest.fixture
def cast_votes(database: Engine) -> Callable[[int, list[Person]], None]:
    """Insert votes for a post into the table."""

    def cast(post_id: int, voters: list[Person]) -> None:
        with database.begin() as connection:
            connection.execute(
                text("INSERT INTO votes (post_id, user_id) SELECT :post_id, unnest(CAST(:voters AS bigint[]))"),
                {"post_id": post_id, "voters": [voter.id for voter in voters]},
            )

    return cast


def linked(response: httpx2.Response, relation: str = "next") -> str | None:
    """Return the path and query of the answer's `Link`, which is relative to the address of the request."""
    link = response.links.get(relation)
    return None if link is None else response.url.join(link["url"]).raw_path.decode()


def located(response: httpx2.Response) -> str:
    """Return the path of the answer's `Location`."""
    return response.url.join(response.headers["Location"]).path


@contextmanager
def counted_queries(engine: Engine) -> Iterator[list[str]]:
    """Record the statements that both engines run inside the block, in order."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    from app.database.engines import get_batch_engine

    engines = (engine, get_batch_engine())
    for one in engines:
        event.listen(one, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        for one in engines:
            event.remove(one, "before_cursor_execute", note)


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server that stores what it receives."""
    with MailServer() as server:
        yield server


@pytest.fixture
def receive(mail_server: MailServer) -> Callable[[], list[Received]]:
    """Send all due mails, and return what arrived in this call."""
    from app.mail import delivery
    from app.mail.smtp import Smtp

    def send_all() -> list[Received]:
        before = len(mail_server.received)
        while delivery.send_next(Smtp("127.0.0.1", mail_server.port, "none")):
            pass
        return mail_server.received[before:]

    return send_all


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A server in a process of its own, on this worker's database."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


READY_WITHIN_SECONDS = 60  # On a machine with much else to do, importing alone has taken 20.


@pytest.fixture
def start_server(database: Engine, tmp_path: Path) -> Iterator[Callable[..., Server]]:  # noqa: ARG001 - empty tables.
    """Start `python -m app serve`: `start_server(WORKERS="2")`. Its port is a free one, if `PORT` gives none.

    It is stopped after the test, and its log shown.
    """
    with ExitStack() as stack:
        yield lambda **environment: stack.enter_context(_server(tmp_path, environment))


@contextmanager
def _server(folder: Path, environment: dict[str, str], root: Path = ROOT) -> Iterator[Server]:
    """A server of the release that is in `root`, with its log in `folder`."""
    port = int(environment.get("PORT") or free_port())
    log = folder / f"server-{port}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=root,
            env={**os.environ, "PORT": str(port), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log)
        yield Server(url, process, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        sys.stdout.write(log.read_text(errors="replace")[-5000:])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the server did not become ready: {log.read_text(errors='replace')[-3000:]}")
