"""The engines: one pool of connections for each kind of work, and how a connection is set up."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from psycopg2.extensions import PYDATETIMETZ, new_type, register_type
from sqlalchemy import URL, Engine, create_engine, event

from app.config import ConfigurationError, Settings, get_settings
from app.database.prepared import MAY_PREPARE
from app.database.watchdog import MARGIN_SECONDS, Primary, Server
from app.observability import metrics, query_log

# The lanes of readings, votes, API keys, tokens that name no session, health checks and last_seen_updates.
BATCH_CONNECTION_COUNT = 6
# Votes whose answers are kept, each hashing thread, the postman, events told apart from their requests, and deletions.
OTHER_CONNECTION_COUNT = 1 + get_settings().hashing_thread_count + 1 + 1 + 1
# Each counts a try in a millisecond or so; who finds none free waits no longer than for a lock.
LIMITS_CONNECTION_COUNT = 2
MAX_WAIT_TO_COUNT_SECONDS = 3
# By which the process notices that the server has fallen silent.
HEARTBEAT_CONNECTION_COUNT = 1
# What takes a replica longer is asked of the primary, which may take `DATABASE_STATEMENT_TIMEOUT_SECONDS`.
MAX_ON_REPLICA_SECONDS = 1
# Of compiled statements, which take up to 80 KB. SQLAlchemy keeps half as many more for a while: at most 6 MB.
BATCH_STATEMENT_COUNT = 48


def max_connections(settings: Settings) -> int:
    """How many connections to the primary one worker may open."""
    pools = settings.database_pool_size + OTHER_CONNECTION_COUNT + BATCH_CONNECTION_COUNT + LIMITS_CONNECTION_COUNT
    return pools + HEARTBEAT_CONNECTION_COUNT


@lru_cache
def get_engine() -> Engine:
    """The process's engine for transactions. Its pool has a connection for everybody who may want one.

    Raises `ConfigurationError` where no database is configured.
    """
    engine = _engine("requests", get_settings().database_pool_size + OTHER_CONNECTION_COUNT, {})
    query_log.watch(engine, has_comments=True)
    return engine


@lru_cache
def get_batch_engine() -> Engine:
    """The engine of the lanes, whose connections are in AUTOCOMMIT from their first to their last moment.

    An engine of its own, because SQLAlchemy puts a connection that was borrowed in AUTOCOMMIT back into its former mode
    when it is returned: psycopg2 may ask the server for that, and where the server has gone, the error comes after
    everything was committed, and takes the place in the pool with it.
    """
    return _batch_engine("batches", BATCH_CONNECTION_COUNT, {})


@lru_cache
def get_replica_engine() -> Engine | None:
    """The engine of readings from the replica; None where there is none. Its one connection is replica.py's."""
    url = get_settings().replica_database
    limit = {"statement_timeout": f"{MAX_ON_REPLICA_SECONDS * 1000:.0f}ms"}
    return None if url is None else _batch_engine("replica", 1, limit, url=url)


@lru_cache
def get_primary() -> Primary:
    """The server of all engines but the replica's: what one of them learns of it, all know."""
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
        # PostgreSQL expects ten elements of every array, takes its generic plan for dearer than one made for those at
        # hand, and would plan prepared statements anew each time.
        {"plan_cache_mode": "force_generic_plan", **server_settings},
        url=url,
        isolation_level="AUTOCOMMIT",
        query_cache_size=BATCH_STATEMENT_COUNT,
        execution_options={MAY_PREPARE: not get_settings().database_behind_pooler},
    )
    # A turn's statements are for many requests, and some of them are prepared by their text.
    query_log.watch(engine, has_comments=False)
    return engine


@lru_cache
def get_limits_engine() -> Engine:
    """The engine that counts tries: its own, so that a request may hold another connection while it counts one."""
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
        # Whatever PGCLIENTENCODING, the URL, the role or the database says: other encodings cannot hold every text.
        "client_encoding": "utf8",
        "connect_timeout": settings.database_connect_timeout_seconds,
        "application_name": "social-posts",
        # A server that is gone without a word is noticed by the system, not by who waits.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
    if not settings.database_behind_pooler:
        timeout = f"{settings.database_statement_timeout_seconds}s"
        server_settings = {
            "timezone": "UTC",  # In which answers tell times, whatever the server's is.
            "statement_timeout": timeout,
            "idle_in_transaction_session_timeout": timeout,
            **server_settings,
        }
        ours = [f"-c {name}={value}" for name, value in server_settings.items()]
        # What the operator's URL asks for comes last, and so holds.
        connect_args["options"] = " ".join([*ours, str(url.query.get("options", ""))]).strip()
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, connect_args=connect_args, **options)
    event.listen(engine, "connect", _read_any_time)
    server.guard(engine)
    if settings.database_behind_pooler:
        event.listen(engine, "connect", _tell_times_in_utc)
    _count_borrowed(engine, metrics.Pool(name, pool_size))
    return engine


_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class TimeOutOfRange(datetime):
    """The time that Python can hold which is nearest to a time of PostgreSQL's, and that time as it was written."""

    stored: str


def _time_in_range(value: str | bytes | None, cursor: Any) -> datetime | None:
    """Read a `timestamptz`. PostgreSQL has years from 4713 BC to 294276, and infinities (`TimeOutOfRange`)."""
    try:
        time = cast("datetime | None", PYDATETIMETZ(value, cursor))
        if time is None or 1 < time.year < 9999 or _FIRST_TIME < time < _LAST_TIME:
            return time
    except ValueError:
        pass
    stored = str(value)
    is_early = stored.startswith(("-", "0001-01-01")) or stored.endswith("BC")
    nearest = _FIRST_TIME if is_early else _LAST_TIME
    time_out_of_range = TimeOutOfRange.combine(nearest.date(), nearest.time(), UTC)
    time_out_of_range.stored = stored
    return time_out_of_range


# Costs 0.4 µs a value. psycopg2's own reader raises ValueError, which would make every list with such a row a 500.
_TIME = new_type(PYDATETIMETZ.values, "TIMESTAMPTZ", _time_in_range)


def _read_any_time(connection: Any, _: Any) -> None:
    register_type(_TIME, connection)


def _count_borrowed(engine: Engine, pool: metrics.Pool) -> None:
    def borrowed(_connection: Any, record: Any, _fairy: Any) -> None:
        record.record_info["is_borrowed"] = True
        pool.borrowed()

    def returned(_connection: Any, record: Any) -> None:
        # SQLAlchemy also returns what it never lent, because no connection could be made.
        if record.record_info.pop("is_borrowed", False):
            pool.returned()

    event.listen(engine, "checkout", borrowed)
    event.listen(engine, "checkin", returned)


def _tell_times_in_utc(connection: Any, _: Any) -> None:
    """PgBouncer takes no settings at connect, but keeps this one for each of its clients."""
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def dispose() -> None:
    """Close all connections that nobody uses at the moment; new ones are made when they are wanted."""
    get_engine().dispose()
    get_batch_engine().dispose()
    get_limits_engine().dispose()
    get_primary().end_beat()
