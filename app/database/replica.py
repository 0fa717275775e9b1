"""Reading from a streaming replica (`DATABASE_REPLICA_URL`) that is never behind: what was acknowledged before somebody
asked, by whichever server, is in what they are shown.

A turn begins after everybody in it asked. It first asks the primary where its log ends, in one small statement for all;
then the replica whether it has replayed as far; and only then reads there. Where the replica lags, fails, hangs or is
none any more, the same turn reads from the primary. Nothing is remembered between turns but the connection.

No turn waits for a connection to be made: a thread keeps one at hand. The watchdog cuts it where the replica has fallen
silent.
docs/decisions/0011 has the reasons and the figures.
"""

import logging
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

from app.database.engines import get_replica_engine
from app.database.prepared import PreparedStatement
from app.database.sessions import writing
from app.database.sqlstate import is_connection_lost
from app.observability import metrics

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Run = Callable[[Connection, Sequence[Item]], Sequence[Outcome | Exception]]
# What becomes of a turn. All but the first are answered by the primary.
Result = Literal["replica", "behind", "diverged", "failed", "absent"]

# How long a turn waits for the replica to catch up, asking again and again.
CATCH_UP_TIMEOUT_SECONDS = 0.005
POLL_SECONDS = 0.0005
# For how long a replica that was of no use is not asked, as it would cost each turn its patience: for twice as long
# each time, until it is of use again.
FIRST_REST_SECONDS = 0.005
MAX_REST_SECONDS = 0.25
KEPT_EVERY = timedelta(milliseconds=250)
CONNECTS_AFTER_SECONDS = 1.0

# Whoever commits without waiting for the disk is answered before the log is flushed. A server that is itself a replica,
# where an URL may lead for a moment, has no end of its own.
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
# A replica that still follows the former primary may have replayed more, of another history. Its control file learns of
# a new timeline at the next restart point: late, but never early.
_PROGRESS = PreparedStatement(
    text("""
        SELECT pg_is_in_recovery() AND min_recovery_end_timeline = :timeline AS is_of_this_history,
            pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn) AS is_there
        FROM pg_control_recovery()
    """).bindparams(bindparam("timeline", type_=INTEGER), bindparam("position", type_=String))
)
# Which cluster, and which database of it.
WHOSE = text("SELECT system_identifier, current_database() FROM pg_control_system()")


class Replica:
    """The replica, as the turns of one lane read from it, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._line: Connection | None = None
        self._why_not: Result = "absent"
        self._rest_seconds = FIRST_REST_SECONDS
        self._rests_until = self._connects_at = 0.0
        self._said = ""

    def first(self, run: Run[Item, Outcome]) -> Run[Item, Outcome]:
        """`run`, on the replica where that shows no less than the primary would, else on the primary."""

        def run_there(primary: Connection, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
            line = self._line
            outcomes = None
            if line is not None and time.monotonic() >= self._rests_until:
                end = _END_OF_LOG.execute(primary, {}).one()
                outcomes = self._attempt(line, end, run, items)
            metrics.replica_batch(self._why_not if outcomes is None else "replica")
            return run(primary, items) if outcomes is None else outcomes

        return run_there

    def _attempt(
        self, line: Connection, end: Row[Any], run: Run[Item, Outcome], items: Sequence[Item]
    ) -> Sequence[Outcome | Exception] | None:
        """The outcomes; None where the replica cannot give them, for whatever reason."""
        try:
            state = _state(line, end)
            if state == "replica":
                outcomes = run(line, items)
                self._rest_seconds = FIRST_REST_SECONDS
                return outcomes
            if state == "diverged":
                self._hang_up(line, "it is no replica of the primary any more")
        except (SQLAlchemyError, psycopg2.Error) as error:
            state = "failed"
            if is_connection_lost(error):
                self._hang_up(line, _words(error))
        self._why_not, self._rests_until = state, time.monotonic() + self._rest_seconds
        self._rest_seconds = min(2 * self._rest_seconds, MAX_REST_SECONDS)
        return None

    def keep(self) -> None:
        """Make the connection if it is missing."""
        if self._line is None and time.monotonic() >= self._connects_at:
            self._connect()

    def close(self) -> None:
        """Let go of the connection."""
        if self._line is not None:
            self._hang_up(self._line, "")

    def _connect(self) -> None:
        self._connects_at = time.monotonic() + CONNECTS_AFTER_SECONDS
        try:
            connection = self._engine.connect()
            try:
                with writing() as primary:
                    is_ours = look(primary, connection) != "diverged"
                if is_ours:
                    self._line = connection
            finally:
                if self._line is None:
                    _end(connection)
        except (SQLAlchemyError, psycopg2.Error, OSError) as error:
            self._say(_words(error))
            return
        if is_ours:
            self._said = ""
            logger.info("reading from the replica")
        else:
            self._why_not = "diverged"
            self._say("it is no replica of the primary, or does not follow it yet")

    def _hang_up(self, line: Connection, why: str) -> None:
        self._line = None
        self._connects_at = time.monotonic() + CONNECTS_AFTER_SECONDS
        _end(line)
        if why:
            self._say(why)

    def _say(self, why: str) -> None:
        """Once, however often it is tried again."""
        if why != self._said:
            logger.warning("reading from the primary alone, as the replica cannot be used: %s", why)
        self._said = why


@lru_cache
def get_replica() -> Replica | None:
    """The process's replica; None where none is configured."""
    engine = get_replica_engine()
    return None if engine is None else Replica(engine)


def look(primary: Connection, there: Connection, catch_up_timeout_seconds: float = CATCH_UP_TIMEOUT_SECONDS) -> Result:
    """What a turn with so much patience would make of this replica of this primary."""
    if primary.execute(WHOSE).one() != there.execute(WHOSE).one():
        return "diverged"
    return _state(there, _END_OF_LOG.execute(primary, {}).one(), catch_up_timeout_seconds)


def _state(there: Connection, end: Row[Any], catch_up_timeout_seconds: float = CATCH_UP_TIMEOUT_SECONDS) -> Result:
    """Whether the replica is in the primary's history, and has replayed as much of it, or does so while we wait."""
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


def _end(connection: Connection) -> None:
    """Not back to the pool: the next attempt may lead to another server."""
    with suppress(SQLAlchemyError, psycopg2.Error):
        connection.invalidate()
        connection.close()


def _words(error: Exception) -> str:
    """What the driver said, in one line; lines after the first may quote what is in rows."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
