"""`REGISTRATION` and invites: who can sign up, and what refusals say and cost."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import Registration, Role, get_settings
from app.security import attempt_limits, passwords
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person

ACCOUNTS = "SELECT count(*) FROM users"


@pytest.fixture
def registration(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registration], None]:
    return lambda mode: monkeypatch.setattr(get_settings(), "registration", mode)


@pytest.fixture
def by_invite(registration: Callable[[Registration], None]) -> None:
    registration("invite")


def sign_up(client: TestClient, email: str = "new@example.com", **body: Any) -> httpx2.Response:
    headers = body.pop("headers", {})
    return client.post("/users", json={"email": email, "password": PASSWORD, **body}, headers=headers)


def invite(client: TestClient, creator: Person, **body: Any) -> str:
    made = client.post("/invites", json=body, headers=creator.headers)
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


def test_sign_up_is_open_by_default_and_ignores_invites(client: TestClient, rows: Rows) -> None:
    assert get_settings().registration == "open"

    assert sign_up(client, invite="none").status_code == 201

    assert rows(ACCOUNTS) == [(1,)]


@pytest.mark.parametrize("email", ["new@example.com", "taken@example.com"])
def test_closed_registration_refuses_every_sign_up_alike(
    client: TestClient,
    registration: Callable[[Registration], None],
    make_person: Callable[..., Person],
    rows: Rows,
    email: str,
) -> None:
    registration("closed")
    admin = make_person(email="taken@example.com", role="admin")

    response = sign_up(client, email, invite=invite(client, admin))

    assert_refused(response, 403, "registration_closed", "This server accepts no new accounts")
    assert rows(ACCOUNTS) == [(1,)]


@pytest.mark.usefixtures("by_invite")
def test_an_invite_makes_one_account_and_is_used_up(client: TestClient, moderator: Person, rows: Rows) -> None:
    token = invite(client, moderator)

    assert sign_up(client, invite=token).status_code == 201
    assert_refused(sign_up(client, "second@example.com", invite=token), 403, "invalid_invite")

    assert rows(ACCOUNTS) == [(2,)]
    assert rows("SELECT max_uses, uses FROM invites") == [(1, 1)]
    assert rows("SELECT details FROM security_events WHERE event = 'signed_up'") == rows(
        "SELECT jsonb_build_object('invite_id', id) FROM invites"
    )


@pytest.mark.usefixtures("by_invite")
def test_an_invite_for_several_accounts_is_used_as_often(client: TestClient, moderator: Person, rows: Rows) -> None:
    token = invite(client, moderator, max_uses=3)

    statuses = [sign_up(client, f"new{n}@example.com", invite=token).status_code for n in range(5)]

    assert statuses == [201, 201, 201, 403, 403]
    assert rows("SELECT uses FROM invites") == [(3,)]


@pytest.mark.usefixtures("by_invite")
@pytest.mark.parametrize(
    "body", [{"email": "taken@example.com"}, {"username": "taken"}, {"password": "short"}, {"bio": 1}]
)
def test_a_sign_up_that_fails_does_not_use_the_invite(
    client: TestClient, make_person: Callable[..., Person], rows: Rows, body: dict[str, Any]
) -> None:
    token = invite(client, make_person(email="taken@example.com", username="taken", role="moderator"))

    response = client.post("/users", json={"email": "n@example.com", "password": PASSWORD, "invite": token} | body)

    assert response.status_code in {409, 422}
    assert rows("SELECT uses FROM invites") == [(0,)]
    assert sign_up(client, invite=token).status_code == 201


@pytest.mark.usefixtures("by_invite")
@pytest.mark.parametrize("email", ["new@example.com", "taken@example.com"])
@pytest.mark.parametrize("given", [{}, {"invite": None}, {"invite": ""}, {"invite": "x" * 100}, {"invite": "é"}])
def test_without_a_valid_invite_a_refusal_says_nothing_about_the_address_and_hashes_nothing(
    client: TestClient,
    make_person: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    email: str,
    given: dict[str, Any],
) -> None:
    make_person(email="taken@example.com")
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "hash_password", hashed.append)

    assert_refused(
        sign_up(client, email, **given),
        403,
        "invalid_invite",
        "Signing up needs an invite, and this one is missing, wrong, used up or expired",
    )
    assert hashed == []


@pytest.mark.usefixtures("by_invite")
@pytest.mark.parametrize(
    "end",
    [
        "UPDATE invites SET expires_at = now() RETURNING 1",
        "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
        "UPDATE users SET role = 'user' WHERE id = :id RETURNING 1",
        "DELETE FROM users WHERE id = :id RETURNING 1",
        "UPDATE users SET ban_reason = 'spam' WHERE id = :id RETURNING 1",
    ],
    ids=["expired", "disabled", "demoted", "deleted", "banned"],
)
def test_an_invite_ends_with_its_time_and_with_the_rights_of_its_creator(
    client: TestClient, moderator: Person, rows: Rows, end: str
) -> None:
    token = invite(client, moderator)
    rows(end, **({"id": moderator.id} if ":id" in end else {}))
    before = rows(ACCOUNTS)

    assert_refused(sign_up(client, invite=token), 403, "invalid_invite")

    assert rows(ACCOUNTS) == before


@pytest.mark.usefixtures("by_invite")
def test_a_deleted_invite_stops_working(client: TestClient, moderator: Person, other: Person) -> None:
    token = invite(client, moderator)
    (listed,) = client.get("/invites", headers=moderator.headers).json()

    assert client.get("/invites", headers=other.headers).json() == []
    refused = client.delete(f"/invites/{listed['id']}", headers=other.headers)
    assert_refused(refused, 404, "invite_not_found", f"invite with id: {listed['id']} was not found")
    assert client.delete(f"/invites/{listed['id']}", headers=moderator.headers).status_code == 204

    assert_refused(sign_up(client, invite=token), 403, "invalid_invite")
    assert client.get("/invites", headers=moderator.headers).json() == []


@pytest.mark.usefixtures("by_invite")
def test_a_repeated_sign_up_with_an_idempotency_key_uses_the_invite_once(
    client: TestClient, moderator: Person, rows: Rows
) -> None:
    token = invite(client, moderator, max_uses=2)

    first, second = (sign_up(client, invite=token, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert rows("SELECT uses FROM invites") == [(1,)]


@pytest.mark.parametrize("minimum", ["user", "moderator", "admin"])
def test_roles_below_the_minimum_create_no_invites(
    client: TestClient,
    make_person: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    rows: Rows,
    minimum: Role,
) -> None:
    monkeypatch.setattr(get_settings(), "invite_role", minimum)
    roles: list[Role] = ["user", "moderator", "admin"]

    responses = {role: client.post("/invites", json={}, headers=make_person(role=role).headers) for role in roles}

    allowed = roles[roles.index(minimum) :]
    for role, response in responses.items():
        if role in allowed:
            assert response.status_code == 201
        else:
            assert_refused(response, 403, "not_authorized")
    assert rows("SELECT count(*) FROM invites") == [(len(allowed),)]


def test_a_new_invite_is_shown_once_and_stored_as_a_hash(client: TestClient, moderator: Person, rows: Rows) -> None:
    made = client.post("/invites", json={"max_uses": 2}, headers=moderator.headers)

    body = made.json()
    token = body.pop("token")
    assert made.headers["Cache-Control"] == "no-store"
    assert body["max_uses"] == 2
    assert body["uses"] == 0
    lifetime = datetime.fromisoformat(body["expires_at"]) - datetime.fromisoformat(body["created_at"])
    assert abs(lifetime - timedelta(days=7)) < timedelta(minutes=1)
    assert client.get("/invites", headers=moderator.headers).json() == [body]
    assert rows("SELECT token_hash = sha256(CAST(:token AS bytea)) FROM invites", token=token) == [(True,)]
    assert token not in str(
        rows("SELECT invites::text FROM invites") + rows("SELECT e::text FROM security_events AS e")
    )


@pytest.mark.parametrize(
    "body",
    [
        {"max_uses": 0},
        {"max_uses": 101},
        {"max_uses": -1},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": (datetime.now(UTC) + timedelta(days=91)).isoformat()},
    ],
)
def test_invites_out_of_range_are_refused(
    client: TestClient, moderator: Person, rows: Rows, body: dict[str, Any]
) -> None:
    assert_refused(client.post("/invites", json=body, headers=moderator.headers), 422, "validation_failed")
    assert rows("SELECT count(*) FROM invites") == [(0,)]


def test_open_invites_have_at_most_the_maximum_of_uses_left(
    client: TestClient, moderator: Person, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    monkeypatch.setattr(get_settings(), "invites_max", 5)
    invite(client, moderator, max_uses=4)

    refused = client.post("/invites", json={"max_uses": 2}, headers=moderator.headers)

    detail = "Your account has the maximum of 5 uses of open invites; delete one first"
    assert_refused(refused, 409, "quota_exceeded", detail)
    invite(client, moderator)
    rows("UPDATE invites SET uses = max_uses RETURNING 1")
    invite(client, moderator, max_uses=5)


def test_an_account_creates_twenty_invites_a_day(client: TestClient, moderator: Person, rows: Rows) -> None:
    assert attempt_limits.INVITE_OF_ACCOUNT.most == 20
    statuses = []
    for _ in range(22):
        response = client.post("/invites", json={}, headers=moderator.headers)
        statuses.append(response.status_code)
        rows("UPDATE invites SET uses = max_uses RETURNING 1")

    assert statuses == [201] * 20 + [429] * 2
    assert rows("SELECT count(*) FROM invites") == [(20,)]
