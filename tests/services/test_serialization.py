"""Posts as JSON: the bytes are those of the schema that the OpenAPI document describes."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from app.schemas.post import PostOut, PostWithVotes
from app.schemas.user import Profile
from app.security.email_addresses import placeholder_email
from app.services.feed.readers import AnyRow
from app.services.feed.serialization import serialize

TIMES = [
    datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
    datetime(2026, 11, 22, 9, 30, 0, 5, tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]
TEXTS = ["plain", 'quotes " and \\ and </script>', "\x01\b\f\n\r\t\x1f\x7f\u2028", "é 漢字 😀 \u200b", "x" * 5_000]


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize("content", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("published", [True, False])
def test_post_is_serialized_as_its_schema(time: datetime, content: str, published: bool) -> None:
    row = SimpleNamespace(
        id=2**53 + 1, title=content[:300], content=content, published=published, created_at=time, updated_at=time,
        published_at=time if published else None, owner_id=7, username="ada", owner_created_at=time, email="a@b.cc",
        votes=12,
    )  # fmt: skip
    owner = Profile(id=7, username="ada", created_at=time, email=placeholder_email(7, "ada"))
    post = PostOut.model_validate(SimpleNamespace(**vars(row) | {"owner": owner}))
    expected = PostWithVotes(Post=post, votes=12, voted=True).model_dump_json().encode()

    assert serialize(cast("AnyRow", row)) + b"true}" == expected
