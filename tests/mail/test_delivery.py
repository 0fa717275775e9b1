"""Server processes send each mail once, and no mail server delays them."""

import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection, text

from app.mail import outbox
from tests.fixtures import PASSWORD, Person, Server
from tests.mail_server import MailServer, Received
from tests.programs import find_program

TIMEOUT_SECONDS = 30


def settings_for(server: MailServer, **more: str) -> dict[str, str]:
    return {
        "MAIL_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.port), "SMTP_TLS": "none",
    } | more  # fmt: skip


def production(**more: str) -> dict[str, str]:
    return {
        "ENVIRONMENT": "production", "MAIL_ENABLED": "true", "PASSWORD_HASH_ROUNDS": "10", "WORKERS": "1",
    } | more  # fmt: skip


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left(connection: Connection) -> int | None:
    found: int | None = connection.scalar(text("SELECT count(*) FROM outgoing_mails"))
    return found


def test_a_server_sends_what_a_request_caused_and_forgets_it(
    start_server: Callable[..., Server], person: Person, connection: Connection, mail_server: MailServer, tmp_path: Path
) -> None:
    server = start_server(**settings_for(mail_server, PUBLIC_URL="https://posts.example/app/"))
    httpx2.post(f"{server.url}/password-reset", json={"email": person.email}, headers={"X-Request-ID": "mine"})

    wait_until(lambda: mail_server.received and left(connection) == 0)

    (mail,) = mail_server.received
    assert mail.address == person.email
    assert f"https://posts.example/app/password-reset#token={mail.token}\n" in mail.text
    assert "curl" not in mail.text
    rows = connection.execute(text("SELECT event, request_id, address FROM security_events")).all()
    assert [tuple(row) for row in rows] == [("password_reset_requested", "mine", "127.0.0.1")]
    (log,) = tmp_path.glob("server-*.log")
    assert mail.token not in log.read_text()
    assert person.email not in log.read_text()
    confirmed = httpx2.post(
        f"{server.url}/password-reset/confirm", json={"token": mail.token, "password": "a whole new password"}
    )
    assert confirmed.status_code == 204


@pytest.mark.needs("curl")
def test_mails_of_development_say_which_request_takes_their_token(
    start_server: Callable[..., Server], person: Person, connection: Connection, mail_server: MailServer
) -> None:
    server = start_server(**settings_for(mail_server))
    httpx2.post(f"{server.url}/email-verification", headers=person.headers)
    wait_until(lambda: len(mail_server.received) == 1)
    run_request_of(mail_server.received[0])
    httpx2.post(f"{server.url}/password-reset", json={"email": person.email})
    wait_until(lambda: len(mail_server.received) == 2)
    run_request_of(mail_server.received[1])
    wait_until(lambda: len(mail_server.received) == 3)
    run_request_of(mail_server.received[2])

    form = {"username": person.email, "password": "a new password"}
    assert httpx2.post(f"{server.url}/login", data=form).status_code == 200
    assert connection.scalar(text("SELECT count(*) FROM users WHERE email_verified_at IS NOT NULL")) == 1


def run_request_of(mail: Received) -> None:
    """Run the curl command of the mail as printed."""
    (arguments,) = re.findall(r"^curl (.*)$", mail.text, re.MULTILINE)
    command = [find_program("curl"), "--silent", "--show-error", "--fail", *shlex.split(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_many_workers_send_each_mail_once(
    start_server: Callable[..., Server], connection: Connection, mail_server: MailServer
) -> None:
    addresses = [f"person{n}@example.com" for n in range(60)]
    for address in addresses:
        outbox.post(connection, "email_changed", address)

    start_server(**settings_for(mail_server, WORKERS="2"))
    start_server(**settings_for(mail_server))
    wait_until(lambda: left(connection) == 0)

    assert sorted(mail.address for mail in mail_server.received) == sorted(addresses)


def test_a_mail_server_that_hangs_does_not_hold_up_the_end(
    start_server: Callable[..., Server], connection: Connection
) -> None:
    outbox.post(connection, "email_changed", "ada@example.com")
    with MailServer("hang") as mail_server:
        server = start_server(**settings_for(mail_server))
        wait_until(lambda: mail_server.connection_count)

        began_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
        assert time.monotonic() - began_at < 4

    attempts, is_leased = connection.execute(
        text("SELECT attempt_count, due_at > now() + interval '4 minutes' FROM outgoing_mails")
    ).one()
    assert (attempts, is_leased) == (1, True)


def test_a_mail_that_is_under_way_when_the_end_comes_is_finished(
    start_server: Callable[..., Server], connection: Connection, mail_server: MailServer
) -> None:
    for n in range(200):
        outbox.post(connection, "email_changed", f"person{n}@example.com")
    server = start_server(**settings_for(mail_server))
    wait_until(lambda: mail_server.received)

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=15) == 0

    sent = len(mail_server.received)
    assert left(connection) == 200 - sent
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails WHERE attempt_count > 0")) == 0


@pytest.mark.parametrize(
    ("settings", "warning_count"),
    [(production(), 1), (production(MAIL_ENABLED="false"), 0), ({"MAIL_ENABLED": "false"}, 0)],
    ids=["production without a mail server", "production, switched off", "switched off"],
)
def test_without_a_way_out_mails_are_kept_and_requests_answered(
    start_server: Callable[..., Server],
    connection: Connection,
    tmp_path: Path,
    settings: dict[str, str],
    warning_count: int,
) -> None:
    server = start_server(**settings)

    signed_up = httpx2.post(f"{server.url}/users", json={"email": "ada@example.com", "password": PASSWORD})
    asked = httpx2.post(f"{server.url}/password-reset", json={"email": "ada@example.com"})

    assert (signed_up.status_code, asked.status_code) == (201, 202)
    assert httpx2.get(f"{server.url}/readyz").status_code == 200
    assert left(connection) == 2
    (log,) = tmp_path.glob("server-*.log")
    assert log.read_text().count("no mail can be sent, as SMTP_HOST is not set") == warning_count


def test_mail_delivery_resumes_after_the_database_was_away(
    connection: Connection,
    mail_server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Delivery runs in this process, with short pauses, and its connection is killed."""
    import threading

    from app.database.engines import dispose
    from app.mail import delivery
    from app.mail.smtp import Smtp

    monkeypatch.setattr(delivery, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "PAUSE_AFTER_FAILURE_SECONDS", 0.1)
    stop = threading.Event()
    thread = threading.Thread(target=delivery._work, args=(Smtp("127.0.0.1", mail_server.port, "none"), stop))
    thread.start()
    try:
        for n in range(5):
            connection.execute(
                text("""
                    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                """)
            )
            outbox.post(connection, "email_changed", f"person{n}@example.com")
            wait_until(lambda: len(mail_server.received) == n + 1)  # noqa: B023 - waited for here.
            # Killed between the two, it would send the mail once more when its lease has ended.
            wait_until(lambda: left(connection) == 0)
    finally:
        stop.set()
        thread.join(10)
        dispose()  # The pools of this process hold connections that were killed; other tests must not meet them.

    assert left(connection) == 0
