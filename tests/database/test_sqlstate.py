"""SQLSTATEs are read in one place, for every kind of error."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import errorcodes as codes
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.database.sqlstate import is_temporary, is_timeout, is_worth_a_retry, named_by, sqlstate_of
from tests.conftest import ROOT

# It is imported by sqlstate.py, and reads a typed attribute of psycopg2's own error.
WATCHDOG = ROOT / "app/database/watchdog.py"


def raised(connection: Connection, code: str) -> DBAPIError:
    """The error of a statement that the server ends with this code."""
    with pytest.raises(DBAPIError) as caught, connection.begin_nested():
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = '{code}'; END $$"))
    return caught.value


@pytest.fixture
def transaction(connection: Connection) -> Iterator[Connection]:
    with connection.engine.connect() as opened:
        yield opened


@pytest.mark.parametrize(
    ("code", "retries", "times_out", "passes"),
    [
        (codes.SERIALIZATION_FAILURE, True, False, True),
        (codes.DEADLOCK_DETECTED, True, False, True),
        (codes.QUERY_CANCELED, False, True, True),
        (codes.LOCK_NOT_AVAILABLE, False, True, True),
        (codes.ADMIN_SHUTDOWN, False, False, True),
        (codes.TOO_MANY_CONNECTIONS, False, False, True),
        (codes.UNIQUE_VIOLATION, False, False, False),
        (codes.UNDEFINED_TABLE, False, False, False),
    ],
)
def test_errors_of_the_server_are_told_apart_by_their_code(
    transaction: Connection, code: str, retries: bool, times_out: bool, passes: bool
) -> None:
    error = raised(transaction, code)

    assert sqlstate_of(error) == sqlstate_of(error.orig) == code
    assert (is_worth_a_retry(error), is_timeout(error), is_temporary(error)) == (retries, times_out, passes)


def test_broken_constraint_is_named_with_its_table(transaction: Connection) -> None:
    with pytest.raises(DBAPIError) as caught:
        transaction.execute(text("INSERT INTO votes (post_id, user_id) VALUES (1, 1)"))

    assert named_by(caught.value) == named_by(caught.value.orig) == ("votes", None, "votes_posts_fkey")


def test_error_without_an_answer_of_the_server_has_no_code_and_names_nothing() -> None:
    with pytest.raises(OperationalError) as caught:
        create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none").connect()

    assert isinstance(caught.value.orig, psycopg2.OperationalError)
    assert sqlstate_of(caught.value) is None
    assert named_by(caught.value) == (None, None, None)
    assert is_temporary(caught.value)
    assert sqlstate_of(ValueError()) is None


def test_no_other_module_reads_codes_by_itself() -> None:
    lookup = re.compile(r"\bpgcode\b|\bsqlstate\b['\"]|['\"]constraint_name['\"]|\.diag\b")
    modules = [path for folder in ("app", "alembic", "bench") for path in (ROOT / folder).rglob("*.py")]
    found: set[Path] = {path for path in modules if lookup.search(path.read_text())}

    assert found <= {ROOT / "app/database/sqlstate.py", WATCHDOG}
