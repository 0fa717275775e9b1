"""Periodic tasks: one process runs each, failures are retried, and stopping is quick."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Connection, Engine, text

from app.background import periodic
from app.database.sessions import writing
from tests.fixtures import Server
from tests.races.waiting import in_background, wait_until, wait_until_blocked

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=20)
TIMEOUT_SECONDS = 20


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.usefixtures("database")
def test_one_of_many_concurrent_claims_succeeds_and_the_next_when_it_is_due() -> None:
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: periodic.claim("task", HOUR), range(40))) == 1
        assert sum(threads.map(lambda _: periodic.claim("other task", HOUR), range(40))) == 1


def test_task_is_due_again_after_its_time_or_when_it_failed(connection: Connection) -> None:
    assert periodic.claim("task", HOUR)
    assert not periodic.claim("task", HOUR)

    connection.execute(text("UPDATE schedules SET due_at = due_at - interval '1 hour'"))
    assert periodic.claim("task", HOUR)
    assert not periodic.claim("task", HOUR)

    periodic.release("task")
    assert periodic.claim("task", HOUR)


def test_a_claim_during_another_claim_waits_and_is_refused(database: Engine, connection: Connection) -> None:
    periodic.claim("task", timedelta(0))
    with database.begin() as other:
        other.execute(text("UPDATE schedules SET due_at = now() + interval '1 hour'"))
        claim = in_background(lambda: periodic.claim("task", HOUR))
        wait_until_blocked(connection, by=other)

    assert claim() is False


def test_task_of_every_process_runs_again_and_again_without_asking(connection: Connection) -> None:
    runs: list[bool] = []
    task = periodic.Task("task", lambda is_stopping: runs.append(is_stopping()), SOON, is_shared=False)

    with periodic.running(task):
        wait_for(lambda: len(runs) >= 3)

    assert set(runs) == {False}
    assert connection.scalar(text("SELECT count(*) FROM schedules")) == 0


def test_failure_is_logged_without_row_values_and_the_next_worker_retries(
    connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "RETRY_AFTER", SOON)
    monkeypatch.setattr(periodic, "JITTER", 0)
    runs: list[str] = []

    def fail(_: periodic.IsStopping) -> None:
        runs.append("run")
        with writing() as other:
            other.execute(text("INSERT INTO schedules VALUES ('canary@example.com', now())"))
            other.execute(text("INSERT INTO schedules VALUES ('canary@example.com', now())"))

    with caplog.at_level(logging.WARNING), periodic.running(periodic.Task("task", fail, HOUR)):
        wait_for(lambda: len(runs) >= 3)

    assert "task failed and will be retried: task=task reason=duplicate key value violates" in caplog.text
    assert "canary" not in caplog.text
    wait_until(connection, "SELECT due_at <= now() FROM schedules WHERE name = 'task'")


@pytest.mark.usefixtures("database")
def test_stopping_does_not_wait_for_the_next_run_and_tells_the_present_one() -> None:
    started, told = threading.Event(), threading.Event()

    def run(is_stopping: periodic.IsStopping) -> None:
        started.set()
        wait_for(is_stopping)
        told.set()

    with periodic.running(
        periodic.Task("running", run, SOON), periodic.Task("sleeping", run, timedelta(days=1), is_shared=False)
    ):
        assert started.wait(TIMEOUT_SECONDS)
        stopped_at = time.monotonic()

    assert told.is_set()
    assert time.monotonic() - stopped_at < 1


def test_a_run_that_ignores_the_stop_delays_no_shutdown() -> None:
    release = threading.Event()
    started = threading.Event()

    def run(_: periodic.IsStopping) -> None:
        started.set()
        release.wait(TIMEOUT_SECONDS)

    with periodic.running(periodic.Task("deaf", run, SOON, is_shared=False)):
        assert started.wait(TIMEOUT_SECONDS)
        stopped_at = time.monotonic()
    try:
        assert time.monotonic() - stopped_at < periodic.STOP_TIMEOUT.total_seconds() + 1
    finally:
        release.set()


@pytest.mark.slow
def test_servers_remove_what_has_expired_and_end_at_once(
    connection: Connection, start_server: Callable[..., Server]
) -> None:
    connection.execute(
        text("""
            INSERT INTO idempotency_keys (key, fingerprint, status, body, expires_at)
            SELECT n::text, '', 201, '', now() FROM generate_series(1, 100) AS n
        """)
    )
    servers = [start_server(CLEANUP_INTERVAL_MINUTES="1", WORKERS="2") for _ in range(2)]

    wait_until(connection, "SELECT count(*) = 0 FROM idempotency_keys")

    assert connection.scalar(text("SELECT due_at > now() FROM schedules WHERE name = 'cleanup'"))
    for server in servers:
        assert httpx2.get(f"{server.url}/livez").status_code == 200
        stopped_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert time.monotonic() - stopped_at < 5
