"""With `TUTORIAL_DEFAULTS`, JSON numbers are taken as text where the tutorial's Pydantic 1 took them."""

import time
from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from app.config import get_settings
from tests.contract.conftest import Rows
from tests.fixtures import Person

# What Pydantic 1.10.27 makes of a JSON value where text is due.
WRITTEN_OUT = [
    ("123123", "123123"),
    ("1984", "1984"),
    ("-0", "0"),
    ("3.5", "3.5"),
    ("1.0", "1.0"),
    ("1E5", "100000.0"),
    ("1e16", "1e+16"),
    ("1e-7", "1e-07"),
    ("12345678901234567890123", "12345678901234567890123"),
    ("true", "True"),
    ("false", "False"),
    ('"1984"', "1984"),
]
NO_TEXT = ["null", "[1]", "{}", "1e400", "-1e400", "NaN", "1" * 301, "1" * 4301, "1" * 900_000, "-" + "1" * 50_000]


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "tutorial_defaults", True)


def send(client: TestClient, method: str, path: str, body: str, person: Person | None = None) -> httpx2.Response:
    headers = {"Content-Type": "application/json"} | (person.headers if person else {})
    return client.request(method, path, content=body, headers=headers)


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize(("sent", "text"), WRITTEN_OUT)
def test_number_is_written_out_as_pydantic_1_does(
    client: TestClient, person: Person, make_post: Callable[..., int], rows: Rows, sent: str, text: str
) -> None:
    post = make_post(person)
    created = send(client, "POST", "/posts", f'{{"title": {sent}, "content": {sent}}}', person)
    replaced = send(client, "PUT", f"/posts/{post}", f'{{"title": {sent}, "content": {sent}}}', person)

    assert (created.status_code, replaced.status_code) == (201, 200)
    assert (created.json()["title"], created.json()["content"]) == (text, text)
    assert rows("SELECT title, content FROM posts") == [(text, text), (text, text)]


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize(("sent", "password"), [("123123123", "123123123"), ("12345678.5", "12345678.5")])
def test_password_that_is_a_number_signs_in(client: TestClient, sent: str, password: str) -> None:
    signed_up = send(client, "POST", "/users", f'{{"email": "ada@example.com", "password": {sent}}}')

    assert signed_up.status_code == 201
    form = {"username": "ada@example.com", "password": password}
    assert client.post("/login", data=form).status_code == 200


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize("sent", NO_TEXT, ids=lambda sent: f"{sent[:6]} of {len(sent)}")
def test_number_that_has_no_text_is_refused(client: TestClient, person: Person, rows: Rows, sent: str) -> None:
    began = time.process_time()
    answers = [
        send(client, "POST", "/posts", f'{{"title": {sent}, "content": "text"}}', person),
        send(client, "POST", "/users", f'{{"email": "ada@example.com", "password": {sent}}}'),
    ]

    # A body of 900 KB is too large for one with a password.
    assert [answer.status_code for answer in answers] in ([422, 422], [422, 413])
    assert rows("SELECT title FROM posts") == []
    assert rows("SELECT id FROM users") == [(person.id,)]
    assert time.process_time() - began < 1


@pytest.mark.usefixtures("tutorial")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/posts/{post}", '{"title": 1984}'),
        ("POST", "/users", '{"email": 1984, "password": "correct horse"}'),
        ("POST", "/users", '{"email": "ada@example.com", "password": "correct horse", "username": 1984}'),
        ("PATCH", "/users/me", '{"password": 123123123, "current_password": "correct horse battery"}'),
    ],
)
def test_other_fields_take_no_number(
    client: TestClient, person: Person, make_post: Callable[..., int], method: str, path: str, body: str
) -> None:
    response = send(client, method, path.format(post=make_post(person)), body, person)

    assert response.status_code == 422


def test_without_the_setting_numbers_are_refused_as_text(client: TestClient, person: Person, rows: Rows) -> None:
    for sent in ("1984", "3.5", "true"):
        post = send(client, "POST", "/posts", f'{{"title": {sent}, "content": "text"}}', person)
        account = send(client, "POST", "/users", f'{{"email": "ada@example.com", "password": {sent}}}')

        assert (post.status_code, account.status_code) == (422, 422)
        assert post.json()["detail"][0]["type"] == account.json()["detail"][0]["type"] == "string_type"
    assert rows("SELECT title FROM posts") == []
