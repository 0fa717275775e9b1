"""Migration 0035 (tags), up and down: over posts, beside other software's tables of the same names, and in adoption."""

import pytest
from sqlalchemy import URL, Connection, Engine, text

from alembic import command
from tests.migrations import descendants
from tests.migrations.conftest import config_for
from tests.migrations.test_descendants import adopt, examine, rows
from tests.services.test_tag_counts import wrong_tags

BEFORE = "0034"
# As a descendant of the tutorial has them, by SQLAlchemy's defaults.
FOREIGN = """
    CREATE TABLE tags (id serial PRIMARY KEY, name varchar UNIQUE);
    CREATE TABLE post_tags (
        post_id integer REFERENCES posts ON DELETE CASCADE, tag_id integer REFERENCES tags,
        PRIMARY KEY (post_id, tag_id)
    );
    CREATE VIEW tag_stats AS SELECT tag_id, count(*) FROM post_tags GROUP BY tag_id;
    CREATE TABLE others (id serial PRIMARY KEY);
    CREATE INDEX tag_follows_tag_id_user_id_idx ON others (id);
    ALTER TABLE posts ADD tags varchar DEFAULT 'theirs';
    INSERT INTO tags (name) VALUES ('theirs'), ('other');
    INSERT INTO post_tags SELECT posts.id, tags.id FROM posts, tags;
"""
KEPT = "SELECT tag.id, name, post_id FROM {} AS tag JOIN {} ON tag_id = tag.id ORDER BY 1, 3"
THEIRS = KEPT.format("tags", "post_tags")
BESIDE = KEPT.format("tags_before_0035", "post_tags_before_0035")
FORMER = KEPT.format("former_tags", "former_post_tags")


def write(connection: Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(text(statement))


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database at the revision before, with two posts."""
    command.upgrade(config_for(url), BEFORE)
    write(
        looking,
        """
        INSERT INTO users (email, email_canonical, password_hash) VALUES ('a@b.c', 'a@b.c', '');
        INSERT INTO posts (title, content, owner_id) SELECT title, '', id FROM users, (VALUES ('a'), ('b')) AS t (title)
        """,
    )
    return looking


def test_posts_are_not_rewritten_and_begin_without_tags(url: URL, old: Connection) -> None:
    file = old.scalar(text("SELECT pg_relation_filenode('posts')"))

    command.upgrade(config_for(url), "head")

    assert old.scalar(text("SELECT pg_relation_filenode('posts')")) == file, "the table was rewritten"
    assert rows(old, "SELECT DISTINCT tags FROM posts") == [([],)]
    old.execute(text("UPDATE posts SET tags = ARRAY[title, 'both']"))
    assert rows(old, "SELECT name, posts FROM tags JOIN tag_stats ON tag_id = id ORDER BY 1") == [
        ("a", 1), ("b", 1), ("both", 2),
    ]  # fmt: skip
    assert wrong_tags(old) == []


def test_tables_of_other_software_are_kept_under_another_name(url: URL, old: Connection) -> None:
    write(old, FOREIGN)
    before = rows(old, THEIRS)
    assert len(before) == 4

    command.upgrade(config_for(url), "head")

    assert rows(old, BESIDE) == before
    assert rows(old, "SELECT count FROM tag_stats_before_0035") == [(2,), (2,)]
    assert rows(old, "SELECT DISTINCT tags_before_0035, tags FROM posts") == [("theirs", [])]
    old.execute(text("INSERT INTO tags_before_0035 (name) VALUES ('new')"))
    old.execute(text("UPDATE posts SET tags = '{ours}'"))
    assert rows(old, "SELECT posts FROM tag_stats") == [(2,)]

    command.downgrade(config_for(url), BEFORE)

    assert rows(old, THEIRS) == before
    assert rows(old, "SELECT DISTINCT tags FROM posts") == [("theirs",)]
    assert rows(old, "SELECT relname FROM pg_class WHERE relname LIKE '%0035'") == []
    command.upgrade(config_for(url), "head")
    assert rows(old, BESIDE) == before


def test_adoption_plans_to_keep_tables_of_tags_and_does(url: URL, engine: Engine, looking: Connection) -> None:
    descendants.make(looking, descendants.BY_ALEMBIC)
    write(looking, FOREIGN)
    before = rows(looking, THEIRS)
    assert len(before) >= 2

    plan = examine(engine)
    adopt(url)

    assert plan.refusals == []
    said = [what for what, _ in plan.steps]
    for name in ("table tags", "table post_tags", "view tag_stats", "sequence tags_id_seq", "column posts.tags"):
        former = "former_" + name.partition(" ")[2].rpartition(".")[2]
        assert f"rename {name}, whose name is needed, to {former}" in said
    assert rows(looking, FORMER) == before
    assert rows(looking, "SELECT DISTINCT former_tags, tags FROM posts") == [("theirs", ["theirs", "other"])]
    looking.execute(text("UPDATE posts SET tags = '{ours}'"))
    assert wrong_tags(looking) == []
