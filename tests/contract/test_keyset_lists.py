"""Lists sorted by id have the same pages: users, sessions, API keys, invites, webhooks and security events."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from tests.contract.answers import assert_refused
from tests.fixtures import Person

LISTS = ("/users", "/sessions", "/api-keys", "/users/me/security-events", "/invites", "/webhooks")
ROWS = 5


@pytest.fixture
def reader(connection: Connection, make_person: Callable[..., Person]) -> Person:
    """An admin with five accounts to list, and five own sessions, keys, invites, webhooks and events."""
    admin = make_person(role="admin")
    for _ in range(ROWS - 1):
        make_person()
        connection.execute(
            text("INSERT INTO sessions (user_id, expires_at) VALUES (:id, now() + interval '1 day')"), {"id": admin.id}
        )
    connection.execute(
        text("INSERT INTO security_events (user_id, event) SELECT :id, 'signed_in' FROM generate_series(1, :rows)"),
        {"id": admin.id, "rows": ROWS},
    )
    connection.execute(
        text("""
            WITH made AS (
                INSERT INTO sessions (user_id, kind, expires_at, ends_at)
                SELECT :id, 'api_key', 'infinity', 'infinity' FROM generate_series(1, :rows) RETURNING id
            )
            INSERT INTO api_keys (session_id, name, scopes, key_hash)
            SELECT id, 'key', '{read}', sha256(int8send(id)) FROM made
        """),
        {"id": admin.id, "rows": ROWS},
    )
    connection.execute(
        text("""
            INSERT INTO invites (creator_id, token_hash, expires_at)
            SELECT :id, int4send(n), now() + interval '1 day' FROM generate_series(1, :rows) AS n
        """),
        {"id": admin.id, "rows": ROWS},
    )
    connection.execute(
        text("""
            INSERT INTO webhooks (owner_id, url, events, secret)
            SELECT :id, 'https://example.com/', '{comment}', '' FROM generate_series(1, :rows)
        """),
        {"id": admin.id, "rows": ROWS},
    )
    return admin


@pytest.mark.parametrize("path", LISTS)
def test_walk_through_links_meets_each_row_once_in_order(client: TestClient, reader: Person, path: str) -> None:
    whole = client.get(path, params={"limit": 100}, headers=reader.headers)
    ids = [row["id"] for row in whole.json()]
    assert len(ids) == ROWS
    assert "Link" not in whole.headers

    met, sizes, address = [], [], f"{path}?limit=2"
    while address:
        response = client.get(address, headers=reader.headers)
        assert response.status_code == 200
        met += [row["id"] for row in response.json()]
        sizes.append(len(response.json()))
        following = response.links.get("next", {}).get("url")
        address = f"{path}{following}" if following else ""

    assert met == ids
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("path", LISTS)
def test_page_that_is_exactly_full_names_no_next_page(client: TestClient, reader: Person, path: str) -> None:
    response = client.get(path, params={"limit": ROWS}, headers=reader.headers)

    assert len(response.json()) == ROWS
    assert "Link" not in response.headers


def test_cursor_is_refused_by_every_list_but_its_own(client: TestClient, reader: Person) -> None:
    cursors = {
        path: client.get(path, params={"limit": 1}, headers=reader.headers).links["next"]["url"].partition("cursor=")[2]
        for path in LISTS
    }
    for path in LISTS:
        for made_for, cursor in cursors.items():
            response = client.get(path, params={"cursor": cursor}, headers=reader.headers)
            if made_for == path:
                assert response.status_code == 200
            else:
                assert_refused(response, 422, "malformed_cursor")
