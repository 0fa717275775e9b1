"""Quotas under concurrency: of many requests for the last place, on two servers, one gets it."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text

from app.config import get_settings
from tests.fixtures import PASSWORD, Person
from tests.races.conftest import Call, Crowd, count, statuses

KEY = {"name": "a program", "scopes": ["read"]}
DRAFT = {"title": "title", "content": "content", "published": False}
ADD_KEYS = """
    WITH opened AS (
        INSERT INTO sessions (user_id, kind, expires_at, ends_at)
        SELECT :user_id, 'api_key', 'infinity', 'infinity' FROM generate_series(1, :count) RETURNING id
    )
    INSERT INTO api_keys (session_id, name, scopes, key_hash)
    SELECT id, 'key', '{read}', sha256(id::text::bytea) FROM opened
"""
ADD_POSTS = """
    INSERT INTO posts (owner_id, title, content, published)
    SELECT :user_id, 'title', 'content', :published FROM generate_series(1, :count) RETURNING id
"""
ADD_SESSIONS = """
    INSERT INTO sessions (user_id, expires_at)
    SELECT :user_id, now() + interval '1 day' FROM generate_series(1, :count)
"""


def add(connection: Connection, statement: str, person: Person, many: int, **values: Any) -> Any:
    return connection.execute(text(statement), {"user_id": person.id, "count": many, **values})


def test_of_twenty_keys_at_once_one_takes_the_last_place(crowd: Crowd, connection: Connection, person: Person) -> None:
    maximum = get_settings().max_api_keys
    add(connection, ADD_KEYS, person, maximum - 1)

    answers = crowd.send([Call("POST", "/api-keys", person, KEY)] * 20)

    assert statuses(answers) == {201: 1, 409: 19}
    assert count(connection, "api_keys") == maximum


@pytest.mark.parametrize("way", ["POST", "PUT", "PATCH", "all"])
def test_of_twenty_drafts_at_once_one_takes_the_last_place(
    crowd: Crowd, connection: Connection, person: Person, way: str
) -> None:
    maximum = get_settings().max_drafts
    add(connection, ADD_POSTS, person, maximum - 1, published=False)
    published = [row.id for row in add(connection, ADD_POSTS, person, 20, published=True)]
    ways: dict[str, Callable[[int], Call]] = {
        "POST": lambda _: Call("POST", "/posts", person, DRAFT),
        "PUT": lambda number: Call("PUT", f"/posts/{published[number]}", person, DRAFT),
        "PATCH": lambda number: Call("PATCH", f"/posts/{published[number]}", person, {"published": False}),
    }
    chosen = [*ways.values()] if way == "all" else [ways[way]]

    answers = crowd.send([chosen[number % len(chosen)](number) for number in range(20)])

    assert {status: n for status, n in statuses(answers).items() if status != 409} in ({200: 1}, {201: 1})
    assert count(connection, "posts WHERE NOT published") == maximum


def test_drafts_that_are_published_and_taken_back_at_once_never_exceed_the_quota(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    maximum = get_settings().max_drafts
    drafts = [row.id for row in add(connection, ADD_POSTS, person, maximum, published=False)][:5]

    calls = [
        Call("PATCH", f"/posts/{post_id}", person, {"published": published})
        for published in (True, False) for post_id in drafts
    ]  # fmt: skip
    for _ in range(3):
        answers = crowd.send([*calls, *[Call("POST", "/posts", person, DRAFT)] * 5])
        assert statuses(answers).keys() <= {200, 201, 409}
        assert count(connection, "posts WHERE NOT published") <= maximum


def test_of_twenty_sign_ins_at_once_none_exceeds_the_quota(
    crowd: Crowd, connection: Connection, person: Person
) -> None:
    maximum = get_settings().max_sessions
    add(connection, ADD_SESSIONS, person, maximum - 6)

    async def sign_in(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/login", data={"username": person.email, "password": PASSWORD})

    assert statuses(crowd.run([sign_in] * 20)) == {200: 20}
    assert count(connection, "sessions") == maximum
