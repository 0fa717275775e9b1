"""Counts equal rows, for every way to write them."""

import math
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from tests.fixtures import Person
from tests.services.walking import cast_at_random, make_posts, make_voters, rows

WRONG_COUNTS = text("""
    SELECT posts.id, post_stats.votes, (SELECT count(*) FROM votes WHERE post_id = posts.id) AS rows
    FROM posts LEFT JOIN post_stats ON post_stats.post_id = posts.id
    WHERE post_stats.votes IS DISTINCT FROM (SELECT count(*) FROM votes WHERE post_id = posts.id)
        OR post_stats.published <> posts.published OR post_stats.created_at <> posts.created_at
        OR abs(post_stats.hot - hot_score(post_stats.votes, posts.created_at)) > 0
    UNION ALL
    SELECT post_id, votes, NULL FROM post_stats WHERE NOT EXISTS (SELECT FROM posts WHERE id = post_id)
""")


@pytest.fixture
def posts(connection: Connection, person: Person, voters: list[int]) -> Iterator[list[int]]:
    """40 posts with votes. When the test ends, the counts equal the rows."""
    post_ids = make_posts(connection, person, 40)
    cast_at_random(connection, voters, 0.5)
    yield post_ids
    assert connection.execute(WRONG_COUNTS).all() == []


@pytest.fixture
def voters(connection: Connection) -> list[int]:
    return make_voters(connection, 20)


def votes_of(connection: Connection, post_id: int) -> int:
    (count,) = rows(connection, "SELECT votes FROM post_stats WHERE post_id = :post_id", post_id=post_id)
    return int(count)


def total(connection: Connection) -> int:
    return int(rows(connection, "SELECT sum(votes) FROM post_stats")[0])


def test_counts_that_are_wrong_would_be_found(connection: Connection, posts: list[int]) -> None:
    # The proof of all the others: what they assert at their end does not hold by itself.
    connection.execute(text("UPDATE post_stats SET votes = votes + 1 WHERE post_id = :id"), {"id": posts[0]})
    assert [row.id for row in connection.execute(WRONG_COUNTS)] == [posts[0]]
    connection.execute(text("UPDATE post_stats SET votes = votes - 1 WHERE post_id = :id"), {"id": posts[0]})


def test_votes_through_the_api_are_counted(
    client: TestClient, connection: Connection, posts: list[int], person: Person
) -> None:
    before = votes_of(connection, posts[3])
    for direction, status, votes in ((1, 201, before + 1), (1, 409, None), (0, 201, before), (0, 404, None)):
        response = client.post("/vote", json={"post_id": posts[3], "vote_dir": direction}, headers=person.headers)
        assert (response.status_code, response.json().get("votes")) == (status, votes)
    for _ in range(2):
        response = client.put(f"/posts/{posts[4]}/vote", headers=person.headers)
        assert response.json()["votes"] == votes_of(connection, posts[4])
    assert client.delete(f"/posts/{posts[4]}/vote", headers=person.headers).json()["votes"] == votes_of(
        connection, posts[4]
    )


def test_votes_written_by_hand_in_bulk_are_counted(connection: Connection, posts: list[int], voters: list[int]) -> None:
    everyone = {"posts": posts, "voters": voters}
    connection.execute(
        text("""
            INSERT INTO votes (post_id, user_id)
            SELECT post_id, voter FROM unnest(CAST(:posts AS bigint[])) AS post_id,
                unnest(CAST(:voters AS bigint[])) AS voter
            ON CONFLICT DO NOTHING
        """),
        everyone,
    )
    assert total(connection) == len(posts) * len(voters)
    assert connection.execute(WRONG_COUNTS).all() == []
    connection.execute(text("DELETE FROM votes WHERE user_id = ANY (:half)"), {"half": voters[::2]})
    assert total(connection) == len(posts) * len(voters) // 2


def test_insert_of_existing_votes_counts_nothing(connection: Connection, posts: list[int]) -> None:
    before = total(connection)
    connection.execute(
        text("INSERT INTO votes (post_id, user_id) SELECT post_id, user_id FROM votes ON CONFLICT DO NOTHING")
    )
    connection.execute(
        text("""
            INSERT INTO votes (post_id, user_id) SELECT post_id, user_id FROM votes
            ON CONFLICT (post_id, user_id) DO UPDATE SET created_at = now()
        """)
    )
    assert total(connection) == before
    assert posts


def test_votes_moved_to_other_posts_are_counted_there(
    connection: Connection, posts: list[int], voters: list[int]
) -> None:
    connection.execute(text("DELETE FROM votes"))
    connection.execute(
        text("INSERT INTO votes (post_id, user_id) SELECT :id, unnest(CAST(:voters AS bigint[]))"),
        {"id": posts[0], "voters": voters},
    )
    connection.execute(
        text("UPDATE votes SET post_id = :id WHERE user_id > :some"), {"id": posts[1], "some": voters[4]}
    )
    assert (votes_of(connection, posts[0]), votes_of(connection, posts[1])) == (5, len(voters) - 5)
    connection.execute(text("UPDATE votes SET created_at = now()"))
    assert total(connection) == len(voters)


