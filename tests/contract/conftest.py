"""Fixtures of the contract's tests: every answer is compared with the OpenAPI document, too."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.fixtures import Person

Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="session", autouse=True)
def _every_answer_is_documented(_running_client: TestClient) -> Iterator[None]:
    from tests.contract.answers import assert_documented

    _running_client.event_hooks["response"].append(assert_documented)
    yield
    _running_client.event_hooks["response"].remove(assert_documented)


@pytest.fixture
def rows(connection: Connection) -> Rows:
    """Read rows of the tables: `rows("SELECT title FROM posts WHERE id = :id", id=7)`."""

    def fetch(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in connection.execute(text(statement), parameters)]

    return fetch


@pytest.fixture
def other(make_person: Callable[..., Person]) -> Person:
    """Another user who is signed in."""
    return make_person()


@pytest.fixture
def moderator(make_person: Callable[..., Person]) -> Person:
    return make_person(role="moderator")


@pytest.fixture
def admin(make_person: Callable[..., Person]) -> Person:
    return make_person(role="admin")
