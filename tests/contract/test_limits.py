"""Attempt limits slow guessing and signing up in every spelling, and never slow reading."""

from collections.abc import Callable
from dataclasses import replace

import httpx2
import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from app.main import app
from app.security import attempt_limits
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person

WRONG = "wrong password"


def login(client: TestClient, name: str, password: str, **headers: str) -> httpx2.Response:
    return client.post("/login", data={"username": name, "password": password}, headers=headers)


def assert_too_many(response: httpx2.Response, *, within_seconds: int) -> None:
    assert_refused(response, 429, "too_many_tries", "Too many tries; wait before the next one")
    assert 0 < int(response.headers["Retry-After"]) <= within_seconds


@pytest.fixture
def elsewhere(client: TestClient) -> TestClient:  # noqa: ARG001 - on the same empty tables.
    """A client at another address."""
    return TestClient(app, client=("198.51.100.66", 50_000), follow_redirects=False)


def test_after_ten_failures_even_the_right_password_has_to_wait(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows
) -> None:
    for _ in range(10):
        assert_refused(login(client, person.email, WRONG), 403, "invalid_credentials")

    assert_too_many(login(client, person.email, PASSWORD), within_seconds=15 * 60)
    assert_too_many(login(client, person.email, WRONG), within_seconds=15 * 60)

    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert login(client, make_person().email, PASSWORD).status_code == 200


def test_wait_is_over_fifteen_minutes_after_the_failures(client: TestClient, person: Person, rows: Rows) -> None:
    for _ in range(11):
        login(client, person.email, WRONG)
    rows("UPDATE allowances SET used_at = ARRAY(SELECT used - interval '15 minutes' FROM unnest(used_at) AS used) "
         "RETURNING 1")  # fmt: skip

    assert login(client, person.email, PASSWORD).status_code == 200


def test_unknown_names_are_limited_like_known_ones(client: TestClient) -> None:
    statuses = [login(client, "nobody@example.com", WRONG).status_code for _ in range(12)]

    assert statuses == [403] * 10 + [429] * 2


def test_neither_letter_case_nor_unicode_form_nor_blanks_evade_it(
    client: TestClient, make_person: Callable[..., Person]
) -> None:
    make_person(email="Zoë.Straße@example.com")
    spellings = [
        "Zoë.Straße@example.com", "ZOË.STRAẞE@EXAMPLE.COM", "zoe\u0308.straße@example.com",
        "zoë.straße@ｅxample.com", "zoë.straße@example.com ", " zoë.STRAẞE@Example.com",
    ]  # fmt: skip

    statuses = [login(client, spellings[n % len(spellings)], WRONG).status_code for n in range(18)]

    assert statuses == [403] * 10 + [429] * 8
    assert_too_many(login(client, "zoë.straße@example.com", PASSWORD), within_seconds=15 * 60)


def test_neither_x_forwarded_for_nor_another_path_evades_it(client: TestClient, person: Person) -> None:
    form = {"username": person.email, "password": WRONG}
    paths = ["/login", "/login/", "/v1/login", "/token", "/v1/token/"]

    statuses = [
        client.post(
            paths[n % 5], data=form, headers={"X-Forwarded-For": f"203.0.113.{n}", "Forwarded": f"for=203.0.113.{n}"}
        ).status_code
        for n in range(15)
    ]

    assert statuses == [403] * 10 + [429] * 5


