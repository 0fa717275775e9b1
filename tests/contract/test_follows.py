"""`/users/{id}/follow`, `/followers` and `/following`."""

from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person, linked

MakePerson = Callable[..., Person]
FOLLOWS = "SELECT follower_id, followee_id FROM follows ORDER BY 1, 2"


def follow(client: TestClient, caller: Person, user: Person) -> httpx2.Response:
    return client.put(f"/users/{user.id}/follow", headers=caller.headers)


def unfollow(client: TestClient, caller: Person, user: Person) -> httpx2.Response:
    return client.delete(f"/users/{user.id}/follow", headers=caller.headers)


def state(user: Person, *, followers: int, followed: bool) -> dict[str, object]:
    return {"user_id": user.id, "followers": followers, "followed": followed}


def ids(client: TestClient, path: str, viewer: Person) -> list[int]:
    response = client.get(path, headers=viewer.headers)
    assert response.status_code == 200, response.text
    return [user["id"] for user in response.json()]


def test_follow_and_unfollow_are_idempotent_and_answer_the_fresh_state(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, rows: Rows
) -> None:
    follow(client, make_person(), other)
    for _ in range(2):
        response = follow(client, person, other)
        assert (response.status_code, response.json()) == (200, state(other, followers=2, followed=True))
    assert (person.id, other.id) in rows(FOLLOWS)
    for _ in range(2):
        response = unfollow(client, person, other)
        assert (response.status_code, response.json()) == (200, state(other, followers=1, followed=False))
    assert len(rows(FOLLOWS)) == 1


def test_profiles_show_counts_and_whether_the_caller_follows(client: TestClient, person: Person, other: Person) -> None:
    follow(client, person, other)

    def shown(of: Person, viewer: Person | None) -> tuple[int, int, bool]:
        body = client.get(f"/users/{of.id}", headers=viewer.headers if viewer else {}).json()
        return body["followers"], body["following"], body["followed"]

    assert shown(other, person) == (1, 0, True)
    assert shown(other, None) == shown(other, other) == (1, 0, False)
    assert shown(person, other) == (0, 1, False)
    me = client.get("/users/me", headers=person.headers).json()
    assert (me["followers"], me["following"], me["followed"]) == (0, 1, False)
    named = client.get(f"/users/by-username/user{other.id}", headers=person.headers).json()
    assert named == client.get(f"/users/{other.id}", headers=person.headers).json()


def test_users_cannot_follow_themselves(client: TestClient, person: Person, rows: Rows) -> None:
    for response in (follow(client, person, person), unfollow(client, person, person)):
        assert_refused(response, 422, "not_yourself", "You cannot follow or block yourself")
    assert rows(FOLLOWS) == []


