"""Reads after a batch: a request holds no connection while it waits for its batch."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.database.sessions import ConnectionLimit, refuse_late, transaction

Result = TypeVar("Result")

_limit = ConnectionLimit("reads of the RealWorld API")


async def reading(read: Callable[[Session], Result]) -> Result:
    """Return what the function reads, in a thread and a transaction of its own.

    Raises `Overloaded` if it waited too long for a connection.
    """
    asked_at = time.monotonic()

    def run() -> Result:
        refuse_late(asked_at)
        with transaction() as db:
            return read(db)

    async with _limit.slot():
        return await run_in_threadpool(run)
