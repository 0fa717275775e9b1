"""Migrations 0056 and 0057: columns of the RealWorld API, beside columns of the same names."""

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for, drift

BEFORE = "0055"
POST = "INSERT INTO posts (title, content, owner_id) VALUES ('1', 'text', 1)"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database of the revision before, with a user and a post."""
    command.upgrade(config_for(url), BEFORE)
    looking.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')"))
    looking.execute(text(POST))
    return looking


def test_posts_have_an_empty_description_also_those_of_the_release_before(url: URL, old: Connection) -> None:
    for number in (2, 3):
        command.upgrade(config_for(url), "head")
        assert drift(old) == []
        old.execute(text(POST))
        posts = old.execute(text("SELECT content, description, version FROM posts")).all()
        assert posts == [("text", "", 1)] * number
        assert old.execute(text("SELECT image_url FROM users")).all() == [(None,)]
        command.downgrade(config_for(url), BEFORE)
        assert old.execute(text("SELECT content, version FROM posts")).all() == [("text", 1)] * number


def test_columns_with_our_names_keep_their_values_under_others(url: URL, old: Connection) -> None:
    old.execute(text("ALTER TABLE posts ADD COLUMN description varchar(9) DEFAULT 'mine'"))
    old.execute(text("ALTER TABLE users ADD COLUMN image_url integer NOT NULL DEFAULT 7"))

    command.upgrade(config_for(url), "head")

    assert drift(old) == []
    assert old.execute(text("SELECT description_before_0056, description FROM posts")).one() == ("mine", "")
    assert old.execute(text("SELECT image_url_before_0057, image_url FROM users")).one() == (7, None)
    command.downgrade(config_for(url), BEFORE)
    assert old.execute(text("SELECT description FROM posts")).scalar() == "mine"
    assert old.execute(text("SELECT image_url FROM users")).scalar() == 7
