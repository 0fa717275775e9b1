"""`/users/{id}/ban` and `/unban`, and what a ban ends."""

from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person

UNTIL = "2099-01-31T12:00:00Z"


def ban(client: TestClient, caller: Person, user_id: int, **body: object) -> httpx2.Response:
    return client.post(f"/users/{user_id}/ban", json={"reason": "Spam"} | body, headers=caller.headers)


def unban(client: TestClient, caller: Person, user_id: int) -> httpx2.Response:
    return client.post(f"/users/{user_id}/unban", headers=caller.headers)


def sign_in(client: TestClient, name: str, password: str = PASSWORD, query: str = "") -> httpx2.Response:
    return client.post(f"/login{query}", data={"username": name, "password": password})


def test_ban_ends_sessions_and_keys_and_sign_in_says_why_and_until_when(
    client: TestClient, person: Person, moderator: Person, rows: Rows
) -> None:
    signed_in = sign_in(client, person.email).json()
    body = {"name": "k", "scopes": ["read"]}
    key = client.post("/api-keys", json=body, headers=person.headers).json()["key"]
    assert client.get("/posts", headers={"X-API-Key": key}).status_code == 200

    response = ban(client, moderator, person.id, until=UNTIL)

    state = {"user_id": person.id, "banned": True, "until": UNTIL, "reason": "Spam"}
    assert (response.status_code, response.json()) == (200, state)
    for headers in (person.headers, {"Authorization": f"Bearer {signed_in['access_token']}"}, {"X-API-Key": key}):
        assert_unauthenticated(client.get("/posts", headers=headers))
    refresh = client.post("/token/refresh", json={"refresh_token": signed_in["refresh_token"]})
    assert_unauthenticated(refresh)
    detail = "A moderator has banned your account until 2099-01-31T12:00:00Z: Spam"
    for query in ("", "?cookie=true"):
        assert_refused(sign_in(client, person.email, query=query), 403, "banned", detail)
    assert rows("SELECT count(*) FROM sessions WHERE user_id = :id", id=person.id) == [(0,)]
    log = "SELECT moderator_id, action, user_id, reason, until = :until FROM moderation_log"
    assert rows(log, until=UNTIL) == [(moderator.id, "ban", person.id, "Spam", True)]
    assert rows("SELECT user_id, kind, actor_id, post_id FROM notifications") == [(person.id, "moderation", None, None)]


def test_wrong_password_does_not_tell_that_an_account_is_banned(
    client: TestClient, person: Person, moderator: Person
) -> None:
    ban(client, moderator, person.id)

    assert_refused(sign_in(client, person.email, "wrong password"), 403, "invalid_credentials", "Invalid Credentials")


def test_sign_in_works_again_after_the_end_of_a_ban_and_after_an_unban(
    client: TestClient, person: Person, moderator: Person, rows: Rows
) -> None:
    ban(client, moderator, person.id, until=UNTIL)
    rows("UPDATE users SET banned_until = now() - interval '1 second' WHERE id = :id RETURNING 1", id=person.id)
    assert sign_in(client, person.email).status_code == 200

    ban(client, moderator, person.id)
    assert_refused(sign_in(client, person.email), 403, "banned", "A moderator has banned your account: Spam")
    for _ in range(2):
        response = unban(client, moderator, person.id)
        state = {"user_id": person.id, "banned": False, "until": None, "reason": None}
        assert (response.status_code, response.json()) == (200, state)

    token = sign_in(client, person.email).json()["access_token"]
    unread = client.get("/notifications/unread-count", headers={"Authorization": f"Bearer {token}"}).json()
    assert unread["by_kind"]["moderation"] == 1  # One, however many times the account was banned, until it is read.
    assert rows("SELECT action FROM moderation_log ORDER BY id") == [("ban",), ("ban",), ("unban",)]


def test_second_ban_replaces_reason_and_end(client: TestClient, person: Person, moderator: Person, rows: Rows) -> None:
    ban(client, moderator, person.id, until=UNTIL)

    assert ban(client, moderator, person.id, reason="More spam").json()["until"] is None

    assert rows("SELECT ban_reason, banned_until FROM users WHERE id = :id", id=person.id) == [("More spam", None)]


