"""How migrations run: on the application's database, one run at a time, one transaction each, never waiting long.

An address may be handed over as `config.attributes["url"]` (tests do); else the configured database is used, and
without one the embedded server. `python -m app adopt` hands over `prepare`, which is called on the connection before
migrations run, under the same lock; and `on_version_apply`, which Alembic calls in the transaction of each.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import fileConfig

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from alembic import command, context
from app import local_postgres
from app.config import ConfigurationError, get_settings
from app.models import Base
from app.services.health import MIGRATION_LOCK, Health, check

# A migration that waits for a lock makes everybody else wait behind it; rather fail and run again. It counts inside
# transactions only: CREATE INDEX CONCURRENTLY waits outside of one, for as long as it takes, with nobody behind it.
LOCK_TIMEOUT = "1500ms"
LONGEST_WAIT_FOR_OTHER_RUN_SECONDS = 900
POLL_SECONDS = 0.2
CONNECT_TIMEOUT_SECONDS = 10
SET_LOCK_TIMEOUT = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"

config = context.config
if config.config_file_name is not None and config.attributes.get("configure_logging", True):
    fileConfig(config.config_file_name, disable_existing_loggers=False)


@contextmanager
def database_url() -> Iterator[URL]:
    """The configured database; without one the embedded server, for as long as the block runs."""
    configured = config.attributes.get("url") or get_settings().database
    if configured is not None:
        yield configured
        return
    with local_postgres.running() as url:
        yield url


@contextmanager
def only_run(connection: Connection) -> Iterator[None]:
    """Hold the advisory lock that lets one run at a time through; the second waits, then finds nothing to do.

    The wait asks again and again instead of blocking: a statement that blocks holds a snapshot, and
    CREATE INDEX CONCURRENTLY in the other run would wait for it for ever.
    """
    give_up_at = time.monotonic() + LONGEST_WAIT_FOR_OTHER_RUN_SECONDS
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}):
        if time.monotonic() > give_up_at:
            raise TimeoutError("another migration run holds the lock; look at it in pg_stat_activity")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})


def migrate(connection: Connection) -> None:
    """Run what Alembic was asked for on this connection."""
    event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(SET_LOCK_TIMEOUT))
    if (prepare := config.attributes.get("prepare")) is not None:
        prepare(connection)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
        on_version_apply=config.attributes.get("on_version_apply"),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """`--sql`: print the statements instead of running them."""
    context.configure(
        dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True, transaction_per_migration=True
    )
    context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    with database_url() as url:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS})
        with (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard,
            only_run(guard),
            engine.connect() as connection,
        ):
            if is_for_an_older_release(guard):
                config.print_stdout("a newer release has migrated this database; there is nothing to do")
                return
            migrate(connection)


def is_for_an_older_release(guard: Connection) -> bool:
    """Whether this is `alembic upgrade head` of a release that was put back in the place of a newer one.

    Alembic has not heard of the newer one's revisions, and would fail; with it the step before the release, and so the
    rollback. Everything but an upgrade has to fail.
    """
    asked_for, *_ = getattr(config.cmd_opts, "cmd", (None,))
    if asked_for is not command.upgrade or getattr(config.cmd_opts, "revision", None) != "head":
        return False
    (found,) = check(guard, [None])
    return isinstance(found, Health) and found.is_ahead


def is_lock_refused(error: DBAPIError) -> bool:
    return getattr(error.orig, "pgcode", None) == "55P03"


def can_be_mended_by_operator(error: DBAPIError) -> bool:
    """Whether the connection failed (no SQLSTATE: the server is unreachable, the URL odd), or a lock was not given."""
    return getattr(error.orig, "pgcode", None) is None or is_lock_refused(error)


try:
    if context.is_offline_mode():
        run_offline()
    else:
        run_online()
except (ConfigurationError, local_postgres.LocalPostgresError, TimeoutError) as error:
    raise SystemExit(f"error: {error}") from None
except DBAPIError as error:
    if not can_be_mended_by_operator(error):
        raise
    hint = "; nothing of this migration is left: run it again" if is_lock_refused(error) else ""
    raise SystemExit(f"error: {str(error.orig).strip().splitlines()[0]}{hint}") from None
