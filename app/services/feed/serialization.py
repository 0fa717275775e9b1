"""Serialization of single posts as JSON."""

import json
from functools import lru_cache

from app.config import get_settings
from app.schemas.raw_json import json_time, quoted
from app.security.email_addresses import placeholder_email
from app.services.feed.rows import PostRow

# A process keeps up to twice this many bytes of serialized posts: the newest ones, and those of the time before.
MAX_REMEMBERED_BYTES = 2_000_000
# Longer posts are serialized each time. Else a few of them would displace all others.
MAX_REMEMBERED_CHARACTERS = 4_000
# What a remembered post takes beside its JSON.
_ENTRY_BYTES = 500


class _Remembered:
    """Serialized posts without their counts, by the versions of their rows. Threads may share it."""

    def __init__(self) -> None:
        self._newest: dict[tuple[object, ...], str] = {}
        self._older: dict[tuple[object, ...], str] = {}
        self._bytes = 0

    def serialized(self, row: PostRow) -> str:
        """Return the row as JSON up to the counts.

        Any write of a post changes `xmin`, also by programs that do not maintain `version` and `updated_at`. Two
        writes could have the same number only if a failover lost the first one. Then their times differ.
        """
        settings = get_settings()
        shown_settings = (settings.public_emails, settings.public_url)
        key = (row.id, row.xmin, row.updated_at, row.username, row.email, row.owner_created_at, *shown_settings)
        found = self._newest.get(key)
        if found is None:
            found = self._older.get(key) or _serialize(row)
            if len(row.content) <= MAX_REMEMBERED_CHARACTERS:
                self._newest[key] = found
                self._bytes += len(found) + _ENTRY_BYTES
                if self._bytes > MAX_REMEMBERED_BYTES:
                    self._older, self._newest, self._bytes = self._newest, {}, 0
        return found


@lru_cache
def _remembered() -> _Remembered:
    return _Remembered()


def serialize(row: PostRow) -> bytes:
    """Return the row as `PostWithVotes`, up to the value of `voted`, from where `ENDINGS` goes on.

    The keys have the order of its fields. Its owner's e-mail address is a placeholder, unless `PUBLIC_EMAILS` is true.
    """
    return f'{_remembered().serialized(row)},"votes":{row.votes},"comments":{row.comments},"voted":'.encode()


def _serialize(row: PostRow) -> str:
    email = row.email if get_settings().public_emails else placeholder_email(row.owner_id, row.username)
    published_at = "null" if row.published_at is None else f'"{json_time(row.published_at)}"'
    return (
        f'{{"Post":{{"id":{row.id},"title":{quoted(row.title)},"content":{quoted(row.content)},'
        f'"published":{"true" if row.published else "false"},"created_at":"{json_time(row.created_at)}",'
        f'"updated_at":"{json_time(row.updated_at)}","published_at":{published_at},"owner_id":{row.owner_id},'
        f'"owner":{{"id":{row.owner_id},"username":{quoted(row.username)},'
        f'"created_at":"{json_time(row.owner_created_at)}","email":{quoted(email)}}},"tags":{row.tags},'
        f'"locked":{"true" if row.locked else "false"},'
        f'"removal_reason":{"null" if row.removal_reason is None else quoted(row.removal_reason)}}}'
    )


# The rest of the JSON, by whether the reader voted for the post and bookmarked it.
ENDINGS = {
    (voted, bookmarked): f'{json.dumps(voted)},"bookmarked":{json.dumps(bookmarked)}}}'.encode()
    for voted in (False, True)
    for bookmarked in (False, True)
}
MAX_ENDING_BYTES = max(map(len, ENDINGS.values())) + len(",")


def for_owner(part: bytes, row: PostRow) -> bytes:
    """Replace the placeholder in a serialized post by its owner's e-mail address.

    Serializing a post of 40,000 characters again would cost the event loop more. Quotes in texts are escaped, so the
    key with the placeholder occurs exactly once.
    """
    placeholder = placeholder_email(row.owner_id, row.username)
    return part.replace(f'"email":{quoted(placeholder)}'.encode(), f'"email":{quoted(row.email)}'.encode(), 1)
