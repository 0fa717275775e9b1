"""The live streams of a worker, and the poller that reads what they watch.

The poller runs only while there are streams. It reads state, not changes, so a vote costs nothing more, and a stream
needs no queue: it holds the names of what has changed, and takes the newest values when its client has read the rest.
Comments, posts and notifications come from the event log. The newest are shared by all streams. A stream that falls
behind them reads those that it missed from the log (docs/decisions/0049).
"""

import asyncio
import logging
import random
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import psycopg2
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.config import get_settings
from app.database.event_log import START, Position
from app.database.sessions import ConnectionLimit, at_once
from app.errors import NotAuthenticated, Overloaded, TooManyStreams
from app.live.topics import Topics, event_id
from app.models import EventKind
from app.schemas.live import EndMessage, LivePost, PostMessage, ResetMessage, UnreadMessage
from app.security.access_tokens import AccessToken
from app.services import live

logger = logging.getLogger("app.live")

# While a poll takes long, the poller pauses longer, so that it is busy a third of the time at most.
POLL_INTERVAL_SECONDS = 0.25
PAUSE_PER_POLL_SECOND = 2.0
# A stream that opens does not wait for the interval. Many that open at once share a poll.
MIN_INTERVAL_SECONDS = 0.05
PAUSE_AFTER_ERROR_SECONDS = 0.5
# Of one post, a stream gets at most two messages a second.
MIN_SECONDS_BETWEEN_VALUES = 0.5
PING_INTERVAL_SECONDS = 15.0
# Spread, so that streams that began together do not end together.
MAX_STREAM_SECONDS = (27 * 60.0, 30 * 60.0)
# Shared messages of events. A stream that is further behind reads the log.
MAX_RECENT = 256
MAX_RECENT_CHARACTERS = 1_000_000
# A WatchedPost takes about 1 KB, so all take at most 20 MB.
MAX_WATCHED_POSTS = 20_000
# Windows of the log that a stream reads to find what it missed: 100,000 events.
MAX_MISSED_WINDOWS = 10

EndReason = Literal["session_ended", "expired", "stopping"]

# One connection of a worker reads what streams missed.
_missed_limit = ConnectionLimit("missed events", slots=1)


class Sent(NamedTuple):
    """A message and the id after which a new stream goes on, if the client gets one. Without text, a ping."""

    text: str | None
    event_id: str | None = None


@dataclass(slots=True)
class WatchedPost:
    """The newest value of a post."""

    state: live.PostState | None = None
    is_known: bool = False
    # Whether streams are to be told of the value, and when they were told last.
    is_new: bool = False
    told_at: float = 0.0
    text: str = ""
    hidden_text: str = ""

    def text_for(self, stream: "Stream") -> str:
        """Return the message for the stream: without values where `GET /posts/{id}` is 404."""
        state = self.state
        if state is not None and (state.published or state.owner_id == stream.token.user_id or stream.is_moderator):
            return self.text
        return self.hidden_text

    def update(self, post_id: int, state: live.PostState | None) -> None:
        """Take the value of a poll."""
        if self.is_known and state == self.state:
            return
        self.is_new, self.is_known, self.state = self.is_known, True, state
        self.hidden_text = self.hidden_text or PostMessage(id=post_id, post=None).model_dump_json()
        if state is not None:
            values = LivePost(
                votes=state.votes, comments=state.comments, version=state.version, published=state.published,
                locked=state.locked,
            )  # fmt: skip
            self.text = PostMessage(id=post_id, post=values).model_dump_json()


@dataclass(slots=True)
class WatchedUser:
    """The unread notifications of a user."""

    sign: live.UnreadSign | None = None
    text: str = "null"


