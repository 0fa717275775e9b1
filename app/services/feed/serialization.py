"""Serialization of single posts as JSON."""

from app.config import get_settings
from app.schemas.raw_json import json_time, quoted
from app.security.email_addresses import placeholder_email
from app.services.feed.rows import PostRow


def serialize(row: PostRow) -> bytes:
    """Return the row as `PostWithVotes`, up to the value of its last key, `voted`.

    The keys have the order of its fields. Its owner's e-mail address is a placeholder, unless `PUBLIC_EMAILS` is true.
    """
    email = row.email if get_settings().public_emails else placeholder_email(row.owner_id, row.username)
    published_at = "null" if row.published_at is None else f'"{json_time(row.published_at)}"'
    return (
        f'{{"Post":{{"id":{row.id},"title":{quoted(row.title)},"content":{quoted(row.content)},'
        f'"published":{"true" if row.published else "false"},"created_at":"{json_time(row.created_at)}",'
        f'"updated_at":"{json_time(row.updated_at)}","published_at":{published_at},"owner_id":{row.owner_id},'
        f'"owner":{{"id":{row.owner_id},"username":{quoted(row.username)},'
        f'"created_at":"{json_time(row.owner_created_at)}","email":{quoted(email)}}}}},'
        f'"votes":{row.votes},"comments":{row.comments},"voted":'
    ).encode()


def for_owner(part: bytes, row: PostRow) -> bytes:
    """Replace the placeholder in a serialized post by its owner's e-mail address.

    Serializing a post of 40,000 characters again would cost the event loop more. Quotes in texts are escaped, so the
    key with the placeholder occurs exactly once.
    """
    placeholder = placeholder_email(row.owner_id, row.username)
    return part.replace(f'"email":{quoted(placeholder)}'.encode(), f'"email":{quoted(row.email)}'.encode(), 1)
