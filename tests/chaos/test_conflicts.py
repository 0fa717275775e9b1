"""Deadlock victims and serialization failures are retried, and no client sees them."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from tests.chaos.conftest import Postgres, miscounted
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.races.conftest import Call, Crowd, deadlocks, statuses
from tests.races.waiting import wait_until

TIMEOUT_SECONDS = 20
OURS = "datname = current_database()"


@dataclass(frozen=True)
class Conflict:
    """A conflict of a write with an opponent that holds a post's count.

    `then` is the opponent's statement once the write waits for it. `setting` applies to the write's connection.
    """

    name: str
    setting: str
    then: str

    @contextmanager
    def set_up(self, postgres: Postgres) -> Iterator[None]:
        """Apply the setting to connections that are opened inside the block."""
        database = postgres.url.database
        with postgres.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {database} SET {self.setting}"))
            try:
                yield
            finally:
                connection.execute(text(f"ALTER DATABASE {database} RESET ALL"))

    def force(self, opponent: Connection, looking: Connection, post_id: int, is_over: Callable[[], bool]) -> bool:
        """Make PostgreSQL abort the next write that needs the count.

        False if none came before it was over.
        """
        opponent.execute(text("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL deadlock_timeout = '2s'"))
        opponent.execute(text("SELECT FROM post_stats WHERE post_id = :id FOR UPDATE"), {"id": post_id})
        is_blocked = is_a_backend_blocked(looking, opponent, is_over)
        try:
            if is_blocked:
                opponent.execute(text(self.then), {"id": post_id})
        except OperationalError:  # It looked for the circle too late, and was itself broken off.
            is_blocked = False
        opponent.execute(text("COMMIT"))
        return is_blocked


def is_a_backend_blocked(looking: Connection, opponent: Connection, is_over: Callable[[], bool]) -> bool:
    blocker = opponent.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
    waiting = text("SELECT count(*) > 0 FROM pg_stat_activity WHERE :blocker = ANY (pg_blocking_pids(pid))")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_over():
        if looking.scalar(waiting, {"blocker": blocker}):
            return True
        assert time.monotonic() < deadline, "no write was blocked, and none was answered"
        time.sleep(0.005)
    return False


# The backend that waited for `deadlock_timeout` looks for a deadlock, once, and is the victim.
DEADLOCK = Conflict("a deadlock", "deadlock_timeout = '300ms'", then="SELECT FROM posts WHERE id = :id FOR UPDATE")
SERIALIZATION_FAILURE = Conflict(
    "a serialization failure",
    "default_transaction_isolation = 'repeatable read'",
    then="UPDATE post_stats SET votes = votes WHERE post_id = :id",
)


def writes(number: int, person: Person, owner: Person, post_id: int) -> list[Call]:
    """Return writes that leave no vote when run in order; the last leaves no post either."""
    key = {"Idempotency-Key": f"round-{number}"}
    return [
        Call("PUT", f"/posts/{post_id}/vote", person),
        Call("DELETE", f"/posts/{post_id}/vote", person),
        Call("POST", "/vote", person, {"post_id": post_id, "vote_dir": 1}, key),
        Call("DELETE", f"/posts/{post_id}", owner),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("conflict", [DEADLOCK, SERIALIZATION_FAILURE], ids=["deadlock", "serialization failure"])
def test_writes_that_are_broken_off_up_to_three_times_are_answered_and_happen_once(
    conflict: Conflict, start: Callable[..., Server], postgres: Postgres, people: list[Person], post_ids: list[int],
    figure: Figure,
) -> None:  # fmt: skip
    owner, bystanders, others = people[0], people[8:], post_ids[15:]
    chance = random.Random(9)
    forced: dict[int, int] = {1: 0, 2: 0, 3: 0}
    answers: list[httpx2.Response] = []

    with (
        conflict.set_up(postgres),
        postgres.connect() as looking,
        postgres.connect() as opponent,
        ThreadPoolExecutor(max_workers=2) as threads,
    ):
        before = deadlocks(looking)
        crowd = Crowd([start(WORKERS="2")])
        for number, post_id in enumerate(post_ids[:15]):
            for write in writes(number, people[1 + number % 7], owner, post_id):
                times = chance.choice([1, 2, 3])
                votes = [Call("PUT", f"/posts/{chance.choice(others)}/vote", person) for person in bystanders]
                crossing: Future[list[httpx2.Response]] = threads.submit(crowd.send, [write])
                beside = threads.submit(crowd.send, votes)
                broken_off = 0
                for _ in range(times):
                    broken_off += conflict.force(opponent, looking, post_id, crossing.done)
                if broken_off:
                    forced[broken_off] += 1
                answers += [*crossing.result(), *beside.result()]
                assert set(statuses(answers)) <= {200, 201, 204}
                wanted = write.method in {"PUT", "POST"}
                assert looking.scalar(text("SELECT count(*) FROM votes WHERE post_id = :id"), {"id": post_id}) == wanted
        count = sum(times * writes for times, writes in forced.items())
        if conflict is DEADLOCK:
            # PostgreSQL counts the latest up to ten seconds late.
            wait_until(looking, f"SELECT deadlocks >= {before + count} FROM pg_stat_database WHERE {OURS}")
        kept = looking.scalar(text("SELECT count(*) FROM idempotency_keys"))
        left = set(looking.scalars(text("SELECT id FROM posts")))
        assert miscounted(looking) == 0

    figure(
        f"R9: {count} times {conflict.name} on {sum(forced.values())} writes ({forced[3]} of them three times);"
        f" of all {len(answers)}: {statuses(answers)}"
    )
    assert kept == 15
    assert left == set(post_ids[15:])
    assert forced[3] > 5
    assert count > 60
