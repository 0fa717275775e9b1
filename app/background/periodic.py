"""Periodic tasks that run in every server process.

Each task has its own daemon thread. A task is safe in several processes at once: its statements skip what others have
locked, or a lock of the transaction lets one process at a time proceed. So processes need not know each other.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from app.observability import metrics

logger = logging.getLogger(__name__)

# Maximum wait for a run at shutdown. Tasks check between two statements whether to stop.
STOP_TIMEOUT = timedelta(seconds=1)
RETRY_AFTER = timedelta(minutes=1)
# Up to this fraction is added to each pause, so that processes started together do not act together.
JITTER = 0.2

IsStopping = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """A function to run periodically, also in several processes at once.

    It gets a function that returns whether to stop.
    """

    name: str
    run: Callable[[IsStopping], object]
    every: timedelta


@contextmanager
def running(*tasks: Task) -> Iterator[None]:
    """Run the tasks periodically during the block. Failures are logged and retried."""
    stop = threading.Event()
    threads = [threading.Thread(target=_repeat, args=(task, stop), name=task.name, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(STOP_TIMEOUT.total_seconds())


def _repeat(task: Task, stop: threading.Event) -> None:
    runs = metrics.TaskRuns(task.name)
    pause = task.every * random.uniform(0, JITTER)  # noqa: S311 - jitter, not a secret.
    while not stop.wait(pause.total_seconds()):
        pause = task.every * random.uniform(1, 1 + JITTER)  # noqa: S311
        is_success = _run(task, stop.is_set)
        runs.count(is_success=is_success)
        if not is_success:
            pause = min(pause, RETRY_AFTER)


def _run(task: Task, is_stopping: IsStopping) -> bool:
    """Run the task. Return False if it failed."""
    try:
        task.run(is_stopping)
    except DBAPIError as error:
        # The first line only: the others may quote values of rows.
        reason = str(error.orig).strip().partition("\n")[0]
        logger.warning("task failed and will be retried: task=%s reason=%s", task.name, reason)
    except Exception:
        logger.exception("task failed and will be retried: task=%s", task.name)
    else:
        return True
    return False
