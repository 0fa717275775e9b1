"""Migrations 0029 (`posts.first_published_at`) and 0030 (the index of words), up and down, over posts and drafts."""

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for

POSTS = "SELECT title, published, created_at FROM posts ORDER BY id"
INDEX = (
    "SELECT indexdef, indisvalid FROM pg_indexes JOIN pg_index ON indexrelid = indexname::regclass WHERE indexname = :n"
)


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database at revision 0028, with a post and a draft."""
    command.upgrade(config_for(url), "0028")
    looking.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a@b.c', 'a@b.c', '')"))
    looking.execute(
        text("""
            INSERT INTO posts (title, content, published, owner_id, created_at)
            SELECT title, '', published, users.id, '2024-03-10'
            FROM users, (VALUES ('post', true), ('draft', false)) AS new (title, published)
        """)
    )
    return looking


def test_no_post_is_rewritten_or_moved_by_the_column(url: URL, old: Connection) -> None:
    before = old.execute(text(POSTS)).all()
    file = old.scalar(text("SELECT pg_relation_filenode('posts')"))

    command.upgrade(config_for(url), "0029")
    assert old.execute(text(POSTS)).all() == before
    assert old.scalar(text("SELECT pg_relation_filenode('posts')")) == file, "the table was rewritten"

    old.execute(text("UPDATE posts SET first_published_at = '2025-01-01', created_at = '2025-01-01' WHERE id = 2"))
    moved = old.execute(text(POSTS)).all()
    command.downgrade(config_for(url), "0028")
    assert old.execute(text(POSTS)).all() == moved


def test_the_index_of_words_is_valid_and_found_again_after_a_run_that_was_cut_off(url: URL, old: Connection) -> None:
    def index() -> tuple[str, bool]:
        definition, is_valid = old.execute(text(INDEX), {"n": "posts_search_idx"}).one()
        return definition.partition(" USING ")[2], is_valid

    command.upgrade(config_for(url), "0029")
    old.execute(text("CREATE INDEX posts_search_new_idx ON posts USING gin (search)"))  # Of a run that was cut off.

    command.upgrade(config_for(url), "0030")
    assert index() == ("gin (search) WHERE published", True)
    command.downgrade(config_for(url), "0029")
    assert index() == ("gin (search)", True)
    assert old.scalar(text("SELECT to_regclass('posts_search_new_idx')")) is None
