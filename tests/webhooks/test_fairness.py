"""What fails delays nothing else."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.webhooks import delivery, http_client, queue
from tests.fixtures import Person
from tests.services.test_plans import explained
from tests.webhooks.conftest import MakeWebhook, Receiver
from tests.webhooks.test_delivery import Deliver, PassTime, publish, states
from tests.webhooks.test_processes import wait_for


def test_a_new_event_does_not_wait_for_the_next_attempt_of_one_that_failed(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, pass_time: PassTime,
) -> None:  # fmt: skip
    receiver.answers = [500]
    webhook = make_webhook(person, receiver.url)
    publish(client, person)
    for pause in queue.PAUSES[:4]:
        deliver()
        pass_time(f"{pause.total_seconds() + 1} seconds")
    deliver()  # The next attempt is due in five hours.
    pass_time("20 seconds")  # The rest after five failures is over.
    receiver.answers = [204]
    assert deliver() == 0

    publish(client, person)
    assert deliver() == 1
    client.post(f"/webhooks/{webhook['id']}/test", headers=person.headers)
    assert deliver() == 1

    assert states(connection) == [("waiting", 5), ("delivered", 1), ("delivered", 1)]


def test_a_delivery_that_is_asked_for_again_does_not_wait_for_its_next_attempt(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, pass_time: PassTime,
) -> None:  # fmt: skip
    receiver.answers = [500, 500, 204]
    webhook = make_webhook(person, receiver.url)
    publish(client, person)
    deliver()
    pass_time("6 seconds")
    deliver()
    pass_time("10 seconds")
    assert deliver() == 0
    [shown] = client.get(f"/webhooks/{webhook['id']}/deliveries", headers=person.headers).json()

    client.post(f"/webhooks/{webhook['id']}/deliveries/{shown['id']}/redeliver", headers=person.headers)
    assert deliver() == 1

    assert states(connection) == [("delivered", 3)]


def test_a_new_event_does_not_shorten_the_rest_after_failures(
    client: TestClient, person: Person, receiver: Receiver, make_webhook: MakeWebhook, deliver: Deliver,
    pass_time: PassTime,
) -> None:  # fmt: skip
    receiver.answers = [500]
    make_webhook(person, receiver.url)
    for _ in range(5):
        publish(client, person)
        assert deliver() == 1
        pass_time("17 seconds")
    publish(client, person)
    deliver()  # The sixth failure, after which it rests for 32 seconds.
    pass_time("20 seconds")
    publish(client, person)

    assert deliver() == 0
    pass_time("13 seconds")
    assert deliver() == 1


def test_names_that_do_not_resolve_delay_no_other_webhook_and_no_stop(
    client: TestClient, person: Person, make_person: Callable[..., Person], receiver: Receiver,
    make_webhook: MakeWebhook, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A user can have a name server that never answers. It occupies a thread for longer than a request may take."""
    resolve, asked, is_over = socket.getaddrinfo, [], threading.Event()

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".example"):
            asked.append(host)
            assert is_over.wait(60)
            raise socket.gaierror
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    hostile = [make_person() for _ in range(10)]
    for owner in hostile:
        for number in range(4):
            make_webhook(owner, f"http://slow{number}.user{owner.id}.example/", "post_published")
    make_webhook(person, receiver.url, "post_published")
    try:
        with delivery.delivering():
            for owner in hostile:
                publish(client, owner)
            wait_for(lambda: len(asked) == 40)
            publish(client, person)
            wait_for(lambda: len(receiver.received) == 1, 8)
            threads = [thread for thread in threading.enumerate() if thread.name == "resolver"]
            assert len(threads) == 40
            assert all(thread.daemon for thread in threads), "Python waits for other threads when it exits"
    finally:
        is_over.set()


def test_owners_with_slow_receivers_leave_places_to_others(
    client: TestClient, person: Person, make_person: Callable[..., Person], make_receiver: Callable[[], Receiver],
    make_webhook: MakeWebhook,
) -> None:  # fmt: skip
    """Seven accounts with ten webhooks each would take all 64 places for as long as their receivers wait."""
    slow, quick = make_receiver(), make_receiver()
    slow.hang.clear()
    owners = [make_person() for _ in range(7)]
    for owner in owners:
        for _ in range(10):
            make_webhook(owner, slow.url, "post_published")
    make_webhook(person, quick.url, "post_published")
    with delivery.delivering():
        for owner in owners:
            publish(client, owner)
        wait_for(lambda: len(slow.received) >= len(owners) * queue.MAX_REQUESTS_OF_OWNER)
        publish(client, person)
        wait_for(lambda: len(quick.received) == 1, 8)
        assert len(slow.received) == len(owners) * queue.MAX_REQUESTS_OF_OWNER


def add_due_webhooks(connection: Connection, owner: Person, count: int) -> None:
    insert = text("""
        WITH made AS (
            INSERT INTO webhooks (owner_id, url, events, secret, due_at)
            SELECT :owner, '', '{}', '', clock_timestamp() FROM generate_series(1, :count) RETURNING id
        )
        INSERT INTO webhook_deliveries (webhook_id, event, body) SELECT id, 'post_published', '' FROM made
    """)
    connection.execute(insert, {"owner": owner.id, "count": count})


@pytest.mark.parametrize(("limit", "each"), [(0, 100), (200, 200)])
def test_owners_who_have_all_places_do_not_hide_the_webhooks_of_others(
    connection: Connection, person: Person, make_person: Callable[..., Person], monkeypatch: pytest.MonkeyPatch,
    limit: int, each: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(get_settings(), "webhooks_max", limit)
    busy = [make_person() for _ in range(delivery.MAX_REQUESTS // queue.MAX_REQUESTS_OF_OWNER)]
    for owner in busy:
        add_due_webhooks(connection, owner, each)
    add_due_webhooks(connection, person, 1)
    running = dict.fromkeys([owner.id for owner in busy], queue.MAX_REQUESTS_OF_OWNER)
    assert [claimed.owner_id for claimed in queue.claim(1, running)] == [person.id]


def test_many_due_webhooks_make_choosing_the_next_no_slower(
    database: Engine, connection: Connection, person: Person
) -> None:
    def blocks() -> int:
        connection.execute(text("VACUUM ANALYZE webhooks, webhook_deliveries"))
        for _ in range(2):  # At first a server process also reads the catalogues.
            with explained(database) as plans:
                queue.claim(4, {})
        [plan] = plans
        return plan.buffer_count

    add_due_webhooks(connection, person, 5_000)
    before = blocks()
    add_due_webhooks(connection, person, 45_000)
    assert blocks() < 1.2 * before + 30


def test_an_owner_gets_places_again_when_requests_have_ended(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
) -> None:  # fmt: skip
    for _ in range(10):
        make_webhook(person, receiver.url, "post_published")
    with delivery.delivering():
        publish(client, person)
        wait_for(lambda: len(receiver.received) == 10, 30)
        wait_for(lambda: states(connection) == [("delivered", 1)] * 10, 30)
    assert queue.claim(64, {}) == []


def test_a_request_that_fails_unexpectedly_is_recorded_and_made_again_later(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    make_webhook(person, receiver.url)
    publish(client, person)

    async def post(*_: object) -> int:
        raise RuntimeError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(http_client, "post", post)
        assert deliver() == 1

    failure = text("SELECT status, attempt_count, failure FROM webhook_deliveries")
    assert connection.execute(failure).one() == ("waiting", 1, "the server could not send the request")
    assert "webhook attempt failed" in caplog.text
    pass_time("10 seconds")
    assert deliver() == 1
    assert states(connection) == [("delivered", 2)]
