"""`RESPONSE_FIELDS=tutorial`: strict clients, whose schemas forbid extra fields, read every answer."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, ConfigDict, EmailStr
from starlette.testclient import TestClient

from app.config import Settings, get_settings
from app.main import app, narrowed
from app.middleware import response_fields
from app.middleware.response_fields import ResponseFields
from tests.fixtures import PASSWORD, Person, Server


class Strict(BaseModel):
    """A schema of the tutorial's, as a strict client has it."""

    model_config = ConfigDict(extra="forbid")


class User(Strict):
    id: int
    email: EmailStr
    created_at: datetime


class Post(Strict):
    id: int
    title: str
    content: str
    published: bool
    created_at: datetime
    owner_id: int
    owner: User


class PostWithVotes(Strict):
    Post: Post
    votes: int


class Token(Strict):
    access_token: str
    token_type: str


class Message(Strict):
    message: str


class Problem(Strict):
    detail: str


class Invalid(Strict):
    loc: list[str | int]
    msg: str
    type: str


class Problems(Strict):
    detail: list[Invalid]


@pytest.fixture
def narrow(client: TestClient) -> TestClient:
    """A client of the application with the setting, in the event loop of the one without."""
    strict = TestClient(ResponseFields(app), follow_redirects=False)
    strict.portal = client.portal
    return strict


def test_every_answer_has_the_fields_of_the_tutorial_and_no_other(
    narrow: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    mine = person.headers
    post = make_post(person, title="straße \u2028 “quoted”", content="x" * 40_000)
    new = {"title": "a", "content": "b"}
    expected: list[tuple[int, type[Strict], str, str, dict[str, Any]]] = [
        (200, Message, "GET", "/", {}),
        (201, User, "POST", "/users/", {"json": {"email": "ada@example.com", "password": PASSWORD}}),
        (200, User, "GET", f"/users/{person.id}", {}),
        (200, Token, "POST", "/login", {"data": {"username": person.email, "password": PASSWORD}}),
        (200, PostWithVotes, "GET", "/posts/", {"headers": mine}),
        (200, PostWithVotes, "GET", "/v1/posts", {"headers": mine}),
        (200, PostWithVotes, "GET", f"/posts/{post}", {"headers": mine}),
        (201, Post, "POST", "/posts", {"headers": mine, "json": new}),
        (201, Post, "POST", "/posts", {"headers": mine | {"Idempotency-Key": "1"}, "json": new}),
        (201, Post, "POST", "/posts", {"headers": mine | {"Idempotency-Key": "1"}, "json": new}),
        (200, Post, "PUT", f"/posts/{post}", {"headers": mine, "json": new}),
        (201, Message, "POST", "/vote", {"headers": mine, "json": {"post_id": post, "dir": 1}}),
        (409, Problem, "POST", "/vote", {"headers": mine, "json": {"post_id": post, "dir": 1}}),
        (201, Message, "POST", "/votes/", {"headers": mine, "json": {"post_id": post, "dir": 0}}),
        (401, Problem, "GET", "/posts", {}),
        (403, Problem, "POST", "/login", {"data": {"username": "no@example.com", "password": "x"}}),
        (404, Problem, "GET", "/posts/88888", {"headers": mine}),
        (404, Problem, "GET", "/nowhere", {}),
        (404, Problem, "GET", "/posts%0a", {}),
        (405, Problem, "DELETE", "/posts", {}),
        (413, Problem, "POST", "/users", {"content": b"x" * 2_000_000}),
        (415, Problem, "POST", "/users", {"content": b"{}", "headers": {"Content-Encoding": "gzip"}}),
        (422, Problems, "POST", "/posts", {"headers": mine, "json": {}}),
        (422, Problems, "GET", "/posts?limit=-1", {"headers": mine}),
    ]
    for status, schema, method, path, options in expected:
        response = narrow.request(method, path, **options)

        assert response.status_code == status, (method, path, response.text)
        body = response.json()
        for item in body if isinstance(body, list) else [body]:
            schema.model_validate(item)
        assert response.headers["Content-Type"] == "application/json"
        assert int(response.headers["Content-Length"]) == len(response.content)
        assert "X-Request-ID" in response.headers


@pytest.mark.slow
def test_a_server_with_the_setting_answers_so_also_from_outside_of_the_routes(
    start_server: Callable[..., Server], person: Person
) -> None:
    server = start_server(RESPONSE_FIELDS="tutorial", RATE_LIMIT_PER_MINUTE="60")

    me = httpx2.get(f"{server.url}/users/{person.id}")
    answers = [httpx2.get(f"{server.url}/nowhere") for _ in range(65)]

    User.model_validate(me.json())
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {tuple(answer.json()) for answer in answers} == {("detail",)}
    assert all("Retry-After" in answer.headers for answer in refused)


def test_values_are_those_of_all_fields_and_other_answers_are_left_alone(
    narrow: TestClient, client: TestClient, person: Person, make_post: Callable[..., int]
) -> None:
    post = make_post(person, title="straße \u2028 “quoted” \U0001f389")
    answer = narrow.get(f"/posts/{post}", headers=person.headers)
    whole = client.get(f"/posts/{post}", headers=person.headers)

    wide = whole.json()
    for name in ("updated_at", "published_at", "tags", "media", "locked", "removal_reason"):
        del wide["Post"][name]
    del wide["comments"], wide["voted"], wide["bookmarked"], wide["Post"]["owner"]["username"]
    assert answer.json() == wide
    assert answer.headers["ETag"] == whole.headers["ETag"]
    # Neither a body, nor a route of the tutorial's, nor JSON of ours.
    cached = narrow.request("GET", f"/posts/{post}", headers=person.headers | {"If-None-Match": answer.headers["ETag"]})
    assert (cached.status_code, cached.content) == (304, b"")
    head = narrow.request("HEAD", f"/posts/{post}", headers=person.headers)
    assert (head.status_code, head.content, head.headers.get("Content-Length")) == (200, b"", None)
    assert narrow.request("DELETE", f"/posts/{post}", headers=person.headers).status_code == 204
    assert {"role", "username"} <= set(narrow.request("GET", "/users/me", headers=person.headers).json())
    assert set(
        narrow.request("POST", "/login?cookie=true", data={"username": person.email, "password": PASSWORD}).json()
    ) == {"expires_in"}
    problem = narrow.request("GET", "/nowhere", headers={"Accept": "application/problem+json"})
    assert problem.json()["code"] == "not_found"
    assert "openapi" in narrow.request("GET", "/openapi.json").json()


def test_without_the_setting_no_middleware_wraps_the_application() -> None:
    assert narrowed(get_settings()) == []
    assert "ResponseFields" not in [getattr(layer.cls, "__name__", "") for layer in app.middleware]
    assert len(narrowed(Settings(response_fields="tutorial"))) == 1


def test_every_shape_is_that_of_a_route() -> None:
    assert set(response_fields._SHAPES) <= {
        operation["operationId"] for path in app.api.openapi()["paths"].values() for operation in path.values()
    }