class Stream:
    """What one connection watches, and what its client has not got yet."""

    def __init__(
        self, registry: "Registry", token: AccessToken, topics: Topics, position: Position | None, *, is_reset: bool
    ) -> None:
        self.registry = registry
        self.token = token
        self.topics = Topics()
        self.keys: frozenset[str] = frozenset()
        # Topics that the poller has not read yet, and those whose values are to be sent as a `state` message.
        self.new_topics: Topics | None = topics
        self.unsent_state: Topics | None = None
        self.position = position
        # Up to here, the shared messages may lack some that this stream shows.
        self.missed_until: Position | None = None
        self.is_reset = is_reset
        self.is_moderator = False
        self.end_reason: EndReason | None = None
        self.wakeup = asyncio.Event()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending_posts: set[int] = set()
        self.has_pending_unread = False
        # The last message about each post. The texts are shared by all streams.
        self.shown: dict[int, str] = {}
        seconds = random.uniform(*MAX_STREAM_SECONDS)  # noqa: S311 - jitter, not a secret.
        self.ends_at = time.monotonic() + min(seconds, token.expires_at - time.time())

    def end(self, reason: EndReason) -> None:
        """End the stream. Its client gets the reason."""
        if self.end_reason is None:
            self.end_reason = reason
            self.wakeup.set()
            if not self.opened.done():
                self.opened.set_exception(NotAuthenticated() if reason == "session_ended" else Overloaded())

    def fail(self, error: Exception) -> None:
        """Let the request fail, if its stream has not begun."""
        if not self.opened.done():
            self.opened.set_exception(error)

    async def messages(self) -> AsyncIterator[Sent]:
        """Yield the messages until the stream ends.

        Each is taken when the client has room for it, so a slow client gets fewer values, but the newest in the end.
        """
        pings_at = time.monotonic() + PING_INTERVAL_SECONDS
        while True:
            self.wakeup.clear()
            if time.monotonic() >= self.ends_at:
                self.end("expired")
            if self.end_reason is not None:
                yield Sent(EndMessage(reason=self.end_reason).model_dump_json())
                return
            if (sent := self._next_value()) is None:
                sent = await self._next_event()
            if sent is None and time.monotonic() >= pings_at:
                sent = Sent(None, self._event_id())
            if sent is not None:
                pings_at = time.monotonic() + PING_INTERVAL_SECONDS
                yield sent
                continue
            try:
                async with asyncio.timeout(min(pings_at, self.ends_at) - time.monotonic()):
                    await self.wakeup.wait()
            except TimeoutError:
                continue

    def _event_id(self) -> str | None:
        return None if self.position is None else event_id(self.position, self.registry.read_at)

    def _next_value(self) -> Sent | None:
        if self.unsent_state is not None:
            topics, self.unsent_state = self.unsent_state, None
            return Sent(self._state(topics), self._event_id())
        if self.is_reset:
            self.is_reset = False
            return Sent(ResetMessage().model_dump_json())
        while self.pending_posts:
            post_id = self.pending_posts.pop()
            watched = self.registry.posts.get(post_id)
            if watched is None or post_id not in self.topics.post_ids:
                continue
            text = watched.text_for(self)
            if self.shown.get(post_id) != text:
                self.shown[post_id] = text
                return Sent(text)
        if self.has_pending_unread:
            self.has_pending_unread = False
            return Sent(self.registry.users[self.token.user_id].text)
        return None

    def _state(self, topics: Topics) -> str:
        texts = []
        for post_id in sorted(topics.post_ids & self.topics.post_ids):
            if (watched := self.registry.posts[post_id]).is_known:
                self.shown[post_id] = watched.text_for(self)
                texts.append(self.shown[post_id])
        user = self.registry.users.get(self.token.user_id) if topics.has_me else None
        return f'{{"type":"state","posts":[{",".join(texts)}],"unread":{"null" if user is None else user.text}}}'

    async def _next_event(self) -> Sent | None:
        """Return the next message of the event log, if there is one."""
        assert self.position is not None  # noqa: S101 - set by the poll that opened the stream.
        if self.position < self.registry.recent_since or (self.missed_until and self.position < self.missed_until):
            try:
                return await self._next_missed()
            except (SQLAlchemyError, psycopg2.Error):
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                self.wakeup.set()
                return None
        recent = self.registry.recent
        for happening in recent[bisect_right(recent, self.position, key=lambda one: one.position) :]:
            self.position = happening.position
            if self.shows(happening):
                return Sent(happening.text, self._event_id())
        self.position = max(self.position, self.registry.position)
        return None

    def shows(self, happening: live.Happening) -> bool:
        """Return whether the stream watches a topic of the message, and its user has not blocked the author."""
        is_hidden = self.token.user_id in happening.hidden_from and not self.is_moderator
        return not is_hidden and not self.keys.isdisjoint(happening.topics)

    async def _next_missed(self) -> Sent | None:
        """Read the log on, up to the first message that the stream shows.

        If there is too much to search, what the stream missed is given up: the client gets `reset`.
        """
        for _ in range(MAX_MISSED_WINDOWS):
            assert self.position is not None  # noqa: S101
            async with _missed_limit.slot():
                missed = await run_in_threadpool(_read_missed, self.position, self._wanted())
            if missed is None:
                break
            for happening in missed.happenings:
                if self.shows(happening):
                    self.position = happening.position
                    return Sent(happening.text, self._event_id())
            self.position = missed.position
            if missed.is_end:
                return None
        self.position = self.registry.position
        return Sent(ResetMessage().model_dump_json(), self._event_id())

    def _wanted(self) -> live.Wanted:
        user_id, topics = self.token.user_id, self.topics
        return live.Wanted(
            user_id, user_id if topics.has_me else None, topics.post_ids, topics.has_new, topics.tags
        )  # fmt: skip


