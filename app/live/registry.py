"""The live streams of a worker, and the poller that reads what they watch.

The poller runs only while there are streams. It reads state, not changes, so a vote costs nothing more. Messages are
serialized once for all streams (docs/decisions/0049).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextvars import Context

import psycopg2
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.config import get_settings
from app.errors import Overloaded, TooManyStreams
from app.live.poll import Poll, Result, read
from app.live.stream import PAUSE_AFTER_ERROR_SECONDS, Shared, Stream
from app.live.topics import EventId, Topics
from app.live.watched import WatchedPost, WatchedUser
from app.observability import metrics
from app.security.access_tokens import AccessToken
from app.services.live.happenings import Happening
from app.services.live.snapshot import SessionState

logger = logging.getLogger("app.live")

# While a poll takes long, the poller pauses longer, so that it is busy a third of the time at most.
POLL_INTERVAL_SECONDS = 0.25
PAUSE_PER_POLL_SECOND = 2.0
# A stream that opens does not wait for the interval. Many that open at once share a poll.
MIN_INTERVAL_SECONDS = 0.05
# Each takes 812 bytes with its entries, so all take 8 MB.
MAX_WATCHED_POSTS = 10_000


class Registry:
    """The streams of a worker. `is_stopping` says whether the server is."""

    def __init__(self, is_stopping: Callable[[], bool]) -> None:
        self._is_stopping = is_stopping
        self._streams: set[Stream] = set()
        self._shared = Shared()
        # The streams that watch a topic, as `Topics.keys` names it.
        self._watchers: dict[str, set[Stream]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_urgent = asyncio.Event()

    def open(self, token: AccessToken, topics: Topics, since: EventId | None, *, is_reset: bool = False) -> Stream:
        """Add a stream, which begins when its `opened` is done.

        It goes on after the event `since`. Raises `TooManyStreams` and `Overloaded`.
        """
        settings = get_settings()
        if self._is_stopping() or len(self._streams) >= settings.live_streams_max:
            raise Overloaded
        if sum(stream.token.user_id == token.user_id for stream in self._streams) >= settings.live_streams_per_user:
            raise TooManyStreams(settings.live_streams_per_user)
        stream = Stream(self._shared, token, since, is_reset=is_reset)
        self.watch(stream, topics)
        self._streams.add(stream)
        metrics.streams(len(self._streams))
        self._is_urgent.set()
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
        self._streams.discard(stream)
        metrics.streams(len(self._streams))
        stream.opened.cancel()
        # asyncio logs an exception that was not read.
        if not stream.opened.cancelled() and stream.opened.exception() is None:
            seconds = time.monotonic() - stream.began_at
            logger.info("stream ended: reason=%s seconds=%.1f", stream.end_reason or "disconnected", seconds)

    def watch(self, stream: Stream, topics: Topics) -> None:
        """Let the stream watch these, too. It gets their state.

        Raises `ValueError` if it then watches too much, and `Overloaded` if all streams do.
        """
        wanted, user_id = stream.topics | topics, stream.token.user_id
        if len(self._shared.posts.keys() | topics.post_ids) > MAX_WATCHED_POSTS:
            raise Overloaded
        stream.topics, stream.keys = wanted, wanted.keys(user_id)
        stream.new_topics = topics if stream.new_topics is None else stream.new_topics | topics
        for key in topics.keys(user_id):
            self._watchers.setdefault(key, set()).add(stream)
        for post_id in topics.post_ids - self._shared.posts.keys():
            self._shared.posts[post_id] = WatchedPost.unknown(post_id)
        if topics.has_me:
            self._shared.users.setdefault(user_id, WatchedUser())

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
                self._shared.posts.pop(post_id, None)
        if topics.has_me:
            stream.has_changed_unread = False
            if f"user:{user_id}" not in self._watchers:
                self._shared.users.pop(user_id, None)

    async def wait_closed(self) -> None:
        """Wait for the tasks, which end when there is no stream."""
        self._is_urgent.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_watching_stop(self) -> None:
        """End the streams when the server stops. Not in the poller, which may wait for the database."""
        while True:
            if self._is_stopping():
                for stream in self._streams:
                    stream.end("stopping")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _keep_polling(self) -> None:
        event_id: EventId | None = None
        has_failed = False
        while self._streams:
            self._is_urgent.clear()
            began_at = time.monotonic()
            opening = [stream for stream in self._streams if not stream.opened.done()]
            try:
                poll = self._next_poll(event_id)
                self._apply(poll, await run_in_threadpool(read, poll))
            except Exception as error:
                _log_failure(error, has_failed=has_failed)
                for stream in opening:
                    stream.fail(error)
                has_failed = True
                await asyncio.sleep(PAUSE_AFTER_ERROR_SECONDS)
                continue
            event_id, has_failed = self._shared.event_id, False
            seconds = time.monotonic() - began_at
            await asyncio.sleep(max(MIN_INTERVAL_SECONDS, PAUSE_PER_POLL_SECOND * seconds))
            try:
                async with asyncio.timeout(began_at + POLL_INTERVAL_SECONDS - time.monotonic()):
                    await self._is_urgent.wait()
            except TimeoutError:
                pass
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._tasks = []

    def _next_poll(self, event_id: EventId | None) -> Poll:
        streams = [*self._streams]
        return Poll(
            after=None if event_id is None else event_id.position,
            streams=streams,
            new_topics=[(stream, stream.new_topics) for stream in streams if stream.new_topics is not None],
            session_ids={stream.token.session_id for stream in streams},
            post_ids=frozenset(self._shared.posts),
            user_signs={user_id: user.sign for user_id, user in self._shared.users.items()},
            reader_ids={stream.token.user_id for stream in streams},
            has_new=any(key == "new" or key.startswith("tag:") for key in self._watchers),
        )

    def _apply(self, poll: Poll, result: Result) -> None:
        """Take what a poll has read, and wake the streams that it concerns."""
        snapshot, now = result.snapshot, time.monotonic()
        for stream in poll.streams:
            _check_session(stream, snapshot.sessions.get(stream.token.session_id))
        for post_id in poll.post_ids & self._shared.posts.keys():
            if self._shared.posts[post_id].update(post_id, snapshot.posts.get(post_id), now):
                for stream in self._watchers[f"post:{post_id}"]:
                    stream.changed_post_ids.add(post_id)
                    stream.wakeup.set()
        for user_id in result.unread.keys() & self._shared.users.keys():
            user = self._shared.users[user_id]
            user.sign, user.text = snapshot.unread[user_id], result.unread[user_id].model_dump_json()
            for stream in self._watchers[f"user:{user_id}"]:
                stream.has_changed_unread = True
                stream.wakeup.set()
        self._deliver(result.happenings)
        self._shared.event_id = EventId(snapshot.position, snapshot.read_at)
        for stream, topics in poll.new_topics:
            _show_state(stream, topics)
            if not stream.opened.done():
                stream.begin(snapshot.end)
        if snapshot.position != snapshot.end:
            self._is_urgent.set()  # There are more events than a poll reads.

    def _deliver(self, happenings: Iterable[Happening]) -> None:
        for happening in happenings:
            watchers = (self._watchers.get(topic, set()) for topic in happening.topics)
            for stream in set().union(*watchers):
                stream.take(happening)


def _check_session(stream: Stream, session: SessionState | None) -> None:
    if session is None or session.user_id != stream.token.user_id:
        stream.end("session_ended")
    elif stream.is_moderator != session.is_moderator:
        stream.is_moderator = session.is_moderator
        stream.changed_post_ids |= stream.shown.keys()
        stream.wakeup.set()


def _show_state(stream: Stream, topics: Topics) -> None:
    """Let the stream send the state of topics that a poll has read."""
    if stream.new_topics is not None:
        left = stream.new_topics - topics
        stream.new_topics = None if left == Topics() else left
    stream.unsent_state = topics if stream.unsent_state is None else stream.unsent_state | topics
    if topics.has_me:
        stream.has_changed_unread = False  # The state has it.
    stream.wakeup.set()


def _log_failure(error: Exception, *, has_failed: bool) -> None:
    if not isinstance(error, SQLAlchemyError | psycopg2.Error):
        logger.error("live streams cannot be read", exc_info=error)
    elif not has_failed:
        logger.warning("live streams cannot be read error=%s", type(error).__name__)
