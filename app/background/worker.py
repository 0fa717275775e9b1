"""Background worker: mail delivery, cleanup of expired rows and removal of deleted rows.

Server processes do this too; `python -m app worker` does nothing else. Each row is handled by one process, which locks
it. So any number of servers and workers may run, on any number of machines.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from app.background import periodic
from app.config import ConfigurationError, Settings, get_settings
from app.database.engines import dispose
from app.mail import delivery
from app.services import cleanup, deletion

logger = logging.getLogger("app")

DELETION_INTERVAL = timedelta(seconds=2)


def tasks(settings: Settings) -> list[periodic.Task]:
    """Return the periodic tasks that the settings enable."""
    interval = timedelta(minutes=settings.cleanup_interval_minutes)
    if not interval:
        return []
    return [
        periodic.Task("cleanup", lambda is_stopping: dict(cleanup.run(is_stopping=is_stopping)), interval),
        periodic.Task("deletions", _remove_deleted, DELETION_INTERVAL),
    ]


def _remove_deleted(is_stopping: periodic.IsStopping) -> None:
    """Remove rows that requests marked as deleted, unless another process is doing it.

    Checking for such rows costs one read.
    """
    if deletion.is_requested():
        deletion.work(is_stopping, waits_for_turn=False)


@contextmanager
def running(*own: periodic.Task) -> Iterator[None]:
    """Run mail delivery and the enabled tasks during the block, and also the given tasks."""
    with delivery.delivering(), periodic.running(*tasks(get_settings()), *own):
        yield


def run_until_stopped() -> None:
    """Run the background work until SIGTERM. Return after running tasks have finished or timed out.

    Raises `ConfigurationError` if the settings disable all of it.
    """
    settings = get_settings()
    if not settings.mail_enabled and not settings.cleanup_interval_minutes:
        raise ConfigurationError(
            "MAIL_ENABLED is false and CLEANUP_INTERVAL_MINUTES is 0, so a worker has nothing to do"
        )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with running():
        logger.info("background worker started")
        stop.wait()
        logger.info("background worker stopping: signal=SIGTERM")
    dispose()
