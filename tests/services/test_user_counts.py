"""Counts of accounts equal rows, for every way to write them."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from app.services import recount
from tests.fixtures import Person
from tests.races.waiting import in_background, wait_until_blocked
from tests.services.test_recount import break_counts
from tests.services.walking import make_posts, rows

WRONG = text("""
    SELECT users.id FROM users LEFT JOIN user_stats ON user_id = users.id
    WHERE coalesce(posts, 0) <> (SELECT count(*) FROM posts WHERE owner_id = users.id AND published)
        OR coalesce(followers, 0) <> (SELECT count(*) FROM follows WHERE followee_id = users.id)
        OR coalesce(following, 0) <> (SELECT count(*) FROM follows WHERE follower_id = users.id)
    UNION ALL SELECT user_id FROM user_stats WHERE NOT EXISTS (SELECT FROM users WHERE id = user_id)
    ORDER BY 1
""")


@pytest.fixture
def people(connection: Connection, make_person: Callable[..., Person]) -> Iterator[list[Person]]:
    """Four accounts, of which the first three have published posts and the last two followers.

    When the test ends, the counts equal the rows.
    """
    made = [make_person() for _ in range(4)]
    for number, person in enumerate(made[:3], 1):
        make_posts(connection, person, number)
    first, second, third, fourth = (person.id for person in made)
    connection.execute(
        text("INSERT INTO follows (follower_id, followee_id) SELECT * FROM unnest(:a, :b)"),
        {"a": [first, second, first], "b": [third, third, fourth]},
    )
    yield made
    assert connection.scalars(WRONG).all() == []


def posts_of(connection: Connection, people: list[Person]) -> list[int]:
    counts = {row.user_id: row.posts for row in connection.execute(text("SELECT user_id, posts FROM user_stats"))}
    return [counts.get(person.id, 0) for person in people]


def test_counts_that_are_wrong_would_be_found(connection: Connection, people: list[Person]) -> None:
    connection.execute(text("UPDATE user_stats SET posts = posts + 1 WHERE user_id = :id"), {"id": people[1].id})
    assert connection.scalars(WRONG).all() == [people[1].id]
    connection.execute(text("UPDATE user_stats SET posts = posts - 1 WHERE user_id = :id"), {"id": people[1].id})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("INSERT INTO posts (title, content, owner_id) SELECT 't', 'c', owner_id FROM posts", [2, 4, 6, 0]),
        (
            "INSERT INTO posts (title, content, owner_id, published) SELECT 't', 'c', :last, n > 1"
            " FROM generate_series(1, 3) AS n",
            [1, 2, 3, 2],
        ),
        ("INSERT INTO posts (title, content, owner_id) SELECT 't', 'c', 1 WHERE false", [1, 2, 3, 0]),
        ("DELETE FROM posts WHERE id IN (SELECT min(id) FROM posts GROUP BY owner_id)", [0, 1, 2, 0]),
        ("DELETE FROM posts", [0, 0, 0, 0]),
        ("DELETE FROM posts WHERE false", [1, 2, 3, 0]),
        ("TRUNCATE posts CASCADE", [0, 0, 0, 0]),
        ("UPDATE posts SET published = false", [0, 0, 0, 0]),
        ("UPDATE posts SET title = 'other', published = published", [1, 2, 3, 0]),
        ("UPDATE posts SET owner_id = :last", [0, 0, 0, 6]),
        ("UPDATE posts SET owner_id = :last, published = false WHERE owner_id = :first", [0, 2, 3, 0]),
    ],
)
def test_posts_written_by_hand_are_counted(
    connection: Connection, people: list[Person], statement: str, expected: list[int]
) -> None:
    connection.execute(text(statement), {"first": people[0].id, "last": people[3].id} if ":" in statement else {})

    assert posts_of(connection, people) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("INSERT INTO follows (follower_id, followee_id) SELECT followee_id, follower_id FROM follows",
         [(2, 2), (1, 1), (2, 2), (1, 1)]),
        ("INSERT INTO follows SELECT * FROM follows ON CONFLICT DO NOTHING", [(0, 2), (0, 1), (2, 0), (1, 0)]),
        ("DELETE FROM follows WHERE follower_id = :first", [(0, 0), (0, 1), (1, 0), (0, 0)]),
        ("DELETE FROM follows", [(0, 0), (0, 0), (0, 0), (0, 0)]),
        ("TRUNCATE follows", [(0, 0), (0, 0), (0, 0), (0, 0)]),
        ("UPDATE follows SET follower_id = :second WHERE followee_id = :last", [(0, 1), (0, 2), (2, 0), (1, 0)]),
    ],
)  # fmt: skip
def test_follows_written_by_hand_are_counted(
    connection: Connection, people: list[Person], statement: str, expected: list[tuple[int, int]]
) -> None:
    values = {"first": people[0].id, "second": people[1].id, "last": people[3].id}
    connection.execute(text(statement), values)

    counts = text("SELECT followers, following FROM user_stats ORDER BY user_id")
    assert [(row.followers, row.following) for row in connection.execute(counts)] == expected


def test_publishing_a_draft_counts_it(connection: Connection, people: list[Person]) -> None:
    connection.execute(text("UPDATE posts SET published = false"))
    connection.execute(text("UPDATE posts SET published = true"))

    assert posts_of(connection, people) == [1, 2, 3, 0]


def test_rolled_back_posts_are_not_counted(database: Engine, connection: Connection, people: list[Person]) -> None:
    with database.connect() as writing:
        make_posts(writing, people[0], 5)
        writing.rollback()

    assert posts_of(connection, people) == [1, 2, 3, 0]


def test_deleted_account_leaves_no_counts(connection: Connection, people: list[Person]) -> None:
    connection.execute(text("DELETE FROM users WHERE id = :id"), {"id": people[2].id})

    left = [people[0].id, people[1].id, people[3].id]
    assert rows(connection, "SELECT user_id FROM user_stats ORDER BY 1") == left


@pytest.mark.parametrize(
    "harm", ["UPDATE user_stats SET posts = 7 WHERE user_id = {0}", "DELETE FROM user_stats WHERE user_id = {0}",
             "UPDATE posts SET published = false WHERE owner_id = {0}", "DELETE FROM posts WHERE owner_id = {0}",
             "UPDATE user_stats SET followers = 7 WHERE user_id = {0}"],
)  # fmt: skip
def test_wrong_counts_are_found_and_repaired(
    database: Engine, connection: Connection, people: list[Person], harm: str
) -> None:
    break_counts(database, harm.format(people[1].id))

    def wrong(*, is_repairing: bool) -> list[int]:
        batches = recount.recount(is_repairing=is_repairing, batch_rows=2)
        return [user_id for batch in batches if batch.table == "users" for user_id in batch.wrong]

    assert wrong(is_repairing=False) == [people[1].id]
    wrong_posts = 2 if harm.startswith("UPDATE posts") else 0
    assert recount.wrong_in_sample(connection, 100) == 1 + wrong_posts
    assert wrong(is_repairing=True) == [people[1].id]
    assert wrong(is_repairing=False) == []
    connection.execute(text("DELETE FROM post_stats WHERE post_id NOT IN (SELECT id FROM posts)"))  # Of deleted posts.


def test_follow_under_way_is_waited_for_and_counted(
    database: Engine, connection: Connection, people: list[Person]
) -> None:
    break_counts(database, f"UPDATE user_stats SET followers = 7 WHERE user_id = {people[2].id}")
    pair = {"a": people[3].id, "b": people[2].id}
    with database.begin() as writing:
        writing.execute(text("INSERT INTO follows (follower_id, followee_id) VALUES (:a, :b)"), pair)
        mending = in_background(lambda: list(recount.recount(is_repairing=True)))
        wait_until_blocked(connection, by=writing)

    assert [batch.wrong for batch in mending() if batch.wrong] == [[people[2].id]]
    assert connection.scalar(text("SELECT followers FROM user_stats WHERE user_id = :b"), pair) == 3
