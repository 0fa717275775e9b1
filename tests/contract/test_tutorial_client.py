"""Clients and tests of the tutorial work unchanged: if a test here fails, theirs would.

Paths, bodies, statuses and sentences are those that the tutorial's own tests count on, down to the trailing slashes.
All pass with `TUTORIAL_DEFAULTS=true` (`test_tutorial_defaults.py` runs them so). With the defaults of development,
those that are marked `fails_with_our_defaults` fail, and no other.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from jose import jwt
from pydantic import BaseModel, EmailStr
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.conftest import Rows

EMAIL, PASSWORD_TYPED = "sanjeev@example.com", "password123"

fails_with_our_defaults = pytest.mark.xfail(
    not get_settings().tutorial_defaults, reason="one of the four settings that TUTORIAL_DEFAULTS changes"
)


class User(BaseModel):
    """A user, as the tutorial's schema has it."""

    id: int
    email: EmailStr
    created_at: datetime


class Post(BaseModel):
    """A post, as the tutorial's schema has it."""

    id: int
    title: str
    content: str
    published: bool
    created_at: datetime
    owner_id: int
    owner: User


class PostWithVotes(BaseModel):
    """An item of a list, as the tutorial's schema has it."""

    Post: Post
    votes: int


@pytest.fixture
def test_user(client: TestClient) -> dict[str, Any]:
    """Signs up, as the tutorial's fixture does, and remembers the password."""
    response = client.post("/users/", json={"email": EMAIL, "password": PASSWORD_TYPED})
    assert response.status_code == 201
    return {**response.json(), "password": PASSWORD_TYPED}


@pytest.fixture
def token(client: TestClient, test_user: dict[str, Any]) -> str:
    response = client.post("/login", data={"username": test_user["email"], "password": test_user["password"]})
    assert response.status_code == 200
    return str(response.json()["access_token"])


@pytest.fixture
def authorized(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def second_user(client: TestClient) -> dict[str, str]:
    """The headers of another user."""
    client.post("/users/", json={"email": "second@example.com", "password": PASSWORD_TYPED})
    form = {"username": "second@example.com", "password": PASSWORD_TYPED}
    return {"Authorization": f"Bearer {client.post('/login', data=form).json()['access_token']}"}


@pytest.fixture
def posts(client: TestClient, authorized: dict[str, str], second_user: dict[str, str]) -> list[dict[str, Any]]:
    """Three posts of the user, and a fourth of another user."""
    return [
        client.post("/posts/", json={"title": title, "content": f"{title} content"}, headers=headers).json()
        for title, headers in (
            ("first title", authorized), ("2nd title", authorized), ("3rd title", authorized), ("4th", second_user),
        )
    ]  # fmt: skip


def test_root_says_something(client: TestClient) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert isinstance(response.json().get("message"), str)


def test_signing_up_answers_the_email_address(test_user: dict[str, Any]) -> None:
    assert test_user["email"] == EMAIL
    assert isinstance(test_user["id"], int)
    assert isinstance(test_user["created_at"], str)


@fails_with_our_defaults
def test_signing_up_with_a_short_password(client: TestClient) -> None:
    response = client.post("/users/", json={"email": EMAIL, "password": "1234"})

    assert response.status_code == 201
    assert client.post("/login", data={"username": EMAIL, "password": "1234"}).status_code == 200


def test_signing_up_twice(client: TestClient, test_user: dict[str, Any]) -> None:
    response = client.post("/users/", json={"email": test_user["email"], "password": PASSWORD_TYPED})

    assert response.status_code == 409


def test_login_answers_a_token_with_the_users_id(token: str, test_user: dict[str, Any]) -> None:
    payload = jwt.decode(token, get_settings().signing_secret, algorithms=["HS256"])

    assert payload["user_id"] == test_user["id"]
    assert "exp" in payload


def test_login_answers_the_type_bearer(client: TestClient, test_user: dict[str, Any]) -> None:
    form = {"username": test_user["email"], "password": test_user["password"]}

    assert client.post("/login", data=form).json()["token_type"] == "bearer"


@pytest.mark.parametrize(
    ("email", "password", "status"),
    [
        ("wrongemail@gmail.com", PASSWORD_TYPED, 403),
        (EMAIL, "wrongpassword", 403),
        ("wrongemail@gmail.com", "wrongpassword", 403),
        (None, PASSWORD_TYPED, 422),
        (EMAIL, None, 422),
    ],
)
def test_incorrect_login(
    client: TestClient, test_user: dict[str, Any], email: str | None, password: str | None, status: int
) -> None:
    assert test_user["email"] == EMAIL
    form = {name: value for name, value in (("username", email), ("password", password)) if value is not None}

    response = client.post("/login", data=form)

    assert response.status_code == status
    if status == 403:
        assert response.json().get("detail") == "Invalid Credentials"


def test_a_user_is_found_by_id(client: TestClient, test_user: dict[str, Any]) -> None:
    response = client.get(f"/users/{test_user['id']}")

    assert response.status_code == 200
    assert response.json()["id"] == test_user["id"]
    assert client.get(f"/users/{test_user['id'] + 1_000_000}").status_code == 404


@fails_with_our_defaults
def test_a_profile_shows_the_email_address(client: TestClient, test_user: dict[str, Any]) -> None:
    assert client.get(f"/users/{test_user['id']}").json()["email"] == test_user["email"]


def test_every_answer_fits_the_schemas(
    client: TestClient, authorized: dict[str, str], test_user: dict[str, Any], posts: list[dict[str, Any]]
) -> None:
    User(**client.get(f"/users/{test_user['id']}").json())
    for post in posts:
        Post(**post)
        PostWithVotes(**client.get(f"/posts/{post['id']}", headers=authorized).json())
    assert len([PostWithVotes(**item) for item in client.get("/posts/", headers=authorized).json()]) == len(posts)


def test_own_posts_show_the_own_email_address(
    client: TestClient, authorized: dict[str, str], test_user: dict[str, Any], posts: list[dict[str, Any]]
) -> None:
    listed = client.get("/posts/", headers=authorized).json()

    assert posts[0]["owner"]["email"] == test_user["email"]
    assert {item["Post"]["owner"]["email"] for item in listed if item["Post"]["owner_id"] == test_user["id"]} == {EMAIL}


@fails_with_our_defaults
def test_posts_of_others_show_their_email_address(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]
) -> None:
    item = client.get(f"/posts/{posts[3]['id']}", headers=authorized).json()

    assert item["Post"]["owner"]["email"] == "second@example.com"


