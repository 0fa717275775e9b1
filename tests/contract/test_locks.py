"""`/posts/{id}/lock` and `/unlock`."""

from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person

MakePost = Callable[..., int]


@pytest.fixture
def moderator(make_person: Callable[..., Person]) -> Person:
    return make_person(role="moderator")


def lock(client: TestClient, caller: Person, post_id: int, action: str = "lock") -> httpx2.Response:
    return client.post(f"/posts/{post_id}/{action}", headers=caller.headers)


def comment(client: TestClient, caller: Person, post_id: int, parent_id: int | None = None) -> httpx2.Response:
    body = {"content": "Hello", "parent_id": parent_id}
    return client.post(f"/posts/{post_id}/comments", json=body, headers=caller.headers)


def test_locked_post_accepts_no_comments_until_it_is_unlocked(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows
) -> None:
    post_id, unlocked = make_post(person), make_post(person)
    parent_id = comment(client, person, post_id).json()["id"]

    for _ in range(2):
        response = lock(client, moderator, post_id)
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "locked": True})

    for caller in (person, moderator):
        for parent in (None, parent_id):
            assert_refused(comment(client, caller, post_id, parent), 403, "locked")
    assert rows("SELECT id FROM comments") == [(parent_id,)]
    assert comment(client, person, unlocked).status_code == 201
    # What is there can still be read, changed, voted for and removed.
    assert client.put(f"/comments/{parent_id}/vote", headers=moderator.headers).status_code == 200
    assert client.patch(f"/comments/{parent_id}", json={"content": "x"}, headers=person.headers).status_code == 200
    for _ in range(2):
        response = lock(client, moderator, post_id, "unlock")
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "locked": False})
    assert comment(client, person, post_id, parent_id).status_code == 201


def test_posts_show_whether_they_are_locked(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    path = f"/posts/{post_id}"
    before = client.get(path, headers=person.headers)
    assert before.json()["Post"]["locked"] is False

    lock(client, moderator, post_id)

    after = client.get(path, headers=person.headers | {"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.json()["Post"]["locked"]) == (200, True)
    assert client.get("/posts", headers=person.headers).json()[0]["Post"]["locked"] is True
    changed = client.patch(path, json={"title": "New"}, headers=person.headers)
    assert (changed.status_code, changed.json()["locked"]) == (200, True)


def test_lock_that_changes_nothing_keeps_the_etag(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    before = client.get(f"/posts/{post_id}", headers=person.headers).headers["ETag"]
    lock(client, moderator, post_id, "unlock")
    assert client.get(f"/posts/{post_id}", headers=person.headers).headers["ETag"] == before


@pytest.mark.parametrize("action", ["lock", "unlock"])
def test_only_moderators_lock_posts_and_only_posts_that_exist(
    client: TestClient, person: Person, moderator: Person, make_post: MakePost, rows: Rows, action: str
) -> None:
    post_id = make_post(person)
    body = {"name": "k", "scopes": ["read", "write"]}
    key = {"X-API-Key": client.post("/api-keys", json=body, headers=moderator.headers).json()["key"]}

    assert_refused(lock(client, person, post_id, action), 403, "not_authorized")
    assert_refused(client.post(f"/posts/{post_id}/{action}", headers=key), 403, "insufficient_scope")
    for missing in (0, post_id + 1000, 2**63):
        assert_refused(lock(client, moderator, missing, action), 404, "post_not_found")
    assert rows("SELECT locked, version FROM posts") == [(False, 1)]
