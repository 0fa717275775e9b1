"""Migration 0047: a table of your own with the name `invites` keeps its rows."""

from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for, drift

NEW = "INSERT INTO invites_before_0047 (token_hash) VALUES ('new') RETURNING id"


def test_a_table_of_this_name_keeps_its_rows_under_another(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "0046")
    looking.execute(text("CREATE TABLE invites (id serial PRIMARY KEY, token_hash text UNIQUE)"))
    looking.execute(text("INSERT INTO invites (token_hash) VALUES ('kept')"))

    command.upgrade(config_for(url), "head")

    assert drift(looking) == []
    assert looking.execute(text("SELECT id, token_hash FROM invites_before_0047")).all() == [(1, "kept")]
    assert looking.execute(text(NEW)).scalar() == 2