def test_an_address_has_fifty_failures_over_all_names(client: TestClient, elsewhere: TestClient) -> None:
    statuses = [
        login(client, f"name{n}", WRONG, **{"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(55)
    ]

    assert statuses == [403] * 50 + [429] * 5
    assert login(elsewhere, "name51", WRONG).status_code == 403


def test_right_passwords_use_up_no_guesses(client: TestClient, person: Person, rows: Rows) -> None:
    for _ in range(60):
        assert login(client, person.email, PASSWORD).status_code == 200
    assert_refused(login(client, person.email, WRONG), 403, "invalid_credentials")

    assert rows("SELECT limit_name, cardinality(used_at) FROM allowances WHERE used_at <> '{}' ORDER BY 1") == [
        ("right_password_from_address", 60), ("right_password_of_account", 60), ("sign_in_from_address", 1),
        ("sign_in_from_known_address", 1),
    ]  # fmt: skip


@pytest.fixture
def three_right_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account has three right passwords in fifteen minutes, and an address five."""
    for name, most in (("RIGHT_PASSWORD_OF_ACCOUNT", 3), ("RIGHT_PASSWORD_FROM_ADDRESS", 5)):
        monkeypatch.setattr(attempt_limits, name, replace(getattr(attempt_limits, name), most=most))


def change_email(client: TestClient, person: Person, current: str) -> httpx2.Response:
    wanted = {"email": person.email, "current_password": current}
    return client.patch("/users/me", json=wanted, headers=person.headers)


def change_password(client: TestClient, person: Person, current: str) -> httpx2.Response:
    wanted = {"password": PASSWORD, "current_password": current}
    return client.patch("/users/me", json=wanted, headers=person.headers)


def begin_totp(client: TestClient, person: Person, current: str) -> httpx2.Response:
    return client.post("/users/me/totp", json={"current_password": current}, headers=person.headers)


def end_totp(client: TestClient, person: Person, current: str) -> httpx2.Response:
    wanted = {"current_password": current}
    return client.request("DELETE", "/users/me/totp", json=wanted, headers=person.headers)


def sign_in(client: TestClient, person: Person, current: str) -> httpx2.Response:
    return login(client, person.email, current)


VERIFYING = [sign_in, change_email, change_password, begin_totp, end_totp]


@pytest.mark.usefixtures("three_right_passwords")
@pytest.mark.parametrize("verify", VERIFYING)
def test_right_passwords_are_counted_on_every_route_that_verifies_them(
    client: TestClient,
    elsewhere: TestClient,
    person: Person,
    make_person: Callable[..., Person],
    rows: Rows,
    verify: Callable[[TestClient, Person, str], httpx2.Response],
) -> None:
    statuses = [verify(client, person, PASSWORD).status_code for _ in range(4)]

    assert set(statuses[:3]) <= {200, 404}, "404: there is no second factor to remove"
    assert statuses[3] == 429
    for other in VERIFYING:
        assert_too_many(other(client, person, PASSWORD), within_seconds=15 * 60)
    assert sign_in(client, make_person(), PASSWORD).status_code == 200
    used = "SELECT DISTINCT limit_name, cardinality(used_at) FROM allowances WHERE limit_name LIKE 'right%' ORDER BY 2"
    assert ("right_password_of_account", 3) in rows(used)
    names = "'sign_in_of_account', 'password_of_account', 'code_of_account'"
    assert rows(f"SELECT 1 FROM allowances WHERE used_at <> '{{}}' AND limit_name IN ({names})") == []
    assert sign_in(elsewhere, person, PASSWORD).status_code == 200


@pytest.mark.usefixtures("three_right_passwords")
def test_right_password_without_the_code_that_is_due_is_counted_too(
    client: TestClient, person: Person, rows: Rows
) -> None:
    rows(f"INSERT INTO totps (user_id, sealed_secret, confirmed_at) VALUES ({person.id}, '', now()) RETURNING 1")

    assert [sign_in(client, person, PASSWORD).status_code for _ in range(4)] == [403] * 3 + [429]


@pytest.mark.usefixtures("three_right_passwords")
def test_admin_who_sets_passwords_of_others_is_counted_too(
    client: TestClient, person: Person, make_person: Callable[..., Person]
) -> None:
    admin, new = make_person(role="admin"), {"password": "another good password"}

    statuses = [client.patch(f"/users/{person.id}", json=new, headers=admin.headers).status_code for _ in range(4)]

    assert statuses == [200] * 3 + [429]


@pytest.mark.usefixtures("three_right_passwords")
def test_address_with_many_accounts_has_right_passwords_for_all_of_them_together(
    client: TestClient, elsewhere: TestClient, make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(7)]

    assert [sign_in(client, each, PASSWORD).status_code for each in people] == [200] * 5 + [429] * 2
    assert sign_in(elsewhere, people[6], PASSWORD).status_code == 200


@pytest.mark.usefixtures("three_right_passwords")
def test_failures_of_a_stranger_use_up_no_right_passwords(
    client: TestClient, elsewhere: TestClient, person: Person
) -> None:
    assert [sign_in(elsewhere, person, WRONG).status_code for _ in range(11)] == [403] * 10 + [429]
    assert [begin_totp(elsewhere, person, WRONG).status_code for _ in range(6)] == [403] * 5 + [429]

    assert [change_password(client, person, PASSWORD).status_code for _ in range(3)] == [200] * 3


def test_endless_failures_of_a_stranger_do_not_lock_the_owner_out(
    client: TestClient, elsewhere: TestClient, person: Person
) -> None:
    assert login(client, person.email, PASSWORD).status_code == 200
    for _ in range(3):
        statuses = {login(elsewhere, person.email, WRONG).status_code for _ in range(11)}
        assert 429 in statuses
        assert login(client, person.email, PASSWORD).status_code == 200
    assert_too_many(login(elsewhere, person.email, PASSWORD), within_seconds=15 * 60)


def test_failures_by_username_do_not_count_for_the_email_address(
    client: TestClient, elsewhere: TestClient, make_person: Callable[..., Person]
) -> None:
    ada = make_person(username="ada")
    assert [login(elsewhere, "ADA", WRONG).status_code for _ in range(11)][-1] == 429

    assert login(client, ada.email, PASSWORD).status_code == 200


def test_signing_up_is_limited_by_address_and_taken_addresses_count(
    client: TestClient, elsewhere: TestClient, rows: Rows
) -> None:
    rows("""
        INSERT INTO users (email, email_canonical, password_hash) VALUES ('a@example.com', 'a@example.com', '')
        RETURNING 1
    """)
    new = {"email": "a@example.com", "password": PASSWORD}
    statuses = [client.post("/users", json=new).status_code for _ in range(101)]

    assert statuses == [409] * 100 + [429]
    assert_too_many(client.post("/users", json=new | {"email": "b@example.com"}), within_seconds=3600)
    assert rows("SELECT email FROM users") == [("a@example.com",)]
    assert elsewhere.post("/users", json=new | {"email": "b@example.com"}).status_code == 201


def test_a_stolen_session_cannot_guess_the_password_at_length(client: TestClient, person: Person, rows: Rows) -> None:
    def change(current: str) -> httpx2.Response:
        wanted = {"email": "new@example.com", "current_password": current}
        return client.patch("/users/me", json=wanted, headers=person.headers)

    assert [change(WRONG).status_code for _ in range(11)] == [403] * 10 + [429]
    assert_too_many(change(PASSWORD), within_seconds=15 * 60)

    assert rows("SELECT email FROM users") == [(person.email,)]
    assert login(client, person.email, PASSWORD).status_code == 200


def test_address_changes_can_probe_five_addresses_an_hour(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows
) -> None:
    taken = make_person()
    wanted = {"email": taken.email, "current_password": PASSWORD}

    answers = [client.patch("/users/me", json=wanted, headers=person.headers) for _ in range(7)]

    assert [answer.status_code for answer in answers] == [409] * 5 + [429] * 2
    assert_too_many(answers[-1], within_seconds=3600)
    free = wanted | {"email": "free@example.com"}
    assert_too_many(client.patch("/users/me", json=free, headers=person.headers), within_seconds=3600)
    assert rows("SELECT id, email FROM users ORDER BY id") == [(person.id, person.email), (taken.id, taken.email)]
    # Requests that reveal nothing about addresses still succeed.
    assert client.patch("/users/me", json={"username": "renamed"}, headers=person.headers).status_code == 200


def test_an_address_may_make_twenty_requests_an_hour_over_all_accounts(
    client: TestClient, elsewhere: TestClient, make_person: Callable[..., Person]
) -> None:
    people = [make_person() for _ in range(6)]

    def ask(browser: TestClient, person: Person) -> int:
        wanted = {"email": people[0].email.upper(), "current_password": PASSWORD}
        return browser.patch(f"/users/{person.id}", json=wanted, headers=person.headers).status_code

    statuses = [ask(client, person) for person in people[1:5] for _ in range(5)]

    assert statuses == [409] * 20
    assert ask(client, people[5]) == 429
    assert ask(elsewhere, people[5]) == 409


def test_admin_changes_the_addresses_of_others_without_that_limit(
    client: TestClient, make_person: Callable[..., Person], rows: Rows
) -> None:
    admin, person = make_person(role="admin"), make_person()

    statuses = [
        client.patch(f"/users/{person.id}", json={"email": f"n{n}@example.com"}, headers=admin.headers).status_code
        for n in range(25)
    ]

    assert statuses == [200] * 25
    assert rows("SELECT email FROM users WHERE id = :id", id=person.id) == [("n24@example.com",)]
    assert rows("SELECT count(*) FROM outgoing_mails WHERE kind = 'email_verification'") == [(5,)]


def test_while_attempts_cannot_be_counted_sign_ins_fail_and_reads_work(
    client: TestClient, person: Person, database: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sessions.MAX_WAIT_TO_COUNT_SECONDS", 0.2)
    client.event_hooks["response"], hooks = [], client.event_hooks["response"]
    try:
        with database.connect() as other:
            other.execute(text("LOCK TABLE allowances"))
            refused = login(client, person.email, PASSWORD)
            assert_refused(refused, 503, "unavailable")
            assert refused.headers["Retry-After"]
            sign_up = client.post("/users", json={"email": "new@example.com", "password": PASSWORD})
            assert_refused(sign_up, 503, "unavailable")
            assert client.get("/posts", headers=person.headers).status_code == 200
            assert client.get(f"/users/{person.id}").status_code == 200
    finally:
        client.event_hooks["response"] = hooks

    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert login(client, person.email, PASSWORD).status_code == 200


@pytest.mark.usefixtures("database")
def test_that_a_limit_was_reached_is_logged_without_the_name_or_the_password(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app")
    for _ in range(11):
        login(client, "canary@example.com", "canary password")

    assert "limit_reached" in caplog.text
    assert "sign_in_of_account" in caplog.text
    assert "canary" not in caplog.text
