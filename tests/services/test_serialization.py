"""Posts as JSON: the bytes are those of the schema that the OpenAPI document describes."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.schemas.post import PostOut, PostWithVotes
from app.schemas.raw_json import json_time
from app.schemas.user import Profile
from app.security.email_addresses import placeholder_email
from app.services.feed import serialization
from app.services.feed.rows import PostRow
from app.services.feed.serialization import ENDINGS, serialize
from tests.fixtures import Person

TIMES = [
    datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
    datetime(2026, 11, 22, 9, 30, 0, 5, tzinfo=UTC),
    datetime(2026, 11, 22, 9, 30, 0, 120_000, tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]
TEXTS = ["plain", 'quotes " and \\ and </script>', "\x01\b\f\n\r\t\x1f\x7f\u2028", "é 漢字 😀 \u200b", "x" * 5_000]


def stored(connection: Connection, time: str | datetime) -> str:
    return str(connection.scalar(text("SELECT CAST(CAST(:time AS timestamptz) AS text)"), {"time": time}))


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize("content", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(("locked", "reason"), [(True, None), (False, 'a "quoted" reason\n')])
@pytest.mark.parametrize("tags", [[], ["東京-1", "हिन्दी", "a_b", "x" * 30, "é"]], ids=len)
def test_post_is_serialized_as_its_schema(
    connection: Connection,
    time: datetime,
    content: str,
    published: bool,
    tags: list[str],
    locked: bool,
    reason: str | None,
) -> None:
    stored_tags = str(connection.scalar(text("SELECT to_json(CAST(:tags AS text[]))::text"), {"tags": tags}))
    row = PostRow(
        id=2**53 + 1, title=content[:300], content=content, published=published, created_at=stored(connection, time),
        updated_at=stored(connection, time), published_at=stored(connection, time) if published else None, version=1,
        xmin="740", owner_id=7, username="ada", owner_created_at=stored(connection, time), email="a@b.cc", votes=12,
        comments=3, tags=stored_tags, locked=locked, removal_reason=reason, voters=[], bookmarkers=None, blockers=None,
        session_ids=None, reader_ids=None, roles=None,
    )  # fmt: skip
    post = PostOut(
        id=row.id, title=row.title, content=content, published=published, created_at=time, updated_at=time,
        published_at=time if published else None, owner_id=7,
        owner=Profile(id=7, username="ada", created_at=time, email=placeholder_email(7, "ada")), tags=tags,
        locked=locked,
        removal_reason=reason,
    )  # fmt: skip
    serialization._remembered.cache_clear()
    for (voted, bookmarked), ending in ENDINGS.items():
        shown = PostWithVotes(Post=post, votes=12, comments=3, voted=voted, bookmarked=bookmarked)
        expected = shown.model_dump_json().encode()
        assert serialize(row) + ending == expected
        assert serialize(row) + ending == expected  # If it is remembered.


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("infinity", "9999-12-31T23:59:59.999999Z"),
        ("10000-01-01 00:00+00", "9999-12-31T23:59:59.999999Z"),
        ("-infinity", "0001-01-01T00:00:00Z"),
        ("0044-03-15 00:00+00 BC", "0001-01-01T00:00:00Z"),
    ],
)
def test_times_that_python_cannot_represent_become_the_nearest(
    connection: Connection, time: str, expected: str
) -> None:
    assert json_time(stored(connection, time)) == expected


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kathmandu", "UTC", "Pacific/Kiritimati"])
@pytest.mark.parametrize("time", ["2026-11-22 09:30:00.12+00", "1800-01-01 00:00:00+00", "9999-12-30 23:59:59+00"])
def test_times_in_the_time_zone_of_a_role_become_utc(connection: Connection, time: str, zone: str) -> None:
    expected = json_time(stored(connection, time))
    connection.execute(text(f"SET TIME ZONE '{zone}'"))
    there = stored(connection, time)
    connection.execute(text("RESET TIME ZONE"))
    assert json_time(there) == expected


@pytest.fixture
def shown(client: TestClient, person: Person) -> Callable[[int], dict[str, Any]]:
    def shown(post_id: int) -> dict[str, Any]:
        (found,) = client.get("/posts", headers=person.headers).json()
        assert found == client.get(f"/posts/{post_id}", headers=person.headers).json()
        return dict(found["Post"], votes=found["votes"])

    return shown


@pytest.mark.parametrize(
    ("changed", "statement"),
    [
        ("content", "UPDATE posts SET content = 'other'"),
        ("title", "UPDATE posts SET title = 'other', updated_at = updated_at, version = version"),
        ("created_at", "UPDATE posts SET created_at = '2026-01-01T00:00:00Z'"),
        ("owner", "UPDATE users SET username = 'other' FROM posts WHERE users.id = owner_id"),
        ("owner", "UPDATE users SET created_at = '2026-01-01T00:00:00Z'"),
        ("votes", "INSERT INTO votes (post_id, user_id) SELECT posts.id, users.id FROM posts, users LIMIT 1"),
    ],
)
def test_what_another_program_changed_is_shown(
    connection: Connection, shown: Callable[[int], dict[str, Any]], make_person: Callable[..., Person],
    make_post: Callable[..., int], changed: str, statement: str,
) -> None:  # fmt: skip
    post_id = make_post(make_person())
    before = shown(post_id)

    connection.execute(text(statement))
    after = shown(post_id)

    different = {name for name in before if before[name] != after[name]}
    assert changed in different
    assert different <= {changed, "created_at", "published_at"}


def test_setting_of_addresses_applies_to_remembered_posts(
    monkeypatch: pytest.MonkeyPatch, shown: Callable[[int], dict[str, Any]], make_person: Callable[..., Person],
    make_post: Callable[..., int],
) -> None:  # fmt: skip
    author = make_person()
    post_id = make_post(author)
    assert shown(post_id)["owner"]["email"] != author.email
    monkeypatch.setattr(get_settings(), "public_emails", True)
    assert shown(post_id)["owner"]["email"] == author.email


def test_serialized_posts_are_remembered_up_to_a_size() -> None:
    serialization._remembered.cache_clear()
    remembered = serialization._remembered()
    row = PostRow(
        id=1, title="title", content="x" * 1_000, published=True, created_at="2026-11-22 09:30:00+00",
        updated_at="2026-11-22 09:30:00+00", published_at=None, version=1, xmin="740", owner_id=7, username="ada",
        owner_created_at="2026-11-22 09:30:00+00", email="a@b.cc", tags="[]", locked=False, removal_reason=None,
        votes=0, comments=0, voters=[], bookmarkers=None, blockers=None, session_ids=None, reader_ids=None, roles=None,
    )  # fmt: skip
    for number in range(10_000):
        serialize(row._replace(id=number, content="x" * 1_000 if number % 2 else "x" * 40_000))

    kept = [*remembered._newest.values(), *remembered._older.values()]
    assert serialization.MAX_REMEMBERED_BYTES / 2 < sum(map(len, kept)) < 2 * serialization.MAX_REMEMBERED_BYTES
    assert all(len(each) < 2_000 for each in kept)