@fails_with_our_defaults
def test_posts_are_listed_in_the_order_of_their_ids(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]
) -> None:
    listed = client.get("/posts/", headers=authorized).json()

    assert [item["Post"]["id"] for item in listed] == [post["id"] for post in posts]


@fails_with_our_defaults
def test_limit_and_skip_count_from_the_first_post(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]
) -> None:
    (item,) = client.get("/posts?limit=1&skip=1", headers=authorized).json()

    assert item["Post"]["title"] == posts[1]["title"]


@pytest.mark.parametrize("limit", [100, 101, 1000])
def test_a_large_limit_lists_all_posts(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]], limit: int
) -> None:
    response = client.get(f"/posts/?limit={limit}", headers=authorized)

    assert (response.status_code, len(response.json())) == (200, len(posts))


@pytest.mark.parametrize("token_sent", ["", "wrong", "a.b.c"])
def test_a_wrong_token_is_refused(client: TestClient, token_sent: str) -> None:
    response = client.get("/posts/", headers={"Authorization": f"Bearer {token_sent}"})

    assert response.status_code == 401
    assert response.json()["detail"] == "Could not validate credentials"
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/posts/", "/posts"])
def test_all_posts_come_with_their_votes(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]], path: str
) -> None:
    response = client.get(path, headers=authorized)

    assert response.status_code == 200
    assert len(response.json()) == len(posts)
    for item in response.json():
        assert item["votes"] == 0
        assert {"id", "title", "content", "published", "created_at", "owner_id", "owner"} <= set(item["Post"])
    assert {item["Post"]["id"] for item in response.json()} == {post["id"] for post in posts}


def test_limit_skip_and_search_choose_posts(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]
) -> None:
    def ids(query: str) -> list[int]:
        return [item["Post"]["id"] for item in client.get(f"/posts?{query}", headers=authorized).json()]

    assert ids("limit=2&skip=1&sort=old") == [posts[1]["id"], posts[2]["id"]]
    assert ids("search=2nd") == [posts[1]["id"]]
    assert ids("search=first%20title") == [posts[0]["id"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/posts/"), ("GET", "/posts/{id}"), ("POST", "/posts/"), ("PUT", "/posts/{id}"),
        ("DELETE", "/posts/{id}"), ("POST", "/vote/"),
    ],
)  # fmt: skip
def test_anonymous_requests_are_refused(
    client: TestClient, posts: list[dict[str, Any]], method: str, path: str
) -> None:
    response = client.request(method, path.format(id=posts[0]["id"]))

    assert response.status_code == 401
    assert response.json()["detail"] == "Not authenticated"
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_one_post_comes_with_its_votes(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]
) -> None:
    response = client.get(f"/posts/{posts[0]['id']}", headers=authorized)

    assert response.status_code == 200
    item = response.json()
    assert item["Post"]["id"] == posts[0]["id"]
    assert item["Post"]["content"] == posts[0]["content"]
    assert item["Post"]["title"] == posts[0]["title"]


