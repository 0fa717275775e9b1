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
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.database.sqlstate import (
    MAX_PAUSE_SECONDS,
    RETRIES,
    TOOK_TOO_LONG,
    TRY_AGAIN,
    is_connection_lost,
    may_read_again,
)
from app.errors import Overloaded

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
# Whoever has waited for longer behind a batch that a silent server or a long-held lock ended fails with it.
FAIL_WITH_BATCH_AFTER_SECONDS = 0.5


class _Waiter(NamedTuple, Generic[Item, Outcome]):
    item: Item
    order_key: Hashable
    outcome: asyncio.Future[Outcome]
    since: float


@dataclass(slots=True)
class _LoopQueue(Generic[Item, Outcome]):
    """Those who wait in one event loop, in order of arrival, and the task that serves them."""

    waiting: deque[_Waiter[Item, Outcome]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    is_draining: bool = False


class Batcher(Generic[Item, Outcome]):
    """Runs waiting items together, in one thread on one connection.

    `run(connection, items)` returns the outcome of each item, in order, or the exception that its caller gets.
    `connect()` gives the connection of one batch. Leaving it (a commit) comes before any outcome is returned.

    If a whole batch fails, its items run again one by one, so that only the bad one fails. If the
    server is lost or took too long, all fail at once, and with them the items that have waited for
    `FAIL_WITH_BATCH_AFTER_SECONDS`. So a failure takes at most that and one batch. A batcher that only `reads`
    runs a batch once more when its connection broke. SQLSTATEs 40001 and 40P01 are retried at most
    three times.

    Items with the same `order_key` never share a batch and keep their order. At most `max_batch` items run together.
    Past `max_waiting`, `submit` raises `Overloaded` at once.
    """

    def __init__(
        self,
        run: Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]],
        connect: Callable[[], AbstractContextManager[Connection]],
        *,
        max_waiting: int,
        max_batch: int = 256,
        reads: bool = False,
        order_key: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._run = run
        self._connect = connect
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._reads = reads
        self._order_key = order_key
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopQueue[Item, Outcome]] = WeakKeyDictionary()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")  # Begins with the first batch.

    async def submit(self, item: Item) -> Outcome:
        """Wait for the item's outcome. Raises what `run` gave or raised for it, or `Overloaded`."""
        loop = asyncio.get_running_loop()
        # Made on first use, in the loop at hand: so it also works where no lifespan ran.
        queue = self._queues.setdefault(loop, _LoopQueue())
        if queue.is_draining or len(queue.waiting) >= self._max_waiting:
            raise Overloaded
        # Without an order, everyone is their own kind.
        order_key = self._order_key(item) if self._order_key else object()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        queue.waiting.append(_Waiter(item, order_key, outcome, time.monotonic()))
        if queue.task is None:
            queue.task = loop.create_task(self._serve(queue))
        return await outcome

    async def drain(self) -> None:
        """Answer everyone who waits in this event loop; until that is done, newcomers are refused."""
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is None:
            return
        queue.is_draining = True
        try:
            if queue.task is not None:
                await asyncio.wait([queue.task])  # Unlike awaiting the task, does not stop it when stopped itself.
        finally:
            queue.is_draining = False

    async def _serve(self, queue: _LoopQueue[Item, Outcome]) -> None:
        loop = asyncio.get_running_loop()
        batch: list[_Waiter[Item, Outcome]] = []
        try:
            while batch := self._next_batch(queue.waiting):
                began_at = time.monotonic()
                outcomes = await loop.run_in_executor(self._thread, self._outcomes, [waiter.item for waiter in batch])
                for waiter, outcome in zip(batch, outcomes, strict=True):
                    if waiter.outcome.done():  # Its client went away.
                        continue
                    if isinstance(outcome, Exception):
                        waiter.outcome.set_exception(outcome)
                    else:
                        waiter.outcome.set_result(outcome)
                if _is_server_lost(failure := outcomes[-1]):
                    _fail_long_waiting(queue.waiting, began_at, failure)
        finally:
            queue.task = None
            # Where this task was stopped, because its loop ends, nobody is left waiting for what will not come.
            for waiter in (*batch, *queue.waiting):
                waiter.outcome.cancel()
            queue.waiting.clear()

    def _next_batch(self, waiting: deque[_Waiter[Item, Outcome]]) -> list[_Waiter[Item, Outcome]]:
        """Take the longest waiting items whose order keys differ; the others keep their place and their order."""
        batch: list[_Waiter[Item, Outcome]] = []
        left: list[_Waiter[Item, Outcome]] = []
        taken: set[Hashable] = set()
        while waiting and len(batch) < self._max_batch:
            waiter = waiting.popleft()
            if waiter.outcome.done():  # Its client went away before its turn came.
                continue
            (left if waiter.order_key in taken else batch).append(waiter)
            taken.add(waiter.order_key)
        waiting.extendleft(reversed(left))
        return batch

    def _outcomes(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        """In the thread: every item's outcome; never raises."""
        try:
            try:
                return self._attempt(items)
            except Exception as error:
                # Whatever was lost, reading it again does no harm. The pool makes new connections after such an error.
                if not (self._reads and may_read_again(error)):
                    raise
            return self._attempt(items)
        except BaseException as error:  # Also the panics of Rust extensions: nobody may wait for ever.
            failure = _as_outcome(error)
        if len(items) == 1 or _is_server_lost(failure):
            return [failure] * len(items)
        outcomes: list[Outcome | Exception] = []
        for item in items:
            outcomes += self._outcomes([item])
            if _is_server_lost(outcomes[-1]):
                return [*outcomes, *[outcomes[-1]] * (len(items) - len(outcomes))]
        return outcomes

    def _attempt(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        for retries_left in reversed(range(RETRIES + 1)):
            try:
                with self._connect() as connection:
                    outcomes = self._run(connection, items)
                    if len(outcomes) != len(items):  # Before anything is committed.
                        raise AssertionError(f"{len(items)} items got {len(outcomes)} outcomes")
            except DBAPIError as error:
                if retries_left == 0 or getattr(error.orig, "pgcode", None) not in TRY_AGAIN:
                    raise
                time.sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
            else:
                return outcomes
        raise AssertionError("unreachable")


def _fail_long_waiting(waiting: deque[_Waiter[Item, Outcome]], began_at: float, failure: Exception) -> None:
    """Whoever waited long behind a batch that met a silent server or a long-held lock is spared meeting it again.

    Nothing of theirs has begun, and they came first: what has the same order key and came later keeps its order.
    A batch that failed quickly costs the next one nothing.
    """
    earlier = time.monotonic() - FAIL_WITH_BATCH_AFTER_SECONDS
    while began_at < earlier and waiting and waiting[0].since < earlier:
        waiter = waiting.popleft()
        if not waiter.outcome.done():
            waiter.outcome.set_exception(failure)


def _as_outcome(error: BaseException) -> Exception:
    """The error as one that a future can carry to whoever waits."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failure = RuntimeError(f"the batch ended with {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _is_server_lost(outcome: object) -> TypeGuard[Exception]:
    """Whether asking again, item by item, would only meet the same silent server, full pool or long-held lock."""
    if isinstance(outcome, DBAPIError) and getattr(outcome.orig, "pgcode", None) in TOOK_TOO_LONG:
        return True
    return isinstance(outcome, PoolTimeoutError) or is_connection_lost(outcome)
