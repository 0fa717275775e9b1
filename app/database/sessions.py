"""Sessions and connections: the one place that commits and rolls back.

Ordinary requests use `SessionDep`: one request, one transaction, committed before the response is sent. The fast path
uses other connections (`at_once`, `writing`) through a `BatchQueue`.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

from anyio import Semaphore
from anyio.lowlevel import RunVar
from fastapi import Depends
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app.config import get_settings
from app.database.engines import MAX_WAIT_TO_COUNT_SECONDS, get_batch_engine, get_engine, get_limits_engine
from app.errors import Overloaded


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits when the block ends, and rolls back if it raises."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session


async def _now() -> float:
    return time.monotonic()


# When the request had been read and began to wait for a connection.
AskedAt = Annotated[float, Depends(_now)]


def refuse_late(asked_at: float) -> None:
    """Raise `Overloaded` if the request waited longer than `statement_timeout`.

    The wait is the one for a connection. Behind many requests that wait for the same lock, a request then waits for at
    most two of them.
    """
    if time.monotonic() - asked_at > get_settings().database_statement_timeout_seconds:
        raise Overloaded


class ConnectionLimit:
    """A semaphore of some slots (`DATABASE_POOL_SIZE`) per event loop, made at first use.

    It keeps requests from waiting in threads for a connection that other waiting threads hold. The `max_concurrency`
    of `Depends` does the same, but its value would be read when the module is imported.
    """

    def __init__(self, name: str, slots: int | None = None) -> None:
        self._of_loop: RunVar[Semaphore] = RunVar(name)
        self._slots = slots

    def slot(self) -> Semaphore:
        """Return the semaphore, to hold with `async with`."""
        try:
            return self._of_loop.get()
        except LookupError:
            self._of_loop.set(semaphore := Semaphore(self._slots or get_settings().database_pool_size))
            return semaphore


_session_limit = ConnectionLimit("sessions of requests")


async def _session_slot() -> AsyncIterator[None]:
    async with _session_limit.slot():
        yield


# After `asked_at`, so that the wait for a slot counts.
def get_db(asked_at: AskedAt, _: Annotated[None, Depends(_session_slot, scope="function")]) -> Iterator[Session]:
    """One transaction for one request.

    Raises `Overloaded` if it waited too long for a connection.
    """
    refuse_late(asked_at)
    with transaction() as session:
        yield session


def at_once() -> AbstractContextManager[Connection]:
    """A connection in AUTOCOMMIT.

    Each statement sees all earlier commits and commits itself.
    """
    return get_batch_engine().connect()


def writing() -> AbstractContextManager[Connection]:
    """A connection that commits when the block ends, and rolls back if it raises."""
    return get_engine().begin()


@contextmanager
def counting() -> Iterator[Connection]:
    """As `writing`, for attempt counters.

    It is independent of the request's transaction and has a short lock timeout.
    """
    with get_limits_engine().begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MAX_WAIT_TO_COUNT_SECONDS * 1000:.0f}ms'")
        yield connection


# scope="function" ends the transaction before the response is sent, so that no response reports a write that fails.
SessionDep = Annotated[Session, Depends(get_db, scope="function")]
