"""Statements of the hot paths: compiled once in a process, planned once on each connection.

psycopg2 knows no prepared statements, but SQL does: `PREPARE` goes along with a statement's first execution on a
connection, `EXECUTE` is all that follows. It halves what PostgreSQL does for a page (docs/decisions/0006).

A pooler that gives each transaction another server connection (PgBouncer) takes prepared statements away. They are
named after their text, so no connection can hold another statement under a name; when one is missing, this process
goes on without. `DATABASE_BEHIND_POOLER=true` spares it the attempt.
"""

import hashlib
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from sqlalchemy import BindParameter, Connection, CursorResult, Select, TextClause
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

logger = logging.getLogger(__name__)

# The execution option of connections on which statements may be prepared.
MAY_PREPARE = "may_prepare"
# Each costs the server process some 100 KB, so all cost a connection at most 5 MB.
MAX_PER_CONNECTION = 50

_DIALECT = psycopg2.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_ALREADY_THERE = "42P05"
# The name is unknown; the plan no longer fits the tables.
_GONE = frozenset({"26000", "0A000"})


class PreparedStatement:
    """A statement with named parameters, whose best plan does not depend on their values.

    A `LIMIT` must stand in its text: where it is a parameter, PostgreSQL plans for a tenth of all rows.
    """

    _are_kept = True

    def __init__(self, statement: Select[*tuple[Any, ...]] | TextClause) -> None:
        self._statement = statement

    def execute(self, connection: Connection, parameters: Mapping[str, object]) -> CursorResult[Any]:
        """The statement's result. On connections with the option `MAY_PREPARE` it is planned once."""
        if not (PreparedStatement._are_kept and connection.get_execution_options().get(MAY_PREPARE)):
            return connection.execute(self._statement, parameters)
        prepared: set[str] = connection.info.setdefault("prepared", set())
        if self._name not in prepared and len(prepared) >= MAX_PER_CONNECTION:
            return connection.execute(self._statement, parameters)
        try:
            return self._execute_prepared(connection, parameters, prepared)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in _GONE:
                raise
        PreparedStatement._are_kept = False
        logger.warning(
            "a prepared statement was gone: is there a pooler in transaction mode? Going on without;"
            " DATABASE_BEHIND_POOLER=true spares the attempt"
        )
        return connection.execute(self._statement, parameters)

    def _execute_prepared(
        self, connection: Connection, parameters: Mapping[str, object], prepared: set[str]
    ) -> CursorResult[Any]:
        values = tuple(
            process(parameters[name]) if process else parameters[name] for name, process in self._parameters.items()
        )
        if self._name in prepared:
            return connection.exec_driver_sql(self._execute, values)
        try:
            result = connection.exec_driver_sql(f"{self._prepare}\n; {self._execute}", values)
        except DBAPIError as error:
            # By an execution that failed, or by another process behind the same pooler.
            if getattr(error.orig, "pgcode", None) != _ALREADY_THERE:
                raise
            result = connection.exec_driver_sql(self._execute, values)
        prepared.add(self._name)
        return result

    @cached_property
    def _compiled(self) -> SQLCompiler:
        return self._statement.compile(dialect=_DIALECT)

    @cached_property
    def _parameters(self) -> Mapping[str, Any]:
        """By name, in the order of the statement's `$1`, `$2`, …, what makes a value the driver's."""
        binds: Mapping[str, BindParameter[Any]] = self._compiled.binds
        return {name: binds[name].type.bind_processor(_DIALECT) for name in self._compiled.positiontup or ()}

    @cached_property
    def _name(self) -> str:
        return "hot_" + hashlib.blake2b(str(self._compiled).encode(), digest_size=16).hexdigest()

    @cached_property
    def _prepare(self) -> str:
        return f"PREPARE {self._name} AS {self._compiled}".replace("%", "%%")

    @cached_property
    def _execute(self) -> str:
        # Empty brackets would be a syntax error.
        return f"EXECUTE {self._name} ({', '.join(['%s'] * len(self._parameters))})".replace(" ()", "")
