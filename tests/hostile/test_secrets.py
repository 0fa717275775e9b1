"""Passwords, tokens and e-mail addresses are in no log line, no error and no header.

The log is a real server's, at its most talkative; the canaries go through every operation, and through failures of
every kind: refused by us, refused by PostgreSQL, and bugs.
"""

import io
import json
import logging
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app.middleware import problem_details
from tests.fixtures import Person, Server
from tests.hostile.corpus import DOCUMENT, FORM, Operation

PASSWORD = "canary correct horse"
CANARY = re.compile("canary|Canary")
TIMEOUT_SECONDS = 30
# PostgreSQL quotes its input in message, detail and hint, as it does for a violated constraint.
TELL_TALE = """
    CREATE FUNCTION tell_tale() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'cannot take %', NEW USING DETAIL = 'Failing row contains ' || NEW::text, HINT = NEW::text;
    END $$
"""
TABLES = ("users", "sessions", "posts", "votes")


@pytest.fixture
def listener(start_server: Callable[..., Server]) -> Iterator["Listener"]:
    with Listener(start_server(LOG_LEVEL="debug", RATE_LIMITS_ENABLED="false")) as listener:
        yield listener


@contextmanager
def failing(database: Engine, *statements: str, undo: str) -> Iterator[None]:
    with database.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    try:
        yield
    finally:
        with database.begin() as connection:
            connection.execute(text(undo))


class Listener(httpx2.Client):
    """A client that searches answers for canaries: errors and headers for all, others for the password."""

    def __init__(self, server: Server) -> None:
        super().__init__(base_url=server.url, timeout=TIMEOUT_SECONDS, event_hooks={"response": [self.look]})
        self.statuses: set[int] = set()

    def look(self, response: httpx2.Response) -> None:
        self.statuses.add(response.status_code)
        assert not CANARY.search(str(response.headers))
        body = text_of(response)
        assert PASSWORD not in body
        assert response.status_code < 400 or not CANARY.search(body), body


def text_of(response: httpx2.Response) -> str:
    """Return the body as text: of a ZIP, that of its files."""
    content = response.read()
    if response.headers.get("content-type") != "application/zip":
        return content.decode()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return "".join(archive.read(name).decode() for name in archive.namelist())


def assert_log_is_silent(folder: Path, listener: Listener) -> None:
    """Assert that no canary is in the log, read to its end, because lines come after the answers."""
    listener.get("/posts", headers={"X-Request-ID": "the-last-request"})
    deadline = time.monotonic() + TIMEOUT_SECONDS
    (path,) = folder.glob("server-*.log")
    while "the-last-request" not in (log := path.read_text()):
        assert time.monotonic() < deadline, log[-2000:]
        time.sleep(0.05)
    assert not (found := CANARY.search(log)), log[max(0, found.start() - 1000) : found.end() + 200]


