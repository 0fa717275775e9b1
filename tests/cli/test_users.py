"""`python -m app user …`: changes, output and refusals."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pyotp
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.cli import commands
from tests.conftest import ROOT
from tests.fixtures import PASSWORD, Person

NEW_PASSWORD = "another analytical engine"


@dataclass(frozen=True)
class Done:
    """The exit status and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `python -m app user …` in this process: `user("create", "ada@example.com", stdin="…")`."""

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["python -m app", "user", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            commands.main()
        said = capsys.readouterr()
        if isinstance(end.value.code, str):  # What Python does with it as it ends.
            return Done(1, said.out, f"{said.err}{end.value.code}\n")
        return Done(end.value.code or 0, said.out, said.err)

    return run


User = Callable[..., Done]


def assert_refused(done: Done, message: str, code: int = 1) -> None:
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr == f"error: {message}\n"


def account(connection: Connection, name: str) -> tuple[object, ...]:
    row = connection.execute(
        text("SELECT email, role, is_active FROM users WHERE username = :name"), {"name": name}
    ).one()
    return tuple(row)


def login(client: TestClient, name: str, password: str) -> int:
    return client.post("/login", data={"username": name, "password": password}).status_code


def test_help_names_every_command_and_no_option_takes_a_password(user: User) -> None:
    overview = user("--help")

    assert overview.returncode == 0
    for command in (
        "create",
        "promote",
        "disable",
        "enable",
        "ban",
        "unban",
        "reset-password",
        "disable-totp",
        "sessions",
    ):
        assert re.search(rf"^\W*{command}\s+\S", overview.stdout, re.MULTILINE)
        own = user(command, "--help")
        assert own.returncode == 0
        assert not re.search(r"--password\b", own.stdout)


def test_account_is_made_with_the_password_from_standard_input(
    user: User, client: TestClient, connection: Connection
) -> None:
    done = user("create", "Ada@Example.com", "--username", "ada", "--role", "admin", stdin=f"{NEW_PASSWORD}\nmore\n")

    assert (done.returncode, done.stderr) == (0, "")
    user_id = connection.scalar(text("SELECT id FROM users"))
    assert done.stdout == f"ada has the id {user_id} and is an admin\n"
    assert account(connection, "ada") == ("Ada@Example.com", "admin", True)
    assert login(client, "ada@example.com", NEW_PASSWORD) == 200


def test_password_that_is_made_is_shown_once_and_works(user: User, client: TestClient, connection: Connection) -> None:
    done = user("create", "ada@example.com", "--generate")

    assert done.returncode == 0
    made = re.findall(r"The password is: (\S{20,})\n", done.stdout)
    assert len(made) == 1
    assert login(client, "ada@example.com", made[0]) == 200
    assert connection.scalar(text("SELECT role FROM users")) == "user"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["ada@example.com"], PASSWORD, "A user with this email already exists"),
        (["new@example.com", "--username", "Ada"], PASSWORD, "This username is taken"),
        (["not an address"], PASSWORD, "email: value is not a valid email address"),
        (["new@example.com"], "short", "password: String should have at least 8 characters"),
        (["new@example.com"], "", "password: String should have at least 8 characters"),
        (["new@example.com", "--username", "user1"], PASSWORD, "username: username should consist of "),
    ],
)
def test_account_that_cannot_be_made_is_refused_in_one_line(
    user: User,
    connection: Connection,
    make_person: Callable[..., Person],
    arguments: list[str],
    stdin: str,
    message: str,
) -> None:
    make_person(email="Ada@example.com", username="ada")

    done = user("create", *arguments, stdin=stdin)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert connection.scalar(text("SELECT count(*) FROM users")) == 1


@pytest.mark.parametrize("name", ["ada", "ADA", "Ada@example.com", "ada@EXAMPLE.com"])
def test_role_is_given_by_any_spelling_of_either_name(
    user: User, connection: Connection, make_person: Callable[..., Person], name: str
) -> None:
    make_person(email="ada@example.com", username="ada")

    for role, said in (("moderator", "a moderator"), ("admin", "an admin"), ("user", "a user")):
        done = user("promote", name, role)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"ada is {said}\n", "")
        assert account(connection, "ada")[1] == role


def test_account_that_is_disabled_is_signed_out_and_kept_out_until_it_is_enabled(
    user: User, client: TestClient, connection: Connection, make_person: Callable[..., Person]
) -> None:
    ada = make_person(username="ada", role="admin")
    assert client.get("/posts", headers=ada.headers).status_code == 200

    done = user("disable", "ada")

    assert (done.returncode, done.stdout) == (0, "ada is disabled and signed out everywhere\n")
    assert client.get("/posts", headers=ada.headers).status_code == 401
    assert login(client, "ada", PASSWORD) == 403
    assert connection.scalar(text("SELECT count(*) FROM sessions")) == 0
    assert user("enable", "ada").stdout == "ada can sign in\n"
    assert client.get("/posts", headers=ada.headers).status_code == 401, "what was ended stays so"
    assert login(client, "ada", PASSWORD) == 200


def test_account_that_is_banned_is_signed_out_and_kept_out_until_it_is_unbanned(
    user: User, client: TestClient, connection: Connection, make_person: Callable[..., Person]
) -> None:
    ada = make_person(username="ada", role="admin")

    done = user("ban", "ada", "--reason", "Spam", "--until", "2099-01-31T12:00:00Z")

    assert (done.returncode, done.stdout) == (0, "ada is banned until 2099-01-31 12:00 UTC and signed out everywhere\n")
    assert client.get("/posts", headers=ada.headers).status_code == 401
    assert login(client, "ada", PASSWORD) == 403
    assert connection.scalar(text("SELECT count(*) FROM sessions")) == 0
    assert user("unban", "ada").stdout == "ada is not banned\n"
    assert login(client, "ada", PASSWORD) == 200
    log = connection.execute(text("SELECT moderator_id, action, user_id, reason FROM moderation_log ORDER BY id")).all()
    assert log == [(None, "ban", ada.id, "Spam"), (None, "unban", ada.id, None)]


def test_ban_with_an_invalid_end_is_refused(user: User, make_person: Callable[..., Person]) -> None:
    make_person(username="ada")
    past = "the time should be in the future, within 100 years"
    assert_refused(user("ban", "ada", "--reason", "Spam", "--until", "2020-01-01"), f"until: {past}")


def test_password_is_reset_and_every_session_ended(
    user: User, client: TestClient, connection: Connection, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(username="ada"), make_person()

    done = user("reset-password", "ada", stdin=f"{NEW_PASSWORD}\n")

    assert (done.returncode, done.stdout) == (0, "ada has a new password and is signed out everywhere\n")
    assert connection.scalars(text("SELECT user_id FROM sessions")).all() == [bob.id]
    assert client.get("/posts", headers=ada.headers).status_code == 401
    assert login(client, "ada", PASSWORD) == 403
    assert login(client, "ada", NEW_PASSWORD) == 200
    assert_refused(user("reset-password", "ada", stdin="short\n"), "password: String should have at least 8 characters")
    assert login(client, "ada", NEW_PASSWORD) == 200


def test_lost_second_factor_is_removed_and_logged_and_nothing_else_changes(
    user: User,
    client: TestClient,
    connection: Connection,
    make_person: Callable[..., Person],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ada, bob = make_person(username="ada"), make_person(username="bob")
    for person in (ada, bob):
        begun = client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)
        code = pyotp.TOTP(begun.json()["secret"]).now()
        assert client.post("/users/me/totp/confirm", json={"code": code}, headers=person.headers).status_code == 200
    assert login(client, "ada", PASSWORD) == 403
    caplog.set_level(logging.INFO, logger="app.audit")

    done = user("disable-totp", "ada")

    assert (done.returncode, done.stdout, done.stderr) == (0, "ada signs in with the password alone\n", "")
    assert login(client, "ada", PASSWORD) == 200
    assert login(client, "bob", PASSWORD) == 403
    assert connection.scalars(text("SELECT DISTINCT user_id FROM recovery_codes")).all() == [bob.id]
    assert client.get("/posts", headers=ada.headers).status_code == 200
    disabled = [json.loads(record.message) for record in caplog.records if '"totp_disabled"' in record.message]
    assert [(event["user_id"], event["by"]) for event in disabled] == [(ada.id, "operator")]
    (shown,) = [
        event
        for event in client.get("/users/me/security-events", headers=ada.headers).json()
        if event["event"] == "totp_disabled"
    ]
    assert shown["details"] == {"by": "operator"}
    assert_refused(user("disable-totp", "ada"), "ada has no second factor")


def test_unconfirmed_second_factor_does_not_count(user: User, client: TestClient, person: Person) -> None:
    client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)

    assert_refused(user("disable-totp", person.email), f"user{person.id} has no second factor")


def test_sessions_are_listed_without_control_characters_and_ended(
    user: User, client: TestClient, connection: Connection, make_person: Callable[..., Person]
) -> None:
    ada, bob = make_person(username="ada"), make_person()
    second = connection.scalar(
        text("""
            INSERT INTO sessions (user_id, expires_at, user_agent, address)
            VALUES (:id, now() + interval '1 day', E'Moth/1 \\x1b[2J\\n', '192.0.2.1'),
                (:id, now() - interval '1 day', 'ended', NULL)
            RETURNING id
        """),
        {"id": ada.id},
    )

    listed = user("sessions", "ada").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [str(ada.session_id), str(second)]
    assert listed[1].endswith("  192.0.2.1  Moth/1 ?[2J?")

    refused = user("sessions", "ada", "--end", str(second), "--end", str(bob.session_id))
    assert_refused(refused, f"ada has no session {bob.session_id}; nothing was ended")
    assert connection.scalar(text("SELECT count(*) FROM sessions")) == 4
    assert user("sessions", "ada", "--end", str(second)).stdout == "1 ended\n"
    assert client.get("/posts", headers=ada.headers).status_code == 200
    assert user("sessions", "ada", "--end-all").stdout == "2 ended\n"
    assert client.get("/posts", headers=ada.headers).status_code == 401
    assert client.get("/posts", headers=bob.headers).status_code == 200


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "command", ["promote", "disable", "enable", "ban", "unban", "reset-password", "disable-totp", "sessions"]
)
def test_an_unknown_name_is_reported_in_one_line(user: User, command: str) -> None:
    more = {"promote": ["admin"], "ban": ["--reason", "Spam"]}.get(command, [])

    assert_refused(user(command, "missing", *more, stdin=PASSWORD), "no account has the name missing")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"SECRET_KEY": "short"}, "error: SECRET_KEY is shorter than 32 bytes.*\n"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}, "error: .*Connection refused.*\n"),
        ({}, "error: no account has the name ada\n"),
    ],
)
@pytest.mark.usefixtures("database")
def test_errors_that_stop_a_process_are_reported_in_one_line(environment: dict[str, str], line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "user", "disable", "ada"],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(line, done.stderr)


@pytest.mark.usefixtures("database")
def test_unknown_role_is_a_usage_error(user: User) -> None:
    assert user("promote", "ada", "boss").returncode == 2
