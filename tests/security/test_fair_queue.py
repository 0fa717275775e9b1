"""`app.security.fair_queue`: slots are shared fairly, no caller fills the queue, and no slot is lost."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from app.errors import Overloaded, RateLimited
from app.security.fair_queue import FairQueue

LONG_SECONDS = 60.0


def make_queue(slots: int = 1, max_waiting: int = 100, max_wait_seconds: float = LONG_SECONDS) -> FairQueue:
    return FairQueue(slots=slots, max_waiting=max_waiting, max_wait_seconds=max_wait_seconds)


class Site:
    """Calls that run until they are let go, one after the other, in a queue with one slot."""

    def __init__(self, queue: FairQueue, **limits: Any) -> None:
        self.queue = queue
        self.limits = limits
        self.started: list[str] = []
        self._let_go = asyncio.Semaphore(0)

    def call(self, caller: str, **limits: Any) -> asyncio.Task[None]:
        return asyncio.create_task(self._call(caller, {**self.limits, **limits}))

    async def _call(self, caller: str, limits: dict[str, Any]) -> None:
        async with self.queue.turn(caller, **limits):
            self.started.append(caller)
            await self._let_go.acquire()

    async def end(self, count: int = 1) -> None:
        """End so many running calls, each after the next has started."""
        for _ in range(count):
            await settle()
            self._let_go.release()
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_new_caller_waits_for_the_running_call_alone_however_many_another_has_waiting() -> None:
    async def scenario() -> None:
        site = Site(make_queue())
        calls = [site.call("many") for _ in range(50)]
        await settle()
        calls.append(site.call("one"))
        await site.end(51)

        assert site.started[:3] == ["many", "one", "many"]
        await asyncio.gather(*calls)

    run(scenario)


def test_callers_take_turns_and_the_calls_of_each_keep_their_order() -> None:
    async def scenario() -> None:
        queue, order = make_queue(), []

        async def call(caller: str, number: int) -> None:
            async with queue.turn(caller):
                order.append(f"{caller}{number}")
                await asyncio.sleep(0)

        await asyncio.gather(*(call(caller, number) for caller in "abc" for number in range(3)))

        assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]

    run(scenario)


def test_slots_that_become_free_in_one_moment_go_to_different_callers() -> None:
    async def scenario() -> None:
        site = Site(make_queue(slots=2))
        calls = [site.call(caller) for caller in "aabbc"]
        await site.end(2)

        assert site.started == ["a", "a", "b", "c"]
        await site.end(3)
        await asyncio.gather(*calls)

    run(scenario)


def test_full_queue_takes_the_newest_call_of_whom_has_most_for_a_caller_with_fewer() -> None:
    async def scenario() -> None:
        site = Site(make_queue(max_waiting=4))
        many = [site.call("many") for _ in range(5)]
        await settle()
        with pytest.raises(Overloaded):
            await site.call("many")
        others = [site.call("b"), site.call("c"), site.call("c")]
        await site.end(4)

        assert site.started[:4] == ["many", "b", "c", "many"]
        await site.end(2)
        outcomes = await asyncio.gather(*many, *others, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            *[type(None)] * 3, Overloaded, Overloaded, type(None), type(None), Overloaded,
        ]  # fmt: skip

    run(scenario)


def test_caller_has_a_maximum_of_its_own_which_others_do_not_notice() -> None:
    async def scenario() -> None:
        site = Site(make_queue(), max_waiting_of_caller=2)
        calls = [site.call("many") for _ in range(3)]
        await settle()
        with pytest.raises(RateLimited) as refusal:
            await site.call("many")
        assert int(refusal.value.headers["Retry-After"]) >= 1
        calls.append(site.call("one"))
        await site.end(4)

        await asyncio.gather(*calls)

    run(scenario)


def test_call_whose_client_has_gone_while_it_waits_never_starts() -> None:
    async def scenario() -> None:
        site, gone = Site(make_queue()), asyncio.Event()
        first = site.call("a")
        await settle()
        dropped, last = site.call("b", until_gone=gone.wait), site.call("c", until_gone=asyncio.Event().wait)
        await settle()
        gone.set()
        with pytest.raises(Overloaded):
            await dropped
        await site.end(2)

        await asyncio.gather(first, last)
        assert site.started == ["a", "c"]

    run(scenario)


def test_call_that_waited_too_long_is_refused_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        site = Site(make_queue(max_waiting=1, max_wait_seconds=0.05))
        first = site.call("a")
        await settle()
        with pytest.raises(Overloaded):
            await site.call("b")
        last = site.call("b")
        await site.end(2)

        await asyncio.gather(first, last)
        assert site.started == ["a", "b"]

    run(scenario)


def test_the_slot_of_a_call_cancelled_as_it_gets_it_goes_to_the_next() -> None:
    async def scenario() -> None:
        queue, ran = make_queue(), []

        async def call(caller: str) -> None:
            async with queue.turn(caller):
                ran.append(caller)
                if caller == "a":
                    await settle()
                    cancelled.cancel()

        first = asyncio.create_task(call("a"))
        await asyncio.sleep(0)
        cancelled, last = asyncio.create_task(call("b")), asyncio.create_task(call("c"))

        await asyncio.gather(first, last)
        assert ran == ["a", "c"]

    run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_no_slot_is_ever_lost_and_no_more_calls_run_than_there_are_slots(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario() -> None:
        queue = make_queue(slots=2, max_waiting=10, max_wait_seconds=0.02)
        running: set[int] = set()
        served: list[int] = []

        async def call(number: int) -> None:
            seconds = chance.random() * 0.02
            async with queue.turn(
                chance.randrange(5), max_waiting_of_caller=4, until_gone=partial(asyncio.sleep, seconds)
            ):
                running.add(number)
                assert len(running) <= 2
                try:
                    await asyncio.sleep(chance.random() * 0.003)
                finally:
                    running.remove(number)
            served.append(number)

        calls = []
        for number in range(300):
            calls.append(asyncio.create_task(call(number)))
            if chance.random() < 0.3:
                chance.choice(calls).cancel()
            await asyncio.sleep(chance.random() * 0.001)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} <= {
            type(None), Overloaded, RateLimited, asyncio.CancelledError,
        }  # fmt: skip
        assert len(served) > 20
        site = Site(queue)
        last = [site.call(caller) for caller in "abc"]
        await settle()
        assert site.started == ["a", "b"], "both slots are free, and there is no third"
        await site.end(3)
        await asyncio.gather(*last)

    run(scenario)