def requests(person: Person) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Call every operation of the document with canaries in every text, first valid, then invalid."""
    for template, item in DOCUMENT["paths"].items():
        for method, described in item.items():
            operation = Operation(method.upper(), template, described)
            address = re.sub(r"\{[^}]+\}", str(person.id), template)
            query = "&".join(f"{name}=canary" for name in operation.parameters("query"))
            for malformed in (False, True):
                fields = {
                    name: ["canary"] if malformed else f"canary.{method}@canary.example" if "email" in name
                    else "canary-a-text" if isinstance(good, str) else good
                    for name, good in operation.fields().items()
                }  # fmt: skip
                body: dict[str, object] = {}
                if operation.media_type == FORM:
                    body = {"data": fields}
                elif operation.media_type:
                    body = {"json": fields}
                yield operation.method, address + ("?" + query if malformed else ""), body


def test_no_operation_reveals_its_input(
    listener: Listener, tmp_path: Path, person: Person, make_person: Callable[..., Person]
) -> None:
    for method, address, body in requests(person):
        caller = make_person(email=f"Canary.{time.monotonic_ns()}@canary.example")
        for headers in ({}, {"Authorization": "Bearer canary.canary.canary"}, caller.headers):
            sent = headers | {
                "X-API-Key": "canary",
                "Cookie": "session=canary; __Host-session=canary",
                "If-Match": '"canary"',
            }
            listener.request(method, address, headers=sent, **body)  # type: ignore[arg-type]

    assert {200, 201, 401, 403, 422} <= listener.statuses
    assert max(listener.statuses) < 500
    assert_log_is_silent(tmp_path, listener)


def test_no_refusal_reveals_its_input(listener: Listener, tmp_path: Path, connection: Connection) -> None:
    account = {"email": "Canary@canary.example", "password": PASSWORD, "username": "canary"}
    assert listener.post("/users", json=account).status_code == 201
    for again in (account, account | {"email": "other@canary.example"}):
        assert listener.post("/users", json=again).status_code == 409
    wrong = {"username": "canary@canary.example", "password": PASSWORD + "!"}
    assert listener.post("/login", data=wrong).status_code == 403
    signed_in = listener.post("/login", data=wrong | {"password": PASSWORD})
    token = signed_in.json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert listener.get("/users/me", headers=headers).json()["email"] == account["email"]
    taken = {"email": "canary.2@canary.example", "password": PASSWORD, "current_password": PASSWORD + "!"}
    assert listener.patch("/users/me", json=taken, headers=headers).status_code == 403

    assert_log_is_silent(tmp_path, listener)
    (path,) = tmp_path.glob("server-*.log")
    secrets = [token, token.split(".")[1], connection.scalar(text("SELECT password_hash FROM users"))]
    assert not [secret for secret in secrets if secret in path.read_text()]


def test_no_internal_error_reveals_its_input(
    listener: Listener, tmp_path: Path, database: Engine, person: Person, make_post: Callable[..., int]
) -> None:
    post_id = make_post(person)
    account = {"email": "canary@canary.example", "password": PASSWORD, "username": "canary"}
    post = {"title": "canary", "content": "canary"}
    login = {"username": person.email, "password": "correct horse battery"}

    def everything_fails(status: int) -> None:
        assert listener.post("/users", json=account).status_code == status
        assert listener.post("/posts", json=post, headers=person.headers).status_code == status

    triggers = [
        f"CREATE TRIGGER tell_tale BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION tell_tale()"
        for table in TABLES
    ]
    with failing(database, TELL_TALE, *triggers, undo="DROP FUNCTION tell_tale() CASCADE"):
        everything_fails(500)
        assert listener.post("/login", data=login).status_code == 500
        assert listener.put(f"/posts/{post_id}/vote", headers=person.headers).status_code == 500
        renamed = listener.patch("/users/me", json={"username": "canary"}, headers=person.headers)
        assert renamed.status_code == 500

    each = "ALTER TABLE users {0}; ALTER TABLE posts {0}".format
    with failing(database, each("ADD CONSTRAINT odd CHECK (id < 0) NOT VALID"), undo=each("DROP CONSTRAINT odd")):
        everything_fails(409)
    required = (each("ADD COLUMN odd text NOT NULL DEFAULT ''"), each("ALTER COLUMN odd DROP DEFAULT"))
    with failing(database, *required, undo=each("DROP COLUMN odd")):
        everything_fails(409)

    assert_log_is_silent(tmp_path, listener)
    (path,) = tmp_path.glob("server-*.log")
    log = path.read_text()
    # Yet it has what an operator needs: the kind of error, the constraint, the place.
    assert "psycopg2.errors.RaiseException P0001" in log
    for constraint in ("odd of users", "odd of posts", "NOT NULL of users.odd", "NOT NULL of posts.odd"):
        assert f"forbids a write: {constraint}" in log
    assert "in sign_up" in log


def test_an_exception_is_logged_with_its_place_and_without_its_input(caplog: pytest.LogCaptureFixture) -> None:
    def stumble() -> None:
        try:
            json.loads("canary")
        except ValueError as error:
            raise KeyError("canary") from error

    with caplog.at_level(logging.DEBUG):
        try:
            stumble()
        except KeyError as error:
            problem_details.unexpected({"type": "http"}, error)

    assert "unexpected KeyError" in caplog.text
    assert "in stumble" in caplog.text
    assert "canary" not in caplog.text.replace('"canary"', "")  # But for the lines of code above.
