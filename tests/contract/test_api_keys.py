"""API keys: creating, listing and deleting them, and what they give access to."""

import hashlib
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from starlette.testclient import TestClient

from app.api import authentication
from app.database.sessions import at_once
from app.errors import PostNotFound
from app.security import access_tokens
from app.services import api_key
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.contract.test_public_routes import OPERATIONS, PUBLIC, body_of
from tests.fixtures import PASSWORD, Person, counted_queries, linked, located
from tests.pictures import png
from tests.races.waiting import wait_until

# What a key may call, within its scopes. It may call no other route, including future ones.
OPEN_TO_KEYS = {
    ("GET", "/posts"),
    ("POST", "/posts"),
    ("GET", "/posts/{id}"),
    ("PUT", "/posts/{id}"),
    ("PATCH", "/posts/{id}"),
    ("DELETE", "/posts/{id}"),
    ("PUT", "/posts/{id}/vote"),
    ("DELETE", "/posts/{id}/vote"),
    ("POST", "/vote"),
    ("GET", "/posts/{id}/comments"),
    ("POST", "/posts/{id}/comments"),
    ("GET", "/comments/{id}"),
    ("PATCH", "/comments/{id}"),
    ("DELETE", "/comments/{id}"),
    ("PUT", "/comments/{id}/vote"),
    ("DELETE", "/comments/{id}/vote"),
    ("GET", "/users/{id}/comments"),
    ("GET", "/users/me"),
    ("GET", "/users/me/votes"),
    ("GET", "/posts/{id}/comments"),
    ("POST", "/posts/{id}/comments"),
    ("GET", "/comments/{id}"),
    ("PATCH", "/comments/{id}"),
    ("DELETE", "/comments/{id}"),
    ("PUT", "/comments/{id}/vote"),
    ("DELETE", "/comments/{id}/vote"),
    ("GET", "/users/{id}/comments"),
    ("GET", "/users/search"),
    ("PUT", "/users/{id}/follow"),
    ("DELETE", "/users/{id}/follow"),
    ("GET", "/users/{id}/followers"),
    ("GET", "/users/{id}/following"),
    ("PUT", "/users/{id}/block"),
    ("DELETE", "/users/{id}/block"),
    ("GET", "/users/me/blocks"),
    ("PUT", "/posts/{id}/bookmark"),
    ("DELETE", "/posts/{id}/bookmark"),
    ("GET", "/users/me/bookmarks"),
    ("GET", "/home"),
    ("GET", "/notifications"),
    ("GET", "/notifications/unread-count"),
    ("POST", "/notifications/read"),
    ("GET", "/live"),
    ("POST", "/live/tickets"),
    ("GET", "/posts/{id}/mute"),
    ("PUT", "/posts/{id}/mute"),
    ("DELETE", "/posts/{id}/mute"),
    ("POST", "/media"),
    ("GET", "/media"),
    ("GET", "/media/{id}"),
    ("PATCH", "/media/{id}"),
    ("DELETE", "/media/{id}"),
    ("PUT", "/users/me/avatar"),
    ("DELETE", "/users/me/avatar"),
    ("GET", "/tags"),
    ("GET", "/tags/{name}"),
    ("GET", "/posts.atom"),
    ("GET", "/users/{id}/posts.atom"),
    ("GET", "/tags/{name}/posts.atom"),
    ("PUT", "/tags/{name}/follow"),
    ("DELETE", "/tags/{name}/follow"),
}
CLOSED_TO_KEYS = [operation for operation in OPERATIONS if operation not in OPEN_TO_KEYS | PUBLIC]
CHANGING = sorted(operation for operation in OPEN_TO_KEYS if operation[0] != "GET")
ALL_ROWS = (
    "SELECT users::text FROM users UNION ALL SELECT posts::text FROM posts UNION ALL SELECT votes::text FROM votes"
    " UNION ALL SELECT c::text FROM comments AS c UNION ALL SELECT v::text FROM comment_votes AS v"
)
MakeKey = Callable[..., str]


@pytest.fixture
def make_key(client: TestClient) -> MakeKey:
    """Make a key: `make_key(person, "read")`."""

    def make(owner: Person, *scopes: str, **fields: Any) -> str:
        body = {"name": "a program", "scopes": [*scopes] or ["read", "write"], **fields}
        response = client.post("/api-keys", json=body, headers=owner.headers)
        assert response.status_code == 201, response.text
        key: str = response.json()["key"]
        return key

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Making, listing, ending.


