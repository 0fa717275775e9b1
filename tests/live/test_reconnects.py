"""Clients that connect again and again, as those of a bad network do, while a worker is killed."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2
import psutil
import pytest

from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.live.listening import Listener, Message
from tests.live.test_streams import MakePerson, MakePost

CLIENTS, CONNECTIONS = 20, 50
KINDS = ("comment", "notification")


class Client:
    """A client that goes on after the last event that it has got. `got` is the comments that its messages are about."""

    def __init__(self, url: str, reader: Person, post_id: int) -> None:
        self._url, self._reader, self._query = url, reader, f"posts={post_id}&topics=me"
        self._last_event_id = ""
        self.connections = 0
        self.got: dict[str, set[int]] = {kind: set() for kind in KINDS}

    def connect(self, use: Callable[[Listener], None]) -> None:
        deadline = time.monotonic() + 60
        while True:  # Until it meets no worker that is killed.
            try:
                listener = Listener(
                    self._url, self._query, self._reader.headers | {"Last-Event-ID": self._last_event_id}
                )
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        use(listener)
        listener.close()
        self.connections += 1
        self._last_event_id = listener.last_event_id or self._last_event_id
        assert listener.of_type("reset") == []
        for kind in KINDS:
            self.got[kind] |= {comment_of(message) for message in listener.of_type(kind)}


def wait_for_the_state(listener: Listener) -> None:
    listener.wait_for_type("state")


def is_about(wanted: tuple[str, int], message: Message) -> bool:
    return (message["type"], comment_of(message)) == wanted


def comment_of(message: Message) -> int:
    """Return the comment that a message is about; 0 for those about none."""
    inner = message.get(message["type"]) or {}
    found = inner.get("id") if message["type"] == "comment" else inner.get("comment_id")
    return int(found or 0)


@pytest.mark.slow
def test_nothing_is_lost_over_a_thousand_connections_and_a_killed_worker(
    start_server: Callable[..., Server], person: Person, make_person: MakePerson, make_post: MakePost, figure: Figure
) -> None:
    server = start_server(WORKERS="2", RATE_LIMITS_ENABLED="false", LIVE_STREAMS_PER_USER="100")
    # Many writers, because one notifies an account of 20 comments at most.
    post_id, writers = make_post(person), [make_person() for _ in range(40)]
    clients = [Client(server.url, person, post_id) for _ in range(CLIENTS)]
    written: list[int] = []
    is_written = threading.Event()

    def read(number: int) -> None:
        pauses = random.Random(number)
        for _ in range(CONNECTIONS - 1):
            clients[number].connect(lambda _: time.sleep(pauses.uniform(0, 0.4)))
        assert is_written.wait(120)

        def wait_for_the_last(listener: Listener) -> None:
            missing = {(kind, written[-1]) for kind in KINDS if written[-1] not in clients[number].got[kind]}
            for each in missing:
                listener.wait_for(partial(is_about, each))

        clients[number].connect(wait_for_the_last)

    for client in clients:
        client.connect(wait_for_the_state)

    with ThreadPoolExecutor(CLIENTS) as threads, httpx2.Client(base_url=server.url) as http:
        readers = [threads.submit(read, number) for number in range(CLIENTS)]
        killed: psutil.Process | None = None
        while (made := sum(client.connections for client in clients)) < CLIENTS * CONNECTIONS:
            assert not any(reader.done() for reader in readers), [
                reader.exception(0) for reader in readers if reader.done()
            ]
            if killed is None and made > CLIENTS * CONNECTIONS / 2:
                killed = psutil.Process(server.process.pid).children()[0]
                killed.kill()
            writer = writers[len(written) % len(writers)]
            try:
                sent = http.post(f"/posts/{post_id}/comments", json={"content": "Here."}, headers=writer.headers)
            except httpx2.TransportError:  # Of the killed worker. It is not known whether the comment was written.
                continue
            written.append(sent.raise_for_status().json()["id"])
            time.sleep(0.02)
        is_written.set()
        for reader in readers:
            reader.result(120)

    lost = {kind: sum(len({*written} - client.got[kind]) for client in clients) for kind in KINDS}
    figure(
        f"{CLIENTS} clients with {CLIENTS * CONNECTIONS:,} connections and a killed worker: {len(written)} comments and"
        f" as many notifications to each; lost: {lost}"
    )
    assert killed is not None
    assert lost == dict.fromkeys(KINDS, 0)
