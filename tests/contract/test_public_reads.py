"""Reading without an account, with `PUBLIC_READS=true`."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.security import access_tokens
from app.security.access_tokens import ANONYMOUS
from app.services import feed
from tests.contract.answers import assert_unauthenticated
from tests.contract.test_authorization import OPERATIONS, PUBLIC
from tests.fixtures import Person

MakePost = Callable[..., int]
# The operations that need an account by default, and those with more in them for an account.
READS = {
    "list_posts", "get_post", "list_comments", "get_comment", "list_comments_of_user", "list_tags", "get_tag",
    "get_feed_of_posts", "get_feed_of_user", "get_feed_of_tag",
}  # fmt: skip
PUBLIC_ANYWAY = {"get_user", "get_user_by_username", "get_media_file"}
SHARED = "public, max-age=5, stale-while-revalidate=30"
CREDENTIALS = [
    {"Authorization": "Bearer x"},
    {"Authorization": "Basic eDp5"},
    {"X-API-Key": "x"},
    {"Cookie": "session=x"},
    {"Cookie": "__Host-session=x"},
]


@pytest.fixture(autouse=True)
def _public_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "public_reads", True)


@pytest.mark.parametrize("operation_id", sorted({*OPERATIONS} - PUBLIC - PUBLIC_ANYWAY))
def test_published_posts_can_be_read_without_an_account_and_nothing_else(
    client: TestClient, person: Person, make_post: MakePost, make_comment: Callable[..., int], operation_id: str
) -> None:
    method, path, _ = OPERATIONS[operation_id]
    post_id = make_post(person)
    ids = {"posts": post_id, "comments": make_comment(person, post_id), "users": person.id}

    response = client.request(method, re.sub(r"\{[^}]+\}", str(ids.get(path.split("/")[1], 1)), path))

    if operation_id in READS:
        assert response.status_code == 200
    else:
        assert_unauthenticated(response)


@pytest.mark.parametrize(
    "path",
    [
        "/posts", "/v1/posts/", "/posts/{post_id}", "/users/{user_id}",
        "/posts/{post_id}/comments", "/comments/{comment_id}", "/users/{user_id}/comments",
        "/users/by-username/user{user_id}", "/tags", "/tags/a",
    ],
)  # fmt: skip
def test_caches_may_share_what_is_read_without_an_account(
    client: TestClient, person: Person, make_post: MakePost, make_comment: Callable[..., int], path: str
) -> None:
    post_id = make_post(person)
    path = path.format(post_id=post_id, user_id=person.id, comment_id=make_comment(person, post_id))

    read = client.get(path)
    unchanged = client.get(path, headers={"If-None-Match": read.headers["ETag"]})
    own = client.get(path, headers=person.headers)

    assert (read.status_code, read.headers["Cache-Control"]) == (200, SHARED)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (unchanged.headers["ETag"], unchanged.headers["Cache-Control"]) == (read.headers["ETag"], SHARED)
    for response in (read, unchanged):
        varying = {name.strip() for name in response.headers["Vary"].split(",")}
        assert varying >= {"Authorization", "Cookie", "X-API-Key"}
        assert "Set-Cookie" not in response.headers
    assert own.status_code == 200
    assert "public" not in own.headers.get("Cache-Control", "")
    assert client.head(path).headers["Cache-Control"] == SHARED


def test_an_answer_with_an_error_is_not_shared(client: TestClient) -> None:
    for path in ("/posts/1", "/users/1", "/posts?limit=0"):
        response = client.get(path)
        assert response.status_code in {404, 422}
        assert response.headers.get("Cache-Control") != SHARED


@pytest.mark.parametrize("path", ["/posts", "/posts/{post_id}"])
@pytest.mark.parametrize("headers", CREDENTIALS[:4], ids=str)
def test_a_credential_that_is_not_valid_is_refused(
    client: TestClient, person: Person, make_post: MakePost, path: str, headers: dict[str, str]
) -> None:
    assert client.get(path.format(post_id=make_post(person)), headers=headers).status_code == 401


def test_drafts_are_not_read(client: TestClient, person: Person, make_post: MakePost) -> None:
    draft, published = make_post(person, published=False), make_post(person)

    assert [item["Post"]["id"] for item in client.get("/posts").json()] == [published]
    assert [item["Post"]["id"] for item in client.get("/posts", params={"owner_id": person.id}).json()] == [published]
    assert client.get(f"/posts/{draft}").status_code == 404
    for parameters in ({}, {"owner_id": person.id}, {"owner_id": ANONYMOUS.user_id}, {"search": "word"}):
        assert_unauthenticated(client.get("/posts", params={"published": False, **parameters}))


def test_posts_of_deleted_accounts_are_not_read(
    client: TestClient, connection: Connection, person: Person, make_post: MakePost
) -> None:
    post_id = make_post(person)
    connection.execute(text("UPDATE users SET is_deleted = true"))
    connection.execute(text("INSERT INTO deletions (user_id) SELECT id FROM users"))

    assert client.get("/posts").json() == []
    assert client.get(f"/posts/{post_id}").status_code == 404


def test_nothing_personal_is_read(
    client: TestClient, person: Person, make_post: MakePost, cast_votes: Callable[..., Any]
) -> None:
    post_id = make_post(person)
    cast_votes(post_id, [person])
    (own,) = client.get("/posts", headers=person.headers).json()
    (read,) = client.get("/posts").json()

    assert (own["voted"], own["Post"]["owner"]["email"]) == (True, person.email)
    assert read["voted"] is False
    assert person.email not in client.get("/posts").text + client.get(f"/users/{person.id}").text
    assert own["Post"]["owner"].pop("email") != read["Post"]["owner"].pop("email")
    assert {**own, "voted": False} == read == {**client.get(f"/posts/{post_id}").json(), "Post": read["Post"]}


def test_nothing_personal_of_comments_is_read(
    client: TestClient, person: Person, make_post: MakePost, make_comment: Callable[..., int]
) -> None:
    post_id = make_post(person)
    comment_id = make_comment(person, post_id)
    make_comment(person, post_id, parent_id=comment_id)
    assert client.put(f"/comments/{comment_id}/vote", headers=person.headers).json()["votes"] == 1

    for path in (f"/posts/{post_id}/comments", f"/comments/{comment_id}", f"/users/{person.id}/comments"):
        own, read = client.get(path, headers=person.headers).text, client.get(path).text
        assert '"voted":true' in own
        assert person.email in own
        assert '"voted":true' not in read
        assert person.email not in read
        assert '"votes":1' in read


def test_comments_on_drafts_are_not_read(
    client: TestClient, person: Person, make_post: MakePost, make_comment: Callable[..., int]
) -> None:
    draft = make_post(person, published=False)
    comment_id = make_comment(person, draft)

    assert client.get(f"/posts/{draft}/comments").status_code == 404
    assert client.get(f"/comments/{comment_id}").status_code == 404
    assert client.get(f"/users/{person.id}/comments").json() == []


def test_pages_are_shared_with_readers_who_have_an_account(
    connection: Connection, person: Person, make_post: MakePost, cast_votes: Callable[..., Any]
) -> None:
    cast_votes(make_post(person), [person])
    token, query = access_tokens.verify(person.token), feed.PageQuery("new", 10)
    requests = [feed.PageRequest(ANONYMOUS, query, "192.0.2.1"), feed.PageRequest(token, query)]

    without, own = feed.read(connection, requests)

    assert isinstance(without, feed.PageResponse)
    assert isinstance(own, feed.PageResponse)
    assert without.page is own.page
    assert without.etag != own.etag
    assert b'"voted":false' in without.json
    assert person.email.encode() not in without.json
    assert person.email.encode() in own.json


def test_searches_without_an_account_take_turns_by_network() -> None:
    searches = [feed.PageRequest(ANONYMOUS, feed.PageQuery("new", 10, search="a"), network) for network in "aab"]

    assert [search.caller for search in searches] == ["a", "a", "b"]


def test_followed_tags_need_an_account(client: TestClient, person: Person) -> None:
    assert_unauthenticated(client.get("/tags?followed=true"))
    assert client.get("/tags?followed=true", headers=person.headers).json() == []
