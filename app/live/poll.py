"""One poll: what the streams of a worker watch, and what a thread reads of it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from app.database.event_log import Position
from app.database.sessions import at_once
from app.live.stream import Stream
from app.live.topics import Topics
from app.models import EventKind
from app.schemas.live import UnreadMessage
from app.services.live.happenings import Happening, LoggedEvent, describe
from app.services.live.snapshot import Snapshot, UnreadSign, count_unread, end_of_log, read_snapshot


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll reads: copies, because the streams change while a thread reads.

    `after` is the place in the event log after which it reads, None for its end.
    """

    after: Position | None
    streams: Sequence[Stream]
    new_topics: Sequence[tuple[Stream, Topics]]
    session_ids: Set[int]
    post_ids: Set[int]
    user_signs: Mapping[int, UnreadSign | None]
    reader_ids: Set[int]
    has_new: bool

    def wants(self, event: LoggedEvent) -> bool:
        """Return whether a stream watches a topic of the event."""
        match event.kind:
            case EventKind.COMMENT:
                return event.post_id in self.post_ids
            case EventKind.NOTIFICATION:
                return event.user_id in self.user_signs
            case EventKind.POST_PUBLISHED:
                return self.has_new
            case _:
                return False


@dataclass(frozen=True, slots=True)
class Result:
    """What a poll has read. `unread` has only users whose unread notifications have changed."""

    snapshot: Snapshot
    happenings: Sequence[Happening]
    unread: Mapping[int, UnreadMessage]


def read(poll: Poll) -> Result:
    """Read what the streams watch."""
    with at_once() as connection:
        snapshot = read_snapshot(
            connection,
            poll.after or end_of_log(connection),
            session_ids=poll.session_ids,
            post_ids=poll.post_ids,
            user_ids=poll.user_signs,
        )
        happenings = describe(connection, [event for event in snapshot.events if poll.wants(event)], poll.reader_ids)
        changed = [user_id for user_id, sign in snapshot.unread.items() if poll.user_signs[user_id] != sign]
        return Result(snapshot, happenings, count_unread(connection, changed))
