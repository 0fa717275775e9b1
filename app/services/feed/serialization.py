"""Serialization of single posts as JSON."""

from datetime import datetime
from functools import lru_cache

from pydantic_core import to_json

from app.config import get_settings
from app.security.email_addresses import placeholder_email
from app.services.feed.readers import AnyRow

# Serializing a post takes ten times as long as finding it in the cache. An entry takes at most 24 KB: 2,000 characters
# with 4 bytes each in its key and up to 6 bytes each in JSON, and the rest of the post. All entries take at most 24 MB.
MAX_REMEMBERED = 1_000
MAX_REMEMBERED_CHARACTERS = 2_000


def serialize(row: AnyRow) -> bytes:
    """Return the row as `PostWithVotes`, up to the value of its last key, `voted`.

    Its owner's e-mail address is a placeholder, unless `PUBLIC_EMAILS` is true.
    """
    email = row.email if get_settings().public_emails else None
    owner = (row.owner_id, row.username, row.owner_created_at, email)
    post = (row.id, row.title, row.content, row.published, row.created_at, row.updated_at, row.published_at, row.votes)
    is_short = len(row.title) + len(row.content) <= MAX_REMEMBERED_CHARACTERS
    return (_remembered if is_short else _serialized)(*owner, *post)


def for_owner(part: bytes, row: AnyRow) -> bytes:
    """Replace the placeholder in a serialized post by its owner's e-mail address.

    Serializing a post of 40,000 characters again would take a millisecond of the event loop. Quotes in texts are
    escaped, so the key with the placeholder occurs exactly once.
    """
    placeholder = placeholder_email(row.owner_id, row.username)
    return part.replace(b'"email":' + to_json(placeholder), b'"email":' + to_json(row.email), 1)


def _serialized(
    owner_id: int,
    username: str,
    owner_created_at: datetime,
    email: str | None,
    post_id: int,
    title: str,
    content: str,
    published: bool,
    created_at: datetime,
    updated_at: datetime,
    published_at: datetime | None,
    votes: int,
) -> bytes:
    shown_email = placeholder_email(owner_id, username) if email is None else email
    owner = {"id": owner_id, "username": username, "created_at": owner_created_at, "email": shown_email}
    post = {
        "id": post_id,
        "title": title,
        "content": content,
        "published": published,
        "created_at": created_at,
        "updated_at": updated_at,
        "published_at": published_at,
        "owner_id": owner_id,
        "owner": owner,
    }
    # The fields of `PostWithVotes`, in its order. A model takes three times as long.
    return to_json({"Post": post, "votes": votes, "voted": False}).removesuffix(b"false}")


# The cache key contains every displayed value, so a changed post is never served from the cache.
_remembered = lru_cache(maxsize=MAX_REMEMBERED)(_serialized)
