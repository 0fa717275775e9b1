"""Everyone who waits shares one round trip: group commit for requests. Knows nothing of posts or votes.

An idle lane starts at once; what arrives while it is busy forms the next batch. There is no timer, so a lonely
request pays no tax, and a read never joins a statement that began before the read arrived.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.errors import Overloaded

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# serialization_failure, deadlock_detected: PostgreSQL asks to try again.
TRY_AGAIN = frozenset({"40001", "40P01"})
RETRIES = 3
LONGEST_PAUSE_SECONDS = 0.05


class _Lane(Generic[Item, Outcome]):
    """Those who wait in one event loop, in order of arrival, and the task that serves them."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self.task: asyncio.Task[None] | None = None


class Batcher(Generic[Item, Outcome]):
    """Runs the items of everyone who waits together, in one thread on one connection.

    `run(connection, items)` returns for each item, in order, its outcome, or the exception that its caller shall see.
    `connect()` gives the connection for one batch; what leaving it does (a commit) is done before anyone is answered.
    If a whole batch fails, its items run again one by one, so that only the guilty one fails; statements that
    PostgreSQL asks to repeat (SQLSTATE 40001, 40P01) are repeated at most three times.

    Items with the same `order_key` never share a batch and keep their order. At most `max_batch` items run together;
    past `max_waiting` a newcomer gets `Overloaded` at once.
    """

    def __init__(
        self,
        run: Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]],
        connect: Callable[[], AbstractContextManager[Connection]],
        *,
        max_waiting: int,
        max_batch: int = 256,
        order_key: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._run = run
        self._connect = connect
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._order_key = order_key
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane[Item, Outcome]] = WeakKeyDictionary()
        self._thread: ThreadPoolExecutor | None = None
        self._draining = False

    async def submit(self, item: Item) -> Outcome:
        """Wait for the item's outcome. Raises what `run` gave or raised for it, or `Overloaded`."""
        loop = asyncio.get_running_loop()
        # Made on first use, in the loop at hand: so it also works where no lifespan ran.
        lane = self._lanes.setdefault(loop, _Lane())
        if self._draining or len(lane.waiting) >= self._max_waiting:
            raise Overloaded
        outcome: asyncio.Future[Outcome] = loop.create_future()
        lane.waiting.append((item, outcome))
        if lane.task is None:
            lane.task = loop.create_task(self._serve(lane))
        return await outcome

    async def drain(self) -> None:
        """Refuse newcomers, answer everyone who waits in this event loop, and let the thread go."""
        self._draining = True
        lane = self._lanes.get(asyncio.get_running_loop())
        if lane is not None and lane.task is not None:
            await lane.task
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        self._draining = False

    async def _serve(self, lane: _Lane[Item, Outcome]) -> None:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")
        try:
            while lane.waiting:
                batch = self._next_batch(lane.waiting)
                outcomes = await loop.run_in_executor(self._thread, self._outcomes, [item for item, _ in batch])
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    if future.done():  # Its client went away.
                        continue
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
        finally:
            lane.task = None

    def _next_batch(
        self, waiting: deque[tuple[Item, asyncio.Future[Outcome]]]
    ) -> list[tuple[Item, asyncio.Future[Outcome]]]:
        """Take the longest waiting items whose order keys differ; the others keep their place and their order."""
        if self._order_key is None:
            return [waiting.popleft() for _ in range(min(len(waiting), self._max_batch))]
        batch: list[tuple[Item, asyncio.Future[Outcome]]] = []
        left: list[tuple[Item, asyncio.Future[Outcome]]] = []
        taken: set[Hashable] = set()
        while waiting and len(batch) < self._max_batch:
            entry = waiting.popleft()
            key = self._order_key(entry[0])
            (left if key in taken else batch).append(entry)
            taken.add(key)
        waiting.extendleft(reversed(left))
        return batch

    def _outcomes(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        """In the thread: every item's outcome; never raises."""
        try:
            return self._attempt(items)
        except Exception as error:
            if len(items) == 1 or _is_connection_lost(error):
                return [error] * len(items)
            return [outcome for item in items for outcome in self._outcomes([item])]

    def _attempt(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        for retries_left in reversed(range(RETRIES + 1)):
            try:
                with self._connect() as connection:
                    outcomes = self._run(connection, items)
                if len(outcomes) != len(items):
                    raise AssertionError(f"{len(items)} items got {len(outcomes)} outcomes")
            except DBAPIError as error:
                if retries_left == 0 or getattr(error.orig, "pgcode", None) not in TRY_AGAIN:
                    raise
                time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
            else:
                return outcomes
        raise AssertionError("unreachable")


def _is_connection_lost(error: Exception) -> bool:
    """Whether asking again, item by item, would only meet the same silent server."""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or getattr(error.orig, "pgcode", "") is None)
