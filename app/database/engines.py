"""SQLAlchemy engines: one pool per kind of work, and the setup of connections."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from psycopg2.extensions import PYDATETIMETZ, new_type, register_type
from sqlalchemy import URL, Connection, Engine, create_engine, event

from app.config import ConfigurationError, Settings, get_settings
from app.database.prepared import MAY_PREPARE
from app.database.watchdog import MARGIN_SECONDS, Primary, Server
from app.observability import metrics, query_log

# The batch queues of bounded and of unbounded page requests, home pages, threads of comments, votes for posts and for
# comments, API keys, tokens without a session id, health checks, and last-seen updates; the poller of live streams, and
# events that they missed.
BATCH_CONNECTION_COUNT = 12
# Votes whose responses are stored, mail delivery, events recorded apart from requests, deletions, and observation.
OTHER_CONNECTION_COUNT = 5
# Each counts an attempt in about a millisecond. Waiting for a free connection takes no longer than waiting for a lock.
LIMITS_CONNECTION_COUNT = 2
MAX_WAIT_TO_COUNT_SECONDS = 3
# Detects a silent server, also in a process without requests.
HEARTBEAT_CONNECTION_COUNT = 1
# The queues of bounded and of unbounded page requests, and of home pages.
REPLICA_CONNECTION_COUNT = 3
# A read that takes the replica longer goes to the primary, which may take `DATABASE_STATEMENT_TIMEOUT_SECONDS`.
MAX_ON_REPLICA_SECONDS = 1
# Execution option of a connection of the batch queues: the time, as `time.monotonic()`, at which its statements end.
DEADLINE = "deadline"
# While a statement has all but this of its time, it gets no limit of its own, because setting one costs time too.
DEADLINE_TOLERANCE_SECONDS = 0.5
# Cached compiled statements of up to 80 KB. SQLAlchemy keeps half as many more for a while: at most 6 MB.
BATCH_STATEMENT_COUNT = 48


def max_connections(settings: Settings) -> int:
    """Maximum connections of one worker to the primary."""
    pools = _transaction_connections(settings) + BATCH_CONNECTION_COUNT + LIMITS_CONNECTION_COUNT
    return pools + HEARTBEAT_CONNECTION_COUNT


def _transaction_connections(settings: Settings) -> int:
    """Maximum concurrent transactions: of requests, hashing threads and others."""
    return settings.database_pool_size + settings.hashing_thread_count + OTHER_CONNECTION_COUNT


@lru_cache
def get_engine() -> Engine:
    """The process's engine for transactions.

    Its pool has a connection for each possible user. Raises `ConfigurationError` if no database is configured.
    """
    engine = _engine("requests", _transaction_connections(get_settings()), {})
    query_log.watch(engine, has_comments=True)
    return engine


@lru_cache
def get_batch_engine() -> Engine:
    """The engine of the batch queues. Its connections are always in AUTOCOMMIT.

    It is separate because SQLAlchemy resets the mode of a connection borrowed in AUTOCOMMIT when it is returned.
    psycopg2 may ask the server for that. If the server has gone, the error comes after everything was committed, and
    the pool loses the connection's place.
    """
    return _batch_engine("batches", BATCH_CONNECTION_COUNT, {})


@lru_cache
def get_replica_engine() -> Engine | None:
    """The engine of reads from the replica, or None.

    replica.py uses its connections, one for each queue.
    """
    url = get_settings().replica_database
    limit = {"statement_timeout": f"{MAX_ON_REPLICA_SECONDS * 1000:.0f}ms"}
    return None if url is None else _batch_engine("replica", REPLICA_CONNECTION_COUNT, limit, url=url)


@lru_cache
def get_primary() -> Primary:
    """The server of all engines but the replica's. The engines share its state."""
    settings = get_settings()
    return Primary(
        settings.database_statement_timeout_seconds,
        settings.database_connect_timeout_seconds,
        is_pooled=settings.database_behind_pooler,
    )


def _batch_engine(name: str, pool_size: int, server_settings: Mapping[str, object], url: URL | None = None) -> Engine:
    engine = _engine(
        name,
        pool_size,
        # PostgreSQL estimates ten elements for every array. So its generic plan looks more expensive than a custom
        # plan, and it would plan prepared statements again each time.
        {
            "plan_cache_mode": "force_generic_plan",
            # One request must not take several processors.
            "max_parallel_workers_per_gather": 0,
            **server_settings,
        },
        url=url,
        isolation_level="AUTOCOMMIT",
        query_cache_size=BATCH_STATEMENT_COUNT,
        execution_options={MAY_PREPARE: not get_settings().database_behind_pooler},
    )
    # A batch's statements serve many requests, and some of them are prepared by their text.
    query_log.watch(engine, has_comments=False)
    seconds = get_settings().database_statement_timeout_seconds if url is None else MAX_ON_REPLICA_SECONDS
    event.listen(engine, "before_cursor_execute", _end_at_deadline(seconds), retval=True)
    return engine


