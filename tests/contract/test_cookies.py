"""Cookie mode, `POST /login?cookie=true`: pages of other sites can do nothing with the cookie."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.authentication import SAFE_METHODS
from app.main import app
from tests.contract.answers import assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
FROM_ELSEWHERE: dict[str, dict[str, str]] = {
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another host of this site": {"Sec-Fetch-Site": "same-site"},
    "a word that browsers may have one day": {"Sec-Fetch-Site": "same-galaxy"},
    "another site that says a good Origin": {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    "an old browser, from another site": {"Origin": "https://evil.example"},
    "an old browser, from a host whose name begins like ours": {"Origin": "http://testserver.evil.example"},
    "an old browser, from another port": {"Origin": "http://testserver:81"},
    "an old browser, from a sandbox": {"Origin": "null"},
    "an application whose host is named like ours": {"Origin": "capacitor://testserver"},
    "an old browser, from nowhere": {"Origin": ""},
    "a client without such headers": {},
}
UNSAFE = sorted(
    (method.upper(), path)
    for path, item in app.api.openapi()["paths"].items()
    for method, operation in item.items()
    if method.upper() not in SAFE_METHODS and operation["security"]
)


@pytest.fixture
def cookie(client: TestClient, person: Person) -> str:
    """The cookie of a session of the person's, as a browser sends it."""
    form = {"username": person.email, "password": PASSWORD}
    response = client.post("/login?cookie=true", data=form, headers=SAME_ORIGIN)
    assert response.status_code == 200
    client.cookies.clear()
    return response.headers["set-cookie"].partition(";")[0]


def test_signing_in_sets_the_cookie_and_answers_no_token(client: TestClient, person: Person, rows: Rows) -> None:
    form = {"username": person.email, "password": PASSWORD}

    response = client.post("/login?cookie=true", data=form, headers=SAME_ORIGIN)

    assert response.json() == {"expires_in": 30 * 86_400}
    assert response.headers["Cache-Control"] == "no-store"
    pair, *attributes = response.headers["set-cookie"].split("; ")
    # In development over plain http; tests/contract/test_plain_http.py has the cookie everywhere else.
    assert pair.startswith("session=ey")
    assert {attribute.lower() for attribute in attributes} == {
        "httponly", "samesite=lax", "path=/", f"max-age={30 * 86_400}",
    }  # fmt: skip
    assert rows("SELECT refresh_family FROM sessions WHERE id > :id", id=person.session_id) == [(None,)]


