"""`/token/refresh`, `/logout` and `/sessions`: refreshing, listing and ending sessions."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.security.refresh_tokens import RefreshToken
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person, linked

Pair = dict[str, Any]


def bearer(pair: Pair) -> dict[str, str]:
    return {"Authorization": f"Bearer {pair['access_token']}"}


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., Pair]:
    """Sign a user in once more and return the response: `sign_in(person, user_agent="…")`."""

    def sign_in(person: Person, user_agent: str = "testclient") -> Pair:
        form = {"username": person.email, "password": PASSWORD}
        response = client.post("/login", data=form, headers={"User-Agent": user_agent})
        assert response.status_code == 200
        pair: Pair = response.json()
        return pair

    return sign_in


@pytest.fixture
def refresh(client: TestClient) -> Callable[[str], Any]:
    return lambda token: client.post("/token/refresh", json={"refresh_token": token})


@pytest.fixture
def pair(sign_in: Callable[..., Pair], person: Person) -> Pair:
    """The tokens of a session of the person's."""
    return sign_in(person)


Refresh = Callable[[str], Any]
LATER = "UPDATE sessions SET refreshed_at = refreshed_at - interval '11 seconds' RETURNING 1"


def test_a_refresh_token_gives_a_new_pair_in_the_same_session(
    client: TestClient, person: Person, pair: Pair, refresh: Refresh, rows: Rows
) -> None:
    before = rows("SELECT id, last_seen_at FROM sessions WHERE refresh_family IS NOT NULL")

    response = refresh(pair["refresh_token"])

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    new = response.json()
    assert set(new) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (new["token_type"], new["expires_in"]) == ("bearer", 30 * 60)
    assert new["refresh_token"] != pair["refresh_token"]
    assert new["access_token"] != pair["access_token"]
    assert client.get("/users/me", headers=bearer(new)).json()["id"] == person.id
    after = rows("SELECT id, last_seen_at FROM sessions WHERE refresh_family IS NOT NULL")
    assert [session_id for session_id, _ in after] == [session_id for session_id, _ in before]
    assert after[0][1] > before[0][1]


def test_only_hashes_of_refresh_tokens_are_kept(person: Person, pair: Pair, refresh: Refresh, rows: Rows) -> None:
    token = RefreshToken.read(pair["refresh_token"])
    following = RefreshToken.read(refresh(pair["refresh_token"]).json()["refresh_token"])

    ((row,),) = rows("SELECT sessions::text FROM sessions WHERE id > :id", id=person.session_id)

    assert following.hash.hex() in row
    for secret in (token.family, token.secret, following.secret, token.hash):
        assert secret.hex() not in row
    assert str(token) not in row
    assert "secret" not in repr(token)


def test_refresh_tokens_can_be_exchanged_repeatedly(pair: Pair, refresh: Refresh) -> None:
    tokens = [pair["refresh_token"]]
    for _ in range(10):
        response = refresh(tokens[-1])
        assert response.status_code == 200
        tokens.append(response.json()["refresh_token"])
    assert len(set(tokens)) == 11


def test_a_lost_response_can_be_repeated_for_a_few_seconds(
    client: TestClient, pair: Pair, refresh: Refresh, rows: Rows
) -> None:
    lost = refresh(pair["refresh_token"]).json()

    again = refresh(pair["refresh_token"])

    assert again.status_code == 200
    # One chain: a copy of the old token leads to the owner's token, and to no second chain.
    assert again.json()["refresh_token"] == lost["refresh_token"]
    assert client.get("/users/me", headers=bearer(again.json())).status_code == 200
    assert refresh(lost["refresh_token"]).status_code == 200
    assert len(rows("SELECT 1 FROM sessions WHERE refresh_family IS NOT NULL")) == 1


def test_a_token_that_is_replayed_ends_the_session(
    client: TestClient, person: Person, pair: Pair, refresh: Refresh, rows: Rows
) -> None:
    new = refresh(pair["refresh_token"]).json()
    assert rows(LATER)

    assert_unauthenticated(refresh(pair["refresh_token"]))

    assert rows("SELECT id FROM sessions") == [(person.session_id,)]  # The other session has nothing to do with it.
    assert_unauthenticated(refresh(new["refresh_token"]))
    for dead in (pair, new):
        assert_unauthenticated(client.get("/posts", headers=bearer(dead)))
        assert_unauthenticated(client.get("/users/me", headers=bearer(dead)))
    assert client.get("/users/me", headers=person.headers).status_code == 200


def test_a_token_before_the_last_one_has_no_grace(pair: Pair, refresh: Refresh, rows: Rows) -> None:
    second = refresh(pair["refresh_token"]).json()
    third = refresh(second["refresh_token"]).json()

    assert_unauthenticated(refresh(pair["refresh_token"]))

    assert rows("SELECT 1 FROM sessions WHERE refresh_family IS NOT NULL") == []
    assert_unauthenticated(refresh(third["refresh_token"]))


