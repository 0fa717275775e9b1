"""What every route has in common: one shape of error, hostile input, request ids, methods, sizes."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.api.route import MAX_CREDENTIALS_BYTES
from app.main import app
from tests.contract.answers import OF_EACH_REQUEST, PROBLEM_KEYS, assert_refused
from tests.contract.conftest import Rows
from tests.fixtures import Person, Server, located

JSON = "application/json"
# Every route that takes a JSON body, and a body that it accepts.
TAKES_JSON: list[tuple[str, str]] = [
    (method.upper(), path)
    for path, item in app.api.openapi()["paths"].items()
    for method, operation in item.items()
    if JSON in operation.get("requestBody", {}).get("content", {})
]
UNTOUCHED = (
    "SELECT users::text FROM users UNION ALL SELECT posts::text FROM posts UNION ALL SELECT votes::text FROM votes"
)
MALFORMED = {
    "nothing": b"",
    "a space": b" ",
    "half a body": b'{"title": "x"',
    "not JSON": b"title=x",
    "single quotes": b"{'title': 'x'}",
    "not UTF-8": b'{"title": "\xff\xfe"}',
    "an overlong NUL": b'{"title": "\xc0\x80"}',
    "latin-1": '{"title": "ü"}'.encode("latin-1"),
    "depth 5 000, arrays": b"[" * 5_000,
    "depth 5 000, closed": b"[" * 5_000 + b"]" * 5_000,
    "depth 3 000, objects": b'{"a":' * 3_000,
    "depth 100 000, arrays": b"[" * 100_000,
    "depth 100 000, closed": b"[" * 100_000 + b"]" * 100_000,
    "depth 100 000, objects": b'{"a":' * 100_000,
    "a number of 5 000 digits": b'{"post_id": ' + b"1" * 5_000 + b', "vote_dir": 1}',
    "an exponent of 400": b'{"post_id": 1e400, "vote_dir": 1e400, "title": 1e400, "email": -1e400}',
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a NUL": b'"\\u0000"',
    "a lone surrogate": b'"\\ud800"',
    "trailing text": b"{} {}",
}


# Their bodies are small, because their requests may wait to hash.
TAKES_CREDENTIALS = ("/users", "/token", "/password-reset")


@pytest.mark.parametrize(("method", "path"), TAKES_JSON)
def test_a_malformed_body_is_refused_and_changes_nothing(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows, method: str, path: str
) -> None:
    address = path.replace("{id}", str(person.id if "users" in path else make_post(person)))
    before = rows(UNTOUCHED)

    for name, content in MALFORMED.items():
        if path in {"/invites", "/webhooks/{id}"} and name == "an exponent of 400":
            continue  # An object with an unknown field, which is ignored. No field is required here.
        headers = person.headers | {"Content-Type": JSON}
        response = client.request(method, address, content=content, headers=headers)
        takes_credentials = path.startswith(TAKES_CREDENTIALS) and not path.endswith(("/ban", "/avatar"))
        is_too_large = takes_credentials and len(content) > MAX_CREDENTIALS_BYTES
        status, code = (413, "body_too_large") if is_too_large else (422, "validation_failed")
        assert response.status_code == status, f"{name}: {response.text[:200]}"
        assert_refused(response, status, code)

    assert rows(UNTOUCHED) == before


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(("method", "path"), TAKES_JSON)
def test_what_is_not_json_is_refused_even_where_no_body_is_read(
    client: TestClient, person: Person, rows: Rows, method: str, path: str, constant: str
) -> None:
    content = '{"title": "t", "content": "c", "post_id": 1, "vote_dir": 1, "email": "a@b.example", "unknown": %s}'
    before = rows(UNTOUCHED)

    address, headers = path.replace("{id}", str(person.id)), person.headers | {"Content-Type": JSON}
    response = client.request(method, address, content=content % constant, headers=headers)

    assert_refused(response, 422, "validation_failed")
    assert [problem["type"] for problem in response.json()["detail"]] == ["json_invalid"]
    assert rows(UNTOUCHED) == before


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", "garbage", "", None])
def test_a_body_of_another_type_is_refused(
    client: TestClient, person: Person, rows: Rows, content_type: str | None
) -> None:
    headers = person.headers | ({} if content_type is None else {"Content-Type": content_type})

    response = client.post("/posts", content=b'{"title": "t", "content": "c"}', headers=headers)

    assert_refused(response, 422, "validation_failed")
    (problem,) = response.json()["detail"]
    assert (problem["loc"], problem["msg"]) == (["body"], "Send JSON, with `Content-Type: application/json`")
    assert rows("SELECT 1 FROM posts") == []


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"])
def test_a_body_of_any_json_type_is_read(client: TestClient, person: Person, content_type: str) -> None:
    headers = person.headers | {"Content-Type": content_type}

    assert client.post("/posts", content=b'{"title": "t", "content": "c"}', headers=headers).status_code == 201


def test_422_names_what_is_wrong_and_does_not_echo_it(client: TestClient, person: Person) -> None:
    body = {"title": ["canary-1"], "content": "", "published": "canary-2"}

    response = client.post("/posts", json=body, headers=person.headers)

    assert_refused(response, 422, "validation_failed")
    assert [problem["loc"] for problem in response.json()["detail"]] == [
        ["body", "title"], ["body", "content"], ["body", "published"],
    ]  # fmt: skip
    assert "canary" not in response.text


@pytest.mark.parametrize("accept", ["application/problem+json", "text/html, application/problem+json;q=0.9"])
def test_problem_json_is_the_strict_form(client: TestClient, person: Person, accept: str) -> None:
    headers = person.headers | {"Accept": accept}

    missing = client.get("/posts/0", headers=headers)
    malformed = client.get("/posts/x", headers=headers)

    for response in (missing, malformed):
        assert response.headers["Content-Type"] == "application/problem+json"
        assert isinstance(response.json()["detail"], str)
        assert response.json()["type"].startswith("urn:")
    assert set(missing.json()) == PROBLEM_KEYS
    assert malformed.json()["errors"][0]["loc"] == ["path", "id"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/posts/1/nothing", "/v1/nothing", "/v1/v1/posts", "/v2/posts", "/posts//", "/%00",
             "/../etc/passwd", "/static/../../main.py", "/static/%2e%2e/main.py", "/static/nothing",
             "/static/%00", "/static/" + "x" * 5000, "/%ff", "/V1/posts", "/Posts", "/v1posts", "/static"]
)  # fmt: skip
def test_paths_without_a_route_are_not_found(client: TestClient, path: str) -> None:
    assert_refused(client.get(path), 404, "not_found", "Not Found")


METHODS = {
    path.replace("{id}", "1"): {method.upper() for method in item} for path, item in app.api.openapi()["paths"].items()
} | {"/token": {"POST"}, "/votes": {"POST"}, "/docs": {"GET"}, "/redoc": {"GET"}, "/openapi.json": {"GET"}}


# What is no id is one to the router, and 422.
METHODS["/users/search"] |= METHODS["/users/1"]


def allowed(path: str) -> set[str]:
    return METHODS[path] | {"OPTIONS"} | ({"HEAD"} if "GET" in METHODS[path] else set())


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("path", METHODS)
def test_405_names_every_method_of_the_path(client: TestClient, path: str, prefix: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "BREW"} - METHODS[path]:
        for address in (prefix + path, prefix + path + "/"):
            response = client.request(method, address)
            assert_refused(response, 405, "method_not_allowed", "Method Not Allowed")
            assert set(response.headers["Allow"].split(", ")) == allowed(path)


@pytest.mark.parametrize("path", METHODS)
def test_options_names_the_methods_of_the_path(client: TestClient, path: str) -> None:
    response = client.options(path)

    assert (response.status_code, response.content) == (204, b"")
    assert set(response.headers["Allow"].split(", ")) == allowed(path)


def test_options_of_no_route_is_not_found(client: TestClient) -> None:
    assert_refused(client.options("/nothing"), 404, "not_found")


# An export and a live stream are made while they are sent, so they have no length. A challenge, where there is one,
# differs each time.
WITHOUT_HEAD = {"/users/me/export", "/live", "/sign-up-challenge"}


@pytest.mark.parametrize(
    "path", [path for path, methods in METHODS.items() if "GET" in methods and path not in WITHOUT_HEAD]
)
def test_head_answers_like_get_without_a_body(
    client: TestClient,
    admin: Person,
    make_post: Callable[..., int],
    make_comment: Callable[..., int],
    make_media: Callable[..., dict[str, Any]],
    path: str,
) -> None:
    post_id = make_post(admin)
    address = path.replace("posts/1", f"posts/{post_id}").replace("users/1", f"users/{admin.id}")
    address = address.replace("comments/1", f"comments/{make_comment(admin, post_id)}")
    address = address.replace("{username}", f"user{admin.id}").replace("{name}", "a")
    address = address.replace("/search", "/search?q=user")
    if path.startswith("/media/"):
        picture = make_media(admin)
        address = picture["url"] if "{file_name}" in path else f"/media/{picture['id']}"
    if path.startswith("/webhooks/"):
        new_webhook = {"url": "https://example.com/", "events": ["comment"]}
        made = client.post("/webhooks", json=new_webhook, headers=admin.headers)
        address = path.replace("1", str(made.json()["id"]))
    if "api-keys/1" in path:
        new = {"name": "backup", "scopes": ["read"]}
        address = located(client.post("/api-keys", json=new, headers=admin.headers))

    get, head = (client.request(method, address, headers=admin.headers) for method in ("GET", "HEAD"))

    assert get.status_code == head.status_code == 200
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k not in OF_EACH_REQUEST} == {
        k: v for k, v in get.headers.items() if k not in OF_EACH_REQUEST
    }
    assert int(head.headers["Content-Length"]) == len(get.content)


def test_head_is_refused_like_get(client: TestClient, person: Person) -> None:
    for path, headers, status in (("/posts", {}, 401), ("/posts/0", person.headers, 404), ("/vote", {}, 405)):
        response = client.head(path, headers=headers)
        assert (response.status_code, response.content) == (status, b"")


# Sizes.


def test_a_declared_body_past_the_limit_is_refused_at_once(client: TestClient, person: Person, rows: Rows) -> None:
    # Only the declaration is too large, so what is sent would be a valid post.
    body, declared = b'{"title": "t", "content": "c"}', {"Content-Type": JSON, "Content-Length": "1000001"}

    response = client.post("/posts", content=body, headers=person.headers | declared)

    assert_refused(response, 413, "body_too_large")
    assert response.headers["Connection"] == "close"
    assert rows("SELECT 1 FROM posts") == []


@pytest.mark.parametrize("path", ["/posts", "/users", "/vote", "/login"])
def test_an_undeclared_body_past_the_limit_is_refused(
    client: TestClient, person: Person, rows: Rows, path: str
) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"title": "t", "content": "c", "padding": "'
        yield from (b"x" * 100_000 for _ in range(20))
        yield b'"}'

    content_type = "application/x-www-form-urlencoded" if path == "/login" else JSON
    response = client.post(path, content=endless(), headers=person.headers | {"Content-Type": content_type})

    assert_refused(response, 413, "body_too_large")
    assert rows("SELECT 1 FROM posts") == []


def test_a_body_just_within_the_limit_is_read(client: TestClient, person: Person) -> None:
    body = b'{"title": "t", "content": "c", "padding": "%s"}'
    padded = body % (b"x" * (1_000_000 - len(body) + 2))
    assert len(padded) == 1_000_000

    response = client.post("/posts", content=padded, headers=person.headers | {"Content-Type": JSON})

    assert response.status_code == 201


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "+5", "9" * 50])
def test_an_invalid_content_length_is_refused(client: TestClient, person: Person, length: str) -> None:
    headers = person.headers | {"Content-Type": JSON, "Content-Length": length}

    assert_refused(client.post("/posts", content=b"{}", headers=headers), 413, "body_too_large")


def test_a_long_query_and_many_parameters_break_nothing(client: TestClient, person: Person) -> None:
    for query in ("search=" + "x" * 16_000, "&".join(f"p{i}=1" for i in range(1_500)), "limit=1&" * 2_000, "%" * 9_000):
        assert client.get(f"/posts?{query}", headers=person.headers).status_code in {200, 422}


@pytest.mark.parametrize("target", ["/posts?search=" + "x" * 64_000, "/" + "x" * 17_000, "/posts?" + "a&" * 9_000])
def test_a_path_and_query_past_16_kb_are_refused(client: TestClient, person: Person, target: str) -> None:
    assert_refused(client.get(target, headers=person.headers), 414, "uri_too_long")


def test_headers_past_32_kb_are_refused_and_just_below_are_read(client: TestClient, person: Person) -> None:
    for sent in ({"X-Long": "x" * 33_000}, {f"X-{number}": "x" * 1_000 for number in range(33)}):
        assert_refused(client.get("/posts", headers=person.headers | sent), 431, "headers_too_large")

    assert client.get("/posts", headers=person.headers | {"X-Long": "x" * 31_000}).status_code == 200


# Request ids.


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
def test_a_request_id_that_is_well_formed_is_taken_over(client: TestClient, given: str) -> None:
    response = client.get("/posts", headers={"X-Request-ID": given})

    assert response.headers["X-Request-ID"] == given
    assert response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "a\tb", "ü", "<script>", "a,b"])
def test_a_request_id_that_is_not_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/posts", headers={b"X-Request-ID": given.encode()})

    made = response.headers["X-Request-ID"]
    assert len(made) == 32
    assert made != given
    assert response.json()["request_id"] == made


def test_every_request_without_an_id_gets_a_new_one(client: TestClient) -> None:
    ids = {client.get(path).headers["X-Request-ID"] for path in ("/", "/posts", "/nothing", "/docs", "/livez") * 2}

    assert len(ids) == 10


# Bugs of ours, and a database that is not there.


@pytest.mark.parametrize("origin", [None, "http://localhost:3000"])
def test_an_internal_error_has_the_usual_shape_and_reveals_nothing(
    client: TestClient, person: Person, connection: Any, origin: str | None
) -> None:
    from tests.contract.answers import assert_documented

    client.event_hooks["response"].remove(assert_documented)
    connection.exec_driver_sql("ALTER TABLE post_stats RENAME TO post_stats_away")
    try:
        responses = [
            client.request(method, path, json=body, headers=person.headers | ({"Origin": origin} if origin else {}))
            for method, path, body in (
                ("GET", "/posts", None),
                ("POST", "/posts", {"title": "canary", "content": "canary"}),
                ("POST", "/vote", {"post_id": 1, "vote_dir": 1}),
            )
        ]
    finally:
        connection.exec_driver_sql("ALTER TABLE post_stats_away RENAME TO post_stats")
        client.event_hooks["response"].append(assert_documented)

    for response in responses:
        assert_refused(response, 500, "internal_error", "Internal Server Error")
        assert "post_stats" not in response.text
        assert "canary" not in response.text
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers.get("Access-Control-Allow-Origin") == origin


def test_an_exception_of_any_kind_has_the_headers_of_every_answer() -> None:
    """On an application of its own, with a route that no review would let pass."""
    from app.main import create_app

    broken = create_app()

    @broken.api.get("/broken")
    def break_down() -> None:
        raise RuntimeError("canary")

    # Not entered: its lifespan would dispose of the engine that other tests use.
    headers = {"Origin": "http://localhost:3000", "X-Request-ID": "broken-1"}
    response = TestClient(broken).get("/broken", headers=headers)

    assert_refused(response, 500, "internal_error", "Internal Server Error")
    assert response.headers["X-Request-ID"] == "broken-1"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "canary" not in response.text


def test_a_server_whose_database_is_away_says_not_now(start_server: Callable[..., Server], person: Person) -> None:
    from sqlalchemy import text

    from app.database.engines import dispose, get_engine
    from tests.conftest import administration

    url = get_engine().url
    server = start_server(DATABASE_CONNECT_TIMEOUT_SECONDS="1")
    name = url.database
    with administration(url.set(database="postgres")) as connection, httpx2.Client(base_url=server.url) as browser:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        try:
            connection.execute(text(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ))  # fmt: skip
            for path in ("/posts", "/users/me", "/readyz"):
                for _ in range(2):
                    response = browser.get(path, headers=person.headers)
                    assert_refused(response, 503, "unavailable")
                    assert response.headers["Retry-After"] == "1"
            assert browser.get("/livez").status_code == 200
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            dispose()
        assert browser.get("/posts", headers=person.headers).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "zstd", "gzip, identity"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/posts"), ("POST", "/vote"), ("PATCH", "/users/me")])
def test_a_compressed_body_is_refused_as_one(
    client: TestClient, person: Person, method: str, path: str, encoding: str
) -> None:
    headers = person.headers | {"Content-Encoding": encoding, "Content-Type": "application/json"}

    response = client.request(method, path, content=gzip.compress(b"{}"), headers=headers)

    assert_refused(response, 415, "unsupported_encoding")
    assert response.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_says_that_it_is_not_compressed_is_read(client: TestClient, person: Person, encoding: str) -> None:
    headers = person.headers | {"Content-Encoding": encoding}

    assert client.post("/posts", json={"title": "t", "content": "c"}, headers=headers).status_code == 201


def answer_to(server: Server, head: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the server's answer to these bytes, which no client would send."""
    address = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((address[0], int(address[2])), timeout=20) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_request_has_one_host_and_an_encoded_target(start_server: Callable[..., Server]) -> None:
    server = start_server()
    host = b"Host: posts.example\r\n"

    assert answer_to(server, b"GET /livez HTTP/1.1\r\n" + host) == (200, {"status": "ok"})
    # A health check of HAProxy.
    assert answer_to(server, b"GET /livez HTTP/1.0\r\n") == (200, {"status": "ok"})
    for hosts in (b"", host * 2, host + b"Host: other.example\r\n"):
        status, body = answer_to(server, b"GET /livez HTTP/1.1\r\n" + hosts)
        assert (status, body["code"]) == (400, "invalid_host")
    assert answer_to(server, b"GET /livez HTTP/1.0\r\n" + host * 2)[0] == 400
    for target in ("/posts?search=caf\xe9", "/posts/\xe9"):
        for encoding in ("utf-8", "latin-1"):
            status, body = answer_to(server, f"GET {target} HTTP/1.1\r\n".encode(encoding) + host)
            assert (status, body["code"]) == (400, "bad_request")
            assert "percent-encoded, as UTF-8" in body["detail"]
