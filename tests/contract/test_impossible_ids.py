"""Ids that no row can have touch no row, even in a database made by other software."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.main import app
from tests.contract.conftest import Rows
from tests.fixtures import Person

IMPOSSIBLE_IDS = (0, -1, -5, 2**63, -(2**63) - 1, 10**30)
# Rows of other software: keys that a bigint column can hold, and this project never gives.
ODD_KEYS = (0, -5)
ODD_ROWS = [
    """
    INSERT INTO users (id, email, email_canonical, username, password_hash) OVERRIDING SYSTEM VALUE
    VALUES (:key, 'odd' || :key, 'odd' || :key, 'odd' || :key, '')
    """,
    "INSERT INTO posts (id, title, content, owner_id) OVERRIDING SYSTEM VALUE VALUES (:key, 'odd', 'odd', :key)",
    """
    INSERT INTO posts (id, title, content, owner_id) OVERRIDING SYSTEM VALUE
    VALUES (:key - 100, 'owned by the caller', 'odd', :caller)
    """,
    """
    INSERT INTO sessions (id, user_id, expires_at) OVERRIDING SYSTEM VALUE
    VALUES (:key, :caller, now() + interval '1 day')
    """,
    """
    INSERT INTO sessions (id, user_id, kind, expires_at) OVERRIDING SYSTEM VALUE
    VALUES (:key - 100, :caller, 'api_key', now() + interval '1 day')
    """,
    """
    INSERT INTO api_keys (session_id, name, key_hash, scopes)
    VALUES (:key - 100, 'odd', sha256(CAST('odd' || :key AS bytea)), '{read}')
    """,
    "INSERT INTO votes (post_id, user_id) VALUES (:key, :caller)",
    """
    INSERT INTO comments (id, post_id, owner_id, content) OVERRIDING SYSTEM VALUE
    VALUES (:key, :key - 100, :caller, 'odd')
    """,
    "INSERT INTO comment_votes (comment_id, user_id) VALUES (:key, :caller)",
]
TABLES = ("users", "posts", "post_stats", "votes", "sessions", "api_keys", "comments", "comment_stats", "comment_votes")
EVERYTHING = " UNION ALL ".join(
    # A session's last use changes with every request.
    f"SELECT '{table}', {'t.id' if table == 'sessions' else 't'}::text FROM {table} AS t"
    for table in TABLES
)


def operations_on_an_id() -> list[tuple[str, str]]:
    document: dict[str, Any] = app.api.openapi()
    return [
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if "{id}" in path
    ]  # fmt: skip


BODIES: dict[str, dict[str, Any]] = {
    "/posts/{id}/comments": {"content": "new"},
    "/comments/{id}": {"content": "changed"},
    "/users/{id}": {"username": "renamed"},
    "/media/{id}": {"alt": "changed"},
    "/posts/{id}": {"title": "changed", "content": "changed"},
    "/users/{id}/ban": {"reason": "spam"},
    "/posts/{id}/remove": {"reason": "spam"},
    "/reports/{id}/resolve": {"action": "dismiss"},
    "/comments/{id}/remove": {"reason": "spam"},
    "/webhooks/{id}": {"enabled": False},
}


@pytest.fixture
def odd_rows(connection: Connection, person: Person) -> None:
    for statement, key in itertools.product(ODD_ROWS, ODD_KEYS):
        # Keys of the caller's own rows lie 100 below, which is among the impossible ones too.
        connection.execute(text(statement), {"key": key, "caller": person.id})


@pytest.mark.parametrize(("method", "path"), operations_on_an_id())
@pytest.mark.parametrize("role", ["user", "admin"])
@pytest.mark.usefixtures("odd_rows")
def test_an_id_that_no_row_can_have_is_404_and_touches_no_row(
    client: TestClient, person: Person, rows: Rows, connection: Connection, method: str, path: str, role: str
) -> None:
    connection.execute(text("UPDATE users SET role = :role WHERE id = :id"), {"role": role, "id": person.id})
    before = sorted(rows(EVERYTHING))

    for number in (*IMPOSSIBLE_IDS, *(key - 100 for key in ODD_KEYS)):
        body = BODIES.get(path) if method in {"POST", "PUT", "PATCH"} else None
        response = client.request(
            method, path.replace("{id}", str(number)).replace("{delivery_id}", "1"), json=body, headers=person.headers
        )

        # An account that is not the caller's, and a report, are 403 for a user, whether or not they exist.
        is_hidden = path in {"/users/{id}", "/reports/{id}/resolve"} and role == "user"
        assert response.status_code in ({404, 403} if is_hidden else {404}), number
    assert sorted(rows(EVERYTHING)) == before


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.usefixtures("odd_rows")
def test_a_vote_on_an_id_that_no_row_can_have_is_404_and_touches_no_row(
    client: TestClient, person: Person, rows: Rows, with_key: bool
) -> None:
    before = sorted(rows(EVERYTHING))

    for number, direction in itertools.product((*IMPOSSIBLE_IDS, -100, -105), (0, 1)):
        headers = person.headers | ({"Idempotency-Key": f"{number}:{direction}"} if with_key else {})
        response = client.post("/vote", json={"post_id": number, "vote_dir": direction}, headers=headers)

        assert response.status_code == 404, response.text
    assert sorted(rows(EVERYTHING)) == before


@pytest.mark.usefixtures("odd_rows")
def test_lists_of_accounts_and_keys_begin_with_their_first_row(
    client: TestClient, person: Person, make_person: Callable[..., Person]
) -> None:
    admin = make_person(role="admin")

    ids = [user["id"] for user in client.get("/users", headers=admin.headers).json()]

    assert [number for number in ids if number > 0] == [person.id, admin.id]
    assert client.get("/api-keys", headers=person.headers).status_code == 200
