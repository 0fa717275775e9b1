"""Last-seen updates: at most one a minute for each valid session, and no request waits for them."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.api import batch_queues, last_seen
from app.config import get_settings
from app.security import access_tokens
from app.services import session
from tests.fixtures import Person, counted_queries
from tests.races.waiting import wait_until

MINUTE = timedelta(minutes=1)
RECENT = "SELECT last_seen_at > now() - interval '10 seconds' FROM sessions WHERE id = :id"
IN_DAYS = "SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM sessions WHERE id = :id"


@pytest.fixture
def unseen(connection: Connection, person: Person) -> dict[str, str]:
    """The headers of a user who was last seen an hour ago, with a token of that age."""
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '1 hour'"))
    token = access_tokens.verify(person.token)
    access_tokens._remembered["access"][person.token] = access_tokens.AccessToken(
        token.user_id, token.session_id, token.expires_at, issued_at=token.issued_at - 3600
    )
    return person.headers


def updates(statements: list[str]) -> int:
    return sum("UPDATE sessions SET last_seen_at" in statement for statement in statements)


@pytest.mark.parametrize("path", ["/posts", "/users/me", "/users/{id}"])
def test_requests_update_last_seen(
    client: TestClient, connection: Connection, person: Person, unseen: dict[str, str], path: str
) -> None:
    assert client.get(path.replace("{id}", str(person.id)), headers=unseen).status_code == 200

    wait_until(connection, RECENT, id=person.session_id)
    assert connection.scalar(text(IN_DAYS), {"id": person.session_id}) == 14


def test_a_session_is_updated_at_most_once_a_minute(
    client: TestClient, connection: Connection, database: Engine, person: Person, unseen: dict[str, str]
) -> None:
    with counted_queries(database) as statements:
        for _ in range(5):
            assert client.get("/posts", headers=unseen).status_code == 200
        wait_until(connection, RECENT, id=person.session_id)
        client.get("/posts", headers=unseen)
    assert updates(statements) == 1

    last_seen._updated_at[person.session_id] -= 61
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '61 seconds'"))
    client.get("/posts", headers=unseen)
    wait_until(connection, RECENT, id=person.session_id)


def test_no_update_follows_a_sign_in_or_refresh(client: TestClient, database: Engine, person: Person) -> None:
    with counted_queries(database) as statements:
        for _ in range(5):
            assert client.get("/posts", headers=person.headers).status_code == 200
        asyncio.run(asyncio.sleep(0.2))  # Long enough for a statement, had there been one.

    assert updates(statements) == 0


class JumpedBack:
    """A wall clock that was set back by two hours. The monotonic clock goes on."""

    monotonic = staticmethod(time.monotonic)
    perf_counter = staticmethod(time.perf_counter)

    @staticmethod
    def time() -> float:
        return time.time() - 7200


def test_clock_that_jumped_back_does_not_stop_it(
    client: TestClient, connection: Connection, person: Person, unseen: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/posts", headers=unseen)
    wait_until(connection, RECENT, id=person.session_id)

    monkeypatch.setattr(last_seen, "time", JumpedBack)
    last_seen._updated_at[person.session_id] -= 61
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '61 seconds'"))
    client.get("/posts", headers=unseen)

    wait_until(connection, RECENT, id=person.session_id)


def test_session_with_a_token_from_the_future_is_updated_once(
    client: TestClient, connection: Connection, database: Engine, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '1 hour'"))
    monkeypatch.setattr(last_seen, "time", JumpedBack)

    with counted_queries(database) as statements:
        for _ in range(3):
            assert client.get("/posts", headers=person.headers).status_code == 200
        wait_until(connection, RECENT, id=person.session_id)

    assert updates(statements) == 1


@pytest.mark.skipif(get_settings().max_batch < 20, reason="MAX_BATCH is set too low")
def test_many_sessions_are_updated_in_one_statement(
    database: Engine, connection: Connection, make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(20)]
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '1 hour'"))

    async def be_seen() -> None:
        for person in people:
            last_seen.note_seen(access_tokens.AccessToken(person.id, person.session_id, int(time.time()) + 600))
        await asyncio.wait_for(asyncio.gather(*last_seen._tasks), 10)

    with counted_queries(database) as statements:
        asyncio.run(be_seen())

    assert updates(statements) == len(statements) == 1
    assert connection.scalar(text("SELECT bool_and(last_seen_at > now() - interval '10 seconds') FROM sessions"))


@pytest.fixture
def see(connection: Connection) -> Callable[..., None]:
    def see(*session_ids: int) -> None:
        session.see(connection, session_ids, MINUTE)

    return see


def test_last_seen_updates_revive_no_session_and_never_pass_the_absolute_end(
    connection: Connection, person: Person, see: Callable[..., None]
) -> None:
    def change(assignment: str) -> None:
        connection.execute(text(f"UPDATE sessions SET last_seen_at = now() - interval '1 hour', {assignment}"))

    change("expires_at = now() - interval '1 second'")
    see(person.session_id)
    assert connection.scalar(text("SELECT expires_at < now() FROM sessions"))

    change("expires_at = now() + interval '1 hour', ends_at = now() + interval '2 days'")
    see(person.session_id, person.session_id + 1_000_000)
    assert connection.scalar(text(IN_DAYS), {"id": person.session_id}) == 2

    change("kind = 'api_key', expires_at = 'infinity', ends_at = 'infinity'")
    see(person.session_id)
    assert connection.scalar(text("SELECT expires_at = 'infinity' FROM sessions"))
    assert connection.scalar(text(RECENT), {"id": person.session_id})


def test_time_in_the_future_from_before_the_clock_of_the_database_jumped_back_is_replaced(
    connection: Connection, person: Person, see: Callable[..., None]
) -> None:
    connection.execute(text("UPDATE sessions SET last_seen_at = now() + interval '1 hour'"))

    see(person.session_id)

    assert connection.scalar(text("SELECT last_seen_at <= now() FROM sessions"))


def test_the_second_of_two_concurrent_updates_writes_nothing(
    connection: Connection, person: Person, see: Callable[..., None]
) -> None:
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '1 hour'"))
    see(person.session_id)
    before = connection.scalar(text("SELECT xmin::text FROM sessions"))

    see(person.session_id)

    assert connection.scalar(text("SELECT xmin::text FROM sessions")) == before


def test_locked_rows_are_skipped_without_waiting(
    database: Engine, connection: Connection, make_person: Callable[..., Person]
) -> None:
    locked, free = make_person(), make_person()
    connection.execute(text("UPDATE sessions SET last_seen_at = now() - interval '1 hour'"))

    with database.begin() as holding, database.begin() as telling:
        holding.execute(text("SELECT FROM sessions WHERE id = :id FOR UPDATE"), {"id": locked.session_id})
        telling.execute(text("SET LOCAL lock_timeout = '2s'"))
        session.see(telling, [locked.session_id, free.session_id], MINUTE)

    assert not connection.scalar(text(RECENT), {"id": locked.session_id})
    assert connection.scalar(text(RECENT), {"id": free.session_id})


def test_the_cache_of_updates_is_bounded(monkeypatch: pytest.MonkeyPatch, database: Engine) -> None:  # noqa: ARG001
    monkeypatch.setattr(last_seen, "MAX_SEEN_REMEMBERED", 5)
    last_seen._updated_at.clear()

    async def be_seen() -> None:
        for number in range(20):
            last_seen.note_seen(access_tokens.AccessToken(1, 10**12 + number, int(time.time()) + 600))
        await asyncio.wait_for(asyncio.gather(*last_seen._tasks), 10)

    asyncio.run(be_seen())

    assert [*last_seen._updated_at] == [10**12 + number for number in range(15, 20)]


def test_a_failed_update_fails_no_request(
    client: TestClient, unseen: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_queues.last_seen_updates.cache_clear()
    monkeypatch.setattr(session, "_SEE", text("SELECT 1 / 0"))

    assert client.get("/posts", headers=unseen).status_code == 200

    deadline = time.monotonic() + 10
    while "failed to update last_seen_at" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
