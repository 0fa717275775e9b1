"""The figures of docs/reliability.md: latency, the cost for votes, memory, and the stop of a server with streams."""

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.live.listening import Listener
from tests.live.test_streams import MakePerson, MakePost, send

pytestmark = pytest.mark.slow

STREAMS = 1_000
ROUND_SECONDS = 5
SETTINGS = {"RATE_LIMITS_ENABLED": "false", "LIVE_STREAMS_PER_USER": "1000", "LIVE_STREAMS_MAX": "2000"}
StartServer = Callable[..., Server]


class Crowd:
    """Many streams, read in a thread. `ended` is how many have ended."""

    def __init__(self, url: str, queries: list[tuple[Person, str]]) -> None:
        self.port = int(url.rpartition(":")[2])
        self.queries = queries
        self.opened = self.ended = self.messages = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        self.room = asyncio.Semaphore(50)
        self.tasks = [asyncio.create_task(self._read(person, query)) for person, query in self.queries]
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _read(self, person: Person, query: str) -> None:
        async with self.room:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = f"GET /live?{query} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {person.token}\r\n\r\n"
            writer.write(head.encode())
            await reader.readuntil(b'"state"')
            self.opened += 1
        try:
            while received := await reader.read(65536):
                self.messages += received.count(b"data: ")
        finally:
            self.ended += 1
            writer.close()


@contextmanager
def crowd_at(url: str, queries: list[tuple[Person, str]]) -> Iterator[Crowd]:
    """Open these streams, and close them at the end."""
    crowd = Crowd(url, queries)
    crowd.thread.start()
    try:
        deadline = time.monotonic() + 120
        while crowd.opened < len(queries):
            assert time.monotonic() < deadline, f"{crowd.opened} are open"
            time.sleep(0.1)
        yield crowd
    finally:
        crowd.loop.call_soon_threadsafe(lambda: [task.cancel() for task in crowd.tasks])
        crowd.thread.join()
        crowd.loop.close()


def test_a_vote_is_on_the_screen_of_another_worker_soon(
    start_server: StartServer, make_person: MakePerson, make_post: MakePost, figure: Figure
) -> None:
    server, people = start_server(WORKERS="2", **SETTINGS), [make_person() for _ in range(8)]
    post_ids = [make_post(people[0]) for _ in range(8)]
    waits: list[float] = []
    with ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener(server.url, f"posts={post_id}", person.headers))
            for post_id, person in zip(post_ids, people, strict=True)
        ]
        for listener in listeners:
            listener.wait_for_type("state")
        votes = dict.fromkeys(post_ids, 0)
        for _ in range(25):
            for listener, post_id, person in zip(listeners, post_ids, people, strict=True):
                votes[post_id] ^= 1
                time.sleep(random.uniform(0.05, 0.15))
                count = len(listener.messages)
                began_at = time.monotonic()
                send("PUT" if votes[post_id] else "DELETE", f"{server.url}/posts/{post_id}/vote", person)
                while len(listener.messages) == count:
                    time.sleep(0.001)
                    assert time.monotonic() - began_at < 5
                assert listener.messages[-1]["post"]["votes"] == votes[post_id]
                waits.append(listener.times[-1] - began_at)
    half, most = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    figure(
        f"{len(waits)} votes, two workers: on the screen after {half * 1000:.0f} ms (median), p99 {most * 1000:.0f} ms"
    )
    assert half < 0.4
    assert most < 1


async def _vote(port: int, person: Person, post_ids: list[int], ends_at: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.monotonic() < ends_at:
        post_id = post_ids[count // 2 % len(post_ids)]
        method = "PUT" if count % 2 == 0 else "DELETE"
        head = f"{method} /posts/{post_id}/vote HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {person.token}\r\n"
        writer.write(f"{head}Content-Length: 0\r\n\r\n".encode())
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        count += 1
    writer.close()
    return count


def votes_per_second(server: Server, voters: list[Person], post_ids: list[int]) -> float:
    async def run() -> int:
        ends_at = time.monotonic() + ROUND_SECONDS
        port = int(server.url.rpartition(":")[2])
        return sum(
            await asyncio.gather(
                *[_vote(port, voter, post_ids[number::16], ends_at) for number, voter in enumerate(voters)]
            )
        )

    return asyncio.run(run()) / ROUND_SECONDS


def test_a_thousand_streams_cost_votes_little(
    start_server: StartServer, make_person: MakePerson, make_post: MakePost, figure: Figure
) -> None:
    server, voters = start_server(WORKERS="2", **SETTINGS), [make_person() for _ in range(16)]
    post_ids = [make_post(voters[0]) for _ in range(1_000)]
    queries = [
        (voters[number % 16], "posts=" + ",".join(str(post_ids[(number * 7 + each) % 1_000]) for each in range(10)))
        for number in range(STREAMS)
    ]
    votes_per_second(server, voters, post_ids)
    without, beside = [], []
    for _ in range(6):
        without.append(votes_per_second(server, voters, post_ids))
        with crowd_at(server.url, queries) as crowd:
            before = crowd.messages
            beside.append(votes_per_second(server, voters, post_ids))
            sent = (crowd.messages - before) / ROUND_SECONDS
    rates = ", ".join(
        f"{alone:.0f} and {with_streams:.0f}" for alone, with_streams in zip(without, beside, strict=True)
    )
    ratio = statistics.median(beside) / statistics.median(without)
    figure(
        f"votes/s without and with {STREAMS:,} streams of ten posts each, which get {sent:,.0f} messages/s: {rates};"
        f" ratio of the medians {ratio:.2f}"
    )
    assert ratio > 0.7


def test_idle_streams_take_little_memory(
    start_server: StartServer, make_person: MakePerson, make_post: MakePost, figure: Figure
) -> None:
    server, people = start_server(**SETTINGS), [make_person() for _ in range(20)]
    post_ids = [make_post(people[0]) for _ in range(100)]
    process = psutil.Process(server.process.pid)
    with crowd_at(server.url, [(people[0], "topics=me")]):
        before = process.memory_info().rss
    queries = [
        (people[number % 20], "topics=me,new&posts=" + ",".join(map(str, post_ids[number % 90 :][:10])))
        for number in range(2_000)
    ]
    with crowd_at(server.url, queries) as crowd:
        time.sleep(5)
        grown = process.memory_info().rss - before
        began = process.cpu_times()
        time.sleep(5)
        ended = process.cpu_times()
        busy = ended.user + ended.system - began.user - began.system
        assert crowd.ended == 0
    figure(f"2,000 idle streams of ten posts each: {grown / 1e6:.0f} MB, {busy / 5:.0%} of a core")
    assert grown < 60_000_000


def test_a_server_with_a_thousand_streams_stops_within_five_seconds(
    start_server: StartServer, make_person: MakePerson, figure: Figure
) -> None:
    server, people = start_server(WORKERS="2", **SETTINGS), [make_person() for _ in range(20)]
    with crowd_at(server.url, [(people[number % 20], "topics=me,new") for number in range(STREAMS)]) as crowd:
        began_at = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        seconds = time.monotonic() - began_at
        crowd.thread.join(10)
        assert crowd.ended == STREAMS
    figure(f"SIGTERM with {STREAMS:,} streams: exit 0 after {seconds:.1f} s")
    assert seconds < 5
