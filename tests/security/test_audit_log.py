"""The audit log: rows written with the change, and log lines that cannot be forged."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.database.sessions import transaction
from app.models.security_event import Event
from app.observability import log_format, request_context
from app.security import audit_log
from tests.fixtures import PASSWORD, Person, Server

HOSTILE = [
    "a\r\nINFO app.audit {\"event\": \"signed_in\"}", "\n\n", "\r", "\x0b\x0c", "\x1c\x1d\x1e", "\x85", "\u2028\u2029",
    "\x1b[2K\x1b[1A", "\0", "\"}{\"", "\\n", "\ud800", "\N{RIGHT-TO-LEFT OVERRIDE}", "x" * 100_000,
]  # fmt: skip


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Parse the lines of the audit log."""
    caplog.set_level(logging.INFO, "app.audit")
    return lambda: [json.loads(record.message) for record in caplog.records if record.name == "app.audit"]


Lines = Callable[[], list[dict[str, Any]]]


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(text("SELECT user_id, event, details FROM security_events ORDER BY id"))
    return [tuple(row) for row in rows]


@pytest.fixture
def _request() -> Iterator[None]:
    """Set the context of a request."""
    tokens = [
        (request_context.request_id, request_context.request_id.set("abc")),
        (request_context.user_agent, request_context.user_agent.set("Lynx")),
    ]
    yield
    for variable, token in tokens:
        variable.reset(token)


@pytest.mark.usefixtures("_request")
def test_an_event_is_a_row_and_a_line_with_what_is_known_of_the_request(
    connection: Connection, person: Person, lines: Lines
) -> None:
    with transaction() as db:
        audit_log.record(db, Event.SIGNED_IN, person.id, session_id=person.session_id)
        assert lines() == [], "nothing has happened before the commit"

    assert stored(connection) == [(person.id, "signed_in", {"session_id": person.session_id})]
    (line,) = lines()
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "event": "signed_in", "user_id": person.id, "request_id": "abc", "address": None, "user_agent": "Lynx",
        "session_id": person.session_id,
    }  # fmt: skip


def test_rolled_back_events_are_never_reported_even_by_the_next_commit(
    connection: Connection, person: Person, lines: Lines
) -> None:
    with Session(connection.engine) as db:
        audit_log.record(db, Event.SIGNED_IN, person.id)
        db.rollback()
        audit_log.record(db, Event.SIGNED_OUT, person.id)
        db.commit()

    assert stored(connection) == [(person.id, "signed_out", {})]
    assert [line["event"] for line in lines()] == ["signed_out"]


def test_a_connection_writes_the_row_too(connection: Connection, person: Person, lines: Lines) -> None:
    audit_log.record(connection, Event.ROLE_CHANGED, person.id, role="admin")

    assert stored(connection) == [(person.id, "role_changed", {"role": "admin"})]
    assert [line["role"] for line in lines()] == ["admin"]


@pytest.mark.parametrize("user_id", [None, 2**62])
def test_events_without_an_account_are_in_the_log_only(
    connection: Connection, lines: Lines, user_id: int | None
) -> None:
    with transaction() as db:
        audit_log.record(db, Event.ACCOUNT_DELETED, user_id)
    audit_log.record(None, Event.SIGN_IN_FAILED, user_id)

    assert stored(connection) == []
    assert [line["event"] for line in lines()] == ["account_deleted", "sign_in_failed"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_a_client_sends_begins_a_line_or_breaks_a_row(
    connection: Connection, person: Person, caplog: pytest.LogCaptureFixture, hostile: str
) -> None:
    caplog.set_level(logging.INFO, "app.audit")
    token = request_context.user_agent.set(hostile)
    try:
        with transaction() as db:
            audit_log.record(db, Event.SIGN_IN_FAILED, person.id, name=hostile)
    finally:
        request_context.user_agent.reset(token)

    (record,) = (record for record in caplog.records if record.name == "app.audit")
    assert record.message.isascii()
    assert record.message.isprintable()
    assert len(record.message) < 10_000
    assert json.loads(record.message)["event"] == "sign_in_failed"
    assert len(stored(connection)) == 1


@pytest.mark.parametrize("is_known", [True, False])
def test_an_event_written_separately_survives_a_failed_request(
    database: Engine, connection: Connection, person: Person, lines: Lines, *, is_known: bool
) -> None:
    from tests.fixtures import counted_queries

    with counted_queries(database) as statements:
        audit_log.record_apart(Event.SIGN_IN_FAILED, person.id if is_known else None)
        assert [line["event"] for line in lines()] == ["sign_in_failed"], "the log has it at once"
        audit_log._waiting().join()

    assert stored(connection) == ([(person.id, "sign_in_failed", {})] if is_known else [])
    assert len(statements) == 1, "the same work, whether or not there is an account"


def test_events_written_separately_are_bounded_and_never_fail_their_request(
    connection: Connection, person: Person, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MAX_WAITING", 3)
    audit_log._waiting.cache_clear()
    with connection.engine.begin() as locking:
        locking.execute(text("LOCK TABLE security_events IN ACCESS EXCLUSIVE MODE"))
        for _ in range(7):
            audit_log.record_apart(Event.SIGN_IN_FAILED, person.id)
        assert "in the log only" in caplog.text
    audit_log._waiting().join()

    audit_log._waiting.cache_clear()
    kept = 7 - caplog.text.count("in the log only")
    assert 3 <= kept <= 4, "three wait, and one may have been taken up"
    assert len(stored(connection)) == kept


def test_a_refused_access_to_another_users_resource_is_logged(
    client: TestClient, person: Person, make_person: Callable[..., Person], lines: Lines, connection: Connection
) -> None:
    stranger = make_person()

    response = client.delete(f"/users/{person.id}", headers=stranger.headers | {"X-Request-ID": "mine"})

    assert response.status_code == 403
    (line,) = lines()
    assert (line["event"], line["user_id"], line["request_id"]) == ("not_authorized", stranger.id, "mine")
    assert (line["method"], line["path"]) == ("DELETE", f"/users/{person.id}")
    assert stored(connection) == []


def test_the_log_has_every_event_however_quiet_it_is_set() -> None:
    from app.config import get_settings

    loggers = log_format.config(get_settings().model_copy(update={"log_level": "error"}))["loggers"]

    assert loggers["app.audit"] == {"level": "INFO"}


def test_a_server_logs_hostile_clients_in_one_line_each_without_secrets(
    start_server: Callable[..., Server], person: Person, tmp_path: Path
) -> None:
    server = start_server(LOG_LEVEL="error", MAIL_ENABLED="true")
    agent = 'Mozilla \x85INFO app.audit {"forged": true}'.encode("latin-1")
    with httpx2.Client(base_url=server.url, headers={b"User-Agent": agent}) as browser:
        wanted = {"password": "canary password 1", "current_password": PASSWORD, "email": "canary@example.com"}
        changed = browser.patch("/users/me", json=wanted, headers=person.headers)
        assert changed.status_code == 200

    (log,) = tmp_path.glob("server-*.log")
    wait_until(lambda: "email_changed" in log.read_text())
    recorded = [line for line in log.read_text().splitlines() if "app.audit" in line]
    assert all(line.startswith("INFO app.audit {") for line in recorded)
    # The id of the request, which ends the line, is in the object too.
    objects = [json.loads(line.partition("audit ")[2].rpartition(" ")[0]) for line in recorded]
    assert [event["event"] for event in objects].count("email_changed") == 1
    assert "canary" not in "".join(recorded)
    assert PASSWORD not in "".join(recorded)
    assert person.token not in "".join(recorded)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