def test_a_token_made_up_for_a_session_ends_it(pair: Pair, refresh: Refresh, rows: Rows) -> None:
    """Only the holder of a token of the session knows its family."""
    assert_unauthenticated(refresh(str(RefreshToken.read(pair["refresh_token"]).next())))

    assert rows("SELECT 1 FROM sessions WHERE refresh_family IS NOT NULL") == []


def test_a_replay_is_reported(
    person: Person, pair: Pair, refresh: Refresh, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    refresh(pair["refresh_token"])
    assert rows(LATER)
    caplog.set_level("INFO", "app.audit")

    refresh(pair["refresh_token"])

    assert rows("SELECT event FROM security_events WHERE user_id = :id AND event = 'refresh_replayed'", id=person.id)
    assert "refresh_replayed" in caplog.text
    assert pair["refresh_token"] not in caplog.text


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: "",
        lambda _: "garbage",
        lambda pair: pair["access_token"][:200],
        lambda pair: pair["refresh_token"].removeprefix("refresh_"),
        lambda pair: pair["refresh_token"] + "=",
        lambda pair: pair["refresh_token"][:-1],
        lambda pair: " " + pair["refresh_token"],
        lambda pair: pair["refresh_token"] + "\n",
        lambda pair: pair["refresh_token"].replace("_", "é", 1),
        lambda _: str(RefreshToken.first()),
    ],
)
def test_invalid_refresh_tokens_refresh_and_end_no_session(
    pair: Pair, refresh: Refresh, rows: Rows, forge: Callable[[Pair], str]
) -> None:
    before = rows("SELECT sessions::text FROM sessions ORDER BY id")

    assert_unauthenticated(refresh(forge(pair)))

    assert rows("SELECT sessions::text FROM sessions ORDER BY id") == before


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}, {"refresh_token": 7}, {"refresh_token": "x" * 201}, []])
def test_a_malformed_refresh_is_malformed(client: TestClient, body: Any) -> None:
    assert_refused(client.post("/token/refresh", json=body), 422, "validation_failed")


def test_access_and_refresh_tokens_are_not_interchangeable(client: TestClient, pair: Pair, refresh: Refresh) -> None:
    assert refresh(pair["access_token"]).status_code in {401, 422}
    for name in ("access_token", "refresh_token"):
        headers = {"Authorization": f"Bearer {pair[name]}"}
        assert client.get("/posts", headers=headers).status_code == (200 if name == "access_token" else 401)


