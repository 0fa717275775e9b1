"""Fair queue: a round robin of callers, however many calls each has waiting."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

from app.errors import Overloaded, RateLimited

RETRY_AFTER_SECONDS = 1

_Turn = asyncio.Future[bool]


class FairQueue:
    """Run at most `slots` calls concurrently. For one event loop at a time.

    Each caller has a first-in, first-out queue, and a free slot goes to the next caller in turn. A caller whose call
    has just ended is the last in turn. So a new caller waits for the running calls, and for at most one call of each
    caller that already waits.

    At most `max_waiting` calls wait. If the queue is full, a call of a caller with few calls replaces the newest call
    of the caller with the most. So no caller can fill the queue.
    No call waits longer than `max_wait_seconds`.
    """

    def __init__(self, *, slots: int, max_waiting: int, max_wait_seconds: float) -> None:
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._free_slot_count = slots
        self._waiting: OrderedDict[Hashable, deque[_Turn]] = OrderedDict()  # By caller, the next in turn first.
        self._waiting_count = 0

    @asynccontextmanager
    async def turn(
        self,
        caller: Hashable,
        *,
        max_waiting_of_caller: int | None = None,
        until_gone: Callable[[], Awaitable[object]] | None = None,
    ) -> AsyncIterator[None]:
        """Hold a slot while the block runs.

        A call whose `until_gone` returns while it waits is dropped. Raises `RateLimited` if `max_waiting_of_caller`
        calls of the caller already wait, and `Overloaded` if the queue is full or the call waited too long.
        """
        if self._free_slot_count:
            self._free_slot_count -= 1
        else:
            await self._wait(caller, max_waiting_of_caller, until_gone)
        try:
            yield
        finally:
            self._pass_on(caller)

    async def _wait(
        self, caller: Hashable, max_waiting_of_caller: int | None, until_gone: Callable[[], Awaitable[object]] | None
    ) -> None:
        self._make_room(caller, max_waiting_of_caller)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._waiting_count += 1
        gone = asyncio.ensure_future(until_gone()) if until_gone else None
        watched: set[asyncio.Future[Any]] = {turn, gone} if gone else {turn}
        is_served = False
        try:
            await asyncio.wait(watched, timeout=self._max_wait_seconds, return_when=asyncio.FIRST_COMPLETED)
            is_served = turn.done() and turn.result() and not (gone and gone.done())
        finally:
            if gone:
                gone.cancel()
            if not is_served:  # Also if the waiting task was cancelled: a slot that it got must not be lost.
                self._give_up(caller, turn)
        if not is_served:
            raise Overloaded

    def _make_room(self, caller: Hashable, max_waiting_of_caller: int | None) -> None:
        own_count = len(self._waiting.get(caller, ()))
        if max_waiting_of_caller is not None and own_count >= max_waiting_of_caller:
            raise RateLimited(RETRY_AFTER_SECONDS)
        if self._waiting_count < self._max_waiting:
            return
        longest = max(self._waiting.values(), key=len)
        if len(longest) <= own_count + 1:
            raise Overloaded
        longest.pop().set_result(False)
        self._waiting_count -= 1

    def _give_up(self, caller: Hashable, turn: _Turn) -> None:
        if turn.done():
            if turn.result():
                self._pass_on(caller)
            return
        queue = self._waiting[caller]
        queue.remove(turn)
        self._waiting_count -= 1
        if not queue:
            del self._waiting[caller]

    def _pass_on(self, caller: Hashable) -> None:
        """Give the slot of this caller to the next one in turn."""
        if caller in self._waiting:
            self._waiting.move_to_end(caller)
        if not self._waiting:
            self._free_slot_count += 1
            return
        following, queue = next(iter(self._waiting.items()))
        queue.popleft().set_result(True)
        self._waiting_count -= 1
        if queue:
            self._waiting.move_to_end(following)
        else:
            del self._waiting[following]
