"""Adoption in one transaction: the plan's steps, then all migrations.

A dry run rolls back at the end. So a dry run fails exactly where a real run would, and a failed or interrupted run
changes nothing. The cost: the tables are locked exclusively for the whole run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from alembic import command
from app.adoption import names, shape, takeover
from app.adoption.choices import Choices
from app.adoption.examination import examine, is_adopted
from app.adoption.plan import Plan
from app.adoption.target import TUTORIAL_HEAD
from app.database.locks import MIGRATION_LOCK
from app.database.schema_version import ALEMBIC_INI
from app.models import Base
from app.models.session import adopted_session_id

Report = Callable[[str], None]
POLL_SECONDS = 0.2
CONNECT_TIMEOUT_SECONDS = 10
# If another session uses the tables, fail instead of blocking every session behind the lock request.
LOCK_TIMEOUT = "1500ms"
# Replacements in the SQL of migrations: the tables are locked, so no batches and no concurrent index builds. 0028 fills
# the search column of 0009, because the first expression takes 10 s for a post of 40 KB like `a_a_a_…`, for words that
# 0024 replaces. 0028 fills every post without comparing old values, which would double its time.
IN_ONE_TRANSACTION = (
    (" CONCURRENTLY", ""),
    ("COMMIT;", ""),
    ("search IS DISTINCT FROM search_vector(title, content)", "true"),
    ("to_tsvector('simple'::regconfig, title || ' ' || left(content, 40000))", "''::tsvector"),
)
# Columns that a migration adds and that may have existed before: (revision, table, column, types).
TIMES = ("timestamp", "date")
TEXTS = ("character", "text", "citext")
CARRIED = (
    ("0008", "users", "username", TEXTS),
    ("0009", "posts", "updated_at", TIMES),
    ("0010", "votes", "created_at", TIMES),
    ("0036", "users", "display_name", TEXTS),
    ("0036", "users", "bio", TEXTS),
)
MAX_CHARACTERS = {"display_name": 50, "bio": 500}
# Copies valid usernames. If several users have the same one, the first keeps it.
CARRY_USERNAMES = """
    UPDATE users SET username = former_username
    WHERE id IN (SELECT min(id) FROM users GROUP BY lower(former_username COLLATE "C"))
        AND former_username ~ '^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$' AND former_username !~* '^user[0-9]+$'
        AND length(former_username) BETWEEN 3 AND 30
"""
# The revision that adds users.is_active.
ACCOUNTS_REVISION = "0008"
# The revision since which sessions have both expiry columns.
SESSIONS_REVISION = "0016"
KEEP_SIGNED_IN = """
    INSERT INTO sessions (id, user_id, expires_at, ends_at, user_agent)
    SELECT :first + id, id, now() + :lifetime, now() + :lifetime, :user_agent FROM users WHERE is_active
