"""With `TUTORIAL_DEFAULTS`, a token that carries only `user_id` and `exp` is accepted for an ordinary account."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pyotp
import pytest
from jose import jwt
from pydantic import SecretStr
from starlette.testclient import TestClient

from app import models
from app.config import get_settings
from app.database.engines import get_engine
from app.database.sessions import transaction
from app.models.session import adopted_session_id, sessionless_session_id
from app.security import access_tokens
from app.services import administration
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, Server, counted_queries

HOUR, DAY = 3600, 86_400
# Through the short way and through FastAPI; reading and writing; also where an API key could be sent.
ROUTES = [("GET", "/posts"), ("GET", "/posts/{post}"), ("POST", "/vote"), ("POST", "/posts"), ("GET", "/users/me"),
          ("DELETE", "/posts/{post}")]  # fmt: skip


@pytest.fixture(autouse=True)
def _tutorial(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(get_settings(), "tutorial_defaults", True)
    yield
    access_tokens._remembered["access"].clear()


def token_of(user_id: int, *, life: int = HOUR, secret: str | None = None, **claims: Any) -> dict[str, str]:
    """The headers of a client whose token was made as the tutorial's tests make theirs."""
    claims = {"user_id": user_id, "exp": now() + life, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(claims, secret or get_settings().signing_secret, 'HS256')}"}


def now() -> int:
    return int(time.time())


def is_accepted(client: TestClient, headers: dict[str, str]) -> bool:
    """Return whether both ways to a route accept the token, or both refuse it."""
    statuses = {client.get(path, headers=headers).status_code for path in ("/posts", "/users/me")}
    assert statuses in ({200}, {401})
    return statuses == {200}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_token_is_accepted_on_every_way_to_a_route(
    client: TestClient, person: Person, make_post: Callable[..., int], method: str, path: str
) -> None:
    post = make_post(person)
    body = {"title": "a title", "content": "text", "post_id": post, "dir": 1} if method == "POST" else None

    response = client.request(method, path.format(post=post), json=body, headers=token_of(person.id))

    assert response.status_code in {200, 201, 204}


def test_all_tokens_of_an_account_share_one_session_which_it_sees(
    client: TestClient, person: Person, rows: Rows
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.get("/posts", headers=token_of(person.id, life=HOUR + n)), range(16)))

    assert {answer.status_code for answer in answers} == {200}
    assert rows("SELECT count(*) FROM sessions WHERE user_id = :id", id=person.id) == [(2,)]
    listed = client.get("/sessions", headers=token_of(person.id)).json()
    assert [(one["id"], one["current"]) for one in listed] == [
        (sessionless_session_id(person.id), True), (person.session_id, False),
    ]  # fmt: skip


def test_without_the_setting_the_token_is_refused(
    client: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_accepted(client, token_of(person.id))
    monkeypatch.setattr(get_settings(), "tutorial_defaults", False)
    access_tokens._remembered["access"].clear()

    for headers in (token_of(person.id), token_of(person.id, iat=now())):
        assert not is_accepted(client, headers)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET is_active = false WHERE id = :id",
        "DELETE FROM users WHERE id = :id",
        "UPDATE users SET role = 'moderator' WHERE id = :id",
        "UPDATE users SET role = 'admin' WHERE id = :id",
        "INSERT INTO totps (user_id, sealed_secret, confirmed_at) VALUES (:id, '', now())",
    ],
    ids=["inactive", "deleted", "moderator", "admin", "two-factor"],
)
@pytest.mark.parametrize("is_used_before", [True, False])
def test_token_of_an_account_that_needs_more_is_refused(
    client: TestClient, person: Person, rows: Rows, change: str, *, is_used_before: bool
) -> None:
    if is_used_before:
        assert is_accepted(client, token_of(person.id))
    rows(change + " RETURNING 1", id=person.id)

    assert not is_accepted(client, token_of(person.id))
    assert not is_accepted(client, token_of(person.id, iat=now()))


