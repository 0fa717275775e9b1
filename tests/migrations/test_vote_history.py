"""Migration 0033: votes are counted without a history, up and down, over posts with votes."""

import pytest
from sqlalchemy import URL, Connection, text

from alembic import command
from tests.migrations.conftest import config_for

COUNTS = "SELECT post_id, votes FROM post_stats ORDER BY post_id"
HISTORY = "SELECT post_id, votes_before FROM post_stats_history ORDER BY id"


@pytest.fixture
def old(url: URL, looking: Connection) -> Connection:
    """A database at revision 0032: three posts, of which two users voted for the first and one for the second."""
    command.upgrade(config_for(url), "0032")
    for name in ("a", "b"):
        looking.execute(
            text("INSERT INTO users (email, email_canonical, password_hash) VALUES (:name, :name, '')"), {"name": name}
        )
    looking.execute(
        text("INSERT INTO posts (title, content, owner_id) SELECT n, '', 1 FROM generate_series(1, 3) AS n")
    )
    looking.execute(text("INSERT INTO votes (post_id, user_id) VALUES (1, 1), (1, 2), (2, 1)"))
    return looking


def table_of(looking: Connection, statement: str) -> list[tuple[int, int]]:
    return [(post_id, votes) for post_id, votes in looking.execute(text(statement))]


def test_counts_stay_right_and_only_the_old_functions_write_history(url: URL, old: Connection) -> None:
    assert table_of(old, HISTORY) == [(1, 0), (2, 0)]

    command.upgrade(config_for(url), "0033")
    assert table_of(old, COUNTS) == [(1, 2), (2, 1), (3, 0)]
    old.execute(text("INSERT INTO votes (post_id, user_id) VALUES (3, 1), (3, 2), (2, 2)"))
    old.execute(text("DELETE FROM votes WHERE post_id = 1 AND user_id = 1"))
    old.execute(text("UPDATE votes SET post_id = 1 WHERE post_id = 3 AND user_id = 1"))
    assert table_of(old, COUNTS) == [(1, 2), (2, 2), (3, 1)]
    assert table_of(old, HISTORY) == []

    command.downgrade(config_for(url), "0032")
    assert table_of(old, COUNTS) == [(1, 2), (2, 2), (3, 1)]
    old.execute(text("DELETE FROM votes WHERE post_id = 2"))
    assert table_of(old, COUNTS) == [(1, 2), (2, 0), (3, 1)]
    assert table_of(old, HISTORY) == [(2, 2)]


def test_what_the_release_before_does_with_the_history_still_succeeds(url: URL, old: Connection) -> None:
    command.upgrade(config_for(url), "0033")

    # Its repair of counts, its cleanup, and the history part of its pages, for a cursor from before the migration.
    old.execute(text("INSERT INTO post_stats_history (post_id, votes_before) VALUES (1, 7)"))
    assert old.execute(text("DELETE FROM post_stats_history WHERE changed_at <= now()")).rowcount == 1
    moved = """
        SELECT DISTINCT ON (post_id) post_id, votes_before FROM post_stats_history
        WHERE transaction_id >= pg_snapshot_xmin(CAST(:snapshot AS pg_snapshot))
            AND NOT pg_visible_in_snapshot(transaction_id, CAST(:snapshot AS pg_snapshot))
        ORDER BY post_id, id
    """
    assert old.execute(text(moved), {"snapshot": "700:700:"}).all() == []
    # A cursor of this release has no snapshot.
    old.execute(text("INSERT INTO post_stats_history (post_id, votes_before) VALUES (1, 7)"))
    assert old.execute(text(moved), {"snapshot": None}).all() == []
