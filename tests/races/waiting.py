"""Make calls block each other on purpose: run one in the background, and see which waits for which."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, text

Result = TypeVar("Result")
TIMEOUT_SECONDS = 20


def in_background(call: Callable[[], Result]) -> Callable[[], Result]:
    """Start the call in a thread; what is returned waits for its result."""
    thread = ThreadPoolExecutor(max_workers=1)
    future = thread.submit(call)
    thread.shutdown(wait=False)
    return lambda: future.result(timeout=60)


def wait_until_blocked(connection: Connection, *, by: Connection, waiting_count: int = 1) -> None:
    """Wait until so many backends wait for a lock that the transaction of `by` holds."""
    wait_until(
        connection,
        "SELECT count(*) >= :n FROM pg_stat_activity WHERE :blocker = ANY (pg_blocking_pids(pid))",
        n=waiting_count,
        blocker=by.connection.driver_connection.info.backend_pid,  # type: ignore[union-attr]
    )


def wait_until(connection: Connection, condition: str, **values: object) -> None:
    """Wait until the query returns true."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not connection.scalar(text(condition), values):
        assert time.monotonic() < deadline, f"it never came: {condition}"
        time.sleep(0.02)


def wait_until_events_arrive(connection: Connection) -> None:
    """Wait until readers of the event log get all its events.

    They arrive when all older transactions have ended, also those of other tests on the same server.
    """
    oldest = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    wait_until(connection, f"SELECT coalesce(max(transaction_id), 0) < {oldest} FROM events")
