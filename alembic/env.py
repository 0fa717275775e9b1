"""Migration environment: one run at a time, one transaction per migration, short lock timeouts.

The database is `config.attributes["url"]` (used by tests), else the configured one, else the embedded server. The
connection bypasses any pooler, because a session holds the advisory lock. `python -m app adopt` does not use this
module: it runs all migrations in one transaction.

A migration that cannot get a lock is retried; `alembic -x tries=100 upgrade head` sets how often.
docs/migrations.md has the rules for migrations.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import fileConfig

from psycopg2 import errorcodes as codes
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from alembic import command, context
from app.cli.database import require_utf8
from app.config import ConfigurationError, get_settings
from app.database.locks import MIGRATION_LOCK
from app.database.schema_version import Health, check
from app.database.sqlstate import sqlstate_of
from app.dev import postgres
from app.models import Base

logger = logging.getLogger("alembic.runtime.migration")

# A migration that waits for a lock blocks every later request for that table, so fail early and retry. The timeout
# applies inside transactions only: CREATE INDEX CONCURRENTLY waits outside of one without blocking other sessions.
LOCK_TIMEOUT = "1500ms"
TRIES = 5
# Twice the lock timeout, so that the sessions queued behind the migration finish before the next attempt.
PAUSE_SECONDS = 3
MAX_WAIT_FOR_OTHER_RUN_SECONDS = 900
POLL_SECONDS = 0.2
WATCH_SECONDS = 0.5
BLOCKER = text("""
    SELECT pid, application_name, date_trunc('second', clock_timestamp() - xact_start)::text AS age
    FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids(:pid)) ORDER BY xact_start, pid LIMIT 1
""")
CONNECT_TIMEOUT_SECONDS = 10
SET_LOCK_TIMEOUT = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"

config = context.config
if config.config_file_name is not None and config.attributes.get("configure_logging", True):
    fileConfig(config.config_file_name, disable_existing_loggers=False)


@contextmanager
def database_url() -> Iterator[URL]:
    """Yield the URL of the configured database, or run the embedded server during the block."""
    configured = config.attributes.get("url") or get_settings().direct_database
    if configured is not None:
        yield configured
        return
    with postgres.running() as url:
        yield url


@contextmanager
def only_run(connection: Connection) -> Iterator[None]:
    """Hold the advisory lock for migrations.

    A second run waits, then finds nothing to do.

    It polls instead of blocking, because a blocked statement holds a snapshot. CREATE INDEX CONCURRENTLY in the other
    run would wait for that snapshot forever.
    """
    give_up_at = time.monotonic() + MAX_WAIT_FOR_OTHER_RUN_SECONDS
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}):
        if time.monotonic() > give_up_at:
            raise TimeoutError("another migration run holds the lock; find it in pg_stat_activity")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})


def migrate(connection: Connection, guard: Connection) -> None:
    """Run Alembic's command on the connection.

    After a lock timeout, retry from the migration that failed.
    """
    event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(SET_LOCK_TIMEOUT))
    left = tries()
    while True:
        left -= 1
        try:
            with reporting_blockers(connection, guard):
                run(connection)
        except DBAPIError as error:
            if left <= 0 or not is_lock_refused(error):
                raise
            logger.warning("%s; %s more tries", first_line(error), left)
        else:
            return
        time.sleep(PAUSE_SECONDS)


def tries() -> int:
    """Return how often to try a migration that cannot get a lock: `-x tries=…`."""
    given = str(context.get_x_argument(as_dictionary=True).get("tries", TRIES))
    if not given.isdecimal():
        raise ConfigurationError(f"-x tries takes a number, not {given}")
    return int(given)


def is_in_models(item: object, name: str | None, kind: str, is_reflected: bool, counterpart: object | None) -> bool:  # noqa: ARG001
    """Return whether autogenerate compares the item: everything but what only the database has.

    Such tables, columns, indexes and constraints belong to the owner of an adopted database. Autogenerate would drop
    them. So it proposes no drop of anything that left the models either: write that migration by hand.
    """
    return not is_reflected or counterpart is not None


def run(connection: Connection) -> None:
    """Run all pending migrations once."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=is_in_models,
        transaction_per_migration=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def reporting_blockers(connection: Connection, guard: Connection) -> Iterator[None]:
    """Log which process blocks the migration: by a lock, or by a transaction older than a new index."""
    waiting = {"pid": connection.connection.driver_connection.info.backend_pid}  # type: ignore[union-attr]
    is_over = threading.Event()

    def watch() -> None:
        told = None
        while not is_over.wait(WATCH_SECONDS):
            try:
                found = guard.execute(BLOCKER, waiting).first()
            except DBAPIError:  # The migration reports its own error.
                return
            if found is not None and found.pid != told:
                told = found.pid
                # Only members of pg_read_all_stats see the transaction age of other roles.
                since = f", in a transaction for {found.age}" if found.age else ""
                logger.warning("waiting for process %s (%s)%s", found.pid, found.application_name, since)

    watching = threading.Thread(target=watch, name="blockers", daemon=True)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def run_offline() -> None:
    """Print the statements instead of running them, for `--sql`."""
    context.configure(
        dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True, transaction_per_migration=True
    )
    context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    with database_url() as url:
        require_utf8(url)
        connect_args = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "client_encoding": "utf8"}
        engine = create_engine(url, poolclass=NullPool, connect_args=connect_args)
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard,
            only_run(guard),
            engine.connect() as connection,
        ):
            refuse_tables_of_others(guard)
            if is_for_an_older_release(guard):
                config.print_stdout("a newer release has migrated this database; there is nothing to do")
                return
            migrate(connection, guard)