@pytest.mark.parametrize("session_of", [sessionless_session_id, adopted_session_id])
def test_token_that_names_a_session_of_such_tokens_is_refused(
    client: TestClient, person: Person, rows: Rows, session_of: Callable[[int], int]
) -> None:
    session_id = session_of(person.id)
    rows("INSERT INTO sessions (id, user_id, expires_at) VALUES (:id, :user, now() + '1 day') RETURNING 1",
         id=session_id, user=person.id)  # fmt: skip
    rows("UPDATE users SET role = 'admin' WHERE id = :id RETURNING 1", id=person.id)
    claims: dict[str, Any] = {"sub": str(person.id), "sid": session_id, "jti": "x", "iat": now()}

    assert not is_accepted(client, token_of(person.id, life=30 * DAY, **claims))
    assert is_accepted(client, token_of(person.id, **claims | {"sid": person.session_id}))


def test_token_of_an_account_that_never_was_is_refused(client: TestClient, person: Person, rows: Rows) -> None:
    for user_id in (person.id + 1_000_000, 2**51, 2**63 - 1):
        assert not is_accepted(client, token_of(user_id))
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]


@pytest.mark.parametrize(
    ("life", "is_good"), [(HOUR, True), (DAY, True), (DAY + 600, False), (30 * DAY, False), (-1, False)]
)
@pytest.mark.parametrize("has_iat", [True, False])
def test_token_is_valid_for_a_day_at_most(
    client: TestClient, person: Person, life: int, *, is_good: bool, has_iat: bool
) -> None:
    headers = token_of(person.id, life=life, iat=now() if has_iat else None)

    assert is_accepted(client, headers) == is_good


def test_token_may_be_valid_as_long_as_those_of_the_server(
    client: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "access_token_expire_minutes", 7 * 24 * 60)

    assert is_accepted(client, token_of(person.id, life=7 * DAY))
    assert not is_accepted(client, token_of(person.id, life=8 * DAY))


@pytest.mark.parametrize(
    "claims", [{"iat": "now"}, {"iat": True}, {"iat": [1]}, {"role": "admin"}, {"iat": 10**10}, {"iat": -(10**30)}],
    ids=str,
)  # fmt: skip
def test_token_with_other_claims_is_refused(client: TestClient, person: Person, claims: dict[str, Any]) -> None:
    assert not is_accepted(client, token_of(person.id, **claims))


def test_tokens_signed_with_a_previous_key_are_refused(
    client: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "secret_key_previous", [SecretStr("old secret" * 4)])

    assert not is_accepted(client, token_of(person.id, secret="old secret" * 4))
    assert not is_accepted(client, token_of(person.id, secret="no secret" * 4))
    assert is_accepted(client, token_of(person.id))


