"""No cache keeps what depends on the caller, for any status; every answer varies by origin."""

import re
import socket
from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests.contract.test_headers import ANSWERS, OPERATIONS, with_failures
from tests.fixtures import Person, Server

CREDENTIALS = {"Authorization", "Cookie", "X-API-Key"}


def names(response: httpx2.Response, header: str) -> set[str]:
    return {name.strip() for name in ",".join(response.headers.get_list(header)).split(",")}


def assert_not_kept_for_others(response: httpx2.Response) -> None:
    """Assert that no cache keeps the response, or only a private one, for these credentials only."""
    what = f"{response.request.method} {response.request.url}: {response.status_code}"
    assert "Origin" in names(response, "Vary"), what
    assert len(response.headers.get_list("Cache-Control")) == 1, what
    kept = names(response, "Cache-Control")
    if "no-store" not in kept:
        assert "private" in kept, what
        assert names(response, "Vary") >= CREDENTIALS, what


@pytest.mark.parametrize("origin", [None, "http://localhost:3000"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_responses_that_depend_on_the_caller_are_not_cached_for_others(
    client: TestClient, person: Person, admin: Person, make_post: Callable[..., int], method: str, path: str,
    origin: str | None,
) -> None:  # fmt: skip
    post_id = make_post(person)
    existing = path.replace("{id}", str(post_id if path.startswith("/posts") else person.id))
    said = {} if origin is None else {"Origin": origin}
    for address in (existing, re.sub(r"\{[^}]+\}", "x", path)):
        for caller in ({}, {"X-API-Key": "x"}, admin.headers, person.headers):
            assert_not_kept_for_others(client.request(method, address, headers=caller | said))
        assert_not_kept_for_others(client.options(address, headers=said))


@pytest.mark.parametrize("name", ANSWERS)
def test_no_cache_keeps_a_response_of_any_status(person: Person, name: str) -> None:
    response = ANSWERS[name](with_failures(create_app()), person.headers)

    assert response.status_code == int(name[:3])
    assert_not_kept_for_others(response)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/static/favicon.svg"])
def test_public_responses_may_be_cached_and_vary_by_origin(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.headers["Cache-Control"] == "no-cache"
    assert names(response, "Vary") == {"Origin"}


def test_malformed_http_is_refused_with_the_same_headers(start_server: Callable[..., Server]) -> None:
    server = start_server()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: a lot\r\n\r\n")
        head = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")[0].lower().decode()

    assert head.startswith("http/1.1 400 ")
    assert re.findall("^cache-control: (.*)\r?$", head, re.MULTILINE)[0].strip() == "no-store"
    assert "vary: origin" in head


@pytest.mark.parametrize(
    ("wanted", "status"),
    [("content-type, idempotency-key", 200), ("x" * 1024, 200), ("x" * 1025, 400), ("a: b", 400), ("naïve", 400)],
)
def test_a_preflight_repeats_names_of_headers_only(client: TestClient, wanted: str, status: int) -> None:
    headers = {
        b"Origin": b"http://localhost:3000",
        b"Access-Control-Request-Method": b"POST",
        b"Access-Control-Request-Headers": wanted.encode("latin-1"),
    }
    response = client.options("/posts", headers=headers)

    assert response.status_code == status
    assert response.headers.get("Access-Control-Allow-Headers") == (wanted if status == 200 else None)
    assert names(response, "Vary") >= {"Origin"}
    if status == 400:
        assert response.json()["code"] == "cors_refused"
