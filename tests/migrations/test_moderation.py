"""Migrations 0049 to 0052: moderation, beside tables and columns of the same names."""

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for, drift

BEFORE = "0047"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database of the revision before, with a user, a post and two comments, of which one is a reply."""
    command.upgrade(config_for(url), BEFORE)
    for statement in (
        "INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')",
        "INSERT INTO posts (title, content, owner_id) VALUES ('1', '', 1)",
        "INSERT INTO comments (post_id, owner_id, content) VALUES (1, 1, 'first')",
        "INSERT INTO comments (post_id, parent_id, owner_id, content, depth) VALUES (1, 1, 1, 'reply', 1)",
    ):
        looking.execute(text(statement))
    return looking


def test_counts_follow_removals_and_are_right_again_after_a_downgrade(url: URL, old: Connection) -> None:
    for _ in range(2):
        command.upgrade(config_for(url), "head")
        assert drift(old) == []
        assert old.scalar(text("SELECT comments FROM post_stats")) == 2
        old.execute(text("UPDATE comments SET removal_reason = 'Spam' WHERE id = 1"))
        assert old.scalar(text("SELECT comments FROM post_stats")) == 1
        assert old.execute(text("SELECT count(*) FROM pg_constraint WHERE NOT convalidated")).scalar() == 0
        command.downgrade(config_for(url), BEFORE)
        assert old.scalar(text("SELECT comments FROM post_stats")) == 2
        assert old.execute(text("SELECT content, deleted_at FROM comments ORDER BY id")).all() == [
            ("first", None), ("reply", None),
        ]  # fmt: skip


def test_comment_that_loses_its_author_is_no_longer_removed(url: URL, old: Connection) -> None:
    command.upgrade(config_for(url), "head")
    old.execute(text("UPDATE comments SET removal_reason = 'Spam' WHERE id = 1"))

    old.execute(text("UPDATE comments SET owner_id = NULL WHERE id = 1"))

    assert old.execute(text("SELECT content, removal_reason FROM comments WHERE id = 1")).one() == ("", None)
    assert old.scalar(text("SELECT comments FROM post_stats")) == 1


FOREIGN = """
    CREATE TABLE reports (id serial CONSTRAINT reports_pkey PRIMARY KEY, who bigint REFERENCES users);
    CREATE INDEX reports_id_idx ON reports (who);
    CREATE VIEW moderation_log AS SELECT * FROM reports;
    INSERT INTO reports (who) VALUES (1);
    ALTER TABLE users ADD COLUMN ban_reason varchar(9) DEFAULT 'mine';
    ALTER TABLE posts ADD COLUMN removal_reason integer DEFAULT 7;
    ALTER TABLE comments ADD COLUMN removal_reason boolean DEFAULT true;
"""


def test_tables_and_columns_with_our_names_keep_their_rows_under_others(url: URL, old: Connection) -> None:
    for statement in FOREIGN.split(";")[:-1]:
        old.execute(text(statement))

    command.upgrade(config_for(url), "head")

    assert drift(old) == []
    assert old.execute(text("SELECT id, who FROM reports_before_0049")).all() == [(1, 1)]
    assert old.execute(text("SELECT count(*) FROM moderation_log_before_0049")).scalar() == 1
    assert old.execute(text("SELECT ban_reason_before_0049, ban_reason FROM users")).one() == ("mine", None)
    assert old.execute(text("SELECT removal_reason_before_0050, removal_reason FROM posts")).one() == (7, None)
    kept = "SELECT removal_reason_before_0051, removal_reason FROM comments WHERE id = 1"
    assert old.execute(text(kept)).one() == (True, None)
    command.downgrade(config_for(url), BEFORE)
    assert old.scalar(text("SELECT ban_reason FROM users")) == "mine"