@pytest.mark.parametrize("action", ["ban", "unban"])
def test_only_those_of_a_lower_role_are_banned(
    client: TestClient, make_person: Callable[..., Person], rows: Rows, action: str
) -> None:
    people = {role: [make_person(role=role), make_person(role=role)] for role in ("user", "moderator", "admin")}
    act = ban if action == "ban" else unban
    allowed = {("moderator", "user"), ("admin", "user"), ("admin", "moderator")}
    for role, (caller, own) in people.items():
        for other_role, (target, _) in people.items():
            for user_id in {target.id if role != other_role else own.id, caller.id}:
                is_allowed = (role, other_role) in allowed and user_id != caller.id
                if is_allowed:
                    continue
                assert_refused(act(client, caller, user_id), 403, "not_authorized")
    assert rows("SELECT count(*) FROM users WHERE ban_reason IS NOT NULL") == [(0,)]
    assert rows("SELECT count(*) FROM moderation_log") == [(0,)]
    admin, moderator, user = (people[role][0] for role in ("admin", "moderator", "user"))
    assert act(client, admin, user.id).status_code == 200
    assert act(client, moderator, user.id).status_code == 200
    assert act(client, admin, moderator.id).status_code == 200


def test_keys_of_moderators_cannot_moderate(client: TestClient, person: Person, moderator: Person) -> None:
    body = {"name": "k", "scopes": ["read", "write"]}
    key = {"X-API-Key": client.post("/api-keys", json=body, headers=moderator.headers).json()["key"]}

    for path in (f"/users/{person.id}/ban", f"/users/{person.id}/unban"):
        response = client.post(path, json={"reason": "Spam"}, headers=key)
        assert_refused(response, 403, "insufficient_scope")
    assert_refused(client.get("/moderation-log", headers=key), 403, "insufficient_scope")


@pytest.mark.parametrize(
    "body",
    [{"reason": ""}, {"reason": " "}, {"reason": "x" * 501}, {"reason": "\0"}, {"until": "2020-01-01T00:00:00Z"},
     {"until": "9999-01-01T00:00:00Z"}, {"reason": None}],
)  # fmt: skip
def test_bans_with_invalid_reasons_and_ends_are_refused(
    client: TestClient, person: Person, moderator: Person, rows: Rows, body: dict[str, object]
) -> None:
    assert_refused(ban(client, moderator, person.id, **body), 422, "validation_failed")
    assert rows("SELECT count(*) FROM moderation_log") == [(0,)]


def test_reset_password_and_verified_address_open_no_session_of_a_banned_account(
    client: TestClient, person: Person, moderator: Person, rows: Rows
) -> None:
    ban(client, moderator, person.id)
    for purpose in ("password_reset", "email_verification"):
        rows(
            """
            INSERT INTO mail_tokens (user_id, purpose, token_hash, email, expires_at)
            VALUES (:id, :purpose, sha256(CAST(:purpose AS bytea)), :email, now() + interval '1 hour') RETURNING 1
            """,
            id=person.id, purpose=purpose, email=person.email,
        )  # fmt: skip

    verified = client.post("/email-verification/confirm", json={"token": "email_verification"})
    body = {"token": "password_reset", "password": "another analytical engine"}
    reset = client.post("/password-reset/confirm", json=body)

    assert (verified.status_code, reset.status_code) == (204, 204)
    assert_refused(sign_in(client, person.email, "another analytical engine"), 403, "banned")
    assert rows("SELECT count(*) FROM sessions WHERE user_id = :id", id=person.id) == [(0,)]


def test_searches_do_not_find_banned_accounts(
    client: TestClient, make_person: Callable[..., Person], moderator: Person
) -> None:
    ada = make_person(username="ada")
    ban(client, moderator, ada.id)

    assert client.get("/users/search?q=ada", headers=moderator.headers).json() == []
    assert_refused(client.get("/users/by-username/ada"), 404, "user_not_found")
    unban(client, moderator, ada.id)
    assert client.get("/users/by-username/ada").status_code == 200


def test_log_shows_each_moderator_whose_account_exists_newest_first(
    client: TestClient, person: Person, make_person: Callable[..., Person], admin: Person, rows: Rows
) -> None:
    leaving = make_person(role="moderator", username="leaving")
    ban(client, leaving, person.id)
    unban(client, leaving, person.id)

    first = client.get("/moderation-log?limit=1", headers=admin.headers)
    (entry,) = first.json()
    assert (entry["action"], entry["user_id"], entry["reason"]) == ("unban", person.id, None)
    assert entry["moderator"] == {"id": leaving.id, "username": "leaving", "display_name": None, "avatar": None}
    client.delete("/users/me", headers=leaving.headers)
    (second,) = client.get(f"/moderation-log{first.links['next']['url']}", headers=admin.headers).json()
    assert (second["action"], second["moderator"], second["reason"]) == ("ban", None, "Spam")
    assert rows("SELECT count(*) FROM moderation_log") == [(2,)]
