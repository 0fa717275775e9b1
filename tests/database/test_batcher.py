"""The eight promises of batch queues, kept by database/batcher.py on real connections."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from app.database.batcher import FAIL_WITH_BATCH_AFTER_SECONDS, BatchQueue
from app.database.sessions import at_once, writing
from app.errors import Overloaded
from app.observability import request_context
from tests.fixtures import free_port

pytestmark = pytest.mark.usefixtures("database")

MAX_SECONDS = 10
GATE = 7236  # An advisory lock. While it is held, every `Recorder` waits.

Result = TypeVar("Result")
Connect = Callable[[], AbstractContextManager[Connection]]


def finish(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine in an event loop without a lifespan, with a time limit."""
    return asyncio.run(asyncio.wait_for(coroutine, MAX_SECONDS))


def start(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    return asyncio.get_running_loop().create_task(coroutine)


async def happens(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, MAX_SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Poll for what no event reports: that a PostgreSQL backend waits for a lock."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


class Recorder:
    """A `run` that passes the gate, echoes each item and records each batch."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.started = threading.Event()

    def __call__(self, connection: Connection, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.started.set()
        connection.execute(text("SELECT pg_advisory_lock_shared(:gate)"), {"gate": GATE})
        connection.execute(text("SELECT pg_advisory_unlock_shared(:gate)"), {"gate": GATE})
        return [("answer", item) for item in items]


@contextmanager
def _closed_gate(connection: Connection) -> Iterator[None]:
    connection.execute(text("SELECT pg_advisory_lock(:gate)"), {"gate": GATE})
    try:
        yield
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:gate)"), {"gate": GATE})


@pytest.fixture
def closed_gate(connection: Connection) -> Callable[[], AbstractContextManager[None]]:
    """Hold every `Recorder` up inside the database while the block runs."""
    return lambda: _closed_gate(connection)


@pytest.fixture
def table(connection: Connection) -> Iterator[None]:
    """`kept`: a table of numbers, none of them twice or negative."""
    connection.execute(text("CREATE TABLE kept (number integer CONSTRAINT kept_key UNIQUE CHECK (number >= 0))"))
    yield
    connection.execute(text("DROP TABLE kept"))


def kept(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT number FROM kept ORDER BY number")))


def keep(connection: Connection, items: Sequence[int]) -> list[int]:
    connection.execute(text("INSERT INTO kept SELECT unnest(CAST(:items AS integer[]))"), {"items": list(items)})
    return [-item for item in items]


def batcher(run: Callable[..., Any], connect: Connect = at_once, **options: Any) -> BatchQueue[Any, Any]:
    return BatchQueue("test", run, connect, **{"max_waiting": 1000, **options})


Gate = Callable[[], AbstractContextManager[None]]


# 1. Idle → starts at once. Busy → arrivals form the next batch.


def test_lonely_request_starts_at_once() -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        for number in range(5):
            assert await queue.submit(number) == ("answer", number)
        fastest = MAX_SECONDS * 1.0
        for number in range(30):
            began = time.perf_counter()
            await queue.submit(number)
            fastest = min(fastest, time.perf_counter() - began)
        assert len(run.batches) == 35
        # A timer would delay even the fastest item.
        assert fastest < 0.005

    finish(scenario())


def test_concurrent_items_share_one_batch() -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        answers = await asyncio.gather(*(queue.submit(number) for number in range(50)))
        assert answers == [("answer", number) for number in range(50)]
        assert run.batches == [list(range(50))]

    finish(scenario())


def test_items_that_arrive_during_a_batch_form_the_next_batch(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        with closed_gate():
            tasks = [start(queue.submit("first"))]
            await happens(run.started)
            tasks += [start(queue.submit(number)) for number in range(20)]
            await asyncio.sleep(0)
            assert run.batches == [["first"]]
        await asyncio.gather(*tasks)
        assert run.batches == [["first"], list(range(20))]

    finish(scenario())


def test_batch_is_no_larger_than_allowed() -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_batch=4)
        answers = await asyncio.gather(*(queue.submit(number) for number in range(10)))
        assert answers == [("answer", number) for number in range(10)]
        assert [len(batch) for batch in run.batches] == [4, 4, 2]

    finish(scenario())


# 2. A read never joins a query that began before the read arrived.


@pytest.mark.usefixtures("table")
def test_read_never_joins_a_query_that_began_before_it(closed_gate: Gate, connection: Connection) -> None:
    started = threading.Event()

    def count(lane_connection: Connection, items: Sequence[None]) -> list[int]:
        started.set()
        # One statement: its snapshot is taken before it comes to the gate.
        statement = text("SELECT (SELECT count(*) FROM kept), pg_advisory_xact_lock_shared(:gate)")
        (number, _) = lane_connection.execute(statement, {"gate": GATE}).one()
        return [number] * len(items)

    async def scenario() -> None:
        queue = batcher(count)
        with closed_gate():
            early = start(queue.submit(None))
            await happens(started)
            await until(lambda: is_a_backend_waiting(connection))
            connection.execute(text("INSERT INTO kept VALUES (1)"))
            late = start(queue.submit(None))
            await asyncio.sleep(0)
        assert await early == 0  # It truly had begun.
        assert await late == 1

    finish(scenario())


def is_a_backend_waiting(connection: Connection) -> bool:
    return (
        connection.scalar(
            text("""
            SELECT count(*) > 0 FROM pg_locks JOIN pg_database ON pg_database.oid = database
            WHERE NOT granted AND datname = current_database()
        """)
        )
        is True
    )


# 3. Equal keys: the run function shares; the batcher gives each item the outcome at its place.


def test_equal_items_are_handed_over_together_and_each_gets_its_own_outcome() -> None:
    def run(_: Connection, items: Sequence[str]) -> list[tuple[str, int]]:
        return [(item, place) for place, item in enumerate(items)]

    async def scenario() -> None:
        answers = await asyncio.gather(*(batch.submit("same") for batch in [batcher(run)] * 3))
        assert answers == [("same", 0), ("same", 1), ("same", 2)]

    finish(scenario())


# 4. Outcomes are per item.


def test_outcome_that_is_an_exception_is_raised_for_its_item_only() -> None:
    def run(_: Connection, items: Sequence[int]) -> list[int | Exception]:
        return [LookupError(item) if item % 2 else item for item in items]

    async def scenario() -> None:
        queue = batcher(run)
        answers = await asyncio.gather(*(queue.submit(number) for number in range(4)), return_exceptions=True)
        assert answers[0::2] == [0, 2]
        assert [(type(answer), answer.args) for answer in answers[1::2]] == [(LookupError, (1,)), (LookupError, (3,))]

    finish(scenario())


@pytest.mark.usefixtures("table")
def test_guilty_item_fails_alone(connection: Connection) -> None:
    async def scenario() -> None:
        queue = batcher(keep, writing)
        answers = await asyncio.gather(*(queue.submit(n) for n in (1, 2, -3, 4, 2)), return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [-1, -2, -4]
        assert isinstance(answers[2], IntegrityError)
        assert isinstance(answers[4], IntegrityError)

    finish(scenario())
    assert kept(connection) == [1, 2, 4]


@pytest.mark.usefixtures("table")
def test_item_that_the_driver_refuses_fails_alone(connection: Connection) -> None:
    # psycopg2 raises without a round trip, so without a SQLSTATE. That is not a lost connection.
    def run(lane_connection: Connection, items: Sequence[object]) -> list[object]:
        lane_connection.exec_driver_sql("INSERT INTO kept SELECT unnest(%s::integer[])", (list(items),))
        return list(items)

    async def scenario() -> None:
        queue = batcher(run, writing)
        answers = await asyncio.gather(*(queue.submit(item) for item in (1, object(), 3)), return_exceptions=True)
        assert [answers[0], answers[2]] == [1, 3]
        assert isinstance(answers[1], DBAPIError)

    finish(scenario())
    assert kept(connection) == [1, 3]


def test_panic_in_run_reaches_its_caller_and_no_caller_hangs() -> None:
    # What Rust extensions raise when they panic is no Exception; neither can a future carry StopIteration.
    def run(_: Connection, items: Sequence[BaseException | None]) -> list[str]:
        for item in items:
            if item is not None:
                raise item
        return ["fine" for _ in items]

    async def scenario() -> None:
        queue = batcher(run)
        items = (None, SystemExit(1), StopIteration(), None)
        answers = await asyncio.gather(*(queue.submit(item) for item in items), return_exceptions=True)
        assert [answers[0], answers[3]] == ["fine", "fine"]
        assert [type(answers[1]), type(answers[2])] == [RuntimeError, RuntimeError]
        assert await queue.submit(None) == "fine"

    finish(scenario())


def test_order_key_that_cannot_be_made_fails_its_item_only() -> None:
    async def scenario() -> None:
        queue = batcher(Recorder(), order_key=lambda item: 1 // item)
        answers = await asyncio.gather(*(queue.submit(number) for number in (1, 0, 2)), return_exceptions=True)
        assert answers[0] == ("answer", 1)
        assert isinstance(answers[1], ZeroDivisionError)
        assert answers[2] == ("answer", 2)

    finish(scenario())


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("outcomes", [[], [1], [1, 2, 3]])
def test_wrong_number_of_outcomes_fails_its_waiters_and_commits_nothing(
    connection: Connection, outcomes: list[int]
) -> None:
    def run(lane_connection: Connection, items: Sequence[int]) -> list[int]:
        keep(lane_connection, items)
        return outcomes if len(items) == 2 else [*outcomes, *outcomes, 0, 0]

    async def scenario() -> None:
        queue = batcher(run, writing)
        answers = await asyncio.gather(queue.submit(1), queue.submit(2), return_exceptions=True)
        assert [type(answer) for answer in answers] == [AssertionError, AssertionError]

    finish(scenario())
    assert kept(connection) == []


class SerializationFailures:
    """A `run` that fails `times` times with a serialization failure of PostgreSQL.

    In each, two serializable transactions read what the other writes.
    """

    def __init__(self, database: Engine, times: int) -> None:
        self.database, self.times, self.attempts = database, times, 0

    def __call__(self, connection: Connection, items: Sequence[int]) -> list[int]:
        self.attempts += 1
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        (number,) = connection.execute(text("SELECT number FROM kept")).one()
        if self.attempts <= self.times:
            with self.database.begin() as other:
                other.execute(text("UPDATE kept SET number = number + 1"))
        connection.execute(text("UPDATE kept SET number = :n"), {"n": number + 100})
        return [number] * len(items)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("failures", [1, 3])
def test_serialization_failure_is_retried(connection: Connection, database: Engine, failures: int) -> None:
    connection.execute(text("INSERT INTO kept VALUES (0)"))
    run = SerializationFailures(database, failures)
    assert finish(batcher(run, writing).submit(1)) == failures
    assert run.attempts == failures + 1
    assert kept(connection) == [100 + failures]


@pytest.mark.usefixtures("table")
def test_serialization_failure_is_retried_three_times_at_most(connection: Connection, database: Engine) -> None:
    connection.execute(text("INSERT INTO kept VALUES (0)"))
    run = SerializationFailures(database, 100)
    with pytest.raises(DBAPIError) as failure:
        finish(batcher(run, writing).submit(1))
    assert failure.value.orig is not None
    assert getattr(failure.value.orig, "pgcode", None) == "40001"
    assert run.attempts == 4
    assert kept(connection) == [4]


@pytest.mark.usefixtures("table")
def test_deadlock_is_retried(connection: Connection, database: Engine) -> None:
    connection.execute(text("INSERT INTO kept VALUES (1), (2)"))
    lock = text("SELECT FROM kept WHERE number = :n FOR UPDATE")
    first_is_locked, other_waits = threading.Event(), threading.Event()
    codes: list[str] = []
    attempts = 0

    def run(lane_connection: Connection, items: Sequence[None]) -> list[str]:
        nonlocal attempts
        attempts += 1
        # The backend that waited for this long looks for a deadlock, and is the one that fails.
        lane_connection.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
        try:
            lane_connection.execute(lock, {"n": 1})
            if attempts == 1:
                first_is_locked.set()
                assert other_waits.wait(MAX_SECONDS)
            lane_connection.execute(lock, {"n": 2})
        except DBAPIError as error:
            codes.append(getattr(error.orig, "pgcode", ""))
            raise
        return ["locked" for _ in items]

    def lock_the_other_way_round() -> None:
        assert first_is_locked.wait(MAX_SECONDS)
        with database.begin() as other:
            other.execute(text("SET LOCAL deadlock_timeout = '10s'"))
            other.execute(lock, {"n": 2})
            other_waits.set()
            other.execute(lock, {"n": 1})

    async def scenario() -> None:
        opponent = start(asyncio.to_thread(lock_the_other_way_round))
        assert await batcher(run, writing).submit(None) == "locked"
        await opponent

    finish(scenario())
    assert codes == ["40P01"]
    assert attempts == 2


@pytest.mark.usefixtures("table")
def test_other_failures_are_not_retried() -> None:
    attempts = 0

    def run(lane_connection: Connection, items: Sequence[int]) -> list[int]:
        nonlocal attempts
        attempts += 1
        return keep(lane_connection, items)

    with pytest.raises(IntegrityError):
        finish(batcher(run, writing).submit(-1))
    assert attempts == 1


# 5. Two items with one order key never share a batch; their order is kept.


def _of_one_pair(item: tuple[str, int]) -> Hashable:
    return item[0]


def test_items_of_one_order_key_never_share_a_batch_and_keep_their_order() -> None:
    items = [(name, number) for number in range(4) for name in "aab"] + [("c", 0)]

    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, order_key=_of_one_pair)
        await asyncio.gather(*(queue.submit(item) for item in items))
        for batch in run.batches:
            names = [name for name, _ in batch]
            assert len(names) == len(set(names))
        for name in "abc":
            served = [item for batch in run.batches for item in batch if item[0] == name]
            assert served == [item for item in items if item[0] == name]
        assert run.batches[0] == [("a", 0), ("b", 0), ("c", 0)]  # No item waits for another batch.
        assert len(run.batches) == 8

    finish(scenario())


def test_order_is_kept_where_batches_are_full_and_newcomers_arrive(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, order_key=_of_one_pair, max_batch=2)
        tasks: list[asyncio.Task[Any]] = []
        for _ in range(3):
            with closed_gate():
                tasks += [start(queue.submit((name, len(tasks) + n))) for n, name in enumerate("aabcab")]
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert sum(map(len, run.batches)) == 18
        for name in "abc":
            numbers = [number for batch in run.batches for other, number in batch if other == name]
            assert numbers == sorted(numbers)
        assert all(len({name for name, _ in batch}) == len(batch) <= 2 for batch in run.batches)

    finish(scenario())


@pytest.mark.usefixtures("table")
def test_items_of_one_order_key_keep_their_order_when_run_one_by_one(connection: Connection) -> None:
    connection.execute(text("INSERT INTO kept VALUES (5)"))

    def run(lane_connection: Connection, items: Sequence[tuple[str, int]]) -> list[int]:
        return keep(lane_connection, [number for _, number in items])

    async def scenario() -> None:
        queue = batcher(run, writing, order_key=_of_one_pair)
        items = [("a", 5), ("b", 6), ("a", 7), ("c", 6), ("b", 7)]
        answers = await asyncio.gather(*(queue.submit(item) for item in items), return_exceptions=True)
        assert [isinstance(answer, IntegrityError) for answer in answers] == [True, False, False, True, True]

    finish(scenario())
    assert kept(connection) == [5, 6, 7]


# 6. Success is answered after COMMIT, never before; a client that went away changes nothing for the others.


@pytest.mark.usefixtures("table")
def test_success_is_answered_after_the_commit(connection: Connection) -> None:
    before_commit, may_commit = threading.Event(), threading.Event()

    @contextmanager
    def slow_to_commit() -> Iterator[Connection]:
        with writing() as lane_connection:
            yield lane_connection
            before_commit.set()
            assert may_commit.wait(MAX_SECONDS)

    async def scenario() -> None:
        answer = start(batcher(keep, slow_to_commit).submit(1))
        await happens(before_commit)
        await asyncio.sleep(0)
        assert not answer.done()
        assert kept(connection) == []
        may_commit.set()
        assert await answer == -1
        assert kept(connection) == [1]

    finish(scenario())


@pytest.mark.usefixtures("table")
def test_a_failed_commit_is_reported_as_a_failure(connection: Connection) -> None:
    # The constraint is looked at when COMMIT comes.
    connection.execute(text("ALTER TABLE kept DROP CONSTRAINT kept_key"))
    connection.execute(text("ALTER TABLE kept ADD CONSTRAINT kept_key UNIQUE (number) DEFERRABLE INITIALLY DEFERRED"))
    connection.execute(text("INSERT INTO kept VALUES (2)"))

    async def scenario() -> None:
        queue = batcher(keep, writing)
        answers = await asyncio.gather(*(queue.submit(n) for n in (1, 2, 3)), return_exceptions=True)
        assert [answers[0], answers[2]] == [-1, -3]
        assert isinstance(answers[1], IntegrityError)

    finish(scenario())
    assert kept(connection) == [1, 2, 3]


@pytest.mark.usefixtures("table")
def test_a_connection_lost_at_the_commit_is_a_failure(connection: Connection) -> None:
    def run(lane_connection: Connection, items: Sequence[int]) -> list[int]:
        answers = keep(lane_connection, items)
        backend = lane_connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})
        return answers

    async def scenario() -> None:
        queue = batcher(run, writing)
        answers = await asyncio.gather(queue.submit(1), queue.submit(2), return_exceptions=True)
        assert [type(answer) for answer in answers] == [OperationalError, OperationalError]
        assert await batcher(keep, writing).submit(3) == -3  # The next one gets a working connection.

    finish(scenario())
    assert kept(connection) == [3]


def test_client_gone_while_its_batch_runs_changes_nothing_for_the_others(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        with closed_gate():
            tasks = [start(queue.submit(number)) for number in range(3)]
            await happens(run.started)
            tasks[1].cancel()
            late = start(queue.submit("late"))
            await asyncio.sleep(0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[0], answers[2]] == [("answer", 0), ("answer", 2)]
        assert isinstance(answers[1], asyncio.CancelledError)
        assert await late == ("answer", "late")

    finish(scenario())


def test_cancelled_items_are_left_out_of_the_batch(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, order_key=_of_one_pair)
        with closed_gate():
            first = start(queue.submit(("a", 0)))
            await happens(run.started)
            tasks = [start(queue.submit(item)) for item in (("a", 1), ("a", 2), ("b", 3))]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.sleep(0)
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert answers[2:] == [("answer", ("a", 2)), ("answer", ("b", 3))]
        assert run.batches == [[("a", 0)], [("a", 2), ("b", 3)]]

    finish(scenario())


def test_a_queue_whose_items_were_all_cancelled_serves_the_next(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        with closed_gate():
            tasks = [start(queue.submit("first"))]
            await happens(run.started)
            tasks += [start(queue.submit(number)) for number in range(3)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await queue.submit("next") == ("answer", "next")
        assert run.batches == [["first"], ["next"]]

    finish(scenario())


# 7. Bounded, and drained.


def test_only_the_caller_past_the_bound_is_refused_and_at_once(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_waiting=3)
        with closed_gate():
            tasks = [start(queue.submit("first"))]
            await happens(run.started)
            tasks += [start(queue.submit(number)) for number in range(3)]
            await asyncio.sleep(0)
            for _ in range(5):
                with pytest.raises(Overloaded):
                    await asyncio.wait_for(queue.submit("too many"), 0.5)
        assert len(await asyncio.gather(*tasks)) == 4
        assert await queue.submit("later") == ("answer", "later")
        assert run.batches == [["first"], [0, 1, 2], ["later"]]

    finish(scenario())


def test_drain_runs_all_queued_items_and_refuses_new_ones(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_batch=2)
        with closed_gate():
            tasks = [start(queue.submit("first"))]
            await happens(run.started)
            tasks += [start(queue.submit(number)) for number in range(5)]
            await asyncio.sleep(0)
            draining = start(queue.drain())
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await queue.submit("newcomer")
            assert not draining.done()
        await draining
        assert all(task.done() for task in tasks)
        assert [task.result() for task in tasks] == [("answer", item) for item in ("first", 0, 1, 2, 3, 4)]

    finish(scenario())


def test_a_cancelled_drain_cancels_no_other_drain(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run)
        with closed_gate():
            first = start(queue.submit("first"))
            await happens(run.started)
            second = start(queue.submit("second"))
            draining = start(queue.drain())
            await asyncio.sleep(0)
            draining.cancel()
            await asyncio.wait([draining])
            third = start(queue.submit("third"))
            await asyncio.sleep(0)
        assert await first == ("answer", "first")
        assert await second == ("answer", "second")
        assert await third == ("answer", "third")

    finish(scenario())


def test_an_idle_queue_is_drained_at_once_and_can_be_used_again() -> None:
    async def scenario() -> None:
        queue = batcher(Recorder())
        await queue.drain()
        assert await queue.submit(1) == ("answer", 1)
        await queue.drain()
        assert await queue.submit(2) == ("answer", 2)

    finish(scenario())


# 8. Made on first use in the running event loop; never crosses loops.


def test_works_in_one_loop_after_another_without_a_lifespan() -> None:
    run = Recorder()
    queue = batcher(run)

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(queue.submit(number) for number in range(3)))

    for _ in range(3):
        assert finish(scenario()) == [("answer", 0), ("answer", 1), ("answer", 2)]
    gc.collect()
    assert run.batches == [[0, 1, 2]] * 3


def test_two_loops_at_once_share_no_batch_and_drain_apart() -> None:
    run = Recorder()
    queue = batcher(run)
    other_may_go_on = threading.Event()

    async def elsewhere() -> list[Any]:
        answers = await asyncio.gather(*(queue.submit(f"other {number}") for number in range(3)))
        await happens(other_may_go_on)
        return [*answers, await queue.submit("other still")]

    async def here() -> None:
        other = start(asyncio.to_thread(finish, elsewhere()))
        answers = await asyncio.gather(*(queue.submit(f"own {number}") for number in range(3)))
        assert answers == [("answer", f"own {number}") for number in range(3)]
        await queue.drain()
        other_may_go_on.set()
        assert [item for _, item in await other] == ["other 0", "other 1", "other 2", "other still"]
        assert all(len({item.split()[0] for item in batch}) == 1 for batch in run.batches)

    finish(here())


def test_loop_that_ends_while_its_batch_runs_leaves_the_next_one_usable(closed_gate: Gate) -> None:
    run = Recorder()
    queue = batcher(run)
    abandoned: list[asyncio.Task[Any]] = []

    async def give_up() -> None:
        abandoned.extend(start(queue.submit(number)) for number in range(3))
        await happens(run.started)
        abandoned.append(start(queue.submit("waiting")))
        await asyncio.sleep(0)

    with closed_gate():
        finish(give_up())
    assert all(task.cancelled() for task in abandoned)

    async def next_loop() -> None:
        assert await queue.submit("next") == ("answer", "next")

    finish(next_loop())


# The server is not there.


def test_refused_connection_fails_everyone_after_one_attempt(database: Engine) -> None:
    nowhere = create_engine(database.url.set(port=free_port()), poolclass=NullPool)
    attempts = 0

    @contextmanager
    def connect() -> Iterator[Connection]:
        nonlocal attempts
        attempts += 1
        with nowhere.begin() as lane_connection:
            yield lane_connection

    async def scenario() -> None:
        queue = batcher(keep, connect)
        answers = await asyncio.gather(*(queue.submit(n) for n in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {OperationalError}
        assert attempts == 1

    finish(scenario())


def test_full_pool_fails_everyone_after_one_wait(database: Engine) -> None:
    small = create_engine(database.url, pool_size=1, max_overflow=0, pool_timeout=0.1)

    async def scenario() -> None:
        queue = batcher(keep, small.begin)
        with small.connect():
            began = time.monotonic()
            answers = await asyncio.gather(*(queue.submit(n) for n in range(50)), return_exceptions=True)
            assert time.monotonic() - began < 1
        assert {type(answer).__name__ for answer in answers} == {"TimeoutError"}

    finish(scenario())
    small.dispose()


@pytest.mark.usefixtures("table")
def test_server_lost_while_items_run_one_by_one_fails_the_rest_at_once(connection: Connection) -> None:
    runs: list[list[int]] = []

    def run(lane_connection: Connection, items: Sequence[int]) -> list[int]:
        runs.append(list(items))
        if len(items) > 1:
            raise ValueError("one of them is guilty")
        if items == [2]:
            backend = lane_connection.scalar(text("SELECT pg_backend_pid()"))
            connection.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})
        return keep(lane_connection, items)

    async def scenario() -> None:
        queue = batcher(run, writing)
        answers = await asyncio.gather(*(queue.submit(n) for n in range(1, 6)), return_exceptions=True)
        assert answers[0] == -1
        assert {type(answer) for answer in answers[1:]} == {OperationalError}

    finish(scenario())
    assert runs == [[1, 2, 3, 4, 5], [1], [2]]
    assert kept(connection) == [1]


# The server is there, and takes too long.


class Blocked(Recorder):
    """As a `Recorder`, on a connection whose statements are cut after `LIMIT_SECONDS`."""

    LIMIT_SECONDS = 1.0

    def __call__(self, connection: Connection, items: Sequence[Any]) -> list[Any]:
        connection.execute(text(f"SET statement_timeout = '{self.LIMIT_SECONDS}s'"))
        try:
            return super().__call__(connection, items)
        finally:
            connection.execute(text("RESET statement_timeout"))


def test_items_that_waited_long_behind_a_batch_that_timed_out_fail_with_it_and_others_run(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Blocked()
        queue = batcher(run)
        with closed_gate():
            first = start(queue.submit("first"))
            await happens(run.started)
            waited = [start(queue.submit(f"waited {number}")) for number in range(3)]
            await asyncio.sleep(0)
            waited[1].cancel()
            await asyncio.sleep(Blocked.LIMIT_SECONDS - 0.1)
            late = start(queue.submit("late"))
            await asyncio.wait([first, waited[0], waited[2]])
        for task in (first, waited[0], waited[2]):
            assert isinstance(failure := task.exception(), OperationalError)
            assert getattr(failure.orig, "pgcode", None) == "57014"
        assert waited[1].cancelled()
        assert await late == ("answer", "late")
        assert run.batches == [["first"], ["late"]]

    finish(scenario())


def test_items_that_waited_long_behind_a_batch_that_failed_otherwise_run(closed_gate: Gate) -> None:
    def run(connection: Connection, items: Sequence[str]) -> list[tuple[str, str]]:
        answers = gate(connection, items)
        return [] if "first" in items else answers

    gate = Recorder()

    async def scenario() -> None:
        queue = batcher(run)
        with closed_gate():
            first = start(queue.submit("first"))
            await happens(gate.started)
            waited = start(queue.submit("waited"))
            await asyncio.sleep(FAIL_WITH_BATCH_AFTER_SECONDS + 0.1)
        assert await waited == ("answer", "waited")
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], AssertionError)

    finish(scenario())


# A queue shared by callers with expensive items, and the deadline of an item.


def test_equal_items_share_a_batch_and_callers_take_turns(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, share_key=lambda item: item[1], caller=lambda item: item[0])
        with closed_gate():
            tasks = [start(queue.submit(("greedy", 0)))]
            await happens(run.started)
            tasks += [start(queue.submit(("greedy", number))) for number in range(1, 5)]
            await asyncio.sleep(0)
            tasks += [start(queue.submit(item)) for item in (("other", 10), ("other", 11), ("third", 2))]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert run.batches == [
            [("greedy", 0)],
            [("greedy", 1)],
            [("other", 10)],
            [("third", 2), ("greedy", 2)],
            [("greedy", 3)],
            [("other", 11)],
            [("greedy", 4)],
        ]

    finish(scenario())


def test_all_statements_of_a_batch_share_its_time() -> None:
    def sleep_twice(connection: Connection, items: Sequence[float]) -> list[float]:
        for seconds in items:
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        return list(items)

    async def scenario() -> None:
        queue = batcher(sleep_twice, max_seconds=0.8)
        assert await queue.submit(0.2) == 0.2
        began = time.monotonic()
        with pytest.raises(OperationalError) as failed:
            await queue.submit(0.6)
        assert getattr(failed.value.orig, "pgcode", None) == "57014"
        assert 0.7 < time.monotonic() - began < 1.1
        with at_once() as connection:
            assert connection.scalar(text("SHOW statement_timeout")) == "10s"

    finish(scenario())


def test_an_item_whose_time_ends_while_it_waits_is_refused_and_not_run(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_batch=1, max_seconds=0.6)
        with closed_gate():
            tasks = [start(queue.submit("first"))]
            await happens(run.started)
            tasks.append(start(queue.submit("waits")))
            failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(failures[0], OperationalError)
        assert isinstance(failures[1], OperationalError | Overloaded)
        assert run.batches == [["first"]]

    finish(scenario())


def test_the_time_of_a_read_counts_from_the_arrival_of_its_request() -> None:
    def sleep(connection: Connection, items: Sequence[float]) -> list[float]:
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": max(items)})
        return list(items)

    async def scenario() -> None:
        request_context.arrived_at.set(time.monotonic() - 9.8)
        assert await batcher(sleep, max_seconds=10).submit(0.4) == 0.4
        request_context.arrived_at.set(time.monotonic() - 9.8)
        with pytest.raises(OperationalError):
            await batcher(sleep, max_seconds=10, reads=True).submit(0.4)
        request_context.arrived_at.set(time.monotonic() - 10.1)
        with pytest.raises(Overloaded):
            await batcher(sleep, max_seconds=10, reads=True).submit(0.4)

    finish(scenario())


def test_a_read_with_little_time_left_fails_alone(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_seconds=10, reads=True)
        with closed_gate():
            first = start(queue.submit("first"))
            await happens(run.started)
            request_context.arrived_at.set(time.monotonic() - 9.5)
            began = time.monotonic()
            old = start(queue.submit("old"))
            request_context.arrived_at.set(None)
            fresh = start(queue.submit("fresh"))
            await asyncio.wait([old])
            assert isinstance(old.exception(), Overloaded)
            assert 0.4 < time.monotonic() - began < 1.5
        assert [await first, await fresh] == [("answer", "first"), ("answer", "fresh")]

    finish(scenario())


def test_a_read_whose_time_ends_in_a_batch_leaves_the_time_of_others(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Recorder()
        queue = batcher(run, max_seconds=10, reads=True)
        with closed_gate():
            request_context.arrived_at.set(time.monotonic() - 9.5)
            old = start(queue.submit("old"))
            request_context.arrived_at.set(None)
            fresh = start(queue.submit("fresh"))
            await asyncio.wait([old])
            assert isinstance(old.exception(), Overloaded)
        assert await fresh == ("answer", "fresh")
        assert run.batches == [["old", "fresh"]]

    finish(scenario())


def test_a_timeout_of_one_caller_fails_no_waiting_item_of_another(closed_gate: Gate) -> None:
    async def scenario() -> None:
        run = Blocked()
        queue = batcher(run, share_key=lambda item: item, caller=lambda item: item)
        with closed_gate():
            first = start(queue.submit("first"))
            await happens(run.started)
            other = start(queue.submit("other"))
            await asyncio.wait([first])
        assert isinstance(first.exception(), OperationalError)
        assert await other == ("answer", "other")

    finish(scenario())
