"""The fast path: it answers ordinary requests like FastAPI, and leaves all others to it."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter
from sqlalchemy import Engine
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.api.fast_path import FastPath
from app.main import Application, create_app
from tests.fixtures import Person

# Differ from one answer to the next.
OWN_HEADERS = {
    "x-request-id",
    "server-timing",
    "ratelimit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "idempotency-replayed",
}
JSON = {"content-type": "application/json"}

# Method, path, headers, body; {id} stands for a post's.
Asked = tuple[str, str, dict[str, str], bytes]
ORDINARY: list[Asked] = [
    ("GET", "/posts?limit=3&sort=top", {}, b""),
    ("HEAD", "/v1/posts/", {}, b""),
    ("GET", "/posts/{id}", {}, b""),
    ("GET", "/posts/0", {}, b""),
    ("GET", "/posts?limit=101", {}, b""),
    ("GET", "/posts?cursor=x", {}, b""),
    ("PUT", "/posts/{id}/vote", {}, b""),
    ("PUT", "/v1/posts/{id}/vote", {}, b""),
    ("DELETE", "/posts/{id}/vote", {}, b""),
    ("GET", "/posts/{id}/comments?sort=new&depth=1", {}, b""),
    ("GET", "/posts/0/comments", {}, b""),
    ("GET", "/posts/{id}/comments?depth=9", {}, b""),
    ("PUT", "/comments/0/vote", {}, b""),
    ("DELETE", "/comments/0/vote", {}, b""),
    ("POST", "/vote", JSON, b'{"post_id": 0, "vote_dir": 1}'),
    ("POST", "/votes/", JSON, b'{"post_id": "{id}", "dir": true}'),
    ("POST", "/vote", JSON, b'{"post_id": {id}, "vote_dir": 1}'),
    ("POST", "/vote", JSON, b'{"post_id": {id}, "vote_dir": 0}'),
]
OUT_OF_THE_ORDINARY: list[Asked] = [
    ("GET", "/posts/x", {}, b""),
    ("GET", "/posts/1.5", {}, b""),
    ("POST", "/vote", JSON, b'{"post_id": {id}, "vote_dir": 2}'),
    ("POST", "/vote", JSON, b'{"post_id": {id}, "vote_dir": 1, "x": NaN}'),
    ("POST", "/vote", JSON, b'{"post_id": {id}, "vote_dir"'),
    ("POST", "/vote", JSON, b"[" * 100_000),
    ("POST", "/vote", JSON, b"\xff"),
    ("POST", "/vote", JSON, b""),
    ("POST", "/vote", {}, b'{"post_id": {id}, "vote_dir": 1}'),
    ("POST", "/vote", {"content-type": "text/plain"}, b'{"post_id": {id}, "vote_dir": 1}'),
    ("POST", "/vote", {"content-type": "application/json; charset=utf-8"}, b'{"post_id": {id}, "vote_dir": 1}'),
    ("POST", "/vote", {**JSON, "idempotency-key": "k"}, b'{"post_id": {id}, "vote_dir": 0}'),
    ("PATCH", "/posts/{id}", JSON, b'{"title": ""}'),
    ("OPTIONS", "/posts", {}, b""),
    ("DELETE", "/posts", {}, b""),
]
REFUSED: list[Asked] = [
    ("GET", "/posts", {"authorization": ""}, b""),
    ("GET", "/posts/x", {"authorization": "Bearer x"}, b""),
    ("POST", "/vote", {**JSON, "authorization": ""}, b"{"),
    ("POST", "/vote", {**JSON, "authorization": "Bearer x"}, b"x" * 1_000_001),
    ("POST", "/vote", JSON, b"x" * 1_000_001),
]

Ways = tuple[TestClient, TestClient, list[str]]


@pytest.fixture
def ways(database: Engine) -> Ways:  # noqa: ARG001 - on empty tables.
    """The application with and without the fast path, and a record of FastAPI's paths.

    The record has the paths that FastAPI handled for the application with the fast path.
    """
    passed: list[str] = []

    class Watched(FastPath):
        def __init__(self, app: Any, **options: Any) -> None:
            async def watched(scope: Scope, receive: Receive, send: Send) -> None:
                passed.append(scope["path"])
                await app(scope, receive, send)

            super().__init__(watched, **options)

    app = create_app()
    watched = [Middleware(Watched, **one.kwargs) if one.cls is FastPath else one for one in app.middleware]  # type: ignore[arg-type,comparison-overlap]
    short = Application(app.api, watched)
    long = Application(app.api, [one for one in app.middleware if one.cls is not FastPath])  # type: ignore[comparison-overlap]
    return TestClient(short, follow_redirects=False), TestClient(long, follow_redirects=False), passed


def named(request: Any) -> str | None:
    return f"{request[0]} {request[1]} {request[3][:40]!r}" if isinstance(request, tuple) else None


def shown(response: Any) -> tuple[object, ...]:
    """Return the parts of an answer that must be equal on both paths."""
    headers = {name: value for name, value in response.headers.items() if name not in OWN_HEADERS}
    body = response.content.replace(response.headers["x-request-id"].encode(), b"")
    return response.status_code, headers, body


def ask(asking: TestClient, request: Asked, person: Person, post_id: int) -> tuple[object, ...]:
    method, path, headers, body = request
    path = path.replace("{id}", str(post_id))
    body = body.replace(b"{id}", str(post_id).encode())
    return shown(asking.request(method, path, headers=person.headers | headers, content=body))


@pytest.mark.parametrize("had_voted", [False, True])
@pytest.mark.parametrize("request_", [*ORDINARY, *OUT_OF_THE_ORDINARY, *REFUSED], ids=named)
def test_an_answer_is_the_same_either_way(
    ways: Ways, person: Person, make_post: Callable[..., int], request_: Asked, had_voted: bool
) -> None:
    short, long, _ = ways
    post_id = make_post(person)
    answers = []
    for way in (short, long):
        long.request("PUT" if had_voted else "DELETE", f"/posts/{post_id}/vote", headers=person.headers)
        answers.append(ask(way, request_, person, post_id))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("request_", ORDINARY, ids=named)
def test_ordinary_requests_never_come_to_fastapi(
    ways: Ways, person: Person, make_post: Callable[..., int], request_: Asked
) -> None:
    short, _, passed = ways
    ask(short, request_, person, make_post(person))
    assert passed == []


@pytest.mark.parametrize("request_", OUT_OF_THE_ORDINARY, ids=named)
def test_unusual_requests_take_the_slow_path(
    ways: Ways, person: Person, make_post: Callable[..., int], request_: Asked
) -> None:
    short, _, passed = ways
    ask(short, request_, person, make_post(person))
    assert len(passed) == 1


def test_an_adapter_needs_a_route() -> None:
    async def endpoint() -> None: ...

    async def adapter(request: Request) -> Response:
        return Response(str(request))

    with pytest.raises(ValueError, match="no route has the endpoints"):
        FastPath(create_app().api, routes=APIRouter().routes, adapters={endpoint: adapter})


def test_a_failure_after_the_adapter_began_is_not_repeated_by_fastapi(ways: Ways, person: Person) -> None:
    """The body is consumed and the vote may have been cast: an error of the batch is the answer."""
    short, long, passed = ways
    request_ = ("POST", "/vote", JSON, b'{"post_id": 9007199254740993, "vote_dir": 1}')
    assert ask(short, request_, person, 1) == ask(long, request_, person, 1)
    assert passed == []
