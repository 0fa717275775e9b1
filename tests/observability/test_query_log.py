"""The request's id in SQL, and the log of slow requests with their statements."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.observability import request_context
from tests.fixtures import PASSWORD, Person, Server, counted_queries
from tests.observability.test_log_format import lines_when

SLOW = {"SLOW_REQUEST_MS": "300", "LOG_FORMAT": "json"}
TIMEOUT_SECONDS = 60

StartServer = Callable[..., Server]


@contextmanager
def held_up(
    database: Engine, connection: Connection, lock: str, ask: Callable[[], httpx2.Response]
) -> Iterator[Future[httpx2.Response]]:
    """Make the request wait for a lock, which is released when the block ends."""
    with ThreadPoolExecutor(1) as thread:
        with database.begin() as blocker:
            blocker.execute(text(lock))
            request = thread.submit(ask)
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while not waiting(connection):
                assert time.monotonic() < deadline, "no statement waits"
                time.sleep(0.02)
            yield request
        request.result(TIMEOUT_SECONDS)


def waiting(connection: Connection) -> list[str]:
    """The statements that wait for a lock, as PostgreSQL shows them."""
    query = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return [str(row[0]) for row in connection.execute(text(query))]


def test_an_operator_sees_in_postgresql_which_request_waits(
    start_server: StartServer, database: Engine, connection: Connection, person: Person
) -> None:
    server = start_server(WORKERS="2")

    def rename() -> httpx2.Response:
        headers = {**person.headers, "X-Request-ID": "who-waits"}
        return httpx2.patch(f"{server.url}/users/me", json={"username": "ada"}, headers=headers, timeout=60)

    with held_up(database, connection, f"SELECT FROM users WHERE id = {person.id} FOR UPDATE", rename) as request:
        (statement,) = waiting(connection)

    assert statement.startswith("/* request_id=who-waits */ ")
    assert request.result().status_code == 200


def test_every_statement_of_an_ordinary_request_carries_its_id_and_no_hot_one_does(
    client: TestClient, person: Person, database: Engine
) -> None:
    # Listeners see a statement as those before them left it.
    with counted_queries(database) as ordinary:
        headers = {**person.headers, "X-Request-ID": "ordinary"}
        assert client.post("/posts", json={"title": "t", "content": "c"}, headers=headers).status_code == 201
        login = {"username": person.email, "password": PASSWORD}
        assert client.post("/login", data=login, headers={"X-Request-ID": "ordinary"}).status_code == 200
    with counted_queries(database) as hot:
        assert client.get("/posts", headers={**person.headers, "X-Request-ID": "hot"}).status_code == 200
        vote = {"post_id": 0, "vote_dir": 1}
        assert client.post("/vote", json=vote, headers={**person.headers, "X-Request-ID": "hot"}).status_code == 404

    assert len(ordinary) >= 4
    assert all(statement.startswith("/* request_id=ordinary */ ") for statement in ordinary)
    assert hot
    assert not any("request_id=" in statement for statement in hot)


@pytest.mark.parametrize("request_id", [None, "", "*/ DROP TABLE users --", "a b", "a\n", "%s", "x" * 65])
def test_nothing_but_a_wellformed_id_gets_into_sql(database: Engine, request_id: str | None) -> None:
    token = request_context.request_id.set(request_id)
    try:
        with counted_queries(database) as statements, database.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        request_context.request_id.reset(token)

    assert statements == ["SELECT 1"]


def test_ids_do_not_defeat_the_cache_of_compiled_statements(client: TestClient, database: Engine) -> None:
    client.get("/users/1")
    cached = len(database._compiled_cache or ())

    for number in range(5):
        client.get("/users/1", headers={"X-Request-ID": f"another-{number}"})

    assert len(database._compiled_cache or ()) == cached > 0


def test_a_slow_ordinary_request_is_logged_with_its_statements_and_without_what_was_sent(
    start_server: StartServer, database: Engine, connection: Connection, person: Person
) -> None:
    server = start_server(**SLOW)

    def rename() -> httpx2.Response:
        headers = {**person.headers, "X-Request-ID": "slow-one"}
        return httpx2.patch(f"{server.url}/users/me", json={"username": "canary-name"}, headers=headers, timeout=60)

    with held_up(database, connection, f"SELECT FROM users WHERE id = {person.id} FOR UPDATE", rename):
        time.sleep(0.4)  # It is this long that makes it slow.
    lines = lines_when(server, lambda lines: any(is_slow(line, "/users/me") for line in lines))

    (line,) = [line for line in lines if is_slow(line, "/users/me")]
    assert (line["level"], line["request_id"], line["status"]) == ("WARNING", "slow-one", 200)
    assert line["duration_ms"] >= 400
    assert max(float(found) for found in re.findall(r"([\d.]+)ms (?:SELECT|UPDATE)", line["message"])) >= 300
    assert "canary-name" not in server.log.read_text()


def test_a_slow_request_of_the_fast_path_is_logged_with_its_batch(
    start_server: StartServer, database: Engine, connection: Connection, person: Person
) -> None:
    server = start_server(**SLOW)

    def page() -> httpx2.Response:
        headers = {**person.headers, "X-Request-ID": "slow-page"}
        return httpx2.get(f"{server.url}/posts", headers=headers, timeout=60)

    with held_up(database, connection, "LOCK TABLE posts IN ACCESS EXCLUSIVE MODE", page):
        time.sleep(0.4)
    lines = lines_when(server, lambda lines: any(is_slow(line, "/posts") for line in lines))

    (line,) = [line for line in lines if is_slow(line, "/posts")]
    assert line["request_id"] == "slow-page"
    found = re.search(r"200 [\d.]+ms: waited [\d.]+ms for a batch of 1 in pages: ([\d.]+)ms \S", line["message"])
    assert found
    assert float(found[1]) >= 300


def test_a_quick_request_is_not_logged_as_slow(start_server: StartServer, person: Person) -> None:
    server = start_server(SLOW_REQUEST_MS="60000", LOG_FORMAT="json")

    httpx2.get(f"{server.url}/posts", headers={**person.headers, "X-Request-ID": "quick"})

    # The line of a slow request would come after that of every request.
    httpx2.get(f"{server.url}/posts", headers={"X-Request-ID": "the-next"})
    lines = lines_when(server, lambda lines: any(line.get("request_id") == "the-next" for line in lines))
    assert not [line for line in lines if line["logger"] == "app.slow"]


def is_slow(line: dict[str, Any], route: str) -> bool:
    return (line["logger"], line.get("route")) == ("app.slow", route)
