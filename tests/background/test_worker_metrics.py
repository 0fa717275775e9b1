"""Metrics of the database, the outbox and background tasks, and the metrics port of the background worker."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.background import metrics_server, worker
from app.mail import outbox
from tests.fixtures import Person, Server, free_port
from tests.scraping import TOKEN, Samples, sample, samples_of, scrape

TIMEOUT_SECONDS = 60


def until(read: Callable[[], Samples], condition: Callable[[Samples], bool]) -> Samples:
    """Read until the condition holds."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            if condition(found := read()):
                return found
        except httpx2.TransportError:
            pass
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.1)


@pytest.fixture
def start_worker(database: Engine, tmp_path: Path) -> Iterator[Callable[..., tuple[str, subprocess.Popen[bytes]]]]:  # noqa: ARG001
    """Start `python -m app worker` with metrics; return their address and the process."""
    with ExitStack() as stack:

        def start(**environment: str) -> tuple[str, subprocess.Popen[bytes]]:
            port = free_port()
            output = stack.enter_context((tmp_path / "worker.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "worker"],
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, "CLEANUP_INTERVAL_MINUTES": "60", "WORKER_METRICS_PORT": str(port), **environment},
                stdout=output, stderr=output,
            )  # fmt: skip
            stack.callback(process.wait, timeout=20)
            stack.callback(process.terminate)
            return f"http://127.0.0.1:{port}", process

        yield start


def post_mail(connection: Connection, due_at: str, age: str, address: str = "a@example.com") -> None:
    connection.execute(
        text("""
            INSERT INTO outgoing_mails (kind, address, due_at, created_at)
            VALUES ('password_changed', :address, CAST(:due_at AS timestamptz), now() - CAST(:age AS interval))
        """),
        {"due_at": due_at, "age": age, "address": address},
    )


def test_the_outbox_counts_its_mails_and_has_the_age_of_the_oldest_waiting_one(connection: Connection) -> None:
    assert outbox.measure(connection) == (0, 0, 0)
    post_mail(connection, "now", "20 minutes")
    post_mail(connection, "2100-01-01", "10 minutes")
    post_mail(connection, "infinity", "5 hours")
    post_mail(connection, "now", "25 hours")

    waiting, given_up, age = outbox.measure(connection)

    assert (waiting, given_up) == (2, 2)
    assert 1200 <= age < 1260


def test_a_count_of_the_outbox_is_bounded(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_COUNTED", 2)
    for _ in range(3):
        post_mail(connection, "now", "1 minute")

    assert outbox.measure(connection)[0] == 2


def test_a_server_without_requests_reports_the_database_and_the_outbox(
    connection: Connection, start_server: Callable[..., Server]
) -> None:
    post_mail(connection, "now", "20 minutes")
    server = start_server(METRICS_TOKEN=TOKEN, MAIL_ENABLED="false", CLEANUP_INTERVAL_MINUTES="0")

    found = until(lambda: scrape(server.url), lambda found: sample(found, "database_up") == 1)

    found = until(lambda: scrape(server.url), lambda found: sample(found, "outgoing_mails", state="waiting") == 1)
    assert sample(found, "outgoing_mails_oldest_age_seconds") >= 1200
    assert not sample(found, "background_task_runs_total", task="cleanup", outcome="succeeded")


def test_a_database_that_does_not_answer_is_reported_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.observability import metrics

    def value() -> float:
        return sample(samples_of(metrics.render().decode()), "database_up")

    worker._observe(lambda: False)
    assert value() == 1
    unreachable = create_engine(f"postgresql+psycopg2://u:p@127.0.0.1:{free_port()}/d", poolclass=NullPool)
    monkeypatch.setattr(worker, "writing", unreachable.begin)
    worker._observe(lambda: False)

    assert value() == 0


def test_the_worker_serves_metrics_with_the_token_on_its_own_port(
    start_worker: Callable[..., tuple[str, subprocess.Popen[bytes]]],
) -> None:
    url, process = start_worker(METRICS_TOKEN=TOKEN, ENVIRONMENT="production", PASSWORD_HASH_ROUNDS="10")

    found = until(lambda: scrape(url), lambda found: sample(found, "database_up") == 1)

    assert sample(found, "process_resident_memory_bytes", worker="0") > 0
    assert any(name == "background_task_runs_total" and ("task", "cleanup") in labels for name, labels in found)
    refused = httpx2.get(f"{url}/metrics")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "database_up" not in refused.text
    assert httpx2.get(f"{url}/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx2.get(f"{url}/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_by_default_the_metrics_port_is_bound_to_loopback_only(
    start_worker: Callable[..., tuple[str, subprocess.Popen[bytes]]],
) -> None:
    url, process = start_worker(METRICS_TOKEN=TOKEN)
    until(lambda: scrape(url), bool)

    listening = [found.laddr for found in psutil.Process(process.pid).net_connections() if found.status == "LISTEN"]

    assert listening == [("127.0.0.1", int(url.rpartition(":")[2]))]


def test_metrics_hold_no_address_and_no_secret_and_grow_with_no_row(
    connection: Connection,
    make_person: Callable[..., Person],
    start_worker: Callable[..., tuple[str, subprocess.Popen[bytes]]],
) -> None:
    people = [make_person() for _ in range(3)]
    for person in people:
        post_mail(connection, "infinity", "1 minute", person.email)
    url, _ = start_worker(METRICS_TOKEN=TOKEN)

    found = until(lambda: scrape(url), lambda found: sample(found, "outgoing_mails", state="given_up") == 3)

    assert {label for _, labels in found for label, _ in labels} <= {
        "pool",
        "outcome",
        "task",
        "state",
        "version",
        "worker",
    }
    assert len(found) < 50
    text = httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    password = make_url(os.environ["DATABASE_URL"]).password
    assert not [secret for secret in (TOKEN, password, *(one.email for one in people)) if secret and secret in text]


def test_without_a_token_a_production_worker_serves_no_metrics(
    start_worker: Callable[..., tuple[str, subprocess.Popen[bytes]]],
) -> None:
    url, _ = start_worker(ENVIRONMENT="production", PASSWORD_HASH_ROUNDS="10", METRICS_TOKEN="")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            assert httpx2.get(f"{url}/metrics").status_code == 404
            break
        except httpx2.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_an_occupied_port_stops_the_worker_with_one_line(
    start_worker: Callable[..., tuple[str, subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _, process = start_worker(WORKER_METRICS_PORT=port)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 1

    assert (
        f"error: cannot listen on 127.0.0.1:{port} (Address already in use); change WORKER"
        in (tmp_path / "worker.log").read_text()
    )


def test_a_client_that_sends_slowly_delays_scrapes_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.config import Settings

    monkeypatch.setattr(metrics_server, "MAX_REQUEST_SECONDS", 0.5)
    port = free_port()
    with (
        metrics_server.serving(Settings(_env_file=None, worker_metrics_port=port)),
        socket.create_connection(("127.0.0.1", port)) as slow,
    ):
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        time.sleep(0.1)  # Until the server reads from this connection.
        response = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=10)

    assert response.status_code == 200
