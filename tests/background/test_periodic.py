"""Background work: each process does it, failures are retried, and stopping is quick."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Connection, text

from app.background import periodic
from app.database.sessions import writing
from tests.fixtures import Server
from tests.races.waiting import wait_until

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=20)
TIMEOUT_SECONDS = 20


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_task_runs_again_and_again() -> None:
    runs: list[bool] = []
    task = periodic.Task("task", lambda is_stopping: runs.append(is_stopping()), SOON)

    with periodic.running(task):
        wait_for(lambda: len(runs) >= 3)

    assert set(runs) == {False}


@pytest.mark.usefixtures("database")
def test_failure_is_logged_without_row_values_and_retried(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "RETRY_AFTER", SOON)
    monkeypatch.setattr(periodic, "JITTER", 0)
    runs: list[str] = []

    def fail(_: periodic.IsStopping) -> None:
        runs.append("run")
        with writing() as other:
            for _attempt in range(2):
                other.execute(
                    text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('', 'canary', '')")
                )

    with caplog.at_level(logging.WARNING), periodic.running(periodic.Task("task", fail, HOUR)):
        wait_for(lambda: len(runs) >= 3)

    assert "task failed and will be retried: task=task reason=duplicate key value violates" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.usefixtures("database")
def test_stopping_does_not_wait_for_the_next_run_and_tells_the_present_one() -> None:
    started, reported = threading.Event(), threading.Event()

    def run(is_stopping: periodic.IsStopping) -> None:
        started.set()
        wait_for(is_stopping)
        reported.set()

    with periodic.running(periodic.Task("running", run, SOON), periodic.Task("sleeping", run, timedelta(days=1))):
        assert started.wait(TIMEOUT_SECONDS)
        stopped_at = time.monotonic()

    assert reported.is_set()
    assert time.monotonic() - stopped_at < 1


def test_a_run_that_ignores_the_stop_delays_no_shutdown() -> None:
    release = threading.Event()
    started = threading.Event()

    def run(_: periodic.IsStopping) -> None:
        started.set()
        release.wait(TIMEOUT_SECONDS)

    with periodic.running(periodic.Task("deaf", run, SOON)):
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

    for server in servers:
        assert httpx2.get(f"{server.url}/livez").status_code == 200
        stopped_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert time.monotonic() - stopped_at < 5