ENDINGS = {
    "expired, unused for too long": "UPDATE sessions SET expires_at = now() RETURNING 1",
    "ended": "DELETE FROM sessions WHERE refresh_family IS NOT NULL RETURNING 1",
    "of a disabled account": "UPDATE users SET is_active = false RETURNING 1",
    "of a deleted account": "DELETE FROM users RETURNING 1",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_session_is_refreshed_after_its_end(pair: Pair, refresh: Refresh, rows: Rows, ending: str) -> None:
    assert rows(ENDINGS[ending])

    assert_unauthenticated(refresh(pair["refresh_token"]))


def test_refreshing_puts_off_the_idle_end_but_never_the_absolute_one(pair: Pair, refresh: Refresh, rows: Rows) -> None:
    in_days = "SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM sessions WHERE refresh_family NOTNULL"
    assert rows(in_days) == [(14,)]
    assert rows("UPDATE sessions SET expires_at = now() + interval '1 day' RETURNING 1")
    token = refresh(pair["refresh_token"]).json()["refresh_token"]
    assert rows(in_days) == [(14,)]

    assert rows("UPDATE sessions SET ends_at = now() + interval '5 days' RETURNING 1")
    assert refresh(token).status_code == 200

    assert rows(in_days) == [(5,)]


@pytest.mark.parametrize("path", ["/logout", "/logout/", "/v1/logout"])
def test_signing_out_ends_every_credential_of_the_session_and_no_other(
    client: TestClient, person: Person, pair: Pair, refresh: Refresh, rows: Rows, path: str
) -> None:
    assert client.get("/posts", headers=bearer(pair)).status_code == 200

    response = client.post(path, headers=bearer(pair))

    assert response.status_code == 204
    assert response.content == b""
    assert "set-cookie" not in response.headers
    assert_unauthenticated(client.get("/posts", headers=bearer(pair)))
    assert_unauthenticated(refresh(pair["refresh_token"]))
    assert_unauthenticated(client.post(path, headers=bearer(pair)))
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert client.get("/posts", headers=person.headers).status_code == 200


def test_sessions_are_listed_with_their_devices_the_newest_first(
    client: TestClient, person: Person, other: Person, sign_in: Callable[..., Pair], rows: Rows
) -> None:
    sign_in(other)
    sign_in(person, "a telephone")
    mine = sign_in(person, "a laptop")

    response = client.get("/sessions", headers=bearer(mine))

    assert response.status_code == 200
    laptop, telephone, first = response.json()
    assert set(laptop) == {"id", "user_agent", "address", "created_at", "last_seen_at", "expires_at", "current"}
    assert (laptop["user_agent"], laptop["address"], laptop["current"]) == ("a laptop", "testclient", True)
    assert (telephone["user_agent"], telephone["current"]) == ("a telephone", False)
    assert (first["id"], first["user_agent"], first["current"]) == (person.session_id, None, False)
    assert laptop["created_at"].endswith("Z")
    assert rows("SELECT count(*) FROM sessions") == [(5,)]


def test_ended_sessions_and_api_keys_are_not_listed_as_devices(
    client: TestClient, person: Person, sign_in: Callable[..., Pair], rows: Rows
) -> None:
    mine = sign_in(person)
    rows("UPDATE sessions SET expires_at = now() WHERE id = :id RETURNING 1", id=person.session_id)
    key = "INSERT INTO sessions (user_id, kind, expires_at, ends_at) VALUES (:id, 'api_key', 'infinity', 'infinity') RETURNING id"  # noqa: E501
    ((key_id,),) = rows(key, id=person.id)

    assert [session["current"] for session in client.get("/sessions", headers=bearer(mine)).json()] == [True]
    assert_refused(client.delete(f"/sessions/{key_id}", headers=bearer(mine)), 404, "session_not_found")
    assert client.delete("/sessions", headers=bearer(mine)).status_code == 204
    assert rows("SELECT id FROM sessions WHERE kind = 'api_key'") == [(key_id,)]


def test_sessions_are_listed_page_by_page(
    client: TestClient, person: Person, make_person: Callable[..., Person], rows: Rows
) -> None:
    rows("INSERT INTO sessions (user_id, expires_at) SELECT :id, now() + interval '1 day' FROM generate_series(1, 6) "
         "RETURNING 1", id=person.id)  # fmt: skip
    path: str | None = "/sessions?limit=3"
    pages = []
    while path:
        response = client.get(path, headers=person.headers)
        pages.append([session["id"] for session in response.json()])
        path = linked(response)

    assert [len(page) for page in pages] == [3, 3, 1]
    everything = [session_id for page in pages for session_id in page]
    assert everything == sorted(everything, reverse=True)
    assert everything[-1] == person.session_id
    admin = make_person(role="admin")
    elses = client.get("/users?limit=1", headers=admin.headers).links["next"]["url"].partition("cursor=")[2]
    assert_refused(client.get(f"/sessions?cursor={elses}", headers=person.headers), 422, "malformed_cursor")


def test_one_session_is_ended(client: TestClient, person: Person, pair: Pair, refresh: Refresh, rows: Rows) -> None:
    lost = client.get("/sessions", headers=bearer(pair)).json()[0]["id"]

    assert client.delete(f"/sessions/{lost}", headers=person.headers).status_code == 204

    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert_unauthenticated(client.get("/posts", headers=bearer(pair)))
    assert_unauthenticated(refresh(pair["refresh_token"]))
    assert_refused(client.delete(f"/sessions/{lost}", headers=person.headers), 404, "session_not_found")


def test_the_current_session_can_be_ended_by_id(client: TestClient, person: Person, rows: Rows) -> None:
    assert client.delete(f"/sessions/{person.session_id}", headers=person.headers).status_code == 204

    assert rows("SELECT 1 FROM sessions") == []
    assert_unauthenticated(client.get("/posts", headers=person.headers))


@pytest.mark.parametrize("role", ["user", "admin"])
def test_sessions_of_other_users_are_not_found(
    client: TestClient, other: Person, make_person: Callable[..., Person], rows: Rows, role: str
) -> None:
    person = make_person(role=role)

    response = client.delete(f"/sessions/{other.session_id}", headers=person.headers)

    assert_refused(response, 404, "session_not_found", f"session with id: {other.session_id} was not found")
    assert rows("SELECT count(*) FROM sessions") == [(2,)]


@pytest.mark.parametrize("session_id", ["0", "-1", str(2**63), str(10**30)])
def test_a_session_that_cannot_exist_is_not_found(client: TestClient, person: Person, session_id: str) -> None:
    assert_refused(client.delete(f"/sessions/{session_id}", headers=person.headers), 404, "session_not_found")


def test_all_other_sessions_are_ended(
    client: TestClient, person: Person, other: Person, sign_in: Callable[..., Pair], rows: Rows
) -> None:
    elsewhere = [sign_in(person) for _ in range(3)]

    assert client.delete("/sessions", headers=person.headers).status_code == 204

    assert rows("SELECT id FROM sessions ORDER BY id") == [(person.session_id,), (other.session_id,)]
    for dead in elsewhere:
        assert_unauthenticated(client.get("/posts", headers=bearer(dead)))
    assert client.get("/posts", headers=person.headers).status_code == 200


def test_users_who_disable_themselves_have_no_session_left(
    client: TestClient, admin: Person, other: Person, rows: Rows
) -> None:
    rows("UPDATE users SET role = 'admin' WHERE id = :id RETURNING 1", id=other.id)  # The last admin may not.
    assert client.patch("/users/me", json={"is_active": False}, headers=admin.headers).status_code == 200

    assert rows("SELECT id FROM sessions") == [(other.session_id,)]
