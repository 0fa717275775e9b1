"""Serialization of single posts as JSON."""

from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder

from app.config import get_settings
from app.security.email_addresses import placeholder_email
from app.services.feed.rows import PostRow

_quoted = JSONEncoder(ensure_ascii=False).encode


# A process keeps up to twice this many bytes of serialized posts: the newest ones, and those of the time before.
MAX_REMEMBERED_BYTES = 2_000_000
# Longer posts are serialized each time. Else a few of them would displace all others.
MAX_REMEMBERED_CHARACTERS = 4_000
# What a remembered post takes beside its JSON.
_ENTRY_BYTES = 500


class _Remembered:
    """Serialized posts without their votes, by the versions of their rows. Threads may share it."""

    def __init__(self) -> None:
        self._newest: dict[tuple[object, ...], str] = {}
        self._older: dict[tuple[object, ...], str] = {}
        self._bytes = 0

    def serialized(self, row: PostRow) -> str:
        """Return the row as JSON up to the votes.

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
    """Return the row as `PostWithVotes`, up to the value of its last key, `voted`.

    The keys have the order of its fields. Its owner's e-mail address is a placeholder, unless `PUBLIC_EMAILS` is true.
    """
    return f'{_remembered().serialized(row)},"votes":{row.votes},"voted":'.encode()


def _serialize(row: PostRow) -> str:
    email = row.email if get_settings().public_emails else placeholder_email(row.owner_id, row.username)
    published_at = "null" if row.published_at is None else f'"{json_time(row.published_at)}"'
    return (
        f'{{"Post":{{"id":{row.id},"title":{_quoted(row.title)},"content":{_quoted(row.content)},'
        f'"published":{"true" if row.published else "false"},"created_at":"{json_time(row.created_at)}",'
        f'"updated_at":"{json_time(row.updated_at)}","published_at":{published_at},"owner_id":{row.owner_id},'
        f'"owner":{{"id":{row.owner_id},"username":{_quoted(row.username)},'
        f'"created_at":"{json_time(row.owner_created_at)}","email":{_quoted(email)}}},"tags":{row.tags}}}'
    )


_FIRST_TIME, _LAST_TIME = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
_ZEROS = " " * len("2026-11-28 12:34:56.+00") + "0" * 6


def for_owner(part: bytes, row: PostRow) -> bytes:
    """Replace the placeholder in a serialized post by its owner's e-mail address.

    Serializing a post of 40,000 characters again would cost the event loop more. Quotes in texts are escaped, so the
    key with the placeholder occurs exactly once.
    """
    placeholder = placeholder_email(row.owner_id, row.username)
    return part.replace(f'"email":{_quoted(placeholder)}'.encode(), f'"email":{_quoted(row.email)}'.encode(), 1)


def json_time(stored: str) -> str:
    """Return PostgreSQL's text of a `timestamptz` as Pydantic writes the time.

    That is ISO 8601, in UTC. Times that Python cannot represent become the nearest that it can.
    """
    if stored[4] == "-" and stored.endswith("+00"):
        if len(stored) == len("2026-11-28 12:34:56+00"):
            return stored[:10] + "T" + stored[11:19] + "Z"
        # PostgreSQL leaves out the zeros at the end of microseconds.
        return stored[:10] + "T" + stored[11:-3] + _ZEROS[len(stored) :] + "Z"
    try:
        time = datetime.fromisoformat(stored).astimezone(UTC)
    except (ValueError, OverflowError):
        return _FIRST_TIME if stored.startswith("-") or stored.endswith("BC") else _LAST_TIME
    return time.isoformat().removesuffix("+00:00") + "Z"