def test_a_key_is_made_shown_once_and_kept_as_a_hash(client: TestClient, person: Person, rows: Rows) -> None:
    response = client.post("/api-keys", json={"name": "export", "scopes": ["read"]}, headers=person.headers)

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    made = response.json()
    assert set(made) == {"id", "name", "scopes", "created_at", "expires_at", "last_used_at", "key"}
    assert (made["name"], made["scopes"], made["expires_at"], made["last_used_at"]) == ("export", ["read"], None, None)
    ((name, scopes, kept),) = rows("SELECT name, scopes, key_hash FROM api_keys")
    assert (name, scopes) == ("export", ["read"])
    assert bytes(kept) == hashlib.sha256(made["key"].encode()).digest()
    assert rows("SELECT user_id, kind, expires_at = 'infinity', ends_at = 'infinity' FROM sessions WHERE id = :id",
                id=made["id"]) == [(person.id, "api_key", True, True)]  # fmt: skip
    shown = client.get(located(response), headers=person.headers)
    assert shown.json() == {name: value for name, value in made.items() if name != "key"}


def test_keys_have_a_prefix_and_a_checksum_and_differ(make_key: MakeKey, person: Person) -> None:
    keys = [make_key(person) for _ in range(3)]

    for key in keys:
        assert re.fullmatch(r"spk_[0-9A-Za-z]{38}", key)
        checksum = sum("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(digit) * 62**place
                       for place, digit in enumerate(reversed(key[-6:])))  # fmt: skip
        assert checksum == zlib.crc32(key[:-6].encode())
    assert len({key[:20] for key in keys}) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": []},
        {"scopes": ["write"]},
        {"scopes": ["admin"]},
        {"scopes": ["read", "write", "read"]},
        {"scopes": "read"},
        {"scopes": None},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "nul\0"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": "9999-12-31T23:59:59Z"},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
    ],
)
def test_a_malformed_key_is_not_made(client: TestClient, person: Person, rows: Rows, fields: dict[str, Any]) -> None:
    body = {"name": "a program", "scopes": ["read"]} | fields

    assert_refused(client.post("/api-keys", json=body, headers=person.headers), 422, "validation_failed")

    assert rows("SELECT 1 FROM api_keys UNION ALL SELECT 1 FROM sessions WHERE kind <> 'login'") == []


@pytest.mark.parametrize("scopes", [["write", "read"], ["read", "write"]])
def test_scopes_have_no_order(client: TestClient, person: Person, scopes: list[str]) -> None:
    response = client.post("/api-keys", json={"name": "n", "scopes": scopes}, headers=person.headers)

    assert response.json()["scopes"] == ["read", "write"]


def test_the_same_idempotency_key_gets_the_same_key_which_is_kept_encrypted(
    client: TestClient, person: Person, rows: Rows
) -> None:
    headers, body = person.headers | {"Idempotency-Key": "once"}, {"name": "n", "scopes": ["read"]}

    first = client.post("/api-keys", json=body, headers=headers)
    again = client.post("/api-keys", json=body, headers=headers)

    assert again.status_code == 201
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Cache-Control"] == "no-store"
    assert rows("SELECT count(*) FROM api_keys") == [(1,)]
    ((kept,),) = rows("SELECT body FROM idempotency_keys")
    assert b"spk_" not in bytes(kept)