def change_password(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    body = {"password": "battery horse correct", "current_password": PASSWORD}
    assert client.patch("/users/me", json=body, headers=headers).status_code == 200


def sign_out(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    assert client.post("/logout", headers=headers).status_code == 204


def sign_out_others(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    assert client.delete("/sessions", headers=person.headers).status_code == 204


def end_the_session(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    path = f"/sessions/{sessionless_session_id(person.id)}"
    assert client.delete(path, headers=person.headers).status_code == 204


def disable_and_enable(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    for command in (administration.disable, administration.enable):
        with transaction() as db:
            account = db.get(models.User, person.id)
            assert account is not None
            command(db, account)


def change_password_elsewhere(client: TestClient, person: Person, headers: dict[str, str]) -> None:  # noqa: ARG001
    change_password(client, person, person.headers)


@pytest.mark.parametrize(
    "end", [sign_out, sign_out_others, end_the_session, change_password, change_password_elsewhere, disable_and_enable]
)
@pytest.mark.parametrize("was_adopted", [True, False])
def test_ending_sessions_revokes_every_token_that_may_be_older(
    client: TestClient, person: Person, rows: Rows, end: Callable[..., None], *, was_adopted: bool
) -> None:
    if was_adopted:
        rows("INSERT INTO sessions (id, user_id, expires_at) VALUES (:id, :user, now() + interval '1 day') RETURNING 1",
             id=adopted_session_id(person.id), user=person.id)  # fmt: skip
    old = [token_of(person.id), token_of(person.id, life=DAY, iat=now()), token_of(person.id, life=DAY)]
    assert all(is_accepted(client, headers) for headers in old)

    end(client, person, old[0])

    assert not any(is_accepted(client, headers) for headers in old)
    # It has no time of issue, so it may be older.
    assert not is_accepted(client, token_of(person.id))
    # `iat` is in whole seconds, and may be a minute ahead.
    assert is_accepted(client, token_of(person.id, iat=now() + 2))
    assert not any(is_accepted(client, headers) for headers in old)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_token_that_ends_the_other_sessions_ends_with_indistinguishable_ones(
    client: TestClient, person: Person, rows: Rows, method: str
) -> None:
    headers, stolen = token_of(person.id), token_of(person.id, life=DAY, iat=now() - 1)

    if method == "PATCH":
        change_password(client, person, headers)
    else:
        assert client.delete("/sessions", headers=headers).status_code == 204

    assert rows("SELECT id FROM sessions") == []
    assert not any(is_accepted(client, each) for each in (headers, stolen, person.headers))


def test_token_without_iat_is_accepted_again_a_day_after_a_revocation(
    client: TestClient, person: Person, rows: Rows
) -> None:
    ended = "UPDATE users SET sessionless_tokens_ended_at = now() - CAST(:age AS interval) WHERE id = :id RETURNING 1"

    rows(ended, id=person.id, age="22 hours")
    assert not is_accepted(client, token_of(person.id))
    rows(ended, id=person.id, age="24 hours")
    assert is_accepted(client, token_of(person.id))


def test_the_session_opens_anew_after_its_end(client: TestClient, person: Person, rows: Rows) -> None:
    assert is_accepted(client, token_of(person.id))
    expire = "UPDATE sessions SET expires_at = now() - interval '1 s' WHERE id = :id RETURNING 1"
    assert rows(expire, id=sessionless_session_id(person.id)) == [(1,)]

    assert is_accepted(client, token_of(person.id))
    assert rows("SELECT expires_at > now() + interval '1 day' FROM sessions WHERE id = :id",
                id=sessionless_session_id(person.id)) == [(True,)]  # fmt: skip


def test_confirming_a_second_factor_refuses_the_token_that_did_it(client: TestClient, person: Person) -> None:
    headers = token_of(person.id)
    secret = client.post("/users/me/totp", json={"current_password": PASSWORD}, headers=headers).json()["secret"]
    code = pyotp.TOTP(secret).now()

    assert client.post("/users/me/totp/confirm", json={"code": code}, headers=headers).status_code == 200
    assert not is_accepted(client, headers)


def test_ordinary_tokens_cost_no_statement_more(client: TestClient, person: Person) -> None:
    client.get("/posts", headers=person.headers)
    with counted_queries(get_engine()) as statements:
        assert client.get("/posts", headers=person.headers).status_code == 200
    assert [statement for statement in statements if "totps" in statement] == []


@pytest.mark.slow
def test_every_server_process_refuses_the_token_once_it_is_ended(
    start_server: Callable[..., Server], person: Person, make_post: Callable[..., int]
) -> None:
    make_post(person)
    server = start_server(TUTORIAL_DEFAULTS="true", WORKERS="2")
    headers = token_of(person.id)

    def statuses(method: str, path: str) -> set[int]:
        # A connection each, so that both processes are met.
        return {httpx2.request(method, server.url + path, headers=headers).status_code for _ in range(20)}

    assert statuses("GET", "/posts") == statuses("GET", "/users/me") == {200}
    assert httpx2.post(f"{server.url}/logout", headers=headers).status_code == 204
    assert statuses("GET", "/posts") == statuses("GET", "/users/me") == {401}
