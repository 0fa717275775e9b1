"""Exports on two servers: one of an account at a time, and none that outlives its reader, session or server."""

import asyncio
import io
import signal
import socket
import time
import zipfile
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text

from tests.fixtures import Person, Server
from tests.hostile.raw import connected, port_of, read_all
from tests.races.conftest import Call, Crowd, count, statuses
from tests.races.waiting import wait_until

EXPORT = b"GET /users/me/export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n"
# Hashes shrink little, so that most of the export waits for its reader. Into a table without triggers.
ADD_EVENTS = """
    INSERT INTO security_events (user_id, event, user_agent)
    SELECT :id, 'signed_in', (SELECT string_agg(md5((n * 1000 + m)::text), '') FROM generate_series(1, 300) AS m)
    FROM generate_series(1, :events) AS n
"""
EVENTS = 4_000  # Some 20 MB of ZIP, more than the sockets hold.
POSTS = 1_000
CLAIMS = "allowances WHERE limit_name = 'export' AND cardinality(used_at) > 0"
NO_CLAIM = f"SELECT NOT EXISTS (SELECT FROM {CLAIMS})"


def begin(person: Person, connection: socket.socket) -> bytes:
    """Ask for an export, and return the first bytes of the answer."""
    connection.sendall(EXPORT % person.token.encode())
    return connection.recv(4096)


@pytest.fixture
def writer(person: Person, connection: Connection) -> Person:
    """A person with much to export."""
    connection.execute(text(ADD_EVENTS), {"id": person.id, "events": EVENTS})
    return person


def test_of_twenty_exports_at_once_one_of_an_account_runs(crowd: Crowd, writer: Person, connection: Connection) -> None:
    answers = crowd.send([Call("GET", "/users/me/export", writer)] * 20)

    found = statuses(answers)
    assert found.keys() == {200, 409}
    # Those that came after the first one had ended ran, too, one after the other.
    assert found[200] < 5
    for answer in answers:
        if answer.status_code == 200:
            assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None
    assert count(connection, CLAIMS) == 0


def test_a_slow_reader_holds_no_connection_and_no_transaction(
    start_server: Callable[..., Server], writer: Person, connection: Connection
) -> None:
    server = start_server()
    with connected(port_of(server), SO_RCVBUF=4096) as reader:
        assert begin(writer, reader).startswith(b"HTTP/1.1 200")
        time.sleep(2)

        assert count(connection, CLAIMS) == 1
        is_open = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start"
        assert count(connection, f"{is_open} < now() - interval '1 second'") == 0
        refused = httpx2.get(f"{server.url}/users/me/export", headers=writer.headers)
        assert refused.status_code == 409


def test_a_client_that_goes_away_ends_the_export_and_may_ask_again(
    start_server: Callable[..., Server], writer: Person, connection: Connection
) -> None:
    server = start_server()
    with connected(port_of(server), SO_RCVBUF=4096) as reader:
        begin(writer, reader)
        assert count(connection, CLAIMS) == 1

    wait_until(connection, NO_CLAIM)
    again = httpx2.get(f"{server.url}/users/me/export", headers=writer.headers, timeout=60)
    assert zipfile.ZipFile(io.BytesIO(again.content)).testzip() is None


@pytest.mark.parametrize("end", ["sign-out", "deletion"])
def test_an_export_ends_with_its_session(
    start_server: Callable[..., Server], writer: Person, connection: Connection, end: str
) -> None:
    server = start_server()
    with connected(port_of(server), SO_RCVBUF=4096) as reader:
        begin(writer, reader)
        method, path = ("POST", "/logout") if end == "sign-out" else ("DELETE", "/users/me")
        assert httpx2.request(method, f"{server.url}{path}", headers=writer.headers).status_code == 204
        rest = read_all(reader)

    assert not rest.endswith(b"0\r\n\r\n"), "the answer must not look complete"
    wait_until(connection, NO_CLAIM)
    assert "export ended early" in server.log.read_text()


def test_sigterm_ends_an_export_soon_and_leaves_no_claim(
    start_server: Callable[..., Server], writer: Person, connection: Connection
) -> None:
    server = start_server()
    with connected(port_of(server)) as reader:
        begin(writer, reader)
        server.process.send_signal(signal.SIGTERM)
        began_at = time.monotonic()
        rest = read_all(reader)
        server.process.wait(20)

    assert time.monotonic() - began_at < 15
    assert not rest.endswith(b"0\r\n\r\n")
    assert count(connection, CLAIMS) == 0


def test_rows_written_and_deleted_meanwhile_break_nothing(crowd: Crowd, person: Person, connection: Connection) -> None:
    posts = "INSERT INTO posts (owner_id, title, content) SELECT :id, 't', 'c' FROM generate_series(1, :posts)"
    connection.execute(text(posts), {"id": person.id, "posts": POSTS})
    before = {key for (key,) in connection.execute(text("SELECT id FROM posts"))}
    doomed = sorted(before)[-100:]

    async def export(client: httpx2.AsyncClient) -> bytes:
        return (await client.get("/users/me/export", headers=person.headers)).content

    async def change(client: httpx2.AsyncClient) -> bytes:
        for post_id in doomed:
            assert (await client.delete(f"/posts/{post_id}", headers=person.headers)).status_code == 204
            await asyncio.sleep(0)
        return b""

    content, _ = crowd.run([export, change])

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = archive.read("posts.json").count(b'{"id": ')
    assert POSTS - len(doomed) <= found <= POSTS
