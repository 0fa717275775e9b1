"""`/password-reset`: which accounts get a mail, what its token can do, and that it reveals no accounts."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import httpx2
import pyotp
import pytest
from starlette.testclient import TestClient

from tests.contract.answers import OF_EACH_REQUEST, assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, Server
from tests.mail_server import MailServer, Received

Receive = Callable[[], list[Received]]
NEW_PASSWORD = "a whole new password"


def request_reset(client: TestClient, email: str) -> None:
    assert client.post("/password-reset", json={"email": email}).status_code == 202


def confirm(client: TestClient, token: str, password: str = NEW_PASSWORD) -> httpx2.Response:
    return client.post("/password-reset/confirm", json={"token": token, "password": password})


def sign_in(client: TestClient, person: Person, password: str) -> int:
    return client.post("/login", data={"username": person.email, "password": password}).status_code


def reset_token(client: TestClient, person: Person, receive: Receive) -> str:
    request_reset(client, person.email)
    (mail,) = receive()
    return mail.token


def test_the_mailed_token_sets_a_new_password_once(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    token = reset_token(client, person, receive)

    response = confirm(client, token)

    assert (response.status_code, response.content) == (204, b"")
    assert sign_in(client, person, NEW_PASSWORD) == 200
    assert sign_in(client, person, PASSWORD) == 403
    assert_refused(confirm(client, token, "another password"), 403, "invalid_token")
    assert sign_in(client, person, NEW_PASSWORD) == 200
    assert rows("SELECT 1 FROM mail_tokens") == []


def test_a_reset_ends_every_session_of_the_account_and_of_no_other(
    client: TestClient, person: Person, other: Person, receive: Receive, rows: Rows
) -> None:
    confirm(client, reset_token(client, person, receive))

    assert_unauthenticated(client.get("/users/me", headers=person.headers))
    assert_unauthenticated(client.get("/posts", headers=person.headers))
    assert rows("SELECT user_id FROM sessions") == [(other.id,)]


def enable_totp(client: TestClient, person: Person) -> str:
    """Enable the second factor; return its secret."""
    begun = client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)
    secret: str = begun.json()["secret"]
    confirmed = client.post("/users/me/totp/confirm", json={"code": pyotp.TOTP(secret).now()}, headers=person.headers)
    assert confirmed.status_code == 200
    return secret


def test_a_reset_of_an_address_that_was_never_verified_drops_what_was_set_up_before(
    client: TestClient, make_person: Callable[..., Person], make_post: Callable[..., int], receive: Receive, rows: Rows
) -> None:
    """The owner of the mailbox takes over an account that another person made with its address."""
    person = make_person(username="squatter")
    enable_totp(client, person)
    key = client.post("/api-keys", json={"name": "n", "scopes": ["read"]}, headers=person.headers).json()["key"]
    post_id = make_post(person)

    assert confirm(client, reset_token(client, person, receive)).status_code == 204

    assert sign_in(client, person, NEW_PASSWORD) == 200, "no code is required"
    assert_unauthenticated(client.get("/users/me", headers=person.headers))
    assert_unauthenticated(client.get("/users/me", headers={"X-API-Key": key}))
    for table in ("totps", "recovery_codes", "api_keys"):
        assert rows(f"SELECT 1 FROM {table}") == []
    assert rows("SELECT username, email_verified_at IS NOT NULL FROM users") == [("squatter", True)]
    assert rows("SELECT id FROM posts") == [(post_id,)]
    events = [event for (event,) in rows("SELECT event FROM security_events ORDER BY id")]
    assert events[-4:] == ["totp_disabled", "email_verified", "password_reset", "signed_in"]


def test_a_reset_of_a_verified_address_keeps_the_second_factor(
    client: TestClient, make_person: Callable[..., Person], receive: Receive, rows: Rows
) -> None:
    person = make_person(is_verified=True)
    enable_totp(client, person)
    verified_at = rows("SELECT email_verified_at FROM users")

    assert confirm(client, reset_token(client, person, receive)).status_code == 204

    form = {"username": person.email, "password": NEW_PASSWORD}
    assert_refused(client.post("/login", data=form), 403, "otp_required")
    assert rows("SELECT confirmed_at IS NOT NULL FROM totps") == [(True,)]
    assert rows("SELECT count(*) FROM recovery_codes") == [(10,)]
    assert rows("SELECT email_verified_at FROM users") == verified_at


def test_the_second_factor_that_is_set_up_after_a_reset_outlives_the_next_one(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    confirm(client, reset_token(client, person, receive), PASSWORD)
    receive()
    token = client.post("/login", data={"username": person.email, "password": PASSWORD}).json()["access_token"]
    enable_totp(client, replace(person, token=token))

    assert confirm(client, reset_token(client, person, receive)).status_code == 204

    assert rows("SELECT confirmed_at IS NOT NULL FROM totps") == [(True,)]


def test_a_reset_removes_an_unconfirmed_second_factor_too(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=person.headers)

    confirm(client, reset_token(client, person, receive))

    assert rows("SELECT 1 FROM totps") == []
    assert rows("SELECT 1 FROM security_events WHERE event = 'totp_disabled'") == []


def test_a_reset_voids_every_other_mailed_token(client: TestClient, person: Person, receive: Receive) -> None:
    client.post("/email-verification", headers=person.headers)
    (mail,) = receive()

    confirm(client, reset_token(client, person, receive))

    assert_refused(client.post("/email-verification/confirm", json={"token": mail.token}), 403, "invalid_token")


def test_a_reset_sends_a_mail_and_writes_its_events(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    confirm(client, reset_token(client, person, receive))

    (mail,) = receive()
    assert (mail.address, mail.message["Subject"]) == (person.email, "Your password was changed")
    assert rows("SELECT user_id, event FROM security_events ORDER BY id") == [
        (person.id, "password_reset_requested"), (person.id, "email_verified"), (person.id, "password_reset")
    ]  # fmt: skip


def test_only_the_newest_token_works(client: TestClient, person: Person, receive: Receive) -> None:
    first = reset_token(client, person, receive)
    second = reset_token(client, person, receive)

    assert_refused(confirm(client, first), 403, "invalid_token")
    assert confirm(client, second).status_code == 204


def test_a_token_is_random_and_kept_as_its_hash_only(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    token = reset_token(client, person, receive)

    assert len(token) == 43  # 32 bytes in base64.
    assert rows(
        "SELECT token_hash = sha256(CAST(:token AS bytea)), "
        "expires_at BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour' FROM mail_tokens",
        token=token,
    ) == [(True, True)]
    kept = str([rows(f"SELECT t::text FROM {table} AS t") for table in ("outgoing_mails", "users", "security_events")])
    assert token not in kept


SPOILED = {
    "expired": "UPDATE mail_tokens SET expires_at = now() RETURNING 1",
    "for another purpose": "UPDATE mail_tokens SET purpose = 'email_verification' RETURNING 1",
    "account disabled": "UPDATE users SET is_active = false RETURNING 1",
    "account deleted": "DELETE FROM users RETURNING 1",
    "address changed": "UPDATE users SET email = 'new@example.com', email_canonical = 'new@example.com' RETURNING 1",
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_spoiled_token_changes_nothing(
    client: TestClient, person: Person, receive: Receive, rows: Rows, spoiled: str
) -> None:
    token = reset_token(client, person, receive)
    assert rows(SPOILED[spoiled]) == [(1,)]
    before = rows("SELECT users::text FROM users")

    assert_refused(confirm(client, token), 403, "invalid_token")

    assert rows("SELECT users::text FROM users") == before


@pytest.mark.parametrize("token", ["x", "\N{PILE OF POO}", "A" * 43, "' OR true --", "%"])
def test_a_made_up_token_changes_nothing(
    client: TestClient, person: Person, receive: Receive, rows: Rows, token: str
) -> None:
    reset_token(client, person, receive)

    assert_refused(confirm(client, token), 403, "invalid_token")

    assert rows("SELECT count(*) FROM mail_tokens") == [(1,)]
    assert sign_in(client, person, PASSWORD) == 200


@pytest.mark.parametrize("password", ["short", "x" * 129, "nul\0in it", None])
def test_an_invalid_password_is_refused_and_the_token_stays_valid(
    client: TestClient, person: Person, receive: Receive, password: str | None
) -> None:
    token = reset_token(client, person, receive)

    response = client.post("/password-reset/confirm", json={"token": token, "password": password})

    assert_refused(response, 422, "validation_failed")
    assert confirm(client, token).status_code == 204


@pytest.mark.parametrize("typed", ["ADA@EXAMPLE.COM", "ada@ｅxample.com", "ada@example.com"])
def test_the_mail_goes_to_the_address_as_it_is_stored(
    client: TestClient, make_person: Callable[..., Person], receive: Receive, typed: str
) -> None:
    make_person(email="Ada@Example.com")

    request_reset(client, typed)

    (mail,) = receive()
    assert (mail.address, mail.message["To"]) == ("Ada@Example.com", "Ada@Example.com")


def test_the_host_that_a_client_names_is_not_in_the_mail(client: TestClient, person: Person, receive: Receive) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}

    client.post("/password-reset", json={"email": person.email}, headers=headers)

    (mail,) = receive()
    assert "http://localhost:8000/password-reset#token=" in mail.text
    assert "evil" not in mail.message.as_string()


def test_missing_and_disabled_accounts_get_no_mail_and_the_same_response(
    client: TestClient, person: Person, other: Person, receive: Receive, rows: Rows
) -> None:
    rows("UPDATE users SET is_active = false WHERE id = :id RETURNING 1", id=other.id)

    answers = [
        client.post("/password-reset", json={"email": email})
        for email in (person.email, other.email, "nobody@example.com")
    ]

    for answer in answers:
        for name in OF_EACH_REQUEST:
            answer.headers.pop(name, None)
    assert {(answer.status_code, answer.content, str(answer.headers)) for answer in answers} == {
        (202, answers[0].content, str(answers[0].headers))
    }
    assert [mail.address for mail in receive()] == [person.email]
    assert rows("SELECT 1 FROM outgoing_mails") == []
    assert rows("SELECT user_id FROM mail_tokens") == [(person.id,)]


@pytest.mark.parametrize("body", [{}, {"email": "not an address"}, {"email": None}, {"email": "x" * 321}])
def test_a_malformed_request_is_refused(client: TestClient, rows: Rows, body: dict[str, object]) -> None:
    assert_refused(client.post("/password-reset", json=body), 422, "validation_failed")
    assert rows("SELECT 1 FROM outgoing_mails") == []


@pytest.mark.slow
def test_known_and_unknown_addresses_take_the_same_time_within_five_per_cent(
    start_server: Callable[..., Server], make_person: Callable[..., Person], mail_server: MailServer
) -> None:
    people = [make_person() for _ in range(300)]
    server = start_server(
        MAIL_ENABLED="true", SMTP_HOST="127.0.0.1", SMTP_PORT=str(mail_server.port), SMTP_TLS="none",
        RATE_LIMITS_ENABLED="false", LOG_LEVEL="warning",
    )  # fmt: skip
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with httpx2.Client(base_url=server.url) as browser:
        for n, person in enumerate(people):
            for is_known in (n % 2 == 0, n % 2 == 1):
                email = person.email if is_known else f"unknown{n}@example.com"
                started_at = time.perf_counter()
                assert browser.post("/password-reset", json={"email": email}).status_code == 202
                seconds[is_known].append(time.perf_counter() - started_at)

    known, unknown = (statistics.median(seconds[is_known]) for is_known in (True, False))
    figures = f"known {known * 1000:.3f} ms, unknown {unknown * 1000:.3f} ms, {known / unknown - 1:+.1%}"
    sys.stdout.write(f"medians of {len(people)}: {figures}\n")
    assert abs(known / unknown - 1) <= 0.05
    deadline = time.monotonic() + 30
    while not mail_server.received:  # Mail delivery may have begun with the next one only.
        assert time.monotonic() < deadline
        time.sleep(0.05)