def test_a_post_that_does_not_exist_is_not_found(client: TestClient, authorized: dict[str, str]) -> None:
    response = client.get("/posts/88888", headers=authorized)

    assert response.status_code == 404
    assert response.json()["detail"] == "post with id: 88888 was not found"


@pytest.mark.parametrize(
    ("title", "content", "published"),
    [
        ("awesome new title", "awesome new content", True),
        ("favorite pizza", "i love pepperoni", False),
        ("tallest skyscrapers", "wahoo", True),
    ],
)
def test_creating_a_post(
    client: TestClient,
    authorized: dict[str, str],
    test_user: dict[str, Any],
    title: str,
    content: str,
    *,
    published: bool,
) -> None:
    body = {"title": title, "content": content, "published": published}

    response = client.post("/posts/", json=body, headers=authorized)

    assert response.status_code == 201
    created = response.json()
    assert (created["title"], created["content"], created["published"]) == (title, content, published)
    assert created["owner_id"] == test_user["id"]


def test_a_post_is_published_unless_told_otherwise(client: TestClient, authorized: dict[str, str]) -> None:
    body = {"title": "arbitrary title", "content": "aasdfjasdf"}

    assert client.post("/posts/", json=body, headers=authorized).json()["published"] is True


def test_deleting_an_own_post(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]], rows: Rows
) -> None:
    assert client.delete(f"/posts/{posts[0]['id']}", headers=authorized).status_code == 204
    assert rows("SELECT 1 FROM posts WHERE id = :id", id=posts[0]["id"]) == []


def test_deleting_what_does_not_exist(client: TestClient, authorized: dict[str, str]) -> None:
    assert client.delete("/posts/8000000", headers=authorized).status_code == 404


def test_updating_an_own_post(client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]) -> None:
    body = {"title": "updated title", "content": "updated content", "id": posts[0]["id"]}

    response = client.put(f"/posts/{posts[0]['id']}", json=body, headers=authorized)

    assert response.status_code == 200
    assert response.json()["title"] == body["title"]
    assert response.json()["content"] == body["content"]


def test_updating_what_does_not_exist(client: TestClient, authorized: dict[str, str]) -> None:
    body = {"title": "updated title", "content": "updated content"}

    assert client.put("/posts/8000000", json=body, headers=authorized).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_posts_of_other_users_are_off_limits(
    client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]], method: str
) -> None:
    body = {"title": "updated title", "content": "updated content"} if method == "PUT" else None

    response = client.request(method, f"/posts/{posts[3]['id']}", json=body, headers=authorized)

    assert response.status_code == 403
    assert response.json()["detail"] == "Not authorized to perform requested action"


@pytest.fixture
def vote(client: TestClient, authorized: dict[str, str], posts: list[dict[str, Any]]) -> Callable[..., Any]:
    def cast(direction: int, post_id: int | None = None) -> Any:
        body = {"post_id": posts[3]["id"] if post_id is None else post_id, "dir": direction}
        return client.post("/vote/", json=body, headers=authorized)

    return cast


def test_voting_on_a_post(vote: Callable[..., Any]) -> None:
    response = vote(1)

    assert response.status_code == 201
    assert response.json()["message"] == "successfully added vote"


def test_voting_twice(vote: Callable[..., Any], test_user: dict[str, Any], posts: list[dict[str, Any]]) -> None:
    vote(1)

    response = vote(1)

    assert response.status_code == 409
    assert response.json()["detail"] == f"user {test_user['id']} has already voted on post {posts[3]['id']}"


def test_deleting_a_vote(vote: Callable[..., Any], rows: Rows) -> None:
    vote(1)

    response = vote(0)

    assert response.status_code == 201
    assert response.json()["message"] == "successfully deleted vote"
    assert rows("SELECT 1 FROM votes") == []


def test_deleting_a_vote_twice(vote: Callable[..., Any]) -> None:
    vote(1)
    vote(0)

    response = vote(0)

    assert response.status_code == 404
    assert response.json()["detail"] == "Vote does not exist"


def test_voting_on_a_post_that_does_not_exist(vote: Callable[..., Any]) -> None:
    response = vote(1, post_id=80_000)

    assert response.status_code == 404
    assert response.json()["detail"] == "Post with id: 80000 does not exist"
