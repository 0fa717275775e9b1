"""Topics of live streams, and the ids of their events."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from app.database.event_log import Position
from app.models.base import LARGEST_KEY
from app.schemas.types import normalized_tag

MAX_POSTS = 200
MAX_TAGS = 20
_POST_ID = re.compile(r"[0-9]{1,19}")
_EVENT_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Topics:
    """Posts and other topics to watch. Raises `ValueError` if they are too many."""

    post_ids: frozenset[int] = frozenset()
    tags: frozenset[str] = frozenset()
    has_new: bool = False
    has_me: bool = False

    def __post_init__(self) -> None:
        if len(self.post_ids) > MAX_POSTS:
            raise ValueError(f"a stream can watch at most {MAX_POSTS} posts")
        if len(self.tags) > MAX_TAGS:
            raise ValueError(f"a stream can watch at most {MAX_TAGS} tags")

    @classmethod
    def parse(cls, names: Iterable[str]) -> Self:
        """Return the topics with these names: `new`, `me`, `tag:NAME` and `post:ID`.

        Raises `ValueError` for other names.
        """
        post_ids, tags, others = set(), set(), set()
        for name in names:
            kind, separator, value = name.partition(":")
            if kind == "post" and _POST_ID.fullmatch(value) and int(value) <= LARGEST_KEY:
                post_ids.add(int(value))
            elif kind == "tag" and separator:
                tags.add(normalized_tag(value))
            elif name in {"new", "me"}:
                others.add(name)
            else:
                raise ValueError("a topic is `new`, `me`, `tag:NAME` or `post:ID`")
        return cls(frozenset(post_ids), frozenset(tags), "new" in others, "me" in others)

    def __or__(self, other: "Topics") -> "Topics":
        return Topics(
            self.post_ids | other.post_ids, self.tags | other.tags,
            self.has_new or other.has_new, self.has_me or other.has_me,
        )  # fmt: skip

    def __sub__(self, other: "Topics") -> "Topics":
        return Topics(
            self.post_ids - other.post_ids, self.tags - other.tags,
            self.has_new and not other.has_new, self.has_me and not other.has_me,
        )  # fmt: skip

    def keys(self, user_id: int) -> frozenset[str]:
        """Return the topics as `Happening.topics` names them, for this user."""
        names = [f"post:{post_id}" for post_id in self.post_ids] + [f"tag:{tag}" for tag in self.tags]
        return frozenset([*names, *["new"] * self.has_new, *[f"user:{user_id}"] * self.has_me])


class EventId(NamedTuple):
    """A place in the event log, which a client names in `Last-Event-ID` to go on after it.

    `known_at` is a time at which the log had all later events, in seconds since 1970, because the log is kept for a
    limited time.
    """

    position: Position
    known_at: int

    def __str__(self) -> str:
        return f"{self.position.transaction_id}-{self.position.id}-{self.known_at}"

    @classmethod
    def parse(cls, text: str, *, not_before: float) -> Self | None:
        """Return the id, or None if it is none of ours, or older than `not_before`."""
        match = _EVENT_ID.fullmatch(text)
        if match is None or int(match[3]) < not_before:
            return None
        return cls(Position(int(match[1]), int(match[2])), int(match[3]))
