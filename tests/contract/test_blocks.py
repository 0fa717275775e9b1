"""`/users/{id}/block` and `/users/me/blocks`; posts of blocked users in lists."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.contract.test_bookmarks import bookmark
from tests.contract.test_follows import follow
from tests.fixtures import Person, linked

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
BLOCKS = "SELECT blocker_id, blocked_id FROM blocks ORDER BY 1, 2"


def block(client: TestClient, caller: Person, user: Person) -> httpx2.Response:
    return client.put(f"/users/{user.id}/block", headers=caller.headers)


def unblock(client: TestClient, caller: Person, user: Person) -> httpx2.Response:
    return client.delete(f"/users/{user.id}/block", headers=caller.headers)


def ids(client: TestClient, headers: dict[str, str], path: str = "/posts") -> list[int]:
    response = client.get(path, headers=headers)
    assert response.status_code == 200, response.text
    items: list[Any] = response.json()
    return [item["Post"]["id"] for item in items]


def test_blocking_is_idempotent_and_answers_the_fresh_state(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    for _ in range(2):
        response = block(client, person, other)
        assert (response.status_code, response.json()) == (200, {"user_id": other.id, "blocked": True})
    assert rows(BLOCKS) == [(person.id, other.id)]
    for _ in range(2):
        response = unblock(client, person, other)
        assert (response.status_code, response.json()) == (200, {"user_id": other.id, "blocked": False})
    assert rows(BLOCKS) == []


def test_profile_shows_only_to_the_blocker_that_it_is_blocked(
    client: TestClient, person: Person, other: Person
) -> None:
    block(client, person, other)

    for path in (f"/users/{other.id}", f"/users/by-username/user{other.id}"):
        assert client.get(path, headers=person.headers).json()["blocked"] is True
        assert client.get(path, headers=other.headers).json()["blocked"] is False
        assert client.get(path).json()["blocked"] is False
    assert client.get(f"/users/{person.id}", headers=other.headers).json()["blocked"] is False
    for caller in (person, other):
        assert client.get("/users/me", headers=caller.headers).json()["blocked"] is False
    unblock(client, person, other)
    assert client.get(f"/users/{other.id}", headers=person.headers).json()["blocked"] is False


def test_block_ends_follows_in_both_directions_and_only_these(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, rows: Rows
) -> None:
    third = make_person()
    for caller, user in ((person, other), (other, person), (third, other), (person, third)):
        follow(client, caller, user)

    block(client, person, other)

    assert rows("SELECT follower_id, followee_id FROM follows ORDER BY 1, 2") == sorted(
        [(third.id, other.id), (person.id, third.id)]
    )
    counts = {user_id: counts for user_id, *counts in rows("SELECT user_id, followers, following FROM user_stats")}
    assert counts == {person.id: [0, 1], other.id: [1, 0], third.id: [1, 1]}


def test_neither_can_follow_the_other_until_the_block_ends(
    client: TestClient, person: Person, other: Person, rows: Rows
) -> None:
    block(client, person, other)

    for caller, user in ((other, person), (person, other)):
        assert_refused(follow(client, caller, user), 403, "blocked")
    assert rows("SELECT 1 FROM follows") == []
    unblock(client, person, other)
    assert follow(client, other, person).status_code == 200


def test_blocked_user_is_not_notified(client: TestClient, person: Person, other: Person) -> None:
    def seen() -> list[object]:
        paths = (f"/users/{person.id}", "/users/me", "/posts", "/users/me/blocks")
        return [client.get(path, headers=other.headers).json() for path in paths]

    before = seen()
    block(client, person, other)
    assert seen() == before


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_oneself_and_missing_users_are_refused(client: TestClient, person: Person, rows: Rows, method: str) -> None:
    own = client.request(method, f"/users/{person.id}/block", headers=person.headers)
    assert_refused(own, 422, "not_yourself", "You cannot follow or block yourself")
    for user_id in (0, -1, person.id + 1000, 2**63):
        response = client.request(method, f"/users/{user_id}/block", headers=person.headers)
        assert_refused(response, 404, "user_not_found")
    assert rows(BLOCKS) == []


def test_block_past_the_quota_is_refused_until_another_ends(
    client: TestClient, person: Person, make_person: MakePerson, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "blocks_max", 2)
    users = [make_person() for _ in range(3)]
    follow(client, person, users[2])
    for user in users[:2]:
        assert block(client, person, user).status_code == 200

    detail = "Your account has the maximum of 2 blocked users; delete one first"
    assert_refused(block(client, person, users[2]), 409, "quota_exceeded", detail)

    assert len(rows(BLOCKS)) == 2
    assert len(rows("SELECT 1 FROM follows")) == 1
    assert block(client, person, users[0]).status_code == 200
    unblock(client, person, users[0])
    assert block(client, person, users[2]).status_code == 200


def test_own_blocks_are_listed_newest_first_and_walked(
    client: TestClient, person: Person, other: Person, make_person: MakePerson
) -> None:
    users = [make_person(username=f"blocked-{number}") for number in range(3)]
    for user in (users[1], users[0], users[2]):
        block(client, person, user)

    whole = client.get("/users/me/blocks", headers=person.headers).json()
    assert [user["id"] for user in whole] == [users[2].id, users[0].id, users[1].id]
    assert whole[0] == {"id": users[2].id, "username": "blocked-2", "display_name": None, "avatar": None}
    first = client.get("/users/me/blocks?limit=2", headers=person.headers)
    following = linked(first)
    assert following is not None
    second = client.get(following, headers=person.headers)
    assert first.json() + second.json() == whole
    assert linked(second) is None
    assert client.get("/users/me/blocks", headers=other.headers).json() == []


# Lists of posts.

LISTS = ("/posts", "/posts?sort=hot", "/posts?search=title", "/posts?sort=top&created_after=2020-01-01",
         "/posts?owner_id={other}", "/users/me/votes", "/users/me/bookmarks")  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_posts_of_blocked_users_are_left_out_of_the_callers_lists_only(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost,
    cast_votes: Callable[..., None], path: str,
) -> None:  # fmt: skip
    third = make_person()
    hidden, seen = make_post(other), make_post(third)
    address = path.format(other=other.id)
    for reader in (person, third):
        for post_id in (hidden, seen):
            bookmark(client, reader, post_id)
            cast_votes(post_id, [reader])
    before = {reader: client.get(address, headers=reader.headers) for reader in (person, third)}
    block(client, person, other)

    after = client.get(address, headers=person.headers)
    assert set(ids(client, third.headers, address)) == {hidden, seen} - ({seen} if "owner_id" in path else set())
    assert ids(client, person.headers, address) == ([] if "owner_id" in path else [seen])
    assert after.headers["ETag"] != before[person].headers["ETag"]
    unchanged = client.get(address, headers=third.headers | {"If-None-Match": before[third].headers["ETag"]})
    assert unchanged.status_code == 304
    unblock(client, person, other)
    assert client.get(address, headers=person.headers).json() == before[person].json()


def test_blocked_user_still_sees_the_posts_of_the_blocker(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    block(client, person, other)

    assert ids(client, other.headers) == [post_id]


def test_walk_continues_past_a_page_of_hidden_posts(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    third = make_person()
    first = make_post(third)
    for _ in range(3):
        make_post(other)
    last = make_post(third)
    block(client, person, other)

    met, sizes = [], []
    address: str | None = "/posts?limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        met += [item["Post"]["id"] for item in response.json()]
        sizes.append(len(response.json()))
        address = linked(response)

    assert met == [last, first]
    assert sizes == [1, 0, 1]


def test_post_of_a_blocked_user_can_still_be_opened_by_its_address(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    post_id = make_post(other)
    block(client, person, other)

    assert client.get(f"/posts/{post_id}", headers=person.headers).json()["Post"]["id"] == post_id
    assert client.put(f"/posts/{post_id}/vote", headers=person.headers).status_code == 200


@pytest.mark.parametrize(("role", "is_shown"), [("user", False), ("moderator", True), ("admin", True)])
def test_moderators_see_through_their_blocks_but_not_with_an_api_key(
    client: TestClient, other: Person, make_person: MakePerson, make_post: MakePost, role: str, *, is_shown: bool
) -> None:
    blocker = make_person(role=role)
    post_id = make_post(other)
    body = {"name": "k", "scopes": ["read"]}
    key = {"X-API-Key": client.post("/api-keys", json=body, headers=blocker.headers).json()["key"]}
    block(client, blocker, other)

    assert ids(client, blocker.headers) == ([post_id] if is_shown else [])
    assert ids(client, key) == []


def test_deleting_an_account_takes_its_blocks(client: TestClient, person: Person, other: Person, rows: Rows) -> None:
    block(client, person, other)
    block(client, other, person)

    assert client.delete("/users/me", headers=other.headers).status_code == 204

    assert rows(BLOCKS) == []


def test_a_blocked_user_cannot_comment_on_posts_or_reply_to_comments_of_the_blocker(
    client: TestClient, person: Person, other: Person, make_post: MakePost, make_comment: Callable[..., int], rows: Rows
) -> None:
    own, of_other = make_post(person), make_post(other)
    parent = make_comment(person, of_other)
    block(client, person, other)

    def write(caller: Person, post_id: int, parent_id: int | None = None) -> httpx2.Response:
        body = {"content": "Hello", "parent_id": parent_id}
        return client.post(f"/posts/{post_id}/comments", json=body, headers=caller.headers)

    assert_refused(write(other, own), 403, "blocked")
    assert_refused(write(other, of_other, parent), 403, "blocked")
    assert rows("SELECT post_id, owner_id FROM comments") == [(of_other, person.id)]
    assert write(other, of_other).status_code == 201
    assert write(person, own).status_code == 201
    assert write(person, of_other).status_code == 201  # A block restricts only the blocked user.
    unblock(client, person, other)
    assert write(other, own).status_code == 201
    assert write(other, of_other, parent).status_code == 201


def contents(comments: list[Any]) -> list[Any]:
    """Return the texts of a thread: each with those of the replies below it."""
    return [[comment["content"], *contents(comment["replies"])] for comment in comments]


@pytest.mark.parametrize("sort", ["top", "new", "old"])
def test_comments_of_blocked_users_are_left_out_of_threads_with_the_replies_to_them(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost,
    make_comment: Callable[..., int], sort: str,
) -> None:  # fmt: skip
    third = make_person()
    post_id = make_post(third)
    seen = make_comment(third, post_id, content="seen")
    make_comment(other, post_id, parent_id=seen, content="hidden reply")
    make_comment(person, post_id, parent_id=seen, content="seen reply")
    hidden = make_comment(other, post_id, content="hidden")
    below = make_comment(third, post_id, parent_id=hidden, content="below a hidden one")
    make_comment(third, post_id, parent_id=below, content="deeper")
    block(client, person, other)

    def thread(reader: Person) -> list[Any]:
        return contents(client.get(f"/posts/{post_id}/comments?sort={sort}", headers=reader.headers).json())

    assert thread(person) == [["seen", ["seen reply"]]]
    whole = thread(third)
    assert sorted(map(str, whole)) == sorted(map(str, thread(other)))
    assert ["hidden", ["below a hidden one", ["deeper"]]] in whole
    assert client.get(f"/users/{other.id}/comments", headers=person.headers).json() == []
    assert len(client.get(f"/users/{other.id}/comments", headers=third.headers).json()) == 2
    assert client.get(f"/comments/{hidden}", headers=person.headers).json()["content"] == "hidden"
    unblock(client, person, other)
    assert thread(person) == whole


def test_walk_of_a_thread_continues_past_a_page_of_hidden_comments(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost,
    make_comment: Callable[..., int],
) -> None:  # fmt: skip
    third = make_person()
    post_id = make_post(third)
    ids_by_age = [make_comment(author, post_id) for author in (third, other, other, other, third)]
    block(client, person, other)

    met, sizes = [], []
    address: str | None = f"/posts/{post_id}/comments?sort=old&limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        met += [comment["id"] for comment in response.json()]
        sizes.append(len(response.json()))
        address = linked(response)

    assert met == [ids_by_age[0], ids_by_age[4]]
    assert sizes == [1, 0, 1]


@pytest.mark.parametrize(("role", "is_shown"), [("user", False), ("moderator", True)])
def test_moderators_see_comments_through_their_blocks(
    client: TestClient, other: Person, make_person: MakePerson, make_post: MakePost,
    make_comment: Callable[..., int], role: str, *, is_shown: bool,
) -> None:  # fmt: skip
    blocker = make_person(role=role)
    comment_id = make_comment(other, make_post(other))
    block(client, blocker, other)

    for path in (f"/posts/{client.get(f'/comments/{comment_id}', headers=other.headers).json()['post_id']}/comments",
                 f"/users/{other.id}/comments"):  # fmt: skip
        shown = client.get(path, headers=blocker.headers).json()
        assert [comment["id"] for comment in shown] == ([comment_id] if is_shown else [])