def _end_at_deadline(limit_seconds: float) -> Callable[..., tuple[str, Any]]:
    """Return a listener that ends a statement at its connection's `DEADLINE`.

    `limit_seconds` is the limit that statements have anyway. The new one is sent with the statement, in one implicit
    transaction, so it also works behind a pooler and leaves nothing behind on the connection.
    """

    def before(connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        left = connection.get_execution_options().get(DEADLINE, math.inf) - time.monotonic()
        if left < limit_seconds - DEADLINE_TOLERANCE_SECONDS:
            milliseconds = max(1, round(left * 1000))  # 0 would be no limit.
            statement = f"SET LOCAL statement_timeout = {milliseconds}; {statement}"
        return statement, parameters

    return before


@lru_cache
def get_limits_engine() -> Engine:
    """The engine of the attempt counters.

    It is separate, so that a request may hold another connection while it counts an attempt.
    """
    engine = _engine("limits", LIMITS_CONNECTION_COUNT, {}, pool_timeout=MAX_WAIT_TO_COUNT_SECONDS)
    query_log.watch(engine, has_comments=True)
    return engine


def _engine(
    name: str, pool_size: int, server_settings: Mapping[str, object], url: URL | None = None, **options: Any
) -> Engine:
    settings = get_settings()
    server = get_primary() if url is None else Server(MAX_ON_REPLICA_SECONDS + MARGIN_SECONDS)
    url = url or settings.database
    if url is None:
        raise ConfigurationError("no database is configured; set DATABASE_URL, or start with: python -m app run")
    connect_args: dict[str, object] = {
        # Overrides PGCLIENTENCODING, the URL, the role and the database: other encodings cannot hold every text.
        "client_encoding": "utf8",
        "connect_timeout": settings.database_connect_timeout_seconds,
        "application_name": "social-posts",
        # Let TCP keepalives detect a dead server.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
    if not settings.database_behind_pooler:
        timeout = f"{settings.database_statement_timeout_seconds}s"
        server_settings = {
            "timezone": "UTC",  # In which responses give times, independent of the server's time zone.
            "statement_timeout": timeout,
            "idle_in_transaction_session_timeout": timeout,
            **server_settings,
        }
        ours = [f"-c {name}={value}" for name, value in server_settings.items()]
        # The options of the operator's URL come last, so they take precedence.
        connect_args["options"] = " ".join([*ours, str(url.query.get("options", ""))]).strip()
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, connect_args=connect_args, **options)
    event.listen(engine, "connect", _read_any_time)
    server.guard(engine)
    if settings.database_behind_pooler:
        event.listen(engine, "connect", _tell_times_in_utc)
    _count_borrowed(engine, metrics.Pool(name, pool_size))
    return engine


_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _time_in_range(value: str | bytes | None, cursor: Any) -> datetime | None:
    """Read a `timestamptz`.

    PostgreSQL has years from 4713 BC to 294276, and infinities. They become the nearest time that Python can represent.
    """
    try:
        time = cast("datetime | None", PYDATETIMETZ(value, cursor))
        if time is None or 1 < time.year < 9999 or _FIRST_TIME < time < _LAST_TIME:
            return time
    except ValueError:
        pass
    stored = str(value)
    is_early = stored.startswith(("-", "0001-01-01")) or stored.endswith("BC")
    return _FIRST_TIME if is_early else _LAST_TIME


# Costs 0.4 µs a value. psycopg2's own reader raises ValueError, so every list with such a row would be a 500.
_TIME = new_type(PYDATETIMETZ.values, "TIMESTAMPTZ", _time_in_range)


def _read_any_time(connection: Any, _: Any) -> None:
    register_type(_TIME, connection)


def _count_borrowed(engine: Engine, pool: metrics.Pool) -> None:
    def borrowed(_connection: Any, record: Any, _fairy: Any) -> None:
        record.record_info["is_borrowed"] = True
        pool.borrowed()

    def returned(_connection: Any, record: Any) -> None:
        # SQLAlchemy also returns records that were never borrowed, because no connection could be made.
        if record.record_info.pop("is_borrowed", False):
            pool.returned()

    event.listen(engine, "checkout", borrowed)
    event.listen(engine, "checkin", returned)


def _tell_times_in_utc(connection: Any, _: Any) -> None:
    """Set the time zone.

    PgBouncer takes no settings at connect, but keeps this one per client.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def dispose() -> None:
    """Close all idle connections. The pools open new ones when needed."""
    get_engine().dispose()
    get_batch_engine().dispose()
    get_limits_engine().dispose()
    get_primary().end_beat()
