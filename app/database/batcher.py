"""Group commit for requests: concurrent calls share one database round trip.

An idle batch queue starts at once. Calls that arrive while it is busy form the next batch. There is no timer, so a
single request has no extra latency. A read never joins a statement that began before the read arrived.
This module does not depend on posts or votes.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, NamedTuple, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.database.engines import DEADLINE
from app.database.sqlstate import (
    MAX_PAUSE_SECONDS,
    RETRIES,
    is_connection_lost,
    is_timeout,
    is_worth_a_retry,
    may_read_again,
)
from app.errors import Overloaded
from app.observability import metrics, query_log, request_context

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
# If a silent server or a long-held lock ended a batch, the items that have waited longer than this fail with it.
FAIL_WITH_BATCH_AFTER_SECONDS = 0.5
# While a batch runs, items are checked this often for whether their time has ended. Most batches take less.
EXPIRY_INTERVAL_SECONDS = 0.25


class _Waiter(NamedTuple, Generic[Item, Outcome]):
    item: Item
    order_key: Hashable
    outcome: asyncio.Future[Outcome]
    since: float
    deadline: float
    query_log: query_log.QueryLog | None  # Of its request.


@dataclass(slots=True)
class _LoopQueue(Generic[Item, Outcome]):
    """The waiting items of one event loop, in order, and the task that runs them."""

    waiting: deque[_Waiter[Item, Outcome]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    is_draining: bool = False


class BatchQueue(Generic[Item, Outcome]):
    """Run waiting items together, in one thread on one connection.

    `run(connection, items)` returns the outcome of each item, in order, or the exception that its caller gets.
    `connect()` returns the connection of one batch. It is committed before any outcome is returned.

    If a whole batch fails, its items run again one by one, so that only the bad one fails. If the server is lost or
    took too long, all items fail at once. So do the items that have waited for `FAIL_WITH_BATCH_AFTER_SECONDS`.
    A failure therefore takes at most that time and one batch. A queue that only `reads` runs a batch once more when
    its connection broke. SQLSTATEs 40001 and 40P01 are retried at most three times.

    Items with the same `order_key` never share a batch and keep their order. At most `max_batch` items run together.
    Past `max_waiting`, `submit` raises `Overloaded` at once.

    With `share_key`, only equal items share a batch: those with the key of the oldest item. Afterwards, the waiting
    items of its `caller` go behind those of others. So a caller with many expensive items delays each of another
    caller's by one batch.

    An item has `max_seconds`, counted from the arrival of its request if the queue only `reads`. It fails with
    `Overloaded` if they end while it waits, or while it is read.

    All statements of a batch together end as by `statement_timeout`. If the queue only `reads`, they end with the
    newest item, so that an item with little time left fails alone. Otherwise they end with the oldest item, because
    what a write did must be known when its outcome is returned.

    The metrics have `name` as their label. A batch appears in the query log of each of its requests.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]],
        connect: Callable[[], AbstractContextManager[Connection]],
        *,
        max_waiting: int,
        max_batch: int = 256,
        reads: bool = False,
        order_key: Callable[[Item], Hashable] | None = None,
        share_key: Callable[[Item], Hashable] | None = None,
        caller: Callable[[Item], Hashable] | None = None,
        max_seconds: float = math.inf,
    ) -> None:
        self._name = name
        self._metrics = metrics.Batches(name)
        self._run = run
        self._connect = connect
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._reads = reads
        self._order_key = order_key
        self._share_key = share_key
        self._caller = caller
        self._max_seconds = max_seconds
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopQueue[Item, Outcome]] = WeakKeyDictionary()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")  # Started by the first batch.

    async def submit(self, item: Item) -> Outcome:
        """Return the item's outcome.

        Raises what `run` returned or raised for it, or `Overloaded`.
        """
        loop = asyncio.get_running_loop()
        # Created on first use in the running loop, so that it also works without a lifespan.
        queue = self._queues.setdefault(loop, _LoopQueue())
        if queue.is_draining or len(queue.waiting) >= self._max_waiting:
            raise Overloaded
        # Without `order_key`, each item has a key of its own.
        order_key = self._order_key(item) if self._order_key else object()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        now = time.monotonic()
        began_at = (request_context.arrived_at.get() if self._reads else None) or now
        waiter = _Waiter(item, order_key, outcome, now, began_at + self._max_seconds, query_log.current())
        queue.waiting.append(waiter)
        if queue.task is None:
            queue.task = loop.create_task(self._serve(queue))
        return await outcome

    async def drain(self) -> None:
        """Run all waiting items of this event loop.

        Until that is done, `submit` refuses new ones.
        """
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is None:
            return
        queue.is_draining = True
        try:
            if queue.task is not None:
                await asyncio.wait([queue.task])  # Awaiting the task itself would cancel it when this is cancelled.
        finally:
            queue.is_draining = False

    async def _serve(self, queue: _LoopQueue[Item, Outcome]) -> None:
        loop = asyncio.get_running_loop()
        batch: list[_Waiter[Item, Outcome]] = []
        try:
            while batch := self._next_batch(queue.waiting):
                began_at = time.monotonic()
                running = loop.run_in_executor(self._thread, self._outcomes, batch)
                try:
                    while not (await asyncio.wait([running], timeout=EXPIRY_INTERVAL_SECONDS))[0]:
                        _fail_expired(chain(_older(batch) if self._reads else (), queue.waiting))
                finally:
                    running.cancel()  # If the event loop ends; else it is done.
                outcomes = running.result()
                for waiter, outcome in zip(batch, outcomes, strict=True):
                    if waiter.outcome.done():  # Its client disconnected.
                        continue
                    if isinstance(outcome, Exception):
                        waiter.outcome.set_exception(outcome)
                    else:
                        waiter.outcome.set_result(outcome)
                # With `share_key`, a timeout says nothing about the items of other callers.
                if _is_server_lost(failure := outcomes[-1]) and not (self._share_key and is_timeout(failure)):
                    _fail_long_waiting(queue.waiting, began_at, failure)
        finally:
            queue.task = None
            # If the event loop ends and cancels this task, cancel the futures that it will no longer resolve.
            for waiter in (*batch, *queue.waiting):
                waiter.outcome.cancel()
            queue.waiting.clear()

    def _next_batch(self, waiting: deque[_Waiter[Item, Outcome]]) -> list[_Waiter[Item, Outcome]]:
        """Take the oldest items whose order keys differ. The others keep their order."""
        batch: list[_Waiter[Item, Outcome]] = []
        left: list[_Waiter[Item, Outcome]] = []
        taken: set[Hashable] = set()
        now = time.monotonic()
        while waiting and len(batch) < self._max_batch:
            waiter = waiting.popleft()
            if waiter.outcome.done():  # Its client disconnected before its batch began.
                continue
            if waiter.deadline <= now:
                waiter.outcome.set_exception(Overloaded())
                continue
            if batch and self._share_key and self._share_key(waiter.item) != self._share_key(batch[0].item):
                left.append(waiter)
                continue
            (left if waiter.order_key in taken else batch).append(waiter)
            taken.add(waiter.order_key)
        waiting.extendleft(reversed(left))
        if batch and (caller := self._caller) is not None:
            served = caller(batch[0].item)
            ordered = sorted(waiting, key=lambda waiter: caller(waiter.item) == served)
            waiting.clear()
            waiting.extend(ordered)
        return batch

    def _outcomes(self, batch: Sequence[_Waiter[Item, Outcome]]) -> Sequence[Outcome | Exception]:
        """Run the batch in the thread and return the outcome of each item. Never raises."""
        try:
            try:
                return self._attempt(batch)
            except Exception as error:
                # Repeating a read is harmless. The pool makes new connections after such an error.
                if not (self._reads and may_read_again(error)):
                    raise
            return self._attempt(batch)
        except BaseException as error:  # Includes panics of Rust extensions: every future must be resolved.
            failure = _as_outcome(error)
        if len(batch) == 1 or _is_server_lost(failure):
            return [failure] * len(batch)
        outcomes: list[Outcome | Exception] = []
        for waiter in batch:
            outcomes += self._outcomes([waiter])
            if _is_server_lost(outcomes[-1]):
                return [*outcomes, *[outcomes[-1]] * (len(batch) - len(outcomes))]
        return outcomes

    def _attempt(self, batch: Sequence[_Waiter[Item, Outcome]]) -> Sequence[Outcome | Exception]:
        for retries_left in reversed(range(RETRIES + 1)):
            try:
                with self._connect() as connection:
                    deadlines = [waiter.deadline for waiter in batch]
                    deadline = max(deadlines) if self._reads else min(deadlines)
                    connection.execution_options(**{DEADLINE: deadline})
                    outcomes = self._run_measured(connection, batch)
                    if len(outcomes) != len(batch):  # Checked before the commit.
                        raise AssertionError(f"{len(batch)} items got {len(outcomes)} outcomes")
            except DBAPIError as error:
                if retries_left == 0 or not is_worth_a_retry(error):
                    raise
                time.sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 - jitter, not a secret.
            else:
                return outcomes
        raise AssertionError("unreachable")

    def _run_measured(
        self, connection: Connection, batch: Sequence[_Waiter[Item, Outcome]]
    ) -> Sequence[Outcome | Exception]:
        began_at = time.monotonic()
        with query_log.recording() as queries:
            try:
                return self._run(connection, [waiter.item for waiter in batch])
            finally:
                waited = [began_at - waiter.since for waiter in batch]
                self._metrics.observe_batch(waited, time.monotonic() - began_at)
                for waiter, waited_seconds in zip(batch, waited, strict=True):
                    if waiter.query_log is not None:
                        waiter.query_log.batches.append(
                            query_log.Batch(self._name, len(batch), waited_seconds, queries)
                        )


