"""Events reach the receivers that want them: signed, in order, again after failures, and not for ever."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text
from standardwebhooks.webhooks import Webhook
from starlette.testclient import TestClient

from app.webhooks import queue
from tests.conftest import ROOT
from tests.fixtures import Person
from tests.webhooks.conftest import MakeWebhook, Receiver

Deliver = Callable[[], int]
PassTime = Callable[[str], None]


def is_authentic(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """The function of docs/webhooks.md."""
    source = (ROOT / "docs" / "webhooks.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102
    return bool(names["is_authentic"](secret, headers, body))


def publish(client: TestClient, person: Person, title: str = "A post") -> int:
    made = client.post("/posts", json={"title": title, "content": "Text"}, headers=person.headers)
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


def states(connection: Connection) -> list[tuple[str, int]]:
    return [tuple(row) for row in connection.execute(
        text("SELECT status, attempt_count FROM webhook_deliveries ORDER BY id")
    )]  # fmt: skip


def test_a_published_post_reaches_the_receiver_with_a_valid_signature(
    client: TestClient, person: Person, receiver: Receiver, make_webhook: MakeWebhook, deliver: Deliver
) -> None:
    webhook = make_webhook(person, receiver.url)
    post_id = publish(client, person)

    assert deliver() == 1

    [(headers, body)] = receiver.received
    # Raises unless the signature is right and recent.
    content = Webhook(webhook["secret"]).verify(body, headers)
    assert is_authentic(webhook["secret"], headers, body)
    assert not is_authentic(webhook["secret"], headers, body + b" ")
    assert not is_authentic(webhook["secret"], headers | {"webhook-timestamp": "1"}, body)
    assert content["type"] == "post_published"
    assert content["data"] == {"actor_id": person.id, "post_id": post_id, "comment_id": None, "user_id": None}
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{receiver.server_address[1]}"
    assert "authorization" not in headers
    [shown] = client.get(f"/webhooks/{webhook['id']}/deliveries", headers=person.headers).json()
    assert (shown["status"], shown["response_code"], shown["attempt_count"], shown["due_at"], shown["failure"]) == (
        "delivered", 204, 1, None, None,
    )  # fmt: skip
    assert headers["webhook-id"] == f"msg_{shown['id']}"
    assert deliver() == 0


def test_own_events_are_those_of_the_owner_and_of_the_owners_posts(
    client: TestClient, person: Person, make_person: Callable[..., Person], receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver,
) -> None:  # fmt: skip
    other, admin = make_person(), make_person(role="admin")
    make_webhook(person, receiver.url, "comment", "notification", "post_published", "post_deleted")
    foreign, mine = publish(client, other), publish(client, person)
    for post_id in (foreign, mine):
        client.post(f"/posts/{post_id}/comments", json={"content": "Hello"}, headers=other.headers)
    client.post(f"/posts/{foreign}/comments", json={"content": "Mine"}, headers=person.headers)
    deliver()
    client.delete(f"/posts/{foreign}", headers=other.headers)
    client.delete(f"/posts/{mine}", headers=admin.headers)
    deliver()

    found = [(json.loads(body)["type"], json.loads(body)["data"]) for _, body in receiver.received]
    assert [(kind, data["post_id"], data["actor_id"]) for kind, data in found] == [
        ("post_published", mine, person.id), ("comment", mine, other.id), ("notification", mine, other.id),
        ("comment", foreign, person.id), ("post_deleted", mine, None),
    ]  # fmt: skip


def test_a_webhook_does_not_tell_an_author_which_moderator_acted(
    client: TestClient, person: Person, make_person: Callable[..., Person], receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver,
) -> None:  # fmt: skip
    moderator, admin = make_person(role="moderator"), make_person(role="admin")
    kinds = ("post_published", "post_unpublished", "post_deleted")
    make_webhook(person, receiver.url, *kinds)
    make_webhook(admin, receiver.url, *kinds, scope="all")
    removed, deleted = publish(client, person), publish(client, person)
    client.post(f"/posts/{removed}/remove", json={"reason": "Spam"}, headers=moderator.headers)
    client.post(f"/posts/{removed}/restore", headers=moderator.headers)
    client.delete(f"/posts/{deleted}", headers=moderator.headers)

    deliver()

    actors = sorted(
        (json.loads(body)["type"], json.loads(body)["data"]["actor_id"] or 0) for _, body in receiver.received
    )
    shown = [("post_deleted", moderator.id), ("post_unpublished", moderator.id)]
    assert actors == sorted(
        [("post_deleted", 0), ("post_unpublished", 0), *shown, *[("post_published", person.id)] * 6]
    )


def test_the_scope_all_has_the_posts_of_all_and_no_notifications_of_others(
    client: TestClient, make_person: Callable[..., Person], person: Person, receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver,
) -> None:  # fmt: skip
    admin, commenter = make_person(role="admin"), make_person()
    make_webhook(admin, receiver.url, "comment", "notification", "post_published", scope="all")
    post_id = publish(client, person)
    client.post(f"/posts/{post_id}/comments", json={"content": "Hello"}, headers=commenter.headers)

    deliver()

    assert receiver.events() == ["post_published", "comment"]


@pytest.mark.usefixtures("receiver")
def test_events_before_the_webhook_and_of_other_kinds_are_not_sent(
    client: TestClient, person: Person, receiver: Receiver, make_webhook: MakeWebhook, deliver: Deliver
) -> None:
    make_webhook(person, receiver.url, "comment")
    publish(client, person)
    deliver()
    make_webhook(person, receiver.url, "post_published")
    deliver()

    assert receiver.received == []


def test_a_failure_is_tried_again_after_the_pauses_with_the_same_id(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, pass_time: PassTime,
) -> None:  # fmt: skip
    receiver.answers = [500, 302, 404, 204]
    make_webhook(person, receiver.url)
    publish(client, person)

    assert [deliver(), deliver()] == [1, 0]
    pass_time("4 seconds")
    assert deliver() == 0
    pass_time("2 seconds")
    assert deliver() == 1
    pass_time("299 seconds")
    assert deliver() == 0
    pass_time("2 seconds")
    assert deliver() == 1
    pass_time("31 minutes")
    assert deliver() == 1

    assert len(set(receiver.ids())) == 1
    assert states(connection) == [("delivered", 4)]
    assert connection.execute(text("SELECT failure_count, failing_since FROM webhooks")).one() == (0, None)


def test_redirects_are_not_followed(
    client: TestClient, connection: Connection, person: Person, make_receiver: Callable[[], Receiver],
    make_webhook: MakeWebhook, deliver: Deliver,
) -> None:  # fmt: skip
    redirecting, target = make_receiver(), make_receiver()
    redirecting.answers, redirecting.location = [307], target.url
    make_webhook(person, redirecting.url)
    publish(client, person)

    deliver()

    assert (len(redirecting.received), target.received, states(connection)) == (1, [], [("waiting", 1)])


def test_events_arrive_in_the_order_of_their_cause(
    client: TestClient, person: Person, receiver: Receiver, make_webhook: MakeWebhook, deliver: Deliver
) -> None:
    make_webhook(person, receiver.url)
    ids = [publish(client, person) for _ in range(30)]

    assert deliver() == 30

    assert [json.loads(body)["data"]["post_id"] for _, body in receiver.received] == ids


def test_after_three_days_of_failures_it_is_disabled_and_its_owner_told(
    client: TestClient, connection: Connection, make_person: Callable[..., Person], receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver, pass_time: PassTime,
) -> None:  # fmt: skip
    person = make_person(is_verified=True)
    receiver.answers = [500]
    webhook = make_webhook(person, receiver.url)
    publish(client, person)
    attempts = deliver()
    for pause in queue.PAUSES:
        pass_time(f"{pause.total_seconds() + 1} seconds")
        publish(client, person)
        attempts += deliver()

    shown = client.get(f"/webhooks/{webhook['id']}", headers=person.headers).json()
    assert (shown["enabled"], shown["disabled_at"] is None, attempts > len(queue.PAUSES)) == (False, False, True)
    assert {status for status, _ in states(connection)} == {"given_up"}
    assert connection.execute(text("SELECT kind, address FROM outgoing_mails")).all() == [
        ("webhook_disabled", person.email)
    ]
    publish(client, person)
    assert deliver() == 0

    receiver.answers = [204]
    client.patch(f"/webhooks/{webhook['id']}", json={"enabled": True}, headers=person.headers)
    publish(client, person)
    assert deliver() == 1


def test_a_receiver_that_is_gone_gets_no_more(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver,
) -> None:  # fmt: skip
    receiver.answers = [410]
    make_webhook(person, receiver.url)
    publish(client, person)
    publish(client, person)

    assert deliver() == 1
    assert states(connection) == [("given_up", 1), ("given_up", 0)]
    # The address is not confirmed, so it gets no mail.
    assert connection.scalar(text("SELECT count(*) FROM outgoing_mails")) == 0


@pytest.mark.parametrize("code", [410, 500])
def test_a_failure_of_a_url_that_was_replaced_meanwhile_does_not_count(
    client: TestClient, person: Person, make_receiver: Callable[[], Receiver], make_webhook: MakeWebhook,
    deliver: Deliver, pass_time: PassTime, code: int,
) -> None:  # fmt: skip
    old, new = make_receiver(), make_receiver()
    old.answers = [code]
    old.hang.clear()
    webhook = make_webhook(person, old.url)
    publish(client, person)
    with ThreadPoolExecutor(1) as thread:
        delivering = thread.submit(deliver)
        deadline = time.monotonic() + 20
        while not old.received and time.monotonic() < deadline:
            time.sleep(0.02)
        client.patch(f"/webhooks/{webhook['id']}", json={"url": new.url}, headers=person.headers)
        old.hang.set()
        assert delivering.result(30) == 1

    shown = client.get(f"/webhooks/{webhook['id']}", headers=person.headers).json()
    assert (shown["enabled"], shown["failing_since"]) == (True, None)
    pass_time("6 seconds")
    assert deliver() == 1
    assert new.ids() == old.ids()


def test_a_webhook_with_too_many_waiting_deliveries_is_disabled(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(queue, "MAX_WAITING", 3)
    make_webhook(person, receiver.url)
    for _ in range(4):
        publish(client, person)

    assert deliver() == 0
    assert states(connection) == [("given_up", 0)] * 4


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET is_active = false",
        "UPDATE users SET ban_reason = 'Spam'",
        "UPDATE users SET role = 'moderator'",
        "UPDATE webhooks SET disabled_at = now(), due_at = 'infinity'",
    ],
)
def test_owners_who_may_not_have_it_any_more_get_nothing(
    client: TestClient, connection: Connection, make_person: Callable[..., Person], person: Person, receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver, pass_time: PassTime, change: str,
) -> None:  # fmt: skip
    """Also if the delivery was queued before, as here while the webhook rests."""
    make_webhook(make_person(role="admin"), receiver.url, scope="all")
    connection.execute(text("UPDATE webhooks SET due_at = now() + interval '1 minute'"))
    publish(client, person)
    assert deliver() == 0
    assert len(states(connection)) == 1
    connection.execute(text(change))
    pass_time("61 seconds")

    deliver()

    assert receiver.received == []
    assert connection.scalar(text("SELECT disabled_at IS NOT NULL FROM webhooks")) is True


@pytest.mark.parametrize("change", ["ban_reason = 'Spam'", "role = 'user'"])
def test_nothing_is_queued_for_owners_who_may_not_have_it_while_their_webhook_rests(
    client: TestClient, connection: Connection, make_person: Callable[..., Person], person: Person, receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver, change: str,
) -> None:  # fmt: skip
    """The list of deliveries shows what is queued."""
    owner = make_person(role="admin")
    make_webhook(owner, receiver.url, "post_published", scope="all")
    connection.execute(text("UPDATE webhooks SET due_at = now() + interval '1 minute'"))
    connection.execute(text(f"UPDATE users SET {change} WHERE id = :id"), {"id": owner.id})
    publish(client, person)
    deliver()

    assert states(connection) == []
    assert connection.scalar(text("SELECT disabled_at IS NOT NULL FROM webhooks")) is True


def test_a_banned_owner_gets_nothing(
    client: TestClient, connection: Connection, make_person: Callable[..., Person], person: Person, receiver: Receiver,
    make_webhook: MakeWebhook, deliver: Deliver,
) -> None:  # fmt: skip
    webhook = make_webhook(person, receiver.url)
    publish(client, person)
    client.post(f"/webhooks/{webhook['id']}/test", headers=person.headers)
    banned = client.post(
        f"/users/{person.id}/ban", json={"reason": "Spam"}, headers=make_person(role="moderator").headers
    )
    assert banned.status_code == 200, banned.text

    deliver()

    assert receiver.received == []
    assert connection.scalar(text("SELECT disabled_at IS NOT NULL FROM webhooks")) is True


def test_a_delivery_whose_sender_died_is_made_again_with_the_same_id(
    client: TestClient, person: Person, receiver: Receiver, make_webhook: MakeWebhook, deliver: Deliver,
    pass_time: PassTime, connection: Connection, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_webhook(person, receiver.url)
    publish(client, person)
    with monkeypatch.context() as dying:
        dying.setattr(queue, "settle", lambda *_: None)
        assert deliver() == 1

    assert deliver() == 0  # The lease.
    pass_time("61 seconds")
    assert deliver() == 1

    assert receiver.ids() == [receiver.ids()[0]] * 2
    assert states(connection) == [("delivered", 1)]


def test_a_slow_receiver_ends_its_attempt_and_rests(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("app.webhooks.http_client.MAX_SECONDS", 0.3)
    receiver.hang.clear()
    make_webhook(person, receiver.url)
    for _ in range(3):
        publish(client, person)

    began_at = time.monotonic()
    assert deliver() == 1  # The others wait for the rest after it.

    assert time.monotonic() - began_at < 10
    assert connection.execute(
        text("SELECT failure, response_code, milliseconds >= 300 FROM webhook_deliveries ORDER BY id LIMIT 1")
    ).one() == ("no answer within 0.3 seconds", None, True)


def test_each_event_is_queued_once_by_processes_at_once(
    client: TestClient, connection: Connection, person: Person, receiver: Receiver, make_webhook: MakeWebhook,
    deliver: Deliver,
) -> None:  # fmt: skip
    make_webhook(person, receiver.url)
    queue.fill()
    for _ in range(20):
        publish(client, person)
    with ThreadPoolExecutor(4) as threads:
        deadline = time.monotonic() + 20
        while connection.scalar(text("SELECT count(*) FROM webhook_deliveries")) < 20 and time.monotonic() < deadline:
            list(threads.map(lambda _: queue.fill(), range(8)))

    deliver()

    assert len(receiver.received) == 20
    assert len(set(receiver.ids())) == 20
