"""`/email-verification`: an address is verified only with the token that was mailed to it."""

from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.security import access_tokens
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person
from tests.mail_server import Received

Receive = Callable[[], list[Received]]


def confirm(client: TestClient, token: str) -> httpx2.Response:
    return client.post("/email-verification/confirm", json={"token": token})


def token_for(client: TestClient, person: Person, receive: Receive) -> str:
    response = client.post("/email-verification", headers=person.headers)
    assert response.status_code == 202
    (mail,) = receive()
    assert mail.address == person.email
    return mail.token


def is_verified(client: TestClient, person: Person) -> bool:
    verified = client.get("/users/me", headers=person.headers).json()["email_verified"]
    assert isinstance(verified, bool)
    return verified


def test_signing_up_mails_a_token_that_verifies_the_address(client: TestClient, receive: Receive, rows: Rows) -> None:
    client.post("/users", json={"email": "Ada@example.com", "password": PASSWORD})
    (mail,) = receive()
    assert mail.address == "Ada@example.com"
    assert rows("SELECT email_verified_at FROM users") == [(None,)]

    assert confirm(client, mail.token).status_code == 204

    assert rows("SELECT email_verified_at BETWEEN now() - interval '1 minute' AND now() FROM users") == [(True,)]
    assert rows("SELECT event FROM security_events ORDER BY id") == [("signed_up",), ("email_verified",)]


def test_a_sign_up_that_fails_sends_no_mail(client: TestClient, person: Person, rows: Rows) -> None:
    assert client.post("/users", json={"email": person.email, "password": PASSWORD}).status_code == 409

    assert rows("SELECT 1 FROM outgoing_mails UNION ALL SELECT 1 FROM security_events") == []


def test_a_token_can_be_requested_again_and_works_once(client: TestClient, person: Person, receive: Receive) -> None:
    token = token_for(client, person, receive)
    assert not is_verified(client, person)

    assert confirm(client, token).status_code == 204

    assert is_verified(client, person)
    assert_refused(confirm(client, token), 403, "invalid_token")


def test_only_the_newest_token_verifies(client: TestClient, person: Person, receive: Receive) -> None:
    first = token_for(client, person, receive)
    second = token_for(client, person, receive)

    assert_refused(confirm(client, first), 403, "invalid_token")
    assert confirm(client, second).status_code == 204


def test_verified_users_get_the_same_response_and_no_mail(client: TestClient, person: Person, receive: Receive) -> None:
    before = client.post("/email-verification", headers=person.headers)
    confirm(client, receive()[0].token)

    after = client.post("/email-verification", headers=person.headers)

    assert (after.status_code, after.content) == (before.status_code, before.content)
    assert receive() == []


def test_a_token_for_an_address_that_was_changed_since_is_void(
    client: TestClient, person: Person, receive: Receive
) -> None:
    token = token_for(client, person, receive)
    wanted = {"email": "new@example.com", "current_password": PASSWORD}
    client.patch("/users/me", json=wanted, headers=person.headers)

    assert_refused(confirm(client, token), 403, "invalid_token")

    assert not is_verified(client, person)


def test_a_mail_that_was_not_yet_sent_when_the_address_changed_is_not_sent(
    client: TestClient, person: Person, receive: Receive
) -> None:
    client.post("/email-verification", headers=person.headers)
    wanted = {"email": "new@example.com", "current_password": PASSWORD}
    client.patch("/users/me", json=wanted, headers=person.headers)

    assert [(mail.address, mail.message["Subject"]) for mail in receive()] == [
        ("new@example.com", "Confirm your e-mail address")
    ]