def test_posts_deleted_with_their_votes_leave_nothing_behind(connection: Connection, posts: list[int]) -> None:
    connection.execute(text("DELETE FROM posts WHERE id = ANY (:some)"), {"some": posts[::2]})
    assert rows(connection, "SELECT post_id FROM post_stats ORDER BY 1") == posts[1::2]


def test_users_deleted_take_their_votes_from_the_counts(
    connection: Connection, posts: list[int], voters: list[int]
) -> None:
    before = total(connection)
    (theirs,) = rows(connection, "SELECT count(*) FROM votes WHERE user_id = ANY (:some)", some=voters[:7])
    assert theirs > 0
    connection.execute(text("DELETE FROM users WHERE id = ANY (:some)"), {"some": voters[:7]})
    assert total(connection) == before - theirs
    assert len(posts) == 40


def test_deleting_an_owner_deletes_posts_and_counts(connection: Connection, posts: list[int], person: Person) -> None:
    connection.execute(text("INSERT INTO votes (post_id, user_id) SELECT id, owner_id FROM posts"))
    assert posts
    connection.execute(text("DELETE FROM users WHERE id = :id"), {"id": person.id})
    assert rows(connection, "SELECT post_id FROM post_stats") == []


def test_truncated_votes_count_nothing(connection: Connection, posts: list[int]) -> None:
    assert total(connection) > 0
    connection.execute(text("TRUNCATE votes"))
    assert total(connection) == 0
    assert len(rows(connection, "SELECT post_id FROM post_stats")) == len(posts)


def test_rolled_back_votes_count_nothing(database: Engine, connection: Connection, posts: list[int]) -> None:
    before = total(connection)
    with database.connect() as other:
        other.execute(text("DELETE FROM votes"))
        other.execute(text("SAVEPOINT s"))
        other.execute(text("INSERT INTO votes (post_id, user_id) SELECT id, owner_id FROM posts"))
        other.execute(text("ROLLBACK TO s"))
        other.rollback()
    assert total(connection) == before
    assert posts


def test_statement_that_fails_half_way_counts_nothing(connection: Connection, posts: list[int], person: Person) -> None:
    before = total(connection)
    with pytest.raises(IntegrityError):
        connection.execute(
            text("INSERT INTO votes (post_id, user_id) VALUES (:post, :user), (:post, 0)"),
            {"post": posts[0], "user": person.id},
        )
    assert total(connection) == before


def test_every_post_has_its_counts_from_the_start(connection: Connection, posts: list[int], person: Person) -> None:
    made = rows(
        connection,
        """
        INSERT INTO posts (owner_id, title, content, published, created_at)
        SELECT :id, 'bulk', 'bulk', n % 2 = 0, now() - interval '1 day' * n FROM generate_series(1, 10) AS n
        RETURNING id
        """,
        id=person.id,
    )
    assert rows(connection, "SELECT votes FROM post_stats WHERE post_id = ANY (:made)", made=made) == [0] * 10
    assert len(rows(connection, "SELECT post_id FROM post_stats WHERE published")) == len(posts) + 5


def test_counts_follow_when_posts_are_hidden_or_dated_anew(connection: Connection, posts: list[int]) -> None:
    some = {"some": posts[:20]}
    connection.execute(text("UPDATE posts SET published = false WHERE id = ANY (:some)"), some)
    assert rows(connection, "SELECT post_id FROM post_stats WHERE published ORDER BY 1") == posts[20:]
    connection.execute(text("UPDATE posts SET created_at = created_at - interval '3 days', published = true"))


@pytest.mark.parametrize("count", [0, 1, 9])
def test_hot_is_the_formula(connection: Connection, posts: list[int], voters: list[int], count: int) -> None:
    connection.execute(text("DELETE FROM votes"))
    connection.execute(
        text("INSERT INTO votes (post_id, user_id) SELECT :id, unnest(CAST(:voters AS bigint[]))"),
        {"id": posts[0], "voters": voters[:count]},
    )
    hot, seconds = connection.execute(
        text("""
            SELECT hot, extract(epoch FROM created_at - timestamptz '2020-01-01 00:00:00+00')::float8
            FROM post_stats WHERE post_id = :id
        """),
        {"id": posts[0]},
    ).one()
    assert hot == pytest.approx(math.log10(1 + count) + seconds / 45000, rel=1e-14)


def test_votes_and_repaired_counts_write_no_history(
    connection: Connection, posts: list[int], voters: list[int]
) -> None:
    connection.execute(
        text(
            "INSERT INTO votes (post_id, user_id) SELECT :id, unnest(CAST(:voters AS bigint[])) ON CONFLICT DO NOTHING"
        ),
        {"id": posts[0], "voters": voters},
    )
    connection.execute(text("DELETE FROM votes"))
    assert rows(connection, "SELECT post_id FROM post_stats_history") == []
