"""Counts of comments equal the rows, for every way to write them."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from app.services import recount
from tests.fixtures import Person
from tests.services.walking import rows


def wrong_counts() -> list[tuple[str, list[int]]]:
    return [(batch.table, batch.wrong) for batch in recount.recount(is_repairing=False) if batch.wrong]


@pytest.fixture
def posts(connection: Connection, make_post: Callable[..., int], make_person: Callable[..., Person]) -> list[int]:
    """Two posts with ten comments each, of which each has two replies; everyone voted for every other comment."""
    people = [make_person() for _ in range(3)]
    posts = [make_post(people[0]) for _ in range(2)]
    statements = (
        """
        INSERT INTO comments (post_id, owner_id, content)
        SELECT post, :owner, 'x' FROM unnest(CAST(:posts AS bigint[])) AS post, generate_series(1, 10)
        """,
        """
        INSERT INTO comments (post_id, parent_id, owner_id, content, depth)
        SELECT post_id, id, :other, 'x', 1 FROM comments, generate_series(1, 2)
        """,
        "INSERT INTO comment_votes SELECT c.id, users.id FROM comments AS c, users WHERE c.id % 2 = 0",
    )
    for statement in statements:
        connection.execute(text(statement), {"owner": people[1].id, "other": people[2].id, "posts": posts})
    return posts


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "DELETE FROM comment_votes WHERE comment_id % 4 = 0",
        "UPDATE comment_votes SET comment_id = comment_id - 1 WHERE comment_id % 4 = 0"
        " AND comment_id - 1 IN (SELECT id FROM comments)",
        "DELETE FROM comments WHERE parent_id IS NOT NULL AND id % 3 = 0",
        "DELETE FROM comments",
        "UPDATE comments SET owner_id = NULL WHERE id % 3 = 0",
        "UPDATE comments SET content = 'y'",
        "DELETE FROM posts WHERE id = (SELECT min(id) FROM posts)",
        "DELETE FROM users WHERE id = (SELECT max(id) FROM users)",
        "TRUNCATE comment_votes",
        "TRUNCATE comments CASCADE",
    ],
)
def test_counts_are_right_after_any_statement(connection: Connection, posts: list[int], statement: str) -> None:
    before = rows(connection, "SELECT sum(comments) FROM post_stats")
    assert before == [60]

    connection.execute(text(statement))

    assert wrong_counts() == []
    assert len(posts) == 2


def test_accounts_that_are_deleted_by_hand_leave_tombstones(connection: Connection, posts: list[int]) -> None:
    connection.execute(text("DELETE FROM users WHERE id = (SELECT owner_id FROM comments WHERE depth = 0 LIMIT 1)"))

    (kept,) = rows(connection, "SELECT count(*) FROM comments WHERE deleted_at IS NOT NULL AND content = ''")
    assert kept == 20
    assert rows(connection, "SELECT comments FROM post_stats ORDER BY post_id") == [20, 20]
    assert len(posts) == 2


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE comments SET parent_id = id WHERE depth = 1", "comments_parent_check"),
        (
            "UPDATE comments SET parent_id = (SELECT min(id) FROM comments) WHERE post_id = (SELECT max(id) FROM posts)"
            " AND depth = 1",
            "comments_comments_fkey",
        ),
        ("DELETE FROM comments WHERE depth = 0", "comments_comments_fkey"),
        ("UPDATE comments SET deleted_at = now()", "comments_tombstone_check"),
    ],
)
def test_the_database_keeps_comments_a_forest(
    database: Engine, connection: Connection, posts: list[int], statement: str, constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint), database.begin() as writing:
        writing.execute(text(statement))
    assert rows(connection, "SELECT count(*) FROM comments") == [60]
    assert len(posts) == 2
