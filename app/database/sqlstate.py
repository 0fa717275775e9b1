"""Which errors of PostgreSQL and its driver allow a retry."""

import psycopg2
from sqlalchemy.exc import DBAPIError, OperationalError

from app.database.watchdog import is_server_silent

# serialization_failure, deadlock_detected: PostgreSQL advises a retry.
TRY_AGAIN = frozenset({"40001", "40P01"})
# query_canceled (by `statement_timeout`), lock_not_available: a retry of each item alone would take as long.
TOOK_TOO_LONG = frozenset({"57014", "55P03"})
RETRIES = 3
MAX_PAUSE_SECONDS = 0.05


def is_connection_lost(error: object) -> bool:
    """Whether the connection broke, at any moment, or none could be made."""
    if isinstance(error, OperationalError) and getattr(error.orig, "pgcode", None) is None:
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
