"""Servers behind PgBouncer in transaction mode, where every transaction may meet another server connection."""

import asyncio
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import psycopg2
import pytest
from sqlalchemy import URL, text

from tests.chaos.load import Answer, Client, ask_once
from tests.cli.test_commands import Running, app
from tests.conftest import ROOT, administration
from tests.figures import Figure
from tests.fixtures import PASSWORD, Person, Server, linked
from tests.mail_server import MailServer
from tests.migrations.conftest import run_alembic
from tests.races.waiting import wait_until
from tests.scaling.conftest import Replicated, dsn
from tests.scaling.pgbouncer import POOL_SIZE, needs_pgbouncer, pgbouncer
from tests.scaling.test_servers import Readers, Start, turns, wait_until_it_reads_from_the_replica

pytestmark = [pytest.mark.slow, needs_pgbouncer]

# What PgBouncer itself keeps in step with each client.
KEPT_IN_STEP = {"application_name", "client_encoding", "DateStyle", "standard_conforming_strings", "TimeZone"}


@pytest.fixture
def pooler(primary: Replicated, folder: Path) -> Iterator[URL]:
    """The primary's URL through a PgBouncer."""
    with pgbouncer(folder / f"pgbouncer-{secrets.token_hex(4)}", primary.url) as through:
        yield through


def left_behind(pooler: URL) -> dict[str, set[str]]:
    """Return what former clients have left in the pool's server connections.

    All of them are held at once, so that each is read.
    """
    found: dict[str, set[str]] = {"settings": set(), "prepared": set(), "tables": set(), "locks": set(), "pids": set()}
    with ExitStack() as stack:
        for _ in range(POOL_SIZE):
            connection = psycopg2.connect(dsn(pooler))
            stack.callback(connection.close)
            cursor = connection.cursor()  # Its transaction keeps the server connection.
            cursor.execute("SELECT pg_backend_pid()::text")
            found["pids"] |= {row[0] for row in cursor}
            cursor.execute("SELECT name FROM pg_settings WHERE source = 'session'")
            found["settings"] |= {row[0] for row in cursor} - KEPT_IN_STEP
            cursor.execute("SELECT name FROM pg_prepared_statements")
            found["prepared"] |= {row[0] for row in cursor}
            cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()")
            found["tables"] |= {row[0] for row in cursor}
            cursor.execute("SELECT pid::text FROM pg_locks WHERE locktype = 'advisory'")
            found["locks"] |= {row[0] for row in cursor}
    assert len(found.pop("pids")) == POOL_SIZE
    return found


NOTHING: dict[str, set[str]] = {"settings": set(), "prepared": set(), "tables": set(), "locks": set()}


def test_everything_works_through_it_and_nothing_is_left_on_its_connections(
    start: Start, people: list[Person], primary: Replicated, replica: Replicated, pooler: URL
) -> None:
    with primary.connect() as connection, MailServer() as mails:
        connection.execute(
            text("""
                INSERT INTO idempotency_keys (key, fingerprint, status, body, expires_at)
                SELECT n::text, '', 201, '', now() FROM generate_series(1, 100) AS n
            """)
        )
        # That is reported on connections that take no settings at connect, too.
        connection.execute(text(f"ALTER DATABASE {primary.url.database} SET timezone = 'Asia/Kolkata'"))
        servers = [
            start(
                DATABASE_URL=dsn(pooler),
                DATABASE_BEHIND_POOLER="true",
                DATABASE_REPLICA_URL=dsn(replica.url),
                WORKERS="2",
                RATE_LIMITS_ENABLED="true",
                CLEANUP_INTERVAL_MINUTES="1",
                MAIL_ENABLED="true",
                SMTP_HOST="127.0.0.1",
                SMTP_PORT=str(mails.port),
                SMTP_TLS="none",
            )
            for _ in range(2)
        ]
        assert_a_person_can_do_everything(servers)
        assert_one_of_many_sent_at_once_counts(servers, people[0])
        assert_guesses_are_counted_together(servers)
        wait_until_it_reads_from_the_replica(servers[1], people[0])
        readers = Readers(servers[0], servers[1], people)
        asyncio.run(readers.run(lambda: readers.read >= 1_000))

        assert readers.stale == 0
        assert set(readers.answers.statuses) == {200}
        assert turns(servers[1])["replica"] > 10
        # One of four processes has removed what had expired, and one has sent the mail of a sign-up.
        wait_until(connection, "SELECT count(*) = 0 FROM idempotency_keys WHERE expires_at <= now()")
        wait_until(connection, "SELECT count(*) = 0 FROM outgoing_mails")
        assert [mail.address for mail in mails.received] == ["new@example.com"]
        connection.execute(text(f"ALTER DATABASE {primary.url.database} RESET timezone"))
    assert left_behind(pooler) == NOTHING


def test_frozen_database_behind_it_keeps_no_request_waiting_though_its_role_has_no_limits(
    start: Start, people: list[Person], primary: Replicated, pooler: URL, figure: Figure
) -> None:
    server = start(
        DATABASE_URL=dsn(pooler), DATABASE_BEHIND_POOLER="true", DATABASE_STATEMENT_TIMEOUT_SECONDS="2", WORKERS="2"
    )
    paths = ("/posts", "/posts/1", "/users/me", "/sessions", "/readyz")

    def ask() -> list[Answer]:
        clients = [Client(server.url, people[0].token) for _ in range(15)]
        return asyncio.run(ask_once(clients, *paths))

    assert {answer.status for answer in ask()} == {200}
    with primary.frozen():
        answers, later = ask(), ask()
    slowest, later_slowest = (max(answer.seconds for answer in some) for some in (answers, later))
    figure(
        f"R21, frozen behind PgBouncer, statements cut after 2 s: 503 after at most {slowest:.2f} s, once more after"
        f" {later_slowest:.2f} s"
    )
    assert {answer.status for answer in [*answers, *later]} == {503}
    assert max(slowest, later_slowest) < 7, "four seconds, but for a busy machine"
    deadline = time.monotonic() + 30
    while {answer.status for answer in ask()} != {200}:
        assert time.monotonic() < deadline, "it did not recover"


