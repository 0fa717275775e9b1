"""Periodic tasks that run in every server process, or in one process at a time.

Each task has its own daemon thread. One statement on the table `schedules` decides which process runs a shared task.
No lock outlives its transaction, so this works through PgBouncer, and processes need not know each other.
"""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from app.database.sessions import writing
from app.models import Schedule

logger = logging.getLogger(__name__)

# Maximum wait for a run at shutdown. Tasks check between two statements whether to stop.
STOP_TIMEOUT = timedelta(seconds=1)
RETRY_AFTER = timedelta(minutes=1)
# Up to this fraction is added to each pause, so that processes started together do not act together.
JITTER = 0.2

IsStopping = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """A function to run periodically. It gets a function that returns whether to stop.

    A shared task runs in one of the processes that use this database; other tasks run in each process.
    """

    name: str
    run: Callable[[IsStopping], object]
    every: timedelta
    is_shared: bool = True


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
    pause = task.every * random.uniform(0, JITTER)  # noqa: S311 - jitter, not a secret.
    while not stop.wait(pause.total_seconds()):
        pause = task.every * random.uniform(1, 1 + JITTER)  # noqa: S311
        if not _run(task, stop.is_set):
            pause = min(pause, RETRY_AFTER)


def _run(task: Task, is_stopping: IsStopping) -> bool:
    """Run the task if this process can claim it. Return False if it failed."""
    try:
        if task.is_shared and not claim(task.name, task.every):
            return True
        try:
            task.run(is_stopping)
        except Exception:
            if task.is_shared:
                release(task.name)
            raise
    except DBAPIError as error:
        # The first line only: the others may quote values of rows.
        reason = str(error.orig).strip().partition("\n")[0]
        logger.warning("task failed and will be retried: task=%s reason=%s", task.name, reason)
    except Exception:
        logger.exception("task failed and will be retried: task=%s", task.name)
    else:
        return True
    return False


def claim(name: str, every: timedelta) -> bool:
    """Claim the task if it is due. Of any number of concurrent callers, at most one gets True."""
    due_at = func.now() + every
    statement = (
        insert(Schedule)
        .values(name=name, due_at=due_at)
        .on_conflict_do_update(index_elements=["name"], set_={"due_at": due_at}, where=Schedule.due_at <= func.now())
        .returning(Schedule.name)
    )
    with writing() as connection:
        return connection.scalar(statement) is not None


def release(name: str) -> None:
    """Make a claimed task due again."""
    with writing() as connection:
        connection.execute(update(Schedule).where(Schedule.name == name).values(due_at=func.now()))
