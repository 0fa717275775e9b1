"""The words of posts move from PostgreSQL's parser to our functions while the previous release serves."""

import logging

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for

POSTS = 2_500
# The queries of the release before.
OLD_SEARCH = text("SELECT count(*) FROM posts WHERE search @@ websearch_to_tsquery('simple', :words)")
NEW_SEARCH = text("SELECT count(*) FROM posts WHERE search @@ search_query(:words, false)")
NOT_FILLED_IN = text("SELECT count(*) FROM posts WHERE search IS DISTINCT FROM search_vector(title, content)")


def write_posts(connection: Connection, amount: int) -> None:
    connection.execute(
        text("""
            INSERT INTO posts (title, content, owner_id, published)
            SELECT 'quick post ' || n, 'Vec<String> for bob@example.com', users.id, n % 10 > 0
            FROM users, generate_series(1, :amount) AS n
        """),
        {"amount": amount},
    )


@pytest.fixture
def before(url: URL, looking: Connection) -> Connection:
    """A database with posts at the revision before."""
    command.upgrade(config_for(url), "0023")
    looking.execute(text("INSERT INTO users (email, email_canonical, password_hash) VALUES ('a', 'a', '')"))
    write_posts(looking, POSTS)
    return looking


def test_the_release_before_finds_old_and_new_posts_at_every_step(url: URL, before: Connection) -> None:
    for revision in ("0024", "0028"):
        command.upgrade(config_for(url), revision)
        write_posts(before, 1)
        total = before.scalar(text("SELECT count(*) FROM posts"))
        assert before.scalar(OLD_SEARCH, {"words": "quick post"}) == total
    assert before.scalar(NEW_SEARCH, {"words": "bob@example"}) == total
    assert before.scalar(NEW_SEARCH, {"words": "string"}) == total


def test_posts_are_filled_in_by_batches_that_can_be_cut_off(
    url: URL, before: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    command.upgrade(config_for(url), "0024")
    assert before.scalar(NOT_FILLED_IN) == POSTS
    # As after a run that was cut off.
    before.execute(text("UPDATE posts SET search = search_vector(title, content) WHERE id <= 1500"))
    places = text("SELECT id, ctid::text, version, updated_at FROM posts WHERE id <= 1500 ORDER BY id")
    done = before.execute(places).all()

    with caplog.at_level(logging.INFO, "alembic.runtime.migration"):
        command.upgrade(config_for(url), "0028")

    assert before.scalar(NOT_FILLED_IN) == 0
    assert before.execute(places).all() == done, "rows were written that were done already"
    assert [record.getMessage() for record in caplog.records if "indexed posts" in record.getMessage()] == [
        "indexed posts up to 1000 of 2500", "indexed posts up to 2000 of 2500", "indexed posts up to 2500 of 2500"
    ]  # fmt: skip


def test_the_step_back_gives_the_words_of_the_revision_before(url: URL, before: Connection) -> None:
    at_first = before.execute(text("SELECT id, search::text FROM posts ORDER BY id")).all()
    command.upgrade(config_for(url), "0028")

    command.downgrade(config_for(url), "0023")

    assert before.execute(text("SELECT id, search::text FROM posts ORDER BY id")).all() == at_first
    write_posts(before, 1)
    assert before.scalar(OLD_SEARCH, {"words": "quick post"}) == POSTS + 1
    assert before.scalar(text("SELECT count(*) FROM pg_indexes WHERE indexname = 'posts_search_idx'")) == 1
