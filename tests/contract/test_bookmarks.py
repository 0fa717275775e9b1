"""`/posts/{id}/bookmark` and `/users/me/bookmarks`; `bookmarked` in lists and single posts."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person, linked

MakePost = Callable[..., int]
BOOKMARKS = "SELECT user_id, post_id FROM bookmarks ORDER BY 1, 2"


def bookmark(client: TestClient, person: Person, post_id: int) -> httpx2.Response:
    return client.put(f"/posts/{post_id}/bookmark", headers=person.headers)


def shown(client: TestClient, person: Person, path: str) -> Any:
    response = client.get(path, headers=person.headers)
    assert response.status_code == 200, response.text
    return response.json()


def ids(client: TestClient, person: Person, path: str = "/users/me/bookmarks") -> list[int]:
    return [item["Post"]["id"] for item in shown(client, person, path)]


def test_bookmarking_is_idempotent_and_answers_the_fresh_state(
    client: TestClient, person: Person, other: Person, make_post: MakePost, rows: Rows
) -> None:
    post_id = make_post(other)
    for _ in range(2):
        response = bookmark(client, person, post_id)
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "bookmarked": True})
    assert rows(BOOKMARKS) == [(person.id, post_id)]
    for _ in range(2):
        response = client.delete(f"/posts/{post_id}/bookmark", headers=person.headers)
        assert (response.status_code, response.json()) == (200, {"post_id": post_id, "bookmarked": False})
    assert rows(BOOKMARKS) == []


@pytest.mark.parametrize(
    "path", ["/posts", "/posts?sort=top", "/posts?search=title", "/posts?sort=top&owner_id={owner}", "/users/me/votes"]
)
def test_every_list_says_to_each_reader_what_they_bookmarked(
    client: TestClient, person: Person, other: Person, make_post: MakePost, path: str,
    cast_votes: Callable[[int, list[Person]], None],
) -> None:  # fmt: skip
    saved, voted = make_post(other), make_post(other)
    bookmark(client, person, saved)
    for post_id in (saved, voted):
        cast_votes(post_id, [person, other])
    address = path.format(owner=other.id)

    for reader, expected in ((person, {saved: True, voted: False}), (other, {saved: False, voted: False})):
        items = shown(client, reader, address)
        assert {item["Post"]["id"]: item["bookmarked"] for item in items} == expected
        assert all(item["voted"] for item in items)


def test_single_post_says_whether_the_reader_bookmarked_it(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id = make_post(other)
    before = client.get(f"/posts/{post_id}", headers=person.headers)
    theirs = client.get(f"/posts/{post_id}", headers=other.headers)
    bookmark(client, person, post_id)

    assert list(before.json()) == ["Post", "votes", "comments", "voted", "bookmarked"]
    assert before.json()["bookmarked"] is False
    assert shown(client, person, f"/posts/{post_id}") == before.json() | {"bookmarked": True}
    assert shown(client, other, f"/posts/{post_id}") == theirs.json()
    for reader, etag, status in ((person, before.headers["ETag"], 200), (other, theirs.headers["ETag"], 304)):
        again = client.get(f"/posts/{post_id}", headers=reader.headers | {"If-None-Match": etag})
        assert again.status_code == status


def test_bookmark_changes_the_etag_of_a_page_for_its_reader_only(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id = make_post(other)
    etags = {reader: client.get("/posts", headers=reader.headers).headers["ETag"] for reader in (person, other)}
    bookmark(client, person, post_id)

    for reader, status in ((person, 200), (other, 304)):
        answer = client.get("/posts", headers=reader.headers | {"If-None-Match": etags[reader]})
        assert answer.status_code == status


def test_bookmark_and_vote_of_one_post_have_etags_of_their_own(
    client: TestClient, person: Person, other: Person, make_post: MakePost, cast_votes: Callable[..., None]
) -> None:
    """Both readers have one relation to the post, and a vote counts for both."""
    post_id = make_post(other)
    bookmark(client, person, post_id)
    cast_votes(post_id, [other])

    mine, theirs = (client.get("/posts", headers=reader.headers) for reader in (person, other))
    assert mine.headers["ETag"] != theirs.headers["ETag"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_drafts_and_missing_posts_are_not_found(
    client: TestClient, person: Person, other: Person, make_post: MakePost, rows: Rows, method: str
) -> None:
    draft, own_draft = make_post(other, published=False), make_post(person, published=False)

    for post_id in (draft, own_draft, draft + 1000, 0, -1, 2**63):
        response = client.request(method, f"/posts/{post_id}/bookmark", headers=person.headers)
        assert_refused(response, 404, "post_not_found")
    assert rows(BOOKMARKS) == []


def test_posts_of_deleted_accounts_are_not_found(
    client: TestClient, person: Person, other: Person, make_post: MakePost, connection: Connection
) -> None:
    post_id = make_post(other)
    bookmark(client, person, post_id)
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": other.id})
    connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": other.id})

    assert_refused(bookmark(client, person, post_id), 404, "post_not_found")
    assert ids(client, person) == []


def test_bookmark_past_the_quota_is_refused_until_another_is_removed(
    client: TestClient, person: Person, make_post: MakePost, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "bookmarks_max", 2)
    posts = [make_post(person) for _ in range(3)]
    for post_id in posts[:2]:
        assert bookmark(client, person, post_id).status_code == 200

    detail = "Your account has the maximum of 2 bookmarks; delete one first"
    assert_refused(bookmark(client, person, posts[2]), 409, "quota_exceeded", detail)

    assert len(rows(BOOKMARKS)) == 2
    assert bookmark(client, person, posts[0]).status_code == 200
    client.delete(f"/posts/{posts[0]}/bookmark", headers=person.headers)
    assert bookmark(client, person, posts[2]).status_code == 200


# The list.


def test_list_is_private_and_has_the_newest_bookmark_first(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    posts = [make_post(other) for _ in range(3)]
    for post_id in (posts[1], posts[2], posts[0]):
        bookmark(client, person, post_id)

    response = client.get("/users/me/bookmarks", headers=person.headers)

    assert [item["Post"]["id"] for item in response.json()] == [posts[0], posts[2], posts[1]]
    assert all(item["bookmarked"] and not item["voted"] for item in response.json())
    assert ids(client, other) == []
    unchanged = client.get("/users/me/bookmarks", headers=person.headers | {"If-None-Match": response.headers["ETag"]})
    assert unchanged.status_code == 304


def test_bookmark_of_a_post_that_becomes_a_draft_comes_back_with_the_post(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id = make_post(other)
    bookmark(client, person, post_id)
    for is_published, expected in ((False, []), (True, [post_id])):
        client.patch(f"/posts/{post_id}", json={"published": is_published}, headers=other.headers)
        assert ids(client, person) == expected


def test_walk_meets_each_bookmark_once_and_none_that_is_made_meanwhile(
    client: TestClient, person: Person, make_post: MakePost
) -> None:
    posts = [make_post(person) for _ in range(6)]
    for post_id in posts[:5]:
        bookmark(client, person, post_id)

    met: list[int] = []
    address: str | None = "/users/me/bookmarks?limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        met += [item["Post"]["id"] for item in response.json()]
        address = linked(response)
        bookmark(client, person, posts[5])
        client.delete(f"/posts/{posts[4]}/bookmark", headers=person.headers)
        bookmark(client, person, posts[4])

    assert met == posts[4::-1]
    back = client.get("/users/me/bookmarks?limit=2", headers=person.headers)
    assert linked(back) is not None
    assert linked(client.get(linked(back) or "", headers=person.headers), "prev") is not None


def test_deleting_a_post_or_an_account_takes_the_bookmarks(
    client: TestClient, person: Person, other: Person, make_post: MakePost, rows: Rows
) -> None:
    first, second, own = make_post(other), make_post(other), make_post(person)
    for post_id in (first, second, own):
        bookmark(client, person, post_id)
    bookmark(client, other, own)

    assert client.delete(f"/posts/{first}", headers=other.headers).status_code == 204
    assert rows(BOOKMARKS) == sorted([(person.id, second), (person.id, own), (other.id, own)])
    assert client.delete("/users/me", headers=person.headers).status_code == 204
    assert rows(BOOKMARKS) == []
