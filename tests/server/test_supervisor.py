"""The set-up of a worker before it serves."""

import subprocess
import sys

import pytest

from app.config import get_settings
from app.server import supervisor

WORKER = """
import gc, sys
from app.server.supervisor import worker
worker()
"""


def told_by_a_worker(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", WORKER + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_garbage_collector_skips_imported_objects() -> None:
    """It would stop the worker for 0.1 s at a time: the 99th percentile of a page was 99 ms, and is 22."""
    told = told_by_a_worker("print(gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()[0])")
    assert told[0] == "True"
    assert int(told[1]) > 100_000, "objects that no collection looks at"
    assert int(told[2]) > 10_000, "new objects between collections"


def test_a_worker_can_tell_whether_it_is_ready_without_alembic() -> None:
    """Which is 18 MB of memory, and a fifth of the time to start."""
    code = """
from app.database import schema_version
print(schema_version.head(), "alembic" in sys.modules)
"""
    assert told_by_a_worker(code)[1] == "False"


def test_free_port_that_was_taken_is_in_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    get_settings.cache_clear()
    try:
        with supervisor.listening() as listener:
            assert get_settings().site == f"http://localhost:{listener.getsockname()[1]}"
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
