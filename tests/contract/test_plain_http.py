"""The name of the session cookie: one that clients keep over plain http, in development only."""

from collections.abc import Callable

import httpx2
import pytest

from tests.contract.answers import assert_unauthenticated
from tests.fixtures import PASSWORD, Person, Server

StartServer = Callable[..., Server]
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
BEHIND_TLS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
PRODUCTION = {
    "ENVIRONMENT": "production", "PASSWORD_HASH_ROUNDS": "10", "WORKERS": "1", "TRUSTED_PROXIES": "127.0.0.1",
}  # fmt: skip
PROTECTED = ("__Host-session", True)


def sign_in(client: httpx2.Client, person: Person, headers: dict[str, str] | None = None) -> tuple[str, bool, str]:
    """The cookie's name, whether it is `Secure`, and its value."""
    form = {"username": person.email, "password": PASSWORD}
    response = client.post("/login?cookie=true", data=form, headers=SAME_ORIGIN | (headers or {}))
    assert response.status_code == 200
    pair, *attributes = response.headers["Set-Cookie"].split("; ")
    name, _, value = pair.partition("=")
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(attributes)
    assert not any(attribute.lower().startswith("domain") for attribute in attributes)
    return name, "Secure" in attributes, value


def test_in_development_a_client_with_a_cookie_jar_is_signed_in_over_plain_http(
    start_server: StartServer, person: Person
) -> None:
    """The jar is Python's, which keeps to the letter of `Secure`, as Safari does."""
    with httpx2.Client(base_url=start_server().url) as client:
        assert sign_in(client, person)[:2] == ("session", False)
        assert client.get("/users/me").json()["id"] == person.id
        written = client.post("/posts", json={"title": "t", "content": "c"}, headers=SAME_ORIGIN)
        assert written.status_code == 201
        assert client.post("/posts", json={}, headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.post("/logout", headers=SAME_ORIGIN).status_code == 204
        assert "session" not in client.cookies
        assert_unauthenticated(client.get("/users/me"))


def test_in_development_over_https_the_cookie_is_protected_and_no_other_is_accepted(
    start_server: StartServer, person: Person
) -> None:
    server = start_server(TRUSTED_PROXIES="127.0.0.1")
    with httpx2.Client(base_url=server.url) as client:
        *kind, value = sign_in(client, person, BEHIND_TLS)
        client.cookies.clear()

        assert tuple(kind) == PROTECTED
        assert client.get("/users/me", headers=BEHIND_TLS | {"Cookie": f"__Host-session={value}"}).status_code == 200
        assert_unauthenticated(client.get("/users/me", headers=BEHIND_TLS | {"Cookie": f"session={value}"}))
        assert_unauthenticated(client.get("/users/me", headers={"Cookie": f"__Host-session={value}"}))


@pytest.mark.parametrize("headers", [{}, BEHIND_TLS], ids=["http", "https"])
def test_in_production_the_cookie_is_protected_and_no_other_is_accepted(
    start_server: StartServer, person: Person, headers: dict[str, str]
) -> None:
    with httpx2.Client(base_url=start_server(**PRODUCTION).url) as client:
        *kind, value = sign_in(client, person, headers)
        client.cookies.clear()

        assert tuple(kind) == PROTECTED
        assert client.get("/users/me", headers=headers | {"Cookie": f"__Host-session={value}"}).status_code == 200
        assert_unauthenticated(client.get("/users/me", headers=headers | {"Cookie": f"session={value}"}))
        signed_out = client.post(
            "/logout", headers=headers | SAME_ORIGIN | {"Cookie": f"__Host-session={value}"}
        )  # fmt: skip
        assert signed_out.status_code == 204
        assert signed_out.headers["Set-Cookie"].startswith('__Host-session="";')
        assert "Secure" in signed_out.headers["Set-Cookie"]