def _read_missed(position: Position, wanted: live.Wanted) -> live.Missed | None:
    with at_once() as connection:
        return live.read_missed(connection, position, wanted)


@dataclass(frozen=True, slots=True)
class _Poll:
    """What one poll reads: copies, because the streams change while a thread reads."""

    position: Position | None
    opening: list[tuple[Stream, Topics]]
    streams: list[Stream]
    session_ids: set[int]
    post_ids: list[int]
    user_ids: list[int]
    reader_ids: set[int]
    has_new: bool
    signs: dict[int, live.UnreadSign | None]


class _Result(NamedTuple):
    began_after: Position
    snapshot: live.Snapshot
    happenings: list[live.Happening]
    unread: dict[int, UnreadMessage]


@dataclass(eq=False)
class Registry:
    """The streams of a worker. `is_stopping` says whether the server is."""

    is_stopping: Callable[[], bool]
    streams: set[Stream] = field(default_factory=set)
    posts: dict[int, WatchedPost] = field(default_factory=dict)
    users: dict[int, WatchedUser] = field(default_factory=dict)
    recent: list[live.Happening] = field(default_factory=list)
    # `recent` has all messages of events after this one, up to `position`.
    recent_since: Position = START
    position: Position = START
    read_at: int = 0
    _watchers: dict[str, set[Stream]] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _urgent: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, token: AccessToken, topics: Topics, position: Position | None, *, is_reset: bool = False) -> Stream:
        """Add a stream, which begins when its `opened` is done.

        `position` is the place in the event log after which it goes on. Raises `TooManyStreams` and `Overloaded`.
        """
        settings = get_settings()
        if self.is_stopping() or len(self.streams) >= settings.live_streams_max:
            raise Overloaded
        if sum(stream.token.user_id == token.user_id for stream in self.streams) >= settings.live_streams_per_user:
            raise TooManyStreams(settings.live_streams_per_user)
        stream = Stream(self, token, topics, position, is_reset=is_reset)
        self.watch(stream, topics)
        self.streams.add(stream)
        if not self._tasks:
            # A context of its own: that of the request has the request's id and the log of its statements.
            self._tasks = [
                asyncio.get_running_loop().create_task(run, context=Context())
                for run in (self._keep_polling(), self._keep_watching_stop())
            ]
        return stream

    def close(self, stream: Stream) -> None:
        """Remove a stream."""
        self.unwatch(stream, stream.topics)
        self.streams.discard(stream)
        stream.opened.cancel()
        if not stream.opened.cancelled():
            stream.opened.exception()  # Else asyncio logs that it was not read.

    def watch(self, stream: Stream, topics: Topics) -> None:
        """Let the stream watch these, too. It gets their state.

        Raises `ValueError` if it then watches too much, and `Overloaded` if all streams do.
        """
        wanted = stream.topics | topics
        if len(self.posts.keys() | topics.post_ids) > MAX_WATCHED_POSTS:
            raise Overloaded
        stream.topics, stream.keys = wanted, wanted.keys(stream.token.user_id)
        stream.new_topics = topics if stream.new_topics is None else stream.new_topics | topics
        for key in topics.keys(stream.token.user_id):
            self._watchers.setdefault(key, set()).add(stream)
        for post_id in topics.post_ids:
            self.posts.setdefault(post_id, WatchedPost())
        if topics.has_me:
            self.users.setdefault(stream.token.user_id, WatchedUser())
        self._urgent.set()

    def unwatch(self, stream: Stream, topics: Topics) -> None:
        """Let the stream no longer watch these."""
        user_id = stream.token.user_id
        stream.topics = stream.topics - topics
        stream.keys = stream.topics.keys(user_id)
        for key in topics.keys(user_id):
            watchers = self._watchers.get(key, set())
            watchers.discard(stream)
            if not watchers:
                self._watchers.pop(key, None)
        for post_id in topics.post_ids:
            stream.shown.pop(post_id, None)
            if f"post:{post_id}" not in self._watchers:
                self.posts.pop(post_id, None)
        if topics.has_me:
            stream.has_pending_unread = False
            if f"user:{user_id}" not in self._watchers:
                self.users.pop(user_id, None)

    async def wait_closed(self) -> None:
        """Wait for the tasks, which end when there is no stream."""
        self._urgent.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_watching_stop(self) -> None:
        """End the streams when the server stops.

        Not in the poller, which may wait for the database.
        """
        while True:
            if self.is_stopping():
                for stream in self.streams:
                    stream.end("stopping")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _keep_polling(self) -> None:
        position: Position | None = None
        has_failed = False
        while self.streams:
            self._urgent.clear()
            began_at = time.monotonic()
            poll = self._next_poll(position)
            try:
                self._apply(poll, await run_in_threadpool(_read, poll))
            except Exception as error:
                has_failed = self._note_failure(poll, error, has_failed=has_failed)
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                continue
            position, has_failed = self.position, False
            seconds = time.monotonic() - began_at
            await asyncio.sleep(max(MIN_INTERVAL_SECONDS, seconds))
            pause_seconds = max(POLL_INTERVAL_SECONDS, PAUSE_PER_POLL_SECOND * seconds)
            try:
                async with asyncio.timeout(began_at + pause_seconds - time.monotonic()):
                    await self._urgent.wait()
            except TimeoutError:
                pass
        self.recent.clear()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks = []

    def _note_failure(self, poll: _Poll, error: Exception, *, has_failed: bool) -> bool:
        """Refuse streams that have not begun. The others go on when the database answers again."""
        if not has_failed:
            if isinstance(error, SQLAlchemyError | psycopg2.Error):
                logger.warning("live streams cannot be read error=%s", type(error).__name__)
            else:
                logger.error("live streams cannot be read", exc_info=error)
        for stream, _ in poll.opening:
            stream.fail(error)
        return True

    def _next_poll(self, position: Position | None) -> _Poll:
        streams = [*self.streams]
        return _Poll(
            position,
            [(stream, stream.new_topics) for stream in streams if stream.new_topics is not None],
            streams,
            {stream.token.session_id for stream in streams},
            [*self.posts],
            [*self.users],
            {stream.token.user_id for stream in streams},
            any(key == "new" or key.startswith("tag:") for key in self._watchers),
            {user_id: user.sign for user_id, user in self.users.items()},
        )

    def _apply(self, poll: _Poll, result: _Result) -> None:
        """Take what a poll has read, and wake the streams that it concerns."""
        snapshot = result.snapshot
        now = time.monotonic()
        if poll.position is None:
            self.recent_since = result.began_after
        self.position, self.read_at = snapshot.position, snapshot.read_at
        for stream in poll.streams:
            self._check_session(stream, snapshot.sessions.get(stream.token.session_id))
        for post_id in poll.post_ids:
            if (watched := self.posts.get(post_id)) is not None:
                self._take_post(post_id, watched, snapshot.posts.get(post_id), now)
        for user_id, message in result.unread.items():
            if (user := self.users.get(user_id)) is not None:
                user.sign, user.text = snapshot.unread[user_id], message.model_dump_json()
                for stream in self._watchers.get(f"user:{user_id}", ()):
                    stream.has_pending_unread = True
                    stream.wakeup.set()
        self._take_events(result.happenings)
        for stream, topics in poll.opening:
            if stream.new_topics is None or stream.end_reason is not None:
                continue
            left = stream.new_topics - topics
            stream.new_topics = None if left == Topics() else left
            stream.unsent_state = topics if stream.unsent_state is None else stream.unsent_state | topics
            if topics.has_me:
                stream.has_pending_unread = False  # The state has it.
            stream.wakeup.set()
            if not stream.opened.done():
                self._set_position(stream, snapshot)
                stream.opened.set_result(None)

    def _set_position(self, stream: Stream, snapshot: live.Snapshot) -> None:
        """Decide where in the event log the stream begins.

        A position past the end is of another server's log, as after a dump was restored.
        """
        if stream.position is None or stream.position > snapshot.end:
            stream.is_reset = stream.is_reset or stream.position is not None
            stream.position = snapshot.position
        else:
            stream.missed_until = snapshot.position

    def _check_session(self, stream: Stream, session: live.SessionState | None) -> None:
        if session is None or session.user_id != stream.token.user_id:
            stream.end("session_ended")
        elif stream.is_moderator != session.is_moderator:
            stream.is_moderator = session.is_moderator
            stream.pending_posts |= stream.topics.post_ids & stream.shown.keys()
            stream.wakeup.set()

    def _take_post(self, post_id: int, watched: WatchedPost, state: live.PostState | None, now: float) -> None:
        watched.update(post_id, state)
        if watched.is_new and now - watched.told_at >= MIN_SECONDS_BETWEEN_VALUES:
            watched.is_new, watched.told_at = False, now
            for stream in self._watchers.get(f"post:{post_id}", ()):
                stream.pending_posts.add(post_id)
                stream.wakeup.set()

    def _take_events(self, happenings: list[live.Happening]) -> None:
        self.recent += happenings
        characters = sum(len(happening.text) for happening in self.recent)
        dropped = 0
        while len(self.recent) - dropped > MAX_RECENT or characters > MAX_RECENT_CHARACTERS:
            characters -= len(self.recent[dropped].text)
            self.recent_since = self.recent[dropped].position
            dropped += 1
        del self.recent[:dropped]
        for happening in happenings:
            for topic in happening.topics:
                for stream in self._watchers.get(topic, ()):
                    stream.wakeup.set()


def _read(poll: _Poll) -> _Result:
    with at_once() as connection:
        position = poll.position or live.end_of_log(connection)
        snapshot = live.read_snapshot(
            connection, position, session_ids=poll.session_ids, post_ids=poll.post_ids, user_ids=poll.user_ids
        )
        posts, users = {*poll.post_ids}, {*poll.user_ids}
        wanted = [
            event
            for event in snapshot.events
            if (event.kind == EventKind.COMMENT and event.post_id in posts)
            or (event.kind == EventKind.NOTIFICATION and event.user_id in users)
            or (event.kind == EventKind.POST_PUBLISHED and poll.has_new)
        ]
        happenings = live.describe(connection, wanted, poll.reader_ids)
        changed = [user_id for user_id, sign in snapshot.unread.items() if poll.signs.get(user_id) != sign]
        return _Result(position, snapshot, happenings, live.count_unread(connection, changed))
