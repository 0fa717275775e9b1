"""`recount` finds and repairs counts that differ from the votes, during any writes."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from app.services import recount
from tests.fixtures import Person
from tests.races.conftest import wrong_counts
from tests.races.waiting import in_background, wait_until_blocked

MakePost = Callable[..., int]


def break_counts(database: Engine, statement: str) -> None:
    """Change something behind the triggers' back."""
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(statement))


def run(*, is_repairing: bool, batch_rows: int = 2) -> tuple[list[int], int]:
    """Run it, and leave out the accounts (test_user_counts)."""
    batches = [
        batch for batch in recount.recount(is_repairing=is_repairing, batch_rows=batch_rows) if batch.table != "users"
    ]
    return [post_id for batch in batches for post_id in batch.wrong], sum(batch.repaired for batch in batches)


@pytest.fixture
def posts(make_post: MakePost, person: Person, cast_votes: Callable[[int, list[Person]], None]) -> list[int]:
    """Five posts with a vote each."""
    made = [make_post(person) for _ in range(5)]
    for post_id in made:
        cast_votes(post_id, [person])
    return made


def test_right_counts_are_left_alone(connection: Connection, posts: list[int]) -> None:
    before = connection.execute(text("SELECT xmin::text, * FROM post_stats ORDER BY post_id")).all()

    assert run(is_repairing=True) == ([], 0)

    assert connection.execute(text("SELECT xmin::text, * FROM post_stats ORDER BY post_id")).all() == before
    assert len(posts) == 5


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE post_stats SET votes = 7 WHERE post_id IN ({0}, {4})",
        "DELETE FROM votes WHERE post_id IN ({0}, {4})",
        "DELETE FROM post_stats WHERE post_id IN ({0}, {4})",
        "UPDATE posts SET published = false WHERE id IN ({0}, {4})",
        "UPDATE posts SET created_at = '2020-01-01Z' WHERE id IN ({0}, {4})",
    ],
)
def test_differences_are_found_and_then_repaired(
    database: Engine, connection: Connection, posts: list[int], harm: str
) -> None:
    # The statistics may be of the many rows of another test. The sample would then be a part of the few pages.
    connection.execute(text("ANALYZE posts, comments, users"))
    break_counts(database, harm.format(*posts))
    wrong = [posts[0], posts[4]]
    wrong_users = 1 if "published" in harm else 0

    assert run(is_repairing=False) == (wrong, 0)
    assert recount.wrong_in_sample(connection, 100) == 2 + wrong_users
    found, mended = run(is_repairing=True)

    assert found == wrong
    assert mended == 2 or harm.startswith("DELETE FROM post_stats")  # A new row may be right from the start.
    assert wrong_counts(connection) == 0
    assert run(is_repairing=False) == ([], 0)
    assert recount.wrong_in_sample(connection, 100) == 0


@pytest.mark.parametrize(
    ("harm", "wrong"),
    [
        ("UPDATE comment_stats SET votes = 7 WHERE comment_id = {0}", ["parent"]),
        ("UPDATE comment_stats SET replies = 7 WHERE comment_id IN ({0}, {1})", ["parent", "reply"]),
        ("UPDATE comment_stats SET parent_key = 0 WHERE comment_id = {1}", ["reply"]),
        ("DELETE FROM comment_votes", ["reply"]),
        ("DELETE FROM comment_stats WHERE comment_id = {1}", ["reply"]),
        ("DELETE FROM comments WHERE id = {1}", ["post", "parent"]),
        ("UPDATE post_stats SET comments = 7", ["post"]),
    ],
)
def test_differences_of_comments_are_found_and_then_repaired(
    database: Engine,
    connection: Connection,
    person: Person,
    make_post: MakePost,
    make_comment: Callable[..., int],
    harm: str,
    wrong: list[str],
) -> None:
    post_id = make_post(person)
    parent = make_comment(person, post_id)
    reply = make_comment(person, post_id, parent_id=parent)
    connection.execute(text("INSERT INTO comment_votes VALUES (:id, :voter)"), {"id": reply, "voter": person.id})
    connection.execute(text("ANALYZE posts, comments"))  # The size of the sample depends on what is known of them.
    assert run(is_repairing=False) == ([], 0)
    break_counts(database, harm.format(parent, reply))
    ids = {"post": post_id, "parent": parent, "reply": reply}

    assert recount.wrong_in_sample(connection, 100) == len(wrong)
    assert run(is_repairing=True)[0] == [ids[name] for name in wrong]

    assert run(is_repairing=False) == ([], 0)
    assert recount.wrong_in_sample(connection, 100) == 0
    connection.execute(text("DELETE FROM comment_stats"))  # Also those of a comment that is gone.


def test_vote_under_way_is_waited_for_and_counted(
    database: Engine, connection: Connection, posts: list[int], make_person: Callable[..., Person]
) -> None:
    break_counts(database, f"UPDATE post_stats SET votes = 7 WHERE post_id = {posts[0]}")
    voter = make_person()
    with database.begin() as voting:
        voting.execute(text("INSERT INTO votes (post_id, user_id) VALUES (:p, :u)"), {"p": posts[0], "u": voter.id})
        mending = in_background(lambda: run(is_repairing=True))
        wait_until_blocked(connection, by=voting)

    assert mending() == ([posts[0]], 1)
    assert connection.scalar(text("SELECT votes FROM post_stats WHERE post_id = :id"), {"id": posts[0]}) == 2


def test_a_vote_that_waits_for_the_repair_is_counted_on_top(
    database: Engine, connection: Connection, posts: list[int], make_person: Callable[..., Person]
) -> None:
    break_counts(database, f"UPDATE post_stats SET votes = 7 WHERE post_id = {posts[0]}")
    voter = make_person()

    def vote() -> None:
        with database.begin() as voting:
            voting.execute(text("INSERT INTO votes (post_id, user_id) VALUES (:p, :u)"), {"p": posts[0], "u": voter.id})

    with database.begin() as mending:
        *preparing, correct = recount.POSTS.repair()
        for statement in preparing:
            mending.execute(statement, {"ids": posts[:1]})
        voting = in_background(vote)
        wait_until_blocked(connection, by=mending)
        mending.execute(correct, {"ids": posts[:1]})
    voting()

    assert connection.scalar(text("SELECT votes FROM post_stats WHERE post_id = :id"), {"id": posts[0]}) == 2
