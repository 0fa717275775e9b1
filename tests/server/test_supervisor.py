"""The set-up of a worker before it serves."""

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from app.config import get_settings
from app.server import supervisor
from tests.fixtures import Server

WORKER = """
import gc, sys
from app.server.supervisor import worker
worker()
"""


def printed_by_a_worker(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", WORKER + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_garbage_collector_skips_imported_objects() -> None:
    """It would stop the worker for 0.1 s at a time: the 99th percentile of a page was 99 ms, and is 22."""
    printed = printed_by_a_worker("print(gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()[0])")
    assert printed[0] == "True"
    assert int(printed[1]) > 100_000, "objects that no collection looks at"
    assert int(printed[2]) > 10_000, "new objects between collections"


def test_a_worker_can_tell_whether_it_is_ready_without_alembic() -> None:
    """Which is 18 MB of memory, and a fifth of the time to start."""
    code = """
from app.database import schema_version
print(schema_version.head(), "alembic" in sys.modules)
"""
    assert printed_by_a_worker(code)[1] == "False"


def test_free_port_that_was_taken_is_in_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    get_settings.cache_clear()
    try:
        with supervisor.listening() as listener:
            assert get_settings().site == f"http://localhost:{listener.getsockname()[1]}"
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_log_names_the_signal_that_stops_the_server(
    start_server: Callable[..., Server], workers: str, number: signal.Signals
) -> None:
    server = start_server(WORKERS=workers)

    server.process.send_signal(number)
    server.process.wait(timeout=30)

    expected = f"stopping: signal={number.name}; requests in progress have at most 30 s"
    assert server.log.read_text().count(expected) == 1