def test_only_own_keys_are_listed_by_page(client: TestClient, make_key: MakeKey, person: Person, other: Person) -> None:
    for number in range(5):
        make_key(person, name=f"key {number}")
        make_key(other, name="not mine")

    first = client.get("/api-keys?limit=3", headers=person.headers)
    rest = client.get(str(linked(first)), headers=person.headers)

    assert [key["name"] for key in first.json() + rest.json()] == [f"key {number}" for number in range(5)]
    assert "next" not in rest.links
    assert "key" not in first.json()[0]
    cursor_of_another_list = {"cursor": "garbage"}
    assert_refused(
        client.get("/api-keys", params=cursor_of_another_list, headers=person.headers), 422, "malformed_cursor"
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_keys_of_other_users_and_sign_ins_are_not_own_keys(
    client: TestClient, make_key: MakeKey, person: Person, other: Person, rows: Rows, method: str
) -> None:
    theirs = make_key(other)
    ((key_id,),) = rows("SELECT session_id FROM api_keys")

    for missing in (key_id, person.session_id, 0, -1, 2**63, 10**30):
        response = client.request(method, f"/api-keys/{missing}", headers=person.headers)
        assert_refused(response, 404, "api_key_not_found")

    assert client.get("/users/me", headers=bearer(theirs)).json()["id"] == other.id
    assert client.get("/users/me", headers=person.headers).status_code == 200


# Using them.


@pytest.mark.parametrize("spell", [bearer, lambda key: {"X-API-Key": key},
                                   lambda key: {"X-API-Key": key, "Authorization": "Basic Og=="}])  # fmt: skip
def test_a_key_acts_for_its_owner_as_bearer_and_as_header(
    client: TestClient, make_key: MakeKey, person: Person, rows: Rows, spell: Callable[[str], dict[str, str]]
) -> None:
    headers = spell(make_key(person))

    post_id = client.post("/posts", json={"title": "t", "content": "c"}, headers=headers).json()["id"]
    vote = client.post("/vote", json={"post_id": post_id, "vote_dir": 1}, headers=headers)

    assert vote.status_code == 201
    assert rows("SELECT posts.owner_id, votes.user_id FROM posts JOIN votes ON post_id = id") == [
        (person.id, person.id)
    ]
    assert [item["voted"] for item in client.get("/posts", headers=headers).json()] == [True]
    assert client.get(f"/users/{person.id}", headers=headers).json()["email"] == person.email


def test_the_bearer_token_takes_precedence_over_the_header(
    client: TestClient, make_key: MakeKey, person: Person, other: Person
) -> None:
    key = make_key(other)

    assert client.get("/users/me", headers=person.headers | {"X-API-Key": key}).json()["id"] == person.id
    assert_unauthenticated(client.get("/users/me", headers=bearer("garbage") | {"X-API-Key": key}))


def test_an_access_token_is_rejected_as_an_api_key(client: TestClient, person: Person) -> None:
    assert client.get("/users/me", headers={"X-API-Key": person.token}).status_code == 401


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_key_that_may_only_read_changes_nothing(
    client: TestClient, make_key: MakeKey, make_post: Callable[..., int], make_comment: Callable[..., int],
    person: Person, rows: Rows, method: str, path: str,
) -> None:  # fmt: skip
    post_id = make_post(person)
    thing_id = make_comment(person, post_id) if path.startswith("/comments") else post_id
    key = make_key(person, "read")
    before = rows(ALL_ROWS)

    for headers in (bearer(key), {"X-API-Key": key}):
        response = client.request(
            method,
            path.replace("{id}", str(thing_id)).replace("{name}", "travel"),
            json=body_of(method),
            headers=headers,
        )
        assert_refused(response, 403, "insufficient_scope")
        assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'

    assert rows(ALL_ROWS) == before
    assert client.get("/posts", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("role", ["user", "admin"])
@pytest.mark.parametrize(("method", "path"), CLOSED_TO_KEYS)
def test_no_key_manages_accounts_or_credentials(
    client: TestClient, make_key: MakeKey, make_person: Callable[..., Person], rows: Rows, method: str, path: str,
    role: str,
) -> None:  # fmt: skip
    person = make_person(role=role)
    address = path.replace("{id}", str(person.id))
    before = rows("SELECT users::text FROM users"), rows("SELECT 1 FROM totps")

    for key in (make_key(person), make_key(person, "read")):
        for content in ({"json": body_of(method)}, {"content": b"{{{"}):
            response = client.request(method, address, headers=bearer(key), **content)
            assert_refused(response, 403, "insufficient_scope")

    assert (rows("SELECT users::text FROM users"), rows("SELECT 1 FROM totps")) == before
    assert rows("SELECT count(*) FROM api_keys") == [(2,)]


@pytest.mark.parametrize(("method", "path"), sorted(OPEN_TO_KEYS))
def test_a_key_that_may_write_is_refused_no_other_content(
    client: TestClient,
    make_key: MakeKey,
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    make_media: Callable[..., dict[str, Any]],
    person: Person,
    other: Person,
    method: str,
    path: str,
) -> None:
    key = make_key(person)
    post_id = make_post(person)
    body = body_of(method)
    if body is not None:
        body["post_id"] = post_id
    picture_id = make_media(person)["id"]
    if body is not None:
        body["media_id"] = picture_id
    ids = {"posts": post_id, "comments": make_comment(person, post_id), "users": other.id, "media": picture_id}
    address = path.replace("{id}", str(ids.get(path.split("/")[1]))).replace("{name}", "travel")
    content: dict[str, Any] = {"files": {"file": png()}} if (method, path) == ("POST", "/media") else {"json": body}

    response = client.request(method, address, params={"q": "user"}, headers=bearer(key), **content)

    assert response.status_code in {200, 201, 204}, response.text


@pytest.mark.parametrize("role", ["moderator", "admin"])
@pytest.mark.parametrize("scopes", [["read"], ["read", "write"]])
def test_a_key_reads_no_address_and_no_draft_of_others_even_if_its_owner_may(
    client: TestClient, make_key: MakeKey, make_post: Callable[..., int], make_person: Callable[..., Person],
    other: Person, role: str, scopes: list[str],
) -> None:  # fmt: skip
    owner = make_person(role=role)
    draft, own_draft = make_post(other, published=False), make_post(owner, published=False)
    post_id = make_post(other)
    key = bearer(make_key(owner, *scopes))
    answers = [
        client.get(path, headers=key)
        for path in (
            "/posts", "/posts?sort=top", f"/posts?owner_id={other.id}", f"/posts?owner_id={other.id}&published=false",
            "/posts?published=false", f"/posts/{post_id}", f"/posts/{own_draft}", f"/users/{other.id}", "/users/me",
            "/users/me/votes",
        )
    ]  # fmt: skip

    assert {answer.status_code for answer in answers} == {200}
    assert [answer.request.url.path for answer in answers if other.email in answer.text] == []
    assert client.get(f"/posts?owner_id={other.id}&published=false", headers=key).json() == []
    assert [item["Post"]["id"] for item in client.get("/posts?published=false", headers=key).json()] == [own_draft]
    assert_refused(client.get(f"/posts/{draft}", headers=key), 404, "post_not_found")
    # What the user may do, and what the key reveals of its owner, stay the same.
    assert client.get(f"/posts/{draft}", headers=owner.headers).status_code == 200
    me = client.get("/users/me", headers=key).json()
    assert (me["id"], me["email"], me["role"]) == (owner.id, owner.email, role)


def test_a_page_requested_by_a_key_and_its_owner_at_once_differs_by_reader(
    make_key: MakeKey, make_post: Callable[..., int], moderator: Person, other: Person
) -> None:
    """One batch answers both: what the moderator may see does not replace the key's copy."""
    from app.services import feed

    draft = make_post(other, published=False)
    digest = api_key.digest(make_key(moderator))
    questions: list[feed.PageQuery | feed.PostQuery] = [
        feed.PageQuery("new", 10, owner_id=other.id, is_drafts=True),
        feed.PostQuery(draft),
    ]
    with at_once() as queue:
        (grant,) = api_key.look_up(queue, [digest])
        assert isinstance(grant, api_key.Grant)
        asked = [feed.PageRequest(token, query) for query in questions
                 for token in (grant.token, access_tokens.verify(moderator.token))]  # fmt: skip
        by_key, by_person, post_by_key, post_by_person = feed.read(queue, asked)

    assert isinstance(by_key, feed.PageResponse)
    assert isinstance(by_person, feed.PageResponse)
    assert ([row.id for row in by_key.page.rows], [row.id for row in by_person.page.rows]) == ([], [draft])
    assert isinstance(post_by_key, PostNotFound)
    assert isinstance(post_by_person, feed.PageResponse)


@pytest.mark.parametrize("role", ["moderator", "admin"])
def test_a_key_deletes_no_post_of_others_and_its_owner_does(
    client: TestClient, make_key: MakeKey, make_post: Callable[..., int], make_person: Callable[..., Person],
    other: Person, rows: Rows, role: str,
) -> None:  # fmt: skip
    owner = make_person(role=role)
    theirs, draft, own = make_post(other), make_post(other, published=False), make_post(owner)
    key = bearer(make_key(owner))

    assert_refused(client.delete(f"/posts/{theirs}", headers=key), 403, "not_authorized")
    assert_refused(client.delete(f"/posts/{draft}", headers=key), 404, "post_not_found")
    assert client.delete(f"/posts/{own}", headers=key).status_code == 204

    assert rows("SELECT id FROM posts ORDER BY id") == [(theirs,), (draft,)]
    assert client.delete(f"/posts/{theirs}", headers=owner.headers).status_code == 204


ENDINGS = {
    "deleted": "DELETE FROM sessions WHERE kind = 'api_key' RETURNING 1",
    "expired": "UPDATE sessions SET expires_at = now() WHERE kind = 'api_key' RETURNING 1",
    "account disabled": "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
    "account deleted": "DELETE FROM users WHERE id = :id RETURNING 1",
}


@pytest.mark.parametrize("is_remembered", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("scope", [["read"], ["read", "write"]])
@pytest.mark.parametrize(("method", "path"), [("GET", "/posts"), ("POST", "/posts"), ("POST", "/vote"),
                                              ("GET", "/users/me"), ("POST", "/api-keys")])  # fmt: skip
def test_a_key_that_has_ended_is_refused_at_once_whether_or_not_it_was_met_before(
    client: TestClient, make_key: MakeKey, person: Person, rows: Rows, method: str, path: str, scope: list[str],
    ending: str, is_remembered: bool,
) -> None:  # fmt: skip
    key = make_key(person, *scope)
    if is_remembered:
        assert client.get("/posts", headers=bearer(key)).status_code == 200
    assert rows(ENDINGS[ending], **({"id": person.id} if ":id" in ENDINGS[ending] else {})) == [(1,)]

    assert_unauthenticated(client.request(method, path, json=body_of(method), headers=bearer(key)))

    assert rows("SELECT 1 FROM posts") == []


def test_ending_a_key_ends_it_and_no_other(client: TestClient, make_key: MakeKey, person: Person, rows: Rows) -> None:
    ended, kept = make_key(person), make_key(person)
    for key in (ended, kept):
        assert client.get("/posts", headers=bearer(key)).status_code == 200
    ((key_id,), _) = rows("SELECT session_id FROM api_keys ORDER BY session_id")

    assert client.delete(f"/api-keys/{key_id}", headers=person.headers).status_code == 204

    assert_unauthenticated(client.get("/posts", headers=bearer(ended)))
    assert client.get("/posts", headers=bearer(kept)).status_code == 200
    assert client.get("/users/me", headers=person.headers).status_code == 200
    assert client.delete(f"/api-keys/{key_id}", headers=person.headers).status_code == 404


def test_a_new_password_ends_every_key(client: TestClient, make_key: MakeKey, person: Person, rows: Rows) -> None:
    key = make_key(person)
    change = {"password": "another good password", "current_password": PASSWORD}

    assert client.patch("/users/me", json=change, headers=person.headers).status_code == 200

    assert_unauthenticated(client.get("/posts", headers=bearer(key)))
    assert rows("SELECT 1 FROM api_keys") == []


def test_a_key_with_an_expiry_shows_it_works_until_then_and_leaves_the_list(
    client: TestClient, make_key: MakeKey, person: Person, rows: Rows
) -> None:
    end = (datetime.now(UTC) + timedelta(days=7)).replace(microsecond=0)
    key = make_key(person, expires_at=end.isoformat())

    (shown,) = client.get("/api-keys", headers=person.headers).json()
    assert datetime.fromisoformat(shown["expires_at"]) == end
    assert rows("SELECT expires_at, ends_at FROM sessions WHERE kind = 'api_key'") == [(end, end)]
    assert client.get("/posts", headers=bearer(key)).status_code == 200
    rows("UPDATE sessions SET expires_at = now() WHERE kind = 'api_key' RETURNING 1")
    assert client.get("/api-keys", headers=person.headers).json() == []


def altered(key: str, place: int) -> str:
    return key[:place] + ("b" if key[place] != "b" else "c") + key[place + 1 :]


def test_a_mistyped_key_costs_no_query(client: TestClient, make_key: MakeKey, person: Person, database: Engine) -> None:
    key = make_key(person)

    with counted_queries(database) as statements:
        for place in range(len(key)):
            assert_unauthenticated(client.get("/posts", headers=bearer(altered(key, place))))
        for bad in (key[:-1], key + "A", key.lower(), key.replace("_", "-"), "spk_", key + "\u00e9"):
            assert client.get("/posts", headers={b"X-API-Key": bad.encode()}).status_code == 401

    assert statements == []


def look_ups(statements: list[str]) -> int:
    return sum("FROM api_keys" in statement for statement in statements)


def test_a_known_key_is_looked_up_once_and_an_unknown_one_each_time(
    client: TestClient, make_key: MakeKey, person: Person, database: Engine
) -> None:
    unknown, known = bearer(api_key.make_key()), bearer(make_key(person))

    with counted_queries(database) as statements:
        for _ in range(3):
            assert_unauthenticated(client.get("/posts", headers=unknown))
    assert statements == statements[:1] * 3
    assert look_ups(statements) == 3
    with counted_queries(database) as statements:
        for _ in range(3):
            assert client.get("/posts", headers=known).status_code == 200
    assert look_ups(statements) == 1


def test_use_is_shown_and_puts_off_no_end(
    client: TestClient, make_key: MakeKey, person: Person, rows: Rows, connection: Connection
) -> None:
    keys = [make_key(person), make_key(person, expires_at=(datetime.now(UTC) + timedelta(days=90)).isoformat())]
    rows(
        "UPDATE sessions SET created_at = now() - interval '1 day', last_seen_at = now() - interval '1 day' RETURNING 1"
    )
    ends = rows("SELECT id, expires_at, ends_at FROM sessions WHERE kind = 'api_key' ORDER BY id")

    for key in keys:
        assert client.get("/posts", headers=bearer(key)).status_code == 200

    recent = "SELECT count(*) = 2 FROM sessions WHERE kind = 'api_key' AND last_seen_at > now() - interval '1 minute'"
    wait_until(connection, recent)
    shown = client.get("/api-keys", headers=person.headers).json()
    assert all(datetime.fromisoformat(key["last_used_at"]) > datetime.now(UTC) - timedelta(minutes=1) for key in shown)
    assert rows("SELECT id, expires_at, ends_at FROM sessions WHERE kind = 'api_key' ORDER BY id") == ends


def test_keys_are_not_listed_as_devices(client: TestClient, make_key: MakeKey, person: Person, rows: Rows) -> None:
    key = make_key(person)
    ((key_id,),) = rows("SELECT session_id FROM api_keys")

    assert [one["id"] for one in client.get("/sessions", headers=person.headers).json()] == [person.session_id]
    assert client.delete(f"/sessions/{key_id}", headers=person.headers).status_code == 404
    assert client.delete("/sessions", headers=person.headers).status_code == 204
    assert client.get("/posts", headers=bearer(key)).status_code == 200


def test_a_key_takes_precedence_over_a_cookie_and_needs_no_page_of_this_origin(
    client: TestClient, make_key: MakeKey, person: Person, other: Person
) -> None:
    cookie = access_tokens.issue(other.id, other.session_id, timedelta(minutes=5), "cookie")
    headers = {"X-API-Key": make_key(person), "Cookie": f"session={cookie}", "Sec-Fetch-Site": "cross-site"}

    written = client.post("/posts", json={"title": "t", "content": "c"}, headers=headers)

    assert written.status_code == 201
    assert written.json()["owner_id"] == person.id
    assert_unauthenticated(client.get("/posts", headers=headers | {"X-API-Key": "garbage"}))


def test_the_cache_of_keys_is_bounded_and_an_evicted_key_works(
    client: TestClient, make_key: MakeKey, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MAX_REMEMBERED", 2)
    authentication._remembered.clear()
    keys = [make_key(person) for _ in range(4)]

    for key in keys * 2:
        assert client.get("/posts", headers=bearer(key)).status_code == 200
        assert len(authentication._remembered) <= 2


def test_no_key_is_logged(
    client: TestClient, make_key: MakeKey, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key = make_key(person, "read")
    client.get("/posts", headers=bearer(key))
    client.post("/posts", json={}, headers={"X-API-Key": key})

    assert key[4:] not in caplog.text
    assert "api_key_created" in caplog.text