def refuse_tables_of_others(guard: Connection) -> None:
    """Raise `ConfigurationError` if other software, such as the tutorial, created the tables."""
    asked_for, *_ = getattr(config.cmd_opts, "cmd", (command.upgrade,))
    if asked_for is not command.upgrade:
        return
    (found,) = check(guard, [None])
    if isinstance(found, Health) and found.is_foreign:
        raise ConfigurationError(found.problem)


def is_for_an_older_release(guard: Connection) -> bool:
    """Return whether this is `alembic upgrade head` of a release that was rolled back to.

    Alembic does not know the newer release's revisions and would fail, and with it the release phase and so the
    rollback. Commands other than this upgrade must fail.
    """
    asked_for, *_ = getattr(config.cmd_opts, "cmd", (None,))
    if asked_for is not command.upgrade or getattr(config.cmd_opts, "revision", None) != "head":
        return False
    (found,) = check(guard, [None])
    return isinstance(found, Health) and found.is_ahead


def is_lock_refused(error: DBAPIError) -> bool:
    """Return whether the error is a lock timeout or a deadlock."""
    return sqlstate_of(error) in {codes.LOCK_NOT_AVAILABLE, codes.DEADLOCK_DETECTED}


def first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def is_fixable_by_operator(error: DBAPIError) -> bool:
    """Return whether the connection failed (no SQLSTATE: server or URL), or a lock or a privilege is missing."""
    return sqlstate_of(error) is None or is_lock_refused(error) or is_right_missing(error)


def is_right_missing(error: DBAPIError) -> bool:
    """Return whether the role lacks a privilege."""
    return sqlstate_of(error) == codes.INSUFFICIENT_PRIVILEGE


def role() -> str:
    """Return the role that migrates, as SQL, or a placeholder if the URL leaves it to libpq."""
    url: URL | None = config.attributes.get("url") or get_settings().direct_database
    if url is None or not url.username:
        return "<role>"
    return postgresql.dialect().identifier_preparer.quote(url.username)


def remedy(error: DBAPIError) -> str:
    """Return what the operator can do, or an empty string if the error says it."""
    if is_lock_refused(error):
        return "; this migration was rolled back: run it again"
    if is_right_missing(error):
        return (
            "; migrations need the role that owns the tables: connect as it or, in a new database, run as its owner:"
            f" GRANT CREATE ON SCHEMA public TO {role()}"
        )
    return ""


try:
    if context.is_offline_mode():
        run_offline()
    else:
        run_online()
except (ConfigurationError, postgres.LocalPostgresError, TimeoutError) as error:
    raise SystemExit(f"error: {error}") from None
except DBAPIError as error:
    if not is_fixable_by_operator(error):
        raise
    raise SystemExit(f"error: {first_line(error)}{remedy(error)}") from None
