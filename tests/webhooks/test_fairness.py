"""What fails delays nothing else."""

from sqlalchemy import Connection
from starlette.testclient import TestClient

from app.webhooks import queue
from tests.fixtures import Person
from tests.webhooks.conftest import MakeWebhook, Receiver
from tests.webhooks.test_delivery import Deliver, PassTime, publish, states


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
