"""Webhooks while servers and PostgreSQL crash: every acknowledged event arrives, each with one id."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest
from sqlalchemy import text

from tests.chaos.conftest import Postgres
from tests.figures import Figure
from tests.fixtures import Person, Server
from tests.webhooks.conftest import Receiver

CRASHES = 4
POSTS_BETWEEN = 60
DELIVERING = {
    "CLEANUP_INTERVAL_MINUTES": "60",
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "RATE_LIMITS_ENABLED": "false",
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_no_event_of_an_acknowledged_write_is_lost_in_crashes(
    start: Callable[..., Server], postgres: Postgres, people: list[Person], receiver: Receiver, figure: Figure
) -> None:
    author = people[0]
    server = start(WORKERS="2", **DELIVERING)
    new = {"url": receiver.url, "events": ["post_published"]}
    assert httpx2.post(f"{server.url}/webhooks", json=new, headers=author.headers, timeout=20).status_code == 201

    acknowledged: set[int] = set()
    for crash in range(CRASHES):
        for number in range(POSTS_BETWEEN):
            if number == POSTS_BETWEEN // 2:
                if crash % 2:
                    server.process.kill()
                    server = start(WORKERS="2", **DELIVERING)
                else:
                    postgres.stop(signal.SIGQUIT)
                    postgres.start()
            answer = httpx2.post(
                f"{server.url}/posts", json={"title": "t", "content": "c"}, headers=author.headers, timeout=20
            )
            assert answer.status_code in {201, 503}
            if answer.status_code == 201:
                acknowledged.add(answer.json()["id"])

    deadline = time.monotonic() + 180
    waiting = text("SELECT count(*) FROM webhook_deliveries WHERE status = 'waiting'")
    arrived: set[int] = set()
    while not acknowledged <= arrived:
        assert time.monotonic() < deadline, f"{len(acknowledged - arrived)} have not arrived"
        time.sleep(0.5)
        arrived = {json.loads(body)["data"]["post_id"] for _, body in [*receiver.received]}
    time.sleep(2)
    with postgres.connect() as connection:
        assert connection.scalar(waiting) == 0
    ids_of_post: dict[int, set[str]] = {}
    for headers, body in receiver.received:
        ids_of_post.setdefault(json.loads(body)["data"]["post_id"], set()).add(headers["webhook-id"])
    assert {len(ids) for ids in ids_of_post.values()} == {1}
    figure(
        f"R23 webhooks: 0 of {len(acknowledged)} acknowledged posts lost in {CRASHES} crashes;"
        f" {len(receiver.received)} requests with {len(ids_of_post)} ids"
    )
