"""`/webhooks`: status, code and rows of every route, and URLs that are refused."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.services import cleanup
from app.webhooks import queue
from tests.contract.answers import assert_documented, assert_refused
from tests.fixtures import Person

URL = "https://example.com/hooks?key=1"
NEW = {"url": URL, "events": ["comment", "notification", "comment"]}


@pytest.fixture
def webhook(client: TestClient, person: Person) -> dict[str, Any]:
    made = client.post("/webhooks", json=NEW, headers=person.headers)
    assert made.status_code == 201, made.text
    assert_documented(made)
    assert made.headers["Location"] == f"webhooks/{made.json()['id']}"
    return dict(made.json())


@pytest.fixture
def delivery(client: TestClient, person: Person, webhook: dict[str, Any]) -> dict[str, Any]:
    queued = client.post(f"/webhooks/{webhook['id']}/test", headers=person.headers)
    assert queued.status_code == 202, queued.text
    assert_documented(queued)
    return dict(queued.json())


def test_a_new_webhook_is_shown_with_its_secret_once_and_the_secret_is_not_stored(
    client: TestClient, connection: Connection, person: Person, webhook: dict[str, Any]
) -> None:
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert webhook == {
        "id": webhook["id"], "url": URL, "events": ["comment", "notification"], "scope": "own", "enabled": True,
        "created_at": webhook["created_at"], "failing_since": None, "disabled_at": None,
    }  # fmt: skip
    assert client.get(f"/webhooks/{webhook['id']}", headers=person.headers).json() == webhook
    assert client.get("/webhooks", headers=person.headers).json() == [webhook]
    stored = connection.scalar(text("SELECT secret FROM webhooks"))
    assert secret.removeprefix("whsec_").encode() not in bytes(stored)
    assert connection.scalar(text("SELECT details FROM security_events WHERE event = 'webhook_created'")) == {
        "webhook_id": webhook["id"], "scope": "own",
    }  # fmt: skip


def test_changes_keep_what_they_leave_out(client: TestClient, person: Person, webhook: dict[str, Any]) -> None:
    del webhook["secret"]
    address = f"/webhooks/{webhook['id']}"

    assert client.patch(address, json={}, headers=person.headers).json() == webhook
    changed = client.patch(address, json={"events": ["post_edited"]}, headers=person.headers)
    assert changed.json() == webhook | {"events": ["post_edited"]}
    moved = client.patch(address, json={"url": "https://example.org/"}, headers=person.headers)
    assert moved.json() == webhook | {"events": ["post_edited"], "url": "https://example.org/"}


def test_disabling_gives_up_what_waits_and_enabling_begins_anew(
    client: TestClient, person: Person, webhook: dict[str, Any], delivery: dict[str, Any]
) -> None:
    address = f"/webhooks/{webhook['id']}"

    disabled = client.patch(address, json={"enabled": False}, headers=person.headers).json()
    assert (disabled["enabled"], disabled["disabled_at"] is None) == (False, False)
    [given_up] = client.get(f"{address}/deliveries", headers=person.headers).json()
    assert given_up == delivery | {"status": "given_up", "due_at": None}
    again = f"{address}/deliveries/{delivery['id']}/redeliver"
    for path in (f"{address}/test", again):
        assert_refused(client.post(path, headers=person.headers), 409, "webhook_disabled")

    enabled = client.patch(address, json={"enabled": True}, headers=person.headers).json()
    assert (enabled["enabled"], enabled["disabled_at"]) == (True, None)
    queued = client.post(again, headers=person.headers)
    assert (queued.status_code, queued.json()["status"], queued.json()["id"]) == (202, "waiting", delivery["id"])
    assert_documented(queued)


def test_deleting_ends_it_and_cleanup_removes_the_deliveries(
    client: TestClient, connection: Connection, person: Person, webhook: dict[str, Any], delivery: dict[str, Any]
) -> None:
    assert delivery["status"] == "waiting"
    response = client.delete(f"/webhooks/{webhook['id']}", headers=person.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert_refused(
        client.get(f"/webhooks/{webhook['id']}/deliveries", headers=person.headers), 404, "webhook_not_found"
    )
    assert queue.claim(10, {}) == []
    assert dict(cleanup.run())["webhook_deliveries"] == 1
    assert connection.execute(text("SELECT FROM webhooks UNION ALL SELECT FROM webhook_deliveries")).all() == []
    assert connection.scalar(text("SELECT count(*) FROM security_events WHERE event = 'webhook_deleted'")) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries"),
        ("POST", "/deliveries/{id}/redeliver"),
    ],
)  # fmt: skip
def test_webhooks_of_others_do_not_exist(
    client: TestClient, connection: Connection, make_person: Callable[..., Person], webhook: dict[str, Any],
    delivery: dict[str, Any], method: str, path: str,
) -> None:  # fmt: skip
    admin = make_person(role="admin")
    before = connection.execute(text("SELECT webhooks::text FROM webhooks")).all()
    body = {"enabled": False} if method == "PATCH" else None

    response = client.request(
        method, f"/webhooks/{webhook['id']}" + path.format(id=delivery["id"]), json=body, headers=admin.headers
    )

    assert_refused(response, 404, "webhook_not_found")
    assert connection.execute(text("SELECT webhooks::text FROM webhooks")).all() == before


def test_deliveries_of_another_webhook_do_not_exist(
    client: TestClient, person: Person, delivery: dict[str, Any]
) -> None:
    second = client.post("/webhooks", json=NEW, headers=person.headers).json()
    path = f"/webhooks/{second['id']}/deliveries/{delivery['id']}/redeliver"

    assert_refused(client.post(path, headers=person.headers), 404, "delivery_not_found")


def test_only_admins_have_the_scope_all(client: TestClient, person: Person, make_person: Callable[..., Person]) -> None:
    body = NEW | {"scope": "all"}

    for caller in (person, make_person(role="moderator")):
        assert_refused(client.post("/webhooks", json=body, headers=caller.headers), 403, "not_authorized")
    assert client.post("/webhooks", json=body, headers=make_person(role="admin").headers).status_code == 201


def test_past_the_quota_is_refused(client: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "webhooks_max", 1)

    assert client.post("/webhooks", json=NEW, headers=person.headers).status_code == 201
    assert_refused(client.post("/webhooks", json=NEW, headers=person.headers), 409, "quota_exceeded")


def test_tests_and_repetitions_are_limited(
    client: TestClient, person: Person, webhook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings(), "rate_limits_enabled", True)
    statuses = {client.post(f"/webhooks/{webhook['id']}/test", headers=person.headers).status_code for _ in range(61)}

    assert statuses == {202, 429}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://[::1]:8000/", "https://10.0.0.1/", "https://192.168.1.1/", "https://169.254.169.254/",
        "https://100.100.100.200/", "https://168.63.129.16/", "https://192.0.0.192/",
        "https://192.88.99.1/", "https://[fec0::1]/", "https://[3fff::1]/", "https://[fd00:ec2::254]/", "https://[fe80::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/", "https://0.0.0.0/", "https://255.255.255.255/", "https://224.0.0.1/",
        "https://2130706433/", "https://127.1/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/",
        "https://a:b@example.com/", "https://example.com/#x", "https://example.com:0/", "https://example.com:99999/",
        "https://", "https:///x", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/",
        "https://exa mple.com/", "https://example.com/\r\nX: y", "https://exämple.com/", "https://[::1", "https://[v1.x]/",
        "https://example.com\\@127.0.0.1/", "https://[fe80::1%25eth0]/", "https://a" + "a" * 2_000 + ".example/", "", 1,
    ],
)  # fmt: skip
def test_urls_that_are_not_public_or_malformed_are_refused(
    client: TestClient, connection: Connection, person: Person, url: object
) -> None:
    response = client.post("/webhooks", json=NEW | {"url": url}, headers=person.headers)

    assert response.status_code == 422, response.text
    assert response.json()["code"] == "validation_failed"
    assert response.json()["detail"][0]["loc"] == ["body", "url"]
    assert connection.scalar(text("SELECT count(*) FROM webhooks")) == 0


def test_production_requires_https(client: TestClient, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    body = NEW | {"url": "http://example.com/"}
    assert client.post("/webhooks", json=body, headers=person.headers).status_code == 201

    monkeypatch.setattr(get_settings(), "environment", "production")

    refused = client.post("/webhooks", json=body, headers=person.headers)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["msg"] == "the URL should begin with https://"


@pytest.mark.parametrize(
    "body", [{"events": []}, {"events": ["vote"]}, {"events": "comment"}, {"scope": "mine"}, {"url": None}]
)
def test_malformed_bodies_are_refused(client: TestClient, person: Person, body: dict[str, Any]) -> None:
    assert client.post("/webhooks", json=NEW | body, headers=person.headers).status_code == 422