def _older(batch: Sequence[_Waiter[Item, Outcome]]) -> Iterable[_Waiter[Item, Outcome]]:
    """Return the items that have less time than the batch.

    The others get the error that ends its statement.
    """
    newest = max(waiter.deadline for waiter in batch)
    return (waiter for waiter in batch if waiter.deadline < newest - EXPIRY_INTERVAL_SECONDS)


def _fail_expired(waiters: Iterable[_Waiter[Item, Outcome]]) -> None:
    now = time.monotonic()
    for waiter in waiters:
        if waiter.deadline <= now and not waiter.outcome.done():
            waiter.outcome.set_exception(Overloaded())


def _fail_long_waiting(waiting: deque[_Waiter[Item, Outcome]], began_at: float, failure: Exception) -> None:
    """Fail items queued behind a batch that timed out.

    They must not wait for a second timeout. None of these items has begun. They are the oldest, so later items with the
    same order key keep their order. Items behind a batch that failed quickly do not fail.
    """
    earlier = time.monotonic() - FAIL_WITH_BATCH_AFTER_SECONDS
    while began_at < earlier and waiting and waiting[0].since < earlier:
        waiter = waiting.popleft()
        if not waiter.outcome.done():
            waiter.outcome.set_exception(failure)


def _as_outcome(error: BaseException) -> Exception:
    """The error as an exception that a future accepts.

    A future accepts neither a `BaseException` nor `StopIteration`.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failure = RuntimeError(f"the batch ended with {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _is_server_lost(outcome: object) -> TypeGuard[Exception]:
    """Whether a retry item by item would fail in the same way.

    It would with a silent server, a full pool or a long-held lock.
    """
    return isinstance(outcome, Exception) and (
        isinstance(outcome, PoolTimeoutError) or is_timeout(outcome) or is_connection_lost(outcome)
    )
