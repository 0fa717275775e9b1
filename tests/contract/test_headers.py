"""Security headers and CORS headers of every response, whichever layer sends it."""

import re
from collections.abc import Callable, Iterator

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import get_settings
from app.errors import Unavailable
from app.main import Application, app, create_app
from tests.fixtures import Person

ORIGIN = "https://app.example"
# Of a web view on a phone or desktop, and of browser extensions.
APPLICATIONS = [
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0f3b9c5e-6a8e-4c3f-9a53-2f2a5b1a7c11",
    "safari-web-extension://0f3b9c5e-6a8e-4c3f-9a53-2f2a5b1a7c11",
]
JSON = {"Content-Type": "application/json"}
OPERATIONS = [(method.upper(), path) for path, item in app.api.openapi()["paths"].items() for method in item]
Ask = Callable[[TestClient, dict[str, str]], httpx2.Response]

# An answer of every status, and how to get it; the dictionary has the headers of a signed-in user.
ANSWERS: dict[str, Ask] = {
    "200": lambda client, signed_in: client.get("/posts", headers=signed_in),
    "201": lambda client, signed_in: client.post("/posts", json={"title": "t", "content": "c"}, headers=signed_in),
    "204 to OPTIONS": lambda client, _: client.options("/posts"),
    "304": lambda client, signed_in: client.get("/posts", headers=signed_in | {"If-None-Match": "*"}),
    "401": lambda client, _: client.get("/posts"),
    "403": lambda client, signed_in: client.get("/users", headers=signed_in),
    "404": lambda client, signed_in: client.get("/posts/0", headers=signed_in),
    "404 of no route": lambda client, _: client.get("/nothing"),
    "404 of no file": lambda client, _: client.get("/static/nothing"),
    "405": lambda client, _: client.put("/posts"),
    "413": lambda client, signed_in: client.post("/posts", content=b"x" * 1_000_001, headers=signed_in | JSON),
    "414": lambda client, _: client.get("/posts?search=" + "x" * 20_000),
    "422": lambda client, signed_in: client.post("/posts", json={}, headers=signed_in),
    "431": lambda client, _: client.get("/posts", headers={"X-Long": "x" * 40_000}),
    "500": lambda client, _: client.get("/broken"),
    "503": lambda client, _: client.get("/away"),
    "200 of the document": lambda client, _: client.get("/openapi.json"),
}


def with_failures(application: Application) -> TestClient:
    """A client of the application, with two more routes.

    Not entered: leaving would dispose of the shared engine.
    """

    @application.api.get("/broken")
    def break_down() -> None:
        raise RuntimeError

    @application.api.get("/away")
    def be_away() -> None:
        raise Unavailable

    return TestClient(application)


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, person: Person) -> Iterator[TestClient]:  # noqa: ARG001 - an account exists.
    settings = {"ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10", "CORS_ORIGINS": ORIGIN}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    try:
        yield with_failures(create_app())
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


def assert_careful(response: httpx2.Response, *, is_production: bool) -> None:
    headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers.get("Strict-Transport-Security") == (
        "max-age=63072000; includeSubDomains" if is_production else None
    )
    assert headers["X-Request-ID"]
    assert "server" not in headers
    assert "x-powered-by" not in headers


@pytest.mark.parametrize("name", ANSWERS)
def test_responses_of_every_status_have_the_security_headers(person: Person, production: TestClient, name: str) -> None:
    response = ANSWERS[name](production, person.headers)

    assert response.status_code == int(name[:3])
    assert_careful(response, is_production=True)


@pytest.mark.parametrize("name", ANSWERS)
def test_in_development_no_response_demands_https(person: Person, name: str) -> None:
    response = ANSWERS[name](with_failures(create_app()), person.headers)

    assert response.status_code == int(name[:3])
    assert_careful(response, is_production=False)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(("origin", "is_let_in"), [(ORIGIN, True), ("https://evil.example", False), ("null", False)])
def test_a_page_of_the_list_may_read_every_answer_and_no_other_page_any(
    person: Person, production: TestClient, name: str, origin: str, is_let_in: bool
) -> None:
    production.headers["Origin"] = origin
    response = ANSWERS[name](production, person.headers)

    assert response.status_code == int(name[:3])
    assert response.headers.get("Access-Control-Allow-Origin") == (origin if is_let_in else None)
    assert response.headers.get("Access-Control-Allow-Origin") != "*"


@pytest.mark.parametrize("origin", APPLICATIONS)
def test_an_application_in_the_list_may_call_and_a_stranger_of_its_kind_may_not(
    person: Person, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    monkeypatch.setattr(get_settings(), "cors_origins", APPLICATIONS)
    # Not entered: leaving would dispose of the shared engine.
    client = TestClient(create_app())
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    for caller, is_let_in in ((origin, True), (f"{origin}.evil", False), (origin.partition("://")[0] + "://x", False)):
        answer = client.get("/posts", headers=person.headers | {"Origin": caller})
        preflight = client.options("/posts", headers=asked | {"Origin": caller})

        assert answer.headers.get("Access-Control-Allow-Origin") == (caller if is_let_in else None)
        assert preflight.status_code == (200 if is_let_in else 400)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_has_the_security_headers(client: TestClient, person: Person, method: str, path: str) -> None:
    for address in (re.sub(r"\{[^}]+\}", "1", path), re.sub(r"\{[^}]+\}", "x", path)):
        for headers in ({}, person.headers):
            assert_careful(client.request(method, address, headers=headers), is_production=False)
        assert_careful(client.options(address), is_production=False)


def test_responses_with_credentials_forbid_caching(client: TestClient, person: Person) -> None:
    """Sign-in is tested here; tests/contract/answers.py checks every other answer.

    It asserts the same for each answer with a credential in it.
    """
    response = client.post("/login", data={"username": person.email, "password": "correct horse battery"})

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
