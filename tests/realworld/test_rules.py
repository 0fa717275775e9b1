"""What the main API refuses, the RealWorld API refuses, too: limits, blocks, bans, and what is hidden."""

import re
from collections.abc import Callable

import httpx2
import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app import realworld
from app.api.route import MAX_CREDENTIALS_BYTES
from app.config import get_settings
from app.main import create_app
from tests.fixtures import PASSWORD, Person
from tests.realworld.conftest import JSON, MakePost, Rows, as_token, assert_errors, name_of, shown

ORIGIN = {"Origin": "http://localhost:4100"}
# The 19 operations, with a body that each would accept.
OPERATIONS: dict[tuple[str, str], JSON | None] = {
    ("POST", "/api/users"): {"user": {"username": "new", "email": "new@example.com", "password": PASSWORD}},
    ("POST", "/api/users/login"): {"user": {"email": "new@example.com", "password": PASSWORD}},
    ("GET", "/api/user"): None,
    ("PUT", "/api/user"): {"user": {"bio": "x"}},
    ("GET", "/api/profiles/{username}"): None,
    ("POST", "/api/profiles/{username}/follow"): None,
    ("DELETE", "/api/profiles/{username}/follow"): None,
    ("GET", "/api/articles"): None,
    ("GET", "/api/articles/feed"): None,
    ("POST", "/api/articles"): {"article": {"title": "x", "description": "x", "body": "x"}},
    ("GET", "/api/articles/{slug}"): None,
    ("PUT", "/api/articles/{slug}"): {"article": {"title": "x"}},
    ("DELETE", "/api/articles/{slug}"): None,
    ("POST", "/api/articles/{slug}/favorite"): None,
    ("DELETE", "/api/articles/{slug}/favorite"): None,
    ("GET", "/api/articles/{slug}/comments"): None,
    ("POST", "/api/articles/{slug}/comments"): {"comment": {"body": "x"}},
    ("DELETE", "/api/articles/{slug}/comments/{id}"): None,
    ("GET", "/api/tags"): None,
}
WITHOUT_CREDENTIALS = {("POST", "/api/users"), ("POST", "/api/users/login")}
PUBLIC = {
    ("GET", path)
    for path in ("/api/profiles/{username}", "/api/articles", "/api/articles/{slug}", "/api/articles/{slug}/comments",
                 "/api/tags")
}  # fmt: skip
PROTECTED = sorted({*OPERATIONS} - WITHOUT_CREDENTIALS)
STATE = "SELECT (SELECT count(*) FROM {}) FROM generate_series(1, 1)"


@pytest.fixture
def post_id(person: Person, make_post: MakePost) -> int:
    return make_post(person)


@pytest.fixture
def comment_id(person: Person, post_id: int, make_comment: Callable[..., int]) -> int:
    return make_comment(person, post_id)


@pytest.fixture
def call(conduit: TestClient, person: Person, post_id: int, comment_id: int) -> Callable[..., httpx2.Response]:
    """Call an operation on the person's article, comment or profile: `call(("GET", path), headers)`."""

    def send(operation: tuple[str, str], headers: dict[str, str]) -> httpx2.Response:
        method, path = operation
        path = path.format(username=name_of(person), slug=f"x-{post_id}", id=comment_id)
        return conduit.request(method, path, json=OPERATIONS[operation], headers=headers)

    return send


Call = Callable[[tuple[str, str], dict[str, str]], httpx2.Response]


def test_these_are_all_operations() -> None:
    routes = [route for router in realworld.ROUTERS for route in router.routes]
    assert {(method, route.path) for route in routes for method in route.methods} == {*OPERATIONS}  # type: ignore[attr-defined]
    assert len(OPERATIONS) == 19


@pytest.mark.parametrize("operation", PROTECTED)
def test_garbage_token_is_401_that_browsers_can_read(call: Call, rows: Rows, operation: tuple[str, str]) -> None:
    for credentials in ("Token garbage", "token garbage", "Bearer garbage", "Token ", "Basic eDp5", "garbage"):
        response = call(operation, {"Authorization": credentials, **ORIGIN})

        assert_errors(response, 401, token="is invalid")
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert response.headers["Vary"] == "Origin"
        assert response.headers["Cache-Control"] == "no-store"
    assert [rows(STATE.format(table))[0][0] for table in ("posts", "comments", "follows", "votes")] == [1, 1, 0, 0]


@pytest.mark.parametrize("operation", PROTECTED)
def test_anonymous_callers_read_with_public_reads_only(
    call: Call, monkeypatch: pytest.MonkeyPatch, operation: tuple[str, str]
) -> None:
    if operation in PUBLIC:
        response = call(operation, ORIGIN)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        monkeypatch.setattr(get_settings(), "public_reads", False)

    assert_errors(call(operation, ORIGIN), 401, token="is missing")