@pytest.mark.parametrize(
    "change", ["DELETE FROM users WHERE id = :id", "UPDATE users SET is_deleted = true WHERE id = :id"]
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_missing_and_deleted_users_are_not_found(
    client: TestClient, person: Person, other: Person, connection: Connection, change: str, method: str
) -> None:
    follow(client, person, other)
    follow(client, other, person)
    connection.execute(text(change), {"id": other.id})

    for user_id in (other.id, 0, -1, 2**63):
        response = client.request(method, f"/users/{user_id}/follow", headers=person.headers)
        assert_refused(response, 404, "user_not_found")
    for path in ("followers", "following"):
        assert_refused(client.get(f"/users/{other.id}/{path}", headers=person.headers), 404, "user_not_found")


def test_follow_past_the_quota_is_refused_until_another_ends(
    client: TestClient, person: Person, make_person: MakePerson, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "follows_max", 2)
    first, second, third = (make_person() for _ in range(3))
    for user in (first, second):
        assert follow(client, person, user).status_code == 200

    detail = "Your account has the maximum of 2 followed users; delete one first"
    assert_refused(follow(client, person, third), 409, "quota_exceeded", detail)

    assert len(rows(FOLLOWS)) == 2
    assert follow(client, person, first).status_code == 200
    assert follow(client, third, person).status_code == 200
    unfollow(client, person, first)
    assert follow(client, person, third).status_code == 200


def test_api_key_with_the_scope_follows(client: TestClient, person: Person, other: Person) -> None:
    def key(*scopes: str) -> dict[str, str]:
        body = {"name": "k", "scopes": scopes}
        return {"X-API-Key": client.post("/api-keys", json=body, headers=person.headers).json()["key"]}

    assert client.put(f"/users/{other.id}/follow", headers=key("read", "write")).json()["followed"]
    assert_refused(client.delete(f"/users/{other.id}/follow", headers=key("read")), 403, "insufficient_scope")
    assert client.get(f"/users/{other.id}/followers", headers=key("read")).json()[0]["id"] == person.id


# Lists.


def test_lists_show_the_newest_follow_first_and_no_email_address(
    client: TestClient, person: Person, make_person: MakePerson
) -> None:
    fans = [make_person(username=f"fan-{number}") for number in range(3)]
    for fan in (fans[1], fans[0], fans[2]):
        follow(client, fan, person)
        follow(client, person, fan)

    expected = [fans[2].id, fans[0].id, fans[1].id]
    assert ids(client, f"/users/{person.id}/followers", person) == expected
    assert ids(client, f"/users/{person.id}/following", fans[0]) == expected
    assert ids(client, f"/users/{fans[0].id}/following", person) == [person.id]
    (first, *_) = client.get(f"/users/{person.id}/followers", headers=fans[0].headers).json()
    assert first == {"id": fans[2].id, "username": "fan-2", "display_name": None, "avatar": None}
    unfollow(client, fans[0], person)
    follow(client, fans[0], person)
    assert ids(client, f"/users/{person.id}/followers", person) == [fans[0].id, fans[2].id, fans[1].id]


@pytest.mark.parametrize("path", ["followers", "following"])
def test_walk_meets_each_follow_once_also_of_one_time(
    client: TestClient, person: Person, connection: Connection, path: str
) -> None:
    """Three follows have one time each. One account is deleted meanwhile, and another begins to follow."""
    users = connection.scalars(
        text("""
            INSERT INTO users (email, email_canonical, password_hash)
            SELECT 'fan' || n, 'fan' || n, '' FROM generate_series(1, 8) AS n RETURNING id
        """)
    ).all()
    columns = "followee_id, follower_id" if path == "followers" else "follower_id, followee_id"
    follows = text(f"""
        INSERT INTO follows ({columns}, created_at)
        SELECT :id, user_id, timestamptz '2026-11-01Z' + interval '1 s' * (n / 3)
        FROM unnest(CAST(:users AS bigint[])) WITH ORDINALITY AS fan (user_id, n)
    """)
    connection.execute(follows, {"id": person.id, "users": users[:7]})
    assert ids(client, f"/users/{person.id}/{path}", person) == users[6::-1]

    met: list[int] = []
    address: str | None = f"/users/{person.id}/{path}?limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        met += [user["id"] for user in response.json()]
        assert len(response.json()) <= 2
        address = linked(response)
        connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": users[2]})
        connection.execute(
            text(f"INSERT INTO follows ({columns}) VALUES (:id, :new) ON CONFLICT DO NOTHING"),
            {"id": person.id, "new": users[7]},
        )

    assert met == [users[n] for n in (6, 5, 4, 3, 1, 0)]


def test_cursor_of_another_list_is_refused(client: TestClient, person: Person, make_person: MakePerson) -> None:
    for _ in range(2):
        fan = make_person()
        follow(client, fan, person)
        follow(client, person, fan)
    cursors = {
        path: client.get(f"/users/{person.id}/{path}?limit=1", headers=person.headers).links["next"]["url"]
        for path in ("followers", "following")
    }
    for path, made_for in (("followers", "following"), ("following", "followers")):
        response = client.get(f"/users/{person.id}/{path}{cursors[made_for]}", headers=person.headers)
        assert_refused(response, 422, "malformed_cursor")
        response = client.get(f"/users/{person.id + 1}/{path}{cursors[path]}", headers=person.headers)
        assert_refused(response, 422, "malformed_cursor")
    assert_refused(
        client.get(f"/users/me/votes{cursors['followers']}", headers=person.headers), 422, "malformed_cursor"
    )


def test_deleting_an_account_corrects_the_counts_of_others(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, rows: Rows
) -> None:
    third = make_person()
    for caller, user in ((person, other), (other, person), (third, other), (other, third)):
        follow(client, caller, user)

    assert client.delete("/users/me", headers=other.headers).status_code == 204

    assert rows(FOLLOWS) == []
    assert rows("SELECT user_id, followers, following FROM user_stats ORDER BY 1") == [
        (person.id, 0, 0), (third.id, 0, 0),
    ]  # fmt: skip
