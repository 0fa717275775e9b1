"""Signing in at `/login` and `/token`, and what ends with a session."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from jose import jwt
from starlette.testclient import TestClient

from app.config import get_settings
from app.security import access_tokens
from tests.contract.answers import OF_EACH_REQUEST, assert_refused, assert_unauthenticated
from tests.contract.conftest import Rows
from tests.fixtures import PASSWORD, Person


@pytest.mark.parametrize("path", ["/login", "/login/", "/token", "/token/", "/v1/login", "/v1/token/"])
def test_the_right_password_opens_a_session(client: TestClient, person: Person, rows: Rows, path: str) -> None:
    response = client.post(path, data={"username": person.email, "password": PASSWORD})

    assert response.status_code == 200
    body = response.json()
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 30 * 60
    assert body["refresh_token"].startswith("refresh_")
    assert response.headers["Cache-Control"] == "no-store"
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert client.get("/users/me", headers=headers).json()["id"] == person.id
    assert rows("SELECT user_id, user_agent, address, expires_at > now() FROM sessions WHERE id > :id",
                id=person.session_id) == [(person.id, "testclient", "testclient", True)]  # fmt: skip


def test_the_token_carries_the_tutorials_claims_and_ours(client: TestClient, person: Person, rows: Rows) -> None:
    token = client.post("/login", data={"username": person.email, "password": PASSWORD}).json()["access_token"]

    header = jwt.get_unverified_header(token)
    assert header == {"alg": "HS256", "typ": "JWT", "kid": access_tokens.key_id(get_settings().signing_secret)}
    claims = jwt.get_unverified_claims(token)
    assert set(claims) == {"user_id", "exp", "sub", "sid", "jti", "iat"}
    assert (claims["user_id"], claims["sub"]) == (person.id, str(person.id))
    assert claims["exp"] - claims["iat"] == 30 * 60
    assert rows("SELECT user_id FROM sessions WHERE id = :sid", sid=claims["sid"]) == [(person.id,)]


@pytest.mark.parametrize("name", ["ada@example.com", "ADA@Example.COM", "ada", "Ada"])
def test_the_name_is_the_email_address_or_the_username_however_cased(
    client: TestClient, make_person: Callable[..., Person], name: str
) -> None:
    make_person(email="Ada@example.com", username="ada")

    assert client.post("/login", data={"username": name, "password": PASSWORD}).status_code == 200


def test_a_name_that_was_never_chosen_signs_in_too(client: TestClient, person: Person) -> None:
    assert client.post("/login", data={"username": f"user{person.id}", "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    "password",
    ["wrong", PASSWORD.upper(), PASSWORD + " ", PASSWORD[:-1], "\0", PASSWORD + "\0", "\ufdfa" * 1000, "x" * 1000],
)
def test_wrong_passwords_and_unknown_names_are_refused_alike(
    client: TestClient, person: Person, rows: Rows, password: str
) -> None:
    known = client.post("/login", data={"username": person.email, "password": password})
    unknown = client.post("/login", data={"username": "nobody@example.com", "password": password})

    for response in (known, unknown):
        assert_refused(response, 403, "invalid_credentials", "Invalid Credentials")
    visible = [{name: value for name, value in response.headers.items() if name not in OF_EACH_REQUEST}
            for response in (known, unknown)]  # fmt: skip
    assert visible[0] == visible[1]
    assert {**known.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]


@pytest.mark.parametrize("name", ["\0", "a\0b@example.com", "%", "_", "' OR 1=1 --", "@", "x" * 320, "\ufdfa" * 320])
def test_strange_names_are_refused_as_unknown(client: TestClient, person: Person, name: str) -> None:  # noqa: ARG001 - an account exists.
    response = client.post("/login", data={"username": name, "password": PASSWORD})

    assert_refused(response, 403, "invalid_credentials")


@pytest.mark.parametrize("form", [{}, {"username": "ada@example.com"}, {"password": PASSWORD},
                                  {"username": "x" * 321, "password": PASSWORD},
                                  {"username": "ada", "password": "x" * 1001}])  # fmt: skip
def test_a_form_with_a_field_missing_or_too_long_is_malformed(
    client: TestClient, rows: Rows, form: dict[str, str]
) -> None:
    response = client.post("/login", data=form)

    assert_refused(response, 422, "validation_failed")
    assert PASSWORD not in response.text
    assert rows("SELECT 1 FROM sessions") == []


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b'{"username": "ada@example.com", "password": "x"}'),
        ("application/x-www-form-urlencoded", b"username=\xff\xfe&password=%ff%00"),
        ("application/x-www-form-urlencoded", b"&" * 5000),
        ("application/x-www-form-urlencoded", b"a=b&" * 5000),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--y\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\\ud800'),
        ("multipart/form-data; boundary=\xff".encode("latin-1").decode("latin-1"), b""),
        (None, b"username=a&password=b"),
        ("", b""),
    ],
)
def test_bodies_other_than_forms_are_malformed(client: TestClient, content_type: str | None, content: bytes) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type.encode("latin-1")}

    response = client.post("/login", content=content, headers=headers)  # type: ignore[arg-type]

    assert response.status_code in {403, 413, 422}


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "text/plain", None])
@pytest.mark.parametrize("path", ["/login", "/token"])
def test_a_sign_in_in_json_is_told_to_send_a_form(
    client: TestClient, person: Person, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = json.dumps({"username": person.email, "password": PASSWORD})

    response = client.post(path, content=content, headers=headers)

    assert_refused(response, 422, "validation_failed")
    sends_form = "Send a form, with `Content-Type: application/x-www-form-urlencoded`"
    assert response.json()["detail"] == [
        {"type": "missing", "loc": ["body", name], "msg": sends_form} for name in ("username", "password")
    ]


def test_a_form_without_a_field_keeps_its_own_message(client: TestClient) -> None:
    for form in ({"data": {"username": "ada"}}, {"data": {"username": "ada"}, "files": {"other": b"x"}}):
        response = client.post("/login", **form)

        assert response.json()["detail"] == [{"type": "missing", "loc": ["body", "password"], "msg": "Field required"}]


@pytest.mark.parametrize(
    "charset", ["unicode_escape", "utf-7", "punycode", "idna", "rot13", "utf-16", "no-such", "hex"]
)
def test_a_forms_own_charset_breaks_nothing(client: TestClient, charset: str) -> None:
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    content = part.format("username", "\\ud800+2AA-@x.org") + part.format("password", "\\ud800+2AA-") + "--x--\r\n"

    response = client.post(
        "/login",
        content=content.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"},
    )

    assert response.status_code in {403, 413, 422}


def test_a_file_in_place_of_a_password_is_malformed(client: TestClient) -> None:
    response = client.post("/login", data={"username": "ada"}, files={"password": ("p.txt", b"secret")})

    assert_refused(response, 422, "validation_failed")
    assert "secret" not in response.text


def test_a_disabled_account_is_answered_like_a_wrong_password(client: TestClient, person: Person, rows: Rows) -> None:
    rows("UPDATE users SET is_active = false RETURNING 1")

    response = client.post("/login", data={"username": person.email, "password": PASSWORD})

    assert_refused(response, 403, "invalid_credentials", "Invalid Credentials")
    assert rows("SELECT id FROM sessions") == [(person.session_id,)]


@pytest.mark.parametrize("kept", ["!", "", "secret", "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g"])
def test_a_hash_that_is_not_ours_fits_no_password(client: TestClient, person: Person, rows: Rows, kept: str) -> None:
    rows("UPDATE users SET password_hash = :hash RETURNING 1", hash=kept)

    response = client.post("/login", data={"username": person.email, "password": kept or "secret"})

    assert_refused(response, 403, "invalid_credentials", "Invalid Credentials")
    assert rows("SELECT password_hash FROM users") == [(kept,)]


def test_a_hash_as_the_tutorial_wrote_it_signs_in_and_is_replaced(
    client: TestClient, person: Person, rows: Rows
) -> None:
    # bcrypt of "hello world", 4 rounds, by passlib's plain scheme.
    from passlib.hash import bcrypt

    rows("UPDATE users SET password_hash = :hash RETURNING 1", hash=bcrypt.using(rounds=4).hash("hello world"))

    assert client.post("/login", data={"username": person.email, "password": "hello world"}).status_code == 200

    ((kept,),) = rows("SELECT password_hash FROM users")
    assert kept.startswith("$bcrypt-sha256$")
    assert client.post("/login", data={"username": person.email, "password": "hello world"}).status_code == 200
    assert client.post("/login", data={"username": person.email, "password": "hello World"}).status_code == 403


def test_a_long_user_agent_is_cut(client: TestClient, person: Person, rows: Rows) -> None:
    form = {"username": person.email, "password": PASSWORD}

    assert client.post("/login", data=form, headers={"User-Agent": "x" * 5000}).status_code == 200

    assert rows("SELECT length(user_agent) FROM sessions WHERE user_agent IS NOT NULL") == [(300,)]


ENDINGS = {
    "deleted session": "DELETE FROM sessions WHERE user_id = :id RETURNING 1",
    "expired session": "UPDATE sessions SET expires_at = now() WHERE user_id = :id RETURNING 1",
    "session of another user": "UPDATE sessions SET user_id = :other WHERE user_id = :id RETURNING 1",
    "disabled account": "UPDATE users SET is_active = false WHERE id = :id RETURNING 1",
    "deleted account": "DELETE FROM users WHERE id = :id RETURNING 1",
}
PROTECTED: list[tuple[str, str, Any]] = [
    ("GET", "/posts", None),
    ("GET", "/posts/{post}", None),
    ("POST", "/posts", {"title": "t", "content": "c"}),
    ("PATCH", "/posts/{post}", {"title": "changed"}),
    ("DELETE", "/posts/{post}", None),
    ("POST", "/vote", {"post_id": 0, "vote_dir": 1}),
    ("PUT", "/posts/{post}/vote", None),
    ("DELETE", "/posts/{post}/vote", None),
    ("GET", "/users/me", None),
    ("GET", "/users/me/votes", None),
    ("PATCH", "/users/me", {"username": "changed"}),
    ("DELETE", "/users/me", None),
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("method", "path", "body"), PROTECTED, ids=[f"{method} {path}" for method, path, _ in PROTECTED]
)
def test_a_token_is_rejected_as_soon_as_its_session_ends(
    client: TestClient,
    person: Person,
    other: Person,
    make_post: Callable[..., int],
    rows: Rows,
    ending: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    post_id = make_post(person)
    if body and "post_id" in body:
        body = body | {"post_id": post_id}
    assert client.get("/posts", headers=person.headers).status_code == 200
    parameters = {"id": person.id} | ({"other": other.id} if ":other" in ENDINGS[ending] else {})
    assert rows(ENDINGS[ending], **parameters) == [(1,)]
    before = rows("SELECT users::text, posts::text, votes::text FROM users LEFT JOIN posts ON owner_id = users.id "
                  "LEFT JOIN votes ON post_id = posts.id ORDER BY 1, 2, 3")  # fmt: skip

    response = client.request(method, path.format(post=post_id), json=body, headers=person.headers)

    assert_unauthenticated(response)
    assert rows("SELECT users::text, posts::text, votes::text FROM users LEFT JOIN posts ON owner_id = users.id "
                "LEFT JOIN votes ON post_id = posts.id ORDER BY 1, 2, 3") == before  # fmt: skip


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_the_scheme_is_read_however_cased(client: TestClient, person: Person, scheme: str) -> None:
    assert client.get("/users/me", headers={"Authorization": f"{scheme} {person.token}"}).status_code == 200


def test_a_token_that_expires_while_it_is_remembered_is_refused(
    client: TestClient,
    person: Person,
    rows: Rows,  # noqa: ARG001 - committed for real.
) -> None:
    import time
    from datetime import timedelta

    token = access_tokens.issue(person.id, person.session_id, timedelta(seconds=2))
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/posts", headers=headers).status_code == 200

    time.sleep(2.1)

    assert_unauthenticated(client.get("/posts", headers=headers))


def test_tokens_of_the_tutorial_are_rejected_where_nothing_was_adopted(client: TestClient, person: Person) -> None:
    claims = {"user_id": person.id, "exp": jwt.get_unverified_claims(person.token)["exp"]}
    token = jwt.encode(claims, get_settings().signing_secret, algorithm="HS256")

    assert_unauthenticated(client.get("/posts", headers={"Authorization": f"Bearer {token}"}))