"""


class CannotAdopt(Exception):
    """The database was not adopted. The message is one line."""


def look(engine: Engine, choices: Choices | None = None, time_zone: str = "UTC") -> Plan:
    """Examine the database in a read-only transaction.

    Meanwhile no migration changes the catalogue.
    """
    while True:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            if connection.scalar(text("SELECT pg_try_advisory_xact_lock_shared(:key)"), {"key": MIGRATION_LOCK}):
                return examine(connection, choices or Choices(), time_zone)
        # Poll, because a waiting statement holds a snapshot, for which CREATE INDEX CONCURRENTLY would wait.
        time.sleep(POLL_SECONDS)


def adopt(
    url: URL,
    report: Report,
    *,
    tokens_live: timedelta,
    choices: Choices | None = None,
    time_zone: str = "UTC",
    is_dry_run: bool = False,
) -> None:
    """Adopt the database completely or not at all. Raises `CannotAdopt`.

    Calls `report` after each step. Existing tokens are accepted for `tokens_live`. A dry run does everything and rolls
    back. A database that is already adopted is only migrated.
    """
    connect_args = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "client_encoding": "utf8"}
    engine = create_engine(url, poolclass=NullPool, connect_args=connect_args)
    adoption = _Adoption(choices or Choices(), report, tokens_live, time_zone)
    try:
        while True:
            with engine.connect() as connection, connection.begin() as transaction:
                if connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}):
                    is_new = adoption.run(connection)
                    if is_dry_run:
                        transaction.rollback()
                    break
            time.sleep(POLL_SECONDS)
        if not is_new and not is_dry_run:
            config = Config(ALEMBIC_INI)
            config.attributes |= {"url": url, "configure_logging": False}
            command.upgrade(config, "head")
    except (DBAPIError, CommandError) as error:
        # The first line only: the others may quote values of rows.
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
        raise CannotAdopt(f"{reason}; nothing was changed: fix it and run this again") from None


class _InOneTransaction(MigrationContext):
    """Migration context whose autocommit blocks stay in the one transaction."""

    @contextmanager
    def autocommit_block(self) -> Iterator[None]:
        yield


class _Adoption:
    def __init__(self, choices: Choices, report: Report, tokens_live: timedelta, time_zone: str) -> None:
        self.choices = choices
        self.report = report
        self.tokens_live = tokens_live
        self.time_zone = time_zone

    def run(self, connection: Connection) -> bool:
        """Run all steps in the connection's transaction.

        Return False if the database is already adopted.
        """
        if is_adopted(connection):  # Its tables are in use, so do not lock them.
            return False
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        here = shape.read(connection)
        found = names.find_tables(here, self.choices, Plan())
        tables = [*found.values(), *takeover.tables(here, self.choices, found)]
        if locked := ", ".join(shape.quoted(table.name) for table in tables if table.kind in "rp"):
            # Otherwise rows written after the examination would not be checked.
            connection.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        plan = examine(connection, self.choices, self.time_zone)
        if plan.refusals:
            raise CannotAdopt(plan.refusals[0])
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        for what, statements in plan.steps:
            for statement in statements:
                # Without parameters, because a name may contain `%`.
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            self.report(what)
        self._migrate(connection, plan)
        return True

    def _migrate(self, connection: Connection, plan: Plan) -> None:
        config = Config(ALEMBIC_INI)
        scripts = ScriptDirectory.from_config(config)
        context = _InOneTransaction(connection.dialect, connection, {"target_metadata": Base.metadata})
        with EnvironmentContext(config, scripts), Operations.context(context):
            for script in reversed(list(scripts.iterate_revisions("head", TUTORIAL_HEAD))):
                event.listen(connection, "before_cursor_execute", _put_in_one_transaction, retval=True)
                script.module.upgrade()
                event.remove(connection, "before_cursor_execute", _put_in_one_transaction)
                self._after_migration(connection, plan, script)
        version = {"revision": scripts.get_current_head()}
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), version)
        # Autovacuum would do it minutes later, and until then large tables are read with plans for empty ones.
        connection.exec_driver_sql(f"ANALYZE {', '.join(Base.metadata.tables)}")

    def _after_migration(self, connection: Connection, plan: Plan, script: Script) -> None:
        """Copy former columns and tables, disabled accounts and valid tokens to the new schema."""
        for revision, table, column, types in CARRIED:
            if script.revision != revision:
                continue
            former = shape.read(connection).tables[table].columns.get(f"former_{column}")
            if former is not None and former.type.startswith(types):
                connection.exec_driver_sql(_carry(table, column, former.type, self.time_zone))
        if script.revision == ACCOUNTS_REVISION and plan.inactive:
            condition = " OR ".join(f"({each})" for each in plan.inactive)
            connection.exec_driver_sql(
                f"UPDATE users SET is_active = false WHERE {condition}", execution_options={"no_parameters": True}
            )
        if script.revision == SESSIONS_REVISION:
            connection.execute(
                text(KEEP_SIGNED_IN),
                {
                    "first": adopted_session_id(0),
                    "lifetime": self.tokens_live,
                    "user_agent": "signed in before the adoption",
                },
            )
        self.report(f"migration {script.revision}: {(script.doc or '').splitlines()[0]}")
        for each in plan.takeovers:
            if each.revision == script.revision:
                for statement in each.statements:
                    connection.execute(text(statement), each.parameters)
                self.report(each.what)


def _put_in_one_transaction(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
) -> tuple[str, Any]:
    for apart, together in IN_ONE_TRANSACTION:
        statement = statement.replace(apart, together)
    return statement, parameters


def _carry(table: str, column: str, found: str, time_zone: str) -> str:
    if column == "username":
        return CARRY_USERNAMES
    value = f"former_{column}"
    if column in MAX_CHARACTERS:
        value = f"nullif(btrim(left({value}, {MAX_CHARACTERS[column]})), '')"
    if found.startswith(TIMES) and not found.endswith("with time zone"):
        value = f"{value}::timestamp AT TIME ZONE '{time_zone}'"
    return f"UPDATE {table} SET {column} = {value} WHERE former_{column} IS NOT NULL"
