"""Quotas of API keys, sessions and drafts per account, and what happens past them."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, counted_queries

KEY = {"name": "a program", "scopes": ["read"]}
DRAFT = {"title": "title", "content": "content", "published": False}
KEYS = "SELECT count(*) FROM api_keys"
DRAFTS = "SELECT count(*) FROM posts WHERE NOT published"
SIGN_INS = "SELECT id FROM sessions WHERE kind = 'login' ORDER BY id"


@pytest.fixture
def two_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("max_api_keys", "max_sessions", "max_drafts"):
        monkeypatch.setattr(get_settings(), name, 2)


def make_key(client: TestClient, person: Person, **headers: str) -> httpx2.Response:
    return client.post("/api-keys", json=KEY, headers={**person.headers, **headers})


def make_draft(client: TestClient, person: Person, **headers: str) -> httpx2.Response:
    return client.post("/posts", json=DRAFT, headers={**person.headers, **headers})


def sign_in(client: TestClient, person: Person, program: str = "a browser") -> dict[str, str]:
    """Headers of a new session."""
    form = {"username": person.email, "password": PASSWORD}
    answer = client.post("/login", data=form, headers={"User-Agent": program})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def assert_full(response: httpx2.Response, things: str) -> None:
    detail = f"Your account has the maximum of 2 {things}; delete one first"
    assert_refused(response, 409, "quota_exceeded", detail)


@pytest.mark.usefixtures("two_of_each")
def test_a_key_past_the_quota_is_refused_until_another_is_deleted(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows
) -> None:
    first, _ = make_key(client, person), make_key(client, person)

    assert_full(make_key(client, person), "API keys")

    assert rows(KEYS) == [(2,)]
    assert make_key(client, make_person()).status_code == 201
    assert client.delete(f"/api-keys/{first.json()['id']}", headers=person.headers).status_code == 204
    assert make_key(client, person).status_code == 201


@pytest.mark.usefixtures("two_of_each")
def test_keys_that_have_expired_do_not_count(client: TestClient, person: Person, rows: Rows) -> None:
    for _ in range(2):
        make_key(client, person)
    rows("UPDATE sessions SET expires_at = now() WHERE kind = 'api_key' RETURNING 1")

    assert make_key(client, person).status_code == 201


@pytest.mark.usefixtures("two_of_each")
@pytest.mark.parametrize("make", [make_key, make_draft])
def test_request_that_is_repeated_gets_its_answer_again_though_the_quota_is_full(
    client: TestClient, person: Person, make: Callable[..., httpx2.Response]
) -> None:
    first = make(client, person, **{"Idempotency-Key": "once"})
    assert make(client, person).status_code == 201
    refused = make(client, person, **{"Idempotency-Key": "another"})
    assert refused.status_code == 409

    again = make(client, person, **{"Idempotency-Key": "once"})

    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert make(client, person, **{"Idempotency-Key": "another"}).json()["code"] == "quota_exceeded"


@pytest.mark.usefixtures("two_of_each")
def test_draft_past_the_quota_is_refused_and_published_posts_are_not(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows
) -> None:
    drafts = [make_draft(client, person).json()["id"] for _ in range(2)]

    assert_full(make_draft(client, person), "drafts")

    assert rows(DRAFTS) == [(2,)]
    assert client.post("/posts", json={**DRAFT, "published": True}, headers=person.headers).status_code == 201
    assert make_draft(client, make_person()).status_code == 201
    published = client.patch(f"/posts/{drafts[0]}", json={"published": True}, headers=person.headers)
    assert published.status_code == 200
    assert make_draft(client, person).status_code == 201


@pytest.mark.usefixtures("two_of_each")
@pytest.mark.parametrize(("method", "body"), [("PUT", DRAFT), ("PATCH", {"published": False})])
def test_published_post_does_not_become_a_draft_past_the_quota(
    client: TestClient,
    person: Person,
    make_person: Callable[..., Person],
    make_post: Callable[..., int],
    rows: Rows,
    method: str,
    body: dict[str, object],
) -> None:
    draft, _ = (make_post(person, published=False) for _ in range(2))
    published, other = make_post(person), make_post(make_person())

    def send(post_id: int, version: str = "*") -> httpx2.Response:
        headers = {**person.headers, "If-Match": version}
        return client.request(method, f"/posts/{post_id}", json=body, headers=headers)

    assert_full(send(published), "drafts")
    assert rows(f"SELECT published, version FROM posts WHERE id = {published}") == [(True, 1)]
    assert_refused(send(published, '"7"'), 412, "precondition_failed")
    assert_refused(send(other), 403, "not_authorized")
    assert_refused(send(2**40), 404, "post_not_found")
    assert send(draft).status_code == 200, "a draft stays one"
    assert client.delete(f"/posts/{draft}", headers=person.headers).status_code == 204
    assert send(published).status_code == 200
    assert rows(DRAFTS) == [(2,)]


@pytest.mark.usefixtures("two_of_each")
def test_account_from_before_the_quota_keeps_its_drafts_and_adds_none(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows
) -> None:
    drafts = [make_post(person, published=False) for _ in range(5)]

    assert_full(make_draft(client, person), "drafts")
    edited = client.patch(f"/posts/{drafts[0]}", json={"title": "other", "published": False}, headers=person.headers)
    assert edited.status_code == 200
    assert rows(DRAFTS) == [(5,)]


def test_drafts_cost_two_statements_more_and_published_posts_their_event(
    client: TestClient, person: Person, database: Engine
) -> None:
    for published, count in ((True, 2 + 1), (False, 4)):
        with counted_queries(database) as statements:
            client.post("/posts", json={**DRAFT, "published": published}, headers=person.headers)
        assert len(statements) == count


@pytest.mark.usefixtures("two_of_each")
def test_sign_in_past_the_quota_ends_the_least_recently_used_session_and_says_so(
    client: TestClient, person: Person, rows: Rows
) -> None:
    rows("DELETE FROM sessions RETURNING 1")
    first, second = sign_in(client, person), sign_in(client, person)
    (oldest, _) = rows(SIGN_INS)
    rows(f"UPDATE sessions SET last_seen_at = now() + interval '1 minute' WHERE id = {oldest[0]} RETURNING 1")

    third = sign_in(client, person)

    alive = [client.get("/users/me", headers=headers).status_code for headers in (first, second, third)]
    assert alive == [200, 401, 200]
    events = client.get("/users/me/security-events", headers=third).json()
    assert [event["event"] for event in events][:2] == ["session_ended", "signed_in"]


@pytest.mark.usefixtures("two_of_each")
def test_script_that_signs_in_again_and_again_ends_its_own_sessions_and_not_the_browser_s(
    client: TestClient, person: Person, rows: Rows
) -> None:
    rows("DELETE FROM sessions RETURNING 1")
    browser = sign_in(client, person)
    for _ in range(5):
        script = sign_in(client, person, "a script")

    assert [client.get("/users/me", headers=headers).status_code for headers in (browser, script)] == [200, 200]
    assert len(rows(SIGN_INS)) == 2


@pytest.mark.usefixtures("two_of_each")
def test_sessions_that_have_expired_end_first_and_keys_never(client: TestClient, person: Person, rows: Rows) -> None:
    key = make_key(client, person).json()["key"]
    rows("DELETE FROM sessions WHERE kind = 'login' RETURNING 1")
    alive, expired = sign_in(client, person), sign_in(client, person)
    (_, newest) = rows(SIGN_INS)
    rows(f"UPDATE sessions SET expires_at = now() WHERE id = {newest[0]} RETURNING 1")

    sign_in(client, person)

    assert [client.get("/users/me", headers=headers).status_code for headers in (alive, expired)] == [200, 401]
    assert client.get("/users/me", headers={"X-API-Key": key}).status_code == 200
    assert newest not in rows(SIGN_INS)


@pytest.mark.usefixtures("two_of_each")
def test_account_from_before_the_quota_keeps_as_many_sessions_as_it_has(
    client: TestClient, person: Person, rows: Rows
) -> None:
    rows(f"INSERT INTO sessions (user_id, expires_at) SELECT {person.id}, now() + interval '1 day' "
         "FROM generate_series(1, 9) RETURNING 1")  # fmt: skip

    sign_in(client, person)

    assert len(rows(SIGN_INS)) == 10
