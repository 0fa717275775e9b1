"""`Idempotency-Key`: a repeated request has no second effect, and gets the first answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import Person

KEY = {"Idempotency-Key": "4f9d7c2e-once"}
EFFECTS = "SELECT (SELECT count(*) FROM posts), (SELECT count(*) FROM users), (SELECT count(*) FROM votes)"
KEPT = "SELECT user_id, key, status FROM idempotency_keys"


@dataclass
class Create:
    """A create that takes a key: a request, a different request, and a refused request."""

    client: TestClient
    path: str
    body: dict[str, Any]
    different_body: dict[str, Any]
    refused_body: dict[str, Any]
    person: Person
    is_signed_in: bool = True

    def ask(self, body: dict[str, Any] | None = None, key: bytes = KEY["Idempotency-Key"].encode()) -> httpx2.Response:
        headers = {b"Idempotency-Key": key}
        if self.is_signed_in:
            headers[b"Authorization"] = f"Bearer {self.person.token}".encode()
        return self.client.post(self.path, json=self.body if body is None else body, headers=headers)


@pytest.fixture(params=["/posts", "/users", "/vote"])
def create(
    request: pytest.FixtureRequest, client: TestClient, person: Person, other: Person, make_post: Callable[..., int]
) -> Create:
    post_id, another = make_post(other), make_post(other)
    bodies: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
        "/posts": ({"title": "a", "content": "b"}, {"title": "z", "content": "b"}, {"title": ""}),
        "/users": (
            {"email": "new@example.com", "password": "a password"},
            {"email": "new2@example.com", "password": "a password"},
            {"email": other.email, "password": "a password"},
        ),
        "/vote": (
            {"post_id": post_id, "vote_dir": 1}, {"post_id": another, "vote_dir": 1}, {"post_id": 0, "vote_dir": 1},
        ),
    }  # fmt: skip
    return Create(client, request.param, *bodies[request.param], person, is_signed_in=request.param != "/users")


def test_the_same_request_again_gets_the_same_answer_and_has_no_effect(create: Create, rows: Rows) -> None:
    first = create.ask()
    effects, kept = rows(EFFECTS), rows(KEPT)
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    assert kept == [(create.person.id if create.is_signed_in else None, KEY["Idempotency-Key"], 201)]

    again = create.ask()

    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.content == first.content
    assert again.headers.get("Location") == first.headers.get("Location")
    assert rows(EFFECTS) == effects
    assert rows(KEPT) == kept


def test_the_key_means_the_same_in_every_spelling_of_the_path(create: Create, rows: Rows) -> None:
    first = create.ask()
    effects = rows(EFFECTS)
    create.path = f"/v1{create.path}/"

    assert create.ask().content == first.content
    assert rows(EFFECTS) == effects


def test_another_request_with_the_same_key_is_refused_and_has_no_effect(create: Create, rows: Rows) -> None:
    create.ask()
    effects, kept = rows(EFFECTS), rows(KEPT)

    assert_refused(create.ask(create.different_body), 422, "idempotency_mismatch")

    assert rows(EFFECTS) == effects
    assert rows(KEPT) == kept


def test_the_same_body_elsewhere_is_another_request(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows
) -> None:
    body = {"post_id": make_post(person), "vote_dir": 1, "title": "a", "content": "b"}
    client.post("/vote", json=body, headers=KEY | person.headers)

    response = client.post("/posts", json=body, headers=KEY | person.headers)

    assert_refused(response, 422, "idempotency_mismatch")
    assert rows("SELECT count(*) FROM posts") == [(1,)]


def test_the_same_key_of_another_user_is_another_key(
    client: TestClient, person: Person, other: Person, make_post: Callable[..., int], rows: Rows
) -> None:
    post_id = make_post(person)
    for path, body in (("/posts", {"title": "a", "content": "b"}), ("/vote", {"post_id": post_id, "vote_dir": 1})):
        key = {"Idempotency-Key": f"shared{path}"}
        for caller in (person, other):
            response = client.post(path, json=body, headers=key | caller.headers)
            assert response.status_code == 201
            assert "Idempotency-Replayed" not in response.headers
    assert rows("SELECT owner_id FROM posts WHERE id <> :id ORDER BY id", id=post_id) == [(person.id,), (other.id,)]
    assert rows("SELECT user_id FROM votes ORDER BY user_id") == [(person.id,), (other.id,)]


def test_a_failed_create_stores_nothing_and_its_key_can_be_used(create: Create, rows: Rows) -> None:
    before = rows(EFFECTS)
    refused = create.ask(create.refused_body)
    assert refused.status_code in {404, 409, 422}
    assert rows(KEPT) == []
    assert rows(EFFECTS) == before

    assert create.ask().status_code == 201
    assert rows(EFFECTS) != before


def test_an_answer_that_is_too_old_is_forgotten(create: Create, rows: Rows) -> None:
    create.ask()
    ((is_kept_a_day,),) = rows(
        "SELECT expires_at - now() BETWEEN interval '23:59' AND interval '24:00' FROM idempotency_keys"
    )
    assert is_kept_a_day
    effects = rows(EFFECTS)
    rows("UPDATE idempotency_keys SET expires_at = now() - interval '1 second' RETURNING 1")

    response = create.ask(create.different_body)

    assert response.status_code == 201
    assert "Idempotency-Replayed" not in response.headers
    assert rows(EFFECTS) != effects
    assert rows("SELECT count(*), bool_and(expires_at > now()) FROM idempotency_keys") == [(1, True)]
    assert create.ask(create.different_body).headers["Idempotency-Replayed"] == "true"


def test_a_repeat_during_the_first_request_is_asked_to_wait(create: Create, rows: Rows) -> None:
    from app.database import sessions

    owner = create.person.id if create.is_signed_in else None
    effects = rows(EFFECTS)
    with sessions.writing() as under_way:
        under_way.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{owner}:{KEY['Idempotency-Key']}",)
        )
        response = create.ask()
    assert_refused(response, 409, "idempotency_in_progress")
    assert response.headers["Retry-After"] == "1"
    assert rows(EFFECTS) == effects

    assert create.ask().status_code == 201


@pytest.mark.parametrize("create", ["/posts", "/vote"], indirect=True)
@pytest.mark.parametrize(
    "ending",
    [
        "DELETE FROM sessions WHERE user_id = :id RETURNING 1",
        "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
        "DELETE FROM users WHERE id = :id RETURNING 1",
    ],
)
def test_a_stored_response_is_not_replayed_for_a_revoked_token(create: Create, rows: Rows, ending: str) -> None:
    create.ask()
    rows(ending, id=create.person.id)

    assert_unauthenticated(create.ask())
    assert_unauthenticated(create.ask(create.different_body))


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\t", "ü", "a,b c"])
def test_a_malformed_key_is_refused_without_effect(create: Create, rows: Rows, key: str) -> None:
    effects = rows(EFFECTS)

    response = create.ask(key=key.encode())

    assert_refused(response, 422, "validation_failed")
    assert rows(EFFECTS) == effects


@pytest.mark.parametrize("key", ["x", "x" * 255, "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"])
def test_every_printable_key_is_kept(create: Create, rows: Rows, key: str) -> None:
    assert create.ask(key=key.encode()).status_code == 201
    assert rows("SELECT key FROM idempotency_keys") == [(key,)]


def test_no_password_is_kept_with_the_answer(client: TestClient, connection: Any) -> None:
    client.post("/users", json={"email": "a@example.com", "password": "canary-7d1f"}, headers=KEY)

    (row,) = connection.exec_driver_sql("SELECT body, fingerprint, location FROM idempotency_keys").all()
    assert b"canary" not in bytes(row.body)
    assert len(bytes(row.fingerprint)) == 32


def test_an_answer_is_given_again_after_the_secret_has_changed(
    create: Create, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create.ask()
    settings = get_settings()
    monkeypatch.setattr(settings, "secret_key_previous", [SecretStr(settings.signing_secret)])
    monkeypatch.setattr(settings, "secret_key", SecretStr("another secret" * 4))
    effects = rows(EFFECTS)

    again = create.ask()

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert rows(EFFECTS) == effects
    assert_refused(create.ask(create.different_body), 422, "idempotency_mismatch")