@pytest.mark.parametrize("operation", PROTECTED)
@pytest.mark.parametrize("end", ["ban", "sign out"])
def test_token_ends_with_its_session(
    call: Call, conduit: TestClient, other: Person, moderator: Person, operation: tuple[str, str], end: str
) -> None:
    if end == "ban":
        ended = conduit.post(f"/users/{other.id}/ban", json={"reason": "Spam"}, headers=moderator.headers)
    else:
        ended = conduit.post("/logout", headers=other.headers)
    assert ended.status_code < 300

    assert_errors(call(operation, as_token(other)), 401, token="is invalid")


def test_ended_session_learns_nothing_from_filters(conduit: TestClient, person: Person, other: Person) -> None:
    conduit.post("/logout", headers=other.headers)

    for name in ("unknown", name_of(person)):
        for parameter in ("author", "favorited"):
            answer = conduit.get(f"/api/articles?{parameter}={name}", headers=as_token(other))
            assert_errors(answer, 401, token="is invalid")


def test_cookie_is_no_credential_there(conduit: TestClient, person: Person) -> None:
    signed_in = conduit.post("/login?cookie=true", data={"username": person.email, "password": PASSWORD})
    [cookie] = [f"{name}={value}" for name, value in signed_in.cookies.items()]
    conduit.cookies.clear()

    assert conduit.get("/users/me", headers={"Cookie": cookie}).status_code == 200
    assert_errors(conduit.get("/api/user", headers={"Cookie": cookie}), 401, token="is missing")


def test_api_key_acts_within_its_scopes(conduit: TestClient, person: Person, post_id: int, rows: Rows) -> None:
    body = {"name": "k", "scopes": ["read"]}
    key = conduit.post("/api-keys", json=body, headers=person.headers).json()["key"]
    headers = {"Authorization": f"Token {key}"}

    assert conduit.get("/api/articles/feed", headers=headers).status_code == 200
    for method, path in (("GET", "/api/user"), ("PUT", "/api/user"), ("DELETE", f"/api/articles/{post_id}")):
        assert conduit.request(method, path, json={"user": {"bio": "x"}}, headers=headers).status_code == 403
    assert rows("SELECT id FROM posts") == [(post_id,)]


def test_banned_account_cannot_sign_in_and_is_not_shown(
    conduit: TestClient, person: Person, other: Person, moderator: Person
) -> None:
    conduit.post(f"/users/{other.id}/ban", json={"reason": "Spam"}, headers=moderator.headers)

    answer = conduit.post("/api/users/login", json={"user": {"email": other.email, "password": PASSWORD}})
    assert (answer.status_code, [*answer.json()["errors"]]) == (403, ["message"])
    for headers in ({}, as_token(person)):
        assert_errors(conduit.get(f"/api/profiles/{name_of(other)}", headers=headers), 404, profile="not found")
    answer = conduit.post(f"/api/profiles/{name_of(other)}/follow", headers=as_token(person))
    assert_errors(answer, 404, profile="not found")


HIDING: dict[str, dict[str, object]] = {
    "draft": {"published": False},
    "removed": {"removal_reason": "Spam", "published_before_removal": True},
}


@pytest.mark.parametrize("kind", HIDING)
def test_what_is_hidden_in_the_main_api_is_hidden_here(
    conduit: TestClient, connection: Connection, person: Person, other: Person, post_id: int, comment_id: int,
    rows: Rows, kind: str,
) -> None:  # fmt: skip
    slug = f"x-{post_id}"
    conduit.post(f"/api/articles/{slug}/favorite", headers=as_token(other))
    conduit.post(f"/api/profiles/{name_of(person)}/follow", headers=as_token(other))
    connection.execute(text("UPDATE posts SET tags = '{sea}', description = 'secret'"))
    values: dict[str, object] = {"published": False, **HIDING[kind]}
    changes = ", ".join(f"{name} = :{name}" for name in values)
    connection.execute(text(f"UPDATE posts SET {changes}"), values)

    for headers in ({}, as_token(other)):
        for path in (
            "/api/articles", "/api/articles?tag=sea", f"/api/articles?author={name_of(person)}",
            f"/api/articles?author={name_of(person)}&tag=sea", f"/api/articles?favorited={name_of(other)}",
        ):  # fmt: skip
            answer = conduit.get(path, headers=headers)
            assert answer.json()["articles"] == [], path
        assert shown(conduit.get("/api/tags", headers=headers), "tags") == []
        for path in ("", "/comments"):
            answer = conduit.get(f"/api/articles/{slug}{path}", headers=headers)
            assert_errors(answer, 404, article="not found")
    assert conduit.get("/api/articles/feed", headers=as_token(other)).json() == {"articles": [], "articlesCount": 0}
    for method, path in (
        ("PUT", ""), ("DELETE", ""), ("POST", "/favorite"), ("DELETE", "/favorite"), ("POST", "/comments"),
        ("DELETE", f"/comments/{comment_id}"),
    ):  # fmt: skip
        body = {"article": {"title": "x"}, "comment": {"body": "x"}}
        answer = conduit.request(method, f"/api/articles/{slug}{path}", json=body, headers=as_token(other))
        assert_errors(answer, 404, article="not found")
    assert rows("SELECT user_id FROM votes") == [(other.id,)]
    assert rows("SELECT id FROM comments") == [(comment_id,)]
    # Its author sees it.
    assert shown(conduit.get(f"/api/articles/{slug}", headers=as_token(person)), "article")["description"] == "secret"
    answer = conduit.put(f"/api/articles/{slug}", json={"article": {"title": "t"}}, headers=as_token(person))
    assert shown(answer, "article")["title"] == "t"
    assert rows("SELECT published FROM posts") == [(False,)]


