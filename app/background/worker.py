"""What is done beside the requests: mails are sent, and what has expired or was deleted is removed.

Server processes do it by themselves; `python -m app worker` does nothing else. Whoever finds work due takes it, by
statements that let one of all processes have it: so any number of either may run, on any number of machines.
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
DELETION_TIME_LIMIT = timedelta(seconds=10)


def tasks(settings: Settings) -> list[periodic.Task]:
    """What is done again and again."""
    interval = timedelta(minutes=settings.cleanup_interval_minutes)
    if not interval:
        return []
    return [
        periodic.Task("cleanup", lambda is_stopping: dict(cleanup.run(is_stopping=is_stopping)), interval),
        periodic.Task("deletions", _remove_deleted, DELETION_INTERVAL, is_shared=False),
    ]


def _remove_deleted(is_stopping: periodic.IsStopping) -> None:
    """Remove what requests have marked as deleted, if no other process is about it.

    Looking for it costs one read. The turn is given back at the end; if the process dies, it ends by itself.
    """
    if deletion.is_requested() and periodic.claim("deletions", DELETION_TIME_LIMIT):
        deletion.work(is_stopping, DELETION_TIME_LIMIT.total_seconds())
        periodic.release("deletions")


@contextmanager
def running(*own: periodic.Task) -> Iterator[None]:
    """Do them while the block runs, as far as the settings leave them to this process, and what is its own."""
    with delivery.delivering(), periodic.running(*tasks(get_settings()), *own):
        yield


def run_until_stopped() -> None:
    """Do them until SIGTERM, and return when what was under way is done, or was given up.

    Raises `ConfigurationError` where the settings leave nothing to do.
    """
    settings = get_settings()
    if not settings.mail_enabled and not settings.cleanup_interval_minutes:
        raise ConfigurationError(
            "MAIL_ENABLED is false and CLEANUP_INTERVAL_MINUTES is 0, so a worker has nothing to do"
        )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with running():
        logger.info("working: mails and whatever is due, but no requests")
        stop.wait()
    dispose()
