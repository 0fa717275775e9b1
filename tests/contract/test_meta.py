"""The greeting, health, documentation, and headers for browsers: security and CORS."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from sqlalchemy import Connection
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.fixtures import Person, Server

SECRET = "0123456789abcdef" * 3
EVERYWHERE = ["/", "/livez", "/readyz", "/posts", "/users/me", "/users/0", "/nothing", "/posts/x", "/openapi.json"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_the_greeting_links_to_the_documentation(client: TestClient, prefix: str) -> None:
    greeting = client.get(prefix + "/").json()

    assert {"message", "docs", "redoc", "openapi"} == set(greeting)
    for name in ("docs", "redoc", "openapi"):
        assert greeting[name].startswith(prefix + "/")
        assert client.get(greeting[name]).status_code == 200


def test_the_document_below_v1_says_where_it_is(client: TestClient) -> None:
    servers = [server["url"] for server in client.get("/v1/openapi.json").json()["servers"]]

    assert servers == ["/v1", "/"]
    assert [server["url"] for server in client.get("/openapi.json").json()["servers"]] == ["/"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/livez", "/readyz/"])
def test_a_healthy_server_says_so(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_server_on_a_database_that_is_not_migrated_is_not_ready(client: TestClient, connection: Connection) -> None:
    from tests.contract.answers import assert_documented

    client.event_hooks["response"].remove(assert_documented)
    (head,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").one()
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    try:
        response = client.get("/readyz")
        alive = client.get("/livez")
    finally:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (head,))
        client.event_hooks["response"].append(assert_documented)

    assert_refused(response, 503, "not_ready")
    assert "alembic upgrade head" in response.json()["detail"]
    assert alive.status_code == 200


@pytest.mark.parametrize(("revision", "status"), [("9999", 200), ("f4b0c2d1e3a5", 503), ("99999", 503)])
def test_a_server_whose_successor_has_migrated_stays_ready_but_not_on_a_strangers_database(
    client: TestClient, connection: Connection, revision: str, status: int
) -> None:
    from tests.contract.answers import assert_documented

    client.event_hooks["response"].remove(assert_documented)
    (head,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").one()
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (revision,))
    try:
        response = client.get("/readyz")
    finally:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (head,))
        client.event_hooks["response"].append(assert_documented)

    assert response.status_code == status


@pytest.mark.parametrize("path", EVERYWHERE)
def test_every_answer_tells_browsers_to_be_careful(client: TestClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "Strict-Transport-Security" not in headers


# CORS. In development, without a list, every page of this machine may call.

PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,if-match"}


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://localhost:8443", "http://127.0.0.1:5173", "http://[::1]:1"],
)
def test_a_page_of_this_machine_may_call_in_development(client: TestClient, person: Person, origin: str) -> None:
    preflight = client.options("/posts/1", headers=PREFLIGHT | {"Origin": origin})
    response = client.get("/posts", headers=person.headers | {"Origin": origin})
    refusal = client.get("/posts", headers={"Origin": origin})

    assert preflight.status_code == 200
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    for answer in (preflight, response, refusal):
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in answer.headers["Vary"]
    assert {"ETag", "Link", "X-Request-ID"} <= set(response.headers["Access-Control-Expose-Headers"].split(", "))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "http://localhost:3000.evil.example", "null",
               "http://evil.example/http://localhost", "ftp://localhost", "http://localhost:", "*", ""]
)  # fmt: skip
def test_a_page_from_elsewhere_may_not_call(client: TestClient, origin: str) -> None:
    preflight = client.options("/posts", headers=PREFLIGHT | {"Origin": origin})
    response = client.get("/livez", headers={"Origin": origin})

    assert_refused(preflight, 400, "cors_refused", "Disallowed CORS origin")
    assert preflight.headers["X-Content-Type-Options"] == "nosniff"
    for answer in (preflight, response):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_preflight_for_a_method_that_no_route_has_is_refused(client: TestClient) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "BREW"}

    assert_refused(client.options("/posts", headers=headers), 400, "cors_refused", "Disallowed CORS method")


def test_a_production_server_lets_in_its_list_only_and_sends_hsts(start_server: Callable[..., Server]) -> None:
    server = start_server(
        ENVIRONMENT="production", SECRET_KEY=SECRET, PASSWORD_HASH_ROUNDS="10", WORKERS="1",
        CORS_ORIGINS="https://app.example, https://admin.example/",
    )  # fmt: skip
    with httpx2.Client(base_url=server.url) as browser:
        for origin in ("https://app.example", "https://admin.example"):
            response = browser.get("/posts", headers={"Origin": origin})
            assert response.headers["Access-Control-Allow-Origin"] == origin
            assert browser.options("/posts", headers=PREFLIGHT | {"Origin": origin}).status_code == 200
        for origin in ("http://app.example", "https://app.example:8443", "http://localhost:3000", "null"):
            response = browser.get("/posts", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in response.headers
            assert browser.options("/posts", headers=PREFLIGHT | {"Origin": origin}).status_code == 400
        for path in EVERYWHERE:
            response = browser.get(path)
            assert response.headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains"
            assert "server" not in response.headers
            assert "x-powered-by" not in response.headers


def test_a_production_server_without_a_list_lets_no_page_in(start_server: Callable[..., Server]) -> None:
    server = start_server(ENVIRONMENT="production", SECRET_KEY=SECRET, PASSWORD_HASH_ROUNDS="10", WORKERS="1")
    for origin in ("http://localhost:3000", "https://app.example", "null"):
        response = httpx2.get(f"{server.url}/livez", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in response.headers


def test_a_real_server_answers_head_options_and_oversized_bodies_like_the_application(
    start_server: Callable[..., Server], person: Person
) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"x" * 100_000 for _ in range(30))

    headers = person.headers | {"Content-Type": "application/json"}
    with httpx2.Client(base_url=start_server().url) as browser:
        head = browser.head("/posts", headers=person.headers)
        assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "2")
        assert browser.get("/posts", headers=person.headers).json() == []  # On the same connection.
        assert browser.options("/posts").headers["Allow"] == "GET, POST, HEAD, OPTIONS"
        assert_refused(browser.post("/posts", content=b"x" * 1_000_001, headers=headers), 413, "body_too_large")
        assert_refused(browser.post("/posts", content=chunks(), headers=headers), 413, "body_too_large")
        assert browser.get("/posts", headers=person.headers).json() == []
