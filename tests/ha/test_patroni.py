"""A cluster of Patroni loses its leader in each way while clients write: nothing is lost, and no read is stale.

The application's processes are the same in all tests, and nothing but Patroni acts on the nodes.
"""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import text

from tests.chaos.load import Answer, Answers, Client
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.ha.conftest import TTL_SECONDS, Cluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.needs("etcd")]

# The statement timeout, the watchdog's margin, and four seconds for a busy machine.
SLOWEST_ANSWER_SECONDS = 15
# After the fault has ended. During it, `pause_seconds` is the limit.
RECOVERED_WITHIN_SECONDS = 5


@dataclass
class Writers:
    """Clients that write posts and votes through both servers, and read back each acknowledged write."""

    posts: dict[int, str] = field(default_factory=dict)
    # Whether the vote is there. Without an answer to the last change, it is not known.
    votes: dict[tuple[int, int], bool] = field(default_factory=dict)
    acknowledged_at: list[float] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)
    read: int = 0
    stale: int = 0

    async def run(self, servers: list[Server], people: list[Person], is_over: Callable[[], bool]) -> None:
        await asyncio.gather(*(self._go_on(servers, person, is_over) for person in people))

    async def _go_on(self, servers: list[Server], person: Person, is_over: Callable[[], bool]) -> None:
        clients = [Client(server.url, person.token) for server in servers]
        for number in itertools.count():
            if is_over():
                break
            title = f"{person.id} {number} {time.monotonic()}"
            written = await self._write(clients, "POST", "/posts", {"title": title, "content": "content"})
            if written.status != 201:
                continue
            post_id = written.json["id"]
            self.posts[post_id] = title
            path = f"/posts/{post_id}"
            await self._read_back(clients, path, (title, 0, False), is_over)
            for wanted in (True, False)[: 1 + number % 2]:
                written = await self._write(clients, "PUT" if wanted else "DELETE", f"{path}/vote")
                if written.status != 200:
                    self.votes.pop((post_id, person.id), None)
                    break
                self.votes[post_id, person.id] = wanted
                await self._read_back(clients, path, (title, int(wanted), wanted), is_over)
        for client in clients:
            await client.close()

    async def _write(self, clients: list[Client], method: str, path: str, body: object = None) -> Answer:
        answer = await self._send(clients, method, path, body)
        if answer.status in {200, 201}:
            self.acknowledged_at.append(answer.began_at + answer.seconds)
        return answer

    async def _read_back(
        self, clients: list[Client], path: str, expected: tuple[str, int, bool], is_over: Callable[[], bool]
    ) -> None:
        """Read until it is answered: a failover may come between write and read."""
        while (answer := await self._send(clients, "GET", path)).status not in {200, 404}:
            if is_over():
                return
        self.read += 1
        found = answer.json
        self.stale += answer.status == 404 or expected != (found["Post"]["title"], found["votes"], found["voted"])

    async def _send(self, clients: list[Client], method: str, path: str, body: object = None) -> Answer:
        answer = await random.choice(clients).send(method, path, body)
        self.answers.all.append(replace(answer, headers={}, body=b""))
        if answer.status >= 500:
            await asyncio.sleep(0.1)  # Less than `Retry-After`, to see the first moment at which writes continue.
        return answer

    def longest_pause(self, since: float, until: float) -> float:
        """Return the longest time without an acknowledged write that ended after `since`."""
        times = [*sorted(at for at in self.acknowledged_at if at < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(times) if later > since)


@contextmanager
def postgres_killed(_: Cluster, leader: Node) -> Iterator[None]:
    leader.signal(signal.SIGKILL)
    yield


@contextmanager
def switchover(cluster: Cluster, _: Node) -> Iterator[None]:
    cluster.switch_over()
    yield


@contextmanager
def leader_lost(_: Cluster, leader: Node) -> Iterator[None]:
    leader.signal_patroni(signal.SIGKILL)
    leader.signal(signal.SIGKILL)
    yield
    leader.start()


@contextmanager
def postgres_frozen(_: Cluster, leader: Node) -> Iterator[None]:
    with leader.frozen():
        yield


@contextmanager
def patroni_frozen(_: Cluster, leader: Node) -> Iterator[None]:
    leader.signal_patroni(signal.SIGSTOP)
    yield
    leader.signal_patroni(signal.SIGCONT)


@pytest.mark.parametrize(
    ("fault", "lasts_seconds", "pause_seconds"),
    [
        (postgres_killed, 30, 20),
        (switchover, 15, 10),
        (leader_lost, 45, TTL_SECONDS + 10),
        (postgres_frozen, 50, TTL_SECONDS + 15),
        # Without a watchdog device, nothing fences the old primary. Its commits wait until its Patroni continues.
        (patroni_frozen, 50, 45),
    ],
)
def test_failover_loses_no_acknowledged_write_and_servers_recover_by_themselves(
    cluster: Cluster,
    servers: list[Server],
    people: list[Person],
    figure: Figure,
    fault: Callable[[Cluster, Node], AbstractContextManager[None]],
    lasts_seconds: float,
    pause_seconds: float,
) -> None:
    cluster.wait_until_whole()
    leader = cluster.leader()
    writers = Writers()
    began_at = undone_at = over_at = 0.0

    def fail() -> None:
        nonlocal began_at, undone_at, over_at
        began_at = time.monotonic()
        with fault(cluster, leader):
            time.sleep(lasts_seconds)
        undone_at = time.monotonic()
        time.sleep(10)
        over_at = time.monotonic()

    async def run() -> None:
        is_over = asyncio.Event()
        load = asyncio.create_task(writers.run(servers, people, is_over.is_set))
        await asyncio.sleep(3)
        await asyncio.to_thread(fail)
        is_over.set()
        await load

    asyncio.run(run())
    cluster.wait_until_whole()

    pause = writers.longest_pause(began_at, over_at)
    slowest = max(answer.seconds for answer in writers.answers.all)
    at_the_end = {
        answer.status
        for answer in writers.answers.all
        if undone_at + RECOVERED_WITHIN_SECONDS < answer.began_at < over_at
    }
    with cluster.leader().connect() as connection:
        ids = {"ids": [*writers.posts]}
        rows = connection.execute(text("SELECT id, title FROM posts WHERE id = ANY (:ids)"), ids)
        posts = {row.id: row.title for row in rows}
        rows = connection.execute(text("SELECT post_id, user_id FROM votes WHERE post_id = ANY (:ids)"), ids)
        votes = {(row.post_id, row.user_id) for row in rows}
    lost_count = len(writers.posts.items() - posts.items())
    lost_count += sum((vote in votes) != is_there for vote, is_there in writers.votes.items())
    host = cluster.nodes.index(leader) + 1
    figure(
        f"{fault.__name__}, leader was host {host} of the URL: no writes for {pause:.1f} s; "
        f"{len(writers.acknowledged_at):,} acknowledged, {lost_count} lost; {writers.read:,} read back,"
        f" {writers.stale} stale; {writers.answers.statuses}; slowest {slowest:.1f} s"
    )
    assert lost_count == 0
    assert writers.stale == 0
    assert set(writers.answers.statuses) <= {200, 201, 503}
    assert slowest < SLOWEST_ANSWER_SECONDS
    assert pause < pause_seconds
    assert at_the_end == {200, 201}
    cluster.run("app", "recount", "--check")
