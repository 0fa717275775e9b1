"""Consistent reads from a streaming replica (`DATABASE_REPLICA_URL`).

A response contains every write that any server acknowledged before the request arrived. A batch begins after all its
requests have arrived. It first reads the end of the log from the primary, in one small statement for the whole batch.
It reads from the replica only if the replica has replayed up to there. If the replica lags, fails, hangs or is no
replica any more, the same batch reads from the primary. Only the connection and the time to skip outlive a batch.

No batch waits for a new connection, because a background thread keeps one open. The watchdog shuts it when the replica
is silent. docs/decisions/0011 has the reasons and the figures.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar

import psycopg2
from sqlalchemy import Connection, Engine, Row, String, bindparam, text
from sqlalchemy.dialects.postgresql import INTEGER
from sqlalchemy.exc import SQLAlchemyError

from app.database.engines import DEADLINE, REPLICA_CONNECTION_COUNT, get_replica_engine
from app.database.prepared import PreparedStatement
from app.database.sessions import writing
from app.database.sqlstate import is_connection_lost
from app.observability import metrics

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Run = Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]]
# The outcome of a batch. All but the first mean that it read from the primary.
Result = Literal["replica", "behind", "diverged", "failed", "absent"]

# How long a batch waits for the replica to catch up, and the interval at which it polls.
CATCH_UP_TIMEOUT_SECONDS = 0.005
POLL_SECONDS = 0.0005
# How long batches skip a replica that was not usable, because each of them would wait for it in vain. The time doubles
# each time until the replica is usable again.
FIRST_SKIP_SECONDS = 0.005
MAX_SKIP_SECONDS = 0.25
KEPT_EVERY = timedelta(milliseconds=250)
CONNECTS_AFTER_SECONDS = 1.0

# With synchronous_commit = off, a commit is acknowledged before the log is flushed. A server that is itself a replica,
# to which a URL may lead for a moment, has no end of its own.
_END_OF_LOG = PreparedStatement(
    text("""
        SELECT log.position::text AS position, ('x' || left(pg_walfile_name(log.position), 8))::bit(32)::int AS timeline
        FROM (
            SELECT CASE
                WHEN pg_is_in_recovery() THEN NULL
                WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
                ELSE pg_current_wal_flush_lsn()
            END AS position
        ) AS log
    """)
)
# A replica that still follows the former primary may have replayed further, but on another timeline. Its control file
# shows a new timeline from the next restart point on: late, but never early.
_PROGRESS = PreparedStatement(
    text("""
        SELECT pg_is_in_recovery() AND min_recovery_end_timeline = :timeline AS is_of_this_history,
            pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn) AS is_there
        FROM pg_control_recovery()
    """).bindparams(bindparam("timeline", type_=INTEGER), bindparam("position", type_=String))
)
# Identifies the cluster and the database.
WHOSE = text("SELECT system_identifier, current_database() FROM pg_control_system()")


class Replica:
    """The replica, from which the batches of one queue read one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._failure: Result = "absent"
        self._skip_seconds = FIRST_SKIP_SECONDS
        self._skipped_until = self._connects_at = 0.0
        self._last_warning = ""

    def first(self, run: Run[Item, Outcome]) -> Run[Item, Outcome]:
        """Return a `run` that reads from the replica if it is up to date.

        Otherwise it reads from the primary.
        """

        def run_there(primary: Connection, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
            connection = self._connection
            outcomes = None
            if connection is not None and time.monotonic() >= self._skipped_until:
                connection.execution_options(deadline=primary.get_execution_options().get(DEADLINE, math.inf))
                end = _END_OF_LOG.execute(primary, {}).one()
                outcomes = self._attempt(connection, end, run, items)
            metrics.replica_batch(self._failure if outcomes is None else "replica")
            return run(primary, items) if outcomes is None else outcomes

        return run_there

    def _attempt(
        self, connection: Connection, end: Row[Any], run: Run[Item, Outcome], items: Sequence[Item]
    ) -> Sequence[Outcome | Exception] | None:
        """Read from the replica. Returns None if it is not usable, for any reason."""
        try:
            state = _state(connection, end)
            if state == "replica":
                outcomes = run(connection, items)
                self._skip_seconds = FIRST_SKIP_SECONDS
                return outcomes
            if state == "diverged":
                self._disconnect(connection, "it is no replica of the primary any more")
        except (SQLAlchemyError, psycopg2.Error) as error:
            state = "failed"
            if is_connection_lost(error):
                self._disconnect(connection, _first_line(error))
        self._failure, self._skipped_until = state, time.monotonic() + self._skip_seconds
        self._skip_seconds = min(2 * self._skip_seconds, MAX_SKIP_SECONDS)
        return None

    def keep(self) -> None:
        """Connect if there is no connection."""
        if self._connection is None and time.monotonic() >= self._connects_at:
            self._connect()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._disconnect(self._connection, "")

    def _connect(self) -> None:
        self._connects_at = time.monotonic() + CONNECTS_AFTER_SECONDS
        try:
            connection = self._engine.connect()
            try:
                with writing() as primary:
                    is_ours = look(primary, connection) != "diverged"
                if is_ours:
                    self._connection = connection
            finally:
                if self._connection is None:
                    _discard(connection)
        except (SQLAlchemyError, psycopg2.Error, OSError) as error:
            self._warn_once(_first_line(error))
            return
        if is_ours:
            self._last_warning = ""
            logger.info("connected to the replica")
        else:
            self._failure = "diverged"
            self._warn_once("it is no replica of the primary, or does not follow it yet")

    def _disconnect(self, connection: Connection, reason: str) -> None:
        self._connection = None
        self._connects_at = time.monotonic() + CONNECTS_AFTER_SECONDS
        _discard(connection)
        if reason:
            self._warn_once(reason)

    def _warn_once(self, reason: str) -> None:
        """Log the reason, but not again while it stays the same."""
        if reason != self._last_warning:
            logger.warning("reading from the primary only, because the replica cannot be used: %s", reason)
        self._last_warning = reason


@lru_cache
def get_replicas() -> Sequence[Replica]:
    """The process's replica, once for each queue that reads from it.

    Empty if none is configured.
    """
    engine = get_replica_engine()
    return [] if engine is None else [Replica(engine) for _ in range(REPLICA_CONNECTION_COUNT)]


def look(primary: Connection, there: Connection, catch_up_timeout_seconds: float = CATCH_UP_TIMEOUT_SECONDS) -> Result:
    """Return the outcome that a batch with this timeout would have."""
    if primary.execute(WHOSE).one() != there.execute(WHOSE).one():
        return "diverged"
    return _state(there, _END_OF_LOG.execute(primary, {}).one(), catch_up_timeout_seconds)


def _state(there: Connection, end: Row[Any], catch_up_timeout_seconds: float = CATCH_UP_TIMEOUT_SECONDS) -> Result:
    """Poll until the replica has replayed the log up to `end`, or the timeout.

    Returns the outcome.
    """
    gives_up_at = time.monotonic() + catch_up_timeout_seconds
    while True:
        found = _PROGRESS.execute(there, {"timeline": end.timeline, "position": end.position}).one()
        if not found.is_of_this_history:
            return "diverged"
        if found.is_there:
            return "replica"
        if time.monotonic() > gives_up_at:
            return "behind"
        time.sleep(POLL_SECONDS)


def _discard(connection: Connection) -> None:
    """Close the connection instead of returning it to the pool.

    The next connection may lead to another server.
    """
    with suppress(SQLAlchemyError, psycopg2.Error):
        connection.invalidate()
        connection.close()


def _first_line(error: Exception) -> str:
    """The first line of the driver's message.

    Later lines may quote the contents of rows.
    """
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
