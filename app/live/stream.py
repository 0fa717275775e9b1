"""One live stream: what it watches, and what its client has not got yet.

A stream needs no queue of values: it holds the ids of posts that have changed, and takes the newest values when its
client has read the rest. Of the messages of events it holds a few. If there are more, it reads them from the event log
later, when its client has read those.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

import psycopg2
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.database.event_log import START, Position
from app.database.sessions import ConnectionLimit, at_once
from app.errors import NotAuthenticated, Overloaded
from app.live.topics import EventId, Topics
from app.live.watched import WatchedPost, WatchedUser
from app.observability import query_log
from app.schemas.live import EndMessage, ResetMessage
from app.security.access_tokens import AccessToken
from app.services.live.happenings import Happening
from app.services.live.missed import MAX_MESSAGES, Missed, Wanted, read_missed

PING_INTERVAL_SECONDS = 15.0
# Spread, so that streams that began together do not end together.
MAX_STREAM_SECONDS = (27 * 60.0, 30 * 60.0)
# Messages of events that wait for a slow client. Of 10,000 characters each, they take at most 0.8 MB.
MAX_PENDING = 20
# A message that waited longer is read again, because its content may be hidden or deleted since.
MAX_PENDING_SECONDS = 2.0
# Windows of the log that a stream searches for what it missed: 100,000 events.
MAX_MISSED_WINDOWS = 10
# So that reading the log takes at most a quarter of the time of its connection.
PAUSE_PER_READ_SECOND = 3.0
PAUSE_AFTER_ERROR_SECONDS = 0.5

EndReason = Literal["session_ended", "expired", "stopping"]

# One connection of a worker reads what streams missed, one after the other.
_missed_limit = ConnectionLimit("missed events", slots=1)


class Sent(NamedTuple):
    """A message, and the id after which a new stream goes on, if the client gets one. Without text, a ping."""

    text: str | None
    event_id: str | None = None


class Shared:
    """What the streams of a worker share: the newest values, and the event up to which they were given messages."""

    def __init__(self) -> None:
        self.posts: dict[int, WatchedPost] = {}
        self.users: dict[int, WatchedUser] = {}
        self.event_id = EventId(START, 0)


class Stream:
    """What one connection watches, and what its client has not got yet."""

    def __init__(self, shared: Shared, token: AccessToken, since: EventId | None, *, is_reset: bool) -> None:
        self.shared = shared
        self.token = token
        self.topics = Topics()
        self.keys: frozenset[str] = frozenset()
        # Topics that the poller has not read yet, and those whose values are to be sent as a `state` message.
        self.new_topics: Topics | None = None
        self.unsent_state: Topics | None = None
        # The last event that the client got, or that it need not get.
        self.event_id = since
        self.is_reset = is_reset
        # Messages of later events. If the stream is behind, it has to read more from the log, and takes no more.
        self.pending: deque[Happening] = deque()
        self.is_behind = True
        # Up to here the log was read: messages of earlier events are not taken again.
        self.read_until = START
        self.missed_windows = 0
        self.is_moderator = False
        self.end_reason: EndReason | None = None
        self.wakeup = asyncio.Event()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.changed_post_ids: set[int] = set()
        self.has_changed_unread = False
        # The last message about each post. All streams share the texts.
        self.shown: dict[int, str] = {}
        self.began_at = time.monotonic()
        seconds = random.uniform(*MAX_STREAM_SECONDS)  # noqa: S311 - jitter, not a secret.
        self.ends_at = self.began_at + min(seconds, token.expires_at - time.time())

    def begin(self, end: Position) -> None:
        """Begin to send. `end` is the end of the event log.

        A position past it is of another server's log, as after a dump was restored.
        """
        if self.event_id is None or self.event_id.position > end:
            self.is_reset = self.is_reset or self.event_id is not None
            self.event_id, self.is_behind = self.shared.event_id, False
        self.opened.set_result(None)

    def end(self, reason: EndReason) -> None:
        """End the stream. Its client gets the reason."""
        if self.end_reason is None:
            self.end_reason = reason
            self.wakeup.set()
            self.fail(NotAuthenticated() if reason == "session_ended" else Overloaded())

    def fail(self, error: Exception) -> None:
        """Let the request fail, if its stream has not begun."""
        if not self.opened.done():
            self.opened.set_exception(error)

    def take(self, happening: Happening) -> None:
        """Take the message of a new event."""
        if self.is_behind or happening.position <= self.read_until:
            return
        self.is_behind = len(self.pending) >= MAX_PENDING
        if not self.is_behind:
            self.pending.append(happening)
            self.wakeup.set()

    async def messages(self) -> AsyncIterator[Sent]:
        """Yield the messages until the stream ends.

        Each is made when the client has room for it, so a slow client gets fewer values, but the newest in the end.
        """
        pings_at = time.monotonic() + PING_INTERVAL_SECONDS
        while True:
            self.wakeup.clear()
            if time.monotonic() >= self.ends_at:
                self.end("expired")
            if self.end_reason is not None:
                yield Sent(EndMessage(reason=self.end_reason).model_dump_json())
                return
            # A value and an event by turns, because the values of a slow client may never end.
            if (value := self._next_value()) is not None:
                yield value
            event = await self._next_event() if self.end_reason is None else None
            if event is not None and self.end_reason is None:
                yield event
            if value is not None or event is not None:
                pings_at = time.monotonic() + PING_INTERVAL_SECONDS
                continue
            if self.end_reason is None and time.monotonic() >= pings_at:
                pings_at = time.monotonic() + PING_INTERVAL_SECONDS
                yield Sent(None, str(self.event_id))
            try:
                async with asyncio.timeout(min(pings_at, self.ends_at) - time.monotonic()):
                    await self.wakeup.wait()
            except TimeoutError:
                continue

    def _next_value(self) -> Sent | None:
        if self.unsent_state is not None:
            topics, self.unsent_state = self.unsent_state, None
            return Sent(self._state(topics), str(self.event_id))
        if self.is_reset:
            self.is_reset = False
            return Sent(ResetMessage().model_dump_json())
        while self.changed_post_ids:
            post_id = self.changed_post_ids.pop()
            if post_id in self.topics.post_ids and (text := self._post(post_id)) != self.shown.get(post_id):
                self.shown[post_id] = text
                return Sent(text)
        if self.has_changed_unread:
            self.has_changed_unread = False
            return Sent(self.shared.users[self.token.user_id].text)
        return None

    def _post(self, post_id: int) -> str:
        return self.shared.posts[post_id].text_for(self.token.user_id, is_moderator=self.is_moderator)

    def _state(self, topics: Topics) -> str:
        post_ids = [one for one in topics.post_ids & self.topics.post_ids if self.shared.posts[one].is_known]
        self.shown |= {post_id: self._post(post_id) for post_id in post_ids}
        unread = self.shared.users[self.token.user_id].text if topics.has_me and self.topics.has_me else "null"
        posts = ",".join(self.shown[post_id] for post_id in sorted(post_ids))
        return f'{{"type":"state","posts":[{posts}],"unread":{unread}}}'

    async def _next_event(self) -> Sent | None:
        """Return the message of the next event that the stream shows, if there is one."""
        assert self.event_id is not None  # noqa: S101 - set by `begin`.
        while True:
            while self.pending:
                if time.monotonic() - self.pending[0].read_at > MAX_PENDING_SECONDS:
                    self._drop_pending()
                    break
                happening = self.pending.popleft()
                self.event_id = EventId(happening.position, self.event_id.known_at)
                if self.shows(happening):
                    return Sent(happening.text, str(self.event_id))
            self.event_id = max(self.event_id, EventId(self.read_until, self.event_id.known_at))
            if not self.is_behind:
                self.event_id = max(self.event_id, self.shared.event_id)
                return None
            try:
                if not await self._read_missed():
                    return Sent(ResetMessage().model_dump_json(), str(self.event_id))
            except (SQLAlchemyError, psycopg2.Error):
                self._drop_pending()
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                self.wakeup.set()
                return None
            if self.end_reason is not None or self.changed_post_ids:
                self.wakeup.set()
                return None

    def _drop_pending(self) -> None:
        """Read the messages from the log again."""
        assert self.event_id is not None  # noqa: S101
        self.pending.clear()
        self.is_behind, self.read_until = True, self.event_id.position

    def shows(self, happening: Happening) -> bool:
        """Return whether the stream watches a topic of the message, and its user has not blocked the author."""
        is_hidden = self.token.user_id in happening.hidden_from and not self.is_moderator
        return not is_hidden and not self.keys.isdisjoint(happening.topics)

    async def _read_missed(self) -> bool:
        """Read the next missed messages from the log; return False if they are given up, because there is too much.

        The stream takes new messages from before the statement on, so that none is between the two.
        """
        assert self.event_id is not None  # noqa: S101
        async with _missed_limit.slot():
            began_at = time.monotonic()
            self.is_behind = False
            missed = await run_in_threadpool(_read, self.event_id.position, self._wanted())
            await asyncio.sleep(PAUSE_PER_READ_SECOND * (time.monotonic() - began_at))
        if missed is not None:
            is_window = len(missed.happenings) < MAX_MESSAGES
            self.missed_windows = 0 if missed.is_end else self.missed_windows + is_window
        if missed is None or self.missed_windows >= MAX_MISSED_WINDOWS:
            self.pending.clear()
            self.is_behind = False
            self.event_id, self.read_until, self.missed_windows = self.shared.event_id, START, 0
            return False
        self.read_until = missed.position
        later = [happening for happening in self.pending if happening.position > missed.position]
        self.pending = deque([*missed.happenings, *(later if missed.is_end else ())])
        self.is_behind = self.is_behind or not missed.is_end
        return True

    def _wanted(self) -> Wanted:
        user_id, topics = self.token.user_id, self.topics
        return Wanted(user_id, user_id if topics.has_me else None, topics.post_ids, topics.has_new, topics.tags)


def _read(position: Position, wanted: Wanted) -> Missed | None:
    # Not into the query log of the request, which would grow for as long as the stream lasts.
    with query_log.recording(), at_once() as connection:
        return read_missed(connection, position, wanted)
