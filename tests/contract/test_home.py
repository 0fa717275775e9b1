"""`/home`: which posts it shows to whom, each once and in order; `/tags?followed=true`."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.errors import MalformedCursor
from tests.contract.answers import assert_refused
from tests.contract.conftest import Rows
from tests.contract.test_blocks import block, unblock
from tests.contract.test_bookmarks import bookmark
from tests.contract.test_follows import follow, unfollow
from tests.fixtures import Person, linked

MakePerson = Callable[..., Person]
MakePost = Callable[..., int]


def follow_tag(client: TestClient, caller: Person, name: str, method: str = "PUT") -> None:
    assert client.request(method, f"/tags/{name}/follow", headers=caller.headers).status_code == 200


def home(client: TestClient, caller: Person, path: str = "/home") -> Any:
    response = client.get(path, headers=caller.headers)
    assert response.status_code == 200, response.text
    return response.json()


def ids(client: TestClient, caller: Person, path: str = "/home") -> list[int]:
    return [item["Post"]["id"] for item in home(client, caller, path)]


def test_who_follows_nothing_sees_their_own_posts_only(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    make_post(other, tags=["a"])
    assert home(client, person) == []
    own = make_post(person)
    assert ids(client, person) == [own]


def test_posts_of_followed_users_and_tags_and_own_ones_are_shown_newest_first(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    third = make_person()
    follow(client, person, other)
    follow_tag(client, person, "a")
    expected = [make_post(other), make_post(third, tags=["b", "a"]), make_post(person)]
    make_post(third, tags=["b"])
    expected.append(make_post(other, tags=["c"]))

    assert ids(client, person) == expected[::-1]
    follow(client, other, person)
    assert ids(client, other) == [post_id for post_id in expected[::-1] if post_id != expected[1]]


def test_post_of_a_followed_author_with_followed_tags_is_shown_once(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    follow(client, person, other)
    for name in ("a", "b"):
        follow_tag(client, person, name)
    first, second = make_post(other, tags=["a", "b"]), make_post(person, tags=["b", "a", "c"])
    assert ids(client, person) == [second, first]
    assert ids(client, person, "/home?limit=1") == [second]


@pytest.mark.parametrize("limit", [1, 2])
def test_posts_of_tags_that_share_their_newest_post_are_all_met(
    client: TestClient, person: Person, other: Person, make_post: MakePost, limit: int
) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        follow_tag(client, person, name)
    posts = [*(make_post(other, tags=[name]) for name in names), make_post(other, tags=names)]
    met: list[int] = []
    address: str | None = f"/home?limit={limit}"
    while address:
        response = client.get(address, headers=person.headers)
        met += [item["Post"]["id"] for item in response.json()]
        address = linked(response)
    assert met == posts[::-1]


def test_elements_are_those_of_the_list_of_posts(
    client: TestClient, person: Person, other: Person, make_post: MakePost, cast_votes: Callable[..., None]
) -> None:
    follow(client, person, other)
    post_id, own = make_post(other, tags=["a"]), make_post(person)
    cast_votes(post_id, [person, other])
    bookmark(client, person, own)

    listed = home(client, person, "/posts")
    assert home(client, person) == listed
    assert [list(item) for item in listed] == [["Post", "votes", "comments", "voted", "bookmarked"]] * 2
    assert [(item["votes"], item["voted"], item["bookmarked"]) for item in listed] == [
        (0, False, True),
        (2, True, False),
    ]
    assert listed[0]["Post"]["owner"]["email"] == person.email


def test_unfollowing_takes_posts_away_at_once(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    follow(client, person, other)
    follow_tag(client, person, "a")
    by_author, by_tag = make_post(other), make_post(make_person(), tags=["a"])
    assert ids(client, person) == [by_tag, by_author]
    unfollow(client, person, other)
    assert ids(client, person) == [by_tag]
    follow_tag(client, person, "a", "DELETE")
    assert ids(client, person) == []


def test_drafts_are_left_out_also_own_ones_and_come_back_when_published(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    follow(client, person, other)
    follow_tag(client, person, "a")
    theirs, own = make_post(other, tags=["a"]), make_post(person, tags=["a"])
    for post_id, owner in ((theirs, other), (own, person)):
        client.patch(f"/posts/{post_id}", json={"published": False}, headers=owner.headers)
    assert ids(client, person) == []
    client.patch(f"/posts/{theirs}", json={"published": True}, headers=other.headers)
    assert ids(client, person) == [theirs]


def test_posts_that_lose_a_followed_tag_are_left_out(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    follow_tag(client, person, "a")
    post_id = make_post(other, tags=["a"])
    assert ids(client, person) == [post_id]
    client.patch(f"/posts/{post_id}", json={"tags": ["b"]}, headers=other.headers)
    assert ids(client, person) == []


def test_posts_of_blocked_users_with_a_followed_tag_are_left_out(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost
) -> None:
    third, moderator = make_person(), make_person(role="moderator")
    follow_tag(client, person, "a")
    follow_tag(client, moderator, "a")
    hidden, seen = make_post(other, tags=["a"]), make_post(third, tags=["a"])
    block(client, person, other)
    block(client, moderator, other)

    assert ids(client, person) == [seen]
    first = client.get("/home?limit=1", headers=person.headers)
    following = linked(first)
    assert [item["Post"]["id"] for item in first.json()] == [seen]
    assert following is not None
    assert home(client, person, following) == []
    assert ids(client, moderator) == [seen, hidden]
    unblock(client, person, other)
    assert ids(client, person) == [seen, hidden]


def test_posts_of_deleted_accounts_are_left_out(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost,
    connection: Connection,
) -> None:  # fmt: skip
    third = make_person()
    for user in (other, third):
        follow(client, person, user)
    follow_tag(client, person, "a")
    seen = [make_post(third) for _ in range(2)]
    for tags in ([], ["a"], ["a"]):
        make_post(other, tags=tags)
    connection.execute(text("UPDATE users SET is_deleted = true WHERE id = :id"), {"id": other.id})
    connection.execute(text("INSERT INTO deletions (user_id) VALUES (:id)"), {"id": other.id})

    assert ids(client, person) == seen[::-1]
    assert ids(client, person, "/home?limit=1") == [seen[1]]


def test_unchanged_home_is_304_until_a_post_a_vote_or_a_follow_changes_it(
    client: TestClient, person: Person, other: Person, make_person: MakePerson, make_post: MakePost,
    cast_votes: Callable[..., None],
) -> None:  # fmt: skip
    third = make_person()
    follow(client, person, other)
    post_id = make_post(other)
    make_post(third)

    def etag(before: str | None, status: int) -> str:
        response = client.get("/home", headers=person.headers | ({"If-None-Match": before} if before else {}))
        assert response.status_code == status
        assert response.headers["Cache-Control"] == "private, no-cache"
        return response.headers["ETag"]

    first = etag(None, 200)
    assert etag(first, 304) == first
    cast_votes(post_id, [third])
    second = etag(first, 200)
    follow(client, person, third)
    third_tag = etag(second, 200)
    make_post(third)
    etag(third_tag, 200)


def test_links_lead_through_the_list_and_back(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    follow(client, person, other)
    posts = [make_post(author) for author in (other, person, other, other, person)]
    pages: list[list[int]] = []
    address: str | None = "/home?limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        pages.append([item["Post"]["id"] for item in response.json()])
        back, address = linked(response, "prev"), linked(response)
    assert pages == [posts[4:2:-1], posts[2:0:-1], posts[:1]]
    assert back is not None
    assert ids(client, person, back) == pages[1]


@pytest.mark.parametrize("cursor", ["x", "of another list"])
def test_cursor_of_another_list_is_refused(
    client: TestClient, person: Person, make_post: MakePost, cursor: str
) -> None:
    for _ in range(3):
        make_post(person)
    if cursor == "of another list":
        cursor = client.get("/posts?limit=1", headers=person.headers).links["next"]["url"].partition("cursor=")[2]
    assert_refused(client.get(f"/home?cursor={cursor}", headers=person.headers), 422, MalformedCursor.code)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "cursor=" + "x" * 4001])
def test_parameters_out_of_range_are_refused(client: TestClient, person: Person, query: str) -> None:
    assert_refused(client.get(f"/home?{query}", headers=person.headers), 422, "validation_failed")


def test_revoked_session_sees_no_home(client: TestClient, person: Person, rows: Rows) -> None:
    assert home(client, person) == []
    assert client.post("/logout", headers=person.headers).status_code == 204
    assert_refused(client.get("/home", headers=person.headers), 401, "not_authenticated")
    assert rows("SELECT 1 FROM follows") == []


# Followed tags.


def test_followed_tags_are_listed_by_name_also_without_posts(
    client: TestClient, person: Person, other: Person, make_post: MakePost
) -> None:
    make_post(other, tags=["b", "c"])
    for name in ("d", "b", "a"):
        follow_tag(client, person, name)
    follow_tag(client, other, "c")

    assert home(client, person, "/tags?followed=true") == [
        {"name": name, "posts": posts, "followed": True} for name, posts in (("a", 0), ("b", 1), ("d", 0))
    ]
    assert [tag["name"] for tag in home(client, person, "/tags?followed=true&prefix=d&sort=popular")] == ["d"]
    assert home(client, other, "/tags?followed=true") == [{"name": "c", "posts": 1, "followed": True}]
    assert [tag["name"] for tag in home(client, person, "/tags?followed=false&sort=name")] == ["b", "c"]


def test_followed_tags_are_walked_by_links(client: TestClient, person: Person) -> None:
    names = [f"tag{number}" for number in range(5)]
    for name in reversed(names):
        follow_tag(client, person, name)
    met: list[str] = []
    address: str | None = "/tags?followed=true&prefix=tag&limit=2"
    while address:
        response = client.get(address, headers=person.headers)
        met += [tag["name"] for tag in response.json()]
        address = linked(response)
        assert address is None or "followed=true" in address
    assert met == names
    cursor = client.get("/tags?sort=name&limit=1", headers=person.headers).links.get("next")
    assert cursor is None
    refused = client.get("/tags?followed=true&cursor=x", headers=person.headers)
    assert_refused(refused, 422, MalformedCursor.code)
