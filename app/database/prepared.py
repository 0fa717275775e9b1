"""Prepared statements of the fast path.

A statement is compiled once per process and planned once per connection. psycopg2 has no prepared statements, but SQL
does. `PREPARE` is sent with a statement's first execution on a connection, later executions are only `EXECUTE`. This
halves PostgreSQL's work for a page (docs/decisions/0006).

A pooler in transaction mode (PgBouncer) loses prepared statements, because each transaction may get another server
connection. Names are hashes of the text, so a name never refers to another statement. When a statement is missing,
this process stops preparing. `DATABASE_BEHIND_POOLER=true` disables preparing from the start.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from psycopg2 import errorcodes as codes
from sqlalchemy import BindParameter, Connection, CursorResult, Select, TextClause
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from app.database.sqlstate import sqlstate_of

logger = logging.getLogger(__name__)

# Execution option of connections on which statements may be prepared.
MAY_PREPARE = "may_prepare"
# Each takes about 100 KB in the server process: at most 5 MB per connection. Past that number, the one that was not
# used for the longest time is dropped, so that a client that requests all kinds of pages does not keep others' kinds
# from being prepared.
MAX_PER_CONNECTION = 50

_DIALECT = psycopg2.dialect(paramstyle="numeric_dollar")
# The second: the cached plan no longer fits the tables.
_GONE = frozenset({codes.INVALID_SQL_STATEMENT_NAME, codes.FEATURE_NOT_SUPPORTED})


class PreparedStatement:
    """A statement with named parameters. Its best plan must not depend on values.

    A `LIMIT` must be in its text: for a parameter, PostgreSQL plans for a tenth of all rows.
    """

    _are_kept = True

    def __init__(self, statement: Select[*tuple[Any, ...]] | TextClause) -> None:
        self._statement = statement

    def execute(self, connection: Connection, parameters: Mapping[str, object]) -> CursorResult[Any]:
        """Execute the statement.

        On connections with the option `MAY_PREPARE` it is planned once.
        """
        if not (PreparedStatement._are_kept and connection.get_execution_options().get(MAY_PREPARE)):
            return connection.execute(self._statement, parameters)
        prepared: OrderedDict[str, None] = connection.info.setdefault("prepared", OrderedDict())
        try:
            return self._execute_prepared(connection, parameters, prepared)
        except DBAPIError as error:
            if sqlstate_of(error) not in _GONE:
                raise
        PreparedStatement._are_kept = False
        logger.warning(
            "stopped using prepared statements, because one was missing on its connection;"
            " if a pooler in transaction mode is in use, set DATABASE_BEHIND_POOLER=true"
        )
        return connection.execute(self._statement, parameters)

    def _execute_prepared(
        self, connection: Connection, parameters: Mapping[str, object], prepared: OrderedDict[str, None]
    ) -> CursorResult[Any]:
        values = tuple(
            process(parameters[name]) if process else parameters[name] for name, process in self._parameters.items()
        )
        if self._name in prepared:
            prepared.move_to_end(self._name)
            return connection.exec_driver_sql(self._execute, values)
        dropped = ""
        if len(prepared) >= MAX_PER_CONNECTION:
            dropped = f"DEALLOCATE {prepared.popitem(last=False)[0]}; "
        try:
            result = connection.exec_driver_sql(f"{dropped}{self._prepare}\n; {self._execute}", values)
        except DBAPIError as error:
            # Prepared by an execution that failed, or by another process behind the same pooler.
            if sqlstate_of(error) != codes.DUPLICATE_PREPARED_STATEMENT:
                raise
            result = connection.exec_driver_sql(self._execute, values)
        prepared[self._name] = None
        return result

    @cached_property
    def _compiled(self) -> SQLCompiler:
        return self._statement.compile(dialect=_DIALECT)

    @cached_property
    def _parameters(self) -> Mapping[str, Any]:
        """The bind processor of each parameter, by name, in the order of `$1`, `$2`, …"""
        binds: Mapping[str, BindParameter[Any]] = self._compiled.binds
        return {name: binds[name].type.bind_processor(_DIALECT) for name in self._compiled.positiontup or ()}

    @cached_property
    def _name(self) -> str:
        return "stmt_" + hashlib.blake2b(str(self._compiled).encode(), digest_size=16).hexdigest()

    @cached_property
    def _prepare(self) -> str:
        return f"PREPARE {self._name} AS {self._compiled}".replace("%", "%%")

    @cached_property
    def _execute(self) -> str:
        # Empty parentheses would be a syntax error.
        return f"EXECUTE {self._name} ({', '.join(['%s'] * len(self._parameters))})".replace(" ()", "")
