"""Delivery by real processes of `python -m app worker`: killed, stopped, and beside receivers that hang."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.webhooks import queue
from tests.conftest import ROOT
from tests.fixtures import Person
from tests.webhooks.conftest import MakeWebhook, Receiver

KILLS = 4
EVENTS = 12


@pytest.fixture
def start_worker(database: Engine, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:  # noqa: ARG001
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "CLEANUP_INTERVAL_MINUTES": "60",
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "MAIL_ENABLED": "false",
        }
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "app", "worker"], cwd=ROOT, env=environment, stderr=log)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(20)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def publish(client: TestClient, author: Person, amount: int) -> set[int]:
    """Publish posts, and return their ids."""
    bodies = [{"title": f"Post {number}", "content": "c"} for number in range(amount)]
    return {client.post("/posts", json=body, headers=author.headers).json()["id"] for body in bodies}


def test_nothing_is_lost_when_workers_are_killed_between_delivery_and_bookkeeping(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    start_worker: Callable[[], subprocess.Popen[bytes]], pass_time: Callable[[str], None],
) -> None:  # fmt: skip
    make_webhook(person, receiver.url, "post_published")
    posts = publish(client, person, EVENTS)

    for _ in range(KILLS):
        receiver.hang.clear()
        seen = len(receiver.received)
        worker = start_worker()
        # The receiver has the request, and the worker no answer.
        wait_for(lambda: len(receiver.received) > seen)  # noqa: B023 - called at once.
        worker.kill()
        worker.wait(20)
        receiver.hang.set()
        pass_time("61 seconds")
    killed = receiver.ids()
    start_worker()

    is_waiting = text("SELECT count(*) FROM webhook_deliveries WHERE status <> 'delivered'")
    wait_for(lambda: connection.scalar(is_waiting) == 0)
    bodies = {headers["webhook-id"]: body for headers, body in receiver.received}
    assert len(set(killed)) == 1, "the same delivery is made again, and those after it wait"
    assert len(killed) == KILLS
    assert len(bodies) == EVENTS
    assert {
        post_id for post_id in posts if any(f'"post_id" : {post_id},'.encode() in body for body in bodies.values())
    } == posts
    assert len(receiver.ids()) == EVENTS + KILLS


def test_a_receiver_that_hangs_delays_no_other_and_no_stop(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_receiver: Callable[[], Receiver],
    make_webhook: MakeWebhook, start_worker: Callable[[], subprocess.Popen[bytes]],
) -> None:  # fmt: skip
    hanging, working = make_receiver(), make_receiver()
    hanging.hang.clear()
    other = make_person()
    for _ in range(10):
        make_webhook(other, hanging.url, "post_published")
    make_webhook(person, working.url, "post_published")
    worker = start_worker()
    publish(client, other, 3)
    wait_for(lambda: len(hanging.received) == queue.MAX_REQUESTS_OF_OWNER)

    began_at = time.monotonic()
    publish(client, person, 3)
    wait_for(lambda: len(working.received) == 3, 10)
    assert time.monotonic() - began_at < 8, "shorter than the timeout of the requests that hang"

    worker.send_signal(signal.SIGTERM)
    # Long before the requests that hang have timed out, also on a busy machine; 1 s otherwise.
    assert worker.wait(5) == 0
