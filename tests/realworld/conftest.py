"""A client of the application with `REALWORLD_ENABLED` and `PUBLIC_READS`."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from tests.fixtures import Person

Rows = Callable[..., list[tuple[Any, ...]]]
MakePerson = Callable[..., Person]
MakePost = Callable[..., int]
JSON = dict[str, Any]


@pytest.fixture(scope="package")
def _client() -> TestClient:
    from app.config import get_settings
    from app.main import create_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_settings(), "realworld_enabled", True)
        return TestClient(create_app(), follow_redirects=False)


@pytest.fixture
def conduit(_client: TestClient, database: Engine, monkeypatch: pytest.MonkeyPatch) -> TestClient:  # noqa: ARG001
    """A client without credentials, on empty tables."""
    from app.config import get_settings

    monkeypatch.setattr(get_settings(), "public_reads", True)
    return _client


@pytest.fixture
def rows(connection: Connection) -> Rows:
    """Read rows of the tables: `rows("SELECT title FROM posts WHERE id = :id", id=7)`."""

    def fetch(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in connection.execute(text(statement), parameters)]

    return fetch


@pytest.fixture
def other(make_person: MakePerson) -> Person:
    """Another user who is signed in."""
    return make_person()


@pytest.fixture
def moderator(make_person: MakePerson) -> Person:
    return make_person(role="moderator")


def as_token(person: Person) -> dict[str, str]:
    """Return the header that frontends of RealWorld send."""
    return {"Authorization": f"Token {person.token}"}


def name_of(person: Person) -> str:
    """Return the username of a person who was made without one."""
    return f"user{person.id}"


def profile_of(person: Person, *, following: bool = False) -> JSON:
    """Return the profile of a person who has neither text nor picture."""
    return {"username": name_of(person), "bio": None, "image": None, "following": following}


def assert_errors(response: httpx2.Response, status: int, **errors: str) -> None:
    """Assert that the response has this status, and one message for each of these names."""
    expected = {"errors": {name: [message] for name, message in errors.items()}}
    assert (response.status_code, response.json()) == (status, expected)
    assert response.headers["Content-Type"] == "application/json"
    assert int(response.headers["Content-Length"]) == len(response.content)


def shown(response: httpx2.Response, key: str, status: int = 200) -> Any:
    """Return the value of the only key of a successful response."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {key}
    return body[key]
