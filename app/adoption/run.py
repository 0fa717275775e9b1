"""Doing what the plan says, then migrating; under the migrations' lock, with a report of each step."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from alembic import command
from app.adoption import names, shape
from app.adoption.examination import examine
from app.adoption.plan import Plan
from app.models.session import adopted_session_id
from app.services.health import ALEMBIC_INI, MIGRATION_LOCK

Report = Callable[[str], None]
# What a migration adds and a descendant may have had already: (revision, table, column, kinds of type).
POLL_SECONDS = 0.2
TIMES = ("timestamp", "date")
CARRIED = (
    ("0008", "users", "is_active", ("boolean",)),
    ("0008", "users", "username", ("character", "text", "citext")),
    ("0009", "posts", "updated_at", TIMES),
    ("0010", "votes", "created_at", TIMES),
)
# A name that the API would take, unless another user has it; of several the first.
CARRY_USERNAMES = """
    UPDATE users SET username = former_username
    WHERE id IN (SELECT min(id) FROM users GROUP BY lower(former_username COLLATE "C"))
        AND former_username ~ '^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$' AND former_username !~* '^user[0-9]+$'
        AND length(former_username) BETWEEN 3 AND 30
"""
# Where sessions have both their ends. Nobody has one yet; and this revision goes through all numbers up to the highest.
SESSIONS_REVISION = "0016"
KEEP_SIGNED_IN = """
    INSERT INTO sessions (id, user_id, expires_at, ends_at, user_agent)
    SELECT :first + id, id, now() + :lifetime, now() + :lifetime, :user_agent FROM users
"""


class CannotAdopt(Exception):
    """The database was not adopted. The message is one line."""


def look(engine: Engine, time_zone: str = "UTC") -> Plan:
    """Examine the database, in a transaction that cannot write, when nobody migrates it: the catalogue keeps still.

    As the migrations do, it asks for the lock again and again: who waits for it holds a snapshot, for which
    CREATE INDEX CONCURRENTLY in the other run would wait.
    """
    while True:
        with engine.begin() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            if connection.scalar(text("SELECT pg_try_advisory_xact_lock_shared(:key)"), {"key": MIGRATION_LOCK}):
                return examine(connection, time_zone)
        time.sleep(POLL_SECONDS)


def adopt(url: URL, report: Report, *, tokens_live: timedelta, time_zone: str = "UTC") -> None:
    """Adopt the database, or go on where a run was broken off. Raises `CannotAdopt`.

    The first part is one transaction; then every migration is one. `report` is told of each that is done. Tokens that
    were given until now are accepted for so long.
    """
    config = Config(ALEMBIC_INI)
    config.attributes |= {
        "url": url,
        "configure_logging": False,
        "prepare": partial(_prepare, report=report, time_zone=time_zone),
        "on_version_apply": partial(_after_migration, report=report, tokens_live=tokens_live, time_zone=time_zone),
    }
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        # The lines after the first may quote what is in rows.
        reason = str(error.orig).strip().splitlines()[0]
        raise CannotAdopt(f"{reason}; that step changed nothing: mend it and run this again") from None


def _prepare(connection: Connection, report: Report, time_zone: str) -> None:
    with connection.begin():
        if tables := names.find_tables(shape.read(connection)).values():
            # Whoever writes meanwhile would write what has not been looked at.
            locked = ", ".join(shape.quoted(table.name) for table in tables)
            connection.exec_driver_sql(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        plan = examine(connection, time_zone)
        if plan.refusals:
            raise CannotAdopt(plan.refusals[0])
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        for what, statements in plan.steps:
            for statement in statements:
                # A name may hold a `%`, which is no parameter's.
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            report(what)


def _after_migration(*, ctx: Any, step: Any, report: Report, tokens_live: timedelta, time_zone: str, **_: Any) -> None:
    """In the migration's own transaction: take over what a column of the same name held, and who is signed in."""
    connection: Connection = ctx.connection
    for revision, table, column, types in CARRIED:
        if step.up_revision_id != revision:
            continue
        former = shape.read(connection).tables[table].columns.get(f"former_{column}")
        if former is not None and former.type.startswith(types):
            connection.exec_driver_sql(_carry(table, column, former.type, time_zone))
    if step.up_revision_id == SESSIONS_REVISION:
        connection.execute(
            text(KEEP_SIGNED_IN),
            {"first": adopted_session_id(0), "lifetime": tokens_live, "user_agent": "signed in before the adoption"},
        )
    report(f"migration {step.up_revision_id}: {step.up_revision.doc.splitlines()[0]}")


def _carry(table: str, column: str, found: str, time_zone: str) -> str:
    if column == "username":
        return CARRY_USERNAMES
    value = f"former_{column}"
    if found.startswith(TIMES) and not found.endswith("with time zone"):
        value = f"{value}::timestamp AT TIME ZONE '{time_zone}'"
    return f"UPDATE {table} SET {column} = {value} WHERE former_{column} IS NOT NULL"
