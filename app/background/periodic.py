"""Doing something again and again beside the requests, in every server process or in one of them at a time.

Each task has a thread of its own, which ends with the process whatever it is doing. Which process runs a shared task is
decided by one statement on the table `schedules`: no lock outlives a transaction, so it also works through PgBouncer,
and no process need know of the others.
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

# The longest that stopping waits for a run, which is told to stop and asked to do so between two statements.
STOP_TIMEOUT = timedelta(seconds=1)
RETRY_AFTER = timedelta(minutes=1)
# Pauses differ by as much, so that processes that were started together do not act together.
JITTER = 0.2

IsStopping = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """What to run (it is given a function that says whether to stop), and how often.

    A shared task runs in one of all the processes on this database each time; another one in each of them.
    """

    name: str
    run: Callable[[IsStopping], object]
    every: timedelta
    is_shared: bool = True


@contextmanager
def running(*tasks: Task) -> Iterator[None]:
    """Run the tasks again and again for as long as the block lasts. What fails is logged, and tried again."""
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
    """Run it if it is this process's turn; return whether that went well."""
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
        # The lines after the first may quote what is in rows.
        logger.warning("%s failed, and will be tried again: %s", task.name, str(error.orig).strip().partition("\n")[0])
    except Exception:
        logger.exception("%s failed, and will be tried again", task.name)
    else:
        return True
    return False


def claim(name: str, every: timedelta) -> bool:
    """Whether the task is due, and this process the one that runs it. Of any number who ask at once, one may."""
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
    """Make the task due again: it was claimed, and failed."""
    with writing() as connection:
        connection.execute(update(Schedule).where(Schedule.name == name).values(due_at=func.now()))
