"""Log lines: one for each event of any text, JSON or plain, with the id of the request."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx2
import pytest

from app.config import Settings
from app.observability import log_format as logs
from app.observability import request_context
from tests.fixtures import PASSWORD, Person, Server

PRODUCTION = {"ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10"}
TIMEOUT_SECONDS = 60
# What Python, a terminal or a log collector may take for the end of a line, and what moves a terminal's cursor.
LINE_ENDS = [chr(code) for code in range(sys.maxunicode) if len(f"a{chr(code)}b".splitlines()) > 1]
HOSTILE = [*LINE_ENDS, "\x1b[2J", "\x00", "\x7f", "\x9b", "\r\n"]

StartServer = Callable[..., Server]


def emitted(formatter: logging.Formatter, message: str, *arguments: object, **details: Any) -> str:
    """Return what a handler with our filter writes for a record."""
    level, exc_info = details.pop("level", logging.INFO), details.pop("exc_info", None)
    record = logging.getLogger("app.test").makeRecord(
        "app.test", level, "file", 1, message, arguments, exc_info, extra=details
    )
    assert logs.Request().filter(record)
    return formatter.format(record)


def raised(words: str) -> Any:
    try:
        raise ValueError(words)  # noqa: TRY301 - a traceback is wanted.
    except ValueError:
        return sys.exc_info()


@pytest.fixture
def _in_a_request() -> Any:
    token = request_context.request_id.set("the-request")
    yield
    request_context.request_id.reset(token)


@pytest.mark.usefixtures("_in_a_request")
def test_a_line_of_json_says_when_what_where_and_for_whom() -> None:
    line = json.loads(emitted(logs.Json(), "%s of %d", "some", 3, status=200, path="/é", user_id=None))

    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "INFO",
        "logger": "app.test",
        "message": "some of 3",
        "request_id": "the-request",
        "status": 200,
        "path": "/é",
    }


def test_lines_outside_of_a_request_have_no_id() -> None:
    assert "request_id" not in json.loads(emitted(logs.Json(), "started"))
    assert emitted(logs.Text(), "started") == "INFO app.test started"


@pytest.mark.usefixtures("_in_a_request")
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_text_of_clients_cannot_begin_a_line_or_control_a_terminal(hostile: str) -> None:
    forged = f"{hostile}ERROR app.test forged{hostile}"
    exc_info = raised(forged)

    line = emitted(logs.Json(), "said %s", forged, exc_info=exc_info, path=forged)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["path"] == forged
    assert not set(line) & {*LINE_ENDS, "\x1b", "\x00", "\x7f", "\x9b"}

    first, *others = emitted(logs.Text(), "said %s", forged, exc_info=exc_info).splitlines()
    assert first.startswith("INFO app.test said ")
    assert first.endswith(" the-request")
    assert others[0] == "    Traceback (most recent call last):"
    assert all(other.startswith("    ") for other in others)
    assert not set("\n".join([first, *others])) & {*LINE_ENDS, "\x1b", "\x00", "\x7f", "\x9b"} - {"\n"}


def test_values_that_cannot_be_json_are_logged_all_the_same() -> None:
    line = json.loads(
        emitted(logs.Json(), "%s", b"\xff", what={1, 2}, surrogate="\ud800", raw=b"\xff", bad=float("nan"))
    )

    assert line["message"] == "b'\\xff'"
    assert line["surrogate"] == "\ud800"


@pytest.mark.parametrize(
    ("environment", "log_format", "expected"),
    [
        ("development", None, "text"),
        ("production", None, "json"),
        ("development", "json", "json"),
        ("production", "text", "text"),
    ],
)
def test_the_log_format_is_text_in_development_and_json_in_production_by_default(
    environment: str, log_format: str | None, expected: str
) -> None:
    settings = Settings.model_validate(
        {
            "environment": environment,
            "log_format": log_format,
            "secret_key": "0123456789abcdef" * 2,
            "password_hash_rounds": 10,
            "database_url": "postgres://u@h/d",
        }
    )

    assert logs.config(settings)["handlers"]["stderr"]["formatter"] == expected


def lines_when(server: Server, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Return all lines of the log once the condition holds, because lines come a moment after answers."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        whole = server.log.read_text().rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.split("\n") if line]
        if condition(lines):
            return lines
        time.sleep(0.05)
    raise AssertionError(f"the line did not come: {server.log.read_text()[-3000:]}")


def test_in_production_every_line_of_every_worker_is_json_with_its_request(
    start_server: StartServer, person: Person
) -> None:
    server = start_server(WORKERS="2", **PRODUCTION)
    for number in range(20):
        headers = {**person.headers, "X-Request-ID": f"request-{number}"}
        assert httpx2.get(f"{server.url}/posts/1{'%0aERROR%20forged' * (number % 2)}", headers=headers).is_error
    login = {"username": person.email, "password": PASSWORD}
    assert httpx2.post(f"{server.url}/login", data=login, headers={"X-Request-ID": "login"}).status_code == 200

    wanted = {"login", *(f"request-{number}" for number in range(20))}
    lines = lines_when(server, lambda lines: wanted <= {line.get("request_id") for line in lines})

    by_id = {line["request_id"]: line for line in lines if "request_id" in line}
    assert {
        key: by_id["request-0"][key] for key in ("level", "logger", "method", "path", "route", "status", "client")
    } == {
        "level": "INFO",
        "logger": "app.access",
        "method": "GET",
        "path": "/posts/1",
        "route": "/posts/{id}",
        "status": 404,
        "client": "127.0.0.1",
    }
    assert by_id["request-0"]["duration_ms"] > 0
    assert by_id["request-1"]["path"] == "/posts/1\nERROR forged"
    assert any(line["message"].startswith("serving on ") for line in lines)
    everything = server.log.read_text()
    assert PASSWORD not in everything
    assert person.token not in everything
    assert person.email not in everything


def test_in_text_no_path_forges_a_line(start_server: StartServer) -> None:
    server = start_server()
    httpx2.get(f"{server.url}/no%0d%0aERROR%20app.access%20forged%e2%80%a8x", headers={"X-Request-ID": "log-me"})

    deadline = time.monotonic() + TIMEOUT_SECONDS
    while "log-me" not in server.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)

    (line,) = [line for line in server.log.read_text().splitlines() if "forged" in line]
    assert line.startswith("INFO app.access GET '/no\\r\\nERROR app.access forged\\u2028x' 404 ")
    assert line.endswith("ms log-me")
