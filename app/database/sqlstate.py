"""SQLSTATEs: which code an error has, and which codes allow a retry.

The names of codes are those of `psycopg2.errorcodes`, which are PostgreSQL's (its manual, appendix A).
"""

from typing import NamedTuple

import psycopg2
from psycopg2 import errorcodes as codes
from sqlalchemy.exc import DBAPIError, OperationalError

from app.database.watchdog import is_server_silent

# PostgreSQL advises a retry.
_TRY_AGAIN = frozenset({codes.SERIALIZATION_FAILURE, codes.DEADLOCK_DETECTED})
# `statement_timeout` or `lock_timeout` ended the statement: a retry of each item alone would take as long.
_TOOK_TOO_LONG = frozenset({codes.QUERY_CANCELED, codes.LOCK_NOT_AVAILABLE})
# The connection broke, resources are exhausted, or an operator intervened (shutdown, timeout).
_TEMPORARY = (
    codes.CLASS_CONNECTION_EXCEPTION, codes.CLASS_INSUFFICIENT_RESOURCES, codes.CLASS_OPERATOR_INTERVENTION,
    codes.LOCK_NOT_AVAILABLE, *sorted(_TRY_AGAIN),
)  # fmt: skip
RETRIES = 3
MAX_PAUSE_SECONDS = 0.05


class Named(NamedTuple):
    """What an error names; None for what it does not."""

    table: str | None
    column: str | None
    constraint: str | None


def sqlstate_of(error: object) -> str | None:
    """Return the SQLSTATE of an error of psycopg2 or SQLAlchemy.

    None if the server reported none.
    """
    state: str | None = getattr(getattr(error, "orig", error), "pgcode", None)
    return state


def named_by(error: object) -> Named:
    """Return the table, column and constraint that a database error names.

    The error is one of psycopg2 or SQLAlchemy.
    """
    diagnosis = getattr(getattr(error, "orig", error), "diag", None)
    return Named(*(getattr(diagnosis, f"{kind}_name", None) for kind in Named._fields))


def is_worth_a_retry(error: object) -> bool:
    """Whether the error is a deadlock or a serialization failure."""
    return sqlstate_of(error) in _TRY_AGAIN


def is_timeout(error: object) -> bool:
    """Whether the statement took too long, or waited too long for a lock."""
    return isinstance(error, DBAPIError) and sqlstate_of(error) in _TOOK_TOO_LONG


def is_temporary(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later.

    It may where the server reported no SQLSTATE.
    """
    state = sqlstate_of(error)
    return error.connection_invalidated or state is None or state.startswith(_TEMPORARY)


def is_connection_lost(error: object) -> bool:
    """Whether the connection broke, at any moment, or none could be made."""
    if isinstance(error, OperationalError) and sqlstate_of(error) is None:
        return True
    if isinstance(error, psycopg2.Error):  # Raised outside of a statement, perhaps after its commit.
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def may_read_again(error: object) -> bool:
    """Whether a read may be repeated.

    It may if its connection broke but the server is not silent. A second wait for a silent server would double the
    response time.
    """
    return is_connection_lost(error) and not is_server_silent(error)
