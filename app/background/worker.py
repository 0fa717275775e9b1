"""Background worker: mail delivery, periodic tasks and metrics.

The tasks are cleanup of expired rows, and removal of deleted rows and files. Server processes do all of this, too.
`python -m app worker` does nothing else. Each row is handled by one process, which locks it. So any number of servers
and workers may run, on any number of machines.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app.background import metrics_server, periodic
from app.config import ConfigurationError, Settings, get_settings
from app.database.engines import dispose
from app.database.sessions import writing
from app.mail import delivery, outbox
from app.observability import metrics
from app.services import cleanup, deletion, media
from app.webhooks import delivery as webhooks

logger = logging.getLogger("app")

DELETION_INTERVAL = timedelta(seconds=2)
# Prometheus scrapes every 15 s or 60 s by default.
OBSERVATION_INTERVAL = timedelta(seconds=15)


def tasks(settings: Settings) -> list[periodic.Task]:
    """Return the periodic tasks that the settings enable."""
    interval = timedelta(minutes=settings.cleanup_interval_minutes)
    observation = periodic.Task("observation", _observe, OBSERVATION_INTERVAL)
    if not interval:
        return [observation]
    return [
        observation,
        periodic.Task("cleanup", lambda is_stopping: dict(cleanup.run(is_stopping=is_stopping)), interval),
        periodic.Task("deletions", _remove_deleted, DELETION_INTERVAL),
        periodic.Task("media", media.remove_files, DELETION_INTERVAL),
    ]


def _observe(_: periodic.IsStopping) -> None:
    """Record whether the database answers, and the size and age of the outbox.

    These are metrics of `/metrics`. This does not happen at a scrape, so that a database that is down or frozen delays
    no scrape.
    """
    is_up = False
    try:
        with writing() as connection:
            connection.execute(select(1))
            is_up = True
            metrics.database_check(is_up=True)
            metrics.outbox(*outbox.measure(connection))
    except DBAPIError:
        if is_up:  # The outbox is locked, or the database is not migrated.
            raise
        # Not logged every 15 s, because requests and other tasks log it already.
        metrics.database_check(is_up=False)


def _remove_deleted(is_stopping: periodic.IsStopping) -> None:
    """Remove rows that requests marked as deleted, unless another process is doing it.

    Checking for such rows costs one read.
    """
    if deletion.is_requested():
        deletion.work(is_stopping, waits_for_turn=False)


@contextmanager
def running(*own: periodic.Task) -> Iterator[None]:
    """Run mail delivery, the enabled tasks and the given tasks during the block."""
    settings = get_settings()
    hooks = webhooks.delivering() if settings.cleanup_interval_minutes else nullcontext()
    with delivery.delivering(), periodic.running(*tasks(settings), *own), hooks:
        yield


def run_until_stopped() -> None:
    """Run the background work until SIGTERM.

    Return after running tasks have finished or timed out. Raises `ConfigurationError` if the settings disable all of
    it.
    """
    settings = get_settings()
    if not settings.mail_enabled and not settings.cleanup_interval_minutes:
        raise ConfigurationError(
            "MAIL_ENABLED is false and CLEANUP_INTERVAL_MINUTES is 0, so a worker has nothing to do"
        )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with metrics_server.serving(settings), running():
        logger.info("background worker started")
        stop.wait()
        logger.info("background worker stopping: signal=SIGTERM")
    dispose()