def test_removed_comment_is_not_listed(conduit: TestClient, moderator: Person, post_id: int, comment_id: int) -> None:
    removed = conduit.post(f"/comments/{comment_id}/remove", json={"reason": "Spam"}, headers=moderator.headers)
    assert removed.status_code == 200

    assert shown(conduit.get(f"/api/articles/{post_id}/comments"), "comments") == []


def test_blocks_hold(
    conduit: TestClient, person: Person, other: Person, post_id: int, comment_id: int, rows: Rows
) -> None:
    conduit.put(f"/users/{person.id}/block", headers=other.headers)
    conduit.put(f"/users/{other.id}/block", headers=person.headers)
    lists = ("/api/articles", f"/api/articles?author={name_of(person)}", "/api/articles/feed")

    for path in lists:
        assert conduit.get(path, headers=as_token(other)).json()["articles"] == []
    assert shown(conduit.get(f"/api/articles/{post_id}/comments", headers=as_token(other)), "comments") == []
    for path in (f"/api/profiles/{name_of(person)}/follow", f"/api/articles/{post_id}/comments"):
        answer = conduit.post(path, json={"comment": {"body": "x"}}, headers=as_token(other))
        assert (answer.status_code, [*answer.json()["errors"]]) == (403, ["message"])
    assert rows("SELECT follower_id FROM follows") == []
    assert rows("SELECT id FROM comments") == [(comment_id,)]


def test_locked_article_accepts_no_comments(
    conduit: TestClient, person: Person, moderator: Person, post_id: int
) -> None:
    conduit.post(f"/posts/{post_id}/lock", headers=moderator.headers)

    answer = conduit.post(
        f"/api/articles/{post_id}/comments", json={"comment": {"body": "x"}}, headers=as_token(person)
    )

    assert (answer.status_code, [*answer.json()["errors"]]) == (403, ["message"])


@pytest.mark.parametrize(
    ("path", "thing", "name", "value"),
    [
        ("/api/articles", "article", "title", "x" * 301), ("/api/articles", "article", "description", "x" * 501),
        ("/api/articles", "article", "body", "x" * 40_001), ("/api/articles", "article", "tagList", list("abcdef")),
        ("/api/articles", "article", "tagList", ["a b"]), ("/api/articles", "article", "title", "\0"),
        ("/api/articles", "article", "description", "a\0"), ("/api/articles", "article", "description", "\u200b"),
        ("/api/articles/{slug}/comments", "comment", "body", "x" * 10_001),
        ("/api/articles/{slug}/comments", "comment", "body", "\0"),
        ("/api/user", "user", "bio", "x" * 501), ("/api/user", "user", "password", "short"),
        ("/api/user", "user", "username", "a b"), ("/api/user", "user", "image", "https://\0"),
    ],
)  # fmt: skip
def test_text_past_the_bounds_of_the_main_api_is_refused(
    conduit: TestClient, person: Person, post_id: int, rows: Rows, path: str, thing: str, name: str, value: object
) -> None:
    article = {"title": "t", "description": "d", "body": "b"} if thing == "article" else {}
    method = "PUT" if thing == "user" else "POST"

    answer = conduit.request(
        method, path.format(slug=post_id), json={thing: article | {name: value}}, headers=as_token(person)
    )

    assert (answer.status_code, [*answer.json()["errors"]]) == (422, [name])
    assert (rows("SELECT id FROM posts"), rows("SELECT id FROM comments")) == ([(post_id,)], [])