def test_the_cookie_signs_in_where_a_token_does(client: TestClient, person: Person, cookie: str) -> None:
    headers = {"Cookie": f"theme=dark; {cookie}"}

    assert client.get("/users/me", headers=headers).json()["id"] == person.id
    assert client.get("/posts", headers=headers).status_code == 200
    assert client.get(f"/users/{person.id}", headers=headers).json()["email"] == person.email
    assert client.head("/posts", headers=headers | {"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [SAME_ORIGIN, {"Sec-Fetch-Site": "none"}, {"Origin": "http://testserver"}, {"Origin": "https://testserver"}],
)
def test_pages_of_this_origin_may_write(client: TestClient, cookie: str, rows: Rows, headers: dict[str, str]) -> None:
    response = client.post("/posts", json={"title": "t", "content": "c"}, headers={"Cookie": cookie, **headers})

    assert response.status_code == 201
    assert rows("SELECT title FROM posts") == [("t",)]


@pytest.mark.parametrize("elsewhere", FROM_ELSEWHERE)
@pytest.mark.parametrize(("method", "path"), UNSAFE)
def test_pages_of_other_sites_change_nothing(
    client: TestClient, person: Person, cookie: str, rows: Rows, method: str, path: str, elsewhere: str
) -> None:
    state = "SELECT users::text, sessions.id FROM users JOIN sessions ON user_id = users.id ORDER BY sessions.id"
    before = rows(state)
    body: Any = {"title": "t", "content": "c", "post_id": 1, "vote_dir": 1, "username": "eve"}

    response = client.request(
        method,
        path.replace("{id}", str(person.id)),
        json=body,
        headers={"Cookie": cookie, **FROM_ELSEWHERE[elsewhere]},
    )

    assert_refused(response, 403, "cross_site_request")
    assert rows(state) == before
    assert rows("SELECT 1 FROM posts UNION ALL SELECT 1 FROM votes") == []


def test_a_form_of_another_site_is_refused_even_when_it_is_malformed(client: TestClient, cookie: str) -> None:
    headers = {"Cookie": cookie, "Origin": "https://evil.example", "Content-Type": "text/plain"}

    assert_refused(client.post("/posts", content=b"{{{", headers=headers), 403, "cross_site_request")
    assert_unauthenticated(client.post("/posts", content=b"{{{", headers=headers | {"Cookie": cookie + "x"}))


@pytest.mark.parametrize("elsewhere", FROM_ELSEWHERE)
def test_a_bearer_token_is_taken_from_everywhere_also_beside_a_cookie(
    client: TestClient, other: Person, cookie: str, rows: Rows, elsewhere: str
) -> None:
    headers = {**other.headers, "Cookie": cookie, **FROM_ELSEWHERE[elsewhere]}

    assert client.post("/posts", json={"title": "t", "content": "c"}, headers=headers).status_code == 201
    assert rows("SELECT owner_id FROM posts") == [(other.id,)]


def test_a_bad_bearer_token_is_refused_despite_a_valid_cookie(client: TestClient, cookie: str) -> None:
    headers = {"Authorization": "Bearer garbage", "Cookie": cookie, **SAME_ORIGIN}

    assert_unauthenticated(client.get("/posts", headers=headers))


def test_cookies_and_bearer_tokens_are_not_interchangeable(client: TestClient, person: Person, cookie: str) -> None:
    value = cookie.partition("=")[2]

    for path in ("/posts", "/users/me", "/sessions"):
        assert_unauthenticated(client.get(path, headers={"Authorization": f"Bearer {value}"}))
        assert_unauthenticated(client.get(path, headers={"Cookie": f"session={person.token}"}))
    # Also once each was remembered as what it is.
    assert client.get("/posts", headers={"Cookie": cookie}).status_code == 200
    assert client.get("/posts", headers=person.headers).status_code == 200
    assert_unauthenticated(client.get("/posts", headers={"Authorization": f"Bearer {value}"}))
    assert_unauthenticated(client.get("/posts", headers={"Cookie": f"session={person.token}"}))


@pytest.mark.parametrize("name", ["__Host-session", "Session", "__Secure-session"])
def test_only_the_cookie_of_the_one_name_counts(client: TestClient, cookie: str, name: str) -> None:
    assert_unauthenticated(client.get("/posts", headers={"Cookie": f"{name}={cookie.partition('=')[2]}"}))


def test_signing_out_ends_the_session_and_takes_the_cookie_away(
    client: TestClient, person: Person, cookie: str, rows: Rows
) -> None:
    response = client.post("/logout", headers={"Cookie": cookie, **SAME_ORIGIN})

    assert response.status_code == 204
    pair, *attributes = response.headers["set-cookie"].split("; ")
    assert pair in {"session=", 'session=""'}
    assert {"Max-Age=0", "Path=/"} <= set(attributes)
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert_unauthenticated(client.get("/posts", headers={"Cookie": cookie}))


def test_signing_out_with_a_token_leaves_the_cookie(client: TestClient, person: Person, cookie: str) -> None:
    response = client.post("/logout", headers={**person.headers, "Cookie": cookie})

    assert response.status_code == 204
    assert "set-cookie" not in response.headers
    assert client.get("/posts", headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("elsewhere", [name for name, headers in FROM_ELSEWHERE.items() if headers])
def test_another_site_cannot_sign_its_visitors_in(
    client: TestClient, person: Person, rows: Rows, elsewhere: str
) -> None:
    form = {"username": person.email, "password": PASSWORD}

    response = client.post("/login?cookie=true", data=form, headers=FROM_ELSEWHERE[elsewhere])

    assert_refused(response, 403, "cross_site_request")
    assert "set-cookie" not in response.headers
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]
    assert client.post("/login", data=form, headers=FROM_ELSEWHERE[elsewhere]).status_code == 200


def test_clients_other_than_browsers_may_use_the_cookie_too(client: TestClient, person: Person) -> None:
    response = client.post("/login?cookie=true", data={"username": person.email, "password": PASSWORD})

    assert response.status_code == 200
    assert "set-cookie" in response.headers
    client.cookies.clear()


def test_responses_are_not_cached_for_another_cookie(client: TestClient, cookie: str) -> None:
    vary = client.get("/posts", headers={"Cookie": cookie}).headers["Vary"]

    assert {"Authorization", "Cookie"} <= {name.strip() for name in vary.split(",")}