def test_a_new_address_must_be_verified_and_the_old_one_is_notified(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    confirm(client, token_for(client, person, receive))
    wanted = {"email": "new@example.com", "current_password": PASSWORD}

    assert client.patch("/users/me", json=wanted, headers=person.headers).json()["email_verified"] is False

    notice, verification = receive()
    assert notice.address == person.email
    assert "new@example.com" not in notice.message.as_string()
    assert verification.address == "new@example.com"
    assert confirm(client, verification.token).status_code == 204
    assert is_verified(client, person)
    assert ("email_changed",) in rows("SELECT event FROM security_events WHERE user_id = :id", id=person.id)


@pytest.mark.parametrize("spelling", ["PERSON@example.com", "person@example.com", "Person@EXAMPLE.com"])
def test_another_spelling_of_the_address_must_be_verified_and_the_old_one_is_notified(
    client: TestClient, make_person: Callable[..., Person], receive: Receive, rows: Rows, spelling: str
) -> None:
    person = make_person(email="Person@example.com", is_verified=True)

    client.patch("/users/me", json={"email": spelling, "current_password": PASSWORD}, headers=person.headers)

    assert not is_verified(client, person)
    assert [(mail.address, mail.message["Subject"]) for mail in receive()] == [
        ("Person@example.com", "Your e-mail address was changed"), (spelling, "Confirm your e-mail address")
    ]  # fmt: skip
    assert rows("SELECT event FROM security_events") == [("email_changed",)]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_saving_the_same_address_again_changes_nothing_and_sends_no_mail(
    client: TestClient, make_person: Callable[..., Person], rows: Rows, method: str
) -> None:
    person = make_person(email="Person@example.com", is_verified=True)
    wanted = {"email": "Person@example.com", "current_password": PASSWORD}

    for _ in range(12):
        assert client.request(method, "/users/me", json=wanted, headers=person.headers).status_code == 200

    assert is_verified(client, person)
    assert rows("SELECT 1 FROM outgoing_mails UNION ALL SELECT 1 FROM security_events") == []


def test_unverified_addresses_are_not_notified_of_changes(
    client: TestClient, person: Person, admin: Person, receive: Receive, rows: Rows
) -> None:
    password = PASSWORD
    for number in range(4):
        wanted = {"password": f"{PASSWORD} {number}", "current_password": password}
        assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200
        password = wanted["password"]
    wanted = {"email": "stranger@example.com", "current_password": password}
    assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200
    for change in ({"password": PASSWORD}, {"email": "another@example.com"}):
        assert client.patch(f"/users/{person.id}", json=change, headers=admin.headers).status_code == 200

    # The verification for stranger@ is dropped when it is sent: the account has another address by then.
    assert [(mail.address, mail.message["Subject"]) for mail in receive()] == [
        ("another@example.com", "Confirm your e-mail address")
    ]
    assert len(rows("SELECT 1 FROM security_events WHERE event = 'password_changed'")) == 5


def test_repeated_address_changes_mail_five_strangers_an_hour(
    client: TestClient, make_person: Callable[..., Person], receive: Receive, rows: Rows
) -> None:
    person = make_person(is_verified=True)
    answers, mails = [], []
    for number in range(8):
        wanted = {"email": f"stranger{number}@example.com", "current_password": PASSWORD}
        answers.append(client.patch("/users/me", json=wanted, headers=person.headers))
        mails += receive()

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert_refused(answers[-1], 429, "too_many_tries")
    assert [mail.address for mail in mails] == [person.email] + [f"stranger{number}@example.com" for number in range(5)]
    assert rows("SELECT email FROM users") == [("stranger4@example.com",)]


def test_repeated_changes_of_a_verified_address_notify_it_of_five(
    client: TestClient, make_person: Callable[..., Person], admin: Person, receive: Receive, rows: Rows
) -> None:
    person = make_person(is_verified=True)
    for number in range(7):
        change = {"email": f"other{number}@example.com"}
        assert client.patch(f"/users/{person.id}", json=change, headers=admin.headers).status_code == 200
        rows("UPDATE users SET email_verified_at = now() RETURNING 1")

    notified = [mail.address for mail in receive() if mail.message["Subject"] == "Your e-mail address was changed"]

    assert notified == [person.email, *(f"other{number}@example.com" for number in range(4))]


def test_address_that_is_changed_back_and_forth_gets_three_mails_an_hour(
    client: TestClient, make_person: Callable[..., Person], receive: Receive
) -> None:
    """The mails of two accounts, each within its own limit, to one stranger."""
    mails = []
    for person in (make_person(), make_person()):
        for email in ("stranger@example.com", person.email, "stranger@example.com", f"away.{person.email}"):
            wanted = {"email": email, "current_password": PASSWORD}
            assert client.patch("/users/me", json=wanted, headers=person.headers).status_code == 200
            mails += receive()

    assert [mail.address for mail in mails].count("stranger@example.com") == 3


def test_many_accounts_aimed_at_one_mailbox_mail_it_ten_times_an_hour(
    client: TestClient, receive: Receive, rows: Rows
) -> None:
    for number in range(15):
        new = {"email": f"Stranger+{number}@example.com", "password": PASSWORD}
        assert client.post("/users", json=new).status_code == 201
    assert len(receive()) == 10

    # A mail of another kind, and the mailbox of an account that is verified, have limits of their own.
    rows("UPDATE users SET email_verified_at = now() WHERE email = 'Stranger+14@example.com' RETURNING 1")
    for number in range(15):
        assert client.post("/password-reset", json={"email": f"stranger+{number}@example.com"}).status_code == 202
    assert [mail.address for mail in receive()] == [f"Stranger+{number}@example.com" for number in (*range(10), 14)]


def test_resets_do_not_suppress_the_verification_of_the_same_address(
    client: TestClient, person: Person, receive: Receive
) -> None:
    for _ in range(5):
        client.post("/password-reset", json={"email": person.email})
    client.post("/email-verification", headers=person.headers)

    subjects = [mail.message["Subject"] for mail in receive()]

    assert subjects == ["Reset your password"] * 3 + ["Confirm your e-mail address"]


def test_verification_can_be_requested_five_times_an_hour(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    statuses = [client.post("/email-verification", headers=person.headers).status_code for _ in range(7)]

    assert statuses == [202] * 5 + [429] * 2
    assert client.post("/email-verification", headers=other.headers).status_code == 202
    assert rows("SELECT address, count(*) FROM outgoing_mails GROUP BY address ORDER BY 2") == [
        (other.email, 1), (person.email, 5)
    ]  # fmt: skip


def test_a_session_that_has_ended_uses_up_no_verification_of_its_owner(
    client: TestClient, person: Person, connection: Connection
) -> None:
    ended_id = person.session_id + 1_000_000  # No session of a later test has this id.
    ended = {"Authorization": f"Bearer {access_tokens.issue(person.id, ended_id, timedelta(minutes=30))}"}

    for _ in range(6):
        assert_refused(client.post("/email-verification", headers=ended), 401, "not_authenticated")

    assert client.post("/email-verification", headers=person.headers).status_code == 202
    limits = connection.execute(text("SELECT limit_name, cardinality(used_at) FROM allowances ORDER BY 1")).all()
    assert limits == [("mail_from_address", 1), ("mail_of_account_email_verification", 1)]


def test_limits_drop_mails_alike_with_and_without_an_account(
    client: TestClient, person: Person, receive: Receive, rows: Rows
) -> None:
    for email in (person.email, "unknown@example.com"):
        assert [client.post("/password-reset", json={"email": email}).status_code for _ in range(5)] == [202] * 5

    assert [mail.address for mail in receive()] == [person.email] * 3
    assert rows("SELECT 1 FROM outgoing_mails") == []
    counted = "SELECT cardinality(used_at) FROM allowances WHERE limit_name = 'mail_to_address_password_reset'"
    assert rows(counted) == [(3,), (3,)]


def test_a_refused_change_sends_no_mail(client: TestClient, person: Person, other: Person, rows: Rows) -> None:
    for wanted in ({"email": "new@example.com", "current_password": "wrong"}, {"email": other.email}):
        response = client.patch("/users/me", json={"current_password": PASSWORD} | wanted, headers=person.headers)
        assert response.status_code in {403, 409}

    assert rows("SELECT 1 FROM outgoing_mails UNION ALL SELECT 1 FROM security_events") == []


@pytest.mark.parametrize("is_by_admin", [True, False])
def test_the_owner_is_notified_of_a_new_password(
    client: TestClient, make_person: Callable[..., Person], admin: Person, receive: Receive, *, is_by_admin: bool
) -> None:
    person = make_person(is_verified=True)
    wanted = {"password": "a new password", "current_password": PASSWORD}
    headers = (admin if is_by_admin else person).headers

    assert client.patch(f"/users/{person.id}", json=wanted, headers=headers).status_code == 200

    (mail,) = receive()
    assert (mail.address, mail.message["Subject"]) == (person.email, "Your password was changed")


def test_the_owner_is_notified_of_five_new_passwords_an_hour(
    client: TestClient, make_person: Callable[..., Person], admin: Person, receive: Receive
) -> None:
    person, other = make_person(is_verified=True), make_person(is_verified=True)
    for number in range(7):
        change = {"password": f"{PASSWORD} {number}"}
        assert client.patch(f"/users/{person.id}", json=change, headers=admin.headers).status_code == 200
    client.patch(f"/users/{other.id}", json={"password": "another password"}, headers=admin.headers)

    assert [mail.address for mail in receive()] == [person.email] * 5 + [other.email]


@pytest.mark.parametrize("token", ["x", "A" * 43, "\N{PILE OF POO}"])
def test_a_made_up_token_verifies_nothing(client: TestClient, person: Person, receive: Receive, token: str) -> None:
    token_for(client, person, receive)

    assert_refused(confirm(client, token), 403, "invalid_token")
    assert not is_verified(client, person)


def test_a_reset_token_verifies_nothing(client: TestClient, person: Person, receive: Receive) -> None:
    client.post("/password-reset", json={"email": person.email})
    (mail,) = receive()

    assert_refused(confirm(client, mail.token), 403, "invalid_token")
    assert not is_verified(client, person)


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 7}, {"token": "x" * 201}, {"token": "a\0b"}])
def test_a_malformed_confirmation_is_refused(client: TestClient, body: dict[str, object]) -> None:
    assert_refused(client.post("/email-verification/confirm", json=body), 422, "validation_failed")
