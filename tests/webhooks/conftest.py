"""A receiver of webhooks: a real HTTP server that keeps what it got."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import Connection, text
from starlette.testclient import TestClient

from app.config import get_settings
from app.webhooks import delivery, queue
from tests.fixtures import Person
from tests.races.waiting import wait_until_events_arrive


class Receiver(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, the last again and again."""

    daemon_threads = True
    # Not the reverse look-up of the base class.
    server_name = "receiver"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = [204]
        self.hang = threading.Event()
        self.hang.set()
        self.location = ""

    def server_bind(self) -> None:
        """Bind without the look-up of the own name."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?x=1"

    def events(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.received]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.hang.wait(30)
        answers = self.server.answers
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def make_receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Receiver]]:
    """Start receivers on loopback, which is allowed for the test."""
    monkeypatch.setattr(get_settings(), "webhook_allowed_networks", ["127.0.0.0/8"])
    made: list[Receiver] = []

    def make() -> Receiver:
        receiver = Receiver()
        threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
        made.append(receiver)
        return receiver

    yield make
    for receiver in made:
        receiver.hang.set()
        receiver.shutdown()
        receiver.server_close()


@pytest.fixture
def receiver(make_receiver: Callable[[], Receiver]) -> Receiver:
    return make_receiver()


MakeWebhook = Callable[..., dict[str, Any]]


@pytest.fixture
def make_webhook(client: TestClient) -> MakeWebhook:
    def make(owner: Person, url: str, *events: str, scope: str = "own") -> dict[str, Any]:
        body = {"url": url, "events": events or ["comment", "post_published", "post_deleted"], "scope": scope}
        made = client.post("/webhooks", json=body, headers=owner.headers)
        assert made.status_code == 201, made.text
        return dict(made.json())

    return make


@pytest.fixture
def deliver(connection: Connection) -> Callable[[], int]:
    """Queue all events, and make the deliveries that are due; return how many attempts that took."""

    async def attempt_all() -> int:
        attempts = 0
        while claimed := queue.claim(10, {}):
            for each in claimed:
                queue.settle(each, await delivery.attempt(each))
            attempts += len(claimed)
        return attempts

    def run() -> int:
        wait_until_events_arrive(connection)
        while queue.fill():
            pass
        return asyncio.run(attempt_all())

    return run


@pytest.fixture
def pass_time(connection: Connection) -> Callable[[str], None]:
    """Let time pass for webhooks: move their times into the past."""

    def move(interval: str) -> None:
        for table, columns in (
            ("webhooks", ("enabled_at", "due_at", "failing_since")),
            ("webhook_deliveries", ("created_at", "due_at")),
        ):
            moved = ", ".join(f"{name} = {name} - CAST(:interval AS interval)" for name in columns)
            connection.execute(text(f"UPDATE {table} SET {moved}"), {"interval": interval})

    return move
