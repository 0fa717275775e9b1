"""Migrations 0036 to 0038: profiles and counts, over existing posts and tables of the same names."""

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for, drift

BEFORE = "0035"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database of the release before: three users, of whom the first has two posts and a draft, the second one."""
    command.upgrade(config_for(url), BEFORE)
    for name in ("a", "b", "c"):
        looking.execute(
            text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:name, :name, '')"), {"name": name}
        )
    looking.execute(
        text("""
            INSERT INTO posts (title, content, owner_id, published)
            VALUES ('1', '', 1, true), ('2', '', 1, true), ('3', '', 1, false), ('4', '', 2, true)
        """)
    )
    return looking


def counts(looking: Connection) -> list[tuple[int, int]]:
    return [(row[0], row[1]) for row in looking.execute(text("SELECT user_id, posts FROM user_stats ORDER BY 1"))]


def test_existing_posts_are_counted_and_again_after_a_downgrade(url: URL, old: Connection) -> None:
    for _ in range(2):
        command.upgrade(config_for(url), "head")
        assert counts(old) == [(1, 2), (2, 1)]
        old.execute(text("DELETE FROM posts WHERE title = 'new'"))
        command.downgrade(config_for(url), BEFORE)


def test_posts_written_between_the_migrations_are_counted_once(url: URL, old: Connection) -> None:
    command.upgrade(config_for(url), "0037")
    old.execute(text("INSERT INTO posts (title, content, owner_id) VALUES ('5', '', 3), ('6', '', 2)"))
    old.execute(text("DELETE FROM posts WHERE title = '1'"))

    command.upgrade(config_for(url), "0038")

    assert counts(old) == [(1, 1), (2, 2), (3, 1)]


def test_interrupted_filling_is_done_again(url: URL, old: Connection) -> None:
    command.upgrade(config_for(url), "0037")
    old.execute(text("INSERT INTO user_stats (user_id, posts) VALUES (1, 2), (3, 8)"))

    command.upgrade(config_for(url), "0038")

    assert counts(old) == [(1, 2), (2, 1), (3, 0)]


FOREIGN = """
    CREATE TABLE follows (id serial CONSTRAINT follows_pkey PRIMARY KEY, who integer REFERENCES users);
    CREATE INDEX blocks_blocked_id_blocker_id_idx ON follows (who);
    CREATE VIEW bookmarks AS SELECT * FROM follows;
    CREATE SEQUENCE user_stats;
    INSERT INTO follows (who) VALUES (1), (2);
    ALTER TABLE users ADD COLUMN bio text, ADD COLUMN display_name varchar(10);
    UPDATE users SET bio = 'about ' || id, display_name = 'name';
"""


def test_tables_and_columns_with_our_names_keep_their_rows_under_others(url: URL, old: Connection) -> None:
    for statement in FOREIGN.split(";")[:-1]:
        old.execute(text(statement))

    command.upgrade(config_for(url), "head")

    assert drift(old) == []
    assert old.execute(text("SELECT id, who FROM follows_before_0036 ORDER BY 1")).all() == [(1, 1), (2, 2)]
    assert old.execute(text("SELECT count(*) FROM bookmarks_before_0036")).scalar() == 2
    assert old.execute(text("SELECT bio_before_0036, display_name_before_0036, bio FROM users WHERE id = 2")).one() == (
        "about 2", "name", None,
    )  # fmt: skip
    kept = text("""
        SELECT relname FROM pg_class WHERE relname LIKE '%before_0036' AND relkind IN ('i', 'S') ORDER BY relname
    """)
    assert old.scalars(kept).all() == [
        "blocks_blocked_id_blocker_id_idx_before_0036", "follows_pkey_before_0036", "user_stats_before_0036",
    ]  # fmt: skip
    assert old.execute(text("INSERT INTO follows_before_0036 (who) VALUES (3) RETURNING id")).scalar() == 3
