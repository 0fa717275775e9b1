"""Prepared statements return the same rows as unprepared ones, even after failures."""

import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, Integer, bindparam, create_engine, text
from sqlalchemy.exc import DataError
from sqlalchemy.pool import NullPool

from app.config import get_settings
from app.database import prepared
from app.database.engines import get_batch_engine
from app.database.prepared import MAX_PER_CONNECTION, MAY_PREPARE, PreparedStatement
from tests.fixtures import counted_queries


@pytest.fixture(autouse=True)
def _as_after_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreparedStatement, "_are_kept", True)


@pytest.fixture
def batch_connection(database: Engine) -> Iterator[Connection]:
    options = {"isolation_level": "AUTOCOMMIT", MAY_PREPARE: True}
    with create_engine(database.url, poolclass=NullPool).connect() as fresh:
        batch_connection = fresh.execution_options(**options)
        batch_connection.execute(text("SET plan_cache_mode = force_generic_plan"))
        yield batch_connection


def double(comment: str = "") -> PreparedStatement:
    return PreparedStatement(text(f"SELECT 2 * :n AS n {comment}").bindparams(bindparam("n", type_=Integer)))


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM pg_prepared_statements")))


def test_statement_is_prepared_with_its_first_execution_and_only_executed_from_then_on(
    batch_connection: Connection,
) -> None:
    statement = double()
    with counted_queries(batch_connection.engine) as sent:
        assert [statement.execute(batch_connection, {"n": n}).scalar_one() for n in (1, 2, 3)] == [2, 4, 6]
    assert [one.partition(" ")[0] for one in sent] == ["PREPARE", "EXECUTE", "EXECUTE"]
    assert len(names(batch_connection)) == 1


def test_plan_is_made_once(batch_connection: Connection) -> None:
    statement = double()
    for n in range(10):
        statement.execute(batch_connection, {"n": n})
    plans = batch_connection.execute(text("SELECT generic_plans, custom_plans FROM pg_prepared_statements")).one()
    assert tuple(plans) == (10, 0)


def test_connections_on_which_nothing_may_be_prepared_get_the_statement_itself(connection: Connection) -> None:
    with counted_queries(connection.engine) as sent:
        assert double().execute(connection, {"n": 1}).scalar_one() == 2
    assert sent[0].startswith("SELECT")
    assert names(connection) == []


def test_batch_queues_prepare_and_plan_once_unless_behind_a_pooler(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lane_of(*, behind_pooler: bool) -> tuple[object, str, str]:
        monkeypatch.setattr(get_settings(), "database_behind_pooler", behind_pooler)
        engine = get_batch_engine.__wrapped__()
        with engine.connect() as batch_connection:
            shown = [
                str(batch_connection.scalar(text(f"SHOW {name}"))) for name in ("plan_cache_mode", "statement_timeout")
            ]
            options = batch_connection.get_execution_options()
        engine.dispose()
        return options[MAY_PREPARE], *shown

    assert database
    assert lane_of(behind_pooler=False) == (True, "force_generic_plan", "10s")
    assert lane_of(behind_pooler=True) == (False, "auto", "0")


def test_statement_that_a_pooler_took_away_is_sent_as_it_is_from_then_on(
    batch_connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    statement, other = double(), double("-- another")
    statement.execute(batch_connection, {"n": 1})
    batch_connection.execute(text("DEALLOCATE ALL"))
    with caplog.at_level(logging.WARNING, logger=prepared.__name__), counted_queries(batch_connection.engine) as sent:
        assert statement.execute(batch_connection, {"n": 2}).scalar_one() == 4
        assert other.execute(batch_connection, {"n": 3}).scalar_one() == 6
    assert [one.partition(" ")[0] for one in sent] == ["EXECUTE", "SELECT", "SELECT"]
    assert "DATABASE_BEHIND_POOLER" in caplog.text


def test_an_already_prepared_statement_is_reused(batch_connection: Connection) -> None:
    double().execute(batch_connection, {"n": 1})
    batch_connection.info.pop("prepared")  # As if another process had prepared it, behind the same pooler.
    assert double().execute(batch_connection, {"n": 2}).scalar_one() == 4
    assert double().execute(batch_connection, {"n": 3}).scalar_one() == 6
    assert len(names(batch_connection)) == 1


def test_first_execution_that_fails_leaves_the_statement_usable(batch_connection: Connection) -> None:
    statement = PreparedStatement(text("SELECT 6 / :n").bindparams(bindparam("n", type_=Integer)))
    with pytest.raises(DataError):
        statement.execute(batch_connection, {"n": 0})
    assert statement.execute(batch_connection, {"n": 3}).scalar_one() == 2
    assert statement.execute(batch_connection, {"n": 2}).scalar_one() == 3


def test_a_connection_holds_a_bounded_number_of_plans(batch_connection: Connection) -> None:
    for number in range(MAX_PER_CONNECTION + 10):
        assert double(f"-- {number}").execute(batch_connection, {"n": number}).scalar_one() == 2 * number
    assert len(names(batch_connection)) == MAX_PER_CONNECTION


def test_the_statement_that_was_not_used_for_the_longest_time_makes_room(batch_connection: Connection) -> None:
    statements = [double(f"-- {number}") for number in range(MAX_PER_CONNECTION)]
    for statement in statements:
        statement.execute(batch_connection, {"n": 1})
    statements[0].execute(batch_connection, {"n": 1})
    with counted_queries(batch_connection.engine) as sent:
        assert double("-- new").execute(batch_connection, {"n": 2}).scalar_one() == 4
        statements[0].execute(batch_connection, {"n": 1})
        statements[2].execute(batch_connection, {"n": 1})
        assert statements[1].execute(batch_connection, {"n": 3}).scalar_one() == 6
    assert [one.partition(" ")[0] for one in sent] == ["DEALLOCATE", "EXECUTE", "EXECUTE", "DEALLOCATE"]


def test_percent_signs_of_the_text_stay(batch_connection: Connection) -> None:
    statement = PreparedStatement(
        text("SELECT 'a%b' LIKE 'a%' AND 7 % :n = 1").bindparams(bindparam("n", type_=Integer))
    )
    assert [statement.execute(batch_connection, {"n": 3}).scalar_one() for _ in range(2)] == [True, True]