def test_text_at_the_bounds_is_accepted(conduit: TestClient, person: Person) -> None:
    article = {"title": "x" * 300, "description": "d" * 500, "body": "b" * 40_000, "tagList": list("abcde")}

    answer = conduit.post("/api/articles", json={"article": article}, headers=as_token(person))

    assert shown(answer, "article", 201).items() >= article.items()


def test_bodies_are_bounded(conduit: TestClient, person: Person) -> None:
    large = {"user": {"email": "a@example.com", "password": "x" * MAX_CREDENTIALS_BYTES, "username": "abc"}}
    for path in ("/api/users", "/api/users/login"):
        answer = conduit.post(path, json=large)
        assert (answer.status_code, [*answer.json()["errors"]]) == (413, ["message"])
    huge = {"article": {"title": "t", "description": "d", "body": "x" * get_settings().max_body_bytes}}
    assert conduit.post("/api/articles", json=huge, headers=as_token(person)).status_code == 413


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"article": null}', b"\xff", b"[" * 100_000, b"NaN"])
def test_broken_bodies_are_422_with_errors(conduit: TestClient, person: Person, content: bytes) -> None:
    headers = {**as_token(person), "Content-Type": "application/json"}

    answer = conduit.post("/api/articles", content=content, headers=headers)

    assert answer.status_code == 422
    assert all(isinstance(messages, list) for messages in answer.json()["errors"].values())


def test_quotas_hold(conduit: TestClient, person: Person, other: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "follows_max", 0)

    answer = conduit.post(f"/api/profiles/{name_of(other)}/follow", headers=as_token(person))

    assert (answer.status_code, [*answer.json()["errors"]]) == (409, ["message"])


def test_requests_of_both_apis_are_counted_together_for_the_account(
    conduit: TestClient, person: Person, other: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "rate_limit_per_minute", 3)
    monkeypatch.setattr(get_settings(), "realworld_enabled", True)
    limited = TestClient(create_app())
    for path in ("/api/user", "/posts", "/api/articles"):
        headers = as_token(person) if path.startswith("/api") else person.headers
        assert limited.get(path, headers=headers).status_code == 200

    refused = limited.get("/api/tags", headers=as_token(person) | ORIGIN)

    assert (refused.status_code, [*refused.json()["errors"]]) == (429, ["message"])
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["X-RateLimit-Limit"] == "3"
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert limited.get("/posts", headers=person.headers).status_code == 429
    # Another account at the same address has its own window.
    assert limited.get("/api/user", headers=as_token(other)).status_code == 200
    assert conduit.get("/api/user", headers=as_token(person)).status_code == 200


@pytest.mark.parametrize("accept", ["application/json, text/plain, */*", "application/problem+json"])
def test_errors_have_their_form_whatever_the_client_accepts(conduit: TestClient, person: Person, accept: str) -> None:
    headers = as_token(person) | {"Accept": accept}

    assert_errors(conduit.get("/api/articles/x", headers=headers), 404, article="not found")
    answer = conduit.post("/api/articles", json={"article": {"title": "", "body": "x"}}, headers=headers)
    assert_errors(answer, 422, title="can't be blank", description="can't be blank")


def test_other_errors_have_that_form_too(conduit: TestClient) -> None:
    assert_errors(conduit.get("/api/unknown"), 404, message="Not Found")
    assert_errors(conduit.patch("/api/user"), 405, message="Method Not Allowed")
    head = conduit.head("/api/articles/x")
    assert (head.status_code, head.content) == (404, b"")
    assert "errors" not in conduit.get("/posts/0").json()
    assert "errors" not in conduit.get("/apis").json()


def test_browsers_may_send_the_header_and_aliases_of_paths_work(conduit: TestClient, person: Person) -> None:
    wanted = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = conduit.options("/api/user", headers=ORIGIN | wanted)
    assert preflight.status_code == 200
    assert re.split(", *", preflight.headers["Access-Control-Allow-Headers"].lower())[-1]
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    for path in ("/api/user", "/api/user/", "/v1/api/user"):
        assert shown(conduit.get(path, headers=as_token(person)), "user")["email"] == person.email
        assert_errors(conduit.get(path), 401, token="is missing")


def test_it_is_off_by_default_and_never_in_the_openapi_document(
    client: TestClient, conduit: TestClient, person: Person
) -> None:
    assert get_settings().realworld_enabled is False
    assert client.get("/api/articles", headers=person.headers).json()["code"] == "not_found"
    assert client.get("/users/me", headers=as_token(person)).status_code == 401
    assert not [path for path in conduit.get("/openapi.json").json()["paths"] if path.startswith("/api/")]
