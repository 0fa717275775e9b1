"""Posts as JSON: the bytes are those of the schema that the OpenAPI document describes."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from app.schemas.post import PostOut, PostWithVotes
from app.schemas.user import Profile
from app.security.email_addresses import placeholder_email
from app.services.feed.rows import PostRow
from app.services.feed.serialization import ENDINGS, json_time, serialize

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
def test_post_is_serialized_as_its_schema(
    connection: Connection, time: datetime, content: str, published: bool
) -> None:
    row = PostRow(
        id=2**53 + 1, title=content[:300], content=content, published=published, created_at=stored(connection, time),
        updated_at=stored(connection, time), published_at=stored(connection, time) if published else None, version=1,
        owner_id=7, username="ada", owner_created_at=stored(connection, time), email="a@b.cc", votes=12, voters=[],
        bookmarkers=None, blockers=None, session_ids=None, reader_ids=None, roles=None,
    )  # fmt: skip
    post = PostOut(
        id=row.id, title=row.title, content=content, published=published, created_at=time, updated_at=time,
        published_at=time if published else None, owner_id=7,
        owner=Profile(id=7, username="ada", created_at=time, email=placeholder_email(7, "ada")),
    )  # fmt: skip
    for (voted, bookmarked), ending in ENDINGS.items():
        shown = PostWithVotes(Post=post, votes=12, voted=voted, bookmarked=bookmarked)
        assert serialize(row) + ending == shown.model_dump_json().encode()


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
