"""Migration 0034 keeps relations of other owners that have the names it needs."""

from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for

THEIRS = """
    CREATE TABLE comments (id serial PRIMARY KEY, post_id bigint REFERENCES posts ON DELETE CASCADE, body text);
    CREATE INDEX comments_owner_id_id_idx ON comments (body);
    CREATE TABLE likes (comment_id integer REFERENCES comments);
    CREATE VIEW comment_votes AS SELECT comment_id FROM likes;
    WITH written AS (
        INSERT INTO users (email, email_canonical, password_hash) VALUES ('ada@example.com', 'ada@example.com', '')
        RETURNING id
    ), post AS (INSERT INTO posts (title, content, owner_id) SELECT 't', 'c', id FROM written RETURNING id)
    INSERT INTO comments (post_id, body) SELECT id, 'me too' FROM post;
    INSERT INTO likes SELECT id FROM comments
"""


def test_tables_of_other_owners_are_kept_under_another_name(url: URL, looking: Connection) -> None:
    command.upgrade(config_for(url), "0033")
    looking.execute(text(THEIRS))

    command.upgrade(config_for(url), "head")

    theirs = "SELECT body, comment_id FROM comments_before_0034 JOIN comment_votes_before_0034 ON comment_id = id"
    assert looking.execute(text(theirs)).all() == [("me too", 1)]
    looking.execute(text("INSERT INTO comments_before_0034 (post_id, body) SELECT id, 'again' FROM posts"))
    looking.execute(text("INSERT INTO comments (post_id, owner_id, content) SELECT id, owner_id, 'ours' FROM posts"))
    assert looking.scalars(text("SELECT id FROM comments_before_0034 ORDER BY id")).all() == [1, 2]
    assert looking.execute(text("SELECT id, content FROM comments")).all() == [(1, "ours")]
    assert looking.scalars(text("SELECT comments FROM post_stats")).all() == [1]

    command.downgrade(config_for(url), "0033")
    assert looking.scalars(text("SELECT body FROM comments_before_0034 ORDER BY id")).all() == ["me too", "again"]