def assert_a_person_can_do_everything(servers: list[Server]) -> None:
    """Sign up, sign in, write, vote, page, change, sign out; at both servers alternately."""
    one, other = (httpx2.Client(base_url=server.url) for server in servers)
    with one, other:
        assert one.post("/users", json={"email": "new@example.com", "password": PASSWORD}).status_code == 201
        signed_in = other.post("/login", data={"username": "new@example.com", "password": PASSWORD})
        assert signed_in.status_code == 200
        headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        ids = [
            client.post("/posts", json={"title": f"title {n}", "content": "content"}, headers=headers).json()["id"]
            for n in range(6)
            for client in (one, other)
        ]
        assert other.post("/vote", json={"post_id": ids[0], "vote_dir": 1}, headers=headers).status_code == 201
        assert one.post("/vote", json={"post_id": ids[0], "vote_dir": 1}, headers=headers).status_code == 409
        first = one.get("/posts", params={"limit": 7, "search": "title"}, headers=headers)
        second = other.get(str(linked(first)), headers=headers)
        assert all(row["Post"]["created_at"].endswith("Z") for row in first.json() + second.json())
        assert [row["Post"]["id"] for row in first.json() + second.json()] == sorted(ids, reverse=True)

        path = f"/posts/{ids[0]}"
        tag = one.get(path, headers=headers).headers["etag"]
        changes = [
            client.patch(path, json={"title": "new"}, headers=headers | {"If-Match": tag}) for client in (one, other)
        ]
        assert [change.status_code for change in changes] == [200, 412]
        assert one.post("/logout", headers=headers).status_code == 204
        assert other.get("/posts", headers=headers).status_code == 401
        assert one.post("/login", data={"username": "new@example.com", "password": "wrong"}).status_code == 403


def assert_guesses_are_counted_together(servers: list[Server]) -> None:
    guess = {"username": "nobody@example.com", "password": "wrong"}
    statuses = [httpx2.post(f"{servers[n % 2].url}/login", data=guess).status_code for n in range(12)]
    assert statuses == [403] * 10 + [429] * 2


def assert_one_of_many_sent_at_once_counts(servers: list[Server], person: Person) -> None:
    headers = person.headers | {"Idempotency-Key": "key"}

    def send(number: int) -> Any:
        post = {"title": "once", "content": "content"}
        return httpx2.post(f"{servers[number % 2].url}/posts", json=post, headers=headers, timeout=60)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(send, range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1


@pytest.fixture
def fresh(primary: Replicated) -> Iterator[str]:
    """The name of an empty database."""
    name = f"fresh_{secrets.token_hex(4)}"
    with administration(primary.url) as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield name
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_what_needs_a_session_is_refused_through_it_and_done_past_it(
    primary: Replicated, pooler: URL, fresh: str, tmp_path: Path
) -> None:
    through = {"DATABASE_URL": dsn(pooler, fresh), "DATABASE_BEHIND_POOLER": "true"}
    past = through | {"DATABASE_DIRECT_URL": dsn(primary.url, fresh)}
    for refused in (
        run_alembic("upgrade", "head", **through), app("adopt", **through), app("seed", **through)
    ):  # fmt: skip
        assert refused.returncode == 1
        assert refused.stderr == "error: this does not work through a pooler; set DATABASE_DIRECT_URL\n"

    server = Running(tmp_path / "log", ["run"], ROOT, past | {"PORT": "0"})
    try:
        address = server.wait_for(r"Serving +(\S+)")
        assert httpx2.get(f"{address}/readyz").status_code == 200
        assert run_alembic("upgrade", "head", **past).returncode == 0
        assert app("adopt", **past).returncode == 0
        assert app("seed", "--users", "10", "--posts", "10", "--votes", "10", **past).returncode == 0
    finally:
        server.end(signal.SIGTERM)
    assert left_behind(pooler.set(database=fresh)) == NOTHING


def test_slow_statement_is_cut_by_the_limits_that_doctor_names(
    start: Start, people: list[Person], primary: Replicated, pooler: URL
) -> None:
    settings = {"DATABASE_URL": dsn(pooler), "DATABASE_BEHIND_POOLER": "true", "DATABASE_DIRECT_URL": dsn(primary.url)}
    output = app("doctor", DATABASE_STATEMENT_TIMEOUT_SECONDS="1", **settings).stdout
    (line,) = [line for line in output.splitlines() if "limits:" in line]
    with primary.connect() as connection:
        connection.execute(text(line.partition("run: ")[2].partition("; then")[0]))
        try:
            # The connections that the pool has keep what they were made with.
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                     " AND backend_type = 'client backend'")
            )  # fmt: skip
            output = app("doctor", DATABASE_STATEMENT_TIMEOUT_SECONDS="1", **settings).stdout
            assert "ok    limits: slow statements and idle transactions time out" in output
            server = start(**settings)
            connection.execute(text("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
            for path in ("/posts", "/users/me"):
                answer = httpx2.get(f"{server.url}{path}", headers=people[0].headers, timeout=30)
                assert answer.status_code == 503
            connection.execute(text("ROLLBACK"))
        finally:
            connection.execute(text("ALTER ROLE postgres RESET ALL"))
